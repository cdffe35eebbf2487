//! The receiver: keeps an archive as close behind a server as it can, for as long as it is let.
//!
//! It goes on where the archive ends, follows timelines and failovers, and tells the server that something
//! is flushed only when the store has it. What fails is tried again; what cannot be mended by that, such as
//! WAL of another cluster, ends it.

mod backoff;
pub(super) mod follow;
pub(super) mod gap;
mod lag;
mod settings;
pub(super) mod source;
pub(super) mod storing;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use obyra_evidence::{Exit, Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{StartWal, Walsender};
use obyra_postgres::wal::{Lsn, SegmentName};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::archive::Archive;
use super::event::ArchiveEvent;
use super::index::{Hole, Index};
use super::resume::{self, Resume};
use crate::Result;
use backoff::Backoff;
use follow::{Ended, How, Until};
use source::Source;
use storing::Storing;

/// Who is told what happens.
pub type Tell = Arc<dyn Fn(ArchiveEvent) + Send + Sync>;

/// How often the server is asked whether commits wait for the archive.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often what is missing is searched for again.
const HEAL_EVERY: Duration = Duration::from_secs(600);

/// What a receiver is told.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// The physical replication slot, made if it is absent. It is also the `application_name`, unless the
    /// connection string has one: what `synchronous_standby_names` must name for an RPO of zero.
    pub slot: String,
    /// After how long something new of an unfinished segment goes out.
    pub part_every: Duration,
    /// Bytes that the server may keep for the archive before that is an alarm; eight tenths of the
    /// server's own `max_slot_wal_keep_size` if that is less.
    pub retained_bytes_max: u64,
    /// Whether commits shall wait for the archive; that they do not is an alarm then. The server decides, by
    /// `synchronous_standby_names`.
    pub synchronous: bool,
}

impl ReceiveOptions {
    /// The usual, with a slot of this name: parts every 5 seconds, an alarm at 8 GiB.
    pub fn new(slot: &str) -> ReceiveOptions {
        ReceiveOptions {
            slot: slot.to_owned(),
            part_every: Duration::from_secs(5),
            retained_bytes_max: 8 << 30,
            synchronous: false,
        }
    }
}

/// Receives WAL into the archive until `stop` is ready, and then stores what has arrived.
pub async fn receive(
    archive: &Archive,
    target: &Conninfo,
    options: &ReceiveOptions,
    tell: Tell,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let target = match target.application_name() {
        Some(_) => target.clone(),
        None => target.with_application_name(&options.slot),
    };
    let (order, until) = watch::channel(Until::Forever);
    let mut receiver = Receiver {
        archive: archive.clone(),
        target,
        options: options.clone(),
        tell,
        until,
        backoff: Backoff::new(),
        healing: JoinSet::new(),
        healed_at: None,
        searching: Arc::default(),
        given_up: Arc::default(),
    };
    let mut stop = pin!(stop);
    let mut running = pin!(receiver.run());
    tokio::select! {
        done = &mut running => return done,
        () = &mut stop => drop(order.send(Until::Now)),
    }
    running.await
}

struct Receiver {
    archive: Archive,
    target: Conninfo,
    options: ReceiveOptions,
    tell: Tell,
    until: watch::Receiver<Until>,
    backoff: Backoff,
    /// What searches for missing WAL, if anything does; it ends with the receiver.
    healing: JoinSet<()>,
    healed_at: Option<Instant>,
    /// Whether it is under way.
    searching: Arc<AtomicBool>,
    /// The holes that nobody could fill, so that each is told once.
    given_up: Arc<Mutex<HashSet<Hole>>>,
}

impl Receiver {
    async fn run(&mut self) -> Result<()> {
        loop {
            let failure = match self.connection().await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.exit != Exit::Failed => return Err(failure),
                Err(failure) => failure,
            };
            let retry_in = self.backoff.next_pause();
            (self.tell)(ArchiveEvent::ServerLost { failure, retry_in });
            let mut until = self.until.clone();
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                _ = until.wait_for(|until| *until == Until::Now) => return Ok(()),
            }
        }
    }

    /// One connection, from timeline to timeline. `Ok` when it was told to stop.
    async fn connection(&mut self) -> Result<()> {
        let mut until = self.until.clone();
        let opening = async {
            let mut source = Source::open(&self.target, &self.archive).await?;
            let index = self.archive.index(source.size).await?;
            source.ensure_slot(&self.options.slot, &self.tell).await?;
            let resume = match resume::resume(&index, &source.history) {
                Some(resume) => resume,
                None => source.beginning(&self.options.slot).await?,
            };
            // Looks now and then whether commits wait; ends with the connection.
            let mut looking = JoinSet::new();
            let how = self.how(&mut source, &mut looking).await?;
            Ok::<_, Failure>((source, index, resume, how, looking))
        };
        let (mut source, index, mut resume, how, _looking) = tokio::select! {
            opened = opening => opened?,
            _ = until.wait_for(|until| *until == Until::Now) => return Ok(()),
        };
        let server = source.identity.position;
        if resume.segment.timeline == source.identity.timeline && resume.archived > server {
            (self.tell)(ArchiveEvent::ServerBehind { server, archive: resume.archived });
        }
        self.tidy(&index).await;
        self.heal(&index, &source, resume.archived, &how);
        loop {
            match self.timeline(&mut source, resume, &how).await? {
                Ended::Done => {
                    source.walsender.close().await;
                    return Ok(());
                }
                Ended::Timeline { next, switch_point } => {
                    let from = resume.segment.timeline;
                    (self.tell)(ArchiveEvent::TimelineSwitch { from, to: next, at: switch_point });
                    source.history = source.archive_history(&self.archive, next).await?;
                    let segment = SegmentName::containing(switch_point, next, source.size);
                    resume = Resume { segment, archived: segment.start(source.size) };
                }
                Ended::Lost(failure) if gap::is_removed(&failure) => {
                    resume = self.gap(&mut source, resume, failure, &how).await?;
                }
                Ended::Lost(failure) if failure.what.code() == text::replication::SLOT_LOST => {
                    source.renew_slot(&self.options.slot, &self.tell).await?;
                }
                Ended::Lost(failure) => return Err(failure),
            }
        }
    }

    /// One stream.
    async fn timeline(&mut self, source: &mut Source, resume: Resume, how: &How) -> Result<Ended> {
        let mut tail = gap::begin(&self.archive, resume.segment, source.size).await?;
        let mut storing = Storing::new(self.archive.clone(), source.size);
        let wanted = StartWal {
            slot: Some(self.options.slot.clone()),
            timeline: resume.segment.timeline,
            start: resume.segment.start(source.size),
        };
        let mut stream = match source.walsender.start_wal(wanted).await {
            Ok(stream) => stream,
            Err(failure) => return Ok(Ended::Lost(failure)),
        };
        self.backoff = Backoff::new();
        let (waits, wanted) = (*how.synchronous.borrow(), self.options.synchronous);
        let (timeline, from) = (resume.segment.timeline, resume.archived);
        (self.tell)(ArchiveEvent::Connected { timeline, from, synchronous: waits });
        if wanted && !waits {
            (self.tell)(ArchiveEvent::Synchronous { waits, wanted });
        }
        follow::follow(&mut stream, &mut tail, &mut storing, &mut self.until, how.clone()).await
    }

    /// The server has removed what comes next. Goes on with the oldest that it has; what lies between is a
    /// hole, which is searched for elsewhere.
    async fn gap(
        &mut self,
        source: &mut Source,
        resume: Resume,
        failure: Failure,
        how: &How,
    ) -> Result<Resume> {
        source.identity = source.walsender.identify_system().await?;
        // Since this connection began, the archive may have come further.
        let index = self.archive.index(source.size).await?;
        let resume = resume::resume(&index, &source.history).map_or(resume, |found| {
            if (found.segment, found.archived) > (resume.segment, resume.archived) { found } else { resume }
        });
        let timeline = resume.segment.timeline;
        // The rest of the segment in which a timeline was left is kept under the next one's name.
        let left = source.history.switch_point(timeline);
        let newest = SegmentName::containing(left.unwrap_or(source.identity.position), timeline, source.size);
        let oldest = gap::oldest(&self.target, &self.archive, resume.segment, newest).await?;
        let next = match (oldest, left) {
            (Some(segment), _) => Resume { segment, archived: segment.start(source.size) },
            (None, Some(left)) => {
                let next = source.history.parents().iter().map(|parent| parent.timeline);
                let next = next.chain([source.history.timeline()]).find(|next| *next > timeline);
                let segment = SegmentName::containing(left, next.unwrap_or(timeline), source.size);
                Resume { segment, archived: segment.start(source.size) }
            }
            (None, None) => return Err(failure),
        };
        let to =
            if next.segment.timeline == timeline { next.archived } else { left.unwrap_or(next.archived) };
        (self.tell)(ArchiveEvent::Gap(Hole { timeline, from: resume.archived, to }));
        self.healed_at = None;
        self.heal(&index, source, next.archived, how);
        Ok(next)
    }

    /// How the streams of this connection are followed.
    async fn how(&self, source: &mut Source, looking: &mut JoinSet<()>) -> Result<How> {
        let synchronous = source::is_synchronous(&mut source.walsender, &self.target).await?;
        let keep = source.walsender.show("max_slot_wal_keep_size").await?;
        let bearable = settings::bytes(&keep).map_or(u64::MAX, |keep| keep / 10 * 8);
        let (found, synchronous) = watch::channel(synchronous);
        let target = self.target.clone();
        looking.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let looked = async {
                    let mut walsender = Walsender::connect(&target).await?;
                    let synchronous = source::is_synchronous(&mut walsender, &target).await?;
                    walsender.close().await;
                    Ok::<_, Failure>(synchronous)
                };
                if let Ok(now) = looked.await {
                    found.send_if_modified(|was| std::mem::replace(was, now) != now);
                }
            }
        });
        Ok(How {
            size: source.size,
            part_every: Some(self.options.part_every),
            synchronous,
            wants_synchronous: self.options.synchronous,
            retained_bytes_max: Some(self.options.retained_bytes_max.min(bearable)),
            searching: self.searching.clone(),
            tell: self.tell.clone(),
        })
    }

    /// Deletes what a receiver that was killed left behind.
    async fn tidy(&self, index: &Index) {
        for timeline in index.timelines().values() {
            let _ = self.archive.delete_parts(&timeline.needless, index.size()).await;
        }
    }

    /// Searches for what is missing before a position, beside the stream.
    fn heal(&mut self, index: &Index, source: &Source, to: Lsn, how: &How) {
        while self.healing.try_join_next().is_some() {}
        let lately = self.healed_at.is_some_and(|at| at.elapsed() < HEAL_EVERY);
        let holes = resume::holes(index, &source.history, to);
        if holes.is_empty() || lately || !self.healing.is_empty() {
            return;
        }
        self.healed_at = Some(Instant::now());
        let (archive, target) = (self.archive.clone(), self.target.clone());
        let tell = told_once(self.tell.clone(), self.given_up.clone());
        let how = How { part_every: None, retained_bytes_max: None, tell, ..how.clone() };
        let searching = self.searching.clone();
        searching.store(true, Ordering::Release);
        self.healing.spawn(async move {
            let _over = Over(searching);
            for hole in holes {
                // What is older than something that nobody has, nobody has either.
                if !gap::heal(&archive, &target, hole, &how).await {
                    break;
                }
            }
        });
    }
}

/// Says that a search is over, however it ends.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Of a search: what it archives, what it fills, and each hole that it cannot fill once.
fn told_once(tell: Tell, given_up: Arc<Mutex<HashSet<Hole>>>) -> Tell {
    Arc::new(move |event| {
        let matters = match &event {
            ArchiveEvent::Segment { .. } | ArchiveEvent::Healed(_) => true,
            ArchiveEvent::NotHealed { hole, .. } => {
                given_up.lock().unwrap_or_else(PoisonError::into_inner).insert(*hole)
            }
            _ => false,
        };
        if matters {
            tell(event);
        }
    })
}
