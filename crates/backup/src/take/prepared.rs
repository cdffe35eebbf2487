//! Before a backup: its name, its claim, and the maps that it compares with.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::Request;
use super::interrupted;
use super::parents::{Layer, Parents};
use super::repack::Repacking;
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::{self, Manifest};
use crate::repository::claims::{self, Claim, Note, Process};
use crate::repository::keys::random;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;

/// A backup that may begin.
pub(super) struct Prepared {
    pub(super) claim: Claim,
    /// The last complete backup, if this one compares with it.
    pub(super) parent: Option<Header>,
    /// Interrupted backups whose packs are taken over.
    pub(super) resumed: Vec<BackupId>,
    pub(super) parents: Parents,
}

impl Prepared {
    /// Claims a name, and holds the backups whose maps are of use.
    pub(super) async fn of(
        repository: &Repository,
        cluster: ClusterId,
        request: &Request,
    ) -> Result<Prepared> {
        let backup = name(repository, cluster, request.now).await?;
        let note = Note {
            environment: request.environment.clone(),
            host: request.host.clone(),
            pid: request.pid,
            program: request.program.clone(),
            started: request.now,
            uses: Vec::new(),
            everything: false,
            ended: false,
            process: Process::this(),
        };
        let mut claim = Claim::begin(repository, cluster, &backup, note).await?;
        let mut layers = Vec::new();
        let (mut parent, mut resumed, mut missing) = (None, Vec::new(), HashSet::new());
        if !request.options.full {
            let manifest = newest_before(&backup, repository, cluster, &mut claim).await?;
            let after = manifest.as_ref().map(|manifest| &manifest.header.id);
            for id in interrupted_after(repository, cluster, after).await? {
                if claim.hold(std::slice::from_ref(&id)).await?.is_empty() {
                    continue;
                }
                // What cannot be read of it is as if it had not arrived.
                if let Ok(layer) = interrupted::layer(repository, cluster, &id).await {
                    layers.push(layer);
                    resumed.push(id);
                }
            }
            if let Some(manifest) = manifest {
                missing.extend(manifest.named().missing(repository, cluster).await?);
                parent = Some(manifest.header.clone());
                layers.push(Layer::of(manifest));
            }
        }
        let parents = Parents::new(repository, cluster, layers, &missing);
        Ok(Prepared { claim, parent, resumed, parents })
    }

    /// How many bytes may be stored again for their age alone.
    pub(super) fn refreshable(&self, policy: &Repacking) -> u64 {
        let bytes = self.parent.as_ref().map_or(0, |parent| parent.totals.bytes);
        bytes / 1000 * u64::from(policy.refreshed_per_mille)
    }
}

/// A name that sorts after those of the backups that are complete: also in the second in which the last one
/// began, and where its host's clock was ahead of ours.
async fn name(repository: &Repository, cluster: ClusterId, now: Timestamp) -> Result<BackupId> {
    let last = catalogue::ids(repository, cluster).await?.pop().and_then(|(id, _)| id.begun());
    let after = last.map(|last| last + SignedDuration::from_secs(1));
    Ok(BackupId::new(after.map_or(now, |after| after.max(now)), u16::from_le_bytes(random()?)))
}

/// The newest backup that can be held and whose manifest can be read. One that was completed meanwhile beside
/// this one may be called later, and then is no parent of it.
async fn newest_before(
    backup: &BackupId,
    repository: &Repository,
    cluster: ClusterId,
    claim: &mut Claim,
) -> Result<Option<Manifest>> {
    let earlier = catalogue::ids(repository, cluster).await?.into_iter().filter(|(id, _)| id < backup);
    for (id, _) in earlier.rev() {
        if claim.hold(std::slice::from_ref(&id)).await?.is_empty() {
            continue;
        }
        if let Ok(Some(manifest)) = Manifest::find(repository, cluster, &id).await {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// Backups that were interrupted after the last complete one, the newest first.
async fn interrupted_after(
    repository: &Repository,
    cluster: ClusterId,
    after: Option<&BackupId>,
) -> Result<Vec<BackupId>> {
    let interrupted = claims::interrupted(repository, cluster).await?;
    let ids = interrupted.into_iter().map(|claim| claim.backup);
    let mut ids: Vec<BackupId> = ids.filter(|id| after.is_none_or(|after| id > after)).collect();
    ids.sort_by(|a, b| b.cmp(a));
    Ok(ids)
}
