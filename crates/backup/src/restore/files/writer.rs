//! Opens frames, verifies each block by its identity, and writes it where it belongs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Shared;
use super::window::{self, Job, Placement, Window, wrong};
use crate::Result;
use crate::repository::layout::BLOCK;
use crate::repository::map::identity;
use crate::repository::pack::{FrameAt, FrameOpener, Kind};
use crate::restore::place::failed;

/// A job with the bytes of its frames.
pub(super) struct Fetched {
    pub job: Job,
    pub opener: Arc<FrameOpener>,
    pub stored: Vec<Bytes>,
}

/// One of the threads that write.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Where the store is asked, if a frame has to be read once more.
    runtime: Handle,
    raw: Vec<u8>,
    /// The file that was written last: the next block is often its own.
    open: Option<(PathBuf, File)>,
}

impl Writer {
    /// Within a runtime; its thread is to be another.
    pub fn new(shared: Arc<Shared>) -> Writer {
        Writer { shared, runtime: Handle::current(), raw: Vec::new(), open: None }
    }

    /// Works until there is no more to do.
    pub fn run(&mut self, queue: &Mutex<mpsc::Receiver<Fetched>>) -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let Some(fetched) = next else { return Ok(()) };
            self.open = None;
            if let Err(failure) = self.write(&fetched) {
                // Nobody else shall go on, and nobody shall wait for us.
                queue.lock().unwrap_or_else(PoisonError::into_inner).close();
                return Err(failure);
            }
        }
    }

    fn write(&mut self, fetched: &Fetched) -> Result<()> {
        let window = &fetched.job.window;
        for ((at, placements), stored) in fetched.job.frames.iter().zip(&fetched.stored) {
            let first = placements.first().map(|placement| self.name(window, *placement)).unwrap_or_default();
            let mut raw = std::mem::take(&mut self.raw);
            // What came over a network may have been lost on the way: it is what it is once it came twice.
            let opened = fetched.opener.open_into(*at, stored, &mut raw);
            let opened = opened.or_else(|_| self.again(fetched, *at, &mut raw));
            let kind = opened.map_err(|failure| {
                let why = failure.why.clone();
                let needed = format!("needed for {} block {}", first.0, first.1);
                failure.because(why.into_iter().chain([needed]).collect::<Vec<_>>().join("; "))
            })?;
            if kind != Kind::Blocks {
                return Err(wrong(&first.0, first.1));
            }
            for placement in placements {
                self.place(window, *placement, &raw)?;
            }
            self.raw = raw;
        }
        Ok(())
    }

    /// Reads a frame once more.
    fn again(&self, fetched: &Fetched, at: FrameAt, raw: &mut Vec<u8>) -> Result<Kind> {
        let pack = &self.shared.restore.manifest.packs[fetched.job.pack];
        let stored = self.runtime.block_on(self.shared.reader.fetch(pack, &[at]))?;
        fetched.opener.open_into(at, stored.first().map_or(&[][..], |stored| stored), raw)
    }

    fn place(&mut self, window: &Window, placement: Placement, raw: &[u8]) -> Result<()> {
        let (from, bytes) = window.range(placement);
        let extent = &window.extents[placement.extent];
        let found = raw.get(placement.offset..placement.offset + bytes);
        let Some(found) = found else {
            let (path, block) = self.name(window, placement);
            return Err(wrong(&path, block));
        };
        let wanted = &extent.piece.identities[placement.block..placement.block + placement.blocks];
        for (nth, (block, wanted)) in found.chunks(BLOCK).zip(wanted).enumerate() {
            if identity(&self.shared.identity_key, block) != *wanted {
                let (path, first) = self.name(window, placement);
                return Err(wrong(&path, first + nth));
            }
        }
        let file = self.file(window, extent.file)?;
        file.write_all_at(found, from).map_err(|e| failed(&window.files[extent.file].path, &e))?;
        self.shared.written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn file(&mut self, window: &Window, at: usize) -> Result<&File> {
        let target = &window.files[at];
        if self.open.as_ref().is_none_or(|(path, _)| *path != target.path) {
            self.open = None;
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            closed => Ok(&closed.insert((target.path.clone(), window::open(target)?)).1),
        }
    }

    /// The file and the block in it where a placement begins.
    fn name(&self, window: &Window, placement: Placement) -> (String, usize) {
        let extent = &window.extents[placement.extent];
        let path = &self.shared.restore.manifest.files[window.files[extent.file].at].path;
        (path.clone(), (extent.offset / BLOCK as u64) as usize + placement.block)
    }
}
