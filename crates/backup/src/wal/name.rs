//! The names of the archive's objects: PostgreSQL's own names of files, and the parts of a segment that is
//! not yet complete.
//!
//! `wal/<timeline>/<segment>` is a complete segment, `wal/<timeline>/<segment>.<from>-<to>` a part of one
//! (offsets in bytes, eight hexadecimal digits), `wal/<timeline>.history` a timeline's parents.

use obyra_postgres::wal::{SegmentName, TimelineId, WalFileName, WalSegmentSize};

use crate::repository::layout::ClusterId;

/// No segment is larger.
const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// An object of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalObject {
    /// A file, whole.
    File(WalFileName),
    /// A part of a segment.
    Part(Part),
}

/// A part of a segment: the bytes from one offset up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The segment.
    pub segment: SegmentName,
    /// The offset of its first byte in the segment.
    pub from: u32,
    /// The offset after its last byte.
    pub to: u32,
}

impl WalObject {
    /// The object's name in the repository.
    pub fn object_name(self, cluster: ClusterId, size: WalSegmentSize) -> String {
        match self {
            WalObject::File(WalFileName::History(timeline)) => {
                format!("{}/{}", folder(cluster), timeline.history_file_name())
            }
            WalObject::File(file) => {
                format!("{}/{}", cluster.wal(self.timeline().0), file.file_name(size))
            }
            WalObject::Part(Part { segment, from, to }) => {
                let segment_name = segment.file_name(size);
                format!("{}/{segment_name}.{from:08X}-{to:08X}", cluster.wal(segment.timeline.0))
            }
        }
    }

    /// Reads an object's name; `None` if the archive has no such objects.
    pub fn parse(cluster: ClusterId, name: &str, size: WalSegmentSize) -> Option<WalObject> {
        let below = name.strip_prefix(&folder(cluster))?.strip_prefix('/')?;
        let Some((folder, file)) = below.split_once('/') else {
            let history = WalFileName::parse(below, size)?;
            return matches!(history, WalFileName::History(_)).then_some(WalObject::File(history));
        };
        let object = match WalFileName::parse(file, size) {
            Some(WalFileName::History(_)) => None,
            Some(file) => Some(WalObject::File(file)),
            None => part(file, size).map(WalObject::Part),
        }?;
        (TimelineId::parse_hex(folder) == Some(object.timeline())).then_some(object)
    }

    /// The timeline that it is of.
    pub fn timeline(self) -> TimelineId {
        match self {
            WalObject::File(
                WalFileName::Segment(segment)
                | WalFileName::Partial(segment)
                | WalFileName::Backup { segment, .. },
            )
            | WalObject::Part(Part { segment, .. }) => segment.timeline,
            WalObject::File(WalFileName::History(timeline)) => timeline,
        }
    }
}

/// The folder of a cluster's archive.
pub fn folder(cluster: ClusterId) -> String {
    format!("{}/wal", cluster.folder())
}

/// `000000010000000000000003.00000000-0000A1B2`
fn part(name: &str, size: WalSegmentSize) -> Option<Part> {
    let (segment, range) = name.split_once('.')?;
    let (from, to) = range.split_once('-')?;
    let offset = |digits: &str| {
        let all = digits.len() == 8
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        all.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (from, to) = (offset(from)?, offset(to)?);
    // Whoever reads a name may not know yet how large segments are.
    let within = from < to && to <= SEGMENT_BYTES_MAX;
    within.then_some(Part { segment: SegmentName::parse(segment, size)?, from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7000);

    #[test]
    fn every_object_is_known_by_its_name() {
        let size = WalSegmentSize::DEFAULT;
        let segment = SegmentName { timeline: TimelineId(0x1A), number: 0x1_02 };
        for (object, name) in [
            (
                WalObject::File(WalFileName::Segment(segment)),
                "clusters/7000/wal/0000001A/0000001A0000000100000002",
            ),
            (
                WalObject::Part(Part { segment, from: 0, to: 0x100_0000 }),
                "clusters/7000/wal/0000001A/0000001A0000000100000002.00000000-01000000",
            ),
            (
                WalObject::File(WalFileName::Partial(segment)),
                "clusters/7000/wal/0000001A/0000001A0000000100000002.partial",
            ),
            (
                WalObject::File(WalFileName::Backup { segment, offset: 0x28 }),
                "clusters/7000/wal/0000001A/0000001A0000000100000002.00000028.backup",
            ),
            (WalObject::File(WalFileName::History(TimelineId(0x1A))), "clusters/7000/wal/0000001A.history"),
        ] {
            assert_eq!(object.object_name(CLUSTER, size), name);
            assert_eq!(WalObject::parse(CLUSTER, name, size), Some(object));
        }
    }

    #[test]
    fn what_is_not_of_the_archive_is_not_read() {
        let size = WalSegmentSize::DEFAULT;
        for stranger in [
            "",
            "clusters/7000/wal",
            "clusters/7001/wal/0000001A.history",
            "clusters/7000/wal/0000001A/0000001A.history",
            "clusters/7000/wal/0000001A0000000100000002",
            "clusters/7000/wal/0000001B/0000001A0000000100000002",
            "clusters/7000/wal/0000001A/0000001A0000000100000002.00000010-00000010",
            "clusters/7000/wal/0000001A/0000001A0000000100000002.00000000-40000001",
            "clusters/7000/wal/0000001A/0000001A0000000100000002.00000000-0000000a",
            "clusters/7000/wal/0000001A/0000001A0000000100000002.0-10",
            "clusters/7000/wal/0000001A/x/0000001A0000000100000002",
        ] {
            assert_eq!(WalObject::parse(CLUSTER, stranger, size), None, "{stranger}");
        }
    }
}
