//! The names of the objects, and the units in which files are cut.
//!
//! A name is also the additional data of every seal in its object: an object that is copied to
//! another name cannot be opened.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of a block: PostgreSQL's page. Servers that were compiled with another size are refused.
pub const BLOCK: usize = 8192;

/// Blocks of an extent (8 MiB): what one map piece describes, and one worker takes at a time.
pub const EXTENT_BLOCKS: u32 = 1024;

/// Bytes of an extent.
pub const EXTENT_BYTES: u64 = EXTENT_BLOCKS as u64 * BLOCK as u64;

/// Blocks that are compressed together (256 KiB).
pub const FRAME_BLOCKS: usize = 32;

/// Bytes at which a pack is ended and put into the store.
pub const PACK_BYTES: usize = 16 << 20;

/// What this folder is.
pub const REPOSITORY: &str = "repository.json";

/// The folder of objects that live for a moment and tell the store's time.
pub const CLOCK: &str = "clock";

/// The folder of the clusters.
pub const CLUSTERS: &str = "clusters";

/// A cluster: the system identifier that initdb gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u64);

/// A backup's name: when it began, and four random hexadecimal digits. Sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// The name of a backup that begins now.
    pub fn new(now: Timestamp, random: u16) -> Self {
        BackupId(format!("{}-{random:04x}", now.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it began, as the name tells; `None` if that is no moment of any day.
    pub fn begun(&self) -> Option<Timestamp> {
        self.0.get(..16)?.parse().ok()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shaped = text.len() == 21
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                16 => byte == b'-',
                17.. => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
                _ => byte.is_ascii_digit(),
            });
        if shaped {
            Ok(BackupId(text.to_owned()))
        } else {
            Err(format!("not the name of a backup: {text:?}"))
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.0
    }
}

impl ClusterId {
    /// The folder of a cluster's objects: `clusters/<system identifier>`.
    pub fn folder(self) -> String {
        format!("{CLUSTERS}/{}", self.0)
    }

    /// The folder of the manifests.
    pub fn backups(self) -> String {
        format!("{}/backups", self.folder())
    }

    /// A backup's manifest. The backup exists when this does.
    pub fn manifest(self, backup: &BackupId) -> String {
        format!("{}/{backup}", self.backups())
    }

    /// The folder of the packs that a backup wrote.
    pub fn packs(self, backup: &BackupId) -> String {
        format!("{}/packs/{backup}", self.folder())
    }

    /// A pack of pages and maps: `packs/<backup>/<sequence, 8 digits>`.
    pub fn pack(self, pack: &PackId) -> String {
        format!("{}/{:08}", self.packs(&pack.backup), pack.sequence)
    }

    /// The pack of that name; `None` for other objects.
    pub fn pack_of(self, name: &str) -> Option<PackId> {
        let rest = name.strip_prefix(&self.folder())?.strip_prefix("/packs/")?;
        let (backup, sequence) = rest.split_once('/')?;
        let id = PackId { backup: backup.parse().ok()?, sequence: sequence.parse().ok()? };
        (self.pack(&id) == name).then_some(id)
    }

    /// The folder of a timeline's segments: `wal/0000000A`.
    pub fn wal(self, timeline: u32) -> String {
        format!("{}/wal/{timeline:08X}", self.folder())
    }

    /// The folder of the figures.
    pub fn figures_folder(self) -> String {
        format!("{}/figures", self.folder())
    }

    /// The figures that were taken with a backup, for the drill to compare with: `figures/<backup>`.
    pub fn figures(self, backup: &BackupId) -> String {
        format!("{}/{backup}", self.figures_folder())
    }

    /// The folder of the claims of running backups.
    pub fn claims(self) -> String {
        format!("{}/claims", self.folder())
    }

    /// The folder of the marks of what is being expired.
    pub fn expiring(self) -> String {
        format!("{}/expiring", self.folder())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pack: the backup that wrote it, and its number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackId {
    /// The backup that wrote it.
    pub backup: BackupId,
    /// Counted from 0.
    pub sequence: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_backups_sort_by_time_and_are_checked() {
        let id = BackupId::new("2026-11-24T03:00:00Z".parse().unwrap(), 0xab);
        assert_eq!(id.as_str(), "20261124T030000Z-00ab");
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
        assert_eq!(id.begun(), Some("2026-11-24T03:00:00Z".parse().unwrap()));
        for wrong in
            ["", "../../x", "20261124T030000Z-00AB", "20261124 030000Z-00ab", "20261124T030000Z-00abc"]
        {
            assert!(wrong.parse::<BackupId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_objects() {
        let cluster = ClusterId(7000);
        let backup: BackupId = "20261124T030000Z-00ab".parse().unwrap();
        let pack = PackId { backup: backup.clone(), sequence: 12 };
        assert_eq!(cluster.pack(&pack), "clusters/7000/packs/20261124T030000Z-00ab/00000012");
        assert_eq!(cluster.pack_of(&cluster.pack(&pack)), Some(pack.clone()));
        assert_eq!(ClusterId(70).pack_of(&cluster.pack(&pack)), None);
        assert_eq!(cluster.pack_of("clusters/7000/packs/20261124T030000Z-00ab/12"), None);
        assert_eq!(cluster.manifest(&backup), "clusters/7000/backups/20261124T030000Z-00ab");
        assert_eq!(cluster.wal(10), "clusters/7000/wal/0000000A");
    }
}
