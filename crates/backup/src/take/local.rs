//! A backup from the data directory, on the database host: read in parallel between the server's word that
//! the backup has begun and its word that it has ended
//! (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP>).

mod control;
mod directory;
mod session;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;

use super::intake::Intake;
use super::label::Label;
use super::pipeline::{Shared, stopped};
use super::server::Server;
use super::stage::{Ended, Stage};
use crate::Result;
use crate::repository::layout::EXTENT_BYTES;
use crate::repository::manifest::{Source, Tablespace};
use crate::wal::{BackupWal, ReservedWal};
use directory::{DataDirectory, Found};
use session::BackupSession;

/// A data directory and the session that tells its server.
pub(super) struct Local {
    session: BackupSession,
    directory: Arc<DataDirectory>,
    pub(super) server: Server,
}

impl Local {
    /// Connects, and makes sure that the directory is that of this server; where it is not given, the server
    /// tells.
    pub(super) async fn connect(target: &Conninfo, directory: Option<&Path>) -> Result<Local> {
        let session = BackupSession::connect(target).await?;
        let server = Server::of_session(session.session()).await?;
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => session.data_directory().await?.into(),
        };
        let found = DataDirectory::new(&directory, server.version.major());
        if found.system_identifier()? != server.system_identifier {
            let what = text::backup::TAKE_OTHER_CLUSTER.with("path", directory.display());
            return Err(Failure::refused(what).mended_by(text::backup::TAKE_OTHER_CLUSTER_MEND));
        }
        Ok(Local { session, directory: Arc::new(found), server })
    }

    /// Takes the backup's files.
    pub(super) async fn take(
        self,
        stage: &Stage<'_>,
        wal: ReservedWal,
    ) -> Result<(Arc<Shared>, Ended, BackupWal)> {
        let waiting = text::backup::TAKE_CHECKPOINT.message();
        stage.progress.begin(waiting, None);
        let started = self.session.begin(&stage.label(), stage.options.checkpoint).await;
        stage.progress.done();
        let (start, timeline) = started?;
        let wal = wal.begin(start, timeline);
        let walk = Walk(self.directory.clone());
        let total = walk.of_disk(DataDirectory::bytes).await?;
        stage.progress.begin(text::backup::TAKE_READING.message(), Some(total));
        let taken = stage
            .drive(start, Some(self.directory.clone()), async |intake| {
                intake.no_faster_than(stage.options.rate_max);
                walk.give_all(intake).await
            })
            .await;
        stage.progress.done();
        let (shared, tablespaces) = taken?;
        let stopped = self.session.end().await?;
        let label = Label::parse(&stopped.backup_label)?;
        let ended = Ended {
            source: Source::Local,
            start: label.start,
            timeline: label.timeline,
            stop: stopped.stop,
            backup_label: stopped.backup_label,
            tablespace_map: stopped.tablespace_map,
            tablespaces,
            complaint: None,
            changed_only: None,
        };
        Ok((shared, ended, wal))
    }
}

/// The way through a data directory.
struct Walk(Arc<DataDirectory>);

impl Walk {
    /// Gives every file, and `pg_control` when all others were read: on a standby it tells how far the WAL
    /// must be replayed for them. Returns the tablespaces.
    async fn give_all(&self, intake: &mut Intake<'_>) -> Result<Vec<Tablespace>> {
        let mut directories = vec![String::new()];
        let mut tablespaces = Vec::new();
        while let Some(directory) = directories.pop() {
            let listing = self.of_disk(move |disk| disk.list(&directory)).await?;
            intake.directories(listing.directories);
            for file in &listing.files {
                give(intake, file).await?;
            }
            for odd in listing.odd {
                intake.note(text::backup::TAKE_ODD_NAME.with("path", odd));
            }
            directories.extend(listing.further.into_iter().rev());
            tablespaces.extend(listing.tablespaces);
        }
        intake.settle().await?;
        give(intake, &self.of_disk(DataDirectory::control).await?).await?;
        tablespaces.sort_by_key(|tablespace| tablespace.oid);
        Ok(tablespaces)
    }

    async fn of_disk<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&DataDirectory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&directory)).await;
        asked.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn give(intake: &mut Intake<'_>, Found { path, mode, size }: &Found) -> Result<()> {
    let file = intake.file(path, *mode, *size);
    for extent in 0..u32::try_from(size.div_ceil(EXTENT_BYTES)).unwrap_or(u32::MAX) {
        intake.extent(&file, extent).await?;
    }
    Ok(())
}
