//! What a repository holds of one cluster: its backups, whether each can be restored, the WAL between them
//! and what can be brought back.
//!
//! Read from the store at each call. A backup counts only with all the WAL that its recovery needs.

use jiff::Timestamp;
use obyra_evidence::Failure;
use obyra_postgres::wal::{Lsn, TimelineId, WalSegmentSize};
use serde::Serialize;

use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue;
use crate::repository::claims::{self, Claimed};
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;
use crate::retention::{self, WalKept};
use crate::wal::{Archive, Hole, Index};

/// What a repository holds of one cluster.
#[derive(Debug)]
pub struct Holdings {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its backups, oldest first.
    pub backups: Vec<Kept>,
    /// Backups whose description cannot be read, and why.
    pub unreadable: Vec<(BackupId, Failure)>,
    /// Backups that run now, or that were interrupted.
    pub claims: Vec<Claimed>,
    /// Its WAL.
    pub wal: Index,
}

/// A backup that is in the repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// What it is.
    pub header: Header,
    /// The WAL that its recovery needs and the archive does not have; empty if it can be restored.
    pub missing: Vec<Hole>,
}

/// A span of time of which any instant can be brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// From when: the end of a backup.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Where its WAL ends.
    pub end: Lsn,
    /// On which timeline.
    pub timeline: u32,
}

impl Holdings {
    /// Reads what there is.
    pub async fn read(repository: &Repository, cluster: ClusterId) -> Result<Holdings> {
        let listed = catalogue::backups(repository, cluster).await?;
        let claims = claims::claims(repository, cluster).await?;
        let mut headers = Vec::new();
        let mut unreadable = Vec::new();
        for backup in listed {
            match backup.header {
                Ok(header) => headers.push(header),
                Err(failure) => unreadable.push((backup.id, failure)),
            }
        }
        let size =
            headers.last().and_then(|header| WalSegmentSize::new(header.cluster.wal_segment_bytes).ok());
        let archive = Archive::new(repository, cluster);
        let wal = archive.index(size.unwrap_or_default()).await?;
        let backups = headers.into_iter().map(|header| Kept::of(header, &wal)).collect();
        Ok(Holdings { cluster, backups, unreadable, claims, wal })
    }

    /// Whether this backup was there, readable or not.
    pub fn knows(&self, backup: &BackupId) -> bool {
        self.backups
            .iter()
            .map(|kept| &kept.header.id)
            .chain(self.unreadable.iter().map(|(id, _)| id))
            .any(|id| id == backup)
    }

    /// The newest backup that can be restored.
    pub fn newest(&self) -> Option<&Kept> {
        self.backups.iter().rev().find(|backup| backup.is_restorable())
    }

    /// As the retention sees them.
    pub fn held(&self) -> Vec<retention::Held> {
        self.backups.iter().map(Kept::held).collect()
    }

    /// The spans of time of which any instant can be brought back, oldest first. Several, where WAL is
    /// missing between two backups.
    pub fn reaches(&self) -> Vec<Reach> {
        let mut reaches: Vec<Reach> = Vec::new();
        for backup in self.backups.iter().filter(|backup| backup.is_restorable()) {
            let Some(reach) = self.reach_of(&backup.header) else { continue };
            match reaches.last_mut() {
                // The same WAL without a hole.
                Some(last) if last.timeline == reach.timeline && last.end == reach.end => {
                    last.to = last.to.max(reach.to);
                }
                _ => reaches.push(reach),
            }
        }
        reaches
    }

    /// From the end of a backup to the end of the WAL without a hole that follows it.
    fn reach_of(&self, header: &Header) -> Option<Reach> {
        let of = self.wal.timelines().get(&TimelineId(header.timeline))?;
        let stretch = of.stretches.iter().find(|s| s.from <= header.stop && header.stop <= s.to)?;
        Some(Reach {
            from: header.stopped,
            to: stretch.newest.max(header.stopped),
            end: stretch.to,
            timeline: header.timeline,
        })
    }

    /// The holes of the archive where WAL should be. What the retention let go between two older backups is
    /// none.
    pub fn holes(&self, wanted: &WalKept) -> Vec<Hole> {
        let all = self.wal.timelines().keys().flat_map(|timeline| self.wal.holes(*timeline));
        all.filter(|hole| wanted.misses(hole, self.wal.size())).collect()
    }
}

impl Kept {
    fn of(header: Header, wal: &Index) -> Kept {
        let chain = wal.chain(header.start, header.stop, TimelineId(header.timeline));
        let mut missing = chain.holes;
        if let Some(timeline) = chain.history {
            missing.push(Hole { timeline, from: header.start, to: header.stop });
        }
        Kept { header, missing }
    }

    /// Whether all that its recovery needs is in the repository.
    pub fn is_restorable(&self) -> bool {
        self.missing.is_empty()
    }

    fn held(&self) -> retention::Held {
        retention::Held {
            id: self.header.id.clone(),
            stopped: self.header.stopped,
            timeline: self.header.timeline,
            start: self.header.start,
            stop: self.header.stop,
            restorable: self.is_restorable(),
        }
    }
}
