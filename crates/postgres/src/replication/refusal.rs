//! What a server means that refuses a replication connection or one of its commands, and what mends it.

use std::io;

use fallible_iterator::FallibleIterator as _;
use obyra_evidence::{Code, Failure, Message, text};
use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::SqlState;

use super::login::Obstacle;
use super::socket::NotOpened;
use crate::connect::{Attempt, Refusal, refusal};
use crate::sql::{ServerError, server_failure};
use crate::wal::{Lsn, TimelineId};
use text::replication as say;

/// Takes a server's error or notice apart. Before the encoding of a connection is settled, the
/// server speaks in its own.
pub(super) fn said(mut fields: ErrorFields<'_>) -> io::Result<ServerError> {
    let mut said = ServerError {
        severity: String::new(),
        code: SqlState::INTERNAL_ERROR,
        message: String::new(),
        detail: None,
        hint: None,
        context: None,
        routine: None,
    };
    while let Some(field) = fields.next()? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'S' => said.severity = value,
            b'C' => said.code = SqlState::from_code(&value),
            b'M' => said.message = value,
            b'D' => said.detail = Some(value),
            b'H' => said.hint = Some(value),
            b'W' => said.context = Some(value),
            b'R' => said.routine = Some(value),
            _ => {}
        }
    }
    Ok(said)
}

/// Why no connection was opened.
pub(super) fn not_opened(attempt: &Attempt<'_>, why: &NotOpened) -> Refusal {
    match why {
        NotOpened::Io(error) => refusal::by_io(attempt, error),
        NotOpened::TlsRefused => refusal::tls_refused(attempt),
        NotOpened::NotPostgresql => {
            refusal::by_io(attempt, &io::Error::other("no answer to the request for TLS"))
        }
    }
}

/// Why the server did not let us in.
pub(super) fn not_let_in(attempt: &Attempt<'_>, encrypted: bool, why: &Obstacle) -> Refusal {
    match why {
        Obstacle::Io(error) => refusal::by_io(attempt, error),
        Obstacle::HungUp => refusal::hung_up(attempt, "connection closed"),
        Obstacle::PasswordMissing => refusal::password_missing(attempt),
        Obstacle::NoChannelBinding(words) => refusal::no_channel_binding(attempt, words),
        Obstacle::Handshake(words) => refusal::handshake(attempt, words),
        Obstacle::Server(said) => by_server(attempt, encrypted, said),
    }
}

/// Three refusals mean something else here than for a session.
fn by_server(attempt: &Attempt<'_>, encrypted: bool, said: &ServerError) -> Refusal {
    let (server, role) = (attempt.host, attempt.target.user());
    let about = |what: Message, mend: Message| Failure::new(what).because(said).mended_by(mend);
    match (&said.code, said.routine.as_deref()) {
        (&SqlState::INVALID_AUTHORIZATION_SPECIFICATION, Some("ClientAuthentication")) => {
            let encryption = if encrypted { "TLS" } else { "no TLS" };
            let what = say::NO_HBA_ENTRY.with("server", server).with("role", role);
            let line = if attempt.host.socket_dir().is_some() {
                format!("local replication {role} scram-sha-256")
            } else if encrypted {
                format!("hostssl replication {role} ADDRESS/32 scram-sha-256")
            } else {
                format!("host replication {role} ADDRESS/32 scram-sha-256")
            };
            Refusal::about_encryption(about(
                what.with("encryption", encryption),
                say::MEND_NO_HBA_ENTRY.with("line", line),
            ))
        }
        (&SqlState::INSUFFICIENT_PRIVILEGE, _) => Refusal::last(about(
            say::NO_REPLICATION_ROLE.with("role", role).with("server", server),
            say::MEND_NO_REPLICATION_ROLE.with("role", crate::quote::ident(role)),
        )),
        (&SqlState::TOO_MANY_CONNECTIONS, Some("InitProcess")) => {
            let none = said.message.contains('0') && !said.message.contains(|c| ('1'..='9').contains(&c));
            Refusal::other(if none {
                about(say::REPLICATION_OFF.with("server", server), say::MEND_REPLICATION_OFF.message())
            } else {
                about(
                    say::TOO_MANY_WALSENDERS.with("server", server),
                    say::MEND_TOO_MANY_WALSENDERS.message(),
                )
            })
        }
        _ => refusal::by_server(attempt, encrypted, said),
    }
}

/// What a command was about, so that its refusal can be told.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// What then has failed.
    pub what: Message,
    pub subject: Subject,
}

/// What a command is about.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// Nothing whose refusals are known beforehand.
    Other,
    Slot(String),
    Wal {
        slot: Option<String>,
        timeline: TimelineId,
        start: Lsn,
    },
}

/// The failure of a command that the server refused.
pub(super) fn of_command(asked: &Asked, said: &ServerError) -> Failure {
    let slot = match &asked.subject {
        Subject::Slot(slot) | Subject::Wal { slot: Some(slot), .. } => Some(slot.as_str()),
        _ => None,
    };
    let known = slot.and_then(|slot| about_slot(slot, said)).or_else(|| match &asked.subject {
        Subject::Wal { timeline, start, .. } => about_wal(*timeline, *start, said),
        _ => None,
    });
    match known {
        Some((what, mend)) => Failure::new(what).because(said).mended_by(mend),
        None => server_failure(asked.what.clone(), said),
    }
}

fn about_slot(slot: &str, said: &ServerError) -> Option<(Message, Message)> {
    let (what, mend) = match said.code {
        SqlState::UNDEFINED_OBJECT => (say::SLOT_MISSING, say::MEND_SLOT_MISSING),
        SqlState::OBJECT_IN_USE => (say::SLOT_ACTIVE, say::MEND_SLOT_ACTIVE),
        SqlState::DUPLICATE_OBJECT => (say::SLOT_EXISTS, say::MEND_SLOT_EXISTS),
        SqlState::CONFIGURATION_LIMIT_EXCEEDED => (say::SLOTS_FULL, say::MEND_SLOTS_FULL),
        // It was invalidated: it kept more WAL than max_slot_wal_keep_size, or lay idle too long.
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => (say::SLOT_LOST, say::MEND_SLOT_LOST),
        _ => return None,
    };
    Some((what.with("slot", slot), mend.with("slot", slot)))
}

fn about_wal(timeline: TimelineId, start: Lsn, said: &ServerError) -> Option<(Message, Message)> {
    let on = |what: Code| what.with("timeline", timeline).with("position", start);
    match (&said.code, said.routine.as_deref()) {
        (&SqlState::UNDEFINED_FILE, _) => Some((on(say::WAL_REMOVED), say::MEND_WAL_REMOVED.message())),
        (_, Some("tliSwitchPoint")) => Some((on(say::NOT_IN_HISTORY), say::MEND_NOT_IN_HISTORY.message())),
        // One routine raises both; only one of them has more to tell.
        (&SqlState::INTERNAL_ERROR, Some("StartReplication")) if said.detail.is_some() => {
            Some((on(say::NOT_IN_HISTORY), say::MEND_NOT_IN_HISTORY.message()))
        }
        (&SqlState::INTERNAL_ERROR, Some("StartReplication")) => {
            Some((on(say::AHEAD), say::MEND_AHEAD.message()))
        }
        _ => None,
    }
}
