//! Map pieces: for the blocks of one extent of one file, what each block is (its identity) and where it
//! is kept.
//!
//! A piece is complete in itself. An incremental backup writes the pieces of the extents that changed and
//! points at its parent's for the rest; no restore ever walks a chain of backups.

use obyra_evidence::{Failure, text};

use super::layout::{BackupId, EXTENT_BLOCKS, PackId};
use super::pack::FrameAt;
use crate::Result;

/// The identity of a block: the first 16 bytes of its keyed BLAKE3. All zeros are the block of zeros.
pub type Identity = [u8; 16];

/// What a block of zeros is.
pub const ZEROS: Identity = [0; 16];

/// The identity of a block, whole or the last of its file.
pub fn identity(key: &[u8; 32], block: &[u8]) -> Identity {
    if is_zeros(block) {
        return ZEROS;
    }
    let mut identity = [0; 16];
    identity.copy_from_slice(&blake3::keyed_hash(key, block).as_bytes()[..16]);
    identity
}

fn is_zeros(block: &[u8]) -> bool {
    block.iter().take(64).all(|byte| *byte == 0) && block.iter().all(|byte| *byte == 0)
}

/// Consecutive blocks of the file that are consecutive in one frame, or all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub blocks: u16,
    /// Where; `None` for zeros, which are kept nowhere.
    pub kept: Option<Kept>,
}

/// A place in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Index into the piece's packs.
    pub pack: u16,
    /// The frame.
    pub frame: FrameAt,
    /// Offset of the first block in the frame's unpacked bytes.
    pub offset: u32,
}

/// A map piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The packs that the runs name.
    pub packs: Vec<PackId>,
    /// One for each block.
    pub identities: Vec<Identity>,
    /// They cover all blocks, in order.
    pub runs: Vec<Run>,
}

const NOWHERE: u16 = u16::MAX;

impl Piece {
    /// The index of a pack, added if it is new.
    pub fn pack(&mut self, pack: &PackId) -> Result<u16> {
        let found = self.packs.iter().rposition(|known| known == pack);
        let at = found.unwrap_or_else(|| {
            self.packs.push(pack.clone());
            self.packs.len() - 1
        });
        u16::try_from(at)
            .ok()
            .filter(|at| *at != NOWHERE)
            .ok_or_else(|| Failure::new(text::backup::PIECE_DAMAGED))
    }

    /// Adds a block; joins it with the run before where it continues that.
    pub fn push(&mut self, identity: Identity, kept: Option<Kept>, bytes_before: u32) {
        self.identities.push(identity);
        if let Some(last) = self.runs.last_mut() {
            let continues = match (last.kept, kept) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    a.pack == b.pack
                        && a.frame == b.frame
                        && a.offset + bytes_before * u32::from(last.blocks) == b.offset
                }
                _ => false,
            };
            if continues {
                last.blocks += 1;
                return;
            }
        }
        self.runs.push(Run { blocks: 1, kept });
    }

    /// Appends its bytes:
    /// ```text
    /// 4 blocks   2 packs   packs × (21 backup id, 4 sequence)   blocks × 16 identity
    /// 4 runs     runs × (2 blocks, 2 pack or FFFF, 4 frame offset, 4 frame length, 4 offset)
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.identities.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.packs.len() as u16).to_le_bytes());
        for pack in &self.packs {
            out.extend_from_slice(pack.backup.as_str().as_bytes());
            out.extend_from_slice(&pack.sequence.to_le_bytes());
        }
        self.identities.iter().for_each(|identity| out.extend_from_slice(identity));
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for run in &self.runs {
            let (pack, frame, offset) = match run.kept {
                Some(kept) => (kept.pack, kept.frame, kept.offset),
                None => (NOWHERE, FrameAt { offset: 0, stored: 0 }, 0),
            };
            out.extend_from_slice(&run.blocks.to_le_bytes());
            out.extend_from_slice(&pack.to_le_bytes());
            for number in [frame.offset, frame.stored, offset] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// How many bytes [`Piece::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        4 + 2 + self.packs.len() * 25 + self.identities.len() * 16 + 4 + self.runs.len() * 16
    }

    /// Reads a piece from the beginning of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Piece> {
        Reader(bytes).piece().ok_or_else(|| Failure::new(text::backup::PIECE_DAMAGED))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn piece(&mut self) -> Option<Piece> {
        let blocks = self.u32().filter(|blocks| *blocks <= EXTENT_BLOCKS)?;
        let packs = self.u16()?;
        let packs = (0..packs).map(|_| self.pack()).collect::<Option<Vec<_>>>()?;
        let identities = (0..blocks).map(|_| self.take()).collect::<Option<Vec<_>>>()?;
        let runs = self.u32().filter(|runs| *runs <= blocks)?;
        let runs = (0..runs).map(|_| self.run(packs.len())).collect::<Option<Vec<_>>>()?;
        let covered: u32 = runs.iter().map(|run| u32::from(run.blocks)).sum();
        (covered == blocks).then_some(Piece { packs, identities, runs })
    }

    fn pack(&mut self) -> Option<PackId> {
        let name = self.take::<21>()?;
        let backup: BackupId = std::str::from_utf8(&name).ok()?.parse().ok()?;
        Some(PackId { backup, sequence: self.u32()? })
    }

    fn run(&mut self, packs: usize) -> Option<Run> {
        let blocks = self.u16().filter(|blocks| *blocks > 0)?;
        let pack = self.u16()?;
        let frame = FrameAt { offset: self.u32()?, stored: self.u32()? };
        let offset = self.u32()?;
        if pack == NOWHERE {
            return Some(Run { blocks, kept: None });
        }
        (usize::from(pack) < packs).then_some(Run { blocks, kept: Some(Kept { pack, frame, offset }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> BackupId {
        "20261124T030000Z-00ab".parse().unwrap()
    }

    #[test]
    fn a_piece_survives_its_bytes_and_joins_its_runs() {
        let mut piece = Piece::default();
        let pack = piece.pack(&PackId { backup: id(), sequence: 3 }).unwrap();
        let frame = FrameAt { offset: 56, stored: 900 };
        for block in 0..5u8 {
            piece.push([block + 1; 16], Some(Kept { pack, frame, offset: u32::from(block) * 8192 }), 8192);
        }
        piece.push(ZEROS, None, 8192);
        piece.push(ZEROS, None, 8192);
        piece.push([9; 16], Some(Kept { pack, frame, offset: 5 * 8192 }), 8192);
        assert_eq!(piece.runs.iter().map(|run| run.blocks).collect::<Vec<_>>(), [5, 2, 1]);
        let mut bytes = Vec::new();
        piece.encode(&mut bytes);
        assert_eq!(Piece::decode(&bytes).unwrap(), piece);
        assert_eq!(piece.encoded_bytes(), bytes.len());
        for cut in 0..bytes.len() {
            assert!(Piece::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn identities_depend_on_the_key_and_zeros_are_zeros() {
        assert_eq!(identity(&[1; 32], &[0; 8192]), ZEROS);
        assert_ne!(identity(&[1; 32], &[5; 8192]), identity(&[2; 32], &[5; 8192]));
    }
}
