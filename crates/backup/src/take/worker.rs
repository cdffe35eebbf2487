//! A worker: takes the blocks of extents, tells which are new, compresses and seals those, and writes down
//! where each block is kept.
//!
//! It owns one pack at a time and sends it off when that is full. Nothing is allocated for a block.

use std::sync::atomic::Ordering;

use obyra_evidence::{Failure, text};
use tokio::sync::mpsc;

use super::census::{Described, ExtentId};
use super::parents::ParentPiece;
use super::pipeline::{Changed, Part, Shared, stopped};
use super::repack::{Reason, Spread, repack, spread};
use super::verify::verify;
use crate::Result;
use crate::repository::layout::{BLOCK, EXTENT_BLOCKS, FRAME_BLOCKS, PackId};
use crate::repository::map::{Identity, Kept, Piece, Run, ZEROS, identity};
use crate::repository::pack::{FrameAt, Kind, PackWriter, Sealed};

/// Bytes of blocks that are compressed together.
const FRAME_BYTES: usize = FRAME_BLOCKS * BLOCK;
/// Bytes of map pieces that are compressed together: sixteen of whole extents.
const MAP_BYTES: usize = 256 << 10;
/// What the last frames of a pack may take.
pub(super) const RESERVE: usize = 768 << 10;
/// What a pack's directory tells of a frame, about.
const ENTRY_BYTES: usize = 64;
/// The frame of a block that waits in the worker's buffer.
const WAITING: FrameAt = FrameAt { offset: u32::MAX, stored: 0 };

/// What a worker has under way.
pub(super) struct Worker<'a> {
    shared: &'a Shared,
    finished: mpsc::Sender<Finished>,
    pack: Option<OpenPack>,
    /// Blocks that wait for others, to be compressed together.
    blocks: Vec<u8>,
    /// Pieces with blocks that wait. The last may be the one that is being made.
    waiting: Vec<Waiting>,
    /// Pieces that wait for others, encoded, to be compressed together, and what they are.
    map: Vec<u8>,
    described: Vec<Described>,
    about: Vec<String>,
    /// Of the extent at hand; their memory is used again.
    identities: Vec<Identity>,
    frames: Vec<(u16, u32)>,
}

struct OpenPack {
    id: PackId,
    writer: PackWriter,
    /// What its directory takes, about.
    directory: usize,
}

struct Waiting {
    extent: ExtentId,
    /// What the directory calls it.
    about: String,
    piece: Piece,
}

/// A pack to be put into the store.
pub(super) struct Finished {
    pub(super) id: PackId,
    pub(super) sealed: Sealed,
}

/// How an extent compares with its parent's map.
enum Compared {
    /// Nothing is new.
    Same,
    /// Some blocks are.
    Changed,
    /// It shall be stored whole, whatever of it is new.
    StoreAll,
}

/// Reads the block of that number in the extent anew; false where that cannot be done.
pub(super) type Again<'a> = &'a mut dyn FnMut(usize, &mut [u8]) -> bool;

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared, finished: mpsc::Sender<Finished>) -> Self {
        Worker {
            shared,
            finished,
            pack: None,
            blocks: Vec::with_capacity(FRAME_BYTES),
            waiting: Vec::new(),
            map: Vec::new(),
            described: Vec::new(),
            about: Vec::new(),
            identities: Vec::with_capacity(EXTENT_BLOCKS as usize),
            frames: Vec::new(),
        }
    }

    /// Takes an extent.
    pub(super) fn extent(&mut self, part: &Part, bytes: &mut [u8], again: Again<'_>) -> Result<()> {
        self.identities.clear();
        match &part.changed {
            None => {
                for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
                    verify(self.shared, part, (number, block), again);
                    self.identities.push(identity(&self.shared.identity_key, block));
                }
            }
            Some(changed) => self.merge(part, changed, bytes),
        }
        let extent = (part.file, part.extent);
        let mut parent = part.parent.as_deref();
        if let Some(known) = parent {
            let compared = match &part.changed {
                None => self.compare(&known.piece),
                // What is not here cannot be stored again.
                Some(_) if known.piece.identities == self.identities => Compared::Same,
                Some(_) => Compared::Changed,
            };
            match compared {
                Compared::Same => {
                    self.shared.census.lock().unchanged(extent, known);
                    return Ok(());
                }
                Compared::Changed => {}
                Compared::StoreAll => parent = None,
            }
        }
        let about = format!("{}#{}", part.path, part.extent);
        self.waiting.push(Waiting { extent, about, piece: Piece::default() });
        let sent = part.changed.as_ref().map(|changed| changed.sent.as_slice());
        self.describe(Blocks { bytes, sent }, parent)?;
        let waits = self.waiting.last().is_some_and(|last| last.piece.runs.iter().any(waits));
        if !waits && let Some(settled) = self.waiting.pop() {
            self.settle(settled)?;
        }
        self.end_full_pack()
    }

    /// The identities of an extent of which only some blocks came.
    fn merge(&mut self, part: &Part, changed: &Changed, bytes: &mut [u8]) {
        let known = part.parent.as_deref().map_or(&[][..], |known| &known.piece.identities);
        let kept = known.iter().take(changed.kept as usize);
        self.identities.extend(kept);
        self.identities.resize(part.length / BLOCK, ZEROS);
        for (number, block) in changed.sent.iter().zip(bytes.chunks_mut(BLOCK)) {
            let number = usize::from(*number);
            verify(self.shared, part, (number, block), &mut |_, _| false);
            self.identities[number] = identity(&self.shared.identity_key, block);
        }
    }

    fn compare(&mut self, parent: &Piece) -> Compared {
        let identities = &self.identities;
        let stays = |n: usize| identities.get(n).is_some_and(|now| parent.identities.get(n) == Some(now));
        let blocks = identities.iter().filter(|identity| **identity != ZEROS).count();
        let changed = (0..identities.len()).filter(|n| identities[*n] != ZEROS && !stays(*n)).count();
        let (frames, oldest) = spread(parent, stays, &mut self.frames);
        let refreshable = self.shared.refreshable.load(Ordering::Relaxed);
        let spread = Spread { blocks, changed, frames, oldest };
        let why = repack(&spread, &self.shared.repacking, self.shared.now, refreshable);
        if why == Some(Reason::Old) {
            let again = ((blocks - changed) * BLOCK) as u64;
            let rest = |rest: u64| Some(rest.saturating_sub(again));
            let _ = self.shared.refreshable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        }
        match why {
            Some(_) => Compared::StoreAll,
            None if parent.identities == *identities => Compared::Same,
            None => Compared::Changed,
        }
    }

    /// Writes down where each block is kept; stores those that the parent's map has not.
    fn describe(&mut self, blocks: Blocks<'_>, parent: Option<&ParentPiece>) -> Result<()> {
        let mut places = parent.map(|parent| Places::of(&parent.piece));
        let mut number = 0;
        while number < self.identities.len() {
            let identity = self.identities[number];
            let known = places.as_mut().and_then(Places::next).filter(|(known, _)| *known == identity);
            let Some(Waiting { piece, .. }) = self.waiting.last_mut() else { break };
            match known {
                _ if identity == ZEROS => piece.push(ZEROS, None, BLOCK as u32),
                Some((_, Some((pack, place)))) => {
                    let pack = piece.pack(pack)?;
                    piece.push(identity, Some(Kept { pack, ..place }), BLOCK as u32);
                }
                _ => {
                    number += self.store(blocks, number, parent.is_none())?;
                    continue;
                }
            }
            number += 1;
        }
        Ok(())
    }

    /// Stores a block, or as many as make a frame of their own where all of the extent is new. Returns how
    /// many.
    fn store(&mut self, blocks: Blocks<'_>, number: usize, all_new: bool) -> Result<usize> {
        let (bytes, from) = (blocks.bytes, blocks.place(number)? * BLOCK);
        let whole = all_new
            && blocks.sent.is_none()
            && self.blocks.is_empty()
            && bytes.len() - from >= FRAME_BYTES
            && !self.identities[number..number + FRAME_BLOCKS].contains(&ZEROS);
        let count = if whole { FRAME_BLOCKS } else { 1 };
        let stored = &bytes[from..bytes.len().min(from + count * BLOCK)];
        if self.blocks.len() + stored.len() > FRAME_BYTES {
            self.seal_blocks()?;
            self.end_full_pack()?;
        }
        let open = open(&mut self.pack, self.shared)?;
        let frame = if whole { open.push(Kind::Blocks, stored, Vec::new())? } else { WAITING };
        if let Some(Waiting { piece, .. }) = self.waiting.last_mut() {
            let pack = piece.pack(&open.id)?;
            for n in 0..count {
                let kept = Kept { pack, frame, offset: (self.blocks.len() + n * BLOCK) as u32 };
                piece.push(self.identities[number + n], Some(kept), BLOCK as u32);
            }
        }
        self.shared.added.fetch_add(stored.len() as u64, Ordering::Relaxed);
        if !whole {
            self.blocks.extend_from_slice(stored);
        }
        if whole || self.blocks.len() == FRAME_BYTES {
            self.seal_blocks()?;
            self.end_full_pack()?;
        }
        Ok(count)
    }

    /// Compresses the blocks that waited, and tells their pieces where they are. All of these but the one
    /// that is being made are complete then.
    fn seal_blocks(&mut self) -> Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let open = open(&mut self.pack, self.shared)?;
        let at = open.push(Kind::Blocks, &self.blocks, Vec::new())?;
        self.blocks.clear();
        for waiting in &mut self.waiting {
            let kept = waiting.piece.runs.iter_mut().filter_map(|run| run.kept.as_mut());
            kept.filter(|kept| kept.frame == WAITING).for_each(|kept| kept.frame = at);
        }
        let making = self.waiting.pop();
        for settled in std::mem::take(&mut self.waiting) {
            self.settle(settled)?;
        }
        self.waiting.extend(making);
        Ok(())
    }

    /// A piece is complete.
    fn settle(&mut self, Waiting { extent, about, piece }: Waiting) -> Result<()> {
        self.shared.census.lock().named(&piece.packs);
        self.described.push(Described { extent, offset: self.map.len() as u32 });
        self.about.push(about);
        piece.encode(&mut self.map);
        if self.map.len() >= MAP_BYTES { self.seal_map() } else { Ok(()) }
    }

    fn seal_map(&mut self) -> Result<()> {
        if self.map.is_empty() {
            return Ok(());
        }
        let open = open(&mut self.pack, self.shared)?;
        let at = open.push(Kind::Map, &self.map, std::mem::take(&mut self.about))?;
        self.shared.census.lock().described(&open.id, at, &self.described);
        self.map.clear();
        self.described.clear();
        Ok(())
    }

    fn end_full_pack(&mut self) -> Result<()> {
        if self.pack.as_ref().is_some_and(|open| open.len() + RESERVE > self.shared.pack_bytes()) {
            // Blocks that wait belong into this pack.
            self.seal_blocks()?;
            self.end_pack()?;
        }
        Ok(())
    }

    fn end_pack(&mut self) -> Result<()> {
        self.seal_map()?;
        let Some(OpenPack { id, writer, .. }) = self.pack.take() else { return Ok(()) };
        let finished = Finished { id, sealed: writer.finish()? };
        self.finished.blocking_send(finished).map_err(|_| stopped())
    }

    /// Everything was taken.
    pub(super) fn end(mut self) -> Result<()> {
        self.seal_blocks()?;
        for settled in std::mem::take(&mut self.waiting) {
            self.settle(settled)?;
        }
        self.end_pack()
    }
}

/// The bytes of an extent's blocks: of all, or of those that came.
#[derive(Clone, Copy)]
struct Blocks<'b> {
    bytes: &'b [u8],
    sent: Option<&'b [u16]>,
}

impl Blocks<'_> {
    /// The place of a block among them.
    fn place(self, number: usize) -> Result<usize> {
        let Some(sent) = self.sent else { return Ok(number) };
        // A block that did not come has its identity and its place from the parent, or is zeros.
        sent.binary_search(&(number as u16)).map_err(|_| Failure::new(text::backup::PIECE_DAMAGED))
    }
}

/// The pack of a worker, begun if there is none.
fn open<'p>(pack: &'p mut Option<OpenPack>, shared: &Shared) -> Result<&'p mut OpenPack> {
    if pack.is_none() {
        let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
        let id = PackId { backup: shared.backup.clone(), sequence };
        let (keys, name) = (&shared.repository.keys, shared.cluster.pack(&id));
        let writer = PackWriter::reusing(shared.buffer(), keys, &name, shared.level)?;
        *pack = Some(OpenPack { id, writer, directory: 0 });
    }
    pack.as_mut().ok_or_else(stopped)
}

impl OpenPack {
    fn push(&mut self, kind: Kind, raw: &[u8], about: Vec<String>) -> Result<FrameAt> {
        self.directory += ENTRY_BYTES + about.iter().map(|about| about.len() + 3).sum::<usize>();
        self.writer.push(kind, raw, about)
    }

    /// Bytes so far, with the directory.
    fn len(&self) -> usize {
        self.writer.len() + self.directory
    }
}

/// The blocks of a parent's piece, one after the other: what each is and where it is kept.
struct Places<'a> {
    piece: &'a Piece,
    number: usize,
    run: usize,
    within: u16,
}

impl<'a> Places<'a> {
    fn of(piece: &'a Piece) -> Self {
        Places { piece, number: 0, run: 0, within: 0 }
    }

    fn next(&mut self) -> Option<(Identity, Option<(&'a PackId, Kept)>)> {
        let run = self.piece.runs.get(self.run)?;
        let identity = *self.piece.identities.get(self.number)?;
        let place = run.kept.and_then(|kept| {
            let offset = kept.offset.checked_add(u32::from(self.within) * BLOCK as u32)?;
            Some((self.piece.packs.get(usize::from(kept.pack))?, Kept { offset, ..kept }))
        });
        self.number += 1;
        self.within += 1;
        if self.within == run.blocks {
            (self.run, self.within) = (self.run + 1, 0);
        }
        Some((identity, place))
    }
}

fn waits(run: &Run) -> bool {
    run.kept.is_some_and(|kept| kept.frame == WAITING)
}
