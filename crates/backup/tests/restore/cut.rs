//! A small maker of backups: cuts a folder into packs and a manifest, as the format says. What takes
//! backups for real has tests of its own; these are about bringing them back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::ManifestWriter;
use obyra_backup::repository::layout::{
    BLOCK, BackupId, ClusterId, EXTENT_BYTES, FRAME_BLOCKS, PACK_BYTES, PackId,
};
use obyra_backup::repository::manifest::{
    Cluster, Directory, FileEntry, Header, Line, PackEntry, PieceAt, Source, Totals,
};
use obyra_backup::repository::map::{Kept, Piece, ZEROS, identity};
use obyra_backup::repository::pack::{Kind, PackWriter};
use obyra_postgres::wal::Lsn;

pub const STARTED: &str = "2026-11-24T03:00:00Z";

/// A header with the given name, of a cluster that was not asked anything.
pub fn header(cluster: ClusterId, random: u16) -> Header {
    let started: Timestamp = STARTED.parse().unwrap();
    Header {
        id: BackupId::new(started, random),
        environment: "test".to_owned(),
        program: "test".to_owned(),
        started,
        stopped: started,
        source: Source::Local,
        cluster: Cluster {
            system_identifier: cluster.to_string(),
            version: 160_004,
            checksums: true,
            wal_segment_bytes: 16 << 20,
        },
        timeline: 1,
        start: Lsn(0x200_0028),
        stop: Lsn(0x200_0100),
        parent: None,
        backup_label: String::new(),
        tablespace_map: None,
        tablespaces: Vec::new(),
        damaged: Vec::new(),
        damaged_more: 0,
        server_complaint: None,
        changed_only: None,
        totals: Totals::default(),
    }
}

pub struct Cutter<'a> {
    repository: &'a Repository,
    cluster: ClusterId,
    id: BackupId,
    pack: PackWriter,
    sequence: u32,
    packs: Vec<PackEntry>,
    lines: Vec<Line>,
    totals: Totals,
}

/// Cuts a folder, less what `skip` says by its relative path. The backup exists once it is committed.
pub async fn begin<'a>(
    repository: &'a Repository,
    cluster: ClusterId,
    header: &Header,
    data: &Path,
    skip: &dyn Fn(&str) -> bool,
) -> Cutter<'a> {
    let mut cutter = Cutter::new(repository, cluster, &header.id);
    cutter.folder(data, "", skip).await;
    for tablespace in &header.tablespaces {
        let prefix = format!("pg_tblspc/{}", tablespace.oid);
        cutter.folder(Path::new(&tablespace.location), &prefix, skip).await;
    }
    cutter
}

impl Cutter<'_> {
    fn new<'a>(repository: &'a Repository, cluster: ClusterId, id: &BackupId) -> Cutter<'a> {
        let first = PackId { backup: id.clone(), sequence: 0 };
        Cutter {
            repository,
            cluster,
            id: id.clone(),
            pack: PackWriter::new(&repository.keys, &cluster.pack(&first), 1).unwrap(),
            sequence: 0,
            packs: Vec::new(),
            lines: Vec::new(),
            totals: Totals::default(),
        }
    }

    async fn folder(&mut self, folder: &Path, prefix: &str, skip: &dyn Fn(&str) -> bool) {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_str().unwrap();
            let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            // Files come and go while a server runs.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if skip(&relative) || metadata.is_symlink() {
                continue;
            }
            if metadata.is_dir() {
                self.lines.push(Line::Directory(Directory {
                    path: relative.clone(),
                    mode: metadata.mode() & 0o777,
                }));
                Box::pin(self.folder(&path, &relative, skip)).await;
            } else if let Ok(bytes) = fs::read(&path) {
                self.file(relative, metadata.mode() & 0o777, &bytes).await;
            }
        }
    }

    async fn file(&mut self, path: String, mode: u32, bytes: &[u8]) {
        let mut extents = Vec::new();
        for extent in bytes.chunks(EXTENT_BYTES as usize) {
            extents.push(self.extent(extent).await);
        }
        self.totals.files += 1;
        self.totals.bytes += bytes.len() as u64;
        self.lines.push(Line::File(FileEntry { path, mode, size: bytes.len() as u64, extents }));
    }

    async fn extent(&mut self, extent: &[u8]) -> PieceAt {
        let key = self.repository.keys.identity_key();
        let mut piece = Piece::default();
        for frame in extent.chunks(FRAME_BLOCKS * BLOCK) {
            if self.pack.len() + frame.len() > PACK_BYTES {
                self.put().await;
            }
            let identities: Vec<_> = frame.chunks(BLOCK).map(|block| identity(&key, block)).collect();
            let kept: Vec<&[u8]> = frame
                .chunks(BLOCK)
                .zip(&identities)
                .filter(|(_, id)| **id != ZEROS)
                .map(|(b, _)| b)
                .collect();
            let at =
                (!kept.is_empty()).then(|| self.pack.push(Kind::Blocks, &kept.concat(), Vec::new()).unwrap());
            let id = PackId { backup: self.id.clone(), sequence: self.sequence };
            let mut offset = 0;
            for identity in identities {
                let place = at.filter(|_| identity != ZEROS).map(|frame| Kept {
                    pack: piece.pack(&id).unwrap(),
                    frame,
                    offset,
                });
                offset += if place.is_some() { BLOCK as u32 } else { 0 };
                piece.push(identity, place, BLOCK as u32);
            }
        }
        let mut raw = Vec::new();
        piece.encode(&mut raw);
        let at = self.pack.push(Kind::Map, &raw, Vec::new()).unwrap();
        PieceAt { pack: self.sequence, frame: at.offset, stored: at.stored, offset: 0 }
    }

    async fn put(&mut self) {
        let next = PackId { backup: self.id.clone(), sequence: self.sequence + 1 };
        let fresh = PackWriter::new(&self.repository.keys, &self.cluster.pack(&next), 1).unwrap();
        let sealed = std::mem::replace(&mut self.pack, fresh).finish().unwrap();
        let id = PackId { backup: self.id.clone(), sequence: self.sequence };
        self.packs.push(PackEntry::of(id, &sealed));
        self.repository.store.create(&sealed.name, sealed.bytes).await.unwrap();
        self.sequence += 1;
    }

    pub async fn commit(mut self, mut header: Header) -> Header {
        self.put().await;
        header.totals = self.totals;
        let mut manifest = ManifestWriter::new(self.repository, self.cluster, &self.id, self.sequence);
        for line in self.lines.into_iter().chain(self.packs.into_iter().map(Line::Pack)) {
            manifest.push(&line).await.unwrap();
        }
        manifest.commit(&header).await.unwrap();
        header
    }
}
