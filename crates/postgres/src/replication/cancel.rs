//! Ending a command from outside: a request on a connection of its own, as the protocol wants it.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use obyra_evidence::{Failure, text};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::socket::{NotOpened, Route};
use crate::Result;

/// Ends the command that a replication connection is in the middle of. It can be sent elsewhere.
#[derive(Clone)]
pub struct CancelToken {
    route: Route,
    /// The number of the server's process and its secret.
    key: (i32, i32),
    limit: Option<Duration>,
}

impl CancelToken {
    pub(super) fn new(route: Route, key: (i32, i32), limit: Option<Duration>) -> CancelToken {
        CancelToken { route, key, limit }
    }

    /// Asks the server to end the command. It answers nothing: whether it did is seen on the
    /// connection itself, which reports SQLSTATE 57014. With no command under way, nothing happens.
    pub async fn cancel(&self) -> Result<()> {
        let failed = || Failure::new(text::replication::CANCEL.with("server", &self.route.host));
        match timeout(self.limit.unwrap_or(Duration::MAX), self.ask()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NotOpened::Io(error))) => Err(failed().because(error)),
            Ok(Err(NotOpened::TlsRefused | NotOpened::NotPostgresql)) => Err(failed()),
            Err(_) => Err(failed().mended_by(text::postgres::MEND_NO_ANSWER)),
        }
    }

    async fn ask(&self) -> std::result::Result<(), NotOpened> {
        let mut stream = self.route.open().await?.stream;
        let mut request = BytesMut::new();
        frontend::cancel_request(self.key.0, self.key.1, &mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        // It hangs up once it has passed the request on; how it does so says nothing.
        let _ = stream.read(&mut [0]).await;
        Ok(())
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("server", &self.route.host).finish_non_exhaustive()
    }
}
