//! A replication connection and its short commands.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use fallible_iterator::FallibleIterator as _;
use obyra_evidence::{Failure, Message as Words, text};
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::cancel::CancelToken;
use super::login::Login;
use super::refusal::{self, Asked, Subject};
use super::socket::Route;
use super::wire::{Incoming, Wire};
use crate::connect::{self, Attempt, Establish, Kind, Refusal};
use crate::sql::ServerError;
use crate::wal::{Lsn, TimelineHistory, TimelineId};
use crate::{Conninfo, Result, ServerVersion};
use text::replication as say;

/// A server with a thousand damaged files has said enough.
const NOTICES_MAX: usize = 1_000;

/// How long the server may take to let go of what we held.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// A replication connection: the server's side of it is a process called walsender.
///
/// One command at a time. Dropping it closes the connection; what the server was sending ends with
/// it, but a backup that still waits for its checkpoint ends at once only by its [`CancelToken`].
pub struct Walsender {
    pub(super) wire: Wire,
    pub(super) server: String,
    version: ServerVersion,
    in_recovery: bool,
    encrypted: bool,
    cancel: CancelToken,
    notices: Vec<String>,
    /// The last command, and whether it is under way.
    asked: Asked,
    busy: bool,
    /// What the server said to it before it was ready again.
    refused: Option<ServerError>,
}

/// Who a server is (`IDENTIFY_SYSTEM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The number that initdb gave to the cluster; its standbys and its backups share it.
    pub system_identifier: u64,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// The end of its WAL: flushed on a primary, replayed on a standby.
    pub position: Lsn,
}

/// A timeline's history file, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistoryFile {
    /// The timeline.
    pub timeline: TimelineId,
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub content: Bytes,
}

impl TimelineHistoryFile {
    /// What the file says.
    pub fn parse(&self) -> Result<TimelineHistory> {
        TimelineHistory::parse(self.timeline, &String::from_utf8_lossy(&self.content))
    }
}

/// Why a command came to no end.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server refused it.
    Refused(ServerError),
    /// The connection broke, or what came over it makes no sense.
    Broken(String),
}

/// A row of an answer.
pub(super) struct Row(Vec<Option<Bytes>>);

struct Opening;

impl Establish for Opening {
    type Connection = Walsender;

    async fn establish(
        &self,
        attempt: &Attempt<'_>,
        encrypted: bool,
    ) -> std::result::Result<(Walsender, Kind), Refusal> {
        let tls = encrypted.then(|| attempt.tls.clone());
        let route = Route { host: attempt.host.clone(), address: attempt.address, tls };
        let opened = route.open().await.map_err(|why| refusal::not_opened(attempt, &why))?;
        let mut wire = Wire::new(opened.stream);
        let login = Login { target: attempt.target, wire: &mut wire, end_point: opened.end_point };
        let greeting = login.run().await.map_err(|why| refusal::not_let_in(attempt, encrypted, &why))?;
        let server = attempt.host.to_string();
        let version = greeting
            .version()
            .ok_or_else(|| Refusal::other(Failure::new(text::postgres::GREETING.with("server", &server))))?;
        if version.major() < ServerVersion::OLDEST {
            return Err(Refusal::other(connect::refusal::too_old(attempt, version)));
        }
        let in_recovery = greeting.is_on("in_hot_standby");
        let read_only = in_recovery || greeting.is_on("default_transaction_read_only");
        let limit = attempt.target.connect_timeout();
        let cancel = CancelToken::new(route, (greeting.process_id, greeting.secret_key), limit);
        let asked = Asked { what: text::postgres::HUNG_UP.with("server", &server), subject: Subject::Other };
        let walsender = Walsender {
            wire,
            server,
            version,
            in_recovery,
            encrypted,
            cancel,
            notices: Vec::new(),
            asked,
            busy: false,
            refused: None,
        };
        Ok((walsender, Kind { in_recovery, read_only }))
    }
}

impl Walsender {
    /// Connects to the first host that answers and is of the wanted kind, as a session would.
    pub async fn connect(target: &Conninfo) -> Result<Walsender> {
        connect::connect(target, &Opening).await
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Whether the server was a standby when the connection began.
    pub fn in_recovery(&self) -> bool {
        self.in_recovery
    }

    /// Whether the connection is encrypted.
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// What ends the command under way from somewhere else.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// The notices and warnings that came since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Who the server is, and how far it has come.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let what = say::IDENTIFY.with("server", &self.server);
        let row = self.ask_one("IDENTIFY_SYSTEM", what.clone(), Subject::Other).await?;
        let identity = row.as_ref().and_then(|row| {
            Some(SystemIdentity {
                system_identifier: row.parse(0)?,
                timeline: TimelineId(row.parse(1)?),
                position: row.parse(2)?,
            })
        });
        identity.ok_or_else(|| Failure::new(what))
    }

    /// The value of a setting, as `SHOW` tells it.
    pub async fn show(&mut self, name: &str) -> Result<String> {
        let what = say::SHOW.with("name", name).with("server", &self.server);
        let command = format!("SHOW {}", quoted_name(name));
        let row = self.ask_one(&command, what.clone(), Subject::Other).await?;
        row.and_then(|row| row.parse(0)).ok_or_else(|| Failure::new(what))
    }

    /// The history file of a timeline. The first one has none.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<TimelineHistoryFile> {
        let what = say::HISTORY.with("timeline", timeline).with("server", &self.server);
        let command = format!("TIMELINE_HISTORY {timeline}");
        let row = self.ask_one(&command, what.clone(), Subject::Other).await?;
        let file = row.and_then(|row| {
            Some(TimelineHistoryFile { timeline, name: row.parse(0)?, content: row.bytes(1)?.clone() })
        });
        file.ok_or_else(|| Failure::new(what))
    }

    /// Ends the connection and waits until the server has let go of its slot.
    pub async fn close(mut self) {
        frontend::terminate(self.wire.outbox());
        let goodbye = async {
            self.wire.flush().await?;
            while self.wire.receive().await?.is_some() {}
            self.wire.shut_down().await
        };
        let _ = timeout(GOODBYE_WITHIN, goodbye).await;
    }

    /// The first row of a command's answer.
    pub(super) async fn ask_one(
        &mut self,
        command: &str,
        what: Words,
        subject: Subject,
    ) -> Result<Option<Row>> {
        self.begin(command, Asked { what, subject }).await?;
        let mut first = None;
        while let Some(incoming) = self.next_of_command().await? {
            match incoming {
                Incoming::Message(Message::DataRow(body)) if first.is_none() => {
                    first = Some(Row::of(&body).map_err(|why| self.failure(&why))?);
                }
                Incoming::Message(
                    Message::DataRow(_) | Message::RowDescription(_) | Message::CommandComplete(_),
                ) => {}
                _ => return Err(self.unexpected()),
            }
        }
        Ok(first)
    }

    /// Sends a command.
    pub(super) async fn begin(&mut self, command: &str, asked: Asked) -> Result<()> {
        if self.busy {
            return Err(Failure::new(say::BUSY.with("server", &self.server)));
        }
        if let Err(error) = frontend::query(command, self.wire.outbox()) {
            // A zero byte in a name: nothing was sent, but half of the message was written.
            self.wire.outbox().clear();
            return Err(Failure::new(asked.what).because(error));
        }
        (self.asked, self.busy) = (asked, true);
        self.send().await
    }

    /// Sends what is in the outbox.
    pub(super) async fn send(&mut self) -> Result<()> {
        match self.wire.flush().await {
            Ok(()) => Ok(()),
            // What the server said before it hung up is worth more than that it did.
            Err(error) => match self.step().await {
                Err(Trouble::Refused(said)) => Err(self.failure(&Trouble::Refused(said))),
                _ => Err(self.failure(&Trouble::Broken(error.to_string()))),
            },
        }
    }

    /// Like [`Walsender::step`], for whom any trouble is a failure.
    pub(super) async fn next_of_command(&mut self) -> Result<Option<Incoming>> {
        match self.step().await {
            Ok(incoming) => Ok(incoming),
            Err(trouble) => Err(self.failure(&trouble)),
        }
    }

    /// The next message of the command under way; `None` when it has ended and the server is ready
    /// for the next. Cancelling it loses nothing.
    pub(super) async fn step(&mut self) -> std::result::Result<Option<Incoming>, Trouble> {
        loop {
            let incoming = match self.wire.receive().await {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return Err(self.lost("the server closed the connection")),
                Err(error) => return Err(self.lost(&error.to_string())),
            };
            match incoming {
                Incoming::Message(Message::NoticeResponse(body)) => {
                    if let Ok(said) = refusal::said(body.fields())
                        && self.notices.len() < NOTICES_MAX
                    {
                        self.notices.push(format!("{}: {}", said.severity, said.message));
                    }
                }
                Incoming::Message(Message::ParameterStatus(_)) => {}
                Incoming::Message(Message::ErrorResponse(body)) => match refusal::said(body.fields()) {
                    Ok(said) => self.refused = Some(said),
                    Err(error) => return Err(Trouble::Broken(error.to_string())),
                },
                Incoming::Message(Message::ReadyForQuery(_)) => {
                    self.busy = false;
                    return match self.refused.take() {
                        Some(said) => Err(Trouble::Refused(said)),
                        None => Ok(None),
                    };
                }
                // What was on its way when the server gave up.
                _ if self.refused.is_some() => {}
                incoming => return Ok(Some(incoming)),
            }
        }
    }

    /// The connection is gone; what the server said last is why.
    fn lost(&mut self, words: &str) -> Trouble {
        self.busy = false;
        self.refused.take().map_or_else(|| Trouble::Broken(words.to_owned()), Trouble::Refused)
    }

    /// The failure of the last command.
    pub(super) fn failure(&self, trouble: &Trouble) -> Failure {
        match trouble {
            Trouble::Refused(said) => refusal::of_command(&self.asked, said),
            Trouble::Broken(words) => Failure::new(self.asked.what.clone())
                .because(words)
                .mended_by(text::postgres::MEND_SERVER_RESTART),
        }
    }

    /// The server sent what nobody asked for.
    pub(super) fn unexpected(&self) -> Failure {
        self.failure(&Trouble::Broken("unexpected message from the server".to_owned()))
    }

    /// Refuses what the server is too old for.
    pub(super) fn needs(&self, feature: &'static str, major: u32) -> Result<()> {
        if self.version.at_least(major) {
            return Ok(());
        }
        let what = say::NEEDS_VERSION
            .with("feature", feature)
            .with("needed", major)
            .with("server", &self.server)
            .with("version", self.version);
        Err(Failure::usage(what))
    }
}

impl fmt::Debug for Walsender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walsender")
            .field("server", &self.server)
            .field("version", &self.version)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

impl Row {
    pub(super) fn of(body: &DataRowBody) -> std::result::Result<Row, Trouble> {
        let field =
            |range: Option<std::ops::Range<usize>>| Ok(range.map(|range| body.buffer_bytes().slice(range)));
        let fields = body.ranges().map(field).collect();
        fields.map(Row).map_err(|error: std::io::Error| Trouble::Broken(error.to_string()))
    }

    /// The bytes of a column; `None` if they are NULL.
    pub(super) fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column)?.as_ref()
    }

    /// A column's text, read as something.
    pub(super) fn parse<T: FromStr>(&self, column: usize) -> Option<T> {
        std::str::from_utf8(self.bytes(column)?).ok()?.parse().ok()
    }
}

/// A name in replication's grammar: always in quotes, since it has keywords of its own. A quote
/// cannot be part of one: doubled, it is a syntax error.
pub(super) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in replication's grammar, which gives no meaning to backslashes.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
