//! Where folders go: where they are wanted, or where the server's user can reach them. A clone in
//! `/root` is out of its reach, a home may be read-only, and a socket's path must be short.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use obyra_evidence::{Failure, text};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};

use super::files;
use super::user::{ServerUser, nearest_existing};
use crate::Result;

/// `sun_path` holds 107 bytes and a zero; `/.s.PGSQL.65535` takes 16 of them.
pub(super) const SOCKET_DIR_BYTES_MAX: usize = 107 - 16;

/// Below this, memory is left to others.
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// What a folder is for; decides where it goes when the wanted place cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Fetched programs and cached initdb results.
    Cache,
    /// A persistent cluster.
    Cluster,
}

/// The folder that is used for `wanted`: itself, or a place that the server's user can reach.
///
/// An ordinary user's cluster stays where it is wanted, and fails there if it cannot be written;
/// a cache that cannot be written there moves to the user's folder for temporary files.
pub fn reachable_dir(wanted: &Path, purpose: Purpose) -> Result<PathBuf> {
    let user = ServerUser::choose()?;
    let wanted = std::path::absolute(wanted).map_err(|e| files::failed(wanted, &e))?;
    if user.can_reach(&wanted) && (purpose == Purpose::Cluster || is_writable(&wanted)) {
        return Ok(wanted);
    }
    match (purpose, user.switched) {
        (Purpose::Cache, true) => Ok(PathBuf::from("/var/cache/obyra-db")),
        (Purpose::Cache, false) => Ok(private_root(&user)?.join("cache")),
        (Purpose::Cluster, _) => Ok(refuge(&wanted)),
    }
}

/// Where root's clusters go that the server's user cannot reach in the wanted place.
pub(super) fn refuge(wanted: &Path) -> PathBuf {
    Path::new("/var/lib/obyra-db").join(short_hash(wanted))
}

/// Sixteen digits that stand for a path.
pub(super) fn short_hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of this user alone, with a path short enough for sockets: for temporary clusters, and
/// for the sockets of clusters in deep folders. The server's user may enter but not list it.
pub(super) fn private_root(user: &ServerUser) -> Result<PathBuf> {
    let candidates = [env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    let name = format!("obyra-db-{}", geteuid().as_raw());
    // Below it come `/`, `t-AbCdEf/socket`, and the like.
    let fits = |dir: &&PathBuf| dir.as_os_str().len() + name.len() + 20 <= SOCKET_DIR_BYTES_MAX;
    let found = candidates.iter().filter(fits).find(|dir| is_writable(dir) && user.can_reach(dir));
    let Some(base) = found else {
        let tried = candidates.map(|c| c.display().to_string()).join(", ");
        return Err(Failure::new(text::cluster::NO_TEMPORARY_FOLDER.with("tried", tried))
            .mended_by(text::cluster::NO_TEMPORARY_FOLDER_MEND));
    };
    own_folder(&base.join(name), user)
}

/// The same in memory, if there is plenty. Besides being slow, some file systems get slower with
/// every file that was removed in the last minutes, and tests remove thousands.
pub(super) fn memory_root(user: &ServerUser) -> Result<Option<PathBuf>> {
    let base = Path::new("/dev/shm");
    let Ok(shared) = rustix::fs::statvfs(base) else { return Ok(None) };
    let roomy = shared.f_bavail.saturating_mul(shared.f_frsize).min(available_memory()) >= MEMORY_BYTES_MIN;
    if !roomy || !is_writable(base) || !user.can_reach(base) {
        return Ok(None);
    }
    own_folder(&base.join(format!("obyra-db-{}", geteuid().as_raw())), user).map(Some)
}

/// In bytes; 0 if unknown.
fn available_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The same below a folder that was chosen for it, which is made if it is absent.
pub(super) fn own_root(parent: &Path, user: &ServerUser) -> Result<PathBuf> {
    let parent = std::path::absolute(parent).map_err(|e| files::failed(parent, &e))?;
    files::make_dir(&parent, 0o755)?;
    if !user.can_reach(&parent) {
        let what = text::cluster::OUT_OF_REACH.with("path", parent.display()).with("user", &user.name);
        return Err(Failure::refused(what).mended_by(text::cluster::OUT_OF_REACH_MEND));
    }
    own_folder(&parent.join(format!("obyra-db-{}", geteuid().as_raw())), user)
}

/// A folder of this user alone in a place that is everyone's.
fn own_folder(root: &Path, user: &ServerUser) -> Result<PathBuf> {
    files::make_dir(root, if user.switched { 0o711 } else { 0o700 })?;
    // The name can be guessed: someone else may have made it first.
    let metadata = fs::symlink_metadata(root).map_err(|e| files::failed(root, &e))?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(Failure::refused(text::cluster::NOT_PRIVATE.with("path", root.display()))
            .mended_by(text::cluster::NOT_PRIVATE_MEND));
    }
    Ok(root.to_path_buf())
}

/// Whether this process may make files there, or make the folder first.
fn is_writable(path: &Path) -> bool {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, nearest_existing(path), access, AtFlags::EACCESS).is_ok()
}
