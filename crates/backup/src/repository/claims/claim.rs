//! The claim of a backup that runs: written first, renewed while it lives, removed after the commit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::{ALIVE, MARK_STALE, Note, SIGN_OF_LIFE, marks, seal_note};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::{Committed, ManifestWriter, Named};
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;
use crate::repository::store::Store;

/// How often a commit looks whether an expiry has given way.
const LOOK_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// A running backup's claim. Dropped without a commit, it stays in the store and goes silent: the backup was
/// interrupted, and the next one may take over its packs.
pub struct Claim {
    repository: Repository,
    cluster: ClusterId,
    backup: BackupId,
    note: Note,
    life: Arc<Life>,
    renewing: AbortHandle,
}

/// What is written again and again. The lock is held while it is written: an older note never overtakes.
struct Life {
    store: Store,
    name: String,
    sealed: Mutex<Bytes>,
}

impl Life {
    async fn renew(&self) -> Result<()> {
        let sealed = self.sealed.lock().await;
        self.store.replace(&self.name, sealed.clone()).await
    }

    async fn change(&self, bytes: Bytes) -> Result<()> {
        let mut sealed = self.sealed.lock().await;
        self.store.replace(&self.name, bytes.clone()).await?;
        *sealed = bytes;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Claim {
    /// Claims a backup's name before anything else of it is written, and holds what `note.uses` asks for as
    /// far as that can be had: [`Claim::uses`] tells. Needs a tokio runtime, for the signs of life.
    pub async fn begin(
        repository: &Repository,
        cluster: ClusterId,
        backup: &BackupId,
        note: Note,
    ) -> Result<Claim> {
        let name = format!("{}/{backup}", cluster.claims());
        let sealed = seal_note(repository, &name, &note)?;
        repository.store.create_new(&name, sealed.clone()).await?;
        let life = Arc::new(Life { store: repository.store.clone(), name, sealed: Mutex::new(sealed) });
        if !note.everything {
            // A store that replaces nothing would let the backup fail at its end. A copy can live with it.
            life.renew().await?;
        }
        let renewing = {
            let life = life.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SIGN_OF_LIFE.unsigned_abs()).await;
                    // A store that is away for a moment is no reason to stop. The commit looks what became
                    // of us.
                    let _ = life.renew().await;
                }
            })
        };
        let (repository, backup) = (repository.clone(), backup.clone());
        let renewing = renewing.abort_handle();
        let mut claim = Claim { repository, cluster, backup, note, life, renewing };
        claim.settle().await?;
        Ok(claim)
    }

    /// The backup.
    pub fn backup(&self) -> &BackupId {
        &self.backup
    }

    /// The backups that are held: nobody expires them, nor the packs that they name, while this claim lives.
    pub fn uses(&self) -> &[BackupId] {
        &self.note.uses
    }

    /// Holds other backups besides; says which of these can be had.
    pub async fn hold(&mut self, wanted: &[BackupId]) -> Result<Vec<BackupId>> {
        let new = wanted.iter().filter(|backup| !self.note.uses.contains(backup));
        let uses: Vec<BackupId> = self.note.uses.iter().chain(new).cloned().collect();
        self.write(uses).await?;
        self.settle().await?;
        Ok(wanted.iter().filter(|backup| self.note.uses.contains(backup)).cloned().collect())
    }

    /// The backup failed and will not go on: the next one need not wait until this claim has gone silent
    /// before it takes over what arrived. Where that cannot be written, it waits.
    pub async fn give_up(mut self) {
        self.renewing.abort();
        self.note.ended = true;
        let uses = std::mem::take(&mut self.note.uses);
        let _ = self.write(uses).await;
    }

    async fn write(&mut self, uses: Vec<BackupId>) -> Result<()> {
        self.note.uses = uses;
        self.life.change(seal_note(&self.repository, &self.life.name, &self.note)?).await
    }

    /// The claim is written: lets go of what an expiry has marked, or has removed already.
    async fn settle(&mut self) -> Result<()> {
        let marks = marks(&self.repository, self.cluster).await?;
        let store = &self.repository.store;
        let mut uses = Vec::new();
        for backup in &self.note.uses {
            let marked = marks.iter().any(|mark| mark.backup == *backup && mark.age <= MARK_STALE);
            let claim = format!("{}/{backup}", self.cluster.claims());
            let there = store.head(&self.cluster.manifest(backup)).await?.is_some()
                || store.head(&claim).await?.is_some();
            if there && !marked {
                uses.push(backup.clone());
            }
        }
        if uses != self.note.uses {
            self.write(uses).await?;
        }
        Ok(())
    }

    /// Commits the backup and ends the claim, unless a pack that it needs is gone: a machine may have slept
    /// for days while others took it for dead.
    pub async fn commit(self, mut manifest: ManifestWriter, header: &Header) -> Result<Committed> {
        manifest.put_parts().await?;
        let (name, named) = (self.cluster.manifest(&self.backup), manifest.named().clone());
        let committed = self.put_manifest(&name, &named, manifest.commit(header)).await?;
        self.end().await?;
        Ok(committed)
    }

    /// Puts the manifest of that name, unless a pack that it names is gone.
    pub(crate) async fn put_manifest<T>(
        &self,
        name: &str,
        named: &Named,
        put: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let renewed = self.life.renew().await;
        if !self.note.everything {
            renewed?;
        }
        let renewed = self.written(&self.life.name).await?;
        self.let_pass().await?;
        self.all_there(named).await?;
        let done = put.await?;
        // Was there time enough to take it for dead after that look?
        if self.written(name).await?.duration_since(renewed) >= ALIVE {
            self.let_pass().await?;
            if let Err(failure) = self.all_there(named).await {
                self.repository.store.delete(name).await?;
                return Err(failure);
            }
        }
        Ok(done)
    }

    /// Ends the claim of something that commits nothing itself.
    pub(crate) async fn release(self) -> Result<()> {
        self.end().await
    }

    /// When an object of this backup was written last.
    async fn written(&self, name: &str) -> Result<Timestamp> {
        let store = &self.repository.store;
        let missing =
            || Failure::new(text::backup::OBJECT_MISSING.with("store", store.url()).with("object", name));
        Ok(store.head(name).await?.ok_or_else(missing)?.modified)
    }

    /// The backup is there: its claim goes, and those of interrupted ones whose packs it took over.
    async fn end(&self) -> Result<()> {
        self.renewing.abort();
        // A sign of life that is being written is waited for: it would write the claim again.
        let _written = self.life.sealed.lock().await;
        let store = &self.repository.store;
        store.let_go(&self.life.name).await?;
        for backup in &self.note.uses {
            if store.head(&self.cluster.manifest(backup)).await?.is_none() {
                store.let_go(&format!("{}/{backup}", self.cluster.claims())).await?;
            }
        }
        Ok(())
    }

    /// Waits while an expiry is at work on this backup or on what it uses. It sees this claim and gives way,
    /// or has taken it for dead and ends.
    pub(crate) async fn let_pass(&self) -> Result<()> {
        loop {
            let ours = |backup: &BackupId| *backup == self.backup || self.note.uses(backup);
            let marks = marks(&self.repository, self.cluster).await?;
            if !marks.iter().any(|mark| mark.age < ALIVE && ours(&mark.backup)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn all_there(&self, named: &Named) -> Result<()> {
        let missing = named.missing(&self.repository, self.cluster).await?;
        let Some(first) = missing.first() else { return Ok(()) };
        if self.note.everything {
            let what = text::backup::COPY_LOST.with("store", self.repository.store.url());
            return Err(Failure::refused(what.with("object", self.cluster.pack(first)))
                .mended_by(text::backup::COPY_LOST_MEND));
        }
        let what = text::backup::CLAIM_LOST.with("backup", &self.backup).with("count", missing.len());
        Err(Failure::refused(what.with("object", self.cluster.pack(first)))
            .mended_by(text::backup::CLAIM_LOST_MEND))
    }
}
