//! The way to one address, taken anew for each connection: the socket, and TLS on it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::conninfo::Host;
use crate::tls;

/// A server behind NAT forgets us while it waits for a checkpoint unless we speak up; and a receiver
/// of WAL must notice in two minutes that its server is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;

/// A connection's two directions of bytes.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// An open connection on which nobody has spoken yet.
pub(super) struct Opened {
    pub stream: Box<dyn Duplex>,
    /// What SCRAM can bind itself to.
    pub end_point: Option<Vec<u8>>,
}

/// Why none was opened.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// The network or TLS.
    Io(io::Error),
    /// The server does not offer TLS.
    TlsRefused,
    /// The server answers the request for TLS with something else.
    NotPostgresql,
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        NotOpened::Io(error)
    }
}

/// One address, and whether it is spoken to through TLS.
#[derive(Clone)]
pub(super) struct Route {
    pub host: Host,
    /// None for a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: Option<Arc<ClientConfig>>,
}

impl Route {
    pub(super) async fn open(&self) -> Result<Opened, NotOpened> {
        if let Some(dir) = self.host.socket_dir() {
            let stream = UnixStream::connect(dir.join(format!(".s.PGSQL.{}", self.host.port))).await?;
            return Ok(Opened { stream: Box::new(stream), end_point: None });
        }
        let stream = match self.address {
            Some(address) => TcpStream::connect((address, self.host.port)).await?,
            None => TcpStream::connect((self.host.name.as_str(), self.host.port)).await?,
        };
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        match &self.tls {
            None => Ok(Opened { stream: Box::new(stream), end_point: None }),
            Some(config) => encrypt(stream, &self.host.name, config).await,
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

async fn encrypt(mut stream: TcpStream, host: &str, config: &Arc<ClientConfig>) -> Result<Opened, NotOpened> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    // Exactly one byte: whatever came after it in the clear would be taken for the server's.
    match stream.read_u8().await? {
        b'S' => {}
        b'N' => return Err(NotOpened::TlsRefused),
        _ => return Err(NotOpened::NotPostgresql),
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let end_point = certificate.and_then(|certificate| tls::server_end_point(certificate));
    Ok(Opened { stream: Box::new(stream), end_point })
}
