//! Locks between processes. The kernel releases them when their holder dies, however it dies, and
//! they hold between containers that share a folder, where process numbers would mean nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use obyra_evidence::{Failure, text};
use tokio::time::{Instant, sleep};

use super::files;
use crate::Result;

/// Longer than any download or shutdown that it protects.
const WAIT_LIMIT: Duration = Duration::from_secs(600);

/// Held until dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, after whoever holds it.
    pub(super) async fn acquire(path: &Path) -> Result<FileLock> {
        let begun = Instant::now();
        loop {
            if let Some(lock) = FileLock::try_acquire(path)? {
                return Ok(lock);
            }
            if begun.elapsed() > WAIT_LIMIT {
                let what = text::cluster::LOCK_BUSY
                    .with("path", path.display())
                    .with("seconds", WAIT_LIMIT.as_secs());
                return Err(Failure::new(what).mended_by(text::cluster::LOCK_BUSY_MEND));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes the lock if nobody holds it.
    pub(super) fn try_acquire(path: &Path) -> Result<Option<FileLock>> {
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = opened.map_err(|e| files::failed(path, &e))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => Ok(Some(FileLock { _file: file })),
            // Its last holder removed it: the one at this path now, if any, is another.
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(files::failed(path, &error)),
        }
    }

    /// The same for a lock that exists already; a failure counts as held.
    pub(super) fn try_take_over(path: &Path) -> Option<FileLock> {
        let file = OpenOptions::new().append(true).open(path).ok()?;
        file.try_lock().ok()?;
        is_at(&file, path).then_some(FileLock { _file: file })
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::acquire(&path).await.unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
    #[tokio::test]
    async fn a_lock_that_its_holder_removed_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(FileLock::try_take_over(&path).is_none());
        let holder = FileLock::acquire(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        drop(holder);
        assert!(FileLock::try_take_over(&path).is_none());
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}
