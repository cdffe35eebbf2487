//! Taking a backup: every block of the cluster is read and verified, what the repository has not is stored,
//! and the manifest is committed when the WAL that belongs to it is proven to be there.
//!
//! What arrived of a backup that was interrupted is found by the next one. Killed at any moment, it leaves
//! the repository whole.

mod census;
mod files;
mod intake;
mod interrupted;
mod label;
mod local;
mod outcome;
mod parents;
mod pipeline;
mod prepared;
mod protocol;
mod repack;
mod server;
mod sieve;
mod stage;
mod verify;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use obyra_evidence::{Progress, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::Checkpoint;
use tokio::time::Instant;

use crate::Result;
use crate::repository::Repository;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;
use crate::wal::{Archive, BackupWal, ProvenWal, ReservedWal};
use local::Local;
use outcome::Outcome;
use pipeline::Shared;
use prepared::Prepared;
use protocol::Protocol;
use server::Server;
use stage::{Ended, Stage};

pub use repack::{Reason, Repacking, Spread, repack};

/// Where the cluster's files are read.
#[derive(Clone, Debug)]
pub enum From {
    /// Over the replication protocol, from a primary or a standby.
    Protocol {
        /// The cluster's server.
        target: Conninfo,
    },
    /// From the data directory, by a program that runs on the database host and may read it.
    Local {
        /// The cluster's server.
        target: Conninfo,
        /// The directory; where it is not given, the server tells.
        data_directory: Option<PathBuf>,
    },
}

/// How a backup is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Stores everything, whatever the repository has.
    pub full: bool,
    /// zstd's level.
    pub level: i32,
    /// Threads that hash, compress and seal.
    pub threads: usize,
    /// How the checkpoint at the beginning is written.
    pub checkpoint: Checkpoint,
    /// The most that is read, in bytes a second.
    pub rate_max: Option<u64>,
    /// What is stored again although it is there.
    pub repacking: Repacking,
}

impl Options {
    /// More threads than this would wait for the reader.
    const THREADS_MAX: usize = 16;
}

impl Default for Options {
    fn default() -> Self {
        Options {
            full: false,
            level: 1,
            threads: std::thread::available_parallelism().map_or(2, usize::from).min(Options::THREADS_MAX),
            checkpoint: Checkpoint::Spread,
            rate_max: None,
            repacking: Repacking::default(),
        }
    }
}

/// Who asks for a backup, and when.
#[derive(Clone, Debug)]
pub struct Request {
    /// The environment of the strategy.
    pub environment: String,
    /// This machine.
    pub host: String,
    /// This process.
    pub pid: u32,
    /// The version of the program.
    pub program: String,
    /// The time.
    pub now: Timestamp,
    /// How.
    pub options: Options,
}

/// A backup that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The cluster.
    pub cluster: ClusterId,
    /// What it is.
    pub header: Header,
    /// Bytes that the manifest took in the store, besides `header.totals.stored`.
    pub manifest_bytes: u64,
    /// Its WAL.
    pub wal: ProvenWal,
    /// Interrupted backups whose packs it took over.
    pub resumed: Vec<BackupId>,
    /// Maps of earlier backups that could not be used: what they described was stored again.
    pub lost_maps: u64,
}

/// Takes a backup. It is committed when every segment of WAL that it needs is in the repository and was read
/// back: whoever archives the cluster's WAL may have brought them, or they are received while files are read.
pub async fn run(
    repository: &Repository,
    from: &From,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Taken> {
    let begun = Instant::now();
    let source = Connected::to(from).await?;
    let cluster = ClusterId(source.server().system_identifier);
    // From here on the server keeps the WAL that is needed.
    let wal = ReservedWal::reserve(&Archive::new(repository, cluster), from.target()).await?;
    let prepared = Prepared::of(repository, cluster, request).await?;
    match files_and_wal(repository, source, (request, begun), (&prepared, wal), progress).await {
        Ok((shared, outcome)) => outcome.commit(repository, prepared, &shared).await,
        Err(failure) => {
            prepared.claim.give_up().await;
            Err(failure)
        }
    }
}

/// Everything but the commit.
async fn files_and_wal<'a>(
    repository: &Repository,
    source: Connected,
    (request, begun): (&'a Request, Instant),
    (prepared, wal): (&Prepared, ReservedWal),
    progress: &dyn Progress,
) -> Result<(Arc<Shared>, Outcome<'a>)> {
    let server = source.server();
    let stage = Stage {
        repository,
        cluster: ClusterId(server.system_identifier),
        backup: prepared.claim.backup(),
        shape: server.shape,
        parents: &prepared.parents,
        parent: prepared.parent.as_ref(),
        refreshable: prepared.refreshable(&request.options.repacking),
        options: &request.options,
        now: request.now,
        progress,
    };
    let (shared, ended, wal) = source.take(&stage, wal).await?;
    let elapsed = SignedDuration::try_from(begun.elapsed()).unwrap_or_default();
    progress.begin(text::backup::TAKE_WAL.message(), None);
    let proven = wal.finish(ended.wal_stop(&server)).await;
    progress.done();
    let outcome = Outcome { request, server, ended, wal: proven?, stopped: request.now + elapsed };
    Ok((shared, outcome))
}

impl From {
    fn target(&self) -> &Conninfo {
        match self {
            From::Protocol { target } | From::Local { target, .. } => target,
        }
    }
}

/// A source that was reached.
enum Connected {
    Protocol(Box<Protocol>),
    Local(Box<Local>),
}

impl Connected {
    async fn to(from: &From) -> Result<Connected> {
        match from {
            From::Protocol { target } => Ok(Connected::Protocol(Box::new(Protocol::connect(target).await?))),
            From::Local { target, data_directory } => {
                Ok(Connected::Local(Box::new(Local::connect(target, data_directory.as_deref()).await?)))
            }
        }
    }

    fn server(&self) -> Server {
        match self {
            Connected::Protocol(protocol) => protocol.server,
            Connected::Local(local) => local.server,
        }
    }

    async fn take(self, stage: &Stage<'_>, wal: ReservedWal) -> Result<(Arc<Shared>, Ended, BackupWal)> {
        match self {
            Connected::Protocol(protocol) => protocol.take(stage, wal).await,
            Connected::Local(local) => local.take(stage, wal).await,
        }
    }
}
