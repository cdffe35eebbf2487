//! How a base backup is asked for, in the words of each version
//! (<https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP>).

use std::fmt::Write as _;

use super::walsender::quoted_text;
use crate::ServerVersion;

/// How the checkpoint that a backup begins with is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpoint {
    /// As fast as the server can: the backup begins at once.
    Fast,
    /// Over time, as its other checkpoints: the backup begins in minutes, and nobody notices.
    #[default]
    Spread,
}

/// What a server compresses with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionMethod {
    /// gzip, levels 1 to 9.
    Gzip,
    /// LZ4, levels 1 to 12.
    Lz4,
    /// Zstandard, levels 1 to 22.
    Zstd,
}

/// Compression on the server, from PostgreSQL 15 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCompression {
    /// With what.
    pub method: CompressionMethod,
    /// How much; the method's usual level if it is not given.
    pub level: Option<i32>,
    /// By how many threads; only Zstandard has them.
    pub workers: Option<u32>,
}

/// What a base backup shall be.
///
/// WAL is never part of it: it is received by [`Walsender::start_wal`], from before the backup begins
/// until past its end, and the server does not wait for an archive. Nor are links of tablespaces: the
/// main archive has a `tablespace_map` instead, from which a starting server makes them.
///
/// [`Walsender::start_wal`]: super::Walsender::start_wal
#[derive(Clone, Debug)]
pub struct BaseBackupOptions {
    /// The label in `backup_label`.
    pub label: String,
    /// How the checkpoint at its beginning is written.
    pub checkpoint: Checkpoint,
    /// Whether the server reckons the sizes of the tablespaces first, which takes it a while.
    pub estimate_sizes: bool,
    /// Whether a manifest comes with it, with CRC-32C checksums.
    pub manifest: bool,
    /// The most that the server sends, in kB a second: 32 to 1048576.
    pub max_rate_kb: Option<u32>,
    /// Whether the server checks the checksums of pages, where it has them.
    pub verify_checksums: bool,
    /// Compression on the server: 15 and later.
    pub compression: Option<ServerCompression>,
    /// Whether only what changed since the uploaded manifest is wanted: 17 and later.
    pub incremental: bool,
}

impl Default for BaseBackupOptions {
    fn default() -> Self {
        BaseBackupOptions {
            label: "obyra-db".to_owned(),
            checkpoint: Checkpoint::default(),
            estimate_sizes: false,
            manifest: true,
            max_rate_kb: None,
            verify_checksums: true,
            compression: None,
            incremental: false,
        }
    }
}

impl BaseBackupOptions {
    /// The command in the words of a version.
    pub(super) fn command(&self, version: ServerVersion) -> String {
        if version.at_least(15) { self.command_in_parentheses() } else { self.command_in_words() }
    }

    fn command_in_parentheses(&self) -> String {
        let mut command =
            format!("BASE_BACKUP (LABEL {}, TABLESPACE_MAP, WAIT false", quoted_text(&self.label));
        if self.checkpoint == Checkpoint::Fast {
            command.push_str(", CHECKPOINT 'fast'");
        }
        if self.estimate_sizes {
            command.push_str(", PROGRESS");
        }
        if self.manifest {
            command.push_str(", MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C'");
        }
        if let Some(rate) = self.max_rate_kb {
            let _ = write!(command, ", MAX_RATE {rate}");
        }
        if !self.verify_checksums {
            command.push_str(", VERIFY_CHECKSUMS false");
        }
        if let Some(compression) = self.compression {
            let _ = write!(command, ", COMPRESSION '{}'", compression.method());
            let detail = compression.detail();
            if !detail.is_empty() {
                let _ = write!(command, ", COMPRESSION_DETAIL '{detail}'");
            }
        }
        if self.incremental {
            command.push_str(", INCREMENTAL");
        }
        command.push(')');
        command
    }

    /// PostgreSQL 14. Its grammar wants words, and takes them in any order.
    fn command_in_words(&self) -> String {
        let mut command = format!("BASE_BACKUP LABEL {} TABLESPACE_MAP NOWAIT", quoted_text(&self.label));
        if self.checkpoint == Checkpoint::Fast {
            command.push_str(" FAST");
        }
        if self.estimate_sizes {
            command.push_str(" PROGRESS");
        }
        if self.manifest {
            command.push_str(" MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'");
        }
        if let Some(rate) = self.max_rate_kb {
            let _ = write!(command, " MAX_RATE {rate}");
        }
        if !self.verify_checksums {
            command.push_str(" NOVERIFY_CHECKSUMS");
        }
        command
    }
}

impl ServerCompression {
    fn method(self) -> &'static str {
        match self.method {
            CompressionMethod::Gzip => "gzip",
            CompressionMethod::Lz4 => "lz4",
            CompressionMethod::Zstd => "zstd",
        }
    }

    fn detail(self) -> String {
        let level = self.level.map(|level| format!("level={level}"));
        let workers = self.workers.map(|workers| format!("workers={workers}"));
        [level, workers].into_iter().flatten().collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_asked_in_its_words() {
        let all = BaseBackupOptions {
            label: "it's".to_owned(),
            checkpoint: Checkpoint::Fast,
            estimate_sizes: true,
            manifest: true,
            max_rate_kb: Some(1024),
            verify_checksums: false,
            compression: Some(ServerCompression {
                method: CompressionMethod::Zstd,
                level: Some(1),
                workers: Some(2),
            }),
            incremental: true,
        };
        assert_eq!(
            all.command(ServerVersion(170_000)),
            "BASE_BACKUP (LABEL 'it''s', TABLESPACE_MAP, WAIT false, CHECKPOINT 'fast', PROGRESS, \
             MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', MAX_RATE 1024, VERIFY_CHECKSUMS false, \
             COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=1,workers=2', INCREMENTAL)"
        );
        let all = BaseBackupOptions { compression: None, incremental: false, ..all };
        assert_eq!(
            all.command(ServerVersion(140_009)),
            "BASE_BACKUP LABEL 'it''s' TABLESPACE_MAP NOWAIT FAST PROGRESS MANIFEST 'yes' \
             MANIFEST_CHECKSUMS 'CRC32C' MAX_RATE 1024 NOVERIFY_CHECKSUMS"
        );
        let least = BaseBackupOptions { manifest: false, ..BaseBackupOptions::default() };
        assert_eq!(
            least.command(ServerVersion(150_000)),
            "BASE_BACKUP (LABEL 'obyra-db', TABLESPACE_MAP, WAIT false)"
        );
    }
}
