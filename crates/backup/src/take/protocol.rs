//! A backup over the replication protocol: one stream, cut into the extents that the workers take.
//!
//! The server's own manifest, with a CRC-32C of each file, is held against what arrived.

mod archive;
mod server_manifest;

use std::sync::Arc;

use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, CancelToken, Tablespace as Sent, Walsender,
};
use obyra_postgres::wal::{Lsn, TimelineId};

use super::intake::Intake;
use super::label::Label;
use super::pipeline::Shared;
use super::server::Server;
use super::stage::{Ended, Stage};
use crate::Result;
use crate::repository::manifest::{Source, Tablespace};
use crate::wal::{BackupWal, ReservedWal};
use archive::Archives;
use server_manifest::ServerManifest;

/// What the server takes for its rate, in kB a second.
const RATE_KB: std::ops::RangeInclusive<u64> = 32..=1_048_576;

/// A replication connection for a backup.
pub(super) struct Protocol {
    walsender: Walsender,
    pub(super) server: Server,
}

/// The end of a stream.
struct Received {
    archives: Archives,
    stop: Lsn,
    complaint: Option<String>,
}

impl Protocol {
    pub(super) async fn connect(target: &Conninfo) -> Result<Protocol> {
        let mut walsender = Walsender::connect(target).await?;
        let server = Server::of_walsender(&mut walsender).await?;
        Ok(Protocol { walsender, server })
    }

    /// Takes the backup's files.
    pub(super) async fn take(
        mut self,
        stage: &Stage<'_>,
        wal: ReservedWal,
    ) -> Result<(Arc<Shared>, Ended, BackupWal)> {
        let options = BaseBackupOptions {
            label: stage.label(),
            checkpoint: stage.options.checkpoint,
            estimate_sizes: true,
            max_rate_kb: stage.options.rate_max.map(rate_kb),
            ..BaseBackupOptions::default()
        };
        let waiting = Waiting(Some(self.walsender.cancel_token()));
        stage.progress.begin(text::backup::TAKE_CHECKPOINT.message(), None);
        let begun = begin(&mut self.walsender, &options).await;
        stage.progress.done();
        waiting.over();
        let (mut backup, (start, timeline), tablespaces) = begun?;
        let wal = wal.begin(start, timeline);
        let total = tablespaces.iter().map(|space| space.size_estimate).sum();
        stage.progress.begin(text::backup::TAKE_READING.message(), total);
        let received = stage.drive(start, None, async |intake| receive(&mut backup, intake).await).await;
        stage.progress.done();
        let (shared, Received { archives, stop, complaint }) = received?;
        self.walsender.close().await;
        let (backup_label, tablespace_map) = archives.words()?;
        let label = Label::parse(&backup_label)?;
        let outside = |Sent { oid, location, .. }| Some(Tablespace { oid: oid?, location });
        let source = if self.server.in_recovery { Source::ProtocolStandby } else { Source::Protocol };
        let ended = Ended {
            source,
            start: label.start,
            timeline: label.timeline,
            stop,
            backup_label,
            tablespace_map,
            tablespaces: tablespaces.into_iter().filter_map(outside).collect(),
            complaint,
        };
        Ok((shared, ended, wal))
    }
}

fn rate_kb(bytes_per_second: u64) -> u32 {
    (bytes_per_second / 1024).clamp(*RATE_KB.start(), *RATE_KB.end()) as u32
}

/// Waits for the checkpoint, and for what will be sent.
async fn begin<'w>(
    walsender: &'w mut Walsender,
    options: &BaseBackupOptions,
) -> Result<(BaseBackup<'w>, (Lsn, TimelineId), Vec<Sent>)> {
    let mut backup = walsender.base_backup(options).await?;
    let mut start = None;
    loop {
        match (backup.next().await?, start) {
            (Some(BackupEvent::Started { lsn, timeline }), None) => start = Some((lsn, timeline)),
            (Some(BackupEvent::Tablespaces(tablespaces)), Some(start)) => {
                return Ok((backup, start, tablespaces));
            }
            (Some(BackupEvent::Progress(_)), _) => {}
            _ => return Err(out_of_order()),
        }
    }
}

/// Receives everything.
async fn receive(backup: &mut BaseBackup<'_>, intake: &mut Intake<'_>) -> Result<Received> {
    let mut archives = Archives::default();
    let mut manifest = None;
    while let Some(event) = backup.next().await? {
        match event {
            BackupEvent::ArchiveBegin { tablespace, .. } => archives.begin(tablespace)?,
            BackupEvent::ArchiveData(bytes) => archives.data(bytes, intake).await?,
            BackupEvent::ManifestBegin => {
                archives.end()?;
                manifest = Some(ServerManifest::of(archives.take_arrived()));
            }
            BackupEvent::ManifestData(bytes) => match &mut manifest {
                Some(manifest) => manifest.data(&bytes)?,
                None => return Err(out_of_order()),
            },
            BackupEvent::Progress(_) => {}
            BackupEvent::Finished { lsn, corrupt, warnings, .. } => {
                manifest.ok_or_else(out_of_order)?.end()?;
                let complaint = corrupt.map(|corrupt| format!("{corrupt}\n{}", warnings.join("\n")));
                if complaint.is_none() {
                    for warning in warnings {
                        intake.note(text::backup::TAKE_SERVER_SAYS.with("warning", warning));
                    }
                }
                return Ok(Received { archives, stop: lsn, complaint });
            }
            BackupEvent::Started { .. } | BackupEvent::Tablespaces(_) => return Err(out_of_order()),
        }
    }
    Err(out_of_order())
}

fn out_of_order() -> Failure {
    Failure::new(text::backup::TAKE_OUT_OF_ORDER)
}

/// A server that still waits for its checkpoint would not notice that we are gone.
struct Waiting(Option<CancelToken>);

impl Waiting {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((token, runtime)) = self.0.take().zip(tokio::runtime::Handle::try_current().ok()) {
            runtime.spawn(async move { token.cancel().await });
        }
    }
}
