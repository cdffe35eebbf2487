//! The end of a restore: everything on the disk, and only then the file without which no server starts.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use obyra_evidence::{Failure, text};

use super::Restore;
use super::skeleton::{remove, sync_dir};
use crate::Result;
use crate::restore::control;
use crate::restore::place::{MARKER, failed};

/// Smaller files are left to the last pass.
const FLUSHED_BYTES: u64 = 1 << 20;

/// Where finished files are handed in.
#[derive(Clone)]
pub(super) struct Flushes(mpsc::Sender<PathBuf>);

impl Flushes {
    /// Has a file flushed soon. If the flusher is gone, it has failed, and says so at its end.
    pub fn flush(&self, path: PathBuf, bytes: u64) {
        if bytes >= FLUSHED_BYTES {
            let _ = self.0.send(path);
        }
    }
}

/// A thread that flushes files while others are written: the disk works while the processors do.
pub(super) fn flusher() -> (JoinHandle<Result<()>>, Flushes) {
    let (sender, receiver) = mpsc::channel::<PathBuf>();
    let thread = std::thread::spawn(move || {
        for path in receiver {
            File::open(&path).and_then(|file| file.sync_data()).map_err(|e| failed(&path, &e))?;
        }
        Ok(())
    });
    (thread, Flushes(sender))
}

/// Waits for the flusher; all [`Flushes`] are gone by now.
pub(super) fn flushed(flusher: JoinHandle<Result<()>>) -> Result<()> {
    flusher.join().unwrap_or_else(|_| Err(Failure::new(text::backup::RESTORE_INTERRUPTED)))
}

/// Writes the small files, removes those that recovery is better off without, waits for the disk, writes
/// `global/pg_control`, and lets go of the folder.
pub(super) fn finish(restore: &Restore, control: &[u8], surplus: &[String]) -> Result<()> {
    let place = &restore.place;
    surplus.iter().try_for_each(|path| remove(&place.data.join(path)))?;
    for small in &restore.small {
        write(restore, &place.data.join(&small.path), small.contents.as_bytes())?;
    }
    sync_all(restore)?;
    write(restore, &place.data.join(control::PATH), control)?;
    sync_dir(&place.data.join("global"))?;
    remove(&place.data.join(MARKER))?;
    sync_dir(&place.data)
}

/// Writes a file whole, for the owner of the cluster, and flushes it.
fn write(restore: &Restore, path: &Path, contents: &[u8]) -> Result<()> {
    let fresh = path.with_added_extension("new");
    remove(&fresh)?;
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(contents)?;
        if let Some((uid, gid)) = restore.place.owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(|e| failed(path, &e))
}

/// Everything that was written is on the disk afterwards.
fn sync_all(restore: &Restore) -> Result<()> {
    let mut seen = BTreeSet::new();
    for root in restore.place.roots() {
        let folder = File::open(&root).map_err(|e| failed(&root, &e))?;
        let metadata = folder.metadata().map_err(|e| failed(&root, &e))?;
        if seen.insert(metadata.dev()) {
            sync_file_system(&folder, restore, &root)?;
        }
        if let Some(parent) = root.parent() {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// In one pass, by the kernel.
#[cfg(target_os = "linux")]
fn sync_file_system(folder: &File, _: &Restore, root: &Path) -> Result<()> {
    rustix::fs::syncfs(folder).map_err(|e| failed(root, &e.into()))
}

/// File by file, and each of their folders.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &File, restore: &Restore, _: &Path) -> Result<()> {
    let mut folders = BTreeSet::new();
    for file in restore.manifest.files.iter().filter(|file| file.path != control::PATH) {
        let path = restore.place.path(&file.path);
        File::open(&path).and_then(|file| file.sync_all()).map_err(|e| failed(&path, &e))?;
        folders.extend(path.parent().map(Path::to_path_buf));
    }
    folders.extend(restore.manifest.directories.iter().map(|directory| restore.place.path(&directory.path)));
    folders.iter().try_for_each(|folder| sync_dir(folder))
}
