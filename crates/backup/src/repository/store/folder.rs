//! A local folder as a store: an object is visible only when it is whole and on the disk.
//!
//! It is written to `tmp/`, flushed, linked under its name, and its folder is flushed. What a crash leaves in
//! `tmp/` is nobody's, and goes when the folder is opened again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Created;
use crate::repository::hex;

/// The folder of what is being written.
const TEMPORARY: &str = "tmp";
/// Nothing takes this long to be written: what is older was left by a program that died.
const LEFT_BEHIND: Duration = Duration::from_secs(6 * 3600);

/// An opened folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Device and inode: a disk that was unmounted leaves an empty folder of the same name.
    identity: (u64, u64),
}

impl Folder {
    /// Opens a folder; makes it, durably, where it is absent.
    pub(super) fn open(root: &Path) -> io::Result<Folder> {
        let root = std::path::absolute(root)?;
        make(&root)?;
        let folder = Folder { identity: identity(&root)?, root };
        // Somebody who only reads need not be allowed to write.
        match folder.sweep() {
            Err(error)
                if !matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
            {
                Err(error)
            }
            _ => Ok(folder),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Fails if the folder is no longer the one that was opened.
    pub(super) fn is_there(&self) -> io::Result<()> {
        if identity(&self.root)? == self.identity {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::NotFound,
            "another folder has taken its place: was the disk unmounted?",
        ))
    }

    /// Creates an object; never replaces one.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        let target = self.root.join(name);
        let written = self.write(bytes)?;
        let linked = self.put_in_place(&target, || match fs::hard_link(&written, &target) {
            // Whoever made it may not have flushed its name yet.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Created::Existed),
            linked => linked.map(|()| Created::New),
        });
        fs::remove_file(&written)?;
        linked
    }

    /// Writes an object whatever was there.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let target = self.root.join(name);
        let written = self.write(bytes)?;
        let moved = self.put_in_place(&target, || fs::rename(&written, &target));
        if moved.is_err() {
            let _ = fs::remove_file(&written);
        }
        moved
    }

    /// Makes sure that what was deleted in a folder stays deleted.
    pub(super) fn flush(&self, name: &str) -> io::Result<()> {
        match File::open(self.root.join(name)) {
            Ok(folder) => folder.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes and flushes a temporary file; leaves nothing where that fails.
    fn write(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let folder = self.root.join(TEMPORARY);
        let path = folder.join(hex::encode(&random));
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&folder)?;
                open()?
            }
            opened => opened?,
        };
        let written = fill(&mut file, bytes).and_then(|()| file.sync_all());
        drop(file);
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// Gives a file its name, durably; makes the folders that are absent.
    fn put_in_place<T>(&self, target: &Path, name: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let parent = target.parent().unwrap_or(&self.root);
        let named = match name() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(parent)?;
                name()?
            }
            named => named?,
        };
        File::open(parent)?.sync_all()?;
        Ok(named)
    }

    fn sweep(&self) -> io::Result<()> {
        let folder = self.root.join(TEMPORARY);
        let mut files = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            // Others write there now.
            if let Ok(meta) = fs::metadata(&path) {
                files.push((path, meta.modified()?));
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        // The age is told by the disk's own clock, which may be a file server's.
        let probe = self.write(&[])?;
        let now = fs::metadata(&probe)?.modified()?;
        fs::remove_file(&probe)?;
        for (path, modified) in files {
            if now.duration_since(modified).is_ok_and(|age| age > LEFT_BEHIND) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Writes a large object past the page cache: a copy of 16 MiB less for each pack, and the memory stays what the
/// server beside it needs. Where the disk does not take that, the way through the cache is gone on with, and
/// tells of what is wrong.
#[cfg(target_os = "linux")]
fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    /// A multiple of what disks ask of addresses, offsets and lengths.
    const ALIGNED: usize = 4096;
    const PIECE: usize = 1 << 20;
    let flags = fcntl_getfl(&*file)?;
    if bytes.len() < PIECE || fcntl_setfl(&*file, flags | OFlags::DIRECT).is_err() {
        return file.write_all(bytes);
    }
    let mut room = vec![0; PIECE + ALIGNED];
    let from = room.as_ptr().align_offset(ALIGNED);
    let mut rest = bytes;
    while let Some(piece) = room.get_mut(from..from + rest.len().min(PIECE) / ALIGNED * ALIGNED)
        && !piece.is_empty()
    {
        piece.copy_from_slice(&rest[..piece.len()]);
        match file.write(piece) {
            Ok(written @ 1..) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    fcntl_setfl(&*file, flags)?;
    file.write_all(rest)
}

#[cfg(not(target_os = "linux"))]
fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(folder).map(|meta| (meta.dev(), meta.ino()))
}

/// Makes a folder and those above it, each flushed into the one that holds it.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made?,
    }
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_object_appears_whole_and_is_never_replaced() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("new/repository")).unwrap();
        assert_eq!(folder.create("a/b/c", b"one").unwrap(), Created::New);
        assert_eq!(folder.create("a/b/c", b"two").unwrap(), Created::Existed);
        assert_eq!(fs::read(folder.root().join("a/b/c")).unwrap(), b"one");
        folder.replace("a/b/c", b"three").unwrap();
        folder.replace("d/e", b"new").unwrap();
        assert_eq!(fs::read(folder.root().join("a/b/c")).unwrap(), b"three");
        assert!(files(&folder.root().join(TEMPORARY)).is_empty(), "nothing stays behind");
        folder.flush("a/b").unwrap();
        folder.flush("never/was").unwrap();
        // A name that is a folder already, a folder that is a file: failures that leave nothing.
        assert!(folder.replace("a/b", b"x").is_err());
        assert!(folder.create("a/b/c/d", b"x").is_err());
        assert!(files(&folder.root().join(TEMPORARY)).is_empty());
    }

    #[test]
    fn what_died_while_it_wrote_is_swept_and_what_is_being_written_is_not() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let (old, new) = (folder.write(b"half").unwrap(), folder.write(b"half").unwrap());
        let file = File::options().write(true).open(&old).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - 2 * LEFT_BEHIND).unwrap();
        Folder::open(place.path()).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn a_folder_that_was_exchanged_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mount");
        let folder = Folder::open(&path).unwrap();
        folder.is_there().unwrap();
        fs::rename(&path, place.path().join("unmounted")).unwrap();
        assert!(folder.is_there().is_err());
        fs::create_dir(&path).unwrap();
        assert!(folder.is_there().is_err());
    }
}
