//! One stream of WAL, from its start until it ends: receives, stores, and reports to the server what is
//! durable.
//!
//! However it ends, what was received is stored before it returns, unless the store fails and whoever
//! called cannot wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use obyra_evidence::Failure;
use obyra_evidence::text::backup as say;
use obyra_postgres::replication::{StandbyStatus, WalEvent, WalStream};
use obyra_postgres::wal::{Lsn, TimelineId, WalSegmentSize};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::super::archive::Put;
use super::super::event::{ArchiveEvent, Lag};
use super::super::tail::Tail;
use super::Tell;
use super::lag::Ends;
use super::storing::{Outcome, Storing};
use crate::Result;

/// The server hears of us at least this often; `wal_sender_timeout` is a minute unless set otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A server that is silent for so long is asked for a sign of life.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// A server that is silent for so long is gone. The network would tell only after a quarter of an hour.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// How long a stop may wait for a store that has not failed yet.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Between two reminders that something is still wrong.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// Until when a stream is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For ever.
    Forever,
    /// Until everything up to here is durable.
    Position(Lsn),
    /// At once, with what has arrived.
    Now,
}

/// How a stream is followed.
#[derive(Clone)]
pub struct How {
    /// How large segments are.
    pub size: WalSegmentSize,
    /// After how long something new goes out as a part; `None`: only at the end.
    pub part_every: Option<Duration>,
    /// Whether something new goes out at once, since commits wait for it.
    pub synchronous: watch::Receiver<bool>,
    /// Whether commits should wait for it.
    pub wants_synchronous: bool,
    /// Bytes that the server may keep for us before somebody should know.
    pub retained_bytes_max: Option<u64>,
    /// Whether what is missing further back is still being searched for.
    pub searching: Arc<AtomicBool>,
    /// Who wants to know.
    pub tell: Tell,
}

/// How it ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each stream")]
pub enum Ended {
    /// As was wanted.
    Done,
    /// The timeline ended.
    Timeline {
        /// Which one follows.
        next: TimelineId,
        /// Where.
        switch_point: Lsn,
    },
    /// The server shut down, the connection broke, or the server has no such WAL.
    Lost(Failure),
}

/// Follows a stream. A failure is one that no repetition would mend.
pub async fn follow(
    stream: &mut WalStream<'_>,
    tail: &mut Tail,
    storing: &mut Storing,
    until: &mut watch::Receiver<Until>,
    how: How,
) -> Result<Ended> {
    let now = Instant::now();
    let following = Following {
        stream,
        tail,
        storing,
        how,
        begun: now,
        heard: now,
        part_due: now,
        wanted_now: false,
        reported: Lsn::INVALID,
        server_end: Lsn::INVALID,
        ends: Ends::default(),
        caught_up: false,
        reminded: None,
        ended: None,
    };
    following.run(until).await
}

struct Following<'a, 'b> {
    stream: &'a mut WalStream<'b>,
    tail: &'a mut Tail,
    storing: &'a mut Storing,
    how: How,
    begun: Instant,
    /// When the server last said something, or was not listened to.
    heard: Instant,
    /// When the next part goes out, if there is something new.
    part_due: Instant,
    /// The server asked how far we are: it may wait for it, as it does when it shuts down.
    wanted_now: bool,
    reported: Lsn,
    server_end: Lsn,
    ends: Ends,
    caught_up: bool,
    reminded: Option<Instant>,
    ended: Option<Ended>,
}

impl Following<'_, '_> {
    async fn run(mut self, until: &mut watch::Receiver<Until>) -> Result<Ended> {
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop_by = None;
        loop {
            let wanted = *until.borrow_and_update();
            self.note_end(wanted);
            if wanted == Until::Now {
                stop_by.get_or_insert_with(|| Instant::now() + STOP_WITHIN);
            }
            self.put_part();
            self.report_progress().await;
            self.note_caught_up();
            if self.is_over(wanted, stop_by) {
                break;
            }
            let reading = self.ended.is_none() && self.tail.complete_pending() < self.storing.segments_max();
            let part_due = self.how.part_every.is_some() && self.tail.wants_part();
            if !reading {
                self.heard = Instant::now();
            }
            tokio::select! {
                event = self.stream.next(), if reading => self.came(event)?,
                outcome = self.storing.next() => self.stored(outcome)?,
                _ = tick.tick() => self.ticked().await,
                () = tokio::time::sleep_until(self.part_due.into()), if part_due => {}
                Ok(()) = until.changed() => {}
                Ok(()) = self.how.synchronous.changed() => {
                    let synchronous = *self.how.synchronous.borrow_and_update();
                    let wanted = self.how.wants_synchronous;
                    (self.how.tell)(ArchiveEvent::Synchronous { waits: synchronous, wanted });
                }
            }
        }
        self.storing.settle(REPORT_EVERY).await;
        Ok(self.ended.take().unwrap_or(Ended::Done))
    }

    /// Whether what was wanted has been received.
    fn note_end(&mut self, wanted: Until) {
        let reached = match wanted {
            Until::Forever => false,
            Until::Position(position) => self.tail.received().max(self.tail.durable()) >= position,
            Until::Now => true,
        };
        if reached && self.ended.is_none() {
            self.ended = Some(Ended::Done);
        }
    }

    fn is_over(&self, wanted: Until, stop_by: Option<Instant>) -> bool {
        if self.ended.is_none() {
            return false;
        }
        let enough = match wanted {
            Until::Position(position) => position.min(self.tail.received()),
            Until::Forever | Until::Now => self.tail.received(),
        };
        let hopeless =
            stop_by.is_some_and(|by| self.storing.failing_since().is_some() || Instant::now() > by);
        self.tail.durable() >= enough || hopeless
    }

    fn put_part(&mut self) {
        let now = Instant::now();
        let due = match self.how.part_every {
            Some(_) if *self.how.synchronous.borrow() || now >= self.part_due => true,
            _ => self.wanted_now || self.ended.is_some(),
        };
        if !due {
            return;
        }
        if let Some((part, bytes)) = self.tail.next_part() {
            self.storing.part(part, bytes);
            self.wanted_now = false;
            self.part_due = now + self.how.part_every.unwrap_or(REMIND_EVERY);
        }
    }

    fn came(&mut self, event: Result<WalEvent>) -> Result<()> {
        self.heard = Instant::now();
        match event {
            Ok(WalEvent::Data { start, server_end, bytes }) => {
                self.saw(server_end);
                for complete in self.tail.receive(start, &bytes)? {
                    self.storing.segment(complete);
                }
            }
            Ok(WalEvent::KeepAlive { server_end, reply_requested }) => {
                self.saw(server_end);
                if reply_requested {
                    self.wanted_now = true;
                    self.reported = Lsn::INVALID;
                }
            }
            Ok(WalEvent::TimelineEnded { next_timeline, switch_point }) => {
                self.ended = Some(Ended::Timeline { next: next_timeline, switch_point });
            }
            Ok(WalEvent::ShutDown) => {
                self.ended = Some(Ended::Lost(Failure::new(say::WAL_SERVER_SHUT_DOWN)));
            }
            Err(failure) => self.ended = Some(Ended::Lost(failure)),
        }
        Ok(())
    }

    fn stored(&mut self, outcome: Outcome) -> Result<()> {
        let was_failing = self.storing.failing_since();
        match outcome {
            Outcome::Segment(segment, put) => {
                let needless = self.tail.segment_stored(segment);
                self.storing.forget(needless);
                let stored = match put {
                    Put::New(stored) => Some(stored),
                    Put::Existed => None,
                };
                let file = segment.file_name(self.how.size);
                (self.how.tell)(ArchiveEvent::Segment { file, stored });
            }
            Outcome::Part(part) => {
                let needless = self.tail.part_stored(part);
                self.storing.forget(needless);
                let file = part.segment.file_name(self.how.size);
                (self.how.tell)(ArchiveEvent::Part { file, durable: self.tail.durable() });
            }
            Outcome::Failing(failure) => {
                let since = was_failing.map_or(Duration::ZERO, |since| since.elapsed());
                (self.how.tell)(ArchiveEvent::StoreFailing { since, failure });
            }
            Outcome::Back(after) => (self.how.tell)(ArchiveEvent::StoreBack { after }),
            Outcome::Refused(failure) => return Err(failure),
        }
        Ok(())
    }

    fn saw(&mut self, server_end: Lsn) {
        self.server_end = self.server_end.max(server_end);
        self.ends.saw(self.server_end, self.begun.elapsed());
    }

    /// Tells the server as soon as more is durable. That the connection is broken is found by reading.
    async fn report_progress(&mut self) {
        let durable = self.tail.durable();
        if durable != self.reported {
            self.report().await;
        }
    }

    /// Everything that the server has is durable, further back too as far as anybody has it.
    fn note_caught_up(&mut self) {
        let durable = self.tail.durable();
        let reached = durable >= self.server_end && self.server_end != Lsn::INVALID;
        if reached && !self.caught_up && !self.how.searching.load(Ordering::Acquire) {
            self.caught_up = true;
            (self.how.tell)(ArchiveEvent::CaughtUp { at: durable });
        }
    }

    async fn report(&mut self) {
        let durable = self.tail.durable();
        let written = self.tail.received().max(durable);
        let status = StandbyStatus { written, flushed: durable, applied: Lsn::INVALID };
        let told = if self.heard.elapsed() > ASK_AFTER {
            self.stream.report_and_ask(status).await
        } else {
            self.stream.report(status).await
        };
        if told.is_ok() {
            self.reported = durable;
        }
    }

    async fn ticked(&mut self) {
        self.report().await;
        if self.heard.elapsed() > SILENT_MAX && self.ended.is_none() {
            let seconds = SILENT_MAX.as_secs();
            self.ended = Some(Ended::Lost(Failure::new(say::WAL_SERVER_SILENT.with("seconds", seconds))));
        }
        let durable = self.tail.durable();
        let age = self.ends.age(durable, self.begun.elapsed());
        let lag = Lag { durable, server: self.server_end.max(durable), age };
        if lag.bytes() > 4 * self.how.size.bytes() {
            self.caught_up = false;
        }
        (self.how.tell)(ArchiveEvent::Lag(lag));
        if let Some(limit) = self.how.retained_bytes_max.filter(|limit| lag.bytes() > *limit)
            && self.reminded.is_none_or(|at| at.elapsed() > REMIND_EVERY)
        {
            self.reminded = Some(Instant::now());
            (self.how.tell)(ArchiveEvent::Retained { bytes: lag.bytes(), limit });
        }
    }
}
