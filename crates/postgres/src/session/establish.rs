//! Opening a session at one address: the driver's configuration, its limits, and who the server is.

use std::time::Duration;

use obyra_evidence::{Failure, text};
use rustls::ClientConfig;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::{Config, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Driver, Limits, Session};
use crate::connect::{APPLICATION_NAME, Attempt, Establish, Kind, Refusal, refusal};
use crate::conninfo::ChannelBinding;
use crate::{Result, ServerVersion, sql_failure};

/// When the program is killed, its statement is ended and its locks are given back within seconds,
/// not when the statement would have ended. A server on Windows cannot, and says so: then it does not.
pub(super) const NOTICE_OUR_END: &str = "SET client_connection_check_interval = '2s'";

/// A session to be opened with these limits.
pub(super) struct Opening(pub Limits);

impl Establish for Opening {
    type Connection = Session;

    async fn establish(
        &self,
        attempt: &Attempt<'_>,
        encrypted: bool,
    ) -> std::result::Result<(Session, Kind), Refusal> {
        let (client, connection) = config(attempt, encrypted)
            .connect(MakeRustlsConnect::new(ClientConfig::clone(attempt.tls)))
            .await
            .map_err(|error| refusal::of_driver(attempt, encrypted, &error))?;
        let driver = Driver::start(connection);
        let mut session = Session {
            client,
            version: ServerVersion(0),
            in_recovery: false,
            encrypted,
            limits: self.0,
            notices_our_end: false,
            driver,
        };
        let kind = greet(attempt, &mut session).await.map_err(Refusal::other)?;
        if session.version.major() < ServerVersion::OLDEST {
            return Err(Refusal::other(refusal::too_old(attempt, session.version)));
        }
        Ok((session, kind))
    }
}

fn config(attempt: &Attempt<'_>, encrypted: bool) -> Config {
    let mut config = Config::new();
    match (attempt.host.socket_dir(), attempt.address) {
        (Some(dir), _) => config.host_path(dir),
        (None, Some(address)) => config.host(&attempt.host.name).hostaddr(address),
        (None, None) => config.host(&attempt.host.name),
    };
    config
        .port(attempt.host.port)
        .user(attempt.target.user())
        .dbname(attempt.target.database())
        .application_name(attempt.target.application_name().unwrap_or(APPLICATION_NAME))
        // A server behind NAT forgets us during a long statement unless we speak up.
        .keepalives_idle(Duration::from_secs(60))
        .ssl_mode(if encrypted { DriverSslMode::Require } else { DriverSslMode::Disable })
        .channel_binding(match attempt.target.tls().channel_binding {
            ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
        });
    if let Some(password) = attempt.target.password() {
        use secrecy::ExposeSecret as _;
        config.password(password.expose_secret());
    }
    if let Some(options) = attempt.target.options() {
        config.options(options);
    }
    config
}

/// Sets the limits and asks the server what it is, in one round trip.
async fn greet(attempt: &Attempt<'_>, session: &mut Session) -> Result<Kind> {
    let greeting = format!(
        "{} SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
         pg_catalog.current_setting('transaction_read_only') = 'on'",
        session.limits.statements(),
    );
    let what = || text::postgres::GREETING.with("server", attempt.host);
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

fn field(row: &SimpleQueryRow, nth: usize) -> std::result::Result<&str, tokio_postgres::Error> {
    Ok(row.try_get(nth)?.unwrap_or_default())
}
