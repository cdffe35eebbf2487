//! The folder `obyra-db` in a server's `pg_wal`: segments that were fetched before recovery asked for them,
//! and marks of what was archived before the server asked for it.
//!
//! It is of use only. Whatever is wrong with it, the work is done without it; base backups leave it out, as
//! all of `pg_wal`.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, text};

use super::pages::{LONG_HEADER, SegmentHeader};
use crate::Result;

const FOLDER: &str = "obyra-db";
const MARK: &str = ".pushed";

/// The spool of a `pg_wal`.
#[derive(Clone, Debug)]
pub struct Spool {
    wal: PathBuf,
    folder: PathBuf,
}

impl Spool {
    /// Of this `pg_wal`. It is made when something is put there.
    pub fn of(wal: &Path) -> Spool {
        Spool { wal: wal.to_owned(), folder: wal.join(FOLDER) }
    }

    /// The files that wait to be archived behind one, in their order, so many at most. Also forgets the
    /// marks of those that wait no longer.
    pub fn ready_after(&self, name: &str, max: usize) -> Vec<String> {
        let status = self.wal.join("archive_status");
        for marked in names(&self.folder).iter().filter_map(|file| file.strip_suffix(MARK)) {
            if !status.join(format!("{marked}.ready")).exists() {
                let _ = fs::remove_file(self.mark_of(marked));
            }
        }
        let mut ready: Vec<String> = names(&status)
            .into_iter()
            .filter_map(|file| Some(file.strip_suffix(".ready")?.to_owned()))
            .filter(|file| file.as_str() > name && !self.mark_of(file).exists())
            .collect();
        ready.sort_unstable();
        ready.truncate(max);
        ready
    }

    /// Marks that a file is archived.
    pub fn mark(&self, name: &str, mark: &str) {
        // Without the mark it is archived once more, and found to be there.
        let _ = fs::create_dir(&self.folder);
        let _ = fs::write(self.mark_of(name), mark);
    }

    /// Whether a file is marked so; then the mark is taken away.
    pub fn take_mark(&self, name: &str, mark: &str) -> bool {
        let path = self.mark_of(name);
        let marked = fs::read_to_string(&path).is_ok_and(|found| found == mark);
        let _ = fs::remove_file(&path);
        marked
    }

    /// Where a segment is kept for later; the folder is made.
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(not_written(&path, &error)),
            _ => Ok(path),
        }
    }

    /// Whether a segment is kept.
    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Moves a kept segment to where it is wanted; says whether there was one, of this cluster.
    pub fn take(&self, name: &str, is_right: impl Fn(&SegmentHeader) -> bool, to: &Path) -> bool {
        let path = self.folder.join(name);
        let mut first = [0; LONG_HEADER];
        let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut first));
        let right = read.is_ok() && SegmentHeader::read(&first).is_some_and(|header| is_right(&header));
        if right && fs::rename(&path, to).is_ok() {
            return true;
        }
        let _ = fs::remove_file(&path);
        false
    }

    /// Throws away the kept segments: recovery is at the end of what there is, or somewhere else.
    pub fn clear(&self) {
        for name in names(&self.folder).iter().filter(|name| !name.ends_with(MARK)) {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    fn mark_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{MARK}"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes a file whole or not at all, and durably.
pub fn write(path: &Path, content: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<()> {
    let failed = |error: &io::Error| not_written(path, error);
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary).map_err(|e| failed(&e))?;
    content(&mut file)?;
    file.sync_all().map_err(|e| failed(&e))?;
    fs::rename(&temporary, path).map_err(|e| failed(&e))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&e))
}

/// The failure to write a file.
pub fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::new(text::backup::WAL_FILE_NOT_WRITTEN.with("file", path.display())).because(error)
}
