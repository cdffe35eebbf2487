//! `archive_command`: a file of `pg_wal` into the archive, durable before it returns.
//!
//! The server hands over one file at a time. When many wait (`archive_status/*.ready`), those behind it are
//! archived along with it, several at once, and a mark tells the next call that the work is done.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{SegmentName, WalFileName, WalSegmentSize};

use super::archive::{Archive, Put, off_the_runtime};
use super::content::{Content, unreadable};
use super::pages::{LONG_HEADER, SegmentHeader};
use super::spool::Spool;
use crate::Result;

/// Files that are archived at once.
const AT_ONCE: usize = 4;

/// Files that one call archives besides its own.
const AHEAD_MAX: usize = 32;

/// No further file is begun after this: a server that shuts down waits for the call.
const AHEAD_WITHIN: Duration = Duration::from_secs(10);

/// What a call has archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What became of its own file.
    pub put: Put,
    /// How many further files it has archived.
    pub ahead: usize,
}

/// Archives a file of `pg_wal` (`%p`), and some of those that wait behind it.
pub async fn push(archive: &Archive, path: &Path) -> Result<Pushed> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(not_wal(path));
    };
    let spool = Spool::of(folder);
    if spool.take_mark(name, &mark(archive, path)?)
        && let Some((file, size)) = parse(name)
        && archive.has(file, size).await?
    {
        return Ok(Pushed { put: Put::Existed, ahead: 0 });
    }
    let ahead = spool.ready_after(name, AHEAD_MAX);
    let begun = Instant::now();
    let others = stream::iter(ahead)
        .take_while(|_| std::future::ready(begun.elapsed() < AHEAD_WITHIN))
        .map(|name| push_ahead(archive, folder.join(&name), name))
        .buffered(AT_ONCE)
        // One that fails will fail again when its turn comes, and then it is told.
        .take_while(|done| std::future::ready(done.is_ok()))
        .filter_map(|done| std::future::ready(done.ok()));
    let (own, done) = tokio::join!(put(archive, path, name), others.collect::<Vec<_>>());
    for (name, mark) in &done {
        spool.mark(name, mark);
    }
    Ok(Pushed { put: own?, ahead: done.len() })
}

async fn push_ahead(archive: &Archive, path: PathBuf, name: String) -> Result<(String, String)> {
    let mark = mark(archive, &path)?;
    put(archive, &path, &name).await?;
    Ok((name, mark))
}

async fn put(archive: &Archive, path: &Path, name: &str) -> Result<Put> {
    match parse(name) {
        Some((WalFileName::History(timeline), _)) => archive.put_history(timeline, read(path).await?).await,
        Some((WalFileName::Backup { segment, offset }, size)) => {
            archive.put_backup_file(segment, offset, size, read(path).await?).await
        }
        Some((WalFileName::Partial(_), _)) => {
            let content = read(path).await?;
            let size = SegmentHeader::read(&content).map(|header| header.size);
            match size.and_then(|size| Some((WalFileName::parse(name, size)?, size))) {
                Some((WalFileName::Partial(segment), size)) => {
                    archive.put_partial(segment, size, content).await
                }
                _ => Err(not_wal(path)),
            }
        }
        Some((WalFileName::Segment(_), _)) => {
            let size = first_page(path).await?.map(|header| header.size);
            match size.and_then(|size| Some((SegmentName::parse(name, size)?, size))) {
                Some((segment, size)) => {
                    archive.put_segment(segment, size, Content::File(path.to_owned())).await
                }
                None => Err(not_wal(path)),
            }
        }
        None => Err(not_wal(path)),
    }
}

/// The header of a segment.
async fn first_page(path: &Path) -> Result<Option<SegmentHeader>> {
    let path = path.to_owned();
    off_the_runtime(move || {
        let mut first = Vec::new();
        let file = std::fs::File::open(&path).map_err(|e| unreadable(&path, &e))?;
        file.take(LONG_HEADER as u64).read_to_end(&mut first).map_err(|e| unreadable(&path, &e))?;
        Ok(SegmentHeader::read(&first))
    })
    .await
}

/// Reads a file name whatever the size of segments is: the same name means the same object with any size
/// for which it is one.
pub(super) fn parse(name: &str) -> Option<(WalFileName, WalSegmentSize)> {
    (20..=30).find_map(|shift| {
        let size = WalSegmentSize::new(1 << shift).ok()?;
        WalFileName::parse(name, size).map(|file| (file, size))
    })
}

/// What tells, for one archive, that this very file is there. The server changes no file that waits.
fn mark(archive: &Archive, path: &Path) -> Result<String> {
    let file = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    let (inode, bytes) = (file.ino(), file.len());
    Ok(format!("{inode} {bytes} {}.{} {}", file.mtime(), file.mtime_nsec(), archive.url()))
}

async fn read(path: &Path) -> Result<Bytes> {
    tokio::fs::read(path).await.map(Bytes::from).map_err(|e| unreadable(path, &e))
}

fn not_wal(path: &Path) -> Failure {
    Failure::refused(text::backup::WAL_NOT_WAL.with("file", path.display()))
}
