//! The archives of a base backup, cut into extents as they come.

use std::collections::HashMap;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use obyra_evidence::{Failure, text};
use obyra_postgres::replication::{TarEntries, TarEntry, TarEvent, TarKind};

use super::super::intake::{Incoming, Intake};
use super::changed::{ChangedFile, stands_for};
use super::server_manifest::{Arrived, key};
use super::summaries::Truncated;
use crate::Result;
use crate::page::RelationFile;
use crate::repository::manifest::Directory;

/// What the server writes for recovery; kept in the manifest, word for word.
const LABEL: &str = "backup_label";
const MAP: &str = "tablespace_map";

/// The archives as far as they have come.
#[derive(Default)]
pub(super) struct Archives {
    entries: TarEntries,
    /// Whose archive it is; `None` for the data directory's.
    tablespace: Option<u32>,
    file: Option<File>,
    words: HashMap<&'static str, Vec<u8>>,
    /// What arrived, by its path.
    arrived: HashMap<[u8; 16], Arrived>,
    /// Where only changed blocks come: what was truncated, and how many blocks a segment has.
    changed: Option<(Truncated, u32)>,
}

/// A file that is coming.
struct File {
    path: String,
    size: u64,
    /// Bytes that are still to come.
    left: u64,
    digest: Digest,
    goes: Goes,
}

/// Where its bytes go.
enum Goes {
    /// Into extents: the number of the one that is being filled, and what it lacks.
    Intake { incoming: Incoming, extent: u32, lacks: usize },
    /// Into extents, of which only some blocks come.
    Changed(Box<ChangedFile>),
    /// Into the manifest.
    Words(&'static str),
    /// Nowhere: its name is not text.
    Nowhere,
}

impl Archives {
    /// Of a backup of which only changed blocks come, if `truncated` is given.
    pub(super) fn new(truncated: Option<Truncated>, segment_blocks: u32) -> Archives {
        let changed = truncated.map(|truncated| (truncated, segment_blocks));
        Archives { changed, ..Archives::default() }
    }

    /// An archive begins; the one before it is complete.
    pub(super) fn begin(&mut self, tablespace: Option<u32>) -> Result<()> {
        self.end()?;
        self.tablespace = tablespace;
        Ok(())
    }

    /// The archive is complete.
    pub(super) fn end(&mut self) -> Result<()> {
        self.end_file();
        std::mem::take(&mut self.entries).finish()
    }

    /// A piece of the archive.
    pub(super) async fn data(&mut self, bytes: Bytes, intake: &mut Intake<'_>) -> Result<()> {
        self.entries.feed(bytes);
        while let Some(event) = self.entries.next()? {
            match event {
                TarEvent::Entry(entry) => {
                    self.end_file();
                    self.entry(entry, intake).await?;
                }
                TarEvent::Data(bytes) => match &mut self.file {
                    Some(file) => file.data(&bytes, &mut self.words, intake).await?,
                    None => return Err(Failure::new(text::backup::TAKE_OUT_OF_ORDER)),
                },
            }
        }
        Ok(())
    }

    async fn entry(&mut self, entry: TarEntry, intake: &mut Intake<'_>) -> Result<()> {
        let TarEntry { path, kind, size, mode, .. } = entry;
        let Ok(path) = path.into_os_string().into_string() else {
            if kind == TarKind::File {
                let (path, goes) = (String::new(), Goes::Nowhere);
                self.file = Some(File { path, size, left: size, digest: crc(), goes });
            }
            intake.note(text::backup::TAKE_ODD_NAME.with("path", "?"));
            return Ok(());
        };
        let of_base = self.tablespace.is_none();
        let path = self.tablespace.map_or(path.clone(), |oid| format!("pg_tblspc/{oid}/{path}"));
        match kind {
            TarKind::Directory => intake.directories(vec![Directory { path, mode }]),
            // The tablespaces are known.
            TarKind::Symlink(_) => {}
            TarKind::File => {
                let words = [LABEL, MAP].into_iter().find(|words| of_base && path == *words);
                let goes = match (words, self.changed_file(&path, mode, size)) {
                    (Some(words), _) => {
                        self.words.insert(words, Vec::new());
                        Goes::Words(words)
                    }
                    (None, Some(changed)) => Goes::Changed(Box::new(changed)),
                    (None, None) => {
                        let incoming = intake.file(&path, mode, size);
                        let lacks = Intake::length(&incoming, 0);
                        if lacks > 0 {
                            intake.coming(&incoming, 0).await?;
                        }
                        Goes::Intake { incoming, extent: 0, lacks }
                    }
                };
                self.file = Some(File { path, size, left: size, digest: crc(), goes });
            }
        }
        Ok(())
    }

    /// A file of which only changed blocks come.
    fn changed_file(&self, path: &str, mode: u32, size: u64) -> Option<ChangedFile> {
        let (truncated, segment_blocks) = self.changed.as_ref()?;
        let path = stands_for(path).filter(|path| RelationFile::of(path).is_some())?;
        let limit = truncated.limit(&path, *segment_blocks);
        Some(ChangedFile::new(path, mode, size, (limit, *segment_blocks)))
    }

    /// All of a file has come.
    fn end_file(&mut self) {
        if let Some(File { path, size, left: 0, digest, goes }) = self.file.take()
            && !matches!(goes, Goes::Nowhere)
        {
            self.arrived.insert(key(&path), Arrived { size, crc: digest.finalize() as u32 });
        }
    }

    /// What arrived, by its path.
    pub(super) fn take_arrived(&mut self) -> HashMap<[u8; 16], Arrived> {
        std::mem::take(&mut self.arrived)
    }

    /// `backup_label`, and `tablespace_map` if there is one.
    pub(super) fn words(mut self) -> Result<(String, Option<String>)> {
        let mut text = |name| {
            let text = String::from_utf8(self.words.remove(name).unwrap_or_default());
            text.map_err(|error| Failure::new(text::backup::TAKE_LABEL_MALFORMED).because(error))
        };
        let (label, map) = (text(LABEL)?, text(MAP)?);
        Ok((label, Some(map).filter(|map| !map.is_empty())))
    }
}

impl File {
    async fn data(
        &mut self,
        bytes: &[u8],
        words: &mut HashMap<&'static str, Vec<u8>>,
        intake: &mut Intake<'_>,
    ) -> Result<()> {
        self.digest.update(bytes);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        match &mut self.goes {
            Goes::Nowhere => {}
            Goes::Changed(file) => file.data(bytes, intake).await?,
            Goes::Words(name) => words.entry(name).or_default().extend_from_slice(bytes),
            Goes::Intake { incoming, extent, lacks } => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(*lacks));
                    intake.bytes(now);
                    (rest, *lacks) = (later, *lacks - now.len());
                    if *lacks == 0 {
                        intake.extent(incoming, *extent).await?;
                        *extent += 1;
                        *lacks = Intake::length(incoming, *extent);
                        if *lacks == 0 {
                            break;
                        }
                        intake.coming(incoming, *extent).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn crc() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}
