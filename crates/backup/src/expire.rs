//! Expiry: what the retention lets go is removed, safe beside backups that run.
//!
//! Plan, then apply. Manifests go first, then the packs that nobody needs, then the WAL that no backup and
//! no window needs.

use jiff::Timestamp;
use obyra_evidence::Progress;
use obyra_postgres::wal::WalFileName;

use crate::Result;
use crate::holdings::Holdings;
use crate::policy::Policy;
use crate::repository::Repository;
use crate::repository::catalogue;
use crate::repository::claims::{self, Claimed, Expiry, Locked, Removed};
use crate::repository::layout::BackupId;
use crate::repository::store::ObjectInfo;
use crate::retention::{self, Decision};
use crate::wal::{self, WalObject};

/// What an expiry would do.
#[derive(Debug)]
pub struct Plan {
    /// The reasons of all that stays.
    pub decision: Decision,
    /// The backups that go, and their packs.
    pub backups: Removed,
    /// The WAL that goes.
    pub wal: Vec<ObjectInfo>,
}

impl Plan {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.backups.backups.is_empty() && self.backups.packs == 0 && self.wal.is_empty()
    }

    /// The bytes of the WAL that goes.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.iter().map(|object| object.bytes).sum()
    }
}

/// What an expiry did.
#[derive(Debug, Default)]
pub struct Expired {
    /// Backups and packs, and all that the store keeps, WAL among it.
    pub backups: Removed,
    /// Objects of the WAL archive that were removed.
    pub wal: u64,
    /// Their bytes.
    pub wal_bytes: u64,
}

/// Decides what goes. Nothing is removed.
pub async fn plan(
    repository: &Repository,
    holdings: &Holdings,
    policy: &Policy,
    now: Timestamp,
) -> Result<Plan> {
    let decision = retention::decide(&holdings.held(), policy, now);
    let wanted = expiring(&decision);
    let backups = Expiry::preview(repository, holdings.cluster, &wanted).await?;
    let wal = expiring_wal(repository, holdings, &decision).await?;
    Ok(Plan { decision, backups, wal })
}

/// Removes what the plan shows, and no more than a decision of this moment lets go.
pub async fn apply(
    repository: &Repository,
    plan: &Plan,
    holdings: &Holdings,
    progress: &dyn Progress,
) -> Result<Expired> {
    let wanted = expiring(&plan.decision);
    let expiry = Expiry::begin(repository, holdings.cluster, &wanted).await?;
    let mut expired = Expired { backups: expiry.run().await?, ..Expired::default() };
    // A backup that could not go keeps its WAL as well.
    let stays = |object: &ObjectInfo| {
        let stuck = wanted.iter().filter(|id| !expired.backups.backups.contains(id));
        let stuck = stuck.filter_map(|id| holdings.backups.iter().find(|kept| kept.header.id == *id));
        let mut ranges = stuck.map(|kept| (kept.header.timeline, kept.header.start, kept.header.stop));
        let size = holdings.wal.size();
        WalObject::parse(holdings.cluster, &object.name, size).is_none_or(|found| {
            segment_of(found).is_some_and(|segment| {
                ranges.any(|(timeline, start, stop)| {
                    segment.timeline.0 == timeline && segment.end(size) > start && segment.start(size) <= stop
                })
            })
        })
    };
    let wal =
        if plan.wal.is_empty() || others_at_work(repository, holdings).await? { &[][..] } else { &plan.wal };
    let going: Vec<&ObjectInfo> = wal.iter().filter(|object| !stays(object)).collect();
    for object in going {
        match Locked::of(&object.name, repository.store.delete(&object.name).await)? {
            Some(locked) => expired.backups.locked.push(locked),
            None => {
                expired.wal += 1;
                expired.wal_bytes += object.bytes;
            }
        }
        progress.advance(object.bytes);
    }
    Ok(expired)
}

/// Whether a backup runs, or has come since the holdings were read. It may have begun before the oldest of those
/// that the decision knows, and then needs WAL that nobody else does: all of it stays for the next time.
async fn others_at_work(repository: &Repository, holdings: &Holdings) -> Result<bool> {
    // In this order: a backup gives up its claim once its manifest is there.
    let claims = claims::claims(repository, holdings.cluster).await?;
    let there = catalogue::ids(repository, holdings.cluster).await?;
    Ok(claims.iter().any(Claimed::is_alive) || there.iter().any(|(id, _)| !holdings.knows(id)))
}

fn expiring(decision: &Decision) -> Vec<BackupId> {
    decision.verdicts.iter().filter(|verdict| verdict.expires()).map(|verdict| verdict.id.clone()).collect()
}

/// WAL older than anything that stays. Without a backup that can be restored nothing goes: the WAL may be
/// all that is left. Histories always stay; they are small, and recovery asks for them.
async fn expiring_wal(
    repository: &Repository,
    holdings: &Holdings,
    decision: &Decision,
) -> Result<Vec<ObjectInfo>> {
    if holdings.newest().is_none() {
        return Ok(Vec::new());
    }
    let size = holdings.wal.size();
    let objects = repository.store.list(&wal::folder(holdings.cluster)).await?;
    let goes = |object: &ObjectInfo| {
        let found = WalObject::parse(holdings.cluster, &object.name, size);
        found.and_then(segment_of).is_some_and(|segment| !decision.wal.keeps(&segment, size.bytes()))
    };
    Ok(objects.into_iter().filter(goes).collect())
}

fn segment_of(object: WalObject) -> Option<obyra_postgres::wal::SegmentName> {
    match object {
        WalObject::Part(part) => Some(part.segment),
        WalObject::File(WalFileName::Segment(segment) | WalFileName::Partial(segment)) => Some(segment),
        WalObject::File(WalFileName::Backup { segment, .. }) => Some(segment),
        WalObject::File(WalFileName::History(_)) => None,
    }
}
