//! Who uses what: the claims of running backups and the marks of what is being expired.
//!
//! A backup writes its claim, *then* looks for marks; an expiry writes its marks, *then* looks for claims.
//! Whatever the order, one of the two sees the other and gives way. Ages are told by the store's clock alone.

mod claim;
mod expiry;
#[cfg(test)]
mod interleavings;
mod process;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::Repository;
use super::catalogue::Named;
use super::layout::{BackupId, ClusterId, PackId};
use super::pack::{Kind, Pack, PackWriter};
use crate::Result;

pub use claim::Claim;
pub use expiry::{Expiry, Held, Locked, Removed};
pub use process::Process;

/// How often a running backup gives a sign of life.
pub const SIGN_OF_LIFE: SignedDuration = SignedDuration::from_secs(30);
/// A backup whose last sign of life is older has died.
pub const ALIVE: SignedDuration = SignedDuration::from_mins(15);
/// What an interrupted backup had put is kept for the next one for this long after its last sign of life.
pub const RESUMABLE: SignedDuration = SignedDuration::from_hours(48);
/// A mark that is older was left by an expiry that died.
pub const MARK_STALE: SignedDuration = SignedDuration::from_hours(24);

/// What a claim tells people, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The environment of the strategy.
    pub environment: String,
    /// The machine that takes the backup.
    pub host: String,
    /// The process there.
    pub pid: u32,
    /// The version of the program.
    pub program: String,
    /// When the backup began, by that machine's clock.
    pub started: Timestamp,
    /// The backups whose maps it reads: its parent, and interrupted ones whose packs it takes over.
    pub uses: Vec<BackupId>,
    /// Whether it may use every backup: a copy that is being made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Whether it failed, and whoever wrote this knew that it will not go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// What tells on the machine of that process whether it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

impl Note {
    /// Whether it uses a backup.
    fn uses(&self, backup: &BackupId) -> bool {
        self.everything || self.uses.contains(backup)
    }
}

/// A claim, as another program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The backup that runs, or that was interrupted.
    pub backup: BackupId,
    /// The time since its last sign of life.
    pub silent_for: SignedDuration,
    /// What it says; `None` if it cannot be read. Then it may use anything.
    pub note: Option<Note>,
    /// Whether its process ran on this machine and runs no more.
    pub is_gone: bool,
}

impl Claimed {
    /// Whether the backup is running, as far as anybody can tell.
    pub fn is_alive(&self) -> bool {
        self.silent_for < ALIVE && !self.is_gone && !self.note.as_ref().is_some_and(|note| note.ended)
    }

    /// Whether what it had put is kept for the next backup.
    pub fn is_resumable(&self) -> bool {
        self.silent_for < RESUMABLE
    }

    /// Whether it keeps a backup from being expired: its own, or one that it uses.
    pub fn holds(&self, backup: &BackupId) -> bool {
        let uses = self.note.as_ref().is_none_or(|note| note.uses(backup));
        self.is_alive() && (self.backup == *backup || uses)
    }
}

/// A mark: an expiry is about to remove a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    backup: BackupId,
    /// Which expiry: random, so that one never takes back the mark of another.
    token: String,
    age: SignedDuration,
}

impl Mark {
    fn name(cluster: ClusterId, backup: &BackupId, token: &str) -> String {
        format!("{}/{backup}.{token}", cluster.expiring())
    }
}

/// Which of these packs nobody needs: no manifest names them, and no backup that runs, or could be resumed,
/// wrote them or uses what wrote them. `removed` are interrupted backups that are being given up.
pub fn needless(
    packs: impl IntoIterator<Item = PackId>,
    named: &Named,
    claims: &[Claimed],
    removed: &BTreeSet<BackupId>,
) -> Vec<PackId> {
    let kept = |backup: &BackupId| {
        claims.iter().any(|claim| {
            let wrote = claim.backup == *backup && claim.is_resumable() && !removed.contains(backup);
            wrote || claim.holds(backup)
        })
    };
    let mut known: BTreeMap<BackupId, bool> = BTreeMap::new();
    let mut needless = Vec::new();
    for pack in packs {
        let kept = *known.entry(pack.backup.clone()).or_insert_with_key(kept);
        if !kept && !named.contains(&pack) {
            needless.push(pack);
        }
    }
    needless
}

/// The claims of a cluster, oldest backup first.
pub async fn claims(repository: &Repository, cluster: ClusterId) -> Result<Vec<Claimed>> {
    let objects = repository.store.list(&cluster.claims()).await?;
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let now = repository.store.now().await?;
    let read = stream::iter(objects).map(|info| async move {
        let Some(backup) = last_part(&info.name).parse::<BackupId>().ok() else { return Ok(None) };
        // It may end while we look.
        let Some(bytes) = repository.store.get(&info.name).await? else { return Ok(None) };
        let note = read_note(repository, &info.name, bytes).ok();
        let is_gone = note.as_ref().and_then(|note| note.process.as_ref()).is_some_and(Process::is_gone);
        Ok(Some(Claimed { backup, silent_for: now.duration_since(info.modified), note, is_gone }))
    });
    read.buffered(4).try_filter_map(async |claim| Ok(claim)).try_collect().await
}

/// Backups that were interrupted and whose packs the next one can take over, oldest first.
pub async fn interrupted(repository: &Repository, cluster: ClusterId) -> Result<Vec<Claimed>> {
    let mut found = Vec::new();
    for claim in claims(repository, cluster).await? {
        let dead = !claim.is_alive() && claim.is_resumable();
        if dead && repository.store.head(&cluster.manifest(&claim.backup)).await?.is_none() {
            found.push(claim);
        }
    }
    Ok(found)
}

async fn marks(repository: &Repository, cluster: ClusterId) -> Result<Vec<Mark>> {
    let objects = repository.store.list(&cluster.expiring()).await?;
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let now = repository.store.now().await?;
    let mark = |info: &super::store::ObjectInfo| {
        let (backup, token) = last_part(&info.name).split_once('.')?;
        let age = now.duration_since(info.modified);
        Some(Mark { backup: backup.parse().ok()?, token: token.to_owned(), age })
    };
    Ok(objects.iter().filter_map(mark).collect())
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A small object of one frame: JSON, sealed like everything else.
fn seal_note<T: Serialize>(repository: &Repository, name: &str, note: &T) -> Result<bytes::Bytes> {
    let json = serde_json::to_vec(note)
        .map_err(|e| Failure::new(text::backup::SEAL.with("object", name)).because(e))?;
    let mut pack = PackWriter::new(&repository.keys, name, 1)?;
    pack.push(Kind::Data, &json, Vec::new())?;
    Ok(pack.finish()?.bytes)
}

fn read_note(repository: &Repository, name: &str, bytes: bytes::Bytes) -> Result<Note> {
    let pack = Pack::open(&repository.keys, name, bytes)?;
    let json = pack.frames(Kind::Data).next().transpose()?.unwrap_or_default();
    serde_json::from_slice(&json)
        .map_err(|e| Failure::new(text::backup::OBJECT_UNREADABLE.with("object", name)).because(e))
}

#[cfg(test)]
mod tests {
    use super::super::keys::KeyId;
    use super::super::manifest::PackEntry;
    use super::*;

    fn id(day: u32) -> BackupId {
        format!("202611{day:02}T030000Z-00ab").parse().unwrap()
    }

    fn claim(day: u32, minutes: i64, uses: &[u32]) -> Claimed {
        let note = Note {
            environment: "production".to_owned(),
            host: "backup-host".to_owned(),
            pid: 7,
            program: "0".to_owned(),
            started: Timestamp::UNIX_EPOCH,
            uses: uses.iter().copied().map(id).collect(),
            everything: false,
            ended: false,
            process: None,
        };
        let silent_for = SignedDuration::from_mins(minutes);
        Claimed { backup: id(day), silent_for, note: Some(note), is_gone: false }
    }

    fn days(packs: Vec<PackId>) -> Vec<String> {
        packs.iter().map(|pack| pack.backup.as_str()[6..8].to_owned()).collect()
    }

    #[test]
    fn a_claim_holds_what_it_uses_while_it_lives() {
        assert!(claim(9, 14, &[8]).holds(&id(8)));
        assert!(!Claimed { is_gone: true, ..claim(9, 0, &[8]) }.holds(&id(8)), "whatever it said last");
        assert!(claim(9, 14, &[8]).holds(&id(9)));
        assert!(!claim(9, 14, &[8]).holds(&id(7)));
        assert!(!claim(9, 15, &[8]).holds(&id(8)));
        let mut copying = claim(9, 14, &[]);
        copying.note.iter_mut().for_each(|note| note.everything = true);
        assert!(copying.holds(&id(7)), "a copy may use everything");
        let unreadable = Claimed { note: None, ..claim(9, 1, &[]) };
        assert!(unreadable.holds(&id(7)), "it may use anything");
    }

    #[test]
    fn packs_are_needless_only_when_nobody_can_come_for_them() {
        let pack = |day| PackId { backup: id(day), sequence: 0 };
        let packs = || (1..=6).map(pack);
        let mut named = Named::default();
        let entry = PackEntry { id: pack(1), key: KeyId([0; 16]), salt: [0; 32], bytes: 9, hash: [0; 32] };
        named.insert(&entry);
        let claims = [
            claim(2, 5, &[3]),       // runs, and uses 3
            claim(4, 47 * 60, &[6]), // interrupted, resumable; what it used is free again
            claim(5, 49 * 60, &[]),  // given up long ago
        ];
        assert_eq!(days(needless(packs(), &named, &claims, &BTreeSet::new())), ["05", "06"]);
        let removed = BTreeSet::from([id(2), id(4)]);
        assert_eq!(days(needless(packs(), &named, &claims, &removed)), ["04", "05", "06"], "2 is alive");
        assert_eq!(needless(packs(), &Named::default(), &[], &BTreeSet::new()).len(), 6);
    }
}
