//! A repository with everything that one can hold, small: two backups, the second incremental, WAL on two
//! timelines, a history, a claim, a mark.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bytes::Bytes;
use obyra_backup::Result;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::{Manifest, ManifestWriter};
use obyra_backup::repository::claims::{Claim, Expiry, Note};
use obyra_backup::repository::frames::FrameReader;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::{BLOCK, BackupId, ClusterId, EXTENT_BYTES, FRAME_BLOCKS, PackId};
use obyra_backup::repository::manifest::{
    Cluster, Directory, FileEntry, Header, Line, PackEntry, PieceAt, Source, Totals,
};
use obyra_backup::repository::map::{Kept, Piece, ZEROS, identity};
use obyra_backup::repository::pack::{FrameAt, Kind, PackWriter};
use obyra_backup::repository::store::Store;
use obyra_backup::restore::{Into, Place, Restore};
use obyra_backup::wal::Archive;
use obyra_evidence::Quiet;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use tempfile::TempDir;

pub const CLUSTER: ClusterId = ClusterId(7_301_234_567_890_123_456);
pub const SEGMENT: u64 = 1 << 20;

/// The files of a cluster: their paths, and what they hold.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Sample {
    pub repository: Repository,
    pub full: BackupId,
    pub incremental: BackupId,
}

/// Bytes that compress a little, different for each seed.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    for n in 0_u64.. {
        if out.len() >= length {
            break;
        }
        out.extend_from_slice(
            &blake3::hash(&[seed.to_le_bytes(), n.to_le_bytes()].concat()).as_bytes()[..16],
        );
        out.extend_from_slice(b"the same, always");
    }
    out.truncate(length);
    out
}

pub fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

pub fn size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT).unwrap()
}

/// Who takes a backup, or makes a copy.
pub fn note() -> Note {
    Note {
        environment: "production".to_owned(),
        host: "backup-host".to_owned(),
        pid: 7,
        program: "0".to_owned(),
        started: "2026-11-03T03:00:00Z".parse().unwrap(),
        uses: Vec::new(),
        everything: false,
        ended: false,
        process: None,
    }
}

/// The cluster at its first backup.
pub fn files() -> Files {
    Files::from([
        ("PG_VERSION".to_owned(), b"16\n".to_vec()),
        ("global/pg_control".to_owned(), [CLUSTER.0.to_le_bytes().to_vec(), bytes(5, BLOCK - 8)].concat()),
        ("base/1/1259".to_owned(), bytes(1, 40 * BLOCK)),
        ("base/1/16384".to_owned(), large()),
        ("base/1/16385".to_owned(), Vec::new()),
        ("base/1/16386".to_owned(), [bytes(3, BLOCK), vec![0; 2 * BLOCK], bytes(4, BLOCK)].concat()),
    ])
}

/// A file of two extents, most of it zeros.
fn large() -> Vec<u8> {
    let mut large = bytes(2, 70 * BLOCK);
    large.resize(EXTENT_BYTES as usize, 0);
    [large, bytes(8, 3 * BLOCK + 100)].concat()
}

/// The same at the second.
pub fn changed(mut files: Files) -> Files {
    files.get_mut("base/1/1259").unwrap()[8 * BLOCK..9 * BLOCK].copy_from_slice(&bytes(9, BLOCK));
    files.get_mut("base/1/16384").unwrap()[100..108].copy_from_slice(b"changed!");
    files
}

pub async fn make(store: Store, unlock: &Unlock) -> Sample {
    let repository = Repository::open_or_create(store, unlock).await.unwrap();
    let files = files();
    let (full, incremental) = (id("20261101T030000Z-00ab"), id("20261102T030000Z-00cd"));
    backup(&repository, &full, &files, None, (3 * SEGMENT + 40, 4 * SEGMENT + 8)).await;
    let changed = changed(files);
    backup(&repository, &incremental, &changed, Some(&full), (6 * SEGMENT + 40, 6 * SEGMENT + 900)).await;
    archive(&repository).await;
    figures(&repository, &full).await;
    // A backup that died, and an expiry that died.
    drop(Claim::begin(&repository, CLUSTER, &id("20261103T030000Z-00ef"), note()).await.unwrap());
    drop(Expiry::begin(&repository, CLUSTER, std::slice::from_ref(&full)).await.unwrap());
    Sample { repository, full, incremental }
}

/// What a drill would compare with.
async fn figures(repository: &Repository, backup: &BackupId) {
    let mut pack = PackWriter::new(&repository.keys, &CLUSTER.figures(backup), 1).unwrap();
    pack.push(Kind::Data, b"{}", Vec::new()).unwrap();
    let sealed = pack.finish().unwrap();
    repository.store.create_new(&sealed.name, sealed.bytes).await.unwrap();
}

/// Segments 3 to 6 of the first timeline, a part of 7, the second timeline from the middle of 6 on.
async fn archive(repository: &Repository) {
    let archive = Archive::new(repository, CLUSTER);
    let segment = |timeline, number| SegmentName { timeline: TimelineId(timeline), number };
    for number in 3..=6 {
        let segment = segment(1, number);
        archive.put_segment(segment, size(), wal(segment)).await.unwrap();
    }
    for number in [6, 7] {
        let segment = segment(2, number);
        archive.put_segment(segment, size(), wal(segment)).await.unwrap();
    }
    let part = obyra_backup::wal::Part { segment: segment(2, 8), from: 0, to: 8192 };
    archive.put_part(part, size(), wal(part.segment).slice(..8192)).await.unwrap();
    let left = segment(1, 7);
    archive.put_partial(left, size(), wal(left).slice(..16_384)).await.unwrap();
    archive.put_backup_file(segment(1, 3), 40, size(), "START WAL LOCATION: …\n".into()).await.unwrap();
    let history = format!("1\t{}\tno recovery target specified\n", Lsn(6 * SEGMENT + 2000));
    archive.put_history(TimelineId(2), history.into()).await.unwrap();
}

/// A segment with the header of its first page and nothing else.
pub fn wal(segment: SegmentName) -> Bytes {
    let mut bytes = vec![0; SEGMENT as usize];
    bytes[0..2].copy_from_slice(&0xD113_u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&segment.timeline.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&segment.start(size()).0.to_le_bytes());
    bytes[24..32].copy_from_slice(&CLUSTER.0.to_le_bytes());
    bytes[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes.into()
}

/// Takes a backup of these files as simply as the format allows: one pack, one frame of maps for each file.
pub async fn backup(
    repository: &Repository,
    id: &BackupId,
    files: &Files,
    parent: Option<&BackupId>,
    (start, stop): (u64, u64),
) {
    let mut taking = Taking::begin(repository, id, parent).await;
    let mut lines = vec![Line::Directory(Directory { path: "base/1".to_owned(), mode: 0o700 })];
    for (path, content) in files {
        let extents = taking.file(path, content).await;
        lines.push(Line::File(FileEntry {
            path: path.clone(),
            mode: 0o600,
            size: content.len() as u64,
            extents,
        }));
    }
    let (packs, stored) = taking.end().await;
    let mut manifest = ManifestWriter::new(repository, CLUSTER, id, 1);
    for line in packs.into_iter().map(Line::Pack).chain(lines) {
        manifest.push(&line).await.unwrap();
    }
    let total = files.values().map(|content| content.len() as u64).sum();
    manifest
        .commit(&header(id, parent, (start, stop), Totals { files: 5, bytes: total, added: 0, stored }))
        .await
        .unwrap();
}

fn header(id: &BackupId, parent: Option<&BackupId>, (start, stop): (u64, u64), totals: Totals) -> Header {
    let day = |hour: u32| format!("2026-11-{}T{hour:02}:00:00Z", &id.as_str()[6..8]).parse().unwrap();
    Header {
        id: id.clone(),
        environment: "production".to_owned(),
        program: "0".to_owned(),
        started: day(3),
        stopped: day(4),
        source: Source::Protocol,
        cluster: Cluster {
            system_identifier: CLUSTER.to_string(),
            version: 160_000,
            checksums: true,
            wal_segment_bytes: SEGMENT,
        },
        timeline: 1,
        start: Lsn(start),
        stop: Lsn(stop),
        parent: parent.cloned(),
        backup_label: "START WAL LOCATION: …\n".to_owned(),
        tablespace_map: None,
        tablespaces: Vec::new(),
        damaged: Vec::new(),
        damaged_more: 0,
        server_complaint: None,
        changed_only: None,
        totals,
    }
}

struct Taking<'a> {
    repository: &'a Repository,
    id: PackId,
    key: [u8; 32],
    pack: PackWriter,
    parent: Option<(Manifest, FrameReader)>,
    /// The packs that the manifest names; the backup's own is the first.
    packs: Vec<PackId>,
    known: HashMap<PackId, PackEntry>,
}

impl<'a> Taking<'a> {
    async fn begin(repository: &'a Repository, id: &BackupId, parent: Option<&BackupId>) -> Taking<'a> {
        let id = PackId { backup: id.clone(), sequence: 0 };
        let pack = PackWriter::new(&repository.keys, &CLUSTER.pack(&id), 1).unwrap();
        let mut taking = Taking {
            repository,
            key: repository.keys.identity_key(),
            pack,
            parent: None,
            packs: vec![id.clone()],
            known: HashMap::new(),
            id,
        };
        if let Some(parent) = parent {
            let manifest = Manifest::read(repository, CLUSTER, parent).await.unwrap();
            taking.known = manifest.packs.iter().map(|pack| (pack.id.clone(), pack.clone())).collect();
            taking.parent = Some((manifest, FrameReader::new(repository, CLUSTER)));
        }
        taking
    }

    fn name(&mut self, pack: &PackId) -> u32 {
        let at = self.packs.iter().position(|known| known == pack);
        let at = at.unwrap_or_else(|| {
            self.packs.push(pack.clone());
            self.packs.len() - 1
        });
        at as u32
    }

    async fn file(&mut self, path: &str, content: &[u8]) -> Vec<PieceAt> {
        let mut extents = Vec::new();
        for (number, extent) in content.chunks(EXTENT_BYTES as usize).enumerate() {
            let (old, old_at) = self.old(path, number).await;
            let piece = self.piece(extent, old.as_ref());
            for pack in &piece.packs {
                self.name(pack);
            }
            if let (Some(old), Some((pack, at))) = (&old, old_at)
                && old.identities == piece.identities
            {
                extents.push(PieceAt { pack: self.name(&pack), ..at });
                continue;
            }
            let mut raw = b"not the first in its frame".to_vec();
            let offset = raw.len() as u32;
            piece.encode(&mut raw);
            let at = self.pack.push(Kind::Map, &raw, vec![format!("{path}#{number}")]).unwrap();
            extents.push(PieceAt { pack: 0, frame: at.offset, stored: at.stored, offset });
        }
        extents
    }

    async fn old(&self, path: &str, number: usize) -> (Option<Piece>, Option<(PackId, PieceAt)>) {
        let Some((manifest, reader)) = &self.parent else { return (None, None) };
        let file = manifest.files.iter().find(|file| file.path == path).unwrap();
        let at = file.extents[number];
        let piece = reader.piece(&manifest.packs, at).await.unwrap();
        (Some(piece), Some((manifest.packs[at.pack as usize].id.clone(), at)))
    }

    fn piece(&mut self, extent: &[u8], old: Option<&Piece>) -> Piece {
        let mut piece = Piece::default();
        let blocks: Vec<&[u8]> = extent.chunks(BLOCK).collect();
        let identities: Vec<_> = blocks.iter().map(|block| identity(&self.key, block)).collect();
        let same = |n: usize| old.is_some_and(|old| old.identities[n] == identities[n]);
        let new: Vec<usize> = (0..blocks.len()).filter(|n| identities[*n] != ZEROS && !same(*n)).collect();
        let mut kept: HashMap<usize, (FrameAt, u32)> = HashMap::new();
        for group in new.chunks(FRAME_BLOCKS) {
            let raw: Vec<u8> = group.iter().flat_map(|n| blocks[*n]).copied().collect();
            let at = self.pack.push(Kind::Blocks, &raw, Vec::new()).unwrap();
            kept.extend(group.iter().enumerate().map(|(m, n)| (*n, (at, (m * BLOCK) as u32))));
        }
        let olds = old.map(places).unwrap_or_default();
        for (n, identity) in identities.iter().enumerate() {
            let place = match (kept.get(&n), olds.get(n)) {
                (Some((frame, offset)), _) => Some((self.id.clone(), *frame, *offset)),
                (None, Some(Some((pack, frame, offset)))) if *identity != ZEROS => {
                    Some((pack.clone(), *frame, *offset))
                }
                _ => None,
            };
            let place =
                place.map(|(pack, frame, offset)| Kept { pack: piece.pack(&pack).unwrap(), frame, offset });
            piece.push(*identity, place, BLOCK as u32);
        }
        piece
    }

    async fn end(self) -> (Vec<PackEntry>, u64) {
        let sealed = self.pack.finish().unwrap();
        self.repository.store.create_new(&sealed.name, sealed.bytes.clone()).await.unwrap();
        let own = PackEntry::of(self.id.clone(), &sealed);
        let entry = |id: &PackId| if *id == self.id { own.clone() } else { self.known[id].clone() };
        (self.packs.iter().map(entry).collect(), sealed.bytes.len() as u64)
    }
}

/// Where each block of a piece is.
fn places(piece: &Piece) -> Vec<Option<(PackId, FrameAt, u32)>> {
    let mut places = Vec::new();
    for run in &piece.runs {
        for n in 0..u32::from(run.blocks) {
            places.push(run.kept.map(|kept| {
                (piece.packs[usize::from(kept.pack)].clone(), kept.frame, kept.offset + n * BLOCK as u32)
            }));
        }
    }
    places
}

/// A backup's files, restored into the folder `data` of one that goes with its value.
pub async fn restored(repository: &Repository, backup: &BackupId) -> Result<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let manifest = Manifest::read(repository, CLUSTER, backup).await?;
    let restore = Restore {
        repository: repository.clone(),
        cluster: CLUSTER,
        place: Place::look(&manifest, &Into { data: folder.path().join("data"), ..Into::default() })?,
        manifest: Arc::new(manifest),
        small: Vec::new(),
        threads: 2,
        databases: None,
    };
    restore.run(&Quiet).await?;
    Ok(folder)
}
