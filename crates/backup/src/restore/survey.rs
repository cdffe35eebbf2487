//! Looks at the repository for the planner: the archive's stretches with the moments of their commits, and
//! the places of restore points and transactions.
//!
//! The names of the objects tell the stretches; of the WAL itself only their ends are read.

use bytes::Bytes;
use jiff::Timestamp;
use obyra_evidence::{Progress, text};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use tokio::task::spawn_blocking;

use super::coverage::{Coverage, Dated};
use super::files::panicked;
use super::moments::{Moment, Moments, What};
use super::plan::Found;
use super::target::Target;
use crate::Result;
use crate::repository::Repository;
use crate::repository::layout::ClusterId;
use crate::wal::Archive;

/// How many segments are searched for the first or the last commit of a stretch. A server that writes so
/// much without a commit is rare, and then the planner says that it does not know.
const SEARCHED: u64 = 16;

/// Looks at the archive of a cluster.
pub async fn survey(repository: &Repository, cluster: ClusterId, size: WalSegmentSize) -> Result<Coverage> {
    let reader = Reader { archive: Archive::new(repository, cluster), size };
    let mut coverage = Coverage::of(reader.archive.index(size).await?);
    for stretch in &mut coverage.stretches {
        let (timeline, from, to) = (stretch.timeline, stretch.from, stretch.to);
        // The first commit tells when a timeline was left, or began.
        if coverage.index.branch_points(timeline).contains(&from) {
            stretch.first_commit = reader.first(timeline, from, to).await?;
        }
        stretch.last_commit = reader.last(timeline, from, to).await?;
    }
    Ok(coverage)
}

/// Finds the newest restore point of a name, or the end of a transaction, in all of the archive; `None` if
/// it is not there. Other targets have no need to be found.
pub async fn find(
    repository: &Repository,
    cluster: ClusterId,
    coverage: &Coverage,
    target: &Target,
    progress: &dyn Progress,
) -> Result<Option<Found>> {
    let matches = |moment: &Moment| match (target, &moment.what) {
        (Target::Name(wanted), What::RestorePoint(name)) => wanted == name,
        (Target::Transaction(wanted), What::End { xid, committed: true }) => wanted == xid,
        _ => false,
    };
    if !matches!(target, Target::Name(_) | Target::Transaction(_)) {
        return Ok(None);
    }
    let size = coverage.index.size();
    let reader = Reader { archive: Archive::new(repository, cluster), size };
    let mut stretches: Vec<&Dated> = coverage.stretches.iter().collect();
    stretches.sort_by_key(|stretch| std::cmp::Reverse((stretch.timeline, stretch.to)));
    let total = stretches.iter().map(|stretch| stretch.to.bytes_since(stretch.from)).sum();
    progress.begin(text::backup::RESTORE_SEARCHING.with("target", target), Some(total));
    let mut found = None;
    'search: for stretch in stretches {
        let mut follows = Bytes::new();
        for segment in segments(stretch, size).rev() {
            let bytes = reader.segment(segment).await?;
            let moments = reader.moments(segment, bytes.clone(), follows).await?;
            let inside = moments.iter().filter(|moment| stretch.from <= moment.at && moment.at < stretch.to);
            if let Some(moment) = inside.rev().find(|moment| matches(moment)) {
                found = Some(Found { timeline: stretch.timeline, at: moment.at, time: moment.time });
                break 'search;
            }
            progress.advance(bytes.len() as u64);
            follows = bytes;
        }
    }
    progress.done();
    Ok(found)
}

/// The segments that a stretch has some of, in order.
fn segments(stretch: &Dated, size: WalSegmentSize) -> impl DoubleEndedIterator<Item = SegmentName> {
    let timeline = stretch.timeline;
    let first = SegmentName::containing(stretch.from, timeline, size).number;
    let last = SegmentName::ending_at(stretch.to, timeline, size).number;
    (first..=last).map(move |number| SegmentName { timeline, number })
}

struct Reader {
    archive: Archive,
    size: WalSegmentSize,
}

impl Reader {
    async fn first(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> Result<Option<Timestamp>> {
        let range = SegmentName::containing(from, timeline, self.size).number
            ..=SegmentName::ending_at(to, timeline, self.size).number;
        for number in range.take(SEARCHED as usize) {
            let ends = self.ends(SegmentName { timeline, number }, from, to).await?;
            if let Some(first) = ends.into_iter().min() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    async fn last(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> Result<Option<Timestamp>> {
        let range = SegmentName::containing(from, timeline, self.size).number
            ..=SegmentName::ending_at(to, timeline, self.size).number;
        for number in range.rev().take(SEARCHED as usize) {
            let ends = self.ends(SegmentName { timeline, number }, from, to).await?;
            if let Some(last) = ends.into_iter().max() {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// When the transactions ended that ended in a segment and between two positions.
    async fn ends(&self, segment: SegmentName, from: Lsn, to: Lsn) -> Result<Vec<Timestamp>> {
        let bytes = self.segment(segment).await?;
        let moments = self.moments(segment, bytes, Bytes::new()).await?.into_iter();
        let ends = moments
            .filter(|moment| matches!(moment.what, What::End { .. }) && from <= moment.at && moment.at < to);
        Ok(ends.map(|moment| moment.time).collect())
    }

    /// What the archive has of a segment: all of it, or its parts from the first byte on.
    async fn segment(&self, segment: SegmentName) -> Result<Bytes> {
        match self.archive.get_segment(segment, self.size).await? {
            Some(whole) => Ok(whole),
            None => self.archive.get_parts(segment, self.size).await,
        }
    }

    /// The moments of the records that begin in a segment; the last may go on in the bytes that follow.
    async fn moments(&self, segment: SegmentName, bytes: Bytes, follows: Bytes) -> Result<Vec<Moment>> {
        let (start, end) = (segment.start(self.size), segment.end(self.size));
        let read = move || {
            let mut moments = Moments::default();
            moments.read(start, &bytes);
            if bytes.len() as u64 == end.bytes_since(start) {
                moments.read(end, &follows[..follows.len().min(64 << 10)]);
            }
            let mut moments = moments.take();
            moments.retain(|moment| moment.at < end);
            moments
        };
        spawn_blocking(read).await.map_err(panicked)
    }
}
