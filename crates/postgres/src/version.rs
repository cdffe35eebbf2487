//! The server's version as it tells it itself.

use std::fmt;

use serde::Serialize;

/// A `server_version_num`: 160015 is PostgreSQL 16.15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// The oldest server that the program works with.
    pub const OLDEST: u32 = 14;

    /// The major version: 16 of 16.15.
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// The minor version: 15 of 16.15.
    pub fn minor(self) -> u32 {
        self.0 % 10_000
    }

    /// Whether the server is of this major version or newer.
    pub fn at_least(self, major: u32) -> bool {
        self.major() >= major
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_number_as_people_write_it() {
        let version = ServerVersion(160_015);
        assert_eq!(version.to_string(), "16.15");
        assert!(version.at_least(16));
        assert!(!version.at_least(17));
    }
}
