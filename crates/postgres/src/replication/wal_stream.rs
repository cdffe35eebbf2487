//! Receiving WAL as it is written, as a standby would.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use obyra_evidence::text::replication as say;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::message::{WalMessage, encode_status};
use super::refusal::{Asked, Subject};
use super::walsender::{Row, Trouble, Walsender, quoted_name};
use super::wire::Incoming;
use crate::Result;
use crate::wal::{Lsn, TimelineId};

/// Between the beginning of Unix's time and PostgreSQL's, in microseconds.
const YEAR_2000_MICROS: i64 = 946_684_800_000_000;

/// Which WAL is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartWal {
    /// The slot that keeps it for us; without one the server may remove what we have not had.
    pub slot: Option<String>,
    /// The timeline.
    pub timeline: TimelineId,
    /// From where on. The beginning of a segment, if whole segments are wanted.
    pub start: Lsn,
}

/// How far a receiver has come. Only what is durable counts as flushed: the server forgets WAL that
/// a slot's receiver has flushed, and synchronous commits wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Received.
    pub written: Lsn,
    /// Durable.
    pub flushed: Lsn,
    /// Replayed. A receiver that replays nothing says 0.
    pub applied: Lsn,
}

/// What comes over a stream of WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalEvent {
    /// WAL. Each piece begins where the one before it ended; it may cross a segment's boundary.
    Data {
        /// The position of its first byte.
        start: Lsn,
        /// The end of the server's WAL when it was sent.
        server_end: Lsn,
        /// The WAL. It keeps a buffer of a quarter of a MiB alive.
        bytes: Bytes,
    },
    /// The server is alive.
    KeepAlive {
        /// The end of its WAL.
        server_end: Lsn,
        /// Whether it hangs up soon unless [`WalStream::report`] tells it that we are alive too.
        reply_requested: bool,
    },
    /// The timeline ended here: the server was promoted, or this one is its past. The connection is
    /// ready for the next command, such as the start of the next timeline.
    TimelineEnded {
        /// Which one follows.
        next_timeline: TimelineId,
        /// Where it begins: the end of this one.
        switch_point: Lsn,
    },
    /// The server shuts down in good order. Nothing more comes, and all was sent.
    ShutDown,
}

/// A stream of WAL under way.
pub struct WalStream<'a> {
    walsender: &'a mut Walsender,
    /// The position of the next byte.
    position: Lsn,
    streaming: bool,
    next_timeline: Option<(TimelineId, Lsn)>,
    ended: Option<WalEvent>,
}

impl Walsender {
    /// Starts receiving WAL.
    pub async fn start_wal(&mut self, wanted: StartWal) -> Result<WalStream<'_>> {
        let StartWal { slot, timeline, start } = wanted;
        let named = slot.as_deref().map_or_else(String::new, |slot| format!("SLOT {} ", quoted_name(slot)));
        let command = format!("START_REPLICATION {named}PHYSICAL {start} TIMELINE {timeline}");
        let what =
            say::RECEIVE_WAL.with("timeline", timeline).with("position", start).with("server", &self.server);
        self.begin(&command, Asked { what, subject: Subject::Wal { slot, timeline, start } }).await?;
        let streaming = match self.next_of_command().await? {
            Some(Incoming::CopyBoth) => true,
            // The timeline ended right here: the answer is which one follows.
            Some(Incoming::Message(Message::RowDescription(_))) => false,
            _ => return Err(self.unexpected()),
        };
        Ok(WalStream { walsender: self, position: start, streaming, next_timeline: None, ended: None })
    }
}

impl WalStream<'_> {
    /// The next event. Cancelling it loses nothing, so that it can wait beside a timer. After the
    /// stream's end it says the same again.
    pub async fn next(&mut self) -> Result<WalEvent> {
        loop {
            if let Some(ended) = &self.ended {
                return Ok(ended.clone());
            }
            self.walsender.send().await?;
            match self.walsender.next_of_command().await? {
                Some(incoming) => {
                    if let Some(event) = self.event(incoming)? {
                        return Ok(event);
                    }
                }
                None => match self.next_timeline {
                    Some((next_timeline, switch_point)) => {
                        self.ended = Some(WalEvent::TimelineEnded { next_timeline, switch_point });
                    }
                    None => return Err(self.walsender.unexpected()),
                },
            }
        }
    }

    /// Tells the server how far we have come: at least every `wal_sender_timeout`, and when it asks.
    /// If it is cancelled, the next call of this or of [`WalStream::next`] sends the rest.
    pub async fn report(&mut self, status: StandbyStatus) -> Result<()> {
        self.tell(status, false).await
    }

    /// The same, and asks for a sign of life, which comes as a [`WalEvent::KeepAlive`]: a server that has
    /// nothing to send is silent, and so is one that is gone.
    pub async fn report_and_ask(&mut self, status: StandbyStatus) -> Result<()> {
        self.tell(status, true).await
    }

    async fn tell(&mut self, status: StandbyStatus, ask: bool) -> Result<()> {
        if !self.streaming {
            return Ok(());
        }
        encode_status(status, now(), ask, self.walsender.wire.outbox());
        self.walsender.send().await
    }

    fn event(&mut self, incoming: Incoming) -> Result<Option<WalEvent>> {
        let Incoming::Message(message) = incoming else { return Err(self.walsender.unexpected()) };
        match message {
            Message::CopyData(body) if self.streaming => self.data(body.into_bytes()).map(Some),
            Message::CopyDone if self.streaming => {
                self.streaming = false;
                frontend::copy_done(self.walsender.wire.outbox());
                Ok(None)
            }
            // In the middle of the copy this is the server's goodbye.
            Message::CommandComplete(_) if self.streaming => {
                self.streaming = false;
                self.ended = Some(WalEvent::ShutDown);
                Ok(None)
            }
            Message::DataRow(body) if !self.streaming => {
                let row = Row::of(&body).map_err(|why| self.walsender.failure(&why))?;
                self.next_timeline = row.parse(0).map(TimelineId).zip(row.parse(1));
                Ok(None)
            }
            Message::RowDescription(_) | Message::CommandComplete(_) if !self.streaming => Ok(None),
            _ => Err(self.walsender.unexpected()),
        }
    }

    fn data(&mut self, body: Bytes) -> Result<WalEvent> {
        let broken = |words: String| Trouble::Broken(words);
        let message = WalMessage::decode(body).map_err(|why| broken(why.to_string()));
        match message.map_err(|why| self.walsender.failure(&why))? {
            WalMessage::Data { start, .. } if start != self.position => {
                let words = format!("WAL of {start} came in place of {}", self.position);
                Err(self.walsender.failure(&broken(words)))
            }
            WalMessage::Data { start, server_end, bytes } => {
                self.position = start + bytes.len() as u64;
                Ok(WalEvent::Data { start, server_end, bytes })
            }
            WalMessage::KeepAlive { server_end, reply_requested } => {
                Ok(WalEvent::KeepAlive { server_end, reply_requested })
            }
        }
    }
}

/// In microseconds since the year 2000: what `pg_stat_replication.reply_time` shows.
#[expect(clippy::disallowed_methods, reason = "a field of the protocol; nothing is decided by it")]
fn now() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - YEAR_2000_MICROS
}
