//! The small values of the file that have a form of their own: networks and times of day.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A network in CIDR form: `10.20.0.0/16`, `2001:db8::/32`, one address as `203.0.113.7/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network's first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is the whole internet, which as a rule of access is no rule.
    pub fn is_everywhere(&self) -> bool {
        self.prefix == 0
    }

    /// Whether every address of another network is in this one.
    pub fn covers(&self, other: &Network) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix <= other.prefix
            && first(other.address, self.prefix) == self.address
    }

    /// The network that this text must have meant, for the hint of an error.
    pub(crate) fn meant_by(written: &str) -> Option<Network> {
        let (address, prefix) = written.split_once('/').unwrap_or((written, ""));
        let address: IpAddr = address.trim().parse().ok()?;
        let bits = bits(address);
        let prefix = if prefix.is_empty() { bits } else { prefix.trim().parse().ok()? };
        (prefix <= bits).then(|| Network { address: first(address, prefix), prefix })
    }
}

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as ADDRESS/BITS, such as 10.20.0.0/16")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(written: &str) -> Result<Network, NotANetwork> {
        let network = Network::meant_by(written).ok_or(NotANetwork)?;
        // Host bits, a missing prefix or spaces: PostgreSQL's `cidr` and security groups
        // refuse them too, and guessing here could open more than was meant.
        if network.to_string() == written.to_lowercase() { Ok(network) } else { Err(NotANetwork) }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(written: String) -> Result<Network, NotANetwork> {
        written.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A network in CIDR form: `10.20.0.0/16`, `2001:db8::/32`; one address is `203.0.113.7/32`.",
            "type": "string",
            "format": "network",
        })
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network that holds this one.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into())
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
    pub(crate) const fn at(hour: u8, minute: u8) -> Clock {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time of day is written as HH:MM, such as 03:00")]
pub struct NotAClock;

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
    fn a_network_is_written_exactly() {
        for written in ["10.20.0.0/16", "0.0.0.0/0", "203.0.113.7/32", "2001:db8::/32", "::1/128", "::/0"] {
            assert_eq!(written.parse::<Network>().map(|network| network.to_string()), Ok(written.to_owned()));
        }
        for (written, meant) in [
            ("10.20.0.5/16", Some("10.20.0.0/16")),
            ("10.20.0.5", Some("10.20.0.5/32")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            (" 10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.0/33", None),
            ("::/129", None),
            ("10.0.0/8", None),
            ("localhost", None),
            ("", None),
        ] {
            assert!(written.parse::<Network>().is_err(), "{written}");
            assert_eq!(
                Network::meant_by(written).map(|network| network.to_string()).as_deref(),
                meant,
                "{written}"
            );
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_and_two() {
        assert_eq!("03:05".parse(), Ok(Clock::at(3, 5)));
        assert_eq!(Clock::at(23, 59).to_string(), "23:59");
        for written in ["3:05", "24:00", "12:60", "12:5", "+1:00", "12", "12:00:00", ""] {
            assert_eq!(written.parse::<Clock>(), Err(NotAClock), "{written}");
        }
    }
}
