//! Every block of every backup held against its identity, every manifest against the packs that it names.
//!
//! Backups share the map pieces of what did not change: each piece is looked at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Failure, Progress, Severity, text};

use super::{Seen, Share, Verified};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::frames::FrameReader;
use crate::repository::layout::{BLOCK, BackupId, ClusterId, EXTENT_BYTES, PackId};
use crate::repository::manifest::{FileEntry, PackEntry, PieceAt};
use crate::repository::map::{Identity, Piece, identity};
use crate::repository::pack::{FrameAt, Kind};

/// Extents that are looked at at the same time: 8 MiB each.
const AT_ONCE: usize = 4;

type PieceId = (PackId, u32, u32);

/// Verifies the backups of a cluster, newest first.
pub(super) async fn verify(
    repository: &Repository,
    cluster: ClusterId,
    seen: &Seen<'_>,
    verified: &mut Verified,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(of) = seen.known.clusters.get(&cluster) else { return Ok(()) };
    for parts in of.unreadable.values() {
        packs(cluster, parts, seen, verified);
    }
    let mut looked_at: HashSet<PieceId> = HashSet::new();
    for backup in of.named.keys().rev() {
        let manifest = match Manifest::find(repository, cluster, backup).await {
            Ok(Some(manifest)) => manifest,
            // Expired meanwhile.
            Ok(None) => continue,
            Err(failure) => return Err(failure),
        };
        let lost = packs(cluster, manifest.packs.iter().chain(&manifest.parts), seen, verified);
        progress
            .begin(text::backup::VERIFYING_BACKUP.with("backup", backup), Some(manifest.header.totals.bytes));
        let blocks = Blocks {
            reader: FrameReader::new(repository, cluster),
            key: repository.keys.identity_key(),
            cluster,
            backup: backup.clone(),
            by_id: manifest.packs.iter().map(|pack| (pack.id.clone(), pack)).collect(),
            manifest: &manifest,
            lost,
        };
        blocks.all(seen.share, &mut looked_at, verified, progress).await;
        progress.done();
    }
    Ok(())
}

/// Each pack that a manifest names is there, as it was named. Returns those that are not.
fn packs<'e>(
    cluster: ClusterId,
    named: impl IntoIterator<Item = &'e PackEntry>,
    seen: &Seen<'_>,
    verified: &mut Verified,
) -> BTreeSet<PackId> {
    let mut lost = BTreeSet::new();
    for pack in named {
        let name = cluster.pack(&pack.id);
        let message = match (seen.sizes.get(name.as_str()), seen.hashes.get(&name)) {
            (None, _) => text::backup::VERIFY_MISSING.with("object", &name),
            (Some(bytes), _) if *bytes != pack.bytes => text::backup::VERIFY_OTHER.with("object", &name),
            (_, Some(hash)) if *hash != pack.hash => text::backup::VERIFY_OTHER.with("object", &name),
            _ if verified.knows(&name) => {
                lost.insert(pack.id.clone());
                continue;
            }
            _ => continue,
        };
        lost.insert(pack.id.clone());
        if !verified.knows(&name) {
            verified.fault(Severity::Error, &name, message, seen.known.concerns(&name));
        }
    }
    lost
}

struct Blocks<'a> {
    reader: FrameReader,
    key: [u8; 32],
    cluster: ClusterId,
    backup: BackupId,
    manifest: &'a Manifest,
    by_id: BTreeMap<PackId, &'a PackEntry>,
    lost: BTreeSet<PackId>,
}

/// What is wrong with an extent: the object that it is laid to, and the words.
type Wrong = (String, obyra_evidence::Message);

impl Blocks<'_> {
    async fn all(
        &self,
        share: &Share,
        looked_at: &mut HashSet<PieceId>,
        verified: &mut Verified,
        progress: &dyn Progress,
    ) {
        let mut extents = Vec::new();
        for file in &self.manifest.files {
            for (number, at) in file.extents.iter().enumerate() {
                let bytes = (file.size - number as u64 * EXTENT_BYTES).min(EXTENT_BYTES);
                let pack = &self.manifest.packs[at.pack as usize].id;
                let piece = (pack.clone(), at.frame, at.offset);
                let chosen = share.takes(&format!("{}:{}:{}", self.cluster.pack(pack), at.frame, at.offset));
                if self.lost.contains(pack) || !chosen || !looked_at.insert(piece) {
                    progress.advance(bytes);
                    continue;
                }
                extents.push((file, *at, bytes));
            }
        }
        let mut looks = stream::iter(extents)
            .map(|(file, at, bytes)| async move { (bytes, self.extent(file, at, bytes).await) })
            .buffered(AT_ONCE);
        while let Some((bytes, looked)) = looks.next().await {
            match looked {
                Ok(blocks) => verified.blocks += blocks,
                Err((object, message)) => {
                    verified.fault(Severity::Error, &object, message, vec![self.backup.clone()]);
                }
            }
            progress.advance(bytes);
        }
    }

    /// Looks at the blocks of an extent; returns how many were kept somewhere.
    async fn extent(&self, file: &FileEntry, at: PieceAt, bytes: u64) -> std::result::Result<u64, Wrong> {
        let map = || self.cluster.pack(&self.manifest.packs[at.pack as usize].id);
        let in_map = |why: &dyn std::fmt::Display| {
            (map(), text::backup::VERIFY_MAP.with("object", map()).with("path", &file.path).with("why", why))
        };
        let piece = self.reader.piece(&self.manifest.packs, at).await.map_err(|e| in_map(&e))?;
        let blocks = bytes.div_ceil(BLOCK as u64);
        if piece.identities.len() as u64 != blocks {
            return Err(in_map(&format!("{} blocks of {blocks}", piece.identities.len())));
        }
        let mut wanted: BTreeMap<u16, Vec<Wanted>> = BTreeMap::new();
        let mut block = 0;
        for run in &piece.runs {
            if let Some(kept) = run.kept {
                for n in 0..u32::from(run.blocks) {
                    let length = (bytes - u64::from(block + n) * BLOCK as u64).min(BLOCK as u64) as usize;
                    let offset = kept.offset as usize + n as usize * BLOCK;
                    let identity = piece.identities[(block + n) as usize];
                    let wanted_of = wanted.entry(kept.pack).or_default();
                    wanted_of.push(Wanted { frame: kept.frame, offset, length, identity, block: block + n });
                }
            }
            block += u32::from(run.blocks);
        }
        let mut kept = 0;
        for (pack, wanted) in wanted {
            kept += wanted.len() as u64;
            self.blocks_of(&piece, pack, wanted, file).await?;
        }
        Ok(kept)
    }

    async fn blocks_of(
        &self,
        piece: &Piece,
        pack: u16,
        wanted: Vec<Wanted>,
        file: &FileEntry,
    ) -> std::result::Result<(), Wrong> {
        let id = &piece.packs[usize::from(pack)];
        let name = self.cluster.pack(id);
        if self.lost.contains(id) {
            return Ok(());
        }
        let Some(entry) = self.by_id.get(id) else {
            let message = text::backup::VERIFY_UNNAMED.with("object", &name).with("path", &file.path);
            return Err((self.cluster.manifest(&self.backup), message.with("backup", &self.backup)));
        };
        let frames: BTreeSet<(u32, u32)> =
            wanted.iter().map(|wanted| (wanted.frame.offset, wanted.frame.stored)).collect();
        let frames: Vec<FrameAt> =
            frames.into_iter().map(|(offset, stored)| FrameAt { offset, stored }).collect();
        let unreadable = |e: Failure| {
            (name.clone(), text::backup::VERIFY_SEAL.with("object", &name).with("why", e.to_string()))
        };
        let stored = self.reader.fetch(entry, &frames).await.map_err(unreadable)?;
        let opener = self.reader.opener(entry).map_err(unreadable)?;
        let key = self.key;
        let judging = tokio::task::spawn_blocking(move || {
            let mut raw = Vec::new();
            for (at, stored) in frames.iter().zip(&stored) {
                let kind = opener.open_into(*at, stored, &mut raw)?;
                for wanted in wanted.iter().filter(|wanted| wanted.frame == *at) {
                    let block = raw.get(wanted.offset..wanted.offset + wanted.length);
                    let same = block.is_some_and(|block| identity(&key, block) == wanted.identity);
                    if kind != Kind::Blocks || !same {
                        return Ok(Some(wanted.block));
                    }
                }
            }
            Ok(None)
        });
        let judged = judging.await.map_err(|e| Failure::new(text::backup::COMPRESSION).because(e));
        match judged.and_then(|judged| judged).map_err(unreadable)? {
            None => Ok(()),
            Some(block) => {
                let message = text::backup::VERIFY_BLOCK.with("object", &name).with("path", &file.path);
                Err((name.clone(), message.with("block", block)))
            }
        }
    }
}

/// A block that a map promises.
struct Wanted {
    frame: FrameAt,
    offset: usize,
    length: usize,
    identity: Identity,
    /// Its number in the extent.
    block: u32,
}
