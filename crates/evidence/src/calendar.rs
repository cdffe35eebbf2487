//! Recurrences and times of day, as a strategy states them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How often something recurs, in the calendar's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// Every hour.
    Hour,
    /// Every day.
    Day,
    /// Every week.
    Week,
    /// Every month.
    Month,
    /// Every three months.
    Quarter,
    /// Every year.
    Year,
}

impl Every {
    /// The longest time between two recurrences, in days of the calendar's longest unit.
    pub fn days_max(self) -> u64 {
        match self {
            Every::Hour | Every::Day => 1,
            Every::Week => 7,
            Every::Month => 31,
            Every::Quarter => 92,
            Every::Year => 366,
        }
    }
}

/// A time of day in UTC: `03:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Clock {
    hour: u8,
    minute: u8,
}

impl Clock {
    /// A time that is known to exist.
    pub const fn at(hour: u8, minute: u8) -> Clock {
        assert!(hour < 24 && minute < 60);
        Clock { hour, minute }
    }

    /// The hour, 0 to 23.
    pub fn hour(&self) -> u8 {
        self.hour
    }

    /// The minute, 0 to 59.
    pub fn minute(&self) -> u8 {
        self.minute
    }
}

/// The text is not a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAClock;

impl fmt::Display for NotAClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time of day is written as HH:MM, such as 03:00")
    }
}

impl std::error::Error for NotAClock {}

impl FromStr for Clock {
    type Err = NotAClock;

    fn from_str(written: &str) -> Result<Clock, NotAClock> {
        let (hour, minute) = written.split_once(':').ok_or(NotAClock)?;
        let number = |digits: &str, below: u8| -> Result<u8, NotAClock> {
            let two_digits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|value| two_digits && *value < below).ok_or(NotAClock)
        };
        Ok(Clock { hour: number(hour, 24)?, minute: number(minute, 60)? })
    }
}

impl TryFrom<String> for Clock {
    type Error = NotAClock;

    fn try_from(written: String) -> Result<Clock, NotAClock> {
        written.parse()
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> String {
        clock.to_string()
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl JsonSchema for Clock {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Clock".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time of day in UTC: `03:00`.",
            "type": "string",
            "format": "clock",
            "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_two_digits_and_two() {
        assert_eq!("03:05".parse(), Ok(Clock::at(3, 5)));
        assert_eq!(Clock::at(23, 59).to_string(), "23:59");
        for written in ["3:05", "24:00", "12:60", "12:5", "+1:00", "12", "12:00:00", ""] {
            assert_eq!(written.parse::<Clock>(), Err(NotAClock), "{written}");
        }
    }
}
