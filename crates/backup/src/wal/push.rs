//! `archive_command`: a file of `pg_wal` into the archive, durable before it returns.
//!
//! The server hands over one file at a time. When many wait (`archive_status/*.ready`), those behind it are
//! archived along with it, several at once, and a mark tells the next call that the work is done.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{WalFileName, WalSegmentSize};

use super::archive::{Archive, Put};
use super::pages::SegmentHeader;
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
    let content = read(path.to_owned()).await?;
    if spool.take_mark(name, &mark(archive, &content))
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
    let own = put(archive, path, name, content);
    let (own, done) = tokio::join!(own, others.collect::<Vec<_>>());
    for (name, mark) in &done {
        spool.mark(name, mark);
    }
    Ok(Pushed { put: own?, ahead: done.len() })
}

async fn push_ahead(archive: &Archive, path: PathBuf, name: String) -> Result<(String, String)> {
    let content = read(path.clone()).await?;
    let mark = mark(archive, &content);
    put(archive, &path, &name, content).await?;
    Ok((name, mark))
}

async fn put(archive: &Archive, path: &Path, name: &str, content: Bytes) -> Result<Put> {
    let size = SegmentHeader::read(&content).map(|header| header.size);
    match (parse(name), size) {
        (Some((WalFileName::History(timeline), _)), _) => archive.put_history(timeline, content).await,
        (Some((WalFileName::Backup { segment, offset }, size)), _) => {
            archive.put_backup_file(segment, offset, size, content).await
        }
        (Some(_), Some(size)) => match WalFileName::parse(name, size) {
            Some(WalFileName::Segment(segment)) => archive.put_segment(segment, size, content).await,
            Some(WalFileName::Partial(segment)) => archive.put_partial(segment, size, content).await,
            _ => Err(not_wal(path)),
        },
        _ => Err(not_wal(path)),
    }
}

/// Reads a file name whatever the size of segments is: the same name means the same object with any size
/// for which it is one.
pub(super) fn parse(name: &str) -> Option<(WalFileName, WalSegmentSize)> {
    (20..=30).find_map(|shift| {
        let size = WalSegmentSize::new(1 << shift).ok()?;
        WalFileName::parse(name, size).map(|file| (file, size))
    })
}

/// What tells, for one archive, that this content is there.
fn mark(archive: &Archive, content: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(archive.url().as_bytes()).update(&[0]).update(content);
    hasher.finalize().to_hex().to_string()
}

async fn read(path: PathBuf) -> Result<Bytes> {
    let failed = text::backup::WAL_FILE_UNREADABLE.with("file", path.display());
    match tokio::fs::read(&path).await {
        Ok(content) => Ok(content.into()),
        Err(error) => Err(Failure::new(failed).because(error)),
    }
}

fn not_wal(path: &Path) -> Failure {
    Failure::refused(text::backup::WAL_NOT_WAL.with("file", path.display()))
}
