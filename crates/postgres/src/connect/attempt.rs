//! One attempt at one address: the encryption that sslmode asks for, within the time limit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use obyra_evidence::{Failure, text};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::refusal::{self, Refusal};
use super::{Establish, Kind};
use crate::Result;
use crate::conninfo::{Conninfo, Host, SslMode};

/// One address of one host of the target.
pub(crate) struct Attempt<'a> {
    pub target: &'a Conninfo,
    pub host: &'a Host,
    /// None for a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: &'a Arc<ClientConfig>,
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
    pub(super) async fn run<E: Establish>(
        &self,
        how: &E,
    ) -> std::result::Result<(E::Connection, Kind), Refusal> {
        let (first, second) = self.ways();
        let refusal = match self.connect(how, first).await {
            Err(refusal) if refusal.is_about_encryption => refusal,
            outcome => return outcome,
        };
        let Some(second) = second else { return Err(refusal) };
        // When both ways are refused for what they are, the first says more of what was wanted.
        self.connect(how, second)
            .await
            .map_err(|other| if other.is_about_encryption { refusal } else { other })
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

    async fn connect<E: Establish>(
        &self,
        how: &E,
        encrypted: bool,
    ) -> std::result::Result<(E::Connection, Kind), Refusal> {
        let limit = self.target.connect_timeout().unwrap_or(Duration::MAX);
        match timeout(limit, how.establish(self, encrypted)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(refusal::too_slow(self, limit)),
        }
    }
}
