//! The WAL of a base backup: a backup is worth something only once every segment from its start to its stop
//! is in the archive and was read back.
//!
//! Somebody may be delivering it already, a receiver or the server's `archive_command`; whoever takes the
//! backup makes sure of that, and else receives it over a connection of its own while the files are read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{StartWal, SystemIdentity};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::archive::Archive;
use super::event::ArchiveEvent;
use super::index::Hole;
use super::pages::{self, PageCheck};
use super::receive::follow::{Ended, How, Until, follow};
use super::receive::gap;
use super::receive::source::{self, Source};
use super::receive::storing::Storing;
use crate::Result;
use crate::repository::keys::random;

/// How long to see whether somebody else delivers. A backup begins with a switch of segments, so whoever
/// does has something to do at once.
const SEE_WITHIN: Duration = Duration::from_secs(10);

/// How long whoever delivers may make no progress, once the backup has ended, before it is done here. What both
/// deliver is the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the archive.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often something new of an unfinished segment goes out while a backup runs.
const PART_EVERY: Duration = Duration::from_secs(5);

/// How much of what the server still has and the archive lacks before a backup comes along with it. What is
/// more is left to a receiver, and is a hole until then.
const ALONG_BYTES: u64 = 1 << 30;

/// The name of the connection, so that no synchronous commit waits for it by accident.
const APPLICATION_NAME: &str = "obyra-db-backup";

/// WAL of which each byte was read back from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenWal {
    /// How many segments that are.
    pub segments: u64,
    /// Whether it was received here; else somebody else has delivered it.
    pub received: bool,
}

/// What has been reserved on a server for a backup that is about to begin. Dropping it gives that up.
pub struct ReservedWal {
    archive: Archive,
    target: Conninfo,
    source: Source,
    slot: String,
    switches: bool,
    /// Where the archive ended before.
    archived: Lsn,
}

/// The WAL of a backup under way. Dropping it ends the connection, and with it the temporary slot.
pub struct BackupWal {
    archive: Archive,
    size: WalSegmentSize,
    timeline: TimelineId,
    start: Lsn,
    /// Whether the end of the backup completes a segment: a primary switches to the next one, a standby cannot.
    switches: bool,
    order: watch::Sender<Until>,
    task: JoinSet<Result<bool>>,
}

impl ReservedWal {
    /// Before a backup begins: from now on the server keeps what it will need.
    pub async fn reserve(archive: &Archive, target: &Conninfo) -> Result<ReservedWal> {
        let target = target.with_application_name(APPLICATION_NAME);
        let mut source = Source::open(&target, archive).await?;
        let slot = format!("obyra_backup_{:08x}", u32::from_le_bytes(random()?));
        source.walsender.create_physical_slot(&slot, true, true).await?;
        let switches = !source.walsender.in_recovery();
        let SystemIdentity { position, timeline, .. } = source.identity;
        let current = SegmentName::containing(position, timeline, source.size);
        let archived = ends_after(archive, current, source.size).await?;
        Ok(ReservedWal { archive: archive.clone(), target, source, slot, switches, archived })
    }

    /// The backup has begun at this position of this timeline.
    pub fn begin(self, start: Lsn, timeline: TimelineId) -> BackupWal {
        let (order, until) = watch::channel(Until::Forever);
        let (archive, size, switches) = (self.archive.clone(), self.source.size, self.switches);
        let mut task = JoinSet::new();
        task.spawn(self.deliver(start, timeline, until));
        BackupWal { archive, size, timeline, start, switches, order, task }
    }

    /// Sees to it that everything up to the ordered position gets into the archive; says whether it was
    /// received here.
    async fn deliver(
        self,
        start: Lsn,
        timeline: TimelineId,
        mut until: watch::Receiver<Until>,
    ) -> Result<bool> {
        let ReservedWal { archive, target, source, slot, archived, .. } = self;
        let size = source.size;
        let first = SegmentName::containing(start, timeline, size);
        if !delivered_elsewhere(&archive, (archived, first), size, &mut until).await? {
            let mut along = JoinSet::new();
            if let Some(hole) = lately_missing(&archive, first, size).await? {
                let (archive, target) = (archive.clone(), target.clone());
                let how = how(size, false);
                // Where it fails, the hole stays, and is told of wherever the archive is looked at.
                along.spawn(async move { gap::heal(&archive, &target, hole, &how).await });
            }
            let received = receive(archive, &target, source, (Some(slot), first), until).await?;
            along.join_all().await;
            return Ok(received);
        }
        // Whoever delivers has a slot, or the server waits for its archive_command.
        source.walsender.close().await;
        let stop = ordered(&mut until).await;
        let end = wait_for(&archive, first, size, stop).await?;
        if end >= stop {
            return Ok(false);
        }
        let source = Source::open(&target, &archive).await?;
        let from = SegmentName::containing(end, timeline, size);
        receive(archive, &target, source, (None, from), until).await
    }
}

impl BackupWal {
    /// The backup has ended at this position: waits until everything up to it is durable, and reads it all
    /// back.
    pub async fn finish(mut self, stop: Lsn) -> Result<ProvenWal> {
        // A segment that is complete needs no part; whoever goes on from here begins with the next one.
        let last = SegmentName::ending_at(stop, self.timeline, self.size);
        let wanted = if self.switches { last.end(self.size) } else { stop };
        self.order.send_replace(Until::Position(wanted));
        let received = match self.task.join_next().await {
            Some(Ok(done)) => done?,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => false,
        };
        let segments = prove(&self.archive, self.start, stop, self.timeline, self.size).await?;
        Ok(ProvenWal { segments, received })
    }
}

/// Whether somebody else brings WAL: the archive reaches this segment, and further than it did before.
async fn delivered_elsewhere(
    archive: &Archive,
    (archived, first): (Lsn, SegmentName),
    size: WalSegmentSize,
    until: &mut watch::Receiver<Until>,
) -> Result<bool> {
    let begun = Instant::now();
    loop {
        let end = ends_after(archive, first, size).await?;
        if end >= first.start(size) && end > archived {
            return Ok(true);
        }
        if begun.elapsed() > SEE_WITHIN || *until.borrow_and_update() != Until::Forever {
            return Ok(false);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = until.changed() => {}
        }
    }
}

/// Where the archive ends, if that is not before the segment in front of this one.
async fn ends_after(archive: &Archive, segment: SegmentName, size: WalSegmentSize) -> Result<Lsn> {
    let before = SegmentName { number: segment.number.saturating_sub(1), ..segment };
    let index = archive.index_from(before, size).await?;
    Ok(index.end(segment.timeline).unwrap_or_default())
}

/// What the archive misses since it was last filled, if that is not too much.
async fn lately_missing(archive: &Archive, first: SegmentName, size: WalSegmentSize) -> Result<Option<Hole>> {
    let oldest = first.number.saturating_sub(ALONG_BYTES / size.bytes());
    let index = archive.index_from(SegmentName { number: oldest, ..first }, size).await?;
    let (timeline, to) = (first.timeline, first.start(size));
    let end = index.end(timeline).filter(|end| *end < to);
    Ok(end.map(|from| Hole { timeline, from, to }))
}

/// The position up to which WAL is wanted, once it is known.
async fn ordered(until: &mut watch::Receiver<Until>) -> Lsn {
    loop {
        if let Until::Position(position) = *until.borrow_and_update() {
            return position;
        }
        if until.changed().await.is_err() {
            // The backup was given up, and this with it.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the archive reaches a position without a hole, or does not come further; returns how far it
/// reaches.
async fn wait_for(archive: &Archive, first: SegmentName, size: WalSegmentSize, stop: Lsn) -> Result<Lsn> {
    let (mut end, mut since) = (first.start(size), Instant::now());
    loop {
        let index = archive.index_from(first, size).await?;
        let stretches = index.timelines().get(&first.timeline).map_or(&[][..], |of| &of.stretches);
        let reached = stretches.iter().find(|stretch| stretch.from <= first.start(size) && stretch.to > end);
        if let Some(stretch) = reached {
            (end, since) = (stretch.to, Instant::now());
        }
        if end >= stop || since.elapsed() > PATIENCE {
            return Ok(end);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn receive(
    archive: Archive,
    target: &Conninfo,
    mut source: Source,
    (slot, from): (Option<String>, SegmentName),
    mut until: watch::Receiver<Until>,
) -> Result<bool> {
    let size = source.size;
    let synchronous = source::is_synchronous(&mut source.walsender, target).await?;
    let mut tail = gap::begin(&archive, from, size).await?;
    let mut storing = Storing::new(archive, size);
    let wanted = StartWal { slot, timeline: from.timeline, start: from.start(size) };
    let mut stream = source.walsender.start_wal(wanted).await?;
    let (complain, mut complaints) = mpsc::unbounded_channel();
    let tell = Arc::new(move |event| {
        if let ArchiveEvent::StoreFailing { failure, .. } = event {
            let _ = complain.send(failure);
        }
    });
    let how = How { tell, ..how(size, synchronous) };
    // The store was waited for already: a backup waits no longer for its WAL than for its packs.
    let ended = tokio::select! {
        Some(failure) = complaints.recv() => return Err(failure),
        ended = follow(&mut stream, &mut tail, &mut storing, &mut until, how) => ended?,
    };
    match ended {
        Ended::Done => Ok(true),
        Ended::Timeline { switch_point, .. } => {
            let what = text::backup::WAL_PROMOTED_DURING.with("timeline", from.timeline);
            Err(Failure::new(what.with("position", switch_point))
                .mended_by(text::backup::WAL_PROMOTED_DURING_MEND))
        }
        Ended::Lost(failure) => Err(failure),
    }
}

/// Nobody is told; whether commits wait does not change while a backup runs.
fn how(size: WalSegmentSize, synchronous: bool) -> How {
    How {
        size,
        part_every: Some(PART_EVERY),
        synchronous: watch::channel(synchronous).1,
        wants_synchronous: false,
        retained_bytes_max: None,
        searching: Arc::default(),
        tell: Arc::new(drop),
    }
}

/// Reads the WAL between two positions of a timeline back from the store, and looks at each of its pages;
/// returns how many segments that are. Only the last one may be there in parts.
pub async fn prove(
    archive: &Archive,
    start: Lsn,
    stop: Lsn,
    timeline: TimelineId,
    size: WalSegmentSize,
) -> Result<u64> {
    let first = SegmentName::containing(start, timeline, size);
    let last = SegmentName::ending_at(stop.max(start + 1), timeline, size);
    for number in first.number..=last.number {
        let segment = SegmentName { number, ..first };
        let file = segment.file_name(size);
        let mut check = PageCheck::new(archive.cluster(), segment, size);
        if let Some(content) = archive.get_segment(segment, size).await? {
            check.whole(&content).map_err(|fault| pages::refusal(fault, &file, archive.cluster()))?;
            continue;
        }
        let parts = if segment == last { archive.get_parts(segment, size).await? } else { Bytes::new() };
        check.advance(&parts).map_err(|fault| pages::refusal(fault, &file, archive.cluster()))?;
        if segment.start(size) + (parts.len() as u64) < stop.min(segment.end(size)) {
            return Err(Failure::new(text::backup::WAL_OF_BACKUP_MISSING.with("file", file))
                .mended_by(text::backup::WAL_OF_BACKUP_MISSING_MEND));
        }
    }
    Ok(last.number - first.number + 1)
}
