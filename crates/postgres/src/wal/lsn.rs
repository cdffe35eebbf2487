//! A position in the write-ahead log.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::WalSegmentSize;

/// A position in the write-ahead log, in bytes since its beginning (`pg_lsn`).
///
/// Written `16/B374D848`, also in JSON: the two halves in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's "no position": no WAL lies there.
    pub const INVALID: Lsn = Lsn(0);

    /// The position of the first byte of the segment that this position is in.
    pub fn segment_start(self, size: WalSegmentSize) -> Lsn {
        Lsn(self.0 - self.segment_offset(size))
    }

    /// How far into its segment the position is, in bytes.
    pub fn segment_offset(self, size: WalSegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// The bytes from an earlier position to this one; zero if it is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// So many bytes on. It stops at the end of all positions, which 16 exabytes of WAL would reach.
impl Add<u64> for Lsn {
    type Output = Lsn;

    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

impl AddAssign<u64> for Lsn {
    fn add_assign(&mut self, bytes: u64) {
        *self = *self + bytes;
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Failure;

    /// Reads what the server's type `pg_lsn` reads: two halves of one to eight hexadecimal digits.
    fn from_str(text: &str) -> Result<Lsn, Failure> {
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        match halves {
            Some((high, low)) => Ok(Lsn((high << 32) | low)),
            None => Err(Failure::usage(text::replication::BAD_LSN.with("text", text.escape_debug()))),
        }
    }
}

fn half(digits: &str) -> Option<u64> {
    super::segment::hex(digits).filter(|_| digits.len() <= 8)
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = Failure;

    fn try_from(text: String) -> Result<Lsn, Failure> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_the_server_does() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("0/0".parse::<Lsn>().unwrap(), Lsn::INVALID);
        assert_eq!("ffffffff/FFFFFFFF".parse::<Lsn>().unwrap(), Lsn(u64::MAX));
        // PostgreSQL 19 writes the second half with all its digits.
        assert_eq!("0/0000A1B2".parse::<Lsn>().unwrap().to_string(), "0/A1B2");
        for bad in
            ["", "/", "1/", "/1", "1", "1/2/3", "123456789/0", "0/123456789", "+1/0", "0x1/0", " 1/0", "g/0"]
        {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn is_its_text_in_json() {
        let json = serde_json::to_string(&Lsn(0x1_0000_0028)).unwrap();
        assert_eq!(json, "\"1/28\"");
        assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), Lsn(0x1_0000_0028));
        assert!(serde_json::from_str::<Lsn>("\"1-28\"").is_err());
    }

    #[test]
    fn arithmetic_never_wraps() {
        let size = WalSegmentSize::DEFAULT;
        let lsn = Lsn(0x1_0200_0028);
        assert_eq!(lsn.segment_start(size), Lsn(0x1_0200_0000));
        assert_eq!(lsn.segment_offset(size), 0x28);
        assert_eq!(lsn + 0x10, Lsn(0x1_0200_0038));
        assert_eq!(lsn.bytes_since(lsn.segment_start(size)), 0x28);
        assert_eq!(Lsn(1).bytes_since(lsn), 0);
        let mut last = Lsn(u64::MAX);
        last += 1;
        assert_eq!(last, Lsn(u64::MAX));
        assert!(Lsn(9) < Lsn(0x10) && Lsn(0xFFFF_FFFF) < Lsn(0x1_0000_0000));
    }
}
