//! A backup over the replication protocol: the server sends its files as archives, and nothing is installed
//! beside it
//! (<https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP>).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, Tablespace as Announced, TarEntries, TarEntry, TarEvent,
    TarKind, Walsender,
};
use obyra_postgres::wal::Lsn;

use super::intake::{Incoming, Intake};
use super::label::Label;
use super::pipeline::{Shared, stopped};
use super::server::Server;
use super::stage::{Ended, Stage};
use crate::Result;
use crate::repository::manifest::{Directory, Source, Tablespace};

/// Files that tell recovery where to begin: they go into the header, word for word.
const LABEL: &str = "backup_label";
const TABLESPACE_MAP: &str = "tablespace_map";
/// More than any of the two has.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// A replication connection to a cluster.
pub(super) struct Protocol {
    walsender: Walsender,
    pub(super) server: Server,
}

impl Protocol {
    pub(super) async fn connect(target: &Conninfo) -> Result<Protocol> {
        let mut walsender = Walsender::connect(target).await?;
        let server = Server::of_walsender(&mut walsender).await?;
        Ok(Protocol { walsender, server })
    }

    /// Takes the backup's files.
    pub(super) async fn take(mut self, stage: &Stage<'_>) -> Result<(Arc<Shared>, Ended)> {
        let options = BaseBackupOptions {
            label: stage.label(),
            checkpoint: stage.options.checkpoint,
            estimate_sizes: true,
            manifest: false,
            max_rate_kb: stage.options.rate_max.map(kilobytes),
            // Every page's checksum is verified here, and a wrong one named by its block.
            verify_checksums: false,
            ..BaseBackupOptions::default()
        };
        stage.progress.begin(text::backup::TAKE_CHECKPOINT.message(), None);
        let begun = begin(&mut self.walsender, &options).await;
        stage.progress.done();
        let (mut backup, start) = begun?;
        stage.progress.begin(text::backup::TAKE_READING.message(), start.total());
        let taken =
            stage.drive(start.lsn, None, async |intake| Archives::new(intake).read(&mut backup).await).await;
        stage.progress.done();
        let (shared, received) = taken?;
        self.walsender.close().await;
        let label = received.label.ok_or_else(|| Failure::new(text::backup::TAKE_LABEL_MALFORMED))?;
        let begins = Label::parse(&label)?;
        let ended = Ended {
            source: if self.server.in_recovery { Source::ProtocolStandby } else { Source::Protocol },
            start: begins.start,
            timeline: begins.timeline,
            stop: received.stop,
            backup_label: label,
            tablespace_map: received.tablespace_map,
            tablespaces: start.tablespaces(),
            complaint: received.complaint,
        };
        Ok((shared, ended))
    }
}

/// The server's unit, within its limits.
fn kilobytes(bytes_per_second: u64) -> u32 {
    u32::try_from(bytes_per_second / 1024).unwrap_or(u32::MAX).clamp(32, 1 << 20)
}

/// What the server says before the first archive.
struct Start {
    lsn: Lsn,
    announced: Vec<Announced>,
}

impl Start {
    fn total(&self) -> Option<u64> {
        self.announced.iter().map(|tablespace| tablespace.size_estimate).sum()
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        let of = |one: &Announced| Some(Tablespace { oid: one.oid?, location: one.location.clone() });
        let mut tablespaces: Vec<Tablespace> = self.announced.iter().filter_map(of).collect();
        tablespaces.sort_by_key(|tablespace| tablespace.oid);
        tablespaces
    }
}

/// The checkpoint is written when this returns.
async fn begin<'a>(
    walsender: &'a mut Walsender,
    options: &BaseBackupOptions,
) -> Result<(BaseBackup<'a>, Start)> {
    let mut backup = walsender.base_backup(options).await?;
    let mut started = None;
    loop {
        match backup.next().await? {
            Some(BackupEvent::Started { lsn, .. }) => started = Some(lsn),
            Some(BackupEvent::Tablespaces(announced)) => {
                let lsn = started.ok_or_else(stopped)?;
                return Ok((backup, Start { lsn, announced }));
            }
            _ => return Err(stopped()),
        }
    }
}

/// What came besides the files.
#[derive(Default)]
struct Received {
    stop: Lsn,
    label: Option<String>,
    tablespace_map: Option<String>,
    complaint: Option<String>,
}

/// The archives, on their way into the pipeline.
struct Archives<'a, 'b> {
    intake: &'a mut Intake<'b>,
    /// Before the names of the archive's entries: nothing, or `pg_tblspc/<oid>/`.
    prefix: String,
    entry: Option<Entry>,
    received: Received,
}

/// The file whose data comes.
enum Entry {
    /// It goes into the pipeline, extent by extent.
    Streamed { file: Incoming, extent: u32, missing: usize },
    /// It is kept here.
    Small { path: String, bytes: Vec<u8> },
}

impl<'a, 'b> Archives<'a, 'b> {
    fn new(intake: &'a mut Intake<'b>) -> Self {
        Archives { intake, prefix: String::new(), entry: None, received: Received::default() }
    }

    async fn read(mut self, backup: &mut BaseBackup<'_>) -> Result<Received> {
        let mut archive: Option<TarEntries> = None;
        while let Some(event) = backup.next().await? {
            match event {
                BackupEvent::ArchiveBegin { tablespace, .. } => {
                    self.end(archive.replace(TarEntries::new()))?;
                    self.prefix = tablespace.map_or_else(String::new, |oid| format!("pg_tblspc/{oid}/"));
                }
                BackupEvent::ArchiveData(bytes) => {
                    self.data(archive.as_mut().ok_or_else(stopped)?, bytes).await?;
                }
                BackupEvent::Finished { lsn, corrupt, warnings, .. } => {
                    self.end(archive.take())?;
                    self.received.stop = lsn;
                    self.received.complaint = corrupt.or_else(|| warnings.into_iter().next());
                }
                _ => {}
            }
        }
        Ok(self.received)
    }

    /// An archive is complete, and its last entry with it.
    fn end(&mut self, archive: Option<TarEntries>) -> Result<()> {
        self.complete()?;
        archive.map_or(Ok(()), TarEntries::finish)
    }

    async fn data(&mut self, archive: &mut TarEntries, bytes: Bytes) -> Result<()> {
        archive.feed(bytes);
        while let Some(event) = archive.next()? {
            match event {
                TarEvent::Entry(entry) => {
                    self.complete()?;
                    self.begin(&entry).await?;
                }
                TarEvent::Data(bytes) => self.bytes(bytes).await?,
            }
        }
        Ok(())
    }

    async fn begin(&mut self, entry: &TarEntry) -> Result<()> {
        let Some(name) = name_of(&entry.path) else {
            self.intake.note(text::backup::TAKE_ODD_NAME.with("path", entry.path.display()));
            return Ok(());
        };
        if name.is_empty() {
            return Ok(());
        }
        let path = format!("{}{name}", self.prefix);
        let mode = entry.mode & 0o7777;
        match entry.kind {
            TarKind::Directory => self.intake.directories(vec![Directory { path, mode }]),
            // Of tablespaces: the restore makes them anew.
            TarKind::Symlink(_) => {}
            TarKind::File if path == LABEL || path == TABLESPACE_MAP => {
                if entry.size > SMALL_BYTES_MAX {
                    return Err(Failure::new(text::backup::TAKE_LABEL_MALFORMED));
                }
                self.entry = Some(Entry::Small { path, bytes: Vec::new() });
            }
            TarKind::File => {
                let file = self.intake.file(&path, mode, entry.size);
                let missing = Intake::length(&file, 0);
                if missing > 0 {
                    self.intake.begin(missing).await?;
                    self.entry = Some(Entry::Streamed { file, extent: 0, missing });
                }
            }
        }
        Ok(())
    }

    async fn bytes(&mut self, mut bytes: Bytes) -> Result<()> {
        let (file, extent, missing) = match &mut self.entry {
            Some(Entry::Streamed { file, extent, missing }) => (file, extent, missing),
            Some(Entry::Small { bytes: kept, .. }) => {
                kept.extend_from_slice(&bytes);
                return Ok(());
            }
            None => return Ok(()),
        };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(*missing));
            self.intake.buffer().extend_from_slice(&piece);
            *missing -= piece.len();
            if *missing == 0 {
                self.intake.extent(file, *extent).await?;
                *extent += 1;
                *missing = Intake::length(file, *extent);
                if *missing == 0 {
                    self.entry = None;
                    return Ok(());
                }
                self.intake.begin(*missing).await?;
            }
        }
        Ok(())
    }

    /// The entry before this one is complete: the archive's reader counts its bytes.
    fn complete(&mut self) -> Result<()> {
        match self.entry.take() {
            Some(Entry::Small { path, bytes }) => {
                let text = String::from_utf8(bytes);
                let text = text.map_err(|e| Failure::new(text::backup::TAKE_LABEL_MALFORMED).because(e))?;
                if path == LABEL {
                    self.received.label = Some(text);
                } else {
                    self.received.tablespace_map = Some(text);
                }
                Ok(())
            }
            Some(Entry::Streamed { .. }) => Err(stopped()),
            None => Ok(()),
        }
    }
}

/// PostgreSQL's names are text; `None` if this one is not.
fn name_of(path: &Path) -> Option<&str> {
    path.to_str().map(|name| name.trim_start_matches("./").trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_stay_within_the_servers_limits() {
        assert_eq!([1, 1 << 20, u64::MAX].map(kilobytes), [32, 1024, 1 << 20]);
    }
}
