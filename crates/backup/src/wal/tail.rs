//! What was received and is not durable yet: cuts the stream into segments, decides what goes out as a
//! part, and knows up to where nothing can be lost any more.
//!
//! Pure: bytes and outcomes in, what to store and the durable position out. The one rule: `durable` never
//! passes a byte that the store has not confirmed, whatever was confirmed behind it.

use std::collections::VecDeque;

use bytes::Bytes;
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{Lsn, SegmentName, WalSegmentSize};

use super::index::cover;
use super::name::Part;
use super::pages::{self, PageCheck};
use crate::Result;
use crate::repository::layout::ClusterId;

/// A segment's parts are merged within windows of a sixteenth of it, but never of less than this.
const WINDOW_BYTES_MIN: u32 = 1 << 20;

/// So many parts within one window are merged into one.
const PARTS_OF_WINDOW: usize = 16;

/// A complete segment, to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Its name.
    pub segment: SegmentName,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The end of a timeline as it is received.
#[derive(Debug)]
pub struct Tail {
    cluster: ClusterId,
    size: WalSegmentSize,
    /// Complete, and perhaps not stored yet: the oldest first.
    complete: VecDeque<Pending>,
    current: Pending,
    bytes: Vec<u8>,
    check: PageCheck,
    /// What the archive holds of the current segment since before: what comes must be the same.
    archived: Bytes,
}

/// A segment that is not stored whole.
#[derive(Debug)]
struct Pending {
    segment: SegmentName,
    /// Its durable parts.
    parts: Vec<Part>,
    /// The part under way to the store.
    putting: Option<Part>,
    stored: bool,
}

impl Pending {
    fn new(segment: SegmentName, parts: Vec<Part>) -> Pending {
        Pending { segment, parts, putting: None, stored: false }
    }

    /// The offset up to which its parts hold it.
    fn covered(&self) -> u32 {
        cover(&self.parts).last().map_or(0, |part| part.to)
    }
}

impl Tail {
    /// Begins with a segment of which the archive holds these parts, and in them these bytes.
    pub fn new(
        cluster: ClusterId,
        size: WalSegmentSize,
        segment: SegmentName,
        parts: Vec<Part>,
        archived: Bytes,
    ) -> Tail {
        Tail {
            cluster,
            size,
            complete: VecDeque::new(),
            current: Pending::new(segment, parts),
            bytes: Vec::new(),
            check: PageCheck::new(cluster, segment, size),
            archived,
        }
    }

    /// The position of the next byte to come.
    pub fn received(&self) -> Lsn {
        self.current.segment.start(self.size) + self.bytes.len() as u64
    }

    /// The position up to which everything is in the store.
    pub fn durable(&self) -> Lsn {
        let oldest = self.complete.iter().find(|pending| !pending.stored).unwrap_or(&self.current);
        oldest.segment.start(self.size) + u64::from(oldest.covered())
    }

    /// Complete segments that are not stored yet.
    pub fn complete_pending(&self) -> usize {
        self.complete.iter().filter(|pending| !pending.stored).count()
    }

    /// Takes what came; returns the segments that it completes. WAL of another cluster, of another
    /// position, or other than what the archive has of it, is refused.
    pub fn receive(&mut self, start: Lsn, mut data: &[u8]) -> Result<Vec<Complete>> {
        if start != self.received() {
            let what = text::backup::WAL_OUT_OF_PLACE.with("position", start);
            return Err(Failure::new(what.with("wanted", self.received())));
        }
        let mut complete = Vec::new();
        while !data.is_empty() {
            let room = usize_of(self.size) - self.bytes.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.append(now)?;
            data = later;
            if self.bytes.len() == usize_of(self.size) {
                complete.push(self.turn());
            }
        }
        Ok(complete)
    }

    fn append(&mut self, data: &[u8]) -> Result<()> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(usize_of(self.size));
        }
        let at = self.bytes.len();
        let known = self.archived.get(at..).unwrap_or_default();
        let both = known.len().min(data.len());
        if known[..both] != data[..both] {
            let file = self.current.segment.file_name(self.size);
            return Err(Failure::refused(text::backup::WAL_TWO_WRITERS.with("object", file))
                .mended_by(text::backup::WAL_TWO_WRITERS_MEND));
        }
        self.bytes.extend_from_slice(data);
        self.check
            .advance(&self.bytes)
            .map_err(|fault| pages::refusal(fault, &self.current.segment.file_name(self.size), self.cluster))
    }

    /// The current segment is complete; the next begins.
    fn turn(&mut self) -> Complete {
        let next = self.current.segment.next();
        let done = std::mem::replace(&mut self.current, Pending::new(next, Vec::new()));
        let complete = Complete { segment: done.segment, bytes: std::mem::take(&mut self.bytes).into() };
        self.complete.push_back(done);
        self.archived = Bytes::new();
        self.check = PageCheck::new(self.cluster, next, self.size);
        complete
    }

    /// Whether something of the current segment came that no part holds, and no part is under way.
    pub fn wants_part(&self) -> bool {
        self.current.putting.is_none() && self.bytes.len() > self.current.covered() as usize
    }

    /// The part to be stored next, if there is something new and none is under way. It is under way
    /// from now on. It may hold again what earlier small parts hold, which it then replaces.
    pub fn next_part(&mut self) -> Option<(Part, Bytes)> {
        if !self.wants_part() {
            return None;
        }
        let to = u32::try_from(self.bytes.len()).ok()?;
        let from = merged_from(&self.current.parts, self.current.covered(), to, self.size);
        let part = Part { segment: self.current.segment, from, to };
        self.current.putting = Some(part);
        Some((part, Bytes::copy_from_slice(&self.bytes[from as usize..to as usize])))
    }

    /// A part is durable; returns the parts that nobody needs any more.
    pub fn part_stored(&mut self, part: Part) -> Vec<Part> {
        let Some(pending) = self.pending(part.segment) else { return vec![part] };
        pending.putting = None;
        if pending.stored {
            return vec![part];
        }
        let inside = |other: &Part| part.from <= other.from && other.to <= part.to;
        let (needless, kept) = pending.parts.drain(..).partition(inside);
        pending.parts = kept;
        pending.parts.push(part);
        needless
    }

    /// A segment is durable; returns its parts, which nobody needs any more.
    pub fn segment_stored(&mut self, segment: SegmentName) -> Vec<Part> {
        let Some(pending) = self.pending(segment) else { return Vec::new() };
        pending.stored = true;
        let needless = std::mem::take(&mut pending.parts);
        // A part that is under way comes back to a segment that is still known.
        while self.complete.front().is_some_and(|oldest| oldest.stored && oldest.putting.is_none()) {
            self.complete.pop_front();
        }
        needless
    }

    fn pending(&mut self, segment: SegmentName) -> Option<&mut Pending> {
        let all = self.complete.iter_mut().chain(std::iter::once(&mut self.current));
        all.into_iter().find(|pending| pending.segment == segment)
    }
}

/// From where a part that ends at `to` should begin, when parts hold the segment up to `covered`: there, or
/// earlier, so that the small parts of a window become one. Few parts stay, each byte is written a few times.
fn merged_from(parts: &[Part], covered: u32, to: u32, size: WalSegmentSize) -> u32 {
    let window = u32::try_from(size.bytes() / 16).unwrap_or(u32::MAX).max(WINDOW_BYTES_MIN);
    let begin = covered - covered % window;
    let of_window = parts.iter().filter(|part| part.from >= begin).count();
    let leaves_window = to - begin >= window;
    if of_window > 0 && (leaves_window || of_window + 1 >= PARTS_OF_WINDOW) { begin } else { covered }
}

fn usize_of(size: WalSegmentSize) -> usize {
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
