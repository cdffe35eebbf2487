//! A length of time as people write it in the strategy: `30 days`, `90d`, `15 min`, `4 horas`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Failure, Language, text};

/// A length of time in whole seconds. It is written as `30 days`, `90d`, `1 h 30 min`, `30 días`.
///
/// Months and years are refused: their length depends on the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(u64);

/// One unit: its seconds, its symbol, its name in each language (one, many), other spellings.
struct Unit {
    seconds: u64,
    symbol: &'static str,
    en: (&'static str, &'static str),
    es: (&'static str, &'static str),
    also: &'static [&'static str],
}

/// From the largest, which is what the canonical form prefers.
const UNITS: [Unit; 4] = [
    Unit { seconds: 86_400, symbol: "d", en: ("day", "days"), es: ("día", "días"), also: &["dia", "dias"] },
    Unit { seconds: 3_600, symbol: "h", en: ("hour", "hours"), es: ("hora", "horas"), also: &["hr", "hrs"] },
    Unit {
        seconds: 60,
        symbol: "min",
        en: ("minute", "minutes"),
        es: ("minuto", "minutos"),
        also: &["m", "mins"],
    },
    Unit {
        seconds: 1,
        symbol: "s",
        en: ("second", "seconds"),
        es: ("segundo", "segundos"),
        also: &["sec", "secs", "seg"],
    },
];

/// Weeks are read but never written.
const WEEK: Unit =
    Unit { seconds: 7 * 86_400, symbol: "w", en: ("week", "weeks"), es: ("semana", "semanas"), also: &[] };

impl HumanDuration {
    /// So many seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        HumanDuration(seconds)
    }

    /// So many days of 24 hours.
    pub const fn from_days(days: u64) -> Self {
        HumanDuration(days * 86_400)
    }

    /// The length in seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// The length for the standard library's clocks and time-outs.
    pub const fn to_std(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// The moment that was so long ago; the beginning of time where there was none.
    pub fn before(self, now: Timestamp) -> Timestamp {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
    }

    /// With the unit's symbol, which is the same in every language: `30 d`, `15 min`. For the fields
    /// of a message, whose language is not known yet.
    pub fn short(self) -> String {
        let unit = self.unit();
        format!("{} {}", self.0 / unit.seconds, unit.symbol)
    }

    /// The canonical form in a language: `30 days`, `30 días`.
    pub fn say(self, language: Language) -> String {
        let unit = self.unit();
        let count = self.0 / unit.seconds;
        let (one, many) = match language {
            Language::En => unit.en,
            Language::Es => unit.es,
        };
        format!("{count} {}", if count == 1 { one } else { many })
    }

    /// The largest unit of which this is a whole number.
    fn unit(self) -> &'static Unit {
        let whole = |unit: &&Unit| self.0 != 0 && self.0.is_multiple_of(unit.seconds);
        UNITS.iter().find(whole).unwrap_or(&UNITS[UNITS.len() - 1])
    }
}

/// The canonical English form, which parses back to the same length.
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.say(Language::En))
    }
}

impl FromStr for HumanDuration {
    type Err = Failure;

    fn from_str(written: &str) -> Result<Self, Failure> {
        let refused = || Failure::usage(text::evidence::DURATION_UNREADABLE.with("value", written));
        let mut rest = written.trim();
        let mut total = 0_u64;
        if rest.is_empty() {
            return Err(refused());
        }
        while !rest.is_empty() {
            let (count, after) = split_where(rest, |c| !c.is_ascii_digit());
            let (name, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
            let count: u64 = count.parse().map_err(|_| refused())?;
            let seconds = seconds_of(name).ok_or_else(refused)?;
            total = count.checked_mul(seconds).and_then(|n| n.checked_add(total)).ok_or_else(refused)?;
            rest = after.trim_start();
        }
        Ok(HumanDuration(total))
    }
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn seconds_of(name: &str) -> Option<u64> {
    let name = name.to_lowercase();
    let named = |unit: &&Unit| {
        [unit.symbol, unit.en.0, unit.en.1, unit.es.0, unit.es.1].contains(&name.as_str())
            || unit.also.contains(&name.as_str())
    };
    UNITS.iter().chain([&WEEK]).find(named).map(|unit| unit.seconds)
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        written.parse().map_err(|failure: Failure| de::Error::custom(failure.what))
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "human-duration",
            "description": "A length of time: \"30 days\", \"90d\", \"15 min\", \"1 h 30 min\", \"4 horas\".",
            "pattern": r"^\s*(\d+\s*[A-Za-zíÍ]+\s*)+$",
            "examples": ["30 days", "15 min", "4 hours"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(written: &str) -> Option<u64> {
        written.parse::<HumanDuration>().ok().map(HumanDuration::seconds)
    }

    #[test]
    fn reads_what_people_write() {
        for (written, expected) in [
            ("30 days", 30 * 86_400),
            ("90d", 90 * 86_400),
            ("15 min", 900),
            ("4 hours", 14_400),
            ("30 días", 30 * 86_400),
            ("1 DÍA", 86_400),
            ("60s", 60),
            (" 1h30m ", 5_400),
            ("1 hora 30 minutos", 5_400),
            ("2 weeks", 14 * 86_400),
            ("0s", 0),
        ] {
            assert_eq!(seconds(written), Some(expected), "{written}");
        }
    }

    #[test]
    fn refuses_what_is_ambiguous_or_impossible() {
        for written in
            ["", " ", "30", "days", "3 months", "1.5 hours", "-1 day", "99999999999999999 days", "5 min,"]
        {
            assert_eq!(seconds(written), None, "{written:?}");
        }
    }

    #[test]
    fn the_canonical_form_reads_back() {
        for (length, en, es) in [
            (0, "0 seconds", "0 segundos"),
            (1, "1 second", "1 segundo"),
            (5_400, "90 minutes", "90 minutos"),
            (14_400, "4 hours", "4 horas"),
            (86_400, "1 day", "1 día"),
            (14 * 86_400, "14 days", "14 días"),
        ] {
            let duration = HumanDuration::from_seconds(length);
            assert_eq!(duration.to_string(), en);
            assert_eq!(duration.say(Language::Es), es);
            assert_eq!(seconds(en), Some(length));
            assert_eq!(seconds(&duration.short()), Some(length));
            assert_eq!(seconds(es), Some(length));
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        let error = serde_json::from_str::<HumanDuration>("\"3 months\"").unwrap_err().to_string();
        assert!(error.contains("3 months"), "{error}");
    }
}
