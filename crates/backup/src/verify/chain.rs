//! The WAL held against the backups and the window: which backups lack WAL, and which instants cannot be
//! brought back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use obyra_evidence::{Severity, text};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalFileName};
use serde::Serialize;

use super::{Known, OfCluster, Verified};
use crate::Result;
use crate::repository::Repository;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;
use crate::wal::{Hole, Index, WalObject, folder};

/// WAL that is missing, and the instants that cannot be brought back because of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The WAL.
    pub hole: Hole,
    /// The last instant before it that can be brought back, as far as that is known.
    pub after: Option<Timestamp>,
    /// The first instant behind it that can be: the end of the next backup. `None` if there is none yet.
    pub until: Option<Timestamp>,
}

/// The gaps that keep instants since `window` from being brought back: along the newest timeline, from the
/// newest backup that is older than the window.
pub fn gaps(headers: &[&Header], index: &Index, window: Timestamp) -> Vec<Gap> {
    let Some(newest) = index.newest_timeline() else { return Vec::new() };
    let (Some(history), Some(end)) = (index.history(newest), index.end(newest)) else { return Vec::new() };
    let lies_on = |header: &&&Header| history.descends_from(TimelineId(header.timeline), header.stop);
    let mut backups: Vec<&&Header> = headers.iter().filter(lies_on).collect();
    backups.sort_by_key(|header| header.stop);
    let older = backups.iter().rev().find(|header| header.stopped <= window).copied();
    let Some(base) = older.or(backups.first().copied()) else { return Vec::new() };
    let chain = index.chain(base.start, end, newest);
    let gap = |hole: Hole| {
        let next = backups.iter().find(|header| header.start >= hole.to);
        Gap { after: newest_before(index, hole), until: next.map(|header| header.stopped), hole }
    };
    let gaps = chain.holes.into_iter().map(gap);
    // A gap that ends before the window begins keeps nothing from it.
    gaps.filter(|gap| gap.until.is_none_or(|until| until > window)).collect()
}

/// When the WAL before a hole was archived, on its own timeline.
fn newest_before(index: &Index, hole: Hole) -> Option<Timestamp> {
    let of = index.timelines().get(&hole.timeline)?;
    of.stretches.iter().rev().find(|stretch| stretch.to <= hole.from).map(|stretch| stretch.newest)
}

pub(super) async fn verify(
    repository: &Repository,
    cluster: ClusterId,
    known: &Known,
    window: Option<Timestamp>,
    verified: &mut Verified,
) -> Result<()> {
    let Some(of) = known.clusters.get(&cluster) else { return Ok(()) };
    let index = match super::archive(repository, cluster, of.segment_size()).await {
        Ok(index) => index,
        // A history that cannot be read was named when it was read.
        Err(_) if verified.faults.iter().any(|fault| fault.finding.subject.ends_with(".history")) => {
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    // Without the history, recovery does not even know that it lacks something.
    let lost = index.timelines().keys().filter(|timeline| index.history(**timeline).is_none());
    let mut lost: BTreeMap<TimelineId, Vec<BackupId>> =
        lost.map(|timeline| (*timeline, Vec::new())).collect();
    for (id, header) in &of.headers {
        let chain = index.chain(header.start, header.stop, TimelineId(header.timeline));
        if let Some(timeline) = chain.history {
            lost.entry(timeline).or_default().push(id.clone());
        }
        for hole in chain.holes {
            let message = of_hole(text::backup::VERIFY_NO_WAL.with("backup", id), hole);
            verified.fault(Severity::Error, &cluster.manifest(id), message, vec![id.clone()]);
        }
    }
    for (timeline, backups) in lost {
        let file = format!("{}/{}", folder(cluster), timeline.history_file_name());
        let message = text::backup::VERIFY_HISTORY.with("timeline", timeline);
        verified.fault(Severity::Error, &file, message, backups);
    }
    let Some(window) = window else { return Ok(()) };
    let headers: Vec<&Header> = of.headers.values().collect();
    for gap in gaps(&headers, &index, window) {
        let unknown = || "?".to_owned();
        let message = of_hole(text::backup::VERIFY_GAP.message(), gap.hole)
            .with("after", gap.after.map_or_else(unknown, |after| after.to_string()))
            .with("until", gap.until.map_or_else(unknown, |until| until.to_string()));
        verified.fault(Severity::Error, &cluster.wal(gap.hole.timeline.0), message, Vec::new());
    }
    Ok(())
}

fn of_hole(message: obyra_evidence::Message, hole: Hole) -> obyra_evidence::Message {
    message.with("timeline", hole.timeline).with("from", hole.from).with("to", hole.to)
}

/// The backups whose recovery to their own end needs this object of the archive.
pub(super) fn concerned(cluster: ClusterId, of: &OfCluster, object: &str) -> Vec<BackupId> {
    let size = of.segment_size();
    let Some(
        WalObject::File(WalFileName::Segment(segment)) | WalObject::Part(crate::wal::Part { segment, .. }),
    ) = WalObject::parse(cluster, object, size)
    else {
        return Vec::new();
    };
    let SegmentName { timeline, .. } = segment;
    let needs = |header: &&Header| {
        TimelineId(header.timeline) == timeline
            && header.start < segment.end(size)
            && segment.start(size) < header.stop.max(Lsn(header.start.0 + 1))
    };
    of.headers.values().filter(needs).map(|header| header.id.clone()).collect()
}
