//! The segments that the write-ahead log is cut into, and their names.

use std::fmt;

use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::{Lsn, TimelineId};
use crate::Result;

/// How large a segment is: a power of two from 1 MiB to 1 GiB (`initdb --wal-segsize`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// 16 MiB, unless initdb was told otherwise.
    pub const DEFAULT: WalSegmentSize = WalSegmentSize(16 << 20);

    /// 1 MiB, the smallest there is: with it, the name of a segment of any size is read as one.
    pub const SMALLEST: WalSegmentSize = WalSegmentSize(1 << 20);

    /// A size in bytes, as `wal_segment_size` has it in `pg_settings`.
    pub fn new(bytes: u64) -> Result<WalSegmentSize> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => {
                Ok(WalSegmentSize(size))
            }
            _ => Err(Failure::usage(text::replication::BAD_SEGMENT_SIZE.with("bytes", bytes))),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments in each 4 GiB of WAL: where the last eight digits of a name begin anew.
    fn per_high_half(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl Default for WalSegmentSize {
    fn default() -> Self {
        WalSegmentSize::DEFAULT
    }
}

impl From<WalSegmentSize> for u64 {
    fn from(size: WalSegmentSize) -> u64 {
        size.bytes()
    }
}

impl TryFrom<u64> for WalSegmentSize {
    type Error = Failure;

    fn try_from(bytes: u64) -> Result<WalSegmentSize> {
        WalSegmentSize::new(bytes)
    }
}

/// Which segment of which timeline. Its file name depends on the size of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentName {
    /// The timeline.
    pub timeline: TimelineId,
    /// The number: segments since the beginning of the log.
    pub number: u64,
}

impl SegmentName {
    /// The segment that holds the byte at a position.
    pub fn containing(lsn: Lsn, timeline: TimelineId, size: WalSegmentSize) -> SegmentName {
        SegmentName { timeline, number: lsn.0 / size.bytes() }
    }

    /// The segment that holds the byte before a position: the last that WAL up to there needs.
    pub fn ending_at(lsn: Lsn, timeline: TimelineId, size: WalSegmentSize) -> SegmentName {
        SegmentName::containing(Lsn(lsn.0.saturating_sub(1)), timeline, size)
    }

    /// Reads 24 hexadecimal digits; `None` if this is not the name of a segment of that size.
    pub fn parse(name: &str, size: WalSegmentSize) -> Option<SegmentName> {
        let digits = |from: usize| hex_upper(name.get(from..from + 8)?);
        let (timeline, high, low) = (digits(0)?, digits(8)?, digits(16)?);
        let is_name = name.len() == 24 && timeline > 0 && low < size.per_high_half();
        let timeline = TimelineId(u32::try_from(timeline).ok()?);
        is_name.then_some(SegmentName { timeline, number: high * size.per_high_half() + low })
    }

    /// The file name: 24 hexadecimal digits, for the timeline and the two halves of the number.
    pub fn file_name(self, size: WalSegmentSize) -> String {
        let (high, low) = (self.number / size.per_high_half(), self.number % size.per_high_half());
        format!("{}{high:08X}{low:08X}", self.timeline.hex())
    }

    /// The one after it on the same timeline.
    pub fn next(self) -> SegmentName {
        SegmentName { number: self.number.saturating_add(1), ..self }
    }

    /// The position of its first byte.
    pub fn start(self, size: WalSegmentSize) -> Lsn {
        Lsn(self.number.saturating_mul(size.bytes()))
    }

    /// The position after its last byte, where the next one starts.
    pub fn end(self, size: WalSegmentSize) -> Lsn {
        self.next().start(size)
    }
}

/// For people, where the size of segments is not known: the timeline and the number.
impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.timeline, self.number)
    }
}

/// One to sixteen hexadecimal digits and nothing else: the standard library would take a sign.
pub(super) fn hex(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// The same as the server writes it into names: it would not take `a` for `A`, and nor would a file system.
pub(super) fn hex_upper(digits: &str) -> Option<u64> {
    hex(digits).filter(|_| !digits.bytes().any(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mib(count: u64) -> WalSegmentSize {
        WalSegmentSize::new(count << 20).unwrap()
    }

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        assert_eq!(WalSegmentSize::default().bytes(), 16_777_216);
        assert_eq!(mib(1024).bytes(), 1 << 30);
        for bad in [0, 1, 1 << 19, 3 << 20, 1 << 31, u64::MAX] {
            assert!(WalSegmentSize::new(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&mib(1)).unwrap(), "1048576");
        assert!(serde_json::from_str::<WalSegmentSize>("7").is_err());
    }

    #[test]
    fn names_are_those_of_pg_walfile_name() {
        // SELECT pg_walfile_name('16/B374D848') on timeline 1 with each size.
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        for (size, name) in [
            (mib(1), "000000010000001600000B37"),
            (mib(16), "0000000100000016000000B3"),
            (mib(64), "00000001000000160000002C"),
            (mib(1024), "000000010000001600000002"),
        ] {
            let segment = SegmentName::containing(lsn, TimelineId(1), size);
            assert_eq!(segment.file_name(size), name);
            assert_eq!(SegmentName::parse(name, size), Some(segment));
            assert!(segment.start(size) <= lsn && lsn < segment.end(size));
            assert_eq!(segment.start(size), lsn.segment_start(size));
        }
    }

    #[test]
    fn the_next_name_begins_anew_every_four_gibibytes() {
        let next = |name, size| SegmentName::parse(name, size).unwrap().next().file_name(size);
        assert_eq!(next("0000000A00000001000000FF", mib(16)), "0000000A0000000200000000");
        assert_eq!(next("0000000A0000000100000003", mib(1024)), "0000000A0000000200000000");
        assert_eq!(next("0000000A0000000100000FFE", mib(1)), "0000000A0000000100000FFF");
    }

    #[test]
    fn wal_up_to_a_boundary_does_not_need_the_segment_behind_it() {
        let size = mib(16);
        let boundary = Lsn(3 << 24);
        let number = |segment: SegmentName| segment.number;
        assert_eq!(number(SegmentName::containing(boundary, TimelineId(1), size)), 3);
        assert_eq!(number(SegmentName::ending_at(boundary, TimelineId(1), size)), 2);
        assert_eq!(number(SegmentName::ending_at(boundary + 1, TimelineId(1), size)), 3);
        assert_eq!(number(SegmentName::ending_at(Lsn(0), TimelineId(1), size)), 0);
    }

    #[test]
    fn what_is_not_a_name_is_not_read() {
        for bad in [
            "",
            "00000001000000160000002",
            "0000000100000016000000B33",
            "00000001000000160000002c",
            "00000000000000160000002C",
            "000000010000001600000100",
            "+0000001000000160000002C",
            "0000000100000016000000é",
            "00000001000000160000002C.partial",
        ] {
            assert_eq!(SegmentName::parse(bad, mib(16)), None, "{bad}");
        }
    }
}
