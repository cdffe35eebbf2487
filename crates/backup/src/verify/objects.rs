//! Every object read again: the hash that it carries, its frames if there is a key, and whether the
//! repository has such objects at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Code, Failure, Progress, Severity, text};
use obyra_postgres::wal::{WalFileName, WalSegmentSize};

use super::{Known, Share, Verified};
use crate::Result;
use crate::repository::keys::{FOLDER as KEYS, Keyring};
use crate::repository::layout::{BackupId, CLUSTERS, ClusterId, REPOSITORY};
use crate::repository::pack::{self, Kind, Pack};
use crate::repository::store::{ObjectInfo, Store};
use crate::repository::{Marker, Repository};
use crate::wal::{PageCheck, WalObject, refusal};

/// Objects that are read at the same time: 16 MiB each, and what they unpack to.
const AT_ONCE: usize = 3;

/// What an object is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// `repository.json`.
    Marker,
    /// A wrapped key: an age file, or the open key.
    Key,
    /// A pack: pages, a manifest, WAL, a claim, a mark, a note about a way.
    Pack,
    /// Nothing that the format knows.
    Stranger,
}

/// The cluster that an object is of.
pub(super) fn cluster_of(name: &str) -> Option<ClusterId> {
    let rest = name.strip_prefix(CLUSTERS)?.strip_prefix('/')?;
    rest.split('/').next()?.parse().ok().map(ClusterId)
}

/// Everything that belongs to the repository.
pub(super) async fn listing(store: &Store) -> Result<Vec<ObjectInfo>> {
    let mut listed: Vec<ObjectInfo> = store.head(REPOSITORY).await?.into_iter().collect();
    if listed.is_empty() {
        return Err(Failure::new(text::backup::NO_REPOSITORY.with("store", store.url()))
            .mended_by(text::backup::NO_REPOSITORY_MEND));
    }
    listed.extend(store.list(KEYS).await?);
    listed.extend(store.list(CLUSTERS).await?);
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// Whether the format has objects of such names.
pub(crate) fn is_object(name: &str) -> bool {
    what(name, WalSegmentSize::SMALLEST) != What::Stranger
}

fn what(name: &str, size: WalSegmentSize) -> What {
    if name == REPOSITORY {
        return What::Marker;
    }
    if let Some(key) = name.strip_prefix(KEYS).and_then(|rest| rest.strip_prefix('/')) {
        return match key.rsplit_once('/') {
            Some((_, file)) if file == "open" || file.ends_with(".age") => What::Key,
            Some((_, file)) if file.ends_with(".way") => What::Pack,
            _ => What::Stranger,
        };
    }
    let Some(cluster) = cluster_of(name) else { return What::Stranger };
    let below = |folder: String| name.strip_prefix(&folder).and_then(|rest| rest.strip_prefix('/'));
    let is_backup = |id: &str| id.parse::<BackupId>().is_ok();
    let known = cluster.pack_of(name).is_some()
        || below(cluster.backups()).is_some_and(is_backup)
        || below(cluster.claims()).is_some_and(is_backup)
        || below(cluster.figures_folder()).is_some_and(is_backup)
        || below(cluster.expiring())
            .and_then(|mark| mark.split_once('.'))
            .is_some_and(|(id, _)| is_backup(id))
        || WalObject::parse(cluster, name, size).is_some();
    if known { What::Pack } else { What::Stranger }
}

/// A reading of the objects of a share.
pub(super) struct Reading<'a> {
    pub(super) store: &'a Store,
    /// The keys, and what the manifests say, where there is a key.
    pub(super) with: Option<(&'a Keyring, &'a Known)>,
    pub(super) share: &'a Share,
    pub(super) progress: &'a dyn Progress,
}

impl Reading<'_> {
    /// Reads the objects; returns the hashes of the packs that were read and are whole.
    pub(super) async fn run(
        &self,
        listed: &[ObjectInfo],
        verified: &mut Verified,
    ) -> BTreeMap<String, [u8; 32]> {
        let taken: Vec<&ObjectInfo> = listed.iter().filter(|info| self.share.takes(&info.name)).collect();
        let total = taken.iter().map(|info| info.bytes).sum();
        self.progress.begin(text::backup::VERIFYING.message(), Some(total));
        let mut hashes = BTreeMap::new();
        let looks = stream::iter(taken).map(|info| async move { (info, self.look(info).await) });
        let mut looks = looks.buffered(AT_ONCE);
        while let Some((info, looked)) = looks.next().await {
            match looked {
                Ok(None) => {}
                Ok(Some(looked)) => {
                    verified.objects += 1;
                    verified.bytes += info.bytes;
                    if let Some(hash) = looked.hash {
                        hashes.insert(info.name.clone(), hash);
                    }
                    if let Some((severity, message)) = looked.fault {
                        let known = self.with.filter(|_| severity == Severity::Error);
                        let backups = known.map_or_else(Vec::new, |(_, known)| known.concerns(&info.name));
                        verified.fault(severity, &info.name, message, backups);
                    }
                }
                Err(failure) => {
                    verified.stopped_by = Some(failure.to_string());
                    break;
                }
            }
            verified.stopped_after = Some(info.name.clone());
            self.progress.advance(info.bytes);
        }
        if verified.stopped_by.is_none() {
            verified.stopped_after = None;
        }
        self.progress.done();
        hashes
    }

    /// `None` if it is gone: parts are merged and claims end while we read.
    async fn look(&self, info: &ObjectInfo) -> Result<Option<Looked>> {
        let of = self.with.zip(cluster_of(&info.name));
        let of = of.and_then(|((_, known), cluster)| known.clusters.get(&cluster));
        let size = of.map_or(WalSegmentSize::SMALLEST, super::OfCluster::segment_size);
        let keys = self.with.map(|(keys, _)| keys.clone());
        Look { name: info.name.clone(), size, keys }.at(self.store, info).await
    }
}

/// One object to be looked at.
struct Look {
    name: String,
    size: WalSegmentSize,
    keys: Option<Keyring>,
}

#[derive(Default)]
struct Looked {
    hash: Option<[u8; 32]>,
    fault: Option<(Severity, obyra_evidence::Message)>,
}

impl Look {
    async fn at(self, store: &Store, info: &ObjectInfo) -> Result<Option<Looked>> {
        if what(&self.name, self.size) == What::Stranger {
            let message = text::backup::VERIFY_STRANGER.with("object", &self.name);
            return Ok(Some(Looked { hash: None, fault: Some((Severity::Warning, message)) }));
        }
        let Some(bytes) = store.get(&self.name).await? else { return Ok(None) };
        let (looked, look) = self.judged(bytes).await?;
        if looked.fault.is_none() {
            return Ok(Some(looked));
        }
        // Wrong in the store, or only on the way here?
        let Some(bytes) = store.get(&look.name).await? else { return Ok(None) };
        let (again, look) = look.judged(bytes).await?;
        if again.fault.is_some() {
            return Ok(Some(again));
        }
        let message = text::backup::VERIFY_ONCE.with("object", &look.name).with("bytes", info.bytes);
        Ok(Some(Looked { fault: Some((Severity::Warning, message)), ..again }))
    }

    async fn judged(self, bytes: Bytes) -> Result<(Looked, Look)> {
        let judging = tokio::task::spawn_blocking(move || {
            let looked = match self.judge(bytes) {
                Ok(hash) => Looked { hash, fault: None },
                Err((code, why)) => {
                    let message = code.with("object", &self.name).with("why", why);
                    Looked { hash: None, fault: Some((Severity::Error, message)) }
                }
            };
            (looked, self)
        });
        judging.await.map_err(|e| Failure::new(text::backup::COMPRESSION).because(e))
    }

    /// The hash of a whole pack; or the rule that is broken, and how.
    fn judge(&self, bytes: Bytes) -> std::result::Result<Option<[u8; 32]>, (Code, String)> {
        let damaged = || (text::backup::VERIFY_DAMAGED, String::new());
        match what(&self.name, self.size) {
            What::Marker if Marker::is_as_written(&bytes) => return Ok(None),
            What::Marker => return Err(damaged()),
            What::Key => {
                let is_age = bytes.starts_with(b"age-encryption.org/v1\n");
                let fits = is_age == self.name.ends_with(".age");
                return if fits && !bytes.is_empty() { Ok(None) } else { Err(damaged()) };
            }
            What::Pack | What::Stranger => {}
        }
        pack::check(&self.name, &bytes).map_err(|_| damaged())?;
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[bytes.len() - 32..]);
        if let Some(keys) = &self.keys {
            self.open(keys, bytes)?;
        }
        Ok(Some(hash))
    }

    /// Opens every frame; looks at each page of a segment of WAL.
    fn open(&self, keys: &Keyring, bytes: Bytes) -> std::result::Result<(), (Code, String)> {
        let sealed = |failure: Failure| match failure.what.code() {
            code if code == text::backup::KEY_MISSING => {
                (text::backup::VERIFY_KEY_MISSING, failure.to_string())
            }
            _ => (text::backup::VERIFY_SEAL, failure.to_string()),
        };
        let pack = Pack::open(keys, &self.name, bytes).map_err(sealed)?;
        let wal = cluster_of(&self.name).and_then(|cluster| {
            match WalObject::parse(cluster, &self.name, self.size)? {
                WalObject::File(WalFileName::Segment(segment)) => {
                    Some(PageCheck::new(cluster, segment, self.size))
                }
                _ => None,
            }
        });
        let mut segment = Vec::new();
        for entry in &pack.directory {
            let (kind, raw) = pack.frame(entry.at).map_err(sealed)?;
            if kind != entry.kind || raw.len() != entry.raw as usize {
                return Err((text::backup::VERIFY_SEAL, "its directory tells something else".to_owned()));
            }
            if wal.is_some() && kind == Kind::Wal {
                segment.extend_from_slice(&raw);
            }
        }
        match wal.map(|check| check.whole(&segment)) {
            Some(Err(fault)) => {
                let cluster = cluster_of(&self.name).unwrap_or(ClusterId(0));
                Err((text::backup::VERIFY_WAL, refusal(fault, &self.name, cluster).to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Holds the wrapped keys against the sealed notes about their ways.
pub(super) async fn keys(
    repository: &Repository,
    listed: &[ObjectInfo],
    verified: &mut Verified,
) -> Result<()> {
    let expected = repository.keys.wrapped(&repository.store).await?;
    for info in listed.iter().filter(|info| what(&info.name, WalSegmentSize::DEFAULT) == What::Key) {
        let Some(bytes) = repository.store.get(&info.name).await? else { continue };
        let found = *blake3::hash(&bytes).as_bytes();
        match expected.get(&info.name) {
            Some(hash) if *hash == found => {}
            Some(_) => {
                let message = text::backup::VERIFY_DAMAGED.with("object", &info.name);
                verified.fault(Severity::Error, &info.name, message, Vec::new());
            }
            None => {
                let message = text::backup::VERIFY_WAY.with("object", &info.name);
                verified.fault(Severity::Warning, &info.name, message, Vec::new());
            }
        }
    }
    for name in expected.keys().filter(|name| !listed.iter().any(|info| info.name == **name)) {
        let message = text::backup::VERIFY_MISSING.with("object", name);
        verified.fault(Severity::Error, name, message, Vec::new());
    }
    Ok(())
}
