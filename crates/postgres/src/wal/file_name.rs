//! The files that an archive of WAL holds.

use super::segment::hex_upper;
use super::{SegmentName, TimelineId, WalSegmentSize};

/// What a file in `pg_wal` or in an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A complete segment.
    Segment(SegmentName),
    /// The last segment of a timeline that was left in its middle (`.partial`). Never to be renamed
    /// to a complete one: what follows in it never happened.
    Partial(SegmentName),
    /// The file that tells of a finished base backup (`.backup`).
    Backup {
        /// The segment in which the backup begins.
        segment: SegmentName,
        /// How far into it, in bytes.
        offset: u32,
    },
    /// The parents of a timeline (`.history`).
    History(TimelineId),
}

impl WalFileName {
    /// Reads a file name; `None` if it is none of these.
    pub fn parse(name: &str, size: WalSegmentSize) -> Option<WalFileName> {
        let Some((stem, rest)) = name.split_once('.') else {
            return SegmentName::parse(name, size).map(WalFileName::Segment);
        };
        match rest {
            "history" => TimelineId::parse_hex(stem).map(WalFileName::History),
            "partial" => SegmentName::parse(stem, size).map(WalFileName::Partial),
            _ => {
                let digits = rest.strip_suffix(".backup").filter(|digits| digits.len() == 8)?;
                let offset = hex_upper(digits).filter(|offset| *offset < size.bytes())?;
                let segment = SegmentName::parse(stem, size)?;
                Some(WalFileName::Backup { segment, offset: u32::try_from(offset).ok()? })
            }
        }
    }

    /// The name.
    pub fn file_name(self, size: WalSegmentSize) -> String {
        match self {
            WalFileName::Segment(segment) => segment.file_name(size),
            WalFileName::Partial(segment) => format!("{}.partial", segment.file_name(size)),
            WalFileName::Backup { segment, offset } => {
                format!("{}.{offset:08X}.backup", segment.file_name(size))
            }
            WalFileName::History(timeline) => timeline.history_file_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_is_known_by_its_name() {
        let size = WalSegmentSize::DEFAULT;
        let segment = SegmentName { timeline: TimelineId(0x1A), number: 0x1_02 };
        for (name, kind) in [
            ("0000001A0000000100000002", WalFileName::Segment(segment)),
            ("0000001A0000000100000002.partial", WalFileName::Partial(segment)),
            ("0000001A0000000100000002.00000028.backup", WalFileName::Backup { segment, offset: 0x28 }),
            ("0000001A.history", WalFileName::History(TimelineId(0x1A))),
        ] {
            assert_eq!(WalFileName::parse(name, size), Some(kind));
            assert_eq!(kind.file_name(size), name);
        }
        for stranger in [
            "archive_status",
            "0000001A",
            "00000000.history",
            "1A.history",
            "0000001a.history",
            "0000001A.history.tmp",
            "0000001A0000000100000002.tmp",
            "0000001A0000000100000002.28.backup",
            "0000001A0000000100000002.01000000.backup",
            "0000001A0000000100000002.00000028.backup.partial",
            ".history",
            "summaries",
        ] {
            assert_eq!(WalFileName::parse(stranger, size), None, "{stranger}");
        }
    }
}
