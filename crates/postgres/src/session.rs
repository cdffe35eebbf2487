//! One connection to one database, with the limits that a careful visitor sets himself.

mod attempt;
mod drive;
mod refusal;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use obyra_evidence::{Failure, Message, text};
use tokio_postgres::Client;

use crate::conninfo::{Conninfo, TargetSessionAttrs};
use crate::{Result, ServerVersion, sql_failure, tls};
use attempt::Kind;
use drive::Driver;

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
        let tls = tls::connector(target)?;
        let mut misses = Vec::new();
        for wanted in passes(target.target_session_attrs()) {
            for host in target.hosts() {
                let addresses = match attempt::addresses(host, target.connect_timeout()).await {
                    Ok(addresses) => addresses,
                    Err(failure) => {
                        misses.push(failure);
                        continue;
                    }
                };
                for address in addresses {
                    let attempt = attempt::Attempt { target, host, address, tls: &tls, limits };
                    match attempt.run().await {
                        Ok((session, kind)) if suits(wanted, kind) => return Ok(session),
                        Ok(_) => misses.push(Failure::new(
                            text::postgres::WRONG_KIND_OF_SERVER.with("server", host).with("wanted", wanted),
                        )),
                        // Another host would refuse the same credentials, and count it as one more try.
                        Err(refused) if refused.is_final => return Err(refused.failure),
                        Err(refused) => misses.push(refused.failure),
                    }
                }
            }
        }
        Err(no_host(target, misses))
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
            if self.notices_our_end { attempt::NOTICE_OUR_END } else { "" },
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

/// `prefer-standby` goes round twice: once for a standby, once for whatever there is.
fn passes(wanted: TargetSessionAttrs) -> Vec<TargetSessionAttrs> {
    match wanted {
        TargetSessionAttrs::PreferStandby => vec![TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        other => vec![other],
    }
}

fn suits(wanted: TargetSessionAttrs, kind: Kind) -> bool {
    match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
        TargetSessionAttrs::ReadWrite => !kind.read_only,
        TargetSessionAttrs::ReadOnly => kind.read_only,
        TargetSessionAttrs::Primary => !kind.in_recovery,
        TargetSessionAttrs::Standby => kind.in_recovery,
    }
}

/// One failure for one reason; for several, one that lists them in the order of the attempts.
fn no_host(target: &Conninfo, misses: Vec<Failure>) -> Failure {
    let mut reasons: Vec<Failure> = Vec::new();
    for miss in misses {
        if reasons.iter().all(|reason| reason.to_string() != miss.to_string()) {
            reasons.push(miss);
        }
    }
    if reasons.len() == 1 {
        return reasons.remove(0);
    }
    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let failure =
        Failure::new(text::postgres::NO_HOST.with("hosts", target.host_summary())).because(words.join("; "));
    match reasons.into_iter().find_map(|reason| reason.mend) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_server_suits_what_asks_for_it() {
        use TargetSessionAttrs as T;
        let primary = Kind { in_recovery: false, read_only: false };
        let read_only_primary = Kind { in_recovery: false, read_only: true };
        let standby = Kind { in_recovery: true, read_only: true };
        let suited = |wanted| [primary, read_only_primary, standby].map(|kind| suits(wanted, kind));
        assert_eq!(suited(T::Any), [true, true, true]);
        assert_eq!(suited(T::ReadWrite), [true, false, false]);
        assert_eq!(suited(T::ReadOnly), [false, true, true]);
        assert_eq!(suited(T::Primary), [true, true, false]);
        assert_eq!(suited(T::Standby), [false, false, true]);
        assert_eq!(passes(T::PreferStandby), [T::Standby, T::Any]);
    }
}
