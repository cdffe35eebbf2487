//! Where a receiver goes on: decided from what the archive holds and from the history of the server's
//! timeline. Pure.

use obyra_postgres::wal::{Lsn, SegmentName, TimelineHistory, TimelineId};

use super::index::{Hole, Index, lineage};

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The segment to be received next, from its beginning on.
    pub segment: SegmentName,
    /// The position up to which the archive holds the WAL of its timeline.
    pub archived: Lsn,
}

/// Where to go on with a server that has this history; `None` if the archive holds nothing of it.
///
/// The newest timeline of the history that the archive has WAL of decides. What the archive has beyond the
/// point where that timeline was left never happened on this server.
pub fn resume(index: &Index, history: &TimelineHistory) -> Option<Resume> {
    let size = index.size();
    let line: Vec<TimelineId> =
        history.parents().iter().map(|parent| parent.timeline).chain([history.timeline()]).collect();
    let (nth, end) =
        line.iter().enumerate().rev().find_map(|(nth, timeline)| Some((nth, index.end(*timeline)?)))?;
    let timeline = line[nth];
    let left = history.switch_point(timeline).filter(|left| *left <= end);
    Some(match left.zip(line.get(nth + 1)) {
        Some((left, child)) => {
            let segment = SegmentName::containing(left, *child, size);
            Resume { segment, archived: segment.start(size) }
        }
        None => {
            let unfinished = index.unfinished(timeline);
            let segment = unfinished.unwrap_or_else(|| SegmentName::containing(end, timeline, size));
            Resume { segment, archived: end }
        }
    })
}

/// What the archive misses of this history, from its oldest WAL of it up to a position: the newest first,
/// since a recovery is most likely to need that.
pub fn holes(index: &Index, history: &TimelineHistory, to: Lsn) -> Vec<Hole> {
    let line = lineage(history, index.size());
    let oldest = line.iter().find_map(|(timeline, range)| {
        let stretches = &index.timelines().get(timeline)?.stretches;
        stretches.iter().find(|stretch| stretch.to > range.start && stretch.from < range.end).map(|s| s.from)
    });
    let Some(oldest) = oldest else { return Vec::new() };
    let mut holes = index.clone().with_history(history.clone()).chain(oldest, to, history.timeline()).holes;
    holes.reverse();
    holes
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use obyra_postgres::wal::{WalFileName, WalSegmentSize};

    use super::super::name::{Part, WalObject};
    use super::*;
    use crate::repository::layout::ClusterId;
    use crate::repository::store::ObjectInfo;

    const CLUSTER: ClusterId = ClusterId(7000);

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(1 << 20).unwrap()
    }

    fn segment(timeline: u32, number: u64) -> SegmentName {
        SegmentName { timeline: TimelineId(timeline), number }
    }

    /// Complete segments, and one that ends with a part.
    fn index(full: &[(u32, u64)], parts: &[(u32, u64, u32)]) -> Index {
        let full = full.iter().map(|(tli, number)| WalFileName::Segment(segment(*tli, *number)));
        let parts = parts.iter().map(|(tli, number, to)| {
            WalObject::Part(Part { segment: segment(*tli, *number), from: 0, to: *to })
        });
        let objects: Vec<ObjectInfo> = full
            .map(WalObject::File)
            .chain(parts)
            .map(|object| ObjectInfo {
                name: object.object_name(CLUSTER, size()),
                bytes: 1,
                modified: Timestamp::UNIX_EPOCH,
            })
            .collect();
        Index::of(CLUSTER, size(), &objects)
    }

    fn history(timeline: u32, content: &str) -> TimelineHistory {
        TimelineHistory::parse(TimelineId(timeline), content).unwrap()
    }

    fn at(timeline: u32, number: u64, archived: u64) -> Option<Resume> {
        Some(Resume { segment: segment(timeline, number), archived: Lsn(archived) })
    }

    #[test]
    fn goes_on_where_the_archive_ends() {
        let first = history(1, "");
        assert_eq!(resume(&index(&[], &[]), &first), None);
        assert_eq!(resume(&index(&[(1, 3), (1, 4)], &[]), &first), at(1, 5, 0x50_0000));
        assert_eq!(resume(&index(&[(1, 3)], &[(1, 4, 0x123)]), &first), at(1, 4, 0x40_0123));
        let parts_are_all = index(&[(1, 3)], &[(1, 4, 0x10_0000)]);
        assert_eq!(resume(&parts_are_all, &first), at(1, 4, 0x50_0000), "and it is made whole");
        let with_a_hole = index(&[(1, 3), (1, 9)], &[]);
        assert_eq!(resume(&with_a_hole, &first), at(1, 10, 0xA0_0000), "holes are another's business");
    }

    #[test]
    fn follows_a_failover_whether_it_was_ahead_or_behind() {
        let two = history(2, "1\t0/480000\tx\n");
        assert_eq!(resume(&index(&[(1, 3)], &[]), &two), at(1, 4, 0x40_0000), "the rest of the old first");
        assert_eq!(resume(&index(&[(1, 3)], &[(1, 4, 0x7_FFFF)]), &two), at(1, 4, 0x47_FFFF));
        assert_eq!(resume(&index(&[(1, 3)], &[(1, 4, 0x8_0000)]), &two), at(2, 4, 0x40_0000));
        assert_eq!(resume(&index(&[(1, 3), (1, 4), (1, 5)], &[]), &two), at(2, 4, 0x40_0000), "ahead");
        assert_eq!(resume(&index(&[(1, 3), (2, 4)], &[]), &two), at(2, 5, 0x50_0000));
        let thrice = history(3, "1\t0/480000\tx\n2\t0/480000\tx\n");
        assert_eq!(
            resume(&index(&[(1, 4)], &[]), &thrice),
            at(2, 4, 0x40_0000),
            "which the server left at once"
        );
        assert_eq!(resume(&index(&[(7, 4)], &[]), &thrice), None, "another's timeline");
    }

    #[test]
    fn holes_are_those_of_the_servers_own_history() {
        let two = history(2, "1\t0/480000\tx\n");
        let hole = |timeline, from, to| Hole { timeline: TimelineId(timeline), from: Lsn(from), to: Lsn(to) };
        let index = index(&[(1, 1), (1, 3), (1, 4), (1, 9), (2, 6), (2, 8)], &[]);
        assert_eq!(
            holes(&index, &two, Lsn(0x90_0000)),
            [hole(2, 0x70_0000, 0x80_0000), hole(2, 0x40_0000, 0x60_0000), hole(1, 0x20_0000, 0x30_0000),]
        );
        assert_eq!(holes(&index, &history(3, ""), Lsn(0x90_0000)), []);
    }
}
