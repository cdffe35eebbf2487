//! Brings back from a copy what a verification found damaged or missing.
//!
//! Only what the repository still needs comes back: never a backup that has expired. What a manifest names
//! must have the hash that it gives; all else must open under its name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use obyra_evidence::{Progress, Severity, text};
use obyra_postgres::wal::{Lsn, SegmentName, WalFileName, WalSegmentSize};
use serde::Serialize;

use super::{genuine, is_wrong};
use crate::Result;
use crate::repository::catalogue::{self, Manifest};
use crate::repository::keys::FOLDER as KEYS;
use crate::repository::layout::{BackupId, ClusterId, REPOSITORY};
use crate::repository::manifest::PackEntry;
use crate::repository::store::Store;
use crate::repository::{Marker, Repository};
use crate::verify::{Verified, is_object};
use crate::wal::{Part, WalObject, folder};

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Objects that are as they were written again.
    pub mended: Vec<String>,
    /// Objects that the copy does not have, or has damaged too.
    pub left: Vec<String>,
}

/// Mends what `verified` found, as far as the copy can.
pub async fn repair(
    repository: &Repository,
    copy: &Store,
    verified: &Verified,
    progress: &dyn Progress,
) -> Result<Repaired> {
    let errors = verified.faults.iter().filter(|fault| fault.finding.severity == Severity::Error);
    let mut subjects: BTreeSet<String> = errors.map(|fault| fault.finding.subject.clone()).collect();
    let copy = Repository { store: copy.clone(), keys: repository.keys.clone() };
    let mut repairing = Repairing { ours: repository, copy: &copy, done: Repaired::default() };
    progress.begin(text::backup::REPAIRING.with("store", copy.store.url()), None);
    if subjects.remove(REPOSITORY) {
        repairing.mend(REPOSITORY, Marker::current()?.into()).await?;
    }
    for cluster in repository.clusters().await? {
        repairing.backups(cluster, &mut subjects).await?;
        repairing.wal(cluster).await?;
    }
    for subject in subjects {
        repairing.object(&subject).await?;
    }
    progress.done();
    Ok(repairing.done)
}

struct Repairing<'a> {
    ours: &'a Repository,
    copy: &'a Repository,
    done: Repaired,
}

impl Repairing<'_> {
    /// Mends the manifests that are there, then the packs that they name.
    async fn backups(&mut self, cluster: ClusterId, subjects: &mut BTreeSet<String>) -> Result<()> {
        let mut named: BTreeMap<String, PackEntry> = BTreeMap::new();
        for (backup, _) in catalogue::ids(self.ours, cluster).await? {
            let name = cluster.manifest(&backup);
            if subjects.remove(&name) && !self.object(&name).await? {
                continue;
            }
            let mut found = Manifest::find(self.ours, cluster, &backup).await;
            if found.as_ref().is_err_and(is_wrong) {
                self.parts(cluster, &backup, subjects).await?;
                found = Manifest::find(self.ours, cluster, &backup).await;
            }
            let manifest = match found {
                Ok(Some(manifest)) => manifest,
                Ok(None) => continue,
                Err(failure) if is_wrong(&failure) => {
                    self.done.left.push(name);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let entries = manifest.packs.into_iter().map(|entry| (cluster.pack(&entry.id), entry));
            named.extend(entries.filter(|(name, _)| subjects.contains(name)));
        }
        for (name, entry) in named {
            subjects.remove(&name);
            self.bring_back(&name, Some(&entry.hash)).await?;
        }
        Ok(())
    }

    /// Mends the packs with the lines of a manifest.
    async fn parts(
        &mut self,
        cluster: ClusterId,
        backup: &BackupId,
        subjects: &mut BTreeSet<String>,
    ) -> Result<()> {
        for part in catalogue::parts(self.ours, cluster, backup).await? {
            let name = cluster.pack(&part.id);
            subjects.remove(&name);
            if genuine(self.ours, &name, Some(&part.hash)).await?.is_none() {
                self.bring_back(&name, Some(&part.hash)).await?;
            }
        }
        Ok(())
    }

    /// Mends an object of which no manifest tells the hash; says whether it is as it was written now.
    async fn object(&mut self, name: &str) -> Result<bool> {
        if name.starts_with(&format!("{KEYS}/")) && !name.ends_with(".way") {
            let known = self.ours.keys.wrapped(&self.ours.store).await?;
            let theirs = self.copy.store.get(name).await?;
            match theirs.filter(|bytes| known.get(name) == Some(blake3::hash(bytes).as_bytes())) {
                Some(good) => self.mend(name, good).await?,
                None => self.done.left.push(name.to_owned()),
            }
            return Ok(true);
        }
        // A finding about a folder, or about what a manifest that is whole says, has no object to bring back.
        if !is_object(name) || genuine(self.ours, name, None).await?.is_some() {
            return Ok(true);
        }
        self.bring_back(name, None).await
    }

    async fn bring_back(&mut self, name: &str, hash: Option<&[u8; 32]>) -> Result<bool> {
        match genuine(self.copy, name, hash).await? {
            Some(good) => self.mend(name, good).await.map(|()| true),
            None => {
                self.done.left.push(name.to_owned());
                Ok(false)
            }
        }
    }

    /// Replaced in one step: there is no moment without the object, and a store that keeps old versions keeps
    /// the damaged one.
    async fn mend(&mut self, name: &str, good: Bytes) -> Result<()> {
        self.ours.store.replace(name, good).await?;
        self.done.mended.push(name.to_owned());
        Ok(())
    }

    /// WAL that the copy has and the repository lacks, from its oldest backup on; and all histories.
    async fn wal(&mut self, cluster: ClusterId) -> Result<()> {
        let backups = catalogue::backups(self.ours, cluster).await?;
        let headers: Vec<_> = backups.iter().filter_map(|listed| listed.header.as_ref().ok()).collect();
        let Some(oldest) = headers.iter().map(|header| header.start).min() else { return Ok(()) };
        let size =
            headers.last().and_then(|header| WalSegmentSize::new(header.cluster.wal_segment_bytes).ok());
        let size = size.unwrap_or_default();
        let ours = self.ours.store.list(&folder(cluster)).await?;
        let ours: BTreeSet<&str> = ours.iter().map(|info| info.name.as_str()).collect();
        let has_whole = |segment: SegmentName| {
            let whole = WalObject::File(WalFileName::Segment(segment)).object_name(cluster, size);
            ours.contains(whole.as_str())
        };
        for info in self.copy.store.list(&folder(cluster)).await? {
            let needed = match WalObject::parse(cluster, &info.name, size) {
                Some(WalObject::File(WalFileName::History(_))) => true,
                Some(
                    WalObject::File(WalFileName::Segment(segment)) | WalObject::Part(Part { segment, .. }),
                ) => segment.end(size) > oldest.max(Lsn(1)) && !has_whole(segment),
                _ => false,
            };
            if needed && !ours.contains(info.name.as_str()) {
                self.bring_back(&info.name, None).await?;
            }
        }
        Ok(())
    }
}
