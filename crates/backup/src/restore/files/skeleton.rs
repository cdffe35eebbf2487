//! The beginning of a restore: nobody can start a server, what does not belong goes, the directories and the
//! tablespaces' links are there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::sync::OnceLock;

use obyra_evidence::{Failure, text};

use super::Restore;
use crate::Result;
use crate::restore::control;
use crate::restore::place::{MARKER, failed};

/// The directories that every server wants to find, whether or not the backup names them: most are left
/// out of backups with what is in them.
pub(in crate::restore) const DIRECTORIES: [&str; 20] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal/archive_status",
];

/// Takes the folder, and makes it ready for the files.
pub(super) fn begin(restore: &Restore, marker: &OnceLock<File>) -> Result<()> {
    let place = &restore.place;
    // The two modes that a server takes; the other one lets its group read.
    let is_shared = fs::metadata(&place.data).is_ok_and(|data| data.mode() & 0o777 == 0o750);
    make_dir(&place.data, if is_shared { 0o750 } else { 0o700 }, place.owner)?;
    let taken = take(restore)?;
    marker.get_or_init(|| taken);
    // From here on no server starts here.
    remove(&place.data.join(control::PATH))?;
    sync_dir(&place.data.join("global"))?;
    for stranger in &place.removed {
        remove(stranger)?;
    }
    directories(restore)?;
    for mapped in &place.tablespaces {
        link(&mapped.folder, &place.data.join("pg_tblspc").join(mapped.oid.to_string()))?;
    }
    Ok(())
}

/// Writes the marker, and holds it: two restores into one folder would ruin each other.
fn take(restore: &Restore) -> Result<File> {
    let path = restore.place.data.join(MARKER);
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(no_follow).open(&path);
    let mut marker = opened.map_err(|e| failed(&path, &e))?;
    match marker.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = text::backup::RESTORE_RUNS_ALREADY.with("folder", restore.place.data.display());
            return Err(Failure::refused(what));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
    }
    let line = format!("{}\n", restore.manifest.header.id);
    let written = marker.set_len(0).and_then(|()| marker.write_all(line.as_bytes()));
    written.and_then(|()| marker.sync_all()).map_err(|e| failed(&path, &e))?;
    sync_dir(&restore.place.data)?;
    Ok(marker)
}

fn directories(restore: &Restore) -> Result<()> {
    let place = &restore.place;
    let mut wanted: BTreeMap<_, u32> = BTreeMap::new();
    for mapped in &place.tablespaces {
        wanted.insert(mapped.folder.clone(), 0o700);
    }
    for relative in DIRECTORIES {
        wanted.insert(place.path(relative), 0o700);
    }
    for file in &restore.manifest.files {
        if let Some(folder) = place.path(&file.path).parent()
            && !wanted.contains_key(folder)
        {
            wanted.insert(folder.to_path_buf(), 0o700);
        }
    }
    for directory in &restore.manifest.directories {
        wanted.insert(place.path(&directory.path), directory.mode & 0o777);
    }
    // Sorted: parents come before what is in them.
    wanted.iter().try_for_each(|(path, mode)| make_dir(path, *mode, place.owner))
}

fn make_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let made = || -> io::Result<()> {
        if !path.is_dir() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::create_dir(path)?;
        } else if path.is_symlink() {
            // pg_wal on a disk of its own.
            return Ok(());
        }
        if let Some((uid, gid)) = owner {
            lchown(path, Some(uid), Some(gid))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    made().map_err(|e| failed(path, &e))
}

fn link(folder: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|there| there == folder) {
        return Ok(());
    }
    remove(at)?;
    symlink(folder, at).map_err(|e| failed(at, &e))
}

/// Removes a file, a link, or a folder with all that is in it; one that is gone already is no failure.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// Waits until the names in a folder are on the disk; one that is not there has none.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}
