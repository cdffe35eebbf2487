//! The cached result of initdb that temporary clusters are copied from.
//!
//! All copies share one system identifier and one superuser password; that is why persistent
//! clusters are never made this way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use secrecy::SecretString;

use super::install::Installation;
use super::layout::Layout;
use super::lock::FileLock;
use super::places::{Purpose, reachable_dir, short_hash};
use super::user::ServerUser;
use super::{files, initdb};
use crate::Result;

/// Files from this size on are looked through for zeros: of the first segment of WAL, nine tenths are.
const HOLES_FROM: u64 = 1 << 20;
const BLOCK: usize = 64 << 10;

/// Written last: how many files and bytes the data folder has.
const SEAL: &str = "complete";

/// Copies a cached data folder to `target`, making it first if the cache has none or a damaged one;
/// returns the superuser's password.
pub(super) async fn copy_to(
    target: &Path,
    installation: &Installation,
    cache: &Path,
    user: &ServerUser,
) -> Result<SecretString> {
    let home = reachable_dir(cache, Purpose::Cache)?.join("initdb");
    files::make_dir(&home, 0o755)?;
    let name = name(installation, user);
    let template = Layout::new(home.join(&name));
    if let Some(password) = copy(&template, target, user).await? {
        return Ok(password);
    }
    let _lock = FileLock::acquire(&home.join(format!("{name}.lock"))).await?;
    // Another process may have made it while we waited.
    if let Some(password) = copy(&template, target, user).await? {
        return Ok(password);
    }
    let fresh = Layout::new(home.join(format!("{name}.new")));
    files::make_dir(&fresh.root, 0o755)?;
    initdb::ensure(&fresh, installation, user).await?;
    let census = files::census(&fresh.data()).map_err(|e| files::failed(&fresh.root, &e))?;
    files::write(&fresh.root.join(SEAL), &sealed(census), 0o644)?;
    files::remove_tree(&template.root)?;
    files::rename(&fresh.root, &template.root)?;
    let copied = copy(&template, target, user).await?;
    copied.ok_or_else(|| files::failed(&template.root, &io::Error::from(io::ErrorKind::InvalidData)))
}

/// Whatever makes two data folders differ is in the name.
fn name(installation: &Installation, user: &ServerUser) -> String {
    let shape = format!("{} {}", installation.bin_dir.display(), initdb::OPTIONS.join(" "));
    let users = format!("{}-{}", geteuid().as_raw(), user.uid);
    format!("{}-{}-{users}", installation.version, short_hash(Path::new(&shape)))
}

fn sealed((count, bytes): (u64, u64)) -> String {
    format!("{count} files, {bytes} bytes\n")
}

/// Copies the template; `None`, and nothing at `target`, if it is absent or not whole.
async fn copy(template: &Layout, target: &Path, user: &ServerUser) -> Result<Option<SecretString>> {
    let Some(seal) = files::read(&template.root.join(SEAL))? else { return Ok(None) };
    let Some(password) = files::read_secret(&template.password())? else { return Ok(None) };
    let (from, to, user): (PathBuf, PathBuf, _) = (template.data(), target.to_path_buf(), user.clone());
    let copied = tokio::task::spawn_blocking(move || copy_tree(&from, &to, &user)).await;
    match copied.map_err(io::Error::other).flatten() {
        Ok(census) if sealed(census) == seal => Ok(Some(password)),
        // Files are missing; or another process is replacing it at this moment.
        Ok(_) => files::remove_tree(target).map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => files::remove_tree(target).map(|()| None),
        Err(error) => Err(files::failed(target, &error)),
    }
}

/// Copies a folder, owned by the server's user; shares blocks where the file system can. Links are
/// not followed: the template's folder belongs to that user, and root copies it.
fn copy_tree(from: &Path, to: &Path, user: &ServerUser) -> io::Result<(u64, u64)> {
    DirBuilder::new().mode(0o700).create(to)?;
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            let (f, b) = copy_tree(&entry.path(), &target, user)?;
            files += f;
            bytes += b;
        } else {
            files += 1;
            bytes += copy_file(&entry.path(), &target, user)?;
        }
    }
    if let Some((uid, gid)) = user.owner() {
        lchown(to, Some(uid), Some(gid))?;
    }
    Ok((files, bytes))
}

/// Copies the blocks that hold something; the others read as zeros where nothing was written.
fn copy_with_holes(source: &mut File, target: &mut File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < length {
        let held = BLOCK.min(usize::try_from(length - at).unwrap_or(BLOCK));
        source.read_exact(&mut block[..held])?;
        if block[..held].iter().any(|byte| *byte != 0) {
            target.write_all_at(&block[..held], at)?;
        }
        at += held as u64;
    }
    target.set_len(length)?;
    Ok(length)
}

fn copy_file(from: &Path, to: &Path, user: &ServerUser) -> io::Result<u64> {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    let mut source = OpenOptions::new().read(true).custom_flags(no_follow).open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let bytes = match source.metadata()?.len() {
        length if length >= HOLES_FROM => copy_with_holes(&mut source, &mut target, length)?,
        _ => io::copy(&mut source, &mut target)?,
    };
    if let Some((uid, gid)) = user.owner() {
        fchown(&target, Some(uid), Some(gid))?;
    }
    Ok(bytes)
}
