//! Verification: does the repository still hold what was written, and is that enough to bring back every
//! instant that it promises?
//!
//! Without the key, every object is read again and held against its own hash. With it, every frame is opened,
//! every block held against its identity, every manifest against the packs that it names, and the WAL against
//! the backups and the window. A damage is a [`Fault`] with what it concerns; only a store that cannot be
//! read is a failure.

mod blocks;
mod chain;
mod objects;

use std::collections::BTreeMap;

use jiff::Timestamp;
use obyra_evidence::{Finding, Message, Progress, Severity, text};
use obyra_postgres::wal::WalSegmentSize;
use serde::Serialize;

use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::{self, Manifest, Named};
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::{Header, PackEntry};
use crate::repository::store::{ObjectInfo, Store};
use crate::wal::Archive;

use objects::Reading;

pub use chain::{Gap, gaps};
pub(crate) use objects::is_object;

/// Which objects are read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many of a hundred. All of them after `100 / percent` rounds.
    pub percent: u8,
    /// Which round this is: any number that counts up, such as that of the day.
    pub round: u64,
    /// Only those whose names sort after this: where an earlier verification stopped.
    pub after: Option<String>,
}

impl Share {
    /// Everything.
    pub const ALL: Share = Share { percent: 100, round: 0, after: None };

    fn takes(&self, name: &str) -> bool {
        if self.after.as_deref().is_some_and(|after| name <= after) {
            return false;
        }
        let percent = u64::from(self.percent.clamp(1, 100));
        let hash = blake3::hash(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        (u64::from_le_bytes(first) % 100 + self.round % 100 * percent) % 100 < percent
    }
}

/// Something that is not as it was written, or not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What was found; its subject is the object.
    #[serde(flatten)]
    pub finding: Finding,
    /// The backups that cannot be restored whole because of it.
    pub backups: Vec<BackupId>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks whose content was held against their identity.
    pub blocks: u64,
    /// Backups whose manifests were read.
    pub backups: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// The last object that was read, if the store failed after it: the verification can go on from there.
    pub stopped_after: Option<String>,
    /// What the store said then.
    pub stopped_by: Option<String>,
}

impl Verified {
    fn fault(&mut self, severity: Severity, object: &str, message: Message, backups: Vec<BackupId>) {
        let mend = if severity == Severity::Note {
            None
        } else if backups.is_empty() {
            Some(text::backup::VERIFY_MEND.message())
        } else {
            Some(text::backup::VERIFY_BACKUPS_MEND.message())
        };
        let mut finding = Finding::new(severity, object, message);
        finding.mend = mend;
        let fault = Fault { finding, backups };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Whether an object is known to be wrong.
    fn knows(&self, object: &str) -> bool {
        self.faults.iter().any(|fault| fault.finding.subject == object)
    }
}

/// Reads every object again, without a key.
pub async fn objects(store: &Store, share: &Share, progress: &dyn Progress) -> Result<Verified> {
    let mut verified = Verified::default();
    let listed = objects::listing(store).await?;
    Reading { store, with: None, share, progress }.run(&listed, &mut verified).await;
    Ok(verified)
}

/// Verifies everything: objects, frames, manifests, blocks, WAL. Any instant since `window` is to be
/// recoverable, if it is given.
pub async fn contents(
    repository: &Repository,
    share: &Share,
    window: Option<Timestamp>,
    progress: &dyn Progress,
) -> Result<Verified> {
    let mut verified = Verified::default();
    let listed = objects::listing(&repository.store).await?;
    let known = Known::read(repository, &listed, &mut verified).await?;
    let (store, with) = (&repository.store, Some((&repository.keys, &known)));
    let hashes = Reading { store, with, share, progress }.run(&listed, &mut verified).await;
    if verified.stopped_by.is_some() {
        return Ok(verified);
    }
    objects::keys(repository, &listed, &mut verified).await?;
    let sizes = listed.iter().map(|info| (info.name.as_str(), info.bytes)).collect();
    for cluster in known.clusters.keys() {
        let seen = Seen { known: &known, sizes: &sizes, hashes: &hashes, share };
        blocks::verify(repository, *cluster, &seen, &mut verified, progress).await?;
        chain::verify(repository, *cluster, &known, window, &mut verified).await?;
    }
    Ok(verified)
}

/// What was read of the objects before the blocks are.
struct Seen<'a> {
    known: &'a Known,
    sizes: &'a BTreeMap<&'a str, u64>,
    hashes: &'a BTreeMap<String, [u8; 32]>,
    share: &'a Share,
}

/// What the manifests say, so that a damaged object can be told to concern backups.
#[derive(Default)]
struct Known {
    clusters: BTreeMap<ClusterId, OfCluster>,
}

#[derive(Default)]
struct OfCluster {
    headers: BTreeMap<BackupId, Header>,
    named: BTreeMap<BackupId, Named>,
    /// Those whose manifests cannot be read, and the packs with the lines, as far as they are known.
    unreadable: BTreeMap<BackupId, Vec<PackEntry>>,
}

impl OfCluster {
    fn segment_size(&self) -> WalSegmentSize {
        let newest = self.headers.values().next_back();
        newest
            .and_then(|header| WalSegmentSize::new(header.cluster.wal_segment_bytes).ok())
            .unwrap_or_default()
    }
}

impl Known {
    async fn read(repository: &Repository, listed: &[ObjectInfo], verified: &mut Verified) -> Result<Known> {
        let mut known = Known::default();
        for cluster in listed.iter().filter_map(|info| objects::cluster_of(&info.name)) {
            known.clusters.entry(cluster).or_default();
        }
        for (cluster, of) in &mut known.clusters {
            for (backup, _) in catalogue::ids(repository, *cluster).await? {
                verified.backups += 1;
                match Manifest::find(repository, *cluster, &backup).await {
                    Ok(Some(manifest)) => {
                        of.named.insert(backup.clone(), manifest.named());
                        of.headers.insert(backup, manifest.header);
                    }
                    Ok(None) => {}
                    Err(failure) => {
                        // What is wrong with its parts is told when their turn comes.
                        if let Ok(header) = catalogue::header(repository, *cluster, &backup).await {
                            of.headers.insert(backup.clone(), header);
                        }
                        let message = text::backup::VERIFY_MANIFEST
                            .with("backup", &backup)
                            .with("why", failure.to_string());
                        verified.fault(
                            Severity::Error,
                            &cluster.manifest(&backup),
                            message,
                            vec![backup.clone()],
                        );
                        let parts = catalogue::parts(repository, *cluster, &backup).await;
                        of.unreadable.insert(backup, parts.unwrap_or_default());
                    }
                }
            }
        }
        Ok(known)
    }

    /// The backups that cannot be restored whole without this object.
    fn concerns(&self, object: &str) -> Vec<BackupId> {
        let Some((cluster, of)) = objects::cluster_of(object).and_then(|id| self.clusters.get_key_value(&id))
        else {
            // Of no cluster: a key, or the mark of the repository. It concerns all.
            return self.clusters.values().flat_map(|of| of.headers.keys().cloned()).collect();
        };
        if let Some(pack) = cluster.pack_of(object) {
            let names = |(_, named): &(&BackupId, &Named)| named.contains(&pack);
            let mut backups: Vec<_> =
                of.named.iter().filter(names).map(|(backup, _)| backup.clone()).collect();
            // One whose manifest cannot be read may name it too, and surely names its own.
            backups.extend(of.unreadable.keys().filter(|backup| **backup == pack.backup).cloned());
            return backups;
        }
        let manifest = |backup: &&BackupId| cluster.manifest(backup) == object;
        if let Some(backup) = of.headers.keys().chain(of.unreadable.keys()).find(manifest) {
            return vec![backup.clone()];
        }
        chain::concerned(*cluster, of, object)
    }
}

/// The archive's index of a cluster.
async fn archive(
    repository: &Repository,
    cluster: ClusterId,
    size: WalSegmentSize,
) -> Result<crate::wal::Index> {
    Archive::new(repository, cluster).index(size).await
}
