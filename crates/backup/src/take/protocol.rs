//! A backup over the replication protocol: one stream, cut into the extents that the workers take.
//!
//! The server's own manifest, with a CRC-32C of each file, is held against what arrived. Where the server can
//! tell what changed since the parent, only that is sent; otherwise everything, and why is said.

mod archive;
mod changed;
mod server_manifest;
mod summaries;

use std::sync::Arc;

use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, CancelToken, Tablespace as Sent, Walsender,
};
use obyra_postgres::wal::{Lsn, TimelineId};

use super::intake::Intake;
use super::label::{self, Label};
use super::pipeline::Shared;
use super::server::Server;
use super::stage::{Ended, Stage};
use crate::Result;
use crate::repository::manifest::{ChangedOnly, Source, Tablespace};
use crate::wal::{BackupWal, ReservedWal};
use archive::Archives;
use server_manifest::ServerManifest;
use summaries::{Summaries, Truncated};

/// What the server takes for its rate, in kB a second.
const RATE_KB: std::ops::RangeInclusive<u64> = 32..=1_048_576;

/// A replication connection for a backup.
pub(super) struct Protocol {
    target: Conninfo,
    walsender: Walsender,
    pub(super) server: Server,
}

/// The end of a stream.
struct Received {
    archives: Archives,
    stop: Lsn,
    complaint: Option<String>,
    /// Bytes of the archives.
    bytes: u64,
}

/// A stream that has begun.
struct Begun<'w> {
    backup: BaseBackup<'w>,
    start: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<Sent>,
    /// Where only changed blocks are sent: what was truncated, and when everything was read last.
    changed: Option<(Truncated, Timestamp)>,
}

impl Protocol {
    pub(super) async fn connect(target: &Conninfo) -> Result<Protocol> {
        let mut walsender = Walsender::connect(target).await?;
        let server = Server::of_walsender(&mut walsender).await?;
        Ok(Protocol { target: target.clone(), walsender, server })
    }

    /// Takes the backup's files.
    pub(super) async fn take(
        mut self,
        stage: &Stage<'_>,
        wal: ReservedWal,
    ) -> Result<(Arc<Shared>, Ended, BackupWal)> {
        let summaries = Summaries::of(stage, &mut self.walsender, (&self.server, &self.target)).await;
        let begun = match summaries {
            Ok(None) => None,
            Ok(Some(summaries)) => Some(begin_changed(&mut self.walsender, stage, &summaries).await),
            Err(why) => {
                stage.progress.note(why);
                None
            }
        };
        let begun = match begun {
            Some(Ok(begun)) => begun,
            Some(Err(failure)) => {
                stage.progress.note(text::backup::TAKE_ALL_SAYS.with("why", failure));
                // What may be under way on the other connection ends with it.
                self.walsender = Walsender::connect(&self.target).await?;
                begin(&mut self.walsender, stage, false).await?
            }
            None => begin(&mut self.walsender, stage, false).await?,
        };
        let Begun { mut backup, start, timeline, tablespaces, changed } = begun;
        let wal = wal.begin(start, timeline);
        let total = tablespaces.iter().map(|space| space.size_estimate).sum();
        stage.progress.begin(text::backup::TAKE_READING.message(), total);
        let (truncated, all_read) = changed.unzip();
        let archives = Archives::new(truncated, self.server.shape.segment_blocks);
        let received =
            stage.drive(start, None, async |intake| receive(&mut backup, archives, intake).await).await;
        stage.progress.done();
        let (shared, Received { archives, stop, complaint, bytes }) = received?;
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
            backup_label: label::of_whole(&backup_label),
            tablespace_map,
            tablespaces: tablespaces.into_iter().filter_map(outside).collect(),
            complaint,
            changed_only: all_read.map(|all_read| ChangedOnly { received: bytes, all_read }),
        };
        Ok((shared, ended, wal))
    }
}

/// Begins a backup of which only changed blocks are sent.
async fn begin_changed<'w>(
    walsender: &'w mut Walsender,
    stage: &Stage<'_>,
    summaries: &Summaries<'_>,
) -> Result<Begun<'w>> {
    summaries.upload(walsender).await?;
    let begun = begin(walsender, stage, true).await?;
    // The server has all summaries up to its start now.
    let truncated = summaries.truncated(begun.start, begun.timeline).await?;
    Ok(Begun { changed: Some((truncated, summaries.all_read)), ..begun })
}

fn rate_kb(bytes_per_second: u64) -> u32 {
    (bytes_per_second / 1024).clamp(*RATE_KB.start(), *RATE_KB.end()) as u32
}

/// Waits for the checkpoint, and for what will be sent.
async fn begin<'w>(walsender: &'w mut Walsender, stage: &Stage<'_>, incremental: bool) -> Result<Begun<'w>> {
    let options = BaseBackupOptions {
        label: stage.label(),
        checkpoint: stage.options.checkpoint,
        estimate_sizes: true,
        max_rate_kb: stage.options.rate_max.map(rate_kb),
        incremental,
        ..BaseBackupOptions::default()
    };
    let waiting = Waiting(Some(walsender.cancel_token()));
    stage.progress.begin(text::backup::TAKE_CHECKPOINT.message(), None);
    let begun = wait(walsender, &options).await;
    stage.progress.done();
    waiting.over();
    begun
}

async fn wait<'w>(walsender: &'w mut Walsender, options: &BaseBackupOptions) -> Result<Begun<'w>> {
    let mut backup = walsender.base_backup(options).await?;
    let mut start = None;
    loop {
        match (backup.next().await?, start) {
            (Some(BackupEvent::Started { lsn, timeline }), None) => start = Some((lsn, timeline)),
            (Some(BackupEvent::Tablespaces(tablespaces)), Some((start, timeline))) => {
                return Ok(Begun { backup, start, timeline, tablespaces, changed: None });
            }
            (Some(BackupEvent::Progress(_)), _) => {}
            _ => return Err(out_of_order()),
        }
    }
}

/// Receives everything.
async fn receive(
    backup: &mut BaseBackup<'_>,
    mut archives: Archives,
    intake: &mut Intake<'_>,
) -> Result<Received> {
    let (mut manifest, mut received) = (None, 0);
    while let Some(event) = backup.next().await? {
        match event {
            BackupEvent::ArchiveBegin { tablespace, .. } => archives.begin(tablespace)?,
            BackupEvent::ArchiveData(bytes) => {
                received += bytes.len() as u64;
                archives.data(bytes, intake).await?;
            }
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
                return Ok(Received { archives, stop: lsn, complaint, bytes: received });
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
