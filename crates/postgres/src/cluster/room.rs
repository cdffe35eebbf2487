//! The folder of a temporary cluster: ours while we live, and swept by the next one's start if we
//! were killed. The kernel lets go of its lock for us, however we end.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files;
use super::layout::Layout;
use super::lock::FileLock;
use super::places::{memory_root, private_root};
use super::server::{self, Stop};
use super::user::ServerUser;
use crate::Result;

/// What the names of these folders begin with.
const PREFIX: &str = "t-";

/// Beside them: held while one and its own lock come to be, lest it be swept in between.
const CLAIMING: &str = "lock";

/// A folder that is removed with this value.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) layout: Layout,
    _owner: FileLock,
}

impl Room {
    /// Makes one, and sweeps those whose owners died.
    pub(super) async fn claim(user: &ServerUser, in_memory: bool) -> Result<Room> {
        let root = || {
            let memory = if in_memory { memory_root(user)? } else { None };
            memory.map_or_else(|| private_root(user), Ok)
        };
        Room::claim_in(user, root).await
    }

    /// The same in a folder that may go while we look at it.
    pub(super) async fn claim_in(user: &ServerUser, root: impl Fn() -> Result<PathBuf>) -> Result<Room> {
        let (room, dead) = loop {
            let root = root()?;
            match FileLock::acquire(&root.join(CLAIMING)).await {
                Ok(_claiming) => break (Room::make(&root)?, dead(&root)),
                // The last of another process's clusters went, and the folder of all with it.
                Err(_) if !root.exists() => {}
                Err(failure) => return Err(failure),
            }
        };
        for (layout, _owner) in dead {
            // What cannot be stopped now is left to the next start.
            if server::stop(&layout, user, Stop::Immediate).await.is_ok() {
                remove(&layout);
            }
        }
        Ok(room)
    }

    fn make(root: &Path) -> Result<Room> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(root);
        let layout = Layout::new(made.map_err(|e| files::failed(root, &e))?.keep());
        files::set_mode(&layout.root, 0o711)?;
        let owner = FileLock::try_acquire(&layout.lock())?;
        let owner = owner.ok_or_else(|| files::failed(&layout.root, &ErrorKind::ResourceBusy.into()))?;
        Ok(Room { layout, _owner: owner })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove(&self.layout);
        if let Some(root) = self.layout.root.parent() {
            tidy(root);
        }
    }
}

/// Those whose owners died, with their locks. One without a lock was at the end of its removal.
fn dead(root: &Path) -> Vec<(Layout, FileLock)> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let rooms = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let mut dead = Vec::new();
    for layout in rooms.map(|entry| Layout::new(entry.path())) {
        if let Some(owner) = FileLock::try_take_over(&layout.lock()) {
            dead.push((layout, owner));
        } else if !layout.lock().exists() && !layout.data().exists() {
            let _ = files::remove_tree(&layout.root);
        }
    }
    dead
}

/// Removes a room, its lock last. What cannot be removed now is left to the next start.
fn remove(layout: &Layout) {
    let _ = files::remove_tree(&layout.data());
    let _ = files::remove_tree(&layout.root);
}

/// Removes the folder of all rooms if this was the last.
fn tidy(root: &Path) {
    let lock = root.join(CLAIMING);
    let Some(_claiming) = FileLock::try_take_over(&lock) else { return };
    let is_last = fs::read_dir(root).is_ok_and(|entries| entries.count() == 1);
    if is_last && files::remove(&lock).is_ok() {
        let _ = fs::remove_dir(root);
    }
}
