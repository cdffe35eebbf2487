//! What a source gives the pipeline: files, and the extents of their bytes.

use std::sync::Arc;
use std::time::Duration;

use obyra_evidence::{Message, Progress};
use tokio::time::{Instant, sleep_until};

use super::census::FileId;
use super::parents::{ParentPiece, Parents};
use super::pipeline::{Batch, Changed, Entrance, Part, Shared, stopped};
use super::sieve::Sieve;
use crate::Result;
use crate::repository::layout::{BLOCK, EXTENT_BYTES};
use crate::repository::manifest::Directory;

/// Small extents that go together.
const PARTS_MAX: usize = 64;

/// The pipeline's side that faces a source.
pub(super) struct Intake<'a> {
    shared: Arc<Shared>,
    parents: &'a Parents,
    progress: &'a dyn Progress,
    entrance: Entrance,
    batch: Batch,
    /// The extent whose bytes are coming, if they come here.
    coming: Option<Coming>,
    /// Bytes of the parts of the batch.
    gathered: u64,
    /// Batches.
    sent: u64,
    pace: Option<Pace>,
}

/// A file whose extents are being given.
pub(super) struct Incoming {
    id: FileId,
    path: Arc<str>,
    size: u64,
}

/// An extent whose bytes are coming.
struct Coming {
    parent: Option<Arc<ParentPiece>>,
    sieve: Option<Sieve>,
}

/// No faster than so many bytes a second.
struct Pace {
    bytes_per_second: u64,
    begun: Instant,
    sent: u64,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        shared: Arc<Shared>,
        parents: &'a Parents,
        entrance: Entrance,
        progress: &'a dyn Progress,
    ) -> Self {
        let batch = Batch::default();
        Intake { shared, parents, progress, entrance, batch, coming: None, gathered: 0, sent: 0, pace: None }
    }

    /// Gives no more than so many bytes a second from now on.
    pub(super) fn no_faster_than(&mut self, bytes_per_second: Option<u64>) {
        let pace = |bytes_per_second| Pace { bytes_per_second, begun: Instant::now(), sent: 0 };
        self.pace = bytes_per_second.filter(|rate| *rate > 0).map(pace);
    }

    /// Directories of the cluster, parents first.
    pub(super) fn directories(&self, directories: Vec<Directory>) {
        self.shared.census.lock().directories.extend(directories);
    }

    /// Something that a person should know.
    pub(super) fn note(&self, what: Message) {
        self.progress.note(what);
    }

    /// A file begins.
    pub(super) fn file(&mut self, path: &str, mode: u32, size: u64) -> Incoming {
        let id = self.shared.census.lock().file(path.to_owned(), mode, size);
        Incoming { id, path: path.into(), size }
    }

    /// The length of a file's extent of that number.
    pub(super) fn length(file: &Incoming, extent: u32) -> usize {
        let from = u64::from(extent) * EXTENT_BYTES;
        file.size.saturating_sub(from).min(EXTENT_BYTES) as usize
    }

    /// An extent begins whose bytes will be appended to the buffer that this returns; room is made for it.
    pub(super) async fn begin(&mut self, length: usize) -> Result<&mut Vec<u8>> {
        if self.gathered + length as u64 > EXTENT_BYTES || self.batch.parts.len() >= PARTS_MAX {
            self.send().await?;
        }
        if self.batch.bytes.capacity() == 0 {
            self.batch.bytes = self.entrance.spare.recv().await.ok_or_else(stopped)?;
            self.batch.bytes.reserve_exact(EXTENT_BYTES as usize);
        }
        Ok(&mut self.batch.bytes)
    }

    /// An extent of a file begins whose bytes will all come, to [`Intake::bytes`].
    pub(super) async fn coming(&mut self, file: &Incoming, extent: u32) -> Result<()> {
        let length = Self::length(file, extent);
        let from = self.begin(length).await?.len();
        let parent = self.parents.piece(&file.path, extent).await;
        let first_page = self.shared.first_page(&file.path, extent);
        let known = parent.as_ref().filter(|_| length.is_multiple_of(BLOCK));
        let sieve = known.and_then(|known| Sieve::new(&self.shared, known.clone(), first_page, from));
        self.coming = Some(Coming { parent, sieve });
        Ok(())
    }

    /// Bytes of the extent that is coming.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.batch.bytes.extend_from_slice(bytes);
        if let Some(Coming { sieve: Some(sieve), .. }) = &mut self.coming {
            sieve.sift(&mut self.batch.bytes);
        }
    }

    /// The buffer of the extent that has begun.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.batch.bytes
    }

    /// An extent is complete: its bytes are in the buffer, or the workers read them.
    pub(super) async fn extent(&mut self, file: &Incoming, extent: u32) -> Result<()> {
        let length = Self::length(file, extent);
        if self.gathered + length as u64 > EXTENT_BYTES || self.batch.parts.len() >= PARTS_MAX {
            // Only where workers read: begin() has made room otherwise.
            self.send().await?;
        }
        let (parent, sieve) = match self.coming.take() {
            Some(Coming { parent, sieve }) => (parent, sieve),
            None => (self.parents.piece(&file.path, extent).await, None),
        };
        let part = Part {
            file: file.id,
            path: file.path.clone(),
            extent,
            length,
            first_page: self.shared.first_page(&file.path, extent),
            parent,
            changed: sieve.map(Sieve::changed),
        };
        self.gathered += part.bytes() as u64;
        self.progress.advance((length - part.bytes()) as u64);
        self.batch.parts.push(part);
        Ok(())
    }

    /// An extent is complete of which only some blocks came: these are in the buffer, and the others are as the
    /// last complete backup has them.
    pub(super) async fn changed(&mut self, file: &Incoming, extent: u32, changed: Changed) -> Result<()> {
        let length = Self::length(file, extent);
        let parent = self.parents.of_complete(&file.path, extent).await?;
        if let Some(known) = &parent
            && changed.sent.is_empty()
            && known.piece.identities.len() == length / BLOCK
            && changed.kept as usize >= length / BLOCK
        {
            self.shared.census.lock().unchanged((file.id, extent), known);
            self.progress.advance(length as u64);
            return Ok(());
        }
        let part = Part {
            file: file.id,
            path: file.path.clone(),
            extent,
            length,
            first_page: self.shared.first_page(&file.path, extent),
            parent,
            changed: Some(changed),
        };
        if self.batch.parts.len() >= PARTS_MAX {
            // Only where nothing came of it: begin() has made room otherwise.
            self.send().await?;
        }
        self.gathered += part.bytes() as u64;
        self.progress.advance((length - part.bytes()) as u64);
        self.batch.parts.push(part);
        Ok(())
    }

    /// Waits until the workers have read everything that was given so far.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.send().await?;
        let mut taken = self.entrance.taken.clone();
        let all = taken.wait_for(|taken| *taken == self.sent).await;
        all.map(drop).map_err(|_| stopped())
    }

    async fn send(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.gathered);
        if batch.parts.is_empty() {
            self.batch = batch;
            return Ok(());
        }
        self.entrance.batches.send(batch).await.map_err(|_| stopped())?;
        self.sent += 1;
        self.progress.advance(bytes);
        if let Some(pace) = &mut self.pace {
            pace.sent += bytes;
            let due = pace.sent as f64 / pace.bytes_per_second as f64;
            sleep_until(pace.begun + Duration::from_secs_f64(due)).await;
        }
        Ok(())
    }

    /// Everything was given.
    pub(super) async fn end(mut self) -> Result<()> {
        self.send().await
    }
}
