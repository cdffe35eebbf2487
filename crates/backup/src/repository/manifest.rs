//! The manifest of a backup: what a cluster's folder held, and where each extent's map is.
//!
//! JSON lines in frames of kind `lines`. The *commit object*, `backups/<backup>`, is small and holds the
//! header, the packs with the other lines (the *parts*), and an end that counts those. Whoever has unsealed
//! them needs no program of ours to read them.

use jiff::Timestamp;
use obyra_postgres::wal::Lsn;
use serde::{Deserialize, Serialize};

use super::hex;
use super::keys::KeyId;
use super::layout::{BackupId, PackId};
use super::pack::{Seal, Sealed};

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The first of the commit object.
    Backup(Box<Header>),
    /// In the commit object: a pack of this backup whose `lines` frames go on with the manifest, in order.
    Part(PackEntry),
    /// In the parts: a directory, recreated even where it is empty.
    Directory(Directory),
    /// In the parts: a file.
    File(FileEntry),
    /// In the parts: a pack that holds map pieces of this backup, or that these pieces name. Enough to open
    /// any frame of it.
    Pack(PackEntry),
    /// The last of the commit object: how many lines the parts hold.
    End(u64),
}

/// What the backup is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub id: BackupId,
    /// The environment of the strategy that it was taken for.
    pub environment: String,
    /// The version of the program that took it.
    pub program: String,
    /// When it began, by the clock of the machine that took it.
    pub started: Timestamp,
    /// When the server said that it was complete.
    pub stopped: Timestamp,
    /// Where the cluster's files were read.
    pub source: Source,
    /// The cluster.
    pub cluster: Cluster,
    /// The timeline on which it began.
    pub timeline: u32,
    /// Where recovery begins.
    pub start: Lsn,
    /// Where recovery becomes consistent at the earliest.
    pub stop: Lsn,
    /// The backup whose maps were compared with, if any. Nothing of it is needed to restore this one but
    /// the packs listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// `backup_label`, word for word.
    pub backup_label: String,
    /// `tablespace_map`, word for word, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace_map: Option<String>,
    /// The tablespaces outside the data directory.
    #[serde(default)]
    pub tablespaces: Vec<Tablespace>,
    /// Blocks whose checksum is wrong, as they were in the cluster: the backup is marked, nothing is lost.
    #[serde(default)]
    pub damaged: Vec<DamagedBlock>,
    /// How many more there are than the list names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged_more: u64,
    /// What the server itself complained of while it sent the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_complaint: Option<String>,
    /// Where the server sent only the blocks that changed since the parent, by its own summaries of the WAL.
    /// The maps are complete all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_only: Option<ChangedOnly>,
    /// Sizes.
    pub totals: Totals,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a backup rests on of which only changed blocks were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedOnly {
    /// Bytes that the server sent.
    pub received: u64,
    /// When the last backup before it began for which every page was read.
    pub all_read: Timestamp,
}

/// Where the files came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Over the replication protocol, from a primary.
    Protocol,
    /// Over the replication protocol, from a standby.
    ProtocolStandby,
    /// From the data directory, on the database host.
    Local,
}

/// A cluster, as pg_control and the server describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The system identifier, as digits: JSON numbers are too small for it.
    pub system_identifier: String,
    /// `server_version_num`.
    pub version: u32,
    /// Whether data checksums are on.
    pub checksums: bool,
    /// Bytes of a WAL segment.
    pub wal_segment_bytes: u64,
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its oid, which names it in `pg_tblspc`.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// A block that is damaged in the cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedBlock {
    /// The file, relative to the data directory.
    pub path: String,
    /// The block in this file.
    pub block: u32,
}

/// Sizes of a backup, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// All their bytes: what a restore writes.
    pub bytes: u64,
    /// Bytes of the blocks that this backup added.
    pub added: u64,
    /// What this backup put into the store: packs, with their maps. The manifest itself is not counted.
    pub stored: u64,
}

/// A directory of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Relative to the data directory; tablespaces are `pg_tblspc/<oid>/…`.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
}

/// A file of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the data directory; tablespaces are `pg_tblspc/<oid>/…`.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// The maps of its extents, in order; none for an empty file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extents: Vec<PieceAt>,
}

/// Where a map piece is: a frame of kind `map`, and the offset of the piece in its unpacked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "(u32, u32, u32, u32)", from = "(u32, u32, u32, u32)")]
pub struct PieceAt {
    /// The pack, as the position of its line among the manifest's pack lines, from 0.
    pub pack: u32,
    /// The frame's offset.
    pub frame: u32,
    /// The frame's length in the pack.
    pub stored: u32,
    /// The piece's offset in the frame's unpacked bytes.
    pub offset: u32,
}

impl From<PieceAt> for (u32, u32, u32, u32) {
    fn from(at: PieceAt) -> Self {
        (at.pack, at.frame, at.stored, at.offset)
    }
}

impl From<(u32, u32, u32, u32)> for PieceAt {
    fn from((pack, frame, stored, offset): (u32, u32, u32, u32)) -> Self {
        PieceAt { pack, frame, stored, offset }
    }
}

/// A pack, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// Which.
    #[serde(flatten)]
    pub id: PackId,
    /// The master key that sealed it.
    pub key: KeyId,
    /// Its salt.
    #[serde(with = "hex")]
    pub salt: [u8; 32],
    /// Its size in the store.
    pub bytes: u64,
    /// BLAKE3 of the object up to its own hash.
    #[serde(with = "hex")]
    pub hash: [u8; 32],
}

impl PackEntry {
    /// A pack that was just finished under this name.
    pub fn of(id: PackId, sealed: &Sealed) -> PackEntry {
        let Seal { key, salt } = sealed.seal;
        PackEntry { id, key, salt, bytes: sealed.bytes.len() as u64, hash: sealed.hash }
    }

    /// What opens its frames, with the keyring.
    pub fn seal(&self) -> Seal {
        Seal { key: self.key, salt: self.salt }
    }
}

/// A header for tests.
#[cfg(test)]
pub(super) fn sample_header(id: &BackupId) -> Header {
    Header {
        id: id.clone(),
        environment: "test".to_owned(),
        program: "0".to_owned(),
        started: Timestamp::UNIX_EPOCH,
        stopped: Timestamp::UNIX_EPOCH,
        source: Source::Protocol,
        cluster: Cluster {
            system_identifier: "7".to_owned(),
            version: 160_000,
            checksums: true,
            wal_segment_bytes: 1 << 24,
        },
        timeline: 1,
        start: Lsn(1),
        stop: Lsn(2),
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
