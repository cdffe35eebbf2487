//! A window: some extents of some files, what of them is missing on the disk, and in which frames it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use obyra_evidence::{Failure, text};

use super::finish::Flushes;
use super::{Shared, in_thread};
use crate::Result;
use crate::repository::catalogue::Manifest;
use crate::repository::layout::{BLOCK, EXTENT_BYTES};
use crate::repository::map::{Piece, identity};
use crate::repository::pack::FrameAt;
use crate::restore::control;
use crate::restore::place::failed;

/// Extents in a window (256 MiB): their identities take half a megabyte.
const EXTENTS: usize = 32;
/// Files in a window, where they are small.
const FILES: usize = 1024;
/// Stored bytes that are fetched together, unless one frame is larger: half a dozen of these are in memory.
const JOB_BYTES: u32 = 2 << 20;
/// Bytes that are read at a time to see whether they are right already.
const READ: usize = 32 * BLOCK;

/// Extents of files: the file's position in the manifest, and the first and last extent.
pub(super) type Cut = Vec<(usize, std::ops::Range<usize>)>;

/// Cuts all files into windows; of the databases that are not wanted, the files without their extents.
pub(super) fn cut(manifest: &Manifest, databases: Option<&BTreeSet<u32>>) -> Vec<Cut> {
    let is_wanted = |path: &str| match (databases, database_of(path)) {
        (Some(databases), Some(oid)) => databases.contains(&oid),
        _ => true,
    };
    let mut windows = Vec::new();
    let mut window: Cut = Vec::new();
    let mut extents = 0;
    for (at, file) in manifest.files.iter().enumerate().filter(|(_, file)| file.path != control::PATH) {
        let all = if is_wanted(&file.path) { file.extents.len() } else { 0 };
        let mut from = 0;
        loop {
            let to = all.min(from + EXTENTS - extents);
            window.push((at, from..to));
            extents += to - from;
            from = to;
            if extents == EXTENTS || window.len() == FILES {
                windows.push(std::mem::take(&mut window));
                extents = 0;
            }
            if from == all {
                break;
            }
        }
    }
    if !window.is_empty() {
        windows.push(window);
    }
    windows
}

/// The database whose relation a file is part of. Its version and its map of catalogues belong to whoever
/// connects, and are no relation.
fn database_of(path: &str) -> Option<u32> {
    let parts: Vec<&str> = path.split('/').collect();
    let (oid, name) = match parts[..] {
        ["base", oid, name] | ["pg_tblspc", _, _, oid, name] => (oid, name),
        _ => return None,
    };
    name.starts_with(|first: char| first.is_ascii_digit()).then(|| oid.parse().ok())?
}

/// A window that is being written.
pub(super) struct Window {
    /// Its files.
    pub files: Vec<Target>,
    /// Its extents.
    pub extents: Vec<Extent>,
    flushes: Flushes,
}

/// A file on the disk.
pub(super) struct Target {
    pub path: PathBuf,
    pub size: u64,
    /// Its position in the manifest.
    pub at: usize,
}

/// An extent of a file.
pub(super) struct Extent {
    /// The file's position in the window.
    pub file: usize,
    /// Where the extent begins in the file.
    pub offset: u64,
    pub piece: Piece,
}

/// Frames of one pack that a window needs.
pub(super) struct Job {
    pub window: Arc<Window>,
    /// The pack's position in the manifest.
    pub pack: usize,
    pub frames: Vec<(FrameAt, Vec<Placement>)>,
}

/// Consecutive blocks of a frame that belong into a file one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// The extent's position in the window.
    pub extent: usize,
    /// The first block in the extent.
    pub block: usize,
    pub blocks: usize,
    /// Where the first one is in the frame.
    pub offset: usize,
}

impl Window {
    /// Reads the maps, makes the files, and finds what has to be fetched.
    pub async fn prepare(shared: Arc<Shared>, cut: Cut, flushes: Flushes) -> Result<Vec<Job>> {
        let manifest = shared.restore.manifest.clone();
        let mut window = Window { files: Vec::new(), extents: Vec::new(), flushes };
        for (at, extents) in cut {
            let file = &manifest.files[at];
            let path = shared.restore.place.path(&file.path);
            for number in extents {
                let piece = shared.reader.piece(&manifest.packs, file.extents[number]).await?;
                let offset = number as u64 * EXTENT_BYTES;
                let blocks = (file.size - offset).min(EXTENT_BYTES).div_ceil(BLOCK as u64);
                if piece.identities.len() as u64 != blocks {
                    return Err(Failure::new(text::backup::PIECE_DAMAGED).because(&file.path));
                }
                window.extents.push(Extent { file: window.files.len(), offset, piece });
            }
            window.files.push(Target { path, size: file.size, at });
        }
        in_thread(move || window.find(&shared)).await
    }

    fn find(self, shared: &Shared) -> Result<Vec<Job>> {
        let window = Arc::new(self);
        let mut fresh = HashSet::new();
        for (at, target) in window.files.iter().enumerate() {
            if make(shared, target)? {
                fresh.insert(at);
            }
        }
        let mut found: BTreeMap<usize, BTreeMap<(u32, u32), Vec<Placement>>> = BTreeMap::new();
        let mut buffer = vec![0; READ];
        for (at, extent) in window.extents.iter().enumerate() {
            let is_fresh = fresh.contains(&extent.file);
            let there = if is_fresh { None } else { Some(window.right(shared, extent, &mut buffer)?) };
            for (kept, placement) in missing(at, &extent.piece, there.as_deref()) {
                let Some((pack, frame)) = kept else {
                    // Zeros: a file that was made just now has them.
                    if is_fresh {
                        window.count(&shared.kept, placement);
                    } else {
                        window.zeros(shared, placement)?;
                    }
                    continue;
                };
                let pack = shared.pack(&extent.piece, pack)?;
                found
                    .entry(pack)
                    .or_default()
                    .entry((frame.offset, frame.stored))
                    .or_default()
                    .push(placement);
            }
        }
        let mut jobs: Vec<Job> = Vec::new();
        for (pack, frames) in found {
            let mut bytes = u32::MAX;
            for ((offset, stored), placed) in frames {
                if bytes.saturating_add(stored) > JOB_BYTES {
                    jobs.push(Job { window: window.clone(), pack, frames: Vec::new() });
                    bytes = 0;
                }
                bytes += stored;
                if let Some(job) = jobs.last_mut() {
                    job.frames.push((FrameAt { offset, stored }, placed));
                }
            }
        }
        Ok(jobs)
    }

    /// Which blocks of an extent are on the disk as they should be.
    fn right(&self, shared: &Shared, extent: &Extent, buffer: &mut [u8]) -> Result<Vec<bool>> {
        let target = &self.files[extent.file];
        let failed = |error: io::Error| failed(&target.path, &error);
        let file = File::open(&target.path).map_err(failed)?;
        let mut right = Vec::with_capacity(extent.piece.identities.len());
        let end = target.size.min(extent.offset + EXTENT_BYTES);
        let mut at = extent.offset;
        while at < end {
            let some = &mut buffer[..READ.min((end - at) as usize)];
            file.read_exact_at(some, at).map_err(failed)?;
            for block in some.chunks(BLOCK) {
                let is = identity(&shared.identity_key, block) == extent.piece.identities[right.len()];
                if is {
                    shared.kept.fetch_add(block.len() as u64, Ordering::Relaxed);
                }
                right.push(is);
            }
            at += some.len() as u64;
        }
        Ok(right)
    }

    fn zeros(&self, shared: &Shared, placement: Placement) -> Result<()> {
        let extent = &self.extents[placement.extent];
        let target = &self.files[extent.file];
        let (from, bytes) = self.range(placement);
        let file = open(target)?;
        let zeros = vec![0; bytes];
        file.write_all_at(&zeros, from).map_err(|e| failed(&target.path, &e))?;
        shared.written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Where blocks lie in their file, and how many bytes they are.
    pub fn range(&self, placement: Placement) -> (u64, usize) {
        let extent = &self.extents[placement.extent];
        let from = extent.offset + (placement.block * BLOCK) as u64;
        let left = self.files[extent.file].size - from;
        (from, left.min((placement.blocks * BLOCK) as u64) as usize)
    }

    fn count(&self, counter: &std::sync::atomic::AtomicU64, placement: Placement) {
        counter.fetch_add(self.range(placement).1 as u64, Ordering::Relaxed);
    }
}

/// When the last job of a window lets go of it, its files are flushed while the next ones are written.
impl Drop for Window {
    fn drop(&mut self) {
        for target in self.files.drain(..) {
            self.flushes.flush(target.path, target.size);
        }
    }
}

/// Opens a file of the window to write into it.
pub(super) fn open(target: &Target) -> Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().write(true).custom_flags(no_follow).open(&target.path);
    opened.map_err(|e| failed(&target.path, &e))
}

/// Makes a file, or gives an existing one its size. Says whether all of it was zeros then.
fn make(shared: &Shared, target: &Target) -> Result<bool> {
    let entry = &shared.restore.manifest.files[target.at];
    // A large file comes in several windows, two of them at the same time.
    let mut large = shared.large_files.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(is_new) = large.get(&target.at) {
        return Ok(*is_new);
    }
    let is_new = create(shared, target, entry.mode).map_err(|e| failed(&target.path, &e))?;
    if entry.extents.len() > 1 {
        large.insert(target.at, is_new);
    }
    Ok(is_new)
}

fn create(shared: &Shared, target: &Target, mode: u32) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let (file, is_new) = match options.clone().create_new(true).open(&target.path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(&target.path)?, false),
        Err(error) => return Err(error),
    };
    if is_new || file.metadata()?.len() != target.size {
        file.set_len(target.size)?;
    }
    if let Some((uid, gid)) = shared.restore.place.owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    Ok(is_new)
}

/// Where the frame of some blocks is: the pack in the piece's list, and the frame.
type Source = (u16, FrameAt);

/// The blocks of an extent that have to be written, as runs; without a source, they are zeros.
fn missing(extent: usize, piece: &Piece, right: Option<&[bool]>) -> Vec<(Option<Source>, Placement)> {
    let mut found = Vec::new();
    let mut block = 0;
    for run in &piece.runs {
        let end = block + usize::from(run.blocks);
        let mut from = block;
        while from < end {
            let is_right = |block: &usize| right.is_some_and(|right| right[*block]);
            let Some(first) = (from..end).find(|block| !is_right(block)) else { break };
            let after = (first..end).find(is_right).unwrap_or(end);
            let offset = run.kept.map_or(0, |kept| kept.offset as usize + (first - block) * BLOCK);
            let source = run.kept.map(|kept| (kept.pack, kept.frame));
            found.push((source, Placement { extent, block: first, blocks: after - first, offset }));
            from = after;
        }
        block = end;
    }
    found
}

/// A block that is not what the map says.
pub(super) fn wrong(path: &str, block: usize) -> Failure {
    Failure::new(text::backup::RESTORE_WRONG_BLOCK.with("path", path).with("block", block))
        .mended_by(text::backup::OBJECT_DAMAGED_MEND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::PackId;
    use crate::repository::map::{Kept, ZEROS};

    #[test]
    fn relations_belong_to_databases() {
        assert_eq!(database_of("base/16390/2619_fsm"), Some(16_390));
        assert_eq!(database_of("pg_tblspc/16500/PG_16_202307071/16390/16600.1"), Some(16_390));
        for other in ["base/16390/pg_filenode.map", "base/16390/PG_VERSION", "global/1262", "pg_xact/0000"] {
            assert_eq!(database_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_not_right_is_wanted() {
        let mut piece = Piece::default();
        let backup = "20261124T030000Z-00ab".parse().unwrap();
        let pack = piece.pack(&PackId { backup, sequence: 0 }).unwrap();
        let frame = FrameAt { offset: 56, stored: 100 };
        for block in 0..4u32 {
            let offset = 8192 * (block + 1);
            piece.push([1; 16], Some(Kept { pack, frame, offset }), 8192);
        }
        piece.push(ZEROS, None, 8192);
        let runs = |right: Option<&[bool]>| {
            let found = missing(7, &piece, right).into_iter();
            let found = found.map(|(source, at)| (source.is_some(), at.block, at.blocks, at.offset / 8192));
            found.collect::<Vec<_>>()
        };
        assert_eq!(runs(None), [(true, 0, 4, 1), (false, 4, 1, 0)]);
        assert_eq!(runs(Some(&[true; 5])), []);
        assert_eq!(
            runs(Some(&[false, true, true, false, false])),
            [(true, 0, 1, 1), (true, 3, 1, 4), (false, 4, 1, 0)]
        );
        assert_eq!(runs(Some(&[true, false, false, true, true])), [(true, 1, 2, 2)]);
    }
}
