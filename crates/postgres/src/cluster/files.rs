//! Files and folders of clusters: made with the right mode whatever the umask, written whole or
//! not at all, and failures that say which path and what mends it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use obyra_evidence::{Failure, text};
use secrecy::{ExposeSecret as _, SecretString};

use crate::Result;

/// The failure of an operation on a path.
pub(super) fn failed(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(text::cluster::CANNOT_USE.with("path", path.display())).because(error);
    let mend = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => text::cluster::DISK_FULL_MEND,
        io::ErrorKind::PermissionDenied => text::cluster::PERMISSION_MEND,
        io::ErrorKind::ReadOnlyFilesystem => text::cluster::READ_ONLY_MEND,
        _ => return failure,
    };
    failure.mended_by(mend.with("path", path.display()))
}

/// Makes a folder and whatever is missing above it; those above become enterable by everyone,
/// since the server's user may be another than the one that makes them.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o755)?;
    }
    match fs::create_dir(path) {
        Ok(()) => set_mode(path, mode),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Sets the permission bits.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| failed(path, &e))
}

/// Writes a file whole or not at all, with this mode from its first byte on.
pub(super) fn write(path: &Path, contents: &str, mode: u32) -> Result<()> {
    write_for(path, contents, mode, None)
}

/// The same for an owner, as user and group. The file changes hands before it gets its name: in a
/// folder of the server's user, root must not follow what that user may have put there.
pub(super) fn write_for(path: &Path, contents: &str, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let fresh = path.with_added_extension("new");
    let written = || -> io::Result<()> {
        remove_stale(&fresh)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(contents.as_bytes())?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(&fresh, path)
    };
    written().map_err(|e| failed(path, &e))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The contents of a small text file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Writes a password that only its owner may read.
pub(super) fn write_secret(path: &Path, secret: &SecretString, owner: Option<(u32, u32)>) -> Result<()> {
    write_for(path, secret.expose_secret(), 0o600, owner)
}

/// A password that `write_secret` wrote; `None` if there is none.
pub(super) fn read_secret(path: &Path) -> Result<Option<SecretString>> {
    Ok(read(path)?.filter(|s| !s.trim().is_empty()).map(|s| s.trim().into()))
}

/// Swaps two folders of one disk, in one step.
pub(super) fn exchange(a: &Path, b: &Path) -> Result<()> {
    let swapped =
        rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, rustix::fs::RenameFlags::EXCHANGE);
    swapped.map_err(|e| failed(b, &e.into()))
}

/// Waits until all that was written to the disk of a folder is there.
pub(super) fn sync_all(folder: &Path) -> Result<()> {
    let synced =
        std::fs::File::open(folder).and_then(|opened| rustix::fs::syncfs(opened).map_err(Into::into));
    synced.map_err(|e| failed(folder, &e))
}

/// Renames, where both are on one file system.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| failed(to, &e))
}

/// Waits until a file's contents are on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed(path, &e))
}

/// Removes a folder and everything in it, if it exists.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<()> {
    remove_stale(path).map_err(|e| failed(path, &e))
}

/// The last lines of what was written to a log after `offset`.
pub(super) fn log_since(path: &Path, offset: u64, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return failed(path, &error).to_string();
    }
    last_lines(&String::from_utf8_lossy(&bytes), lines)
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The size of a file; 0 if there is none.
pub(super) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

/// How many files a folder holds, and their bytes; links are not followed.
pub(super) fn census(dir: &Path) -> io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let (f, b) = census(&entry.path())?;
            files += f;
            bytes += b;
        } else {
            files += 1;
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert!(read_secret(&path).unwrap().is_none());
        write_secret(&path, &"s3cret".into(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().unwrap().expose_secret(), "s3cret");
    }

    #[test]
    fn a_failure_names_the_path_and_a_mend() {
        let failure = failed(Path::new("/data"), &io::Error::from(io::ErrorKind::StorageFull));
        assert!(failure.to_string().starts_with("cannot use /data: "));
        assert!(failure.mend.unwrap().to_string().contains("free some space"));
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
