//! The archive of a cluster's WAL in a repository: what goes in is checked and never changed, what comes out
//! is what went in, and "not there" is never said of a store that cannot be reached.
//!
//! Putting the same again is fine; putting something else under the same name is refused, since then two
//! clusters of the same identity write into one archive.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{SegmentName, TimelineHistory, TimelineId, WalFileName, WalSegmentSize};

use super::content::Content;
use super::index::{Index, cover};
use super::name::{self, Part, WalObject};
use super::pages::{self, PageCheck, SegmentHeader, WholeCheck};
use super::spool;
use crate::Result;
use crate::repository::Repository;
use crate::repository::keys::Keyring;
use crate::repository::layout::ClusterId;
use crate::repository::pack::{Kind, Pack, PackWriter, Sealed, is_damage, twice};
use crate::repository::store::{Created, Store};

/// No object of the archive holds more: what claims more is not ours.
const RAW_MAX: usize = 1 << 30;

/// zstd's level for WAL.
const LEVEL: i32 = 1;

/// How often a name may be found taken and then free again while somebody else tidies up.
const ROUNDS: usize = 4;

/// The archive of one cluster. Clones share the store and the keys.
#[derive(Clone, Debug)]
pub struct Archive {
    store: Store,
    keys: Keyring,
    cluster: ClusterId,
}

/// What became of something that was put. It is durable either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is new, and takes so many bytes in the store.
    New(u64),
    /// The same was there already.
    Existed,
}

impl Archive {
    /// The archive of a cluster.
    pub fn new(repository: &Repository, cluster: ClusterId) -> Archive {
        Archive { store: repository.store.clone(), keys: repository.keys.clone(), cluster }
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Where the store is, without credentials.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// Whether a file is there, by its name.
    pub async fn has(&self, file: WalFileName, size: WalSegmentSize) -> Result<bool> {
        let name = WalObject::File(file).object_name(self.cluster, size);
        Ok(self.store.head(&name).await?.is_some())
    }

    /// Puts a complete segment, after a look at each of its pages.
    pub async fn put_segment(
        &self,
        segment: SegmentName,
        size: WalSegmentSize,
        content: impl Into<Content>,
    ) -> Result<Put> {
        let check = WholeCheck::new(PageCheck::new(self.cluster, segment, size));
        self.put(WalObject::File(WalFileName::Segment(segment)), size, content.into(), Some(check)).await
    }

    /// Puts a part of a segment that is not complete. Its pages were checked as they came.
    pub async fn put_part(&self, part: Part, size: WalSegmentSize, raw: Bytes) -> Result<Put> {
        self.put(WalObject::Part(part), size, raw.into(), None).await
    }

    /// Puts the last segment of a timeline that was left in its middle, under its own name: it never
    /// becomes the complete one. What follows in it never happened, so only its beginning is checked.
    pub async fn put_partial(
        &self,
        segment: SegmentName,
        size: WalSegmentSize,
        content: Bytes,
    ) -> Result<Put> {
        let file = WalFileName::Partial(segment);
        let first = content.get(..pages::LONG_HEADER).unwrap_or_default();
        PageCheck::new(self.cluster, segment, size)
            .advance(first)
            .and_then(|()| SegmentHeader::read(first).map(drop).ok_or(pages::Fault::NotWal))
            .map_err(|fault| pages::refusal(fault, &file.file_name(size), self.cluster))?;
        self.put(WalObject::File(file), size, content.into(), None).await
    }

    /// Puts the history file of a timeline, which must be one.
    pub async fn put_history(&self, timeline: TimelineId, content: Bytes) -> Result<Put> {
        history(timeline, &content)?;
        let file = WalObject::File(WalFileName::History(timeline));
        self.put(file, WalSegmentSize::DEFAULT, content.into(), None).await
    }

    /// Puts the file that tells of a finished base backup.
    pub async fn put_backup_file(
        &self,
        segment: SegmentName,
        offset: u32,
        size: WalSegmentSize,
        content: Bytes,
    ) -> Result<Put> {
        let file = WalObject::File(WalFileName::Backup { segment, offset });
        self.put(file, size, content.into(), None).await
    }

    /// A complete segment; `None` if it is not there.
    pub async fn get_segment(&self, segment: SegmentName, size: WalSegmentSize) -> Result<Option<Bytes>> {
        self.get_file(WalFileName::Segment(segment), size).await
    }

    /// A file; `None` if it is not there.
    pub async fn get_file(&self, file: WalFileName, size: WalSegmentSize) -> Result<Option<Bytes>> {
        self.get(WalObject::File(file).object_name(self.cluster, size)).await
    }

    /// Writes a file to a path, whole or not at all, and durably; returns its first bytes. `None` if the
    /// archive does not have it.
    pub async fn get_to(&self, file: WalFileName, size: WalSegmentSize, to: &Path) -> Result<Option<Bytes>> {
        let name = WalObject::File(file).object_name(self.cluster, size);
        twice(|| self.write_to(name.clone(), to.to_owned())).await
    }

    async fn write_to(&self, name: String, to: PathBuf) -> Result<Option<Bytes>> {
        let Some(bytes) = self.store.get(&name).await? else { return Ok(None) };
        let keys = self.keys.clone();
        off_the_runtime(move || {
            let pack = Pack::open(&keys, &name, bytes)?;
            let mut first = Bytes::new();
            spool::write(&to, |out| {
                for entry in &pack.directory {
                    let raw = pack.frame(entry.at)?.1;
                    out.write_all(&raw).map_err(|e| spool::not_written(&to, &e))?;
                    if first.is_empty() {
                        first = Bytes::copy_from_slice(&raw[..raw.len().min(pages::LONG_HEADER)]);
                    }
                }
                Ok(())
            })?;
            Ok(Some(first))
        })
        .await
    }

    /// The history of a timeline; `None` if its file is not there.
    pub async fn get_history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>> {
        let content = self.get_file(WalFileName::History(timeline), WalSegmentSize::DEFAULT).await?;
        content.map(|content| history(timeline, &content)).transpose()
    }

    /// What the parts of a segment hold from its first byte on; empty if there is none.
    pub async fn get_parts(&self, segment: SegmentName, size: WalSegmentSize) -> Result<Bytes> {
        'listed: for _ in 0..ROUNDS {
            let parts = cover(&self.parts(segment, size).await?);
            let mut whole = Vec::with_capacity(parts.last().map_or(0, |part| part.to as usize));
            for part in parts {
                let object = WalObject::Part(part).object_name(self.cluster, size);
                // Merged with its neighbours since it was listed.
                let Some(raw) = self.get(object.clone()).await? else { continue 'listed };
                let known = whole.len() - part.from as usize;
                if raw.len() != (part.to - part.from) as usize
                    || raw[..known.min(raw.len())] != whole[part.from as usize..]
                {
                    return Err(Failure::new(text::backup::OBJECT_DAMAGED.with("object", object)));
                }
                whole.extend_from_slice(&raw[known..]);
            }
            return Ok(whole.into());
        }
        Err(Failure::new(text::backup::WAL_PARTS_CHANGE.with("file", segment.file_name(size))))
    }

    /// The parts of a segment that are there.
    pub async fn parts(&self, segment: SegmentName, size: WalSegmentSize) -> Result<Vec<Part>> {
        let whole = WalObject::File(WalFileName::Segment(segment)).object_name(self.cluster, size);
        let after = self.store.list_after(&self.cluster.wal(segment.timeline.0), &whole).await?;
        let parsed = after.iter().filter_map(|info| match WalObject::parse(self.cluster, &info.name, size) {
            Some(WalObject::Part(part)) if part.segment == segment => Some(part),
            _ => None,
        });
        Ok(parsed.collect())
    }

    /// Deletes parts whose content is elsewhere in the archive.
    pub async fn delete_parts(&self, parts: &[Part], size: WalSegmentSize) -> Result<()> {
        for part in parts {
            self.store.delete(&WalObject::Part(*part).object_name(self.cluster, size)).await?;
        }
        Ok(())
    }

    /// What the archive holds of one timeline from a segment on: a short listing, and no histories.
    pub async fn index_from(&self, segment: SegmentName, size: WalSegmentSize) -> Result<Index> {
        let before = SegmentName { number: segment.number.saturating_sub(1), ..segment };
        // Its own parts sort behind it, before the next.
        let after = WalObject::File(WalFileName::Segment(before)).object_name(self.cluster, size);
        let listed = self.store.list_after(&self.cluster.wal(segment.timeline.0), &after).await?;
        Ok(Index::of(self.cluster, size, &listed))
    }

    /// What the archive holds, with the histories of its timelines.
    pub async fn index(&self, size: WalSegmentSize) -> Result<Index> {
        let listed = self.store.list(&name::folder(self.cluster)).await?;
        let mut index = Index::of(self.cluster, size, &listed);
        for timeline in index.listed_histories().to_vec() {
            if let Some(history) = self.get_history(timeline).await? {
                index = index.with_history(history);
            }
        }
        Ok(index)
    }

    async fn put(
        &self,
        object: WalObject,
        size: WalSegmentSize,
        content: Content,
        mut check: Option<WholeCheck>,
    ) -> Result<Put> {
        let name = object.object_name(self.cluster, size);
        let kind = match object {
            WalObject::File(WalFileName::History(_) | WalFileName::Backup { .. }) => Kind::Data,
            WalObject::File(_) | WalObject::Part(_) => Kind::Wal,
        };
        for _ in 0..ROUNDS {
            // What was checked once need not be checked again.
            let sealed = self.seal(&name, kind, content.clone(), check.take()).await?;
            let stored = sealed.bytes.len() as u64;
            if self.store.create(&name, sealed.bytes).await? == Created::New {
                return Ok(Put::New(stored));
            }
            match twice(|| self.holds(&name, content.clone())).await {
                Ok(Some(true)) => return Ok(Put::Existed),
                Ok(Some(false)) => return Err(two_writers(&name)),
                // Deleted since: the next round makes it.
                Ok(None) => {}
                // What cannot be opened is of no use to anybody; the good bytes are at hand.
                Err(failure) if is_damage(&failure) => self.store.delete(&name).await?,
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::new(text::backup::WAL_PARTS_CHANGE.with("file", name)))
    }

    async fn seal(
        &self,
        name: &str,
        kind: Kind,
        content: Content,
        mut check: Option<WholeCheck>,
    ) -> Result<Sealed> {
        let (keys, name, cluster) = (self.keys.clone(), name.to_owned(), self.cluster);
        off_the_runtime(move || {
            let file = name.rsplit('/').next().unwrap_or_default();
            let refused = |fault| pages::refusal(fault, file, cluster);
            // It never grows, which would take half as much again; what is not written takes nothing.
            let room = Vec::with_capacity(content.bytes().min(RAW_MAX));
            let mut pack = PackWriter::reusing(room, &keys, &name, LEVEL)?;
            content.each(|piece| {
                check.as_mut().map_or(Ok(()), |check| check.piece(piece)).map_err(refused)?;
                pack.push(kind, piece, Vec::new()).map(drop)
            })?;
            check.map_or(Ok(()), WholeCheck::finish).map_err(refused)?;
            pack.finish()
        })
        .await
    }

    /// Whether an object holds exactly this; `None` if it is not there.
    async fn holds(&self, name: &str, content: Content) -> Result<Option<bool>> {
        let Some(bytes) = self.store.get(name).await? else { return Ok(None) };
        let (keys, name) = (self.keys.clone(), name.to_owned());
        off_the_runtime(move || {
            let pack = Pack::open(&keys, &name, bytes)?;
            let mut frames = pack.directory.iter();
            let (mut held, mut same) = (Vec::new(), true);
            content.each(|piece| {
                while same && held.len() < piece.len() {
                    let Some(entry) = frames.next() else { break };
                    held.extend_from_slice(&pack.frame(entry.at)?.1);
                }
                same = same && held.starts_with(piece);
                held.drain(..piece.len().min(held.len()));
                Ok(())
            })?;
            Ok(Some(same && held.is_empty() && frames.next().is_none()))
        })
        .await
    }

    async fn get(&self, name: String) -> Result<Option<Bytes>> {
        twice(|| self.read(name.clone())).await
    }

    async fn read(&self, name: String) -> Result<Option<Bytes>> {
        let Some(bytes) = self.store.get(&name).await? else { return Ok(None) };
        let keys = self.keys.clone();
        off_the_runtime(move || {
            let pack = Pack::open(&keys, &name, bytes)?;
            let size: usize = pack.directory.iter().map(|entry| entry.raw as usize).sum();
            let mut raw = Vec::with_capacity(size.min(RAW_MAX));
            for entry in &pack.directory {
                raw.extend_from_slice(&pack.frame(entry.at)?.1);
            }
            Ok(Some(raw.into()))
        })
        .await
    }
}

/// Compression, sealing and waiting for a disk take tens of milliseconds: too long for the threads that move
/// bytes.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Failure::new(text::backup::COMPRESSION).because(error)),
    }
}

fn history(timeline: TimelineId, content: &[u8]) -> Result<TimelineHistory> {
    TimelineHistory::parse(timeline, &String::from_utf8_lossy(content))
}

fn two_writers(name: &str) -> Failure {
    Failure::refused(text::backup::WAL_TWO_WRITERS.with("object", name))
        .mended_by(text::backup::WAL_TWO_WRITERS_MEND)
}
