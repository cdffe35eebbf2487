//! One attempt at one address: the encryption that sslmode asks for, then who the server is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use obyra_evidence::{Failure, text};
use tokio::time::timeout;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::{Config, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::refusal::{self, Refusal};
use super::{Driver, Limits, Session};
use crate::conninfo::{ChannelBinding, Conninfo, Host, SslMode};
use crate::{Result, ServerVersion, sql_failure};

const APPLICATION_NAME: &str = "obyra-db";

/// When the program is killed, its statement is ended and its locks are given back within seconds,
/// not when the statement would have ended. A server on Windows cannot, and says so: then it does not.
pub(super) const NOTICE_OUR_END: &str = "SET client_connection_check_interval = '2s'";

/// What kind of server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub in_recovery: bool,
    pub read_only: bool,
}

/// One address of one host of the target.
pub(super) struct Attempt<'a> {
    pub target: &'a Conninfo,
    pub host: &'a Host,
    /// None for a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: &'a MakeRustlsConnect,
    pub limits: Limits,
}

/// The addresses of a host, in the resolver's order. A socket has none, and is one attempt.
pub(super) async fn addresses(host: &Host, limit: Option<Duration>) -> Result<Vec<Option<IpAddr>>> {
    if host.socket_dir().is_some() {
        return Ok(vec![None]);
    }
    if host.address.is_some() {
        return Ok(vec![host.address]);
    }
    let unknown = || {
        Failure::new(text::postgres::NAME_UNKNOWN.with("host", &host.name))
            .mended_by(text::postgres::MEND_NAME_UNKNOWN)
    };
    let resolving = tokio::net::lookup_host((host.name.as_str(), host.port));
    let found = timeout(limit.unwrap_or(Duration::MAX), resolving)
        .await
        .map_err(|_| unknown().because("the resolver did not answer"))?
        .map_err(|e| unknown().because(e))?;
    Ok(found.map(|address: SocketAddr| Some(address.ip())).collect())
}

impl Attempt<'_> {
    /// Connects, encrypted or not as sslmode allows, in its order.
    pub(super) async fn run(&self) -> std::result::Result<(Session, Kind), Refusal> {
        let (first, second) = self.ways();
        let refusal = match self.connect(first).await {
            Err(refusal) if refusal.is_about_encryption => refusal,
            outcome => return outcome,
        };
        let Some(second) = second else { return Err(refusal) };
        // When both ways are refused for what they are, the first says more of what was wanted.
        self.connect(second).await.map_err(|other| if other.is_about_encryption { refusal } else { other })
    }

    /// Whether to encrypt: the first way, and the second if the first is refused.
    fn ways(&self) -> (bool, Option<bool>) {
        // Like libpq: no TLS through a Unix socket, whatever sslmode says.
        if self.host.socket_dir().is_some() {
            return (false, None);
        }
        match self.target.ssl_mode() {
            SslMode::Disable => (false, None),
            SslMode::Allow => (false, Some(true)),
            SslMode::Prefer => (true, Some(false)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (true, None),
        }
    }

    async fn connect(&self, encrypted: bool) -> std::result::Result<(Session, Kind), Refusal> {
        let limit = self.target.connect_timeout().unwrap_or(Duration::MAX);
        match timeout(limit, self.establish(encrypted)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(refusal::too_slow(self, limit)),
        }
    }

    async fn establish(&self, encrypted: bool) -> std::result::Result<(Session, Kind), Refusal> {
        let (client, connection) = self
            .config(encrypted)
            .connect(self.tls.clone())
            .await
            .map_err(|error| refusal::refusal(self, encrypted, &error))?;
        let driver = Driver::start(connection);
        let mut session = Session {
            client,
            version: ServerVersion(0),
            in_recovery: false,
            encrypted,
            limits: self.limits,
            notices_our_end: false,
            driver,
        };
        let kind = self.greet(&mut session).await.map_err(Refusal::other)?;
        if session.version.major() < ServerVersion::OLDEST {
            return Err(Refusal::other(refusal::too_old(self, session.version)));
        }
        Ok((session, kind))
    }

    fn config(&self, encrypted: bool) -> Config {
        let mut config = Config::new();
        match (self.host.socket_dir(), self.address) {
            (Some(dir), _) => config.host_path(dir),
            (None, Some(address)) => config.host(&self.host.name).hostaddr(address),
            (None, None) => config.host(&self.host.name),
        };
        config
            .port(self.host.port)
            .user(self.target.user())
            .dbname(self.target.database())
            .application_name(self.target.application_name().unwrap_or(APPLICATION_NAME))
            // A server behind NAT forgets us during a long statement unless we speak up.
            .keepalives_idle(Duration::from_secs(60))
            .ssl_mode(if encrypted { DriverSslMode::Require } else { DriverSslMode::Disable })
            .channel_binding(match self.target.tls().channel_binding {
                ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
                ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
                ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
            });
        if let Some(password) = self.target.password() {
            use secrecy::ExposeSecret as _;
            config.password(password.expose_secret());
        }
        if let Some(options) = self.target.options() {
            config.options(options);
        }
        config
    }

    /// Sets the limits and asks the server what it is, in one round trip.
    async fn greet(&self, session: &mut Session) -> Result<Kind> {
        let greeting = format!(
            "{} SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
             pg_catalog.current_setting('transaction_read_only') = 'on'",
            self.limits.statements(),
        );
        let what = || text::postgres::GREETING.with("server", self.host);
        // Sent together, so that it costs no second round trip.
        let (answer, noticing) =
            tokio::join!(session.simple_query(&greeting), session.batch_execute(NOTICE_OUR_END));
        session.notices_our_end = noticing.is_ok();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(session.failure(what(), &error).await),
        };
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| Failure::new(what()))?;
        let version = field(row, 0).map_err(|e| sql_failure(what(), &e))?;
        session.version = ServerVersion(version.parse().map_err(|e| Failure::new(what()).because(e))?);
        let is_true = |nth| field(row, nth).map(|value| value == "t").map_err(|e| sql_failure(what(), &e));
        session.in_recovery = is_true(1)?;
        Ok(Kind { in_recovery: session.in_recovery, read_only: session.in_recovery || is_true(2)? })
    }
}

fn field(row: &SimpleQueryRow, nth: usize) -> std::result::Result<&str, tokio_postgres::Error> {
    Ok(row.try_get(nth)?.unwrap_or_default())
}
