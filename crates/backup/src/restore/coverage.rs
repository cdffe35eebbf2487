//! What the planner knows of the WAL archive: what it holds, and the moments of the commits in that.
//!
//! Pure. [`super::survey`] fills it in.

use jiff::Timestamp;
use obyra_evidence::{Message, text};
use obyra_postgres::wal::{Lsn, TimelineHistory, TimelineId};

use super::target::shown;
use crate::wal::Index;

/// The archive of one cluster.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// What it holds.
    pub index: Index,
    /// Its stretches, cut where a timeline was left and where one begins.
    pub(super) stretches: Vec<Dated>,
}

/// WAL of one timeline without a hole, and the moments of its commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dated {
    pub timeline: TimelineId,
    pub from: Lsn,
    pub to: Lsn,
    /// When its first transaction was committed, if that was read.
    pub first_commit: Option<Timestamp>,
    /// When its last transaction was committed, if that was read and there is one.
    pub last_commit: Option<Timestamp>,
    /// The moment up to which nothing is known to be missing after its end: whoever fills the archive had
    /// seen by then that the server has no more.
    pub complete_until: Option<Timestamp>,
}

/// WAL without a hole along a timeline and its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub from: Lsn,
    pub to: Lsn,
    pub last_commit: Option<Timestamp>,
    pub complete_until: Option<Timestamp>,
}

impl Span {
    /// The newest moment whose state it holds.
    pub fn newest(&self) -> Option<Timestamp> {
        self.last_commit.max(self.complete_until)
    }
}

/// A point at which a timeline was left for the next one of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub parent: TimelineId,
    pub child: TimelineId,
    pub at: Lsn,
}

impl Coverage {
    /// Of an archive whose commits nobody has read yet.
    pub(super) fn of(index: Index) -> Coverage {
        let mut stretches = Vec::new();
        for (timeline, of) in index.timelines() {
            let cuts = index.branch_points(*timeline);
            for stretch in &of.stretches {
                let pieces = pieces(stretch.from, stretch.to, &cuts).into_iter();
                stretches.extend(pieces.map(|(from, to)| Dated {
                    timeline: *timeline,
                    from,
                    to,
                    first_commit: None,
                    last_commit: None,
                    complete_until: None,
                }));
            }
        }
        Coverage { index, stretches }
    }

    /// When the last transaction of a timeline was committed, as far as that was read.
    pub fn last_commit(&self, timeline: TimelineId) -> Option<Timestamp> {
        let of = self.stretches.iter().filter(|stretch| stretch.timeline == timeline);
        of.filter_map(|stretch| stretch.last_commit).max()
    }

    /// The WAL that recovery along a history can use. It takes each segment from the newest timeline that
    /// has it: the first of a timeline begins with a copy of what its parent had.
    pub(super) fn spans(&self, history: &TimelineHistory) -> Vec<Span> {
        let mut pieces = Vec::new();
        let mut begin = Lsn::INVALID;
        let parents = history.parents().iter().map(|parent| (parent.timeline, parent.switch_point));
        for (timeline, end) in parents.chain([(history.timeline(), Lsn(u64::MAX))]) {
            let first = begin.segment_start(self.index.size());
            for stretch in self.stretches.iter().filter(|stretch| stretch.timeline == timeline) {
                let (from, to) = (stretch.from.max(first), stretch.to.min(end));
                if from < to {
                    pieces.push(Span {
                        from,
                        to,
                        last_commit: stretch.last_commit,
                        complete_until: stretch.complete_until,
                    });
                }
            }
            begin = end;
        }
        pieces.sort_by_key(|piece| (piece.from, piece.to));
        join(pieces)
    }

    /// Up to where the WAL of a timeline goes on from a position without a hole: the position itself if it is
    /// not there.
    pub(super) fn reach(&self, timeline: TimelineId, from: Lsn) -> Lsn {
        let mut of: Vec<_> = self.stretches.iter().filter(|stretch| stretch.timeline == timeline).collect();
        of.sort_by_key(|stretch| stretch.from);
        of.iter().fold(from, |at, stretch| if stretch.from <= at { at.max(stretch.to) } else { at })
    }

    /// Where the timelines of a history were left.
    pub(super) fn branches(&self, history: &TimelineHistory) -> Vec<Branch> {
        let children = history.parents().iter().skip(1).map(|parent| parent.timeline);
        let children = children.chain([history.timeline()]);
        let pairs = history.parents().iter().zip(children);
        pairs
            .map(|(parent, child)| Branch { parent: parent.timeline, child, at: parent.switch_point })
            .collect()
    }

    /// The WAL that a timeline has beyond the point where it was left.
    pub(super) fn left_behind(&self, branch: &Branch) -> Vec<&Dated> {
        let beyond = |s: &&Dated| s.timeline == branch.parent && s.from >= branch.at;
        self.stretches.iter().filter(beyond).collect()
    }

    /// Whether the first WAL of a branch's child is there: else nobody knows when its first commit was.
    pub(super) fn has_beginning(&self, branch: &Branch) -> bool {
        let of_child = self.stretches.iter().filter(|stretch| stretch.timeline == branch.child);
        of_child.into_iter().any(|stretch| stretch.from <= branch.at && branch.at <= stretch.to)
    }

    /// The moments of the last commit before a branch and the first one after it.
    pub(super) fn around(&self, branch: &Branch) -> (Option<Timestamp>, Option<Timestamp>) {
        let of = |timeline| self.stretches.iter().filter(move |stretch| stretch.timeline == timeline);
        let before = of(branch.parent).filter(|stretch| stretch.to <= branch.at);
        let after = of(branch.child).filter(|stretch| stretch.from >= branch.at);
        let last = before.filter_map(|stretch| stretch.last_commit).max();
        (last, after.filter_map(|stretch| stretch.first_commit).min())
    }

    /// The timelines in words.
    pub(super) fn explained(&self) -> Vec<Message> {
        let mut timelines: Vec<TimelineId> = self.stretches.iter().map(|stretch| stretch.timeline).collect();
        timelines.extend(self.index.histories().keys());
        timelines.sort();
        timelines.dedup();
        let mut words = Vec::new();
        for timeline in timelines {
            let until = self.last_commit(timeline);
            let history = self.index.histories().get(&timeline);
            let parent = history.and_then(|history| history.parents().last());
            let message = match (parent, until) {
                (None, None) => text::backup::RESTORE_TIMELINE.message(),
                (None, Some(_)) => text::backup::RESTORE_TIMELINE_UNTIL.message(),
                (Some(_), None) => text::backup::RESTORE_TIMELINE_BRANCHED.message(),
                (Some(_), Some(_)) => text::backup::RESTORE_TIMELINE_BRANCHED_UNTIL.message(),
            };
            let message = parent.into_iter().fold(message.with("timeline", timeline), |message, parent| {
                message.with("parent", parent.timeline).with("position", parent.switch_point)
            });
            words.push(until.into_iter().fold(message, |message, until| message.with("until", shown(until))));
        }
        words
    }
}

/// Those that overlap or touch become one.
fn join(pieces: Vec<Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for piece in pieces {
        match spans.last_mut() {
            Some(last) if last.to >= piece.from => {
                if piece.to >= last.to {
                    last.complete_until = piece.complete_until;
                }
                last.to = last.to.max(piece.to);
                last.last_commit = last.last_commit.max(piece.last_commit);
            }
            _ => spans.push(piece),
        }
    }
    spans
}

/// A range, cut where a cut lies inside.
fn pieces(from: Lsn, to: Lsn, cuts: &[Lsn]) -> Vec<(Lsn, Lsn)> {
    let inside = cuts.iter().copied().filter(|cut| from < *cut && *cut < to);
    let mut ends: Vec<Lsn> = inside.collect();
    ends.push(to);
    let mut begin = from;
    ends.into_iter().map(|end| (std::mem::replace(&mut begin, end), end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_cut_where_timelines_were_left() {
        let cut = |cuts: &[u64]| {
            let cuts: Vec<Lsn> = cuts.iter().map(|cut| Lsn(*cut)).collect();
            let found = pieces(Lsn(10), Lsn(50), &cuts).into_iter();
            found.map(|(from, to)| (from.0, to.0)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[]), [(10, 50)]);
        assert_eq!(cut(&[10, 50, 70]), [(10, 50)]);
        assert_eq!(cut(&[20, 30]), [(10, 20), (20, 30), (30, 50)]);
    }
}
