//! The end of a backup: its header, its manifest, and the commit.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::census::Counted;
use super::pipeline::Shared;
use super::prepared::Prepared;
use super::server::Server;
use super::stage::Ended;
use super::{Request, Taken};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::ManifestWriter;
use crate::repository::manifest::{Cluster, Header, Line, Totals};
use crate::wal::ProvenWal;

/// A backup whose files and WAL are all there.
pub(super) struct Outcome<'a> {
    pub(super) request: &'a Request,
    pub(super) server: Server,
    pub(super) ended: Ended,
    pub(super) wal: ProvenWal,
    pub(super) stopped: Timestamp,
}

impl Outcome<'_> {
    /// Writes the manifest and commits it.
    pub(super) async fn commit(
        self,
        repository: &Repository,
        prepared: Prepared,
        shared: &Shared,
    ) -> Result<Taken> {
        let mut counted = shared.census.take();
        counted.judge_suspects(self.ended.stop);
        counted.check()?;
        let sequence = shared.sequence.load(Ordering::Relaxed);
        let mut manifest = ManifestWriter::new(repository, shared.cluster, &shared.backup, sequence);
        let wal = self.wal;
        let header = self.header(&mut counted, shared, &prepared);
        // Parents first.
        counted.directories.sort_by(|a, b| a.path.cmp(&b.path));
        for directory in std::mem::take(&mut counted.directories) {
            manifest.push(&Line::Directory(directory)).await?;
        }
        for file in std::mem::take(&mut counted.files).into_iter().flatten() {
            manifest.push(&Line::File(file)).await?;
        }
        for pack in counted.packs.entries(&prepared.parents) {
            manifest.push(&Line::Pack(pack?.clone())).await?;
        }
        let lost_maps = prepared.parents.lost();
        let committed = prepared.claim.commit(manifest, &header).await?;
        Ok(Taken {
            cluster: shared.cluster,
            header,
            manifest_bytes: committed.bytes,
            wal,
            resumed: prepared.resumed,
            lost_maps,
        })
    }

    fn header(self, counted: &mut Counted, shared: &Shared, prepared: &Prepared) -> Header {
        let Outcome { request, server, ended, stopped, .. } = self;
        let sizes = counted.files.iter().flatten().map(|file| file.size);
        Header {
            id: shared.backup.clone(),
            environment: request.environment.clone(),
            program: request.program.clone(),
            started: request.now,
            stopped,
            source: ended.source,
            cluster: Cluster {
                system_identifier: server.system_identifier.to_string(),
                version: server.version.0,
                checksums: server.shape.checksums,
                wal_segment_bytes: server.shape.wal_segment.bytes(),
            },
            timeline: ended.timeline.0,
            start: ended.start,
            stop: ended.stop,
            parent: prepared.parent.as_ref().map(|parent| parent.id.clone()),
            backup_label: ended.backup_label,
            tablespace_map: ended.tablespace_map,
            tablespaces: ended.tablespaces,
            damaged: std::mem::take(&mut counted.damaged),
            damaged_more: counted.damaged_more,
            server_complaint: ended.complaint,
            changed_only: ended.changed_only,
            totals: Totals {
                files: sizes.clone().count() as u64,
                bytes: sizes.sum(),
                added: shared.added.load(Ordering::Relaxed),
                stored: counted.stored,
            },
        }
    }
}
