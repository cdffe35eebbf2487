//! PostgreSQL's replication protocol: base backups, WAL as it is written, and the slots that keep it.
//!
//! A [`Walsender`] is reached as a session is: the same connection strings, TLS and passwords
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>).

mod backup_options;
mod base_backup;
mod cancel;
mod login;
mod message;
mod refusal;
mod slots;
mod socket;
mod tar;
mod wal_stream;
mod walsender;
mod wire;

pub use backup_options::{BaseBackupOptions, Checkpoint, CompressionMethod, ServerCompression};
pub use base_backup::{BackupEvent, BaseBackup, Tablespace};
pub use cancel::CancelToken;
pub use slots::SlotReading;
pub use tar::{TarEntries, TarEntry, TarEvent, TarKind};
pub use wal_stream::{StandbyStatus, StartWal, WalEvent, WalStream};
pub use walsender::{SystemIdentity, TimelineHistoryFile, Walsender};
