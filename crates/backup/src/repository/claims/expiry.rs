//! The removal of backups, safe beside backups that run: marks first, then a look at the claims, then
//! manifests, then the packs that nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::{Claimed, MARK_STALE, Mark, claims, marks, needless, seal_note};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::{self, Manifest, Named};
use crate::repository::hex;
use crate::repository::keys::random;
use crate::repository::layout::{BackupId, ClusterId, PackId};
use crate::repository::store::is_kept;

/// Packs that are deleted between two looks at the claims.
const BATCH: usize = 500;
/// Deletions at the same time.
const DELETIONS: usize = 8;

/// A backup that was to be removed and stays for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub backup: BackupId,
    /// The running backup that uses it.
    pub by: BackupId,
}

/// What a removal did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The backups that are gone.
    pub backups: Vec<BackupId>,
    /// The backups that stay for now, since a running one uses them.
    pub held: Vec<Held>,
    /// Interrupted backups that were given up.
    pub abandoned: Vec<BackupId>,
    /// How many packs were deleted.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the store does not let go.
    pub locked: Vec<Locked>,
}

/// An object that the store keeps: by object lock or retention, or since the credentials may not delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its name.
    pub object: String,
    /// Until when, if the store tells.
    pub until: Option<Timestamp>,
    /// What the store said.
    pub why: String,
}

/// A removal at work: its marks are in the store.
pub struct Expiry {
    repository: Repository,
    cluster: ClusterId,
    token: String,
    marked: BTreeSet<BackupId>,
    removed: Removed,
}

impl Expiry {
    /// What a removal of these backups would do.
    pub async fn preview(
        repository: &Repository,
        cluster: ClusterId,
        wanted: &[BackupId],
    ) -> Result<Removed> {
        let claims = claims(repository, cluster).await?;
        let mut removed = Removed::default();
        for backup in wanted {
            match claims.iter().find(|claim| claim.holds(backup)) {
                Some(claim) => removed.held.push(held(backup, claim)),
                None => removed.backups.push(backup.clone()),
            }
        }
        removed.abandoned = abandoned(&claims).collect();
        for (_, bytes) in garbage(repository, cluster, &removed).await? {
            removed.packs += 1;
            removed.bytes += bytes;
        }
        Ok(removed)
    }

    /// Marks these backups, and interrupted ones that nobody can resume; then lets go of those that a
    /// running backup uses.
    pub async fn begin(repository: &Repository, cluster: ClusterId, wanted: &[BackupId]) -> Result<Expiry> {
        let mut expiry = Expiry {
            repository: repository.clone(),
            cluster,
            token: token()?,
            marked: BTreeSet::new(),
            removed: Removed::default(),
        };
        expiry.removed.abandoned = abandoned(&claims(repository, cluster).await?).collect();
        for backup in wanted.iter().chain(&expiry.removed.abandoned.clone()) {
            expiry.mark(backup).await?;
        }
        let claims = claims(repository, cluster).await?;
        for backup in expiry.marked.clone() {
            let Some(claim) = claims.iter().find(|claim| claim.holds(&backup)) else { continue };
            expiry.unmark(&backup).await?;
            expiry.removed.abandoned.retain(|abandoned| *abandoned != backup);
            if wanted.contains(&backup) {
                expiry.removed.held.push(held(&backup, claim));
            }
        }
        expiry.removed.backups = wanted.iter().filter(|id| expiry.marked.contains(*id)).cloned().collect();
        Ok(expiry)
    }

    /// The backups that [`Expiry::run`] removes.
    pub fn free(&self) -> &[BackupId] {
        &self.removed.backups
    }

    /// Those that stay for now.
    pub fn held(&self) -> &[Held] {
        &self.removed.held
    }

    /// Removes the manifests, then the packs that nobody needs, then the marks.
    pub async fn run(mut self) -> Result<Removed> {
        let done = self.remove().await;
        // Whatever became of it: nothing is being deleted any more.
        for backup in self.marked.clone() {
            self.unmark(&backup).await?;
        }
        done?;
        for mark in marks(&self.repository, self.cluster).await? {
            if mark.age > MARK_STALE {
                self.repository.store.let_go(&Mark::name(self.cluster, &mark.backup, &mark.token)).await?;
            }
        }
        Ok(self.removed)
    }

    async fn remove(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        for backup in std::mem::take(&mut self.removed.backups) {
            if self.delete(&self.cluster.manifest(&backup)).await? {
                self.delete(&format!("{}/{backup}", self.cluster.claims())).await?;
                self.delete(&self.cluster.figures(&backup)).await?;
                gone.push(backup);
            }
        }
        self.removed.backups = gone;
        for backup in self.removed.abandoned.clone() {
            self.delete(&format!("{}/{backup}", self.cluster.claims())).await?;
        }
        // A manifest that came back after a power cut would name packs that are gone.
        self.repository.store.flush(&self.cluster.backups()).await?;
        let packs = garbage(&self.repository, self.cluster, &self.removed).await?;
        let packs: Vec<(PackId, u64)> = packs.into_iter().collect();
        for batch in packs.chunks(BATCH) {
            // Marks that are young tell a backup that wakes up that we are at work; if one did, the rest
            // is left for the next time.
            self.renew_marks().await?;
            let claims = claims(&self.repository, self.cluster).await?;
            if self.marked.iter().any(|backup| claims.iter().any(|claim| claim.holds(backup))) {
                return Ok(());
            }
            self.delete_packs(batch).await?;
        }
        Ok(())
    }

    async fn delete_packs(&mut self, batch: &[(PackId, u64)]) -> Result<()> {
        let (store, cluster) = (&self.repository.store, self.cluster);
        let deleted = stream::iter(batch.iter().cloned()).map(|(pack, bytes)| async move {
            let name = cluster.pack(&pack);
            Locked::of(&name, store.delete(&name).await).map(|locked| (bytes, locked))
        });
        let deleted: Vec<_> = deleted.buffer_unordered(DELETIONS).try_collect().await?;
        for (bytes, locked) in deleted {
            match locked {
                Some(locked) => self.removed.locked.push(locked),
                None => {
                    self.removed.packs += 1;
                    self.removed.bytes += bytes;
                }
            }
        }
        Ok(())
    }

    /// Whether it is gone; otherwise the store keeps it.
    async fn delete(&mut self, name: &str) -> Result<bool> {
        let locked = Locked::of(name, self.repository.store.delete(name).await)?;
        let gone = locked.is_none();
        self.removed.locked.extend(locked);
        Ok(gone)
    }

    async fn mark(&mut self, backup: &BackupId) -> Result<()> {
        if self.marked.insert(backup.clone()) {
            self.put_mark(backup).await?;
        }
        Ok(())
    }

    async fn put_mark(&self, backup: &BackupId) -> Result<()> {
        let name = Mark::name(self.cluster, backup, &self.token);
        let note = seal_note(&self.repository, &name, &serde_json::json!({}))?;
        self.repository.store.create_new(&name, note).await
    }

    /// Other marks in the place of those that there are: a store may replace nothing.
    async fn renew_marks(&mut self) -> Result<()> {
        let before = std::mem::replace(&mut self.token, token()?);
        for backup in &self.marked {
            self.put_mark(backup).await?;
            self.repository.store.let_go(&Mark::name(self.cluster, backup, &before)).await?;
        }
        Ok(())
    }

    async fn unmark(&mut self, backup: &BackupId) -> Result<()> {
        // One that the store keeps counts for nothing once it is stale.
        self.repository.store.let_go(&Mark::name(self.cluster, backup, &self.token)).await?;
        self.marked.remove(backup);
        Ok(())
    }
}

/// Of one expiry alone: none takes back the mark of another.
fn token() -> Result<String> {
    Ok(hex::encode(&random::<8>()?))
}

fn abandoned(claims: &[Claimed]) -> impl Iterator<Item = BackupId> + '_ {
    claims.iter().filter(|claim| !claim.is_resumable()).map(|claim| claim.backup.clone())
}

fn held(backup: &BackupId, by: &Claimed) -> Held {
    Held { backup: backup.clone(), by: by.backup.clone() }
}

impl Locked {
    /// What became of a deletion: `None` if the object is gone.
    pub(crate) fn of(object: &str, deleted: Result<()>) -> Result<Option<Locked>> {
        match deleted {
            Ok(()) => Ok(None),
            Err(failure) if is_kept(&failure) => {
                let why = failure.why.unwrap_or_default();
                let moment = |word: &str| {
                    word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).parse::<Timestamp>().ok()
                };
                let until = why.split_whitespace().find_map(moment);
                Ok(Some(Locked { object: object.to_owned(), until, why }))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The packs that nobody needs once these backups are gone, with their sizes.
///
/// The order matters: whoever wrote a pack that is listed here has a claim still, or has committed.
async fn garbage(
    repository: &Repository,
    cluster: ClusterId,
    removed: &Removed,
) -> Result<BTreeMap<PackId, u64>> {
    let listed = repository.store.list(&format!("{}/packs", cluster.folder())).await?;
    let packs: BTreeMap<PackId, u64> =
        listed.iter().filter_map(|info| Some((cluster.pack_of(&info.name)?, info.bytes))).collect();
    drop(listed);
    let claims = claims(repository, cluster).await?;
    let mut named = Named::default();
    for (backup, _) in catalogue::ids(repository, cluster).await? {
        if removed.backups.contains(&backup) {
            continue;
        }
        // One that cannot be read may name any pack: then nothing is deleted.
        if let Some(manifest) = Manifest::find(repository, cluster, &backup).await? {
            manifest.packs.iter().chain(&manifest.parts).for_each(|pack| named.insert(pack));
        }
    }
    let given_up = removed.backups.iter().chain(&removed.abandoned).cloned().collect();
    let needless = needless(packs.keys().cloned(), &named, &claims, &given_up);
    Ok(needless.into_iter().filter_map(|pack| packs.get(&pack).map(|bytes| (pack.clone(), *bytes))).collect())
}
