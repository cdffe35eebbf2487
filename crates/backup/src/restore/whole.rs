//! The whole cluster into a folder, in which its owner then starts a server that recovers by itself.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use obyra_evidence::{Failure, Message, Progress, text};
use obyra_postgres::wal::{SegmentName, WalFileName};
use tokio::task::spawn_blocking;

use super::control::{self, Control};
use super::coverage::Coverage;
use super::files::{self, Restore, Written, panicked};
use super::place::{Into, Place, State, failed};
use super::plan::Plan;
use super::recovery::{self, Configured, Recovery};
use super::target::Stop;
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::layout::ClusterId;

/// `XLOG_BLCKSZ`.
const PAGE: u64 = 8192;

/// What is restored, and where.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster in it.
    pub cluster: ClusterId,
    /// What was planned.
    pub plan: &'a Plan,
    /// The archive that it was planned with.
    pub coverage: &'a Coverage,
    /// Where.
    pub destination: &'a Into,
    /// How the server recovers.
    pub recovery: &'a Recovery,
    /// Whether WAL in the folder may be lost that is not in the archive.
    pub discard_wal: bool,
    /// Threads that restore.
    pub threads: usize,
}

/// A restore that can begin.
pub struct Ready {
    /// The folder, and what will be removed there.
    pub place: Place,
    /// What should be known before.
    pub notes: Vec<Message>,
    restore: Restore,
}

impl Whole<'_> {
    /// Looks at the folder and at the backup's configuration; changes nothing.
    pub async fn look(&self) -> Result<Ready> {
        let manifest = Manifest::read(self.repository, self.cluster, &self.plan.backup.id).await?;
        let manifest = Arc::new(manifest);
        let place = self.place(&manifest).await?;
        let read = async |path| files::read(self.repository, self.cluster, &manifest, path).await;
        let auto = read(recovery::AUTO).await?.map(|auto| String::from_utf8_lossy(&auto).into_owned());
        let control = read(control::PATH).await?;
        let control = control.as_deref().and_then(Control::parse);
        let has_main = manifest.files.iter().any(|file| file.path == recovery::MAIN);
        let configured = Configured { auto: auto.as_deref(), has_main, control: control.as_ref() };
        let small = self.recovery.files(self.plan, &configured);
        let mut notes = self.plan.notes.clone();
        notes.extend(place.tablespaces.iter().map(|mapped| {
            text::backup::RESTORE_TABLESPACE_GOES
                .with("oid", mapped.oid)
                .with("was", &mapped.was)
                .with("folder", mapped.folder.display())
        }));
        if !place.removed.is_empty() {
            notes.push(text::backup::RESTORE_REMOVES.with("count", place.removed.len()));
        }
        if !has_main {
            notes.push(text::backup::RESTORE_CONFIGURATION_ELSEWHERE.message());
        }
        if let Some(file) = self.unarchived(&place).await? {
            notes.push(self.about_unarchived(&place, &file)?);
        }
        let restore = Restore {
            repository: self.repository.clone(),
            cluster: self.cluster,
            manifest,
            place: place.clone(),
            small,
            threads: self.threads,
            databases: None,
        };
        Ok(Ready { place, notes, restore })
    }

    async fn place(&self, manifest: &Arc<Manifest>) -> Result<Place> {
        let (manifest, destination) = (manifest.clone(), self.destination.clone());
        let look = move || Place::look(&manifest, &destination);
        spawn_blocking(look).await.map_err(panicked).flatten()
    }

    /// A file of WAL in the folder with something in it that the archive does not have.
    async fn unarchived(&self, place: &Place) -> Result<Option<String>> {
        if place.state != State::Cluster {
            return Ok(None);
        }
        let (folder, coverage) = (place.data.join("pg_wal"), self.coverage.clone());
        let (size, begin) = (coverage.index.size(), self.plan.replay.from);
        let look = move || {
            let mut found: Vec<String> = Vec::new();
            for entry in fs::read_dir(&folder).map_err(|e| failed(&folder, &e))? {
                let path = entry.map_err(|e| failed(&folder, &e))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if let Some(WalFileName::Segment(segment)) = WalFileName::parse(&name, size)
                    // Nobody replays what is older than the backup.
                    && segment.end(size) > begin
                    && has_more(&coverage, segment, &path).map_err(|e| failed(&path, &e))?
                {
                    found.push(name);
                }
            }
            Ok(found.into_iter().min())
        };
        spawn_blocking(look).await.map_err(panicked).flatten()
    }

    /// For a restore to the end of the log it would be a loss, and is refused; for any other it is told.
    fn about_unarchived(&self, place: &Place, file: &str) -> Result<Message> {
        let path = place.data.join("pg_wal").join(file);
        let what = text::backup::RESTORE_WAL_NOT_ARCHIVED.with("file", path.display());
        if self.plan.stop != Stop::End || self.discard_wal {
            return Ok(what);
        }
        let mend = text::backup::RESTORE_WAL_NOT_ARCHIVED_MEND.with("file", path.display());
        Err(Failure::refused(what).mended_by(mend))
    }
}

impl Ready {
    /// Restores. The folder's owner starts the server.
    pub async fn run(self, progress: &dyn Progress) -> Result<Written> {
        self.restore.run(progress).await
    }
}

/// Whether a segment on the disk goes on where the archive ends: its next page was written for that
/// position, and is not what a recycled file had there before.
fn has_more(coverage: &Coverage, segment: SegmentName, path: &Path) -> io::Result<bool> {
    let size = coverage.index.size();
    let start = segment.start(size);
    let archived = coverage.reach(segment.timeline, start);
    if archived >= segment.end(size) {
        return Ok(false);
    }
    let ends = archived.bytes_since(start);
    let (page_at, known) = (ends / PAGE * PAGE, (ends % PAGE) as usize);
    let mut page = [0; PAGE as usize];
    match fs::File::open(path)?.read_exact_at(&mut page, page_at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    let address = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| page[at]));
    let is_current = page[1] == 0xD1 && address == start.0 + page_at;
    Ok(is_current && page[known..].iter().any(|byte| *byte != 0))
}
