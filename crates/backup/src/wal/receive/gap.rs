//! WAL that the server does not have any more: what is the oldest that it has, and who else has the rest.

use bytes::Bytes;
use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{StartWal, WalEvent};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use tokio::sync::watch;

use super::super::archive::Archive;
use super::super::event::ArchiveEvent;
use super::super::index::Hole;
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
    let mut search = Search::new(missing.number, newest.number);
    while let Some(number) = search.question() {
        // A connection of its own for each question: one that streams answers no other.
        let mut source = Source::open(target, archive).await?;
        search.answer(has_segment(&mut source, SegmentName { number, ..missing }).await?);
    }
    Ok(search.found().map(|number| SegmentName { number, ..missing }))
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

/// Searches the first number for which something holds, after one for which it does not and up to a last
/// one; it holds for all that follow.
struct Search {
    not: u64,
    last: u64,
    /// The lowest for which it holds, as far as is known.
    yes: Option<u64>,
}

impl Search {
    fn new(not: u64, last: u64) -> Search {
        Search { not, last, yes: None }
    }

    /// What is to be asked next: the last one first.
    fn question(&self) -> Option<u64> {
        let (below, next) = match self.yes {
            Some(yes) => (yes, self.not + yes.saturating_sub(self.not) / 2),
            None => (self.last.saturating_add(1), self.last),
        };
        (self.not < next && next < below).then_some(next)
    }

    fn answer(&mut self, holds: bool) {
        match self.question() {
            Some(asked) if holds => self.yes = Some(asked),
            Some(asked) => self.not = asked,
            None => {}
        }
    }

    fn found(&self) -> Option<u64> {
        self.yes
    }
}

/// Archives what is missing from whichever host of the connection has it, and tells how that went. Says
/// whether it succeeded.
pub async fn heal(archive: &Archive, target: &Conninfo, hole: Hole, how: &How) -> bool {
    let mut last = removed(hole.timeline, hole.from);
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
    let mut tail = begin(archive, segment, size).await?;
    let mut storing = Storing::new(archive.clone(), size);
    let wanted = StartWal { slot: None, timeline: hole.timeline, start: segment.start(size) };
    let mut stream = source.walsender.start_wal(wanted).await?;
    // Kept until the end: without a sender, the receiver would hear of nothing else.
    let (_keep, mut until) = watch::channel(Until::Position(hole.to));
    match follow(&mut stream, &mut tail, &mut storing, &mut until, how).await? {
        Ended::Lost(failure) => Err(failure),
        Ended::Done | Ended::Timeline { .. } if tail.durable() >= hole.to => Ok(()),
        Ended::Done | Ended::Timeline { .. } => Err(removed(hole.timeline, tail.durable())),
    }
}

fn removed(timeline: TimelineId, position: Lsn) -> Failure {
    Failure::new(text::replication::WAL_REMOVED.with("timeline", timeline).with("position", position))
}

/// The tail with which a stream from a segment on begins: with what the archive holds of it.
pub async fn begin(archive: &Archive, segment: SegmentName, size: WalSegmentSize) -> Result<Tail> {
    let parts = archive.parts(segment, size).await?;
    let archived = if parts.is_empty() { Bytes::new() } else { archive.get_parts(segment, size).await? };
    Ok(Tail::new(archive.cluster(), size, segment, parts, archived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_there_is_found_with_few_questions() {
        let search = |not, last, begin| {
            let (mut search, mut asked) = (Search::new(not, last), 0);
            while let Some(question) = search.question() {
                asked += 1;
                search.answer(question >= begin);
            }
            (search.found(), asked)
        };
        for (not, last, begin) in [(0, 1, 1), (0, 1000, 1), (0, 1000, 1000), (7, 1000, 333), (5, 6, 6)] {
            let (found, asked) = search(not, last, begin);
            assert_eq!(found, Some(begin));
            assert!(asked <= 12, "{asked}");
        }
        assert_eq!(search(3, 9, 10), (None, 1), "not even the last");
        assert_eq!(search(9, 9, 0), (None, 0), "there is nothing to ask");
        assert_eq!(search(9, 3, 0), (None, 0));
    }
}
