//! What a running backup knows of its result: the files, where the maps of their extents came to be, the
//! packs that these name, and the blocks that are not what they should be.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use obyra_evidence::{Failure, text};
use obyra_postgres::wal::Lsn;

use super::parents::{ParentPiece, Parents};
use crate::Result;
use crate::repository::layout::{EXTENT_BYTES, PackId};
use crate::repository::manifest::{DamagedBlock, Directory, FileEntry, PackEntry, PieceAt};
use crate::repository::pack::FrameAt;

/// More damaged blocks than this are counted, not listed.
const DAMAGED_LISTED: usize = 10_000;

/// A file of the census, by its number.
pub(super) type FileId = u32;

/// A file's extent, by its number.
pub(super) type ExtentId = (FileId, u32);

/// The census, shared by whoever takes part in the backup.
#[derive(Default)]
pub(super) struct Census(Mutex<Counted>);

/// What was counted.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) directories: Vec<Directory>,
    /// Those that vanished while they were read are `None`.
    pub(super) files: Vec<Option<FileEntry>>,
    pub(super) packs: Packs,
    pub(super) damaged: Vec<DamagedBlock>,
    /// Damaged blocks that found no place in the list.
    pub(super) damaged_more: u64,
    /// Wrong checksums that the WAL will mend, unless the page's position lies beyond the backup's end.
    suspects: Vec<(DamagedBlock, Lsn)>,
    /// Bytes that were put into the store.
    pub(super) stored: u64,
}

/// The packs that the maps of this backup are in, or name: in the order of their first mention, which is
/// that of the manifest.
#[derive(Default)]
pub(super) struct Packs {
    places: HashMap<PackId, u32>,
    ids: Vec<PackId>,
    /// The entries of those that this backup has put.
    put: HashMap<PackId, PackEntry>,
}

/// Where the map piece of an extent is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    pub(super) extent: ExtentId,
    /// Offset in the unpacked frame.
    pub(super) offset: u32,
}

impl Census {
    /// For a moment, alone.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the end.
    pub(super) fn take(&self) -> Counted {
        std::mem::take(&mut *self.lock())
    }
}

impl Counted {
    /// Adds a file; the maps of its extents are to follow.
    pub(super) fn file(&mut self, path: String, mode: u32, size: u64) -> FileId {
        let extents = usize::try_from(size.div_ceil(EXTENT_BYTES)).unwrap_or(usize::MAX);
        let extents = vec![PieceAt { pack: u32::MAX, frame: 0, stored: 0, offset: 0 }; extents];
        self.files.push(Some(FileEntry { path, mode, size, extents }));
        // A cluster of four thousand million files does not exist.
        (self.files.len() - 1) as FileId
    }

    /// Takes a file out again.
    pub(super) fn vanished(&mut self, file: FileId) {
        if let Some(file) = self.files.get_mut(file as usize) {
            *file = None;
        }
    }

    /// A file's path; empty if it vanished.
    pub(super) fn path(&self, file: FileId) -> &str {
        self.files.get(file as usize).and_then(Option::as_ref).map_or("", |file| &file.path)
    }

    /// The pieces of these extents lie in a frame of a pack of this backup.
    pub(super) fn described(&mut self, pack: &PackId, frame: FrameAt, pieces: &[Described]) {
        let pack = self.packs.place(pack);
        for Described { extent, offset } in pieces {
            let at = PieceAt { pack, frame: frame.offset, stored: frame.stored, offset: *offset };
            self.piece(*extent, at);
        }
    }

    /// An extent is what it was: its piece stays where it is, and so do the packs that this names.
    pub(super) fn unchanged(&mut self, extent: ExtentId, parent: &ParentPiece) {
        let pack = self.packs.place(&parent.pack);
        let FrameAt { offset: frame, stored } = parent.frame;
        self.piece(extent, PieceAt { pack, frame, stored, offset: parent.offset });
        self.named(&parent.piece.packs);
    }

    /// Packs that a map names.
    pub(super) fn named(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.packs.place(pack);
        }
    }

    fn piece(&mut self, (file, extent): ExtentId, at: PieceAt) {
        // A file that vanished meanwhile has no maps.
        if let Some(Some(file)) = self.files.get_mut(file as usize) {
            file.extents[extent as usize] = at;
        }
    }

    /// A pack is in the store.
    pub(super) fn put(&mut self, entry: PackEntry) {
        self.stored += entry.bytes;
        self.packs.put.insert(entry.id.clone(), entry);
    }

    /// A block of a file is damaged.
    pub(super) fn damaged(&mut self, file: FileId, block: u32) {
        let path = self.path(file).to_owned();
        self.damage(DamagedBlock { path, block });
    }

    /// A block was read while it was written, or its header is damaged: the end of the backup will tell.
    pub(super) fn suspect(&mut self, file: FileId, block: u32, lsn: Lsn) {
        let path = self.path(file).to_owned();
        self.suspects.push((DamagedBlock { path, block }, lsn));
    }

    fn damage(&mut self, block: DamagedBlock) {
        if self.damaged.len() < DAMAGED_LISTED {
            self.damaged.push(block);
        } else {
            self.damaged_more += 1;
        }
    }

    /// The backup ends here: a page that claims to be from later was not torn but is damaged.
    pub(super) fn judge_suspects(&mut self, stop: Lsn) {
        for (block, lsn) in std::mem::take(&mut self.suspects) {
            if lsn > stop {
                self.damage(block);
            }
        }
        self.damaged.sort_by(|a, b| (&a.path, a.block).cmp(&(&b.path, b.block)));
    }

    /// Whether the map of every extent is known.
    pub(super) fn check(&self) -> Result<()> {
        let unknown = |file: &&FileEntry| file.extents.iter().any(|at| at.pack == u32::MAX);
        match self.files.iter().flatten().find(unknown) {
            None => Ok(()),
            Some(file) => Err(Failure::new(text::backup::TAKE_MAP_MISSING.with("path", &file.path))),
        }
    }
}

impl Packs {
    fn place(&mut self, pack: &PackId) -> u32 {
        if let Some(place) = self.places.get(pack) {
            return *place;
        }
        let place = self.ids.len() as u32;
        self.ids.push(pack.clone());
        self.places.insert(pack.clone(), place);
        place
    }

    /// All, in the manifest's order; `parents` know those that this backup has not put.
    pub(super) fn entries<'a>(&'a self, parents: &'a Parents) -> impl Iterator<Item = Result<&'a PackEntry>> {
        self.ids.iter().map(|id| {
            let entry = self.put.get(id).or_else(|| parents.pack(id));
            let object = || format!("{}/{:08}", id.backup, id.sequence);
            entry.ok_or_else(|| Failure::new(text::backup::TAKE_PACK_UNKNOWN.with("object", object())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_torn_is_mended_by_the_log_unless_it_claims_to_be_of_later() {
        let mut counted = Counted::default();
        let file = counted.file("base/5/1".to_owned(), 0o600, 8192 * 9);
        counted.suspect(file, 3, Lsn(100));
        counted.suspect(file, 7, Lsn(101));
        counted.judge_suspects(Lsn(100));
        assert_eq!(counted.damaged, [DamagedBlock { path: "base/5/1".to_owned(), block: 7 }]);
    }

    #[test]
    fn a_file_whose_map_is_missing_ends_the_backup() {
        let mut counted = Counted::default();
        let file = counted.file("base/5/1".to_owned(), 0o600, 8192);
        assert!(counted.check().is_err());
        counted.vanished(file);
        assert!(counted.check().is_ok(), "one that vanished needs none");
    }
}
