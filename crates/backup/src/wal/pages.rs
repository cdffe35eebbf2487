//! The headers of WAL pages: does a segment belong to this cluster, and is it what its name says?
//!
//! The long header on a segment's first page names the cluster; every page says at which position and on
//! which timeline it was written. A recycled, torn or foreign segment betrays itself here. The layout is
//! PostgreSQL's `XLogPageHeaderData` (src/include/access/xlog_internal.h), little-endian.

use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{Lsn, SegmentName, WalSegmentSize};

use super::content::PIECE;
use crate::Result;
use crate::repository::layout::ClusterId;

/// Bytes of a page's header, with its padding.
const SHORT_HEADER: usize = 24;
/// Bytes of the header of a segment's first page.
pub const LONG_HEADER: usize = 40;
/// `XLOG_PAGE_MAGIC`, which counts up: 0xD10D is PostgreSQL 14's, 0xD118 that of 18.
const MAGIC: std::ops::RangeInclusive<u16> = 0xD100..=0xD1FF;
/// `XLP_LONG_HEADER`.
const IS_LONG: u16 = 0x0002;

/// What the first page of a segment says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster's system identifier.
    pub cluster: ClusterId,
    /// How large its segments are.
    pub size: WalSegmentSize,
    /// Bytes of a page (`wal_block_size`, 8192 unless PostgreSQL was compiled otherwise).
    page_bytes: usize,
    /// The version of the format.
    magic: u16,
    /// The position of the segment.
    start: Lsn,
}

impl SegmentHeader {
    /// The position of the segment.
    pub fn position(&self) -> Lsn {
        self.start
    }

    /// Reads it; `None` if this is not the beginning of a segment.
    pub fn read(bytes: &[u8]) -> Option<SegmentHeader> {
        let page = Page::read(bytes)?;
        let long = bytes.get(SHORT_HEADER..LONG_HEADER)?;
        let cluster = ClusterId(u64::from_le_bytes(long[..8].try_into().ok()?));
        let size = WalSegmentSize::new(number(long, 8).into()).ok()?;
        let page_bytes = usize::try_from(number(long, 12)).ok()?;
        let sane = MAGIC.contains(&page.magic)
            && page.info & IS_LONG != 0
            && page_bytes.is_power_of_two()
            && (1024..=65536).contains(&page_bytes);
        sane.then_some(SegmentHeader { cluster, size, page_bytes, magic: page.magic, start: page.address })
    }
}

/// The cluster of a data directory: what its pg_control names.
pub fn cluster_of(data: &Path) -> Result<ClusterId> {
    let path = data.join("global/pg_control");
    let unreadable = || Failure::new(text::backup::WAL_FILE_UNREADABLE.with("file", path.display()));
    let content = std::fs::read(&path).map_err(|e| unreadable().because(e))?;
    // The first thing in it, in every version (src/include/catalog/pg_control.h).
    let first: Option<[u8; 8]> = content.get(..8).and_then(|first| first.try_into().ok());
    first.map(|first| ClusterId(u64::from_le_bytes(first))).ok_or_else(unreadable)
}

/// The header of any page.
struct Page {
    magic: u16,
    info: u16,
    timeline: u32,
    address: Lsn,
}

impl Page {
    fn read(bytes: &[u8]) -> Option<Page> {
        let header = bytes.get(..SHORT_HEADER)?;
        Some(Page {
            magic: u16::from_le_bytes([header[0], header[1]]),
            info: u16::from_le_bytes([header[2], header[3]]),
            timeline: number(header, 4),
            address: Lsn(u64::from(number(header, 8)) | u64::from(number(header, 12)) << 32),
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Why a segment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin with the header of a segment.
    NotWal,
    /// It is of another cluster.
    OtherCluster(ClusterId),
    /// Its cluster has segments of another size.
    OtherSize(WalSegmentSize),
    /// So many bytes are not a segment.
    Length(usize),
    /// The page at this offset was written for another position: the segment is recycled or torn.
    OtherPosition {
        /// The offset in the segment.
        offset: usize,
    },
    /// The page at this offset is of a timeline that cannot be in this segment.
    OtherTimeline {
        /// The offset in the segment.
        offset: usize,
        /// The timeline that the page names.
        timeline: u32,
    },
    /// The rest of the segment is empty from this offset on, and yet something follows.
    NotEmpty {
        /// The offset in the segment.
        offset: usize,
    },
}

/// Checks a segment while it grows.
#[derive(Clone, Debug)]
pub struct PageCheck {
    cluster: ClusterId,
    segment: SegmentName,
    size: WalSegmentSize,
    header: Option<SegmentHeader>,
    timeline: u32,
    /// The offset up to which everything is checked.
    done: usize,
    /// From where on the segment is empty: a switch of segments leaves its rest to zeros.
    empty_from: Option<usize>,
    /// A switch of segments was seen, and what follows it is nobody's: a server that dies while it writes the
    /// zeros, or before, leaves what the recycled file held, and goes on in the next segment.
    is_left: bool,
}

impl PageCheck {
    /// For a segment of this cluster.
    pub fn new(cluster: ClusterId, segment: SegmentName, size: WalSegmentSize) -> PageCheck {
        PageCheck {
            cluster,
            segment,
            size,
            header: None,
            timeline: 0,
            done: 0,
            empty_from: None,
            is_left: false,
        }
    }

    /// Checks what has come since the last time; `bytes` is all of the segment so far. A page counts
    /// once its header is there.
    pub fn advance(&mut self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        self.pages(0, &[], bytes)
    }

    /// Checks a whole segment.
    pub fn whole(self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        let mut whole = WholeCheck::new(self);
        bytes.chunks(PIECE).try_for_each(|piece| whole.piece(piece))?;
        whole.finish()
    }

    /// Checks the pages whose headers are in these bytes, which begin at an offset of the segment; `before` are
    /// the last pages in front of them.
    fn pages(&mut self, from: usize, before: &[u8], bytes: &[u8]) -> std::result::Result<(), Fault> {
        if (from + bytes.len()) as u64 > self.size.bytes() {
            return Err(Fault::Length(from + bytes.len()));
        }
        let header = match self.header {
            Some(header) => header,
            None if bytes.len() < LONG_HEADER => return Ok(()),
            None => *self.header.insert(self.first_page(bytes)?),
        };
        while let Some(page) = bytes.get(self.done - from..).filter(|page| page.len() >= SHORT_HEADER) {
            let before = if self.done == from { before } else { &bytes[..self.done - from] };
            self.page(&header, before, page)?;
            self.done += header.page_bytes;
        }
        Ok(())
    }

    fn first_page(&self, bytes: &[u8]) -> std::result::Result<SegmentHeader, Fault> {
        let header = SegmentHeader::read(bytes).ok_or(Fault::NotWal)?;
        if header.cluster != self.cluster {
            return Err(Fault::OtherCluster(header.cluster));
        }
        if header.size != self.size {
            return Err(Fault::OtherSize(header.size));
        }
        if header.start != self.segment.start(self.size) {
            return Err(Fault::OtherPosition { offset: 0 });
        }
        Ok(header)
    }

    fn page(
        &mut self,
        header: &SegmentHeader,
        before: &[u8],
        bytes: &[u8],
    ) -> std::result::Result<(), Fault> {
        let offset = self.done;
        if self.is_left {
            return Ok(());
        }
        let is_empty = bytes[..SHORT_HEADER].iter().all(|byte| *byte == 0);
        if let Some(from) = self.empty_from {
            return if is_empty { Ok(()) } else { Err(Fault::NotEmpty { offset: from }) };
        }
        let page = Page::read(bytes).ok_or(Fault::NotWal)?;
        let address = self.segment.start(self.size) + offset as u64;
        let is_in_place = page.magic == header.magic && page.address == address;
        if !is_in_place && ends_with_a_switch(before, header.page_bytes) {
            self.is_left = true;
            return Ok(());
        }
        if is_empty {
            self.empty_from = Some(offset);
            return Ok(());
        }
        if !is_in_place {
            return Err(Fault::OtherPosition { offset });
        }
        // A timeline's first segment begins with a copy of its parent's, up to where it branched off.
        if page.timeline < self.timeline.max(1) || page.timeline > self.segment.timeline.0 {
            return Err(Fault::OtherTimeline { offset, timeline: page.timeline });
        }
        self.timeline = page.timeline;
        Ok(())
    }
}

/// Whether the last record of these pages is a switch of segments (`XLOG_SWITCH`), which holds nothing but its
/// header: length, transaction, previous record, info, resource manager, padding, CRC-32C of what is before it.
fn ends_with_a_switch(pages: &[u8], page_bytes: usize) -> bool {
    const RECORD: usize = 24;
    const SWITCH: u8 = 0x40;
    let used = pages.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(8));
    let Some(page) = pages.len().checked_sub(page_bytes) else { return false };
    let info = pages.get(page + 2..page + 4).map_or(0, |info| u16::from_le_bytes([info[0], info[1]]));
    let content = page + if info & IS_LONG != 0 { LONG_HEADER } else { SHORT_HEADER };
    // It may have begun on the page before.
    let here = used.saturating_sub(content).min(RECORD);
    let (Some(begun), Some(rest)) =
        (pages.get((page + here).saturating_sub(RECORD)..page), pages.get(used.saturating_sub(here)..used))
    else {
        return false;
    };
    let record = [begun, rest].concat();
    here > 0
        && record.len() == RECORD
        && number(&record, 0) as usize == RECORD
        && record[16] & 0xF0 == SWITCH
        && record[17] == 0
        && checksum(CrcAlgorithm::Crc32Iscsi, &record[..20]) == u64::from(number(&record, 20))
}

/// Checks a whole segment that comes in pieces of [`PIECE`] bytes.
#[derive(Debug)]
pub struct WholeCheck {
    check: PageCheck,
    length: usize,
    /// The last pages of the piece before.
    before: Vec<u8>,
}

impl WholeCheck {
    /// Begins; nothing was checked before.
    pub fn new(check: PageCheck) -> WholeCheck {
        WholeCheck { check, length: 0, before: Vec::new() }
    }

    /// Checks the next piece.
    pub fn piece(&mut self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        self.check.pages(self.length, &self.before, bytes)?;
        if let Some(from) = self.check.empty_from {
            let rest = bytes.get(from.saturating_sub(self.length)..).unwrap_or_default();
            if rest.iter().any(|byte| *byte != 0) {
                return Err(Fault::NotEmpty { offset: from });
            }
        }
        self.length += bytes.len();
        let pages = 2 * self.check.header.map_or(0, |header| header.page_bytes);
        self.before = bytes[bytes.len().saturating_sub(pages)..].to_vec();
        Ok(())
    }

    /// That was all of it.
    pub fn finish(self) -> std::result::Result<(), Fault> {
        let whole = self.length as u64 == self.check.size.bytes();
        if whole { Ok(()) } else { Err(Fault::Length(self.length)) }
    }
}

/// Refuses WAL for a fault of it; `file` names the segment.
pub fn refusal(fault: Fault, file: &str, cluster: ClusterId) -> Failure {
    use text::backup as say;
    let torn = |offset: usize| say::WAL_TORN.with("file", file).with("offset", offset);
    match fault {
        Fault::NotWal => Failure::refused(say::WAL_NOT_WAL.with("file", file)),
        Fault::OtherCluster(found) => Failure::refused(
            say::WAL_OTHER_CLUSTER.with("file", file).with("found", found).with("cluster", cluster),
        )
        .mended_by(say::WAL_OTHER_CLUSTER_MEND),
        Fault::OtherSize(found) => {
            Failure::refused(say::WAL_OTHER_SIZE.with("file", file).with("bytes", found.bytes()))
        }
        Fault::Length(bytes) => Failure::refused(say::WAL_LENGTH.with("file", file).with("bytes", bytes)),
        Fault::OtherPosition { offset } | Fault::NotEmpty { offset } => {
            Failure::refused(torn(offset)).mended_by(say::WAL_TORN_MEND)
        }
        Fault::OtherTimeline { offset, timeline } => Failure::refused(
            say::WAL_OTHER_TIMELINE.with("file", file).with("offset", offset).with("timeline", timeline),
        )
        .mended_by(say::WAL_TORN_MEND),
    }
}

#[cfg(test)]
pub(super) mod tests;
