//! `restore_command`: a file of the archive for recovery, and some of those that it will ask for next.
//!
//! Recovery takes "not there" for the end of the WAL, and begins a new timeline there. So a store that cannot
//! be reached must be told apart: an exit code above 125 makes the server give up instead of ending early.

use std::io::Write as _;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineHistory, TimelineId, WalFileName, WalSegmentSize};

use super::archive::{Archive, off_the_runtime};
use super::pages::SegmentHeader;
use super::push;
use super::spool::{self, Spool};
use crate::Result;

/// Bytes of segments that are fetched before they are asked for.
const AHEAD_BYTES: u64 = 128 << 20;

/// Segments that are fetched before they are asked for, however small they are.
const AHEAD_MAX: u64 = 16;

/// Segments that are fetched at once.
const AT_ONCE: usize = 4;

/// "It is not there": PostgreSQL looks elsewhere, and else takes it for the end.
const EXIT_ABSENT: u8 = 1;

/// "Nobody knows whether it is there": PostgreSQL ends with a fatal error. It does so for each code above
/// 125; this one cannot be mistaken for a signal or for a shell that found no program.
const EXIT_UNKNOWN: u8 = 255;

/// What a call has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file is where it was wanted.
    Written,
    /// The archive does not have it.
    Absent,
}

/// Fetches a file (`%f`) to where recovery wants it (`%p`).
pub async fn fetch(archive: &Archive, name: &str, to: &Path) -> Result<Fetched> {
    let Some((file, any_size)) = push::parse(name) else {
        return Err(Failure::usage(text::backup::WAL_NOT_WAL.with("file", name)));
    };
    let spool = Spool::of(to.parent().unwrap_or(Path::new(".")));
    let is_right = |header: &SegmentHeader| {
        header.cluster == archive.cluster()
            && matches!(file, WalFileName::Segment(_))
            && parsed(name, header.size).map(|segment| segment.start(header.size)) == Some(header.position())
    };
    if spool.take(name, is_right, to) {
        return Ok(Fetched::Written);
    }
    if let Some(first) = archive.get_to(file, any_size, to).await? {
        if let Some(size) = SegmentHeader::read(&first).map(|header| header.size)
            && let Some(segment) = parsed(name, size)
        {
            ahead(archive, segment, size, &spool).await;
        }
        return Ok(Fetched::Written);
    }
    spool.clear();
    let WalFileName::Segment(segment) = file else { return Ok(Fetched::Absent) };
    match unfinished(archive, segment, any_size).await? {
        Some(content) => {
            let to = to.to_owned();
            off_the_runtime(move || {
                spool::write(&to, |out| out.write_all(&content).map_err(|e| spool::not_written(&to, &e)))
            })
            .await?;
            Ok(Fetched::Written)
        }
        None => Ok(Fetched::Absent),
    }
}

/// The exit code that tells PostgreSQL what became of a fetch. A standby (`standby.signal` in its data
/// directory) does not end when something is absent, but asks again: it need not die of a store that is away.
pub fn fetch_exit_code(fetched: &Result<Fetched>, data: &Path) -> u8 {
    match fetched {
        Ok(Fetched::Written) => 0,
        Ok(Fetched::Absent) => EXIT_ABSENT,
        Err(_) if data.join("standby.signal").exists() => EXIT_ABSENT,
        Err(_) => EXIT_UNKNOWN,
    }
}

fn parsed(name: &str, size: WalSegmentSize) -> Option<SegmentName> {
    SegmentName::parse(name, size)
}

/// Keeps the segments that follow, as far as there are any. That it fails is told when they are asked for.
async fn ahead(archive: &Archive, segment: SegmentName, size: WalSegmentSize, spool: &Spool) {
    let count = (AHEAD_BYTES / size.bytes()).clamp(1, AHEAD_MAX);
    let wanted = (1..=count).map(|nth| SegmentName { number: segment.number.saturating_add(nth), ..segment });
    let mut got = stream::iter(wanted.filter(|next| !spool.has(&next.file_name(size))))
        .map(|next| async move {
            let place = spool.place(&next.file_name(size))?;
            archive.get_to(WalFileName::Segment(next), size, &place).await
        })
        .buffered(AT_ONCE);
    while let Some(Ok(Some(_))) = got.next().await {}
}

/// A segment of which there are parts only, with zeros behind them; `None` if there is none.
pub(crate) async fn unfinished(
    archive: &Archive,
    segment: SegmentName,
    any_size: WalSegmentSize,
) -> Result<Option<Vec<u8>>> {
    let parts = archive.get_parts(segment, any_size).await?;
    let Some(header) = SegmentHeader::read(&parts) else { return Ok(None) };
    let size = header.size;
    let Some(segment) = parsed(&segment.file_name(any_size), size) else { return Ok(None) };
    let mut content = parts.to_vec();
    let end = segment.start(size) + content.len() as u64;
    let valid = end.min(left_at(archive, segment, size).await?.unwrap_or(end));
    content.truncate(usize::try_from(valid.bytes_since(segment.start(size))).unwrap_or(usize::MAX));
    content.resize(usize::try_from(size.bytes()).unwrap_or(usize::MAX), 0);
    Ok(Some(content))
}

/// Where a timeline was left within a segment by one of which the archive does not have this segment.
///
/// A recovery along the new timeline asks for the new one's segment first, and for the old one's if that is
/// not there. What the old one went on to write never happened on the new one.
async fn left_at(archive: &Archive, segment: SegmentName, size: WalSegmentSize) -> Result<Option<Lsn>> {
    let mut left: Option<Lsn> = None;
    let mut child = segment.timeline;
    loop {
        // The server numbers timelines as it finds them: the first that is absent is the end.
        child = TimelineId(child.0.saturating_add(1));
        let Some(history) = archive.get_history(child).await? else { return Ok(left) };
        let Some(at) = leaves_within(&history, segment, size) else { continue };
        let line = history.parents().iter().map(|parent| parent.timeline).chain([child]);
        let mut has_own = false;
        for timeline in line.filter(|timeline| *timeline > segment.timeline) {
            let own = SegmentName { timeline, ..segment };
            has_own = has_own
                || archive.has(WalFileName::Segment(own), size).await?
                || !archive.parts(own, size).await?.is_empty();
        }
        if !has_own {
            left = Some(left.map_or(at, |left| left.min(at)));
        }
    }
}

/// Where a history leaves the segment's timeline, if that is within the segment.
fn leaves_within(history: &TimelineHistory, segment: SegmentName, size: WalSegmentSize) -> Option<Lsn> {
    let at = history.switch_point(segment.timeline)?;
    (segment.start(size) <= at && at < segment.end(size)).then_some(at)
}
