//! The stage that is set for a source: what is known before the backup begins, and the pipeline around
//! whatever reads the cluster.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use obyra_evidence::Progress;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId};

use super::Options;
use super::intake::Intake;
use super::parents::Parents;
use super::pipeline::{Contents, Pipeline, Shared, first};
use super::server::{Server, Shape};
use crate::Result;
use crate::repository::Repository;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::{ChangedOnly, Header, Source, Tablespace};

/// What is known before the backup begins.
pub(super) struct Stage<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: ClusterId,
    pub(super) backup: &'a BackupId,
    pub(super) shape: Shape,
    pub(super) parents: &'a Parents,
    /// The last complete backup, if this one compares with it.
    pub(super) parent: Option<&'a Header>,
    /// Bytes that may be stored again for their age alone.
    pub(super) refreshable: u64,
    pub(super) options: &'a Options,
    pub(super) now: Timestamp,
    pub(super) progress: &'a dyn Progress,
}

/// What is known when it has ended.
pub(super) struct Ended {
    pub(super) source: Source,
    pub(super) start: Lsn,
    pub(super) timeline: TimelineId,
    pub(super) stop: Lsn,
    pub(super) backup_label: String,
    pub(super) tablespace_map: Option<String>,
    pub(super) tablespaces: Vec<Tablespace>,
    /// What the server said of damaged pages.
    pub(super) complaint: Option<String>,
    /// Where only changed blocks were sent.
    pub(super) changed_only: Option<ChangedOnly>,
}

impl Ended {
    /// The end of the WAL that is wanted: all of the segment, since a primary ends it when a backup stops, and
    /// the archive shall go on without a hole. A standby cannot.
    pub(super) fn wal_stop(&self, server: &Server) -> Lsn {
        let size = server.shape.wal_segment;
        let last = SegmentName::ending_at(self.stop, self.timeline, size);
        if server.in_recovery { self.stop } else { last.end(size) }
    }
}

impl Stage<'_> {
    /// What the server calls the backup.
    pub(super) fn label(&self) -> String {
        format!("obyra-db {}", self.backup)
    }

    /// Runs the pipeline around what feeds it. `start` is where the backup's WAL begins. Where the source
    /// fails, what had arrived is still put: the next backup finds it.
    pub(super) async fn drive<T>(
        &self,
        start: Lsn,
        contents: Option<Arc<dyn Contents>>,
        feed: impl AsyncFnOnce(&mut Intake<'_>) -> Result<T>,
    ) -> Result<(Arc<Shared>, T)> {
        let shared = Arc::new(Shared {
            repository: self.repository.clone(),
            cluster: self.cluster,
            backup: self.backup.clone(),
            identity_key: self.repository.keys.identity_key(),
            level: self.options.level,
            checksums: self.shape.checksums,
            segment_blocks: self.shape.segment_blocks,
            start,
            now: self.now,
            repacking: self.options.repacking,
            refreshable: AtomicU64::new(self.refreshable),
            threads: self.options.threads.clamp(1, Options::THREADS_MAX),
            census: Default::default(),
            sequence: Default::default(),
            added: Default::default(),
            buffers: Default::default(),
            stopped: Default::default(),
        });
        let (pipeline, entrance) = Pipeline::start(&shared, contents);
        let mut intake = Intake::new(shared.clone(), self.parents, entrance, self.progress);
        let fed = match feed(&mut intake).await {
            Ok(fed) => intake.end().await.map(|()| fed),
            Err(failure) => {
                drop(intake);
                Err(failure)
            }
        };
        let ended = pipeline.finish().await;
        match fed {
            Ok(fed) => ended.map(|()| (shared, fed)),
            Err(failure) => match first(Err(failure), ended) {
                Err(failure) => Err(failure),
                Ok(()) => Err(super::pipeline::stopped()),
            },
        }
    }
}
