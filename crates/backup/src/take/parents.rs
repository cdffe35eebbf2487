//! What the repository has of the cluster already: the maps of the last backup, and those of backups that
//! were interrupted after it.
//!
//! Maps are only compared with. One that cannot be read, or that names a pack which is gone, is as if it had
//! never been: its blocks are stored again, and the repository is whole once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use obyra_evidence::{Failure, text};

use crate::Result;
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
    /// By path.
    files: HashMap<String, Known>,
    /// Whether the backup is complete.
    complete: bool,
}

/// What a backup knows of a file.
#[derive(Default)]
pub(super) struct Known {
    /// Bytes; those of an interrupted backup may not know.
    pub(super) size: u64,
    /// The number of an extent, and where its map is, in order.
    pub(super) extents: Vec<(u32, PieceAt)>,
}

impl Layer {
    /// Those of a backup that is complete.
    pub(super) fn of(manifest: Manifest) -> Layer {
        let files = manifest.files.into_iter().map(|file| {
            let extents = (0..).zip(file.extents).collect();
            (file.path, Known { size: file.size, extents })
        });
        Layer { packs: manifest.packs, files: files.collect(), complete: true }
    }

    /// Those that were found in packs one by one.
    pub(super) fn found(packs: Vec<PackEntry>, files: HashMap<String, Known>) -> Layer {
        Layer { packs, files, complete: false }
    }
}

impl Layer {
    fn extent(&self, path: &str, extent: u32) -> Option<PieceAt> {
        let extents = &self.files.get(path)?.extents;
        // They come in order; an interrupted backup may lack some.
        let found = extents.binary_search_by_key(&extent, |(extent, _)| *extent).ok()?;
        Some(extents[found].1)
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
            let Some(at) = layer.extent(path, extent) else { continue };
            if let Some(piece) = self.read(layer, at).await {
                return Some(Arc::new(piece));
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    /// What the last complete backup knows of its files.
    pub(super) fn complete(&self) -> impl Iterator<Item = (&str, &Known)> {
        let files = self.last_complete().map(|layer| layer.files.iter());
        files.into_iter().flatten().map(|(path, known)| (path.as_str(), known))
    }

    /// The map of an extent as the last complete backup left it; `None` if it has no such extent.
    pub(super) async fn of_complete(&self, path: &str, extent: u32) -> Result<Option<Arc<ParentPiece>>> {
        let found = self.last_complete().and_then(|layer| Some((layer, layer.extent(path, extent)?)));
        let Some((layer, at)) = found else { return Ok(None) };
        match self.read(layer, at).await {
            Some(piece) => Ok(Some(Arc::new(piece))),
            None => Err(Failure::new(text::backup::TAKE_PARENT_MAP.with("path", path))),
        }
    }

    /// The oldest layer; those of interrupted backups lie above it.
    fn last_complete(&self) -> Option<&Layer> {
        self.layers.last().filter(|layer| layer.complete)
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
