//! A second repository with the same content: copied backup by backup, and what one has lost brought back
//! from the other.
//!
//! Objects are copied sealed as they are, each read under its name first. A manifest goes last, once all
//! that it names is there: every backup of the copy is whole at every moment, wherever a copy stopped.

mod repair;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::wal::{WalFileName, WalSegmentSize};
use serde::Serialize;

use crate::Result;
use crate::repository::catalogue::{self, Manifest};
use crate::repository::claims::{Claim, Note};
use crate::repository::layout::{BackupId, ClusterId, REPOSITORY};
use crate::repository::manifest::PackEntry;
use crate::repository::store::{Created, Store};
use crate::repository::{Marker, Repository, keys, pack};
use crate::wal::{self, WalObject};

pub use repair::{Repaired, repair};

/// Objects that are copied at the same time, 16 MiB each.
const AT_ONCE: usize = 4;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The backups that are new in the copy.
    pub backups: Vec<BackupId>,
    /// Objects that were missing in the copy, manifests among them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Backups, and objects of the WAL archive, that the copy had already.
    pub present: u64,
    /// Objects of the copy that were not as written, and were written again.
    pub mended: Vec<String>,
    /// Objects that are damaged or missing in the repository itself, and could not be copied.
    pub damaged: Vec<String>,
    /// The backups that are not in the copy because of that.
    pub left_out: Vec<BackupId>,
    /// The ways to open the copy that were removed, as they were from the repository.
    pub ways_removed: Vec<String>,
}

impl Copied {
    /// Whether the copy holds all that the repository does.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.left_out.is_empty()
    }
}

/// Copies everything that the copy lacks. `note` tells people who copies, and when it began: the copy's own
/// expiry gives way to it.
pub async fn run(from: &Repository, to: &Store, note: Note, progress: &dyn Progress) -> Result<Copied> {
    if from.store.url() == to.url() {
        let what = text::backup::COPY_ITSELF.with("store", to.url());
        return Err(Failure::usage(what).mended_by(text::backup::COPY_ANOTHER_MEND));
    }
    let mut copied = Copied::default();
    let mirrored = keys::mirror(from, to).await?;
    copied.ways_removed = mirrored.removed;
    copied.damaged = mirrored.damaged;
    mark(from, to).await?;
    let there = Repository { store: to.clone(), keys: from.keys.clone() };
    for cluster in from.clusters().await? {
        let id = BackupId::new(note.started, u16::from_le_bytes(keys::random()?));
        let claim = Claim::begin(&there, cluster, &id, Note { everything: true, ..note.clone() }).await?;
        let mut copying = Copying { from, to: &there, cluster, claim: &claim, copied: &mut copied, progress };
        let done = copying.all().await;
        let released = claim.release().await;
        done.and(released)?;
    }
    Ok(copied)
}

/// What this folder is: the same that the repository is.
async fn mark(from: &Repository, to: &Store) -> Result<()> {
    let marker = from.store.must_get(REPOSITORY).await?;
    Marker::parse(&marker)?;
    if to.create(REPOSITORY, marker.clone()).await? == Created::New {
        return Ok(());
    }
    match Marker::parse(&to.must_get(REPOSITORY).await?) {
        // Of a newer format: not ours to touch.
        Err(failure) if failure.what.code() == text::backup::NEWER_FORMAT => Err(failure),
        _ => to.replace(REPOSITORY, marker).await,
    }
}

struct Copying<'a> {
    from: &'a Repository,
    to: &'a Repository,
    cluster: ClusterId,
    claim: &'a Claim,
    copied: &'a mut Copied,
    progress: &'a dyn Progress,
}

/// What became of one object.
enum Moved {
    New,
    Present,
    Mended,
    /// Not as it was written, or not there, in the repository itself.
    Damaged,
}

impl Copying<'_> {
    async fn all(&mut self) -> Result<()> {
        // An expiry of the copy that began before the claim ends first; later ones see it.
        self.claim.let_pass().await?;
        // Listed before the WAL: a backup that is listed has all of its own there.
        let backups = catalogue::ids(self.from, self.cluster).await?;
        self.folder(&wal::folder(self.cluster)).await?;
        let there: BTreeMap<BackupId, u64> = catalogue::ids(self.to, self.cluster)
            .await?
            .into_iter()
            .map(|(id, info)| (id, info.bytes))
            .collect();
        for (backup, info) in backups {
            if there.get(&backup) == Some(&info.bytes) {
                self.copied.present += 1;
            } else {
                self.backup(&backup).await?;
            }
        }
        self.folder(&self.cluster.figures_folder()).await?;
        self.drop_parts().await
    }

    /// Copies what a backup needs, then its manifest.
    async fn backup(&mut self, backup: &BackupId) -> Result<()> {
        let name = self.cluster.manifest(backup);
        let Some(manifest) = self.manifest(backup).await? else { return Ok(()) };
        let named = manifest.named();
        let lacking = named.missing(self.to, self.cluster).await?;
        let entries: BTreeMap<_, _> =
            manifest.packs.iter().chain(&manifest.parts).map(|entry| (&entry.id, entry)).collect();
        let lacking: Vec<&PackEntry> = lacking.iter().filter_map(|id| entries.get(id).copied()).collect();
        let total = lacking.iter().map(|entry| entry.bytes).sum();
        self.progress.begin(text::backup::COPYING.with("backup", backup), Some(total));
        let (from, to, cluster) = (self.from, self.to, self.cluster);
        let moves = stream::iter(lacking).map(|entry| async move {
            let name = cluster.pack(&entry.id);
            let moved = object(from, to, &name, Some(&entry.hash)).await?;
            Ok::<_, Failure>((name, entry.bytes, moved))
        });
        let mut moves = moves.buffer_unordered(AT_ONCE);
        let damaged_before = self.copied.damaged.len();
        while let Some((name, bytes, moved)) = moves.try_next().await? {
            self.copied.count(name, bytes, moved);
            self.progress.advance(bytes);
        }
        self.progress.done();
        if self.copied.damaged.len() > damaged_before {
            // Damaged, or expired while it was copied?
            if from.store.head(&name).await?.is_some() {
                self.copied.left_out.push(backup.clone());
            } else {
                self.copied.damaged.truncate(damaged_before);
            }
            return Ok(());
        }
        let put = object(from, to, &name, None);
        match self.claim.put_manifest(&name, &named, put).await? {
            Moved::Damaged => {}
            moved => {
                let bytes = to.store.head(&name).await?.map_or(0, |info| info.bytes);
                self.copied.count(name, bytes, moved);
                self.copied.backups.push(backup.clone());
            }
        }
        Ok(())
    }

    /// The manifest of a backup; `None` if it has expired, or cannot be read.
    async fn manifest(&mut self, backup: &BackupId) -> Result<Option<Manifest>> {
        let failure = match Manifest::find(self.from, self.cluster, backup).await {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        let name = self.cluster.manifest(backup);
        if self.from.store.head(&name).await?.is_none() {
            return Ok(None);
        }
        if !is_wrong(&failure) {
            return Err(failure);
        }
        // The failure tells which object it is: the manifest, or a part of it.
        let object = failure.what.fields().get("object").cloned();
        self.copied.damaged.push(object.unwrap_or(name));
        self.copied.left_out.push(backup.clone());
        Ok(None)
    }

    /// Copies the packs of a folder that no manifest names.
    async fn folder(&mut self, folder: &str) -> Result<()> {
        let listed = self.from.store.list(folder).await?;
        let there = self.to.store.list(folder).await?;
        let there: BTreeMap<&str, u64> = there.iter().map(|info| (info.name.as_str(), info.bytes)).collect();
        let (present, lacking): (Vec<_>, Vec<_>) =
            listed.iter().partition(|info| there.get(info.name.as_str()) == Some(&info.bytes));
        self.copied.present += present.len() as u64;
        if lacking.is_empty() {
            return Ok(());
        }
        let total = lacking.iter().map(|info| info.bytes).sum();
        self.progress.begin(text::backup::COPYING_FOLDER.with("folder", folder), Some(total));
        let (from, to) = (self.from, self.to);
        let moves = stream::iter(lacking)
            .map(|info| async move { object(from, to, &info.name, None).await.map(|moved| (info, moved)) });
        let mut moves = moves.buffer_unordered(AT_ONCE);
        while let Some((info, moved)) = moves.try_next().await? {
            // Parts are merged, and what has expired goes, while we copy.
            if !matches!(moved, Moved::Damaged) || from.store.head(&info.name).await?.is_some() {
                self.copied.count(info.name.clone(), info.bytes, moved);
            }
            self.progress.advance(info.bytes);
        }
        self.progress.done();
        Ok(())
    }

    /// Removes the parts of segments of which the copy has the whole now.
    async fn drop_parts(&self) -> Result<()> {
        let store = &self.to.store;
        let mut whole: Option<String> = None;
        // A segment sorts before its parts.
        for info in store.list(&wal::folder(self.cluster)).await? {
            match WalObject::parse(self.cluster, &info.name, WalSegmentSize::SMALLEST) {
                Some(WalObject::File(WalFileName::Segment(_))) => whole = Some(info.name),
                Some(WalObject::Part(_)) => {
                    let of = info.name.split('.').next();
                    if of == whole.as_deref() {
                        store.let_go(&info.name).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Copied {
    fn count(&mut self, name: String, bytes: u64, moved: Moved) {
        match moved {
            Moved::Present => self.present += 1,
            Moved::Mended => self.mended.push(name),
            Moved::Damaged => self.damaged.push(name),
            Moved::New => {
                self.objects += 1;
                self.bytes += bytes;
            }
        }
    }
}

/// Copies one object, which must have that hash if one is given.
async fn object(from: &Repository, to: &Repository, name: &str, hash: Option<&[u8; 32]>) -> Result<Moved> {
    let Some(bytes) = genuine(from, name, hash).await? else { return Ok(Moved::Damaged) };
    if to.store.create(name, bytes.clone()).await? == Created::New {
        return Ok(Moved::New);
    }
    // Something else lies there: sealed by somebody who wrote the same into both, or damaged.
    if hash.is_none() && genuine(to, name, None).await?.is_some() {
        return Ok(Moved::Present);
    }
    to.store.replace(name, bytes).await?;
    Ok(Moved::Mended)
}

/// A pack that opens under its name, and has the hash, if one is given; `None` if it does not, or is not
/// there. It is read twice before it is given up: it may have been damaged on the way.
async fn genuine(repository: &Repository, name: &str, hash: Option<&[u8; 32]>) -> Result<Option<Bytes>> {
    for _ in 0..2 {
        let Some(bytes) = repository.store.get(name).await? else { return Ok(None) };
        let (keys, object, whole) = (repository.keys.clone(), name.to_owned(), bytes.clone());
        let opening = tokio::task::spawn_blocking(move || pack::Pack::open(&keys, &object, whole));
        match opening.await.map_err(|e| Failure::new(text::backup::COMPRESSION).because(e))? {
            Ok(pack) if hash.is_none_or(|hash| pack.hash == *hash) => return Ok(Some(bytes)),
            Err(failure) if !is_wrong(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(None)
}

/// Whether an object is wrong or missing, and not a store that fails. The keyring opens every key that the
/// repository has: what is sealed with another is not of it.
fn is_wrong(failure: &Failure) -> bool {
    let codes = [text::backup::OBJECT_MISSING, text::backup::KEY_MISSING];
    pack::is_damage(failure) || codes.contains(&failure.what.code())
}
