//! The small values of the file that have a form of their own: networks.

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
}
