//! One connection to one database, with the limits that a careful visitor sets himself.

mod drive;
mod establish;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use obyra_evidence::{Failure, Message, text};
use tokio_postgres::Client;

use crate::conninfo::Conninfo;
use crate::{Result, ServerVersion, connect, sql_failure};
use drive::Driver;
use establish::{NOTICE_OUR_END, Opening};

/// How long a statement may wait for a lock, and how long it may run. `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longer than this, and everybody else queues behind our wait.
    pub lock_timeout: Option<Duration>,
    /// Longer than this is a mistake, unless the caller knows better.
    pub statement_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            lock_timeout: Some(Duration::from_secs(5)),
            statement_timeout: Some(Duration::from_secs(120)),
        }
    }
}

impl Limits {
    /// For what rightly takes long, such as migrations and seeds: no limit on the statement,
    /// the usual one on locks.
    pub fn patient() -> Self {
        Limits { statement_timeout: None, ..Limits::default() }
    }

    /// `SET` rather than start-up options, since poolers refuse those.
    fn statements(self) -> String {
        // Zero is for ever; a limit below the server's unit must not become that.
        let milliseconds = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_millis().max(1));
        format!(
            "SET lock_timeout = {}; SET statement_timeout = {};",
            milliseconds(self.lock_timeout),
            milliseconds(self.statement_timeout),
        )
    }
}

/// A connection. Use it as the `tokio_postgres::Client` that it is; dropping it closes it.
pub struct Session {
    client: Client,
    version: ServerVersion,
    in_recovery: bool,
    encrypted: bool,
    limits: Limits,
    notices_our_end: bool,
    driver: Driver,
}

impl Session {
    /// Connects to the first host that answers and is of the wanted kind.
    pub async fn connect(target: &Conninfo, limits: Limits) -> Result<Session> {
        connect::connect(target, &Opening(limits)).await
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Whether the server was a standby when the session began.
    pub fn in_recovery(&self) -> bool {
        self.in_recovery
    }

    /// Whether the connection is encrypted.
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// The failure of a statement, like [`sql_failure`]. When the connection is lost, adds the
    /// server's last words, which arrive outside of any statement ("terminating connection due
    /// to administrator command").
    pub async fn failure(&self, what: Message, error: &tokio_postgres::Error) -> Failure {
        if error.as_db_error().is_none()
            && let Some(last_words) = self.driver.last_words().await
        {
            return Failure::new(what).because(last_words).mended_by(text::postgres::MEND_SERVER_RESTART);
        }
        sql_failure(what, error)
    }

    /// The notices (`RAISE NOTICE`, "relation exists, skipping") that came since the last call.
    pub fn take_notices(&self) -> Vec<String> {
        self.driver.take_notices()
    }

    /// Takes back whatever `SET` and `SET ROLE` changed in the session, but keeps its limits.
    pub async fn reset(&self) -> Result<()> {
        let reset = format!(
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {} {}",
            self.limits.statements(),
            if self.notices_our_end { NOTICE_OUR_END } else { "" },
        );
        match self.batch_execute(&reset).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failure(text::postgres::RESET.message(), &error).await),
        }
    }

    /// Ends the session and waits until the server has been told.
    pub async fn close(self) {
        drop(self.client);
        self.driver.ended().await;
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Transactions need the client mutably.
impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}
