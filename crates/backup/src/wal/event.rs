//! What a receiver tells while it runs: for the printer, the ledger and whoever watches.

use std::time::Duration;

use obyra_evidence::{Failure, Message, text};
use obyra_postgres::wal::{Lsn, TimelineId};

use super::index::Hole;

/// Something that happened to the archive.
#[derive(Clone, Debug)]
pub enum ArchiveEvent {
    /// WAL flows.
    Connected {
        /// The timeline that is received.
        timeline: TimelineId,
        /// Where it goes on.
        from: Lsn,
        /// Whether commits on the server wait for the archive (`synchronous_standby_names`).
        synchronous: bool,
    },
    /// The server cannot be reached, or has hung up; the receiver tries again.
    ServerLost {
        /// Why.
        failure: Failure,
        /// When it tries again.
        retry_in: Duration,
    },
    /// A segment is complete and durable.
    Segment {
        /// Its file name.
        file: String,
        /// Bytes that it takes in the store; `None` if the same was there already.
        stored: Option<u64>,
    },
    /// A part of a segment is durable.
    Part {
        /// The segment's file name.
        file: String,
        /// The position up to which the archive now reaches.
        durable: Lsn,
    },
    /// How far the archive is behind the server; about once a second.
    Lag(Lag),
    /// The archive has caught up with the server, and what was missing further back was searched for.
    CaughtUp {
        /// Where both are.
        at: Lsn,
    },
    /// The server began a new timeline, which is followed.
    TimelineSwitch {
        /// The one that was left.
        from: TimelineId,
        /// The one that follows.
        to: TimelineId,
        /// Where.
        at: Lsn,
    },
    /// WAL that the server does not have any more: no recovery can pass it, unless it is found.
    Gap(Hole),
    /// WAL that was missing was found and archived.
    Healed(Hole),
    /// WAL that is missing was found nowhere.
    NotHealed {
        /// What is missing.
        hole: Hole,
        /// What the last server that was asked said.
        failure: Failure,
    },
    /// The server is behind what it sent before: it is a standby that lags, or a copy from an earlier time.
    ServerBehind {
        /// Where the server is.
        server: Lsn,
        /// Where the archive is.
        archive: Lsn,
    },
    /// The store does not take WAL. Nothing is acknowledged to the server meanwhile.
    StoreFailing {
        /// Since when.
        since: Duration,
        /// Why.
        failure: Failure,
    },
    /// The store takes WAL again.
    StoreBack {
        /// How long it did not.
        after: Duration,
    },
    /// The slot was made, since there was none.
    SlotCreated {
        /// Its name.
        slot: String,
    },
    /// The slot had been given up by the server, and was made anew.
    SlotLost {
        /// Its name.
        slot: String,
    },
    /// The server keeps much WAL for the archive: its disk may fill, or it may give up the slot.
    Retained {
        /// Bytes that it keeps.
        bytes: u64,
        /// What is thought bearable.
        limit: u64,
    },
    /// Commits on the server wait for the archive from now on, or no longer.
    Synchronous {
        /// Whether they do.
        waits: bool,
        /// Whether that is wanted.
        wanted: bool,
    },
}

/// How far the archive is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The end of what is durable in the archive.
    pub durable: Lsn,
    /// The end of the server's WAL.
    pub server: Lsn,
    /// For how long the oldest WAL that is not durable has existed, as far as was told.
    pub age: Duration,
}

impl Lag {
    /// Bytes between the two.
    pub fn bytes(&self) -> u64 {
        self.server.bytes_since(self.durable)
    }
}

impl ArchiveEvent {
    /// Whether somebody should be woken up.
    pub fn is_alarm(&self) -> bool {
        matches!(
            self,
            ArchiveEvent::Gap(_)
                | ArchiveEvent::NotHealed { .. }
                | ArchiveEvent::ServerBehind { .. }
                | ArchiveEvent::StoreFailing { .. }
                | ArchiveEvent::SlotLost { .. }
                | ArchiveEvent::Retained { .. }
                | ArchiveEvent::Synchronous { waits: false, wanted: true }
        )
    }

    /// Why it happened, where that is known.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ArchiveEvent::ServerLost { failure, .. }
            | ArchiveEvent::NotHealed { failure, .. }
            | ArchiveEvent::StoreFailing { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// The sentence.
    pub fn message(&self) -> Message {
        use text::backup as say;
        let missing = |code: obyra_evidence::Code, hole: &Hole| {
            code.with("timeline", hole.timeline).with("from", hole.from).with("to", hole.to)
        };
        match self {
            ArchiveEvent::Connected { timeline, from, .. } => {
                say::WAL_CONNECTED.with("timeline", timeline).with("position", from)
            }
            ArchiveEvent::ServerLost { retry_in, .. } => {
                say::WAL_SERVER_LOST.with("seconds", retry_in.as_secs().max(1))
            }
            ArchiveEvent::Segment { file, .. } => say::WAL_SEGMENT.with("file", file),
            ArchiveEvent::Part { file, durable } => {
                say::WAL_PART.with("file", file).with("position", durable)
            }
            ArchiveEvent::Lag(lag) => {
                say::WAL_LAG.with("bytes", lag.bytes()).with("seconds", lag.age.as_secs())
            }
            ArchiveEvent::CaughtUp { at } => say::WAL_CAUGHT_UP.with("position", at),
            ArchiveEvent::TimelineSwitch { from, to, at } => {
                say::WAL_TIMELINE_SWITCH.with("from", from).with("to", to).with("position", at)
            }
            ArchiveEvent::Gap(hole) => missing(say::WAL_GAP, hole),
            ArchiveEvent::Healed(hole) => missing(say::WAL_HEALED, hole),
            ArchiveEvent::NotHealed { hole, .. } => missing(say::WAL_NOT_HEALED, hole),
            ArchiveEvent::ServerBehind { server, archive } => {
                say::WAL_SERVER_BEHIND.with("server", server).with("archive", archive)
            }
            ArchiveEvent::StoreFailing { since, .. } => {
                say::WAL_STORE_FAILING.with("seconds", since.as_secs())
            }
            ArchiveEvent::StoreBack { after } => say::WAL_STORE_BACK.with("seconds", after.as_secs()),
            ArchiveEvent::SlotCreated { slot } => say::WAL_SLOT_CREATED.with("slot", slot),
            ArchiveEvent::SlotLost { slot } => say::WAL_SLOT_LOST.with("slot", slot),
            ArchiveEvent::Retained { bytes, limit } => {
                say::WAL_RETAINED.with("mib", bytes >> 20).with("limit", limit >> 20)
            }
            ArchiveEvent::Synchronous { waits: true, .. } => say::WAL_SYNCHRONOUS.message(),
            ArchiveEvent::Synchronous { waits: false, .. } => say::WAL_ASYNCHRONOUS.message(),
        }
    }
}
