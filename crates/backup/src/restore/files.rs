//! Writing a cluster's files: every block verified, no server able to start before all of them are there.
//!
//! Blocks come in the order in which packs hold them, a window of extents at a time, so that each frame is
//! fetched and opened once and memory stays bounded. In a folder that has a cluster already, only the blocks
//! that differ are fetched and written. Everything is flushed, then `global/pg_control` is written.

mod finish;
mod single;
pub(super) mod skeleton;
mod window;
mod writer;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use obyra_evidence::{Failure, Progress, text};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::place::Place;
use super::{control, prepared};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::frames::FrameReader;
use crate::repository::layout::{ClusterId, PackId};
use crate::repository::map::Piece;
use crate::repository::pack::twice;
pub use single::read;
use window::{Job, Window};
use writer::{Fetched, Writer};

/// Windows that are prepared at the same time.
const WINDOWS: usize = 2;
/// Jobs that are fetched at the same time.
const FETCHES: usize = 4;

/// A small file that is not in the backup as such: `backup_label`, `recovery.signal` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallFile {
    /// Relative to the data directory.
    pub path: String,
    /// What it holds.
    pub contents: String,
}

/// What is restored, and where.
#[derive(Clone)]
pub struct Restore {
    /// The repository.
    pub repository: Repository,
    /// The cluster in it.
    pub cluster: ClusterId,
    /// The backup.
    pub manifest: Arc<Manifest>,
    /// The folder, as [`Place::look`] found it.
    pub place: Place,
    /// Written last, before `global/pg_control`. They replace files of the backup of the same name.
    pub small: Vec<SmallFile>,
    /// Threads that open and verify blocks.
    pub threads: usize,
    /// The databases whose files are written, by their oids; all, if absent. The files of the others have
    /// their size, and nothing but zeros.
    pub databases: Option<BTreeSet<u32>>,
}

/// What a restore wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Files of the backup.
    pub files: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Bytes that were there already, and right.
    pub kept: u64,
    /// Files and folders that were removed.
    pub removed: u64,
}

/// What all threads share.
struct Shared {
    restore: Restore,
    identity_key: [u8; 32],
    reader: FrameReader,
    /// Positions of the packs in the manifest.
    packs: HashMap<PackId, usize>,
    /// Files of several extents that are on the disk, by their position in the manifest, and whether they
    /// were made here.
    large_files: Mutex<HashMap<usize, bool>>,
    /// Held until the last thread has written its last block.
    marker: OnceLock<File>,
    written: AtomicU64,
    kept: AtomicU64,
}

impl Restore {
    /// Restores. Interrupted, it leaves a folder in which no server starts and a second run goes on.
    pub async fn run(self, progress: &dyn Progress) -> Result<Written> {
        let total = self.manifest.files.iter().map(|file| file.size).sum();
        progress.begin(text::backup::RESTORING_FILES.with("folder", self.place.data.display()), Some(total));
        let written = self.write(progress).await;
        progress.done();
        written
    }

    async fn write(self, progress: &dyn Progress) -> Result<Written> {
        let shared = Arc::new(Shared::new(self));
        let Restore { repository, cluster, manifest, .. } = &shared.restore;
        // Without it nothing begins.
        let control = read(repository, *cluster, manifest, control::PATH).await?;
        let control = control.ok_or_else(|| Failure::new(text::backup::RESTORE_WITHOUT_CONTROL))?;
        let begun = shared.clone();
        in_thread(move || skeleton::begin(&begun.restore, &begun.marker)).await?;
        let surplus = prepared::surplus(repository, *cluster, manifest).await?;
        shared.clone().blocks(progress).await?;
        let last = shared.clone();
        in_thread(move || finish::finish(&last.restore, &control, &surplus)).await?;
        Ok(Written {
            files: shared.restore.manifest.files.len() as u64,
            bytes: shared.written.load(Ordering::Relaxed),
            kept: shared.kept.load(Ordering::Relaxed),
            removed: shared.restore.place.removed.len() as u64,
        })
    }
}

impl Shared {
    fn new(restore: Restore) -> Shared {
        let packs = restore.manifest.packs.iter().enumerate();
        Shared {
            identity_key: restore.repository.keys.identity_key(),
            reader: FrameReader::new(&restore.repository, restore.cluster),
            packs: packs.map(|(at, pack)| (pack.id.clone(), at)).collect(),
            large_files: Mutex::default(),
            marker: OnceLock::new(),
            written: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            restore,
        }
    }

    /// All blocks of all files but `global/pg_control`.
    async fn blocks(self: Arc<Self>, progress: &dyn Progress) -> Result<()> {
        let (flusher, flushes) = finish::flusher();
        let (jobs, queue) = mpsc::channel(1);
        let queue = Arc::new(Mutex::new(queue));
        let mut writers = JoinSet::new();
        for _ in 0..self.restore.threads.max(1) {
            let mut writer = Writer::new(self.clone());
            let queue = queue.clone();
            writers.spawn_blocking(move || writer.run(&queue));
        }
        drop(queue);
        let fed = self.feed(jobs, flushes, progress).await;
        let mut outcome = Ok(());
        while let Some(ended) = writers.join_next().await {
            outcome = outcome.and(ended.map_err(panicked).flatten());
        }
        // A writer that failed made the feeding fail: its reason comes first.
        outcome.and(fed)?;
        in_thread(move || finish::flushed(flusher)).await
    }

    async fn feed(
        self: &Arc<Self>,
        jobs: mpsc::Sender<Fetched>,
        flushes: finish::Flushes,
        progress: &dyn Progress,
    ) -> Result<()> {
        let ranges = window::cut(&self.restore.manifest, self.restore.databases.as_ref());
        let windows = stream::iter(ranges).map(|range| {
            let (shared, flushes) = (self.clone(), flushes.clone());
            async move { Window::prepare(shared, range, flushes).await }
        });
        let found = windows.buffered(WINDOWS).map_ok(|found| stream::iter(found.into_iter().map(Ok)));
        let fetched = found.try_flatten().map_ok(|job: Job| self.fetch(job)).try_buffered(FETCHES);
        let mut fetched = std::pin::pin!(fetched);
        let mut told = 0;
        while let Some(job) = fetched.try_next().await? {
            if jobs.send(job).await.is_err() {
                return Err(Failure::new(text::backup::RESTORE_INTERRUPTED));
            }
            let done = self.written.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed);
            progress.advance(done.saturating_sub(told));
            told = told.max(done);
        }
        Ok(())
    }

    /// The position in the manifest of a pack that a piece names.
    fn pack(&self, piece: &Piece, pack: u16) -> Result<usize> {
        let id = piece.packs.get(usize::from(pack));
        let at = id.and_then(|id| self.packs.get(id)).copied();
        at.ok_or_else(|| Failure::new(text::backup::PIECE_DAMAGED).because(format!("{id:?}")))
    }

    async fn fetch(&self, job: Job) -> Result<Fetched> {
        let pack = &self.restore.manifest.packs[job.pack];
        let frames: Vec<_> = job.frames.iter().map(|(at, _)| *at).collect();
        let stored = twice(|| self.reader.fetch(pack, &frames)).await?;
        Ok(Fetched { opener: self.reader.opener(pack)?, job, stored })
    }
}

/// Runs what blocks on a thread of its own.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(panicked).flatten()
}

pub(crate) fn panicked(error: tokio::task::JoinError) -> Failure {
    Failure::new(text::backup::RESTORE_INTERRUPTED).because(error)
}
