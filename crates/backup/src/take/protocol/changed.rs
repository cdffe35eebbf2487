//! A file of which the server sends only the blocks that changed, `INCREMENTAL.<name>`
//! (`backup/basebackup_incremental.h` of PostgreSQL's source): how long it is, which blocks come, the blocks.
//!
//! A block that does not come is as it was, unless the relation was truncated meanwhile and grew again: then
//! it is zeros. The file does not tell; the summaries' limit blocks do.

use obyra_evidence::{Failure, text};

use super::super::intake::{Incoming, Intake};
use super::super::pipeline::Changed;
use crate::Result;
use crate::repository::layout::{BLOCK, EXTENT_BLOCKS};

/// What the name of such a file begins with.
const PREFIX: &str = "INCREMENTAL.";
/// What the file begins with.
const MAGIC: u32 = 0xD3AE_1F0D;
/// The magic, how many blocks come, the length up to which the others are as they were.
const NUMBERS: usize = 12;

/// Which file a path stands for of which only changed blocks come.
pub(super) fn stands_for(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    Some(format!("{folder}/{}", name.strip_prefix(PREFIX)?))
}

/// What the file says of itself before its blocks.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// The numbers of the blocks that come, ascending.
    blocks: Vec<u32>,
    /// The file's length in blocks, if no block beyond it comes.
    length: u32,
}

impl Head {
    /// How many bytes the head takes, as far as its beginning tells.
    fn bytes(begun: &[u8]) -> usize {
        match number(begun, 4) {
            Some(0) => NUMBERS,
            // Blocks begin at a multiple of their length.
            Some(count) if begun.len() >= NUMBERS => (NUMBERS + 4 * count as usize).next_multiple_of(BLOCK),
            _ => NUMBERS,
        }
    }

    /// Of its bytes, in a file of so many, whose segments have so many blocks.
    fn parse(bytes: &[u8], size: u64, segment_blocks: u32) -> Option<Head> {
        let count = number(bytes, 4)?;
        let length = number(bytes, 8)?;
        let fits = number(bytes, 0)? == MAGIC && count <= segment_blocks && length <= segment_blocks;
        if !fits || size != (bytes.len() + count as usize * BLOCK) as u64 {
            return None;
        }
        let blocks =
            (0..count as usize).map(|n| number(bytes, NUMBERS + 4 * n)).collect::<Option<Vec<_>>>()?;
        let ascend =
            blocks.is_sorted_by(|a, b| a < b) && blocks.last().is_none_or(|last| *last < segment_blocks);
        ascend.then_some(Head { blocks, length })
    }

    /// How long the file is.
    fn whole_length(&self) -> u32 {
        self.blocks.last().map_or(0, |last| last + 1).max(self.length)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A file that is coming.
pub(super) struct ChangedFile {
    /// What it stands for.
    path: String,
    mode: u32,
    /// Of what comes.
    size: u64,
    /// From this block on, what does not come is zeros.
    limit: u32,
    segment_blocks: u32,
    head: Vec<u8>,
    blocks: Option<Blocks>,
}

/// The blocks of a file whose head has come.
struct Blocks {
    head: Head,
    incoming: Incoming,
    /// The extent that is being filled, how many bytes it lacks, and how many blocks came before it.
    extent: u32,
    lacks: usize,
    before: usize,
    kept: u32,
}

impl ChangedFile {
    pub(super) fn new(
        path: String,
        mode: u32,
        size: u64,
        (limit, segment_blocks): (u32, u32),
    ) -> ChangedFile {
        ChangedFile { path, mode, size, limit, segment_blocks, head: Vec::new(), blocks: None }
    }

    /// A piece of it.
    pub(super) async fn data(&mut self, bytes: &[u8], intake: &mut Intake<'_>) -> Result<()> {
        let mut rest = bytes;
        while self.blocks.is_none() {
            let wanted = Head::bytes(&self.head) - self.head.len();
            let (now, later) = rest.split_at(rest.len().min(wanted));
            self.head.extend_from_slice(now);
            rest = later;
            if now.len() < wanted {
                return Ok(());
            }
            let longest = NUMBERS + 4 * self.segment_blocks as usize + BLOCK;
            if Head::bytes(&self.head) > longest {
                return Err(self.malformed());
            }
            if self.head.len() == Head::bytes(&self.head) {
                self.begin(intake).await?;
            }
        }
        let Some(blocks) = &mut self.blocks else { return Ok(()) };
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(blocks.lacks));
            if now.is_empty() {
                return Err(self.malformed());
            }
            intake.buffer().extend_from_slice(now);
            (rest, blocks.lacks) = (later, blocks.lacks - now.len());
            if blocks.lacks == 0 {
                blocks.end_extent(intake).await?;
                blocks.next(intake).await?;
            }
        }
        Ok(())
    }

    /// Its head has come.
    async fn begin(&mut self, intake: &mut Intake<'_>) -> Result<()> {
        let head = Head::parse(&self.head, self.size, self.segment_blocks).ok_or_else(|| self.malformed())?;
        self.head = Vec::new();
        let bytes = u64::from(head.whole_length()) * BLOCK as u64;
        let kept = self.limit.min(head.length);
        let incoming = intake.file(&self.path, self.mode, bytes);
        let mut blocks = Blocks { head, incoming, extent: 0, lacks: 0, before: 0, kept };
        blocks.next(intake).await?;
        self.blocks = Some(blocks);
        Ok(())
    }

    fn malformed(&self) -> Failure {
        Failure::new(text::backup::TAKE_CHANGED_MALFORMED.with("path", &self.path))
    }
}

impl Blocks {
    /// The blocks of the extent at hand that come.
    fn sent(&self) -> &[u32] {
        let rest = &self.head.blocks[self.before..];
        let end = (self.extent + 1) * EXTENT_BLOCKS;
        &rest[..rest.partition_point(|block| *block < end)]
    }

    /// Goes on to the next extent of which something comes.
    async fn next(&mut self, intake: &mut Intake<'_>) -> Result<()> {
        while self.extent * EXTENT_BLOCKS < self.head.whole_length() {
            self.lacks = self.sent().len() * BLOCK;
            if self.lacks > 0 {
                intake.begin(self.lacks).await?;
                return Ok(());
            }
            self.end_extent(intake).await?;
        }
        Ok(())
    }

    async fn end_extent(&mut self, intake: &mut Intake<'_>) -> Result<()> {
        let first = self.extent * EXTENT_BLOCKS;
        let sent: Vec<u16> = self.sent().iter().map(|block| (block - first) as u16).collect();
        self.before += sent.len();
        let kept = self.kept.saturating_sub(first).min(EXTENT_BLOCKS);
        intake.changed(&self.incoming, self.extent, Changed { sent, kept }).await?;
        self.extent += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(numbers: &[u32], padded: bool) -> Vec<u8> {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.resize(if padded { bytes.len().next_multiple_of(BLOCK) } else { bytes.len() }, 0);
        bytes
    }

    #[test]
    fn heads_as_the_server_writes_them_and_no_others() {
        let parse = |bytes: &[u8], blocks: u64| Head::parse(bytes, bytes.len() as u64 + blocks * 8192, 100);
        let none = head(&[MAGIC, 0, 7], false);
        assert_eq!(Head::bytes(&none), none.len());
        assert_eq!(parse(&none, 0).unwrap().whole_length(), 7);
        let two = head(&[MAGIC, 2, 7, 3, 9], true);
        assert_eq!((Head::bytes(&two[..4]), Head::bytes(&two[..12])), (12, 8192));
        assert_eq!(parse(&two, 2), Some(Head { blocks: vec![3, 9], length: 7 }));
        assert_eq!(parse(&two, 2).unwrap().whole_length(), 10);
        for (odd, blocks) in [
            (head(&[MAGIC + 1, 0, 7], false), 0),
            (head(&[MAGIC, 0, 7], false), 1),
            (head(&[MAGIC, 2, 7, 9, 3], true), 2),
            (head(&[MAGIC, 2, 7, 3, 3], true), 2),
            (head(&[MAGIC, 1, 7, 100], true), 1),
            (head(&[MAGIC, 0, 101], false), 0),
        ] {
            assert_eq!(parse(&odd, blocks), None);
        }
    }

    #[test]
    fn names_of_relations_only() {
        assert_eq!(stands_for("base/5/INCREMENTAL.16384.1").as_deref(), Some("base/5/16384.1"));
        assert_eq!(stands_for("base/5/16384"), None);
        assert_eq!(stands_for("INCREMENTAL.16384"), None);
    }
}
