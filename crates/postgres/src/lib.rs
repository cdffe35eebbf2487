//! What the program knows of PostgreSQL itself: connection strings, sessions and TLS, replication,
//! names and literals, the lock that whatever changes a database takes, and clusters.
//!
//! Nothing here knows the strategy. No password reaches an error, a log or `Debug`.

pub mod cluster;
mod connect;
mod conninfo;
pub mod lex;
mod lock;
pub mod mark;
mod passfile;
mod password;
pub mod quote;
pub mod replication;
mod session;
mod sql;
mod tls;
mod version;
pub mod wal;

pub use conninfo::{
    ChannelBinding, Conninfo, Host, Reveal, RootCertificate, Scheme, SslMode, TargetSessionAttrs,
};
pub use lock::{CHANGE_LOCK_KEY_SQL, ChangeLock, lock_holder};
pub use password::{generate_password, scram_verifier};
pub use secrecy;
pub use session::{Limits, Session};
pub use sql::sql_failure;
pub use tokio_postgres;
pub use version::ServerVersion;

/// What every room returns.
pub type Result<T> = std::result::Result<T, obyra_evidence::Failure>;
