//! A sieve for an extent whose bytes come in a stream: a block that the parent's map has is let go at once, while
//! it still lies in the processor's cache, and only the others are handed to the workers.

use std::sync::Arc;

use super::parents::ParentPiece;
use super::pipeline::{Changed, Shared};
use super::repack::{Spread, repack, spread};
use crate::page::{Page, Verdict, judge};
use crate::repository::layout::{BLOCK, EXTENT_BLOCKS};
use crate::repository::map::{ZEROS, identity};

/// What has come of an extent.
pub(super) struct Sieve {
    parent: Arc<ParentPiece>,
    identity_key: [u8; 32],
    /// The number in its relation of the first page, where pages have checksums.
    first_page: Option<u32>,
    /// The number of the next block.
    next: usize,
    /// Where it begins in the buffer.
    at: usize,
    /// The blocks that stay in the buffer.
    sent: Vec<u16>,
}

impl Sieve {
    /// For an extent of whole blocks that begins at that place of the buffer; `None` if it may have to be stored
    /// whole, for which all of its blocks are needed.
    pub(super) fn new(
        shared: &Shared,
        parent: Arc<ParentPiece>,
        first_page: Option<u32>,
        at: usize,
    ) -> Option<Sieve> {
        let piece = &parent.piece;
        let blocks = piece.identities.iter().filter(|identity| **identity != ZEROS).count();
        let (frames, oldest) = spread(piece, |_| true, &mut Vec::new());
        // The most that can become of it: all of its frames are still wanted, and all of its blocks are new.
        let worst = Spread { blocks, changed: blocks, frames, oldest };
        let stays = repack(&worst, &shared.repacking, shared.now, u64::MAX).is_none();
        let identity_key = shared.identity_key;
        stays.then(|| Sieve { parent, identity_key, first_page, next: 0, at, sent: Vec::new() })
    }

    /// Takes the known ones out of the blocks that have come in full since the last time.
    pub(super) fn sift(&mut self, buffer: &mut Vec<u8>) {
        let whole = (buffer.len() - self.at) / BLOCK * BLOCK;
        let end = self.at + whole;
        for block in (self.at..end).step_by(BLOCK) {
            if !self.knows(&buffer[block..block + BLOCK]) {
                self.sent.push(self.next as u16);
                buffer.copy_within(block..block + BLOCK, self.at);
                self.at += BLOCK;
            }
            self.next += 1;
        }
        buffer.drain(self.at..end);
    }

    /// Whether the next block is what it was, and sound: a damaged one is named by each backup.
    fn knows(&self, block: &[u8]) -> bool {
        let Ok(page) = <&Page>::try_from(block) else { return false };
        let number = self.next as u32;
        let sound = |first: u32| judge(page, first.wrapping_add(number)) == Verdict::Sound;
        self.parent.piece.identities.get(self.next) == Some(&identity(&self.identity_key, block))
            && self.first_page.is_none_or(sound)
    }

    /// All has come.
    pub(super) fn changed(self) -> Changed {
        Changed { sent: self.sent, kept: EXTENT_BLOCKS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::PackId;
    use crate::repository::map::{Kept, Piece};
    use crate::repository::pack::FrameAt;

    const KEY: [u8; 32] = [7; 32];

    fn sieve(known: &[[u8; BLOCK]], at: usize) -> Sieve {
        let pack = PackId { backup: "20261124T030000Z-ab12".parse().unwrap(), sequence: 0 };
        let frame = FrameAt { offset: 0, stored: 0 };
        let mut piece = Piece { packs: vec![pack.clone()], ..Piece::default() };
        for (number, block) in known.iter().enumerate() {
            let kept = Kept { pack: 0, frame, offset: (number * BLOCK) as u32 };
            piece.push(identity(&KEY, block), Some(kept), BLOCK as u32);
        }
        let parent = Arc::new(ParentPiece { piece, pack, frame, offset: 0 });
        Sieve { parent, identity_key: KEY, first_page: None, next: 0, at, sent: Vec::new() }
    }

    #[test]
    fn what_stays_does_not_depend_on_how_the_bytes_arrive() {
        let known: Vec<_> = (1..=5).map(|n| [n; BLOCK]).collect();
        // The second and the fourth are new, and so are those behind the parent's end, a known one among them.
        let came = [[1; BLOCK], [91; BLOCK], [3; BLOCK], [94; BLOCK], [5; BLOCK], [1; BLOCK], [0; BLOCK]];
        let stay = [[91; BLOCK], [94; BLOCK], [1; BLOCK], [0; BLOCK]].concat();
        for cut in [1, 511, BLOCK - 1, BLOCK, 3 * BLOCK + 17, 9 * BLOCK] {
            let mut buffer = b"another extent".to_vec();
            let mut sieve = sieve(&known, buffer.len());
            for piece in came.concat().chunks(cut) {
                buffer.extend_from_slice(piece);
                sieve.sift(&mut buffer);
            }
            assert_eq!(sieve.changed().sent, [1, 3, 5, 6], "{cut}");
            assert!(buffer.starts_with(b"another extent") && buffer.ends_with(&stay), "{cut}");
            assert_eq!(buffer.len(), b"another extent".len() + stay.len(), "{cut}");
        }
    }

    #[test]
    fn a_damaged_page_is_handed_on_although_it_is_what_it_was() {
        let page = [7; BLOCK];
        let mut sieve = Sieve { first_page: Some(0), ..sieve(&[page], 0) };
        sieve.sift(&mut page.to_vec());
        assert_eq!(sieve.changed().sent, [0]);
    }
}
