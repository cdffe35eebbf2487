//! What the repository has of the cluster already: the maps of the last backup, and those of backups that
//! were interrupted after it.
//!
//! Maps are only compared with. One that cannot be read, or that names a pack which is gone, is as if it had
//! never been: its blocks are stored again, and the repository is whole once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::frames::FrameReader;
use crate::repository::layout::{ClusterId, PackId};
use crate::repository::manifest::{PackEntry, PieceAt};
use crate::repository::map::Piece;
use crate::repository::pack::FrameAt;

/// The map of an extent as an earlier backup left it.
pub(super) struct ParentPiece {
    pub(super) piece: Piece,
    /// Where it is.
    pub(super) pack: PackId,
    pub(super) frame: FrameAt,
    pub(super) offset: u32,
}

/// Maps to compare with.
pub(super) struct Parents {
    reader: FrameReader,
    /// The newest first.
    layers: Vec<Layer>,
    /// The packs that are there: which layer knows them, and where.
    packs: HashMap<PackId, (usize, usize)>,
    /// How many maps could not be used.
    lost: AtomicU64,
}

/// The maps of one backup.
pub(super) struct Layer {
    packs: Vec<PackEntry>,
    /// By path: the number of an extent, and where its map is.
    files: HashMap<String, Vec<(u32, PieceAt)>>,
}

impl Layer {
    /// Those of a backup that is complete.
    pub(super) fn of(manifest: Manifest) -> Layer {
        let files = manifest.files.into_iter().map(|file| (file.path, (0..).zip(file.extents).collect()));
        Layer { packs: manifest.packs, files: files.collect() }
    }

    /// Those that were found in packs one by one.
    pub(super) fn found(packs: Vec<PackEntry>, files: HashMap<String, Vec<(u32, PieceAt)>>) -> Layer {
        Layer { packs, files }
    }
}

impl Parents {
    /// `layers` from the newest to the oldest; `missing` are packs that they know and that are gone.
    pub(super) fn new(
        repository: &Repository,
        cluster: ClusterId,
        layers: Vec<Layer>,
        missing: &HashSet<PackId>,
    ) -> Parents {
        let mut packs = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            let there = layer.packs.iter().enumerate().filter(|(_, pack)| !missing.contains(&pack.id));
            packs.extend(there.map(|(at, pack)| (pack.id.clone(), (number, at))));
        }
        let reader = FrameReader::new(repository, cluster);
        Parents { reader, layers, packs, lost: AtomicU64::new(0) }
    }

    /// The map of an extent, if there is a usable one.
    pub(super) async fn piece(&self, path: &str, extent: u32) -> Option<Arc<ParentPiece>> {
        for layer in &self.layers {
            let extents = layer.files.get(path).map(Vec::as_slice).unwrap_or_default();
            // Extents come in order; an interrupted backup may lack some.
            let Ok(found) = extents.binary_search_by_key(&extent, |(extent, _)| *extent) else { continue };
            if let Some(piece) = self.read(layer, extents[found].1).await {
                return Some(Arc::new(piece));
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    async fn read(&self, layer: &Layer, at: PieceAt) -> Option<ParentPiece> {
        let pack = &layer.packs.get(at.pack as usize)?.id;
        if !self.packs.contains_key(pack) {
            return None;
        }
        let piece = self.reader.piece(&layer.packs, at).await.ok()?;
        let whole = piece.packs.iter().all(|pack| self.packs.contains_key(pack));
        let frame = FrameAt { offset: at.frame, stored: at.stored };
        whole.then(|| ParentPiece { piece, pack: pack.clone(), frame, offset: at.offset })
    }

    /// How many maps were there and could not be used.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// A pack that a map is in, or names.
    pub(super) fn pack(&self, id: &PackId) -> Option<&PackEntry> {
        let (layer, at) = self.packs.get(id)?;
        self.layers.get(*layer)?.packs.get(*at)
    }
}
