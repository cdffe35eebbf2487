//! WAL that the server does not have any more: what is the oldest that it has, and who else has the rest.

use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{StartWal, WalEvent};
use obyra_postgres::wal::{Lsn, SegmentName, WalSegmentSize};
use tokio::sync::watch;

use super::super::archive::Archive;
use super::super::event::ArchiveEvent;
use super::super::index::Hole;
use super::super::resume::Resume;
use super::super::tail::Tail;
use super::follow::{Ended, How, Until, follow};
use super::source::Source;
use super::storing::Storing;
use crate::Result;

/// Whether a failure says that the server has removed this WAL.
pub fn is_removed(failure: &Failure) -> bool {
    failure.what.code() == text::replication::WAL_REMOVED
}

/// The oldest segment that a server has, after one that it does not have and up to one that it should;
/// `None` if it does not have that one either.
pub async fn oldest(
    target: &Conninfo,
    archive: &Archive,
    missing: SegmentName,
    newest: SegmentName,
) -> Result<Option<SegmentName>> {
    let has = async |number: u64| {
        let mut source = Source::open(target, archive).await?;
        let segment = SegmentName { number, ..missing };
        has_segment(&mut source, segment).await
    };
    let found = first_true(missing.number, newest.number, has).await?;
    Ok(found.map(|number| SegmentName { number, ..missing }))
}

async fn has_segment(source: &mut Source, segment: SegmentName) -> Result<bool> {
    let start = segment.start(source.size);
    let wanted = StartWal { slot: None, timeline: segment.timeline, start };
    let first = match source.walsender.start_wal(wanted).await {
        Ok(mut stream) => stream.next().await,
        Err(failure) => Err(failure),
    };
    match first {
        Ok(WalEvent::Data { .. } | WalEvent::KeepAlive { .. } | WalEvent::TimelineEnded { .. }) => Ok(true),
        Ok(WalEvent::ShutDown) => Err(Failure::new(text::backup::WAL_SERVER_SHUT_DOWN)),
        Err(failure) if is_removed(&failure) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The first number for which something holds, after one for which it does not and up to a last one; it
/// holds for all that follow. `None` if it does not hold for the last one.
async fn first_true(not: u64, last: u64, holds: impl AsyncFn(u64) -> Result<bool>) -> Result<Option<u64>> {
    if last <= not || !holds(last).await? {
        return Ok(None);
    }
    let (mut not, mut yes) = (not, last);
    while yes - not > 1 {
        let middle = not + (yes - not) / 2;
        if holds(middle).await? {
            yes = middle;
        } else {
            not = middle;
        }
    }
    Ok(Some(yes))
}

/// Archives what is missing from whichever host of the connection has it, and tells how that went. Says
/// whether it succeeded.
pub async fn heal(archive: &Archive, target: &Conninfo, hole: Hole, how: &How) -> bool {
    let mut last = Failure::new(
        text::replication::WAL_REMOVED.with("timeline", hole.timeline).with("position", hole.from),
    );
    for host in target.hosts() {
        match heal_from(archive, &target.at(host), hole, how.clone()).await {
            Ok(()) => {
                (how.tell)(ArchiveEvent::Healed(hole));
                return true;
            }
            Err(failure) => last = failure,
        }
    }
    (how.tell)(ArchiveEvent::NotHealed { hole, failure: last });
    false
}

async fn heal_from(archive: &Archive, target: &Conninfo, hole: Hole, how: How) -> Result<()> {
    let mut source = Source::open(target, archive).await?;
    let size = source.size;
    let segment = SegmentName::containing(hole.from, hole.timeline, size);
    let mut tail = begin(archive, Resume { segment, archived: hole.from }, size).await?;
    let mut storing = Storing::new(archive.clone(), size);
    let wanted = StartWal { slot: None, timeline: hole.timeline, start: segment.start(size) };
    let mut stream = source.walsender.start_wal(wanted).await?;
    // Kept until the end: without a sender, the receiver would hear of nothing else.
    let (_keep, mut until) = watch::channel(Until::Position(hole.to));
    match follow(&mut stream, &mut tail, &mut storing, &mut until, how).await? {
        Ended::Lost(failure) => Err(failure),
        Ended::Done | Ended::Timeline { .. } if tail.durable() >= hole.to => Ok(()),
        Ended::Done | Ended::Timeline { .. } => Err(missing(hole.timeline, tail.durable())),
    }
}

fn missing(timeline: obyra_postgres::wal::TimelineId, position: Lsn) -> Failure {
    Failure::new(text::replication::WAL_REMOVED.with("timeline", timeline).with("position", position))
}

/// The tail with which a stream from there on begins: with what the archive holds of its first segment.
pub async fn begin(archive: &Archive, resume: Resume, size: WalSegmentSize) -> Result<Tail> {
    let segment = resume.segment;
    if resume.archived <= segment.start(size) {
        return Ok(Tail::new(archive.cluster(), size, segment, Vec::new(), bytes::Bytes::new()));
    }
    let parts = archive.parts(segment, size).await?;
    let archived = archive.get_parts(segment, size).await?;
    Ok(Tail::new(archive.cluster(), size, segment, parts, archived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_there_is_found_with_few_questions() {
        for (not, last, begin) in [(0, 1, 1), (0, 1000, 1), (0, 1000, 1000), (7, 1000, 333), (5, 6, 6)] {
            let asked = std::cell::Cell::new(0);
            let found = first_true(not, last, async |number| {
                asked.set(asked.get() + 1);
                Ok(number >= begin)
            })
            .await
            .unwrap();
            assert_eq!(found, Some(begin));
            assert!(asked.get() <= 12, "{}", asked.get());
        }
        assert_eq!(first_true(3, 9, async |_| Ok(false)).await.unwrap(), None);
        assert_eq!(first_true(9, 9, async |_| Ok(true)).await.unwrap(), None);
    }
}
