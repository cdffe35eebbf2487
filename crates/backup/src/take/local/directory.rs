//! A data directory, as it is while a server writes in it: files grow, shrink and vanish.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, text};
use rustix::fs::OFlags;

use super::super::files::{Unlogged, WAL, is_emptied, is_left_out};
use super::super::pipeline::{Contents, Part};
use super::control;
use crate::Result;
use crate::repository::layout::{BLOCK, EXTENT_BYTES};
use crate::repository::manifest::{Directory, Tablespace};

/// Directories of `pg_wal` that the server expects.
const OF_WAL: [&str; 2] = ["pg_wal/archive_status", "pg_wal/summaries"];

/// A data directory.
pub(super) struct DataDirectory {
    root: PathBuf,
    /// Directories of tablespaces that belong to this version of PostgreSQL begin so: `PG_16_`.
    of_version: String,
}

/// What is in one of its directories.
#[derive(Default)]
pub(super) struct Listing {
    /// Those in it that are kept.
    pub(super) directories: Vec<Directory>,
    /// Those to be listed next.
    pub(super) further: Vec<String>,
    pub(super) files: Vec<Found>,
    pub(super) tablespaces: Vec<Tablespace>,
    /// Names that are not text: PostgreSQL has no such files.
    pub(super) odd: Vec<String>,
}

/// A file, as large as it was when it was found.
pub(super) struct Found {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) size: u64,
}

impl DataDirectory {
    pub(super) fn new(root: &Path, major: u32) -> DataDirectory {
        DataDirectory { root: root.to_owned(), of_version: format!("PG_{major}_") }
    }

    /// Lists a directory, given relative to the root; one that vanished is empty.
    pub(super) fn list(&self, directory: &str) -> Result<Listing> {
        let mut listing = Listing::default();
        let entries = match fs::read_dir(self.root.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(self.unreadable(directory, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| self.unreadable(directory, &error))?;
            let Ok(name) = entry.file_name().into_string() else {
                listing.odd.push(entry.path().display().to_string());
                continue;
            };
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            match entry.metadata() {
                Ok(metadata) => self.add(&mut listing, path, &metadata)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.unreadable(&path, &error)),
            }
        }
        let unlogged = Unlogged::among(listing.files.iter().map(|file| file.path.as_str()));
        listing.files.retain(|file| !unlogged.leaves_out(&file.path));
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        listing.further.sort();
        Ok(listing)
    }

    fn add(&self, listing: &mut Listing, path: String, metadata: &fs::Metadata) -> Result<()> {
        let mode = metadata.mode() & 0o7777;
        let kind = metadata.file_type();
        if is_left_out(&path) {
            return Ok(());
        }
        if kind.is_dir() {
            self.add_directory(listing, path, mode);
        } else if kind.is_symlink() {
            self.add_link(listing, path)?;
        } else if kind.is_file() && !path.starts_with("pg_wal/") && path != control::PATH {
            listing.files.push(Found { path, mode, size: metadata.len() });
        }
        Ok(())
    }

    fn add_directory(&self, listing: &mut Listing, path: String, mode: u32) {
        let mut parts = path.split('/');
        let of_tablespace = (parts.next() == Some("pg_tblspc")).then(|| parts.nth(1)).flatten();
        // Clusters of several versions may share the place of a tablespace.
        let foreign = of_tablespace.is_some_and(|name| !name.starts_with(&self.of_version));
        let of_wal = path.starts_with("pg_wal/");
        if foreign || (of_wal && !OF_WAL.contains(&path.as_str())) {
            return;
        }
        if path == WAL || !is_emptied(&path) {
            listing.further.push(path.clone());
        }
        listing.directories.push(Directory { path, mode });
    }

    /// Tablespaces, and directories that somebody moved to another disk; the server follows no other link.
    fn add_link(&self, listing: &mut Listing, path: String) -> Result<()> {
        if let Some(oid) = path.strip_prefix("pg_tblspc/").and_then(|oid| oid.parse().ok()) {
            let location = match fs::read_link(self.root.join(&path)) {
                Ok(location) => location.to_string_lossy().into_owned(),
                // Dropped since it was found, as a file may be.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(self.unreadable(&path, &error)),
            };
            listing.tablespaces.push(Tablespace { oid, location });
            listing.further.push(path);
        } else if is_emptied(&path) {
            if path == WAL {
                listing.further.push(path.clone());
            }
            listing.directories.push(Directory { path, mode: 0o700 });
        }
        Ok(())
    }

    /// What there is to read, in bytes.
    pub(super) fn bytes(&self) -> Result<u64> {
        let mut directories = vec![String::new()];
        let mut bytes = 0;
        while let Some(directory) = directories.pop() {
            let listing = self.list(&directory)?;
            bytes += listing.files.iter().map(|file| file.size).sum::<u64>();
            directories.extend(listing.further);
        }
        Ok(bytes)
    }

    /// `pg_control`.
    pub(super) fn control(&self) -> Result<Found> {
        let metadata = fs::symlink_metadata(self.root.join(control::PATH));
        let metadata = metadata.map_err(|error| self.unreadable(control::PATH, &error))?;
        let (mode, size) = (metadata.mode() & 0o7777, metadata.len());
        Ok(Found { path: control::PATH.to_owned(), mode, size })
    }

    /// The system identifier of `pg_control`.
    pub(super) fn system_identifier(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        let read = self.open(control::PATH).and_then(|file| file.read_exact_at(&mut bytes, 0));
        read.map_err(|error| self.unreadable(control::PATH, &error))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Links are not followed: what lies in the directory belongs to the server's user, and root may read.
    fn open(&self, path: &str) -> io::Result<File> {
        let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(no_follow).open(self.root.join(path))
    }

    fn unreadable(&self, path: &str, error: &io::Error) -> Failure {
        let place = self.root.join(path);
        let failure =
            Failure::new(text::backup::TAKE_UNREADABLE.with("path", place.display())).because(error);
        match error.kind() {
            ErrorKind::PermissionDenied => failure.mended_by(text::backup::TAKE_UNREADABLE_MEND),
            _ => failure,
        }
    }
}

impl Contents for DataDirectory {
    fn read(&self, part: &Part, into: &mut [u8]) -> Result<bool> {
        let failed = |error: &io::Error| self.unreadable(&part.path, error);
        let file = match self.open(&part.path) {
            Ok(file) => file,
            // A link in the place of a file is not the file that was found.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(false);
            }
            Err(error) => return Err(failed(&error)),
        };
        if *part.path == *control::PATH {
            let whole = control::read(&file, into).map_err(|error| failed(&error))?;
            return if whole { Ok(true) } else { Err(Failure::new(text::backup::TAKE_CONTROL_TORN)) };
        }
        let at = u64::from(part.extent) * EXTENT_BYTES;
        let read = read_at(&file, into, at).map_err(|error| failed(&error))?;
        // It was truncated meanwhile, and the WAL knows.
        into[read..].fill(0);
        Ok(true)
    }

    fn again(&self, part: &Part, number: usize, into: &mut [u8]) -> bool {
        let at = u64::from(part.extent) * EXTENT_BYTES + (number * BLOCK) as u64;
        let mut block = [0; BLOCK];
        let Some(block) = block.get_mut(..into.len()) else { return false };
        let read = self.open(&part.path).and_then(|file| file.read_exact_at(block, at));
        if read.is_ok() {
            into.copy_from_slice(block);
        }
        read.is_ok()
    }
}

/// Reads until the buffer is full or the file ends; returns how much.
fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<usize> {
    let wanted = into.len();
    while !into.is_empty() {
        match file.read_at(into, at) {
            Ok(0) => break,
            Ok(read) => {
                into = &mut into[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - into.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_that_is_dropped_meanwhile_is_none() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("pg_tblspc")).unwrap();
        let (directory, mut listing) = (DataDirectory::new(root.path(), 16), Listing::default());
        directory.add_link(&mut listing, "pg_tblspc/16384".to_owned()).unwrap();
        assert!(listing.tablespaces.is_empty() && listing.further.is_empty());
        std::os::unix::fs::symlink("/elsewhere", root.path().join("pg_tblspc/16384")).unwrap();
        directory.add_link(&mut listing, "pg_tblspc/16384".to_owned()).unwrap();
        assert_eq!(listing.tablespaces[0].location, "/elsewhere");
        assert_eq!(listing.further, ["pg_tblspc/16384"]);
    }
}
