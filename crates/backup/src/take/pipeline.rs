//! From extents to packs in the store: threads that compress and seal, and a task that puts what they made.
//!
//! Every channel is bounded: whoever is slowest sets the pace, and memory does not depend on the cluster.
//! Whoever fails, or is dropped, stops all others.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::Lsn;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::census::{Census, FileId};
use super::parents::ParentPiece;
use super::repack::Repacking;
use super::worker::{Finished, RESERVE, Worker};
use crate::Result;
use crate::page::RelationFile;
use crate::repository::Repository;
use crate::repository::layout::{BLOCK, BackupId, ClusterId, EXTENT_BLOCKS, EXTENT_BYTES, PACK_BYTES};
use crate::repository::manifest::PackEntry;

/// Packs that are put at the same time.
const PUTS: usize = 3;
/// All packs that are in memory may take so much together.
const PACKS_BYTES: usize = 96 << 20;

/// What all who take part in a backup share.
pub(super) struct Shared {
    pub(super) repository: Repository,
    pub(super) cluster: ClusterId,
    pub(super) backup: BackupId,
    pub(super) identity_key: [u8; 32],
    /// zstd's.
    pub(super) level: i32,
    /// Whether pages carry checksums.
    pub(super) checksums: bool,
    /// Blocks of a relation's segment.
    pub(super) segment_blocks: u32,
    /// Where the backup's WAL begins.
    pub(super) start: Lsn,
    pub(super) now: Timestamp,
    pub(super) repacking: Repacking,
    /// Bytes that may still be stored again for their age alone.
    pub(super) refreshable: AtomicU64,
    pub(super) threads: usize,
    pub(super) census: Census,
    /// The number of the next pack.
    pub(super) sequence: AtomicU32,
    /// Bytes of the blocks that were stored.
    pub(super) added: AtomicU64,
    /// Memory of packs that were put, for the next ones.
    pub(super) buffers: Mutex<Vec<Vec<u8>>>,
    pub(super) stopped: AtomicBool,
}

impl Shared {
    /// Memory for a pack: that of one that was put, if there is any.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let used = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| Vec::with_capacity(self.pack_bytes() + RESERVE))
    }

    /// Memory that a store may still hold on to is not used again.
    fn give_back(&self, bytes: Bytes) {
        if let Ok(bytes) = bytes.try_into_mut() {
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.into());
        }
    }

    /// Bytes at which a pack is ended: the more threads, the smaller.
    pub(super) fn pack_bytes(&self) -> usize {
        (PACKS_BYTES / (self.threads + PUTS + 1)).clamp(PACK_BYTES / 4, PACK_BYTES)
    }

    /// The number in its relation of an extent's first page; `None` if there is no checksum to verify.
    pub(super) fn first_page(&self, path: &str, extent: u32) -> Option<u32> {
        let file = RelationFile::of(path).filter(|_| self.checksums)?;
        Some(file.first_block(self.segment_blocks).wrapping_add(extent * EXTENT_BLOCKS))
    }
}

/// An extent of a file, to be taken.
pub(super) struct Part {
    pub(super) file: FileId,
    pub(super) path: Arc<str>,
    pub(super) extent: u32,
    /// Bytes.
    pub(super) length: usize,
    /// The number in its relation of the first page, where pages have checksums.
    pub(super) first_page: Option<u32>,
    /// Its map in an earlier backup.
    pub(super) parent: Option<Arc<ParentPiece>>,
    /// Which of its blocks came, if that is not all of them: the others are what the parent's map says.
    pub(super) changed: Option<Changed>,
}

/// The blocks of an extent that came.
pub(super) struct Changed {
    /// Their numbers in the extent, ascending.
    pub(super) sent: Vec<u16>,
    /// From this block on, those that did not come are zeros.
    pub(super) kept: u32,
}

impl Part {
    /// Bytes that came of it.
    pub(super) fn bytes(&self) -> usize {
        self.changed.as_ref().map_or(self.length, |changed| changed.sent.len() * BLOCK)
    }
}

/// One large extent or many small ones.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) parts: Vec<Part>,
    /// The bytes of the parts, one after the other, unless the worker reads them itself.
    pub(super) bytes: Vec<u8>,
}

/// Where a worker reads the extents whose bytes did not come with them.
pub(super) trait Contents: Send + Sync {
    /// Reads an extent into a buffer of its length. What the file has no more is zeros; false if there is no
    /// such file any more.
    fn read(&self, part: &Part, into: &mut [u8]) -> Result<bool>;

    /// Reads the block of that number in the extent again; false, and nothing is changed, if it is gone.
    fn again(&self, part: &Part, number: usize, into: &mut [u8]) -> bool;
}

/// The workers, and the task that puts their packs.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    workers: JoinSet<Result<()>>,
    puts: JoinHandle<Result<()>>,
}

/// Where batches go in, and buffers come back.
pub(super) struct Entrance {
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) spare: mpsc::UnboundedReceiver<Vec<u8>>,
    /// How many batches were taken.
    pub(super) taken: watch::Receiver<u64>,
}

impl Pipeline {
    /// Starts the threads; what they need is in `shared`.
    pub(super) fn start(shared: &Arc<Shared>, contents: Option<Arc<dyn Contents>>) -> (Pipeline, Entrance) {
        let (batches, intake) = mpsc::channel(shared.threads.max(1));
        let (give_back, spare) = mpsc::unbounded_channel();
        // One for each worker, one for each that waits, one that is being filled.
        for _ in 0..2 * shared.threads.max(1) {
            let _ = give_back.send(Vec::new());
        }
        let (count, taken) = watch::channel(0);
        let (finished, packs) = mpsc::channel(1);
        let intake = Arc::new(Mutex::new(intake));
        let mut workers = JoinSet::new();
        for _ in 0..shared.threads.max(1) {
            let bench = Bench {
                shared: shared.clone(),
                intake: intake.clone(),
                contents: contents.clone(),
                give_back: give_back.clone(),
                count: count.clone(),
            };
            let finished = finished.clone();
            workers.spawn_blocking(move || {
                let done = bench.work(finished);
                if done.is_err() {
                    bench.shared.stopped.store(true, Ordering::Relaxed);
                }
                done
            });
        }
        let puts = tokio::spawn(put_all(shared.clone(), packs));
        (Pipeline { shared: shared.clone(), workers, puts }, Entrance { batches, spare, taken })
    }

    /// The source has ended and its entrance is dropped: waits for what is under way. The failure is that of
    /// whoever failed first, not of those who stopped because of it.
    pub(super) async fn finish(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(joined) = self.workers.join_next().await {
            outcome = first(outcome, flat(joined));
        }
        first(outcome, flat((&mut self.puts).await))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.puts.abort();
    }
}

fn flat(joined: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    match joined {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(stopped()),
        },
    }
}

/// The failure that others followed from.
pub(super) fn first(one: Result<()>, other: Result<()>) -> Result<()> {
    match (one, other) {
        (Ok(()), other) => other,
        (Err(one), Err(other)) if one.what.code() == text::backup::TAKE_STOPPED => Err(other),
        (one, _) => one,
    }
}

/// Somebody else failed.
pub(super) fn stopped() -> Failure {
    Failure::new(text::backup::TAKE_STOPPED)
}

/// What a worker's thread works with.
struct Bench {
    shared: Arc<Shared>,
    intake: Arc<Mutex<mpsc::Receiver<Batch>>>,
    contents: Option<Arc<dyn Contents>>,
    give_back: mpsc::UnboundedSender<Vec<u8>>,
    count: watch::Sender<u64>,
}

impl Bench {
    fn work(&self, finished: mpsc::Sender<Finished>) -> Result<()> {
        let mut worker = Worker::new(&self.shared, finished);
        let mut buffer = Vec::new();
        while let Some(mut batch) = self.next()? {
            match &self.contents {
                Some(contents) => {
                    buffer.resize(EXTENT_BYTES as usize, 0);
                    for part in &batch.parts {
                        let bytes = &mut buffer[..part.length];
                        if contents.read(part, bytes)? {
                            let again = &mut |number, into: &mut [u8]| contents.again(part, number, into);
                            worker.extent(part, bytes, again)?;
                        } else {
                            self.shared.census.lock().vanished(part.file);
                        }
                    }
                }
                None => {
                    let mut rest = batch.bytes.as_mut_slice();
                    for part in &batch.parts {
                        let (bytes, behind) = rest.split_at_mut(part.bytes());
                        worker.extent(part, bytes, &mut |_, _| false)?;
                        rest = behind;
                    }
                }
            }
            self.count.send_modify(|count| *count += 1);
            batch.bytes.clear();
            if batch.bytes.capacity() > 0 {
                // The source may have come to its end.
                let _ = self.give_back.send(batch.bytes);
            }
        }
        worker.end()
    }

    fn next(&self) -> Result<Option<Batch>> {
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = intake.blocking_recv();
        if self.shared.stopped.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(batch) }
    }
}

async fn put_all(shared: Arc<Shared>, mut packs: mpsc::Receiver<Finished>) -> Result<()> {
    let mut putting = FuturesUnordered::new();
    loop {
        tokio::select! {
            finished = packs.recv(), if putting.len() < PUTS => match finished {
                Some(finished) => putting.push(put(&shared, finished)),
                None => break,
            },
            Some(done) = putting.next() => done?,
        }
    }
    while let Some(done) = putting.next().await {
        done?;
    }
    Ok(())
}

async fn put(shared: &Shared, Finished { id, sealed }: Finished) -> Result<()> {
    let entry = PackEntry::of(id, &sealed);
    shared.repository.store.create_new(&sealed.name, sealed.bytes.clone()).await?;
    shared.give_back(sealed.bytes);
    shared.census.lock().put(entry);
    Ok(())
}
