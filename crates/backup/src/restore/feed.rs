//! Lays WAL down for a recovering server just before it asks for it.
//!
//! The server's `restore_command` is a few lines of shell that copy a file from a folder, or wait until this
//! program has put it there or said that the archive has none. So the next segments are fetched and opened
//! while the server replays, no credential leaves this process, and a store that cannot be reached ends
//! recovery instead of looking like the end of the log.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use obyra_evidence::Failure;
use obyra_postgres::wal::{SegmentName, WalFileName, WalSegmentSize};
use tokio::task::JoinHandle;

use super::place::failed;
use crate::Result;
use crate::repository::Repository;
use crate::repository::layout::ClusterId;
use crate::wal::{self, Archive};

/// Segments that are laid down before they are asked for.
const AHEAD: u64 = 4;
/// Between two looks at what is asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What the server runs. The process that lays the files down may belong to another user: then only /proc
/// tells whether it lives.
const SCRIPT: &str = r#"# By obyra-db: copies a file of the WAL archive, or waits until it is there or known to be absent.
file="$1/$2"
: > "$file.wanted" || exit 255
while kill -0 "$4" 2>/dev/null || [ -d "/proc/$4" ]; do
    if [ -e "$file.here" ]; then exec cp "$file.here" "$3"; fi
    if [ -e "$file.absent" ]; then rm -f "$file.absent"; exit 1; fi
    if [ -e "$1/failed" ]; then exit 255; fi
    sleep 0.02
done
exit 255
"#;

/// Feeds one server. Stops with this value.
#[derive(Debug)]
pub(crate) struct Feeder {
    folder: PathBuf,
    task: JoinHandle<()>,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Feeder {
    /// Begins; the folder is the server's user's.
    pub fn start(
        repository: &Repository,
        cluster: ClusterId,
        size: WalSegmentSize,
        folder: PathBuf,
    ) -> Result<Feeder> {
        lay(&folder, "script", SCRIPT.as_bytes())?;
        let feed = Feed { archive: Archive::new(repository, cluster), size, folder: folder.clone() };
        let failure = Arc::new(Mutex::new(None));
        let slot = failure.clone();
        let task = tokio::spawn(async move {
            // A folder that is gone went with its server, which has a reason of its own.
            if let Err(failure) = feed.run().await
                && feed.folder.is_dir()
            {
                // Without this file the server would wait for ever.
                let _ = lay(&feed.folder, "failed", b"");
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        });
        Ok(Feeder { folder, task, failure })
    }

    /// The `restore_command`.
    pub fn command(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
        let (script, folder) = (quoted(&self.folder.join("script")), quoted(&self.folder));
        let ours = format!("sh {script} {folder}").replace('%', "%%");
        format!("{ours} %f \"%p\" {}", std::process::id())
    }

    /// Why it stopped, if it did: a better reason than the server's.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Feed {
    archive: Archive,
    size: WalSegmentSize,
    folder: PathBuf,
}

impl Feed {
    async fn run(&self) -> Result<()> {
        loop {
            for name in self.wanted()? {
                self.serve(&name).await?;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The names of the files that are asked for.
    fn wanted(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder).map_err(|e| failed(&self.folder, &e))?;
        let mut wanted = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed(&self.folder, &e))?;
            if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".wanted")) {
                wanted.push(name.to_owned());
            }
        }
        Ok(wanted)
    }

    async fn serve(&self, name: &str) -> Result<()> {
        let Some(file) = WalFileName::parse(name, self.size) else {
            self.answer(name, None)?;
            return self.forget(name);
        };
        if !self.folder.join(format!("{name}.here")).exists() {
            let found = self.fetch(file).await?;
            self.answer(name, found.as_deref())?;
        }
        self.forget(name)?;
        let WalFileName::Segment(segment) = file else { return Ok(()) };
        self.tidy(segment)?;
        // Only whole segments: what is a part now may be more when it is asked for.
        let mut next = segment;
        for _ in 0..AHEAD {
            next = next.next();
            let name = next.file_name(self.size);
            if self.folder.join(format!("{name}.here")).exists() {
                continue;
            }
            if !self.wanted()?.is_empty() {
                return Ok(());
            }
            // What fails here is told when it is asked for, if it ever is.
            match self.archive.get_segment(next, self.size).await {
                Ok(Some(bytes)) => self.answer(&name, Some(&bytes))?,
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// A file as the server wants it: of a segment that is not complete, what there is, and zeros.
    async fn fetch(&self, file: WalFileName) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.archive.get_file(file, self.size).await? {
            return Ok(Some(bytes.to_vec()));
        }
        let WalFileName::Segment(segment) = file else { return Ok(None) };
        wal::unfinished(&self.archive, segment, self.size).await
    }

    fn answer(&self, name: &str, found: Option<&[u8]>) -> Result<()> {
        match found {
            Some(bytes) => lay(&self.folder, &format!("{name}.here"), bytes),
            None => lay(&self.folder, &format!("{name}.absent"), b""),
        }
    }

    fn forget(&self, name: &str) -> Result<()> {
        remove(&self.folder.join(format!("{name}.wanted")))
    }

    /// Removes what the server has had, but for the last one: it may ask again, and then gets it again.
    fn tidy(&self, current: SegmentName) -> Result<()> {
        let Some(number) = current.number.checked_sub(2) else { return Ok(()) };
        let old = SegmentName { number, ..current };
        remove(&self.folder.join(format!("{}.here", old.file_name(self.size))))
    }
}

/// Writes a file whole or not at all, for others to read: the folder is closed to strangers.
fn lay(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, fresh) = (folder.join(name), folder.join("being-laid"));
    let written = || -> io::Result<()> {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644).custom_flags(no_follow);
        let mut file = options.open(&fresh)?;
        file.write_all(bytes)?;
        fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        fs::rename(&fresh, &path)
    };
    written().map_err(|e| failed(&path, &e))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}
