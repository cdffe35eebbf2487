//! What an archive holds, from the names of its objects alone: stretches without a hole, holes, and
//! whether WAL is complete from one position to another along a timeline's history.
//!
//! Pure: names and sizes in, positions out.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineHistory, TimelineId, WalFileName, WalSegmentSize};
use serde::Serialize;

use super::name::{Part, WalObject};
use crate::repository::layout::ClusterId;
use crate::repository::store::ObjectInfo;

/// What an archive holds.
#[derive(Clone, Debug)]
pub struct Index {
    size: WalSegmentSize,
    timelines: BTreeMap<TimelineId, TimelineIndex>,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    listed_histories: Vec<TimelineId>,
}

/// What an archive holds of one timeline.
#[derive(Clone, Debug, Default)]
pub struct TimelineIndex {
    /// WAL without a hole, in order; none touches the next.
    pub stretches: Vec<Stretch>,
    /// The parts of segments that are not complete, in order.
    pub parts: Vec<Part>,
    /// Parts of segments that are complete: of no use any more.
    pub needless: Vec<Part>,
    /// Bytes of all its objects in the store.
    pub stored: u64,
}

/// WAL of one timeline without a hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// When its oldest object was written, by the store's clock.
    pub oldest: Timestamp,
    /// When its newest object was written: no commit in it is newer, clocks permitting.
    pub newest: Timestamp,
}

/// WAL that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Hole {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first byte that is missing.
    pub from: Lsn,
    /// The byte after the last that is missing.
    pub to: Lsn,
}

/// What a recovery would miss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// WAL that is not in the archive, in the order of recovery.
    pub holes: Vec<Hole>,
    /// The history file that is not in the archive: without it, recovery does not know its way.
    pub history: Option<TimelineId>,
}

impl Chain {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.holes.is_empty() && self.history.is_none()
    }
}

impl Index {
    /// Of a listing of the archive. Objects with other names are passed over.
    pub fn of(cluster: ClusterId, size: WalSegmentSize, objects: &[ObjectInfo]) -> Index {
        let mut kept = Vec::with_capacity(objects.len());
        for info in objects {
            if let Some(object) = WalObject::parse(cluster, &info.name, size) {
                kept.push((object, info));
            }
        }
        let mut timelines: BTreeMap<TimelineId, Vec<(WalObject, &ObjectInfo)>> = BTreeMap::new();
        let mut listed_histories = Vec::new();
        for (object, info) in kept {
            match object {
                WalObject::File(WalFileName::History(timeline)) => listed_histories.push(timeline),
                _ => timelines.entry(object.timeline()).or_default().push((object, info)),
            }
        }
        let timelines = timelines.into_iter().map(|(id, objects)| (id, TimelineIndex::of(size, &objects)));
        Index { size, timelines: timelines.collect(), histories: BTreeMap::new(), listed_histories }
    }

    /// Adds what a history file says.
    pub fn with_history(mut self, history: TimelineHistory) -> Index {
        self.histories.insert(history.timeline(), history);
        self
    }

    /// How large the segments are.
    pub fn size(&self) -> WalSegmentSize {
        self.size
    }

    /// The timelines of which there is WAL.
    pub fn timelines(&self) -> &BTreeMap<TimelineId, TimelineIndex> {
        &self.timelines
    }

    /// The timelines whose history file is there.
    pub fn listed_histories(&self) -> &[TimelineId] {
        &self.listed_histories
    }

    /// The histories that were read.
    pub fn histories(&self) -> &BTreeMap<TimelineId, TimelineHistory> {
        &self.histories
    }

    /// A timeline's history; the first timeline has none, and needs none.
    pub fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        match self.histories.get(&timeline) {
            Some(history) => Some(history.clone()),
            None => (timeline == TimelineId::FIRST).then(|| TimelineHistory::without_parents(timeline)),
        }
    }

    /// The newest timeline: the one with the highest number, as recovery means by `latest`.
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        let named = self.listed_histories.iter().max().copied();
        self.timelines.keys().next_back().copied().max(named)
    }

    /// Where a timeline begins and where others branched off it, as far as histories tell, in order.
    pub fn branch_points(&self, timeline: TimelineId) -> Vec<Lsn> {
        let left = self.histories.values().filter_map(|history| history.switch_point(timeline));
        // Its first segment has a copy of its parent's WAL before it begins.
        let begin = self.histories.get(&timeline).map(TimelineHistory::begin);
        let mut points: Vec<Lsn> = left.chain(begin).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Where the WAL of a timeline ends; `None` if there is none.
    pub fn end(&self, timeline: TimelineId) -> Option<Lsn> {
        self.timelines.get(&timeline)?.stretches.last().map(|stretch| stretch.to)
    }

    /// The last segment of a timeline, if only parts of it are there.
    pub fn unfinished(&self, timeline: TimelineId) -> Option<SegmentName> {
        let of = self.timelines.get(&timeline)?;
        let last = SegmentName::ending_at(of.stretches.last()?.to, timeline, self.size);
        of.parts.iter().any(|part| part.segment == last).then_some(last)
    }

    /// The parts of a segment.
    pub fn parts_of(&self, segment: SegmentName) -> Vec<Part> {
        let of = self.timelines.get(&segment.timeline);
        of.map_or_else(Vec::new, |of| {
            of.parts.iter().filter(|part| part.segment == segment).copied().collect()
        })
    }

    /// The holes between the stretches of a timeline.
    pub fn holes(&self, timeline: TimelineId) -> Vec<Hole> {
        let stretches = self.timelines.get(&timeline).map_or(&[][..], |of| &of.stretches);
        let pairs = stretches.iter().zip(stretches.iter().skip(1));
        pairs.map(|(before, after)| Hole { timeline, from: before.to, to: after.from }).collect()
    }

    /// Whether WAL from one position up to another is complete, along the history of the timeline on
    /// which the second lies.
    pub fn chain(&self, from: Lsn, to: Lsn, timeline: TimelineId) -> Chain {
        let Some(history) = self.history(timeline) else {
            return Chain { holes: Vec::new(), history: Some(timeline) };
        };
        let mut holes = Vec::new();
        for (timeline, needed) in lineage(&history, self.size) {
            let needed = needed.start.max(from)..needed.end.min(to);
            holes.extend(self.missing(timeline, needed));
        }
        Chain { holes, history: None }
    }

    fn missing(&self, timeline: TimelineId, needed: Range<Lsn>) -> Vec<Hole> {
        let mut holes = Vec::new();
        let mut at = needed.start;
        let stretches = self.timelines.get(&timeline).map_or(&[][..], |of| &of.stretches);
        for stretch in stretches.iter().filter(|stretch| stretch.to > needed.start) {
            if stretch.from >= needed.end {
                break;
            }
            if stretch.from > at {
                holes.push(Hole { timeline, from: at, to: stretch.from });
            }
            at = at.max(stretch.to);
        }
        if at < needed.end {
            holes.push(Hole { timeline, from: at, to: needed.end });
        }
        holes
    }
}

/// Which timeline recovery reads each segment from, the oldest first. The segment in which a timeline
/// branched off is the new timeline's: it begins with a copy of what its parent had.
pub fn lineage(history: &TimelineHistory, size: WalSegmentSize) -> Vec<(TimelineId, Range<Lsn>)> {
    let mut begin = Lsn::INVALID;
    let mut out = Vec::new();
    for parent in history.parents() {
        let end = parent.switch_point.segment_start(size);
        out.push((parent.timeline, begin..end));
        begin = end;
    }
    out.push((history.timeline(), begin..Lsn(u64::MAX)));
    out.retain(|(_, range)| range.start < range.end);
    out
}

impl TimelineIndex {
    fn of(size: WalSegmentSize, objects: &[(WalObject, &ObjectInfo)]) -> TimelineIndex {
        let mut of =
            TimelineIndex { stored: objects.iter().map(|(_, info)| info.bytes).sum(), ..Self::default() };
        let mut pieces: Vec<(Range<Lsn>, Timestamp)> = Vec::new();
        let mut complete: Vec<u64> = Vec::new();
        for (object, info) in objects {
            if let WalObject::File(WalFileName::Segment(segment)) = object {
                complete.push(segment.number);
                pieces.push((segment.start(size)..segment.end(size), info.modified));
            }
        }
        complete.sort_unstable();
        for (object, info) in objects {
            let WalObject::Part(part) = object else { continue };
            if complete.binary_search(&part.segment.number).is_ok() {
                of.needless.push(*part);
            } else {
                of.parts.push(*part);
                let start = part.segment.start(size);
                pieces.push((start + u64::from(part.from)..start + u64::from(part.to), info.modified));
            }
        }
        of.parts.sort_unstable();
        pieces.sort_by_key(|(range, _)| (range.start, range.end));
        of.stretches = joined(pieces);
        of
    }
}

fn joined(pieces: Vec<(Range<Lsn>, Timestamp)>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (range, modified) in pieces {
        match stretches.last_mut() {
            Some(last) if last.to >= range.start => {
                last.to = last.to.max(range.end);
                last.oldest = last.oldest.min(modified);
                last.newest = last.newest.max(modified);
            }
            _ => stretches.push(Stretch {
                from: range.start,
                to: range.end,
                oldest: modified,
                newest: modified,
            }),
        }
    }
    stretches
}

/// The parts that together hold a segment from its first byte on, as far as that goes; each adds to those
/// before it.
pub fn cover(parts: &[Part]) -> Vec<Part> {
    let mut parts = parts.to_vec();
    parts.sort_unstable_by_key(|part| (part.from, std::cmp::Reverse(part.to)));
    let mut chosen: Vec<Part> = Vec::new();
    let mut end = 0;
    let mut rest = parts.as_slice();
    loop {
        let reach = rest.iter().take_while(|part| part.from <= end).count();
        let best = rest[..reach].iter().max_by_key(|part| part.to).filter(|part| part.to > end);
        let Some(best) = best else { return chosen };
        end = best.to;
        chosen.push(*best);
        rest = &rest[reach..];
    }
}

#[cfg(test)]
mod tests;
