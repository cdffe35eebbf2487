//! Reads single frames of the packs that a manifest names: map pieces one by one, blocks in large ranges.
//!
//! Reading is asynchronous and copies nothing; opening is work for a processor and is left to whoever has
//! threads for it. A few frames that were opened last are kept, since pieces come in the order of files.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use obyra_evidence::{Failure, text};

use super::Repository;
use super::layout::{ClusterId, PackId};
use super::manifest::{PackEntry, PieceAt};
use super::map::Piece;
use super::pack::{self, Entry, FOOTER, Footer, FrameAt, FrameOpener, HEADER, Kind, twice};
use crate::Result;

/// Frames that are no further apart than this are read in one range: a request costs more than the bytes.
const GAP: u64 = 256 << 10;
/// The most that one range reads.
const RANGE_MAX: u64 = 8 << 20;
/// The end of a pack, in which its directory usually is.
const TAIL: u64 = 64 << 10;
/// Ranges of one pack that are read at the same time.
const RANGES: usize = 4;
/// Opened frames that are kept: 1 MiB each at the most, as map pieces are written.
const KEPT_FRAMES: usize = 16;
/// Openers that are kept: a key and a name each.
const KEPT_OPENERS: usize = 256;

/// Reads frames of one cluster's packs.
pub struct FrameReader {
    repository: Repository,
    cluster: ClusterId,
    openers: Recent<PackId, Arc<FrameOpener>>,
    frames: Recent<(PackId, FrameAt), Arc<Vec<u8>>>,
}

impl FrameReader {
    /// For the packs of a cluster.
    pub fn new(repository: &Repository, cluster: ClusterId) -> FrameReader {
        FrameReader {
            repository: repository.clone(),
            cluster,
            openers: Recent::new(KEPT_OPENERS),
            frames: Recent::new(KEPT_FRAMES),
        }
    }

    /// What opens the frames of a pack.
    pub fn opener(&self, pack: &PackEntry) -> Result<Arc<FrameOpener>> {
        if let Some(opener) = self.openers.get(&pack.id) {
            return Ok(opener);
        }
        let name = self.cluster.pack(&pack.id);
        let opener = Arc::new(FrameOpener::new(&self.repository.keys, &name, &pack.seal())?);
        self.openers.keep(pack.id.clone(), opener.clone());
        Ok(opener)
    }

    /// The stored bytes of frames of one pack, in the order in which they were asked for. Neighbours are
    /// read together and share their memory.
    pub async fn fetch(&self, pack: &PackEntry, frames: &[FrameAt]) -> Result<Vec<Bytes>> {
        let name = self.cluster.pack(&pack.id);
        for at in frames {
            if end(*at) > pack.bytes {
                return Err(damaged(&name, *at));
            }
        }
        let ranges = coalesce(frames);
        let read = stream::iter(ranges.clone()).map(|range| self.repository.store.get_range(&name, range));
        let read: Vec<Bytes> = read.buffered(RANGES).try_collect().await?;
        let slice = |at: &FrameAt| {
            let found = ranges.partition_point(|range| range.start <= u64::from(at.offset)) - 1;
            let from = (u64::from(at.offset) - ranges[found].start) as usize;
            let to = from + at.stored as usize;
            if read[found].len() < to { Err(damaged(&name, *at)) } else { Ok(read[found].slice(from..to)) }
        };
        frames.iter().map(slice).collect()
    }

    /// One opened frame, which must be of that kind. Those opened last are kept.
    pub async fn frame(&self, kind: Kind, pack: &PackEntry, at: FrameAt) -> Result<Arc<Vec<u8>>> {
        let key = (pack.id.clone(), at);
        if let Some(frame) = self.frames.get(&key) {
            return Ok(frame);
        }
        let opened = twice(|| async {
            let stored = self.fetch(pack, &[at]).await?;
            self.opener(pack)?.open(at, &stored[0])
        });
        let (found, raw) = opened.await?;
        if found != kind {
            return Err(damaged(&self.cluster.pack(&pack.id), at));
        }
        let frame = Arc::new(raw);
        self.frames.keep(key, frame.clone());
        Ok(frame)
    }

    /// The directory of a pack that no manifest names, and what a manifest would say of it; `bytes` is its
    /// size in the store.
    pub async fn directory(&self, id: PackId, bytes: u64) -> Result<(PackEntry, Vec<Entry>)> {
        let name = self.cluster.pack(&id);
        let store = &self.repository.store;
        let ends = HEADER as u64 + FOOTER as u64;
        if bytes < ends {
            return Err(pack::damaged(&name));
        }
        let seal = pack::seal_of(&name, &store.get_range(&name, 0..HEADER as u64).await?)?;
        let from = bytes.saturating_sub(TAIL).max(HEADER as u64);
        let mut tail = store.get_range(&name, from..bytes).await?;
        let Footer { directory, hash } = pack::footer(&name, &tail)?;
        if !(HEADER as u64..bytes - FOOTER as u64).contains(&directory) {
            return Err(pack::damaged(&name));
        }
        if directory < from {
            tail = store.get_range(&name, directory..bytes).await?;
        }
        // An object that is shorter than it was listed gives less than was asked for.
        let behind = usize::try_from(bytes - directory).ok();
        let from = behind.and_then(|behind| tail.len().checked_sub(behind));
        let stored = from.and_then(|from| tail.get(from..tail.len().checked_sub(FOOTER)?));
        let stored = stored.ok_or_else(|| pack::damaged(&name))?;
        let (offset, length) = (u32::try_from(directory), u32::try_from(stored.len()));
        let (Ok(offset), Ok(stored_bytes)) = (offset, length) else { return Err(pack::damaged(&name)) };
        let at = FrameAt { offset, stored: stored_bytes };
        let entry = PackEntry { id, key: seal.key, salt: seal.salt, bytes, hash };
        let (kind, raw) = self.opener(&entry)?.open(at, stored)?;
        let entries = serde_json::from_slice(&raw).ok().filter(|_| kind == Kind::Directory);
        entries.map(|entries| (entry, entries)).ok_or_else(|| damaged(&name, at))
    }

    /// The map piece at a place; `packs` are those of its manifest.
    pub async fn piece(&self, packs: &[PackEntry], at: PieceAt) -> Result<Piece> {
        let malformed = || Failure::new(text::backup::PIECE_DAMAGED);
        let pack = packs.get(at.pack as usize).ok_or_else(malformed)?;
        let frame = FrameAt { offset: at.frame, stored: at.stored };
        let raw = self.frame(Kind::Map, pack, frame).await?;
        Piece::decode(raw.get(at.offset as usize..).ok_or_else(malformed)?)
    }
}

fn end(at: FrameAt) -> u64 {
    u64::from(at.offset) + u64::from(at.stored)
}

/// The ranges that hold these frames, sorted, apart from one another.
fn coalesce(frames: &[FrameAt]) -> Vec<Range<u64>> {
    let mut sorted: Vec<FrameAt> = frames.to_vec();
    sorted.sort_unstable_by_key(|at| (at.offset, at.stored));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for at in sorted {
        let (from, to) = (u64::from(at.offset), end(at));
        match ranges.last_mut() {
            Some(last) if from < last.end || (from <= last.end + GAP && to - last.start <= RANGE_MAX) => {
                last.end = last.end.max(to);
            }
            _ => ranges.push(from..to),
        }
    }
    ranges
}

fn damaged(object: &str, at: FrameAt) -> Failure {
    Failure::new(text::backup::FRAME_DAMAGED.with("object", object).with("offset", at.offset))
        .mended_by(text::backup::OBJECT_DAMAGED_MEND)
}

/// The values that were used last. So few that a list is the fastest index.
struct Recent<K, V> {
    kept: Mutex<Vec<(K, V)>>,
    most: usize,
}

impl<K: PartialEq, V: Clone> Recent<K, V> {
    fn new(most: usize) -> Self {
        Recent { kept: Mutex::new(Vec::new()), most }
    }

    fn get(&self, key: &K) -> Option<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().rposition(|(known, _)| known == key)?;
        let found = kept.remove(at);
        let value = found.1.clone();
        kept.push(found);
        Some(value)
    }

    fn keep(&self, key: K, value: V) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == self.most {
            kept.remove(0);
        }
        kept.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::keys::Keyring;
    use crate::repository::layout::BackupId;
    use crate::repository::pack::{Pack, PackWriter};
    use crate::repository::store::Store;

    fn at(offset: u32, stored: u32) -> FrameAt {
        FrameAt { offset, stored }
    }

    #[test]
    fn neighbours_are_read_together_and_nothing_is_read_twice() {
        assert_eq!(coalesce(&[]), []);
        let near = coalesce(&[at(300, 50), at(56, 100), at(56, 100)]);
        assert_eq!((near.len(), &near[0]), (1, &(56..350)));
        let far = 56 + 100 + GAP as u32 + 1;
        assert_eq!(coalesce(&[at(56, 100), at(far, 9)]), [56..156, u64::from(far)..u64::from(far) + 9]);
        let half = RANGE_MAX as u32 / 2 + 1;
        assert_eq!(coalesce(&[at(0, half), at(half, half)]).len(), 2, "no range is larger than a range");
    }

    #[tokio::test]
    async fn frames_come_in_the_order_in_which_they_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        let repository = Repository { store, keys: Keyring::for_tests() };
        let cluster = ClusterId(7);
        let backup: BackupId = "20261124T030000Z-00ab".parse().unwrap();
        let id = PackId { backup, sequence: 0 };
        let mut pack = PackWriter::new(&repository.keys, &cluster.pack(&id), 1).unwrap();
        let places: Vec<FrameAt> =
            (0..9u8).map(|n| pack.push(Kind::Blocks, &[n; 8192], Vec::new()).unwrap()).collect();
        let mut bytes = Vec::new();
        let mut piece = Piece::default();
        piece.push([3; 16], None, 8192);
        piece.encode(&mut bytes);
        let map = pack.push(Kind::Map, &bytes, Vec::new()).unwrap();
        let sealed = pack.finish().unwrap();
        repository.store.create(&sealed.name, sealed.bytes.clone()).await.unwrap();

        let entry = PackEntry::of(id, &sealed);
        let reader = FrameReader::new(&repository, cluster);
        let wanted = [places[7], places[0], places[7], places[3]];
        let stored = reader.fetch(&entry, &wanted).await.unwrap();
        let opener = reader.opener(&entry).unwrap();
        for (n, (at, stored)) in [7, 0, 7, 3].into_iter().zip(wanted.iter().zip(&stored)) {
            assert_eq!(opener.open(*at, stored).unwrap().1, [n; 8192]);
        }
        let first = reader.frame(Kind::Blocks, &entry, places[1]).await.unwrap();
        let again = reader.frame(Kind::Blocks, &entry, places[1]).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let directory = Pack::open(&repository.keys, &sealed.name, sealed.bytes.clone()).unwrap().directory;
        let found = reader.directory(entry.id.clone(), entry.bytes).await.unwrap();
        assert_eq!(found, (entry.clone(), directory));
        assert!(reader.directory(entry.id.clone(), entry.bytes - 1).await.is_err());
        let at = PieceAt { pack: 0, frame: map.offset, stored: map.stored, offset: 0 };
        assert_eq!(reader.piece(std::slice::from_ref(&entry), at).await.unwrap(), piece);
        // What is not there, or is something else, is a failure and no panic.
        assert!(reader.frame(Kind::Map, &entry, places[2]).await.is_err());
        assert!(reader.fetch(&entry, &[FrameAt { offset: u32::MAX, stored: u32::MAX }]).await.is_err());
        let elsewhere = PieceAt { pack: 1, ..at };
        assert!(reader.piece(&[entry], elsewhere).await.is_err());
    }
}
