//! What is wanted of backups: the `[backup]` section of the strategy.
//!
//! Section 5 of the strategy document: daily backups, point-in-time recovery, restore drills and a
//! monthly logical export. Parsing only; nothing here decides.

use std::path::PathBuf;

use obyra_evidence::{Clock, Every, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Backups: how often, how long they are kept, how they are proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Backup")]
pub struct Policy {
    /// Whether this environment is backed up at all.
    pub enabled: bool,
    /// How often a backup is taken.
    pub every: Every,
    /// When in the day it begins, in UTC.
    pub at: Clock,
    /// How long a backup is kept. The strategy asks for 14 days in staging and 30 in production.
    pub retention: HumanDuration,
    /// What is kept beyond that: the newest ones, and the last of each day, week, month and year.
    pub keep: Keep,
    /// What takes the backups.
    pub method: Method,
    /// Where the cluster's files are read.
    pub source: Source,
    /// Where they are kept: `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`. Without it, in `state_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "store"))]
    pub repository: Option<String>,
    /// A second repository, for `obyra-db backup copy` and for repairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "store"))]
    pub copy_to: Option<String>,
    /// The address of an S3 that is not Amazon's: `https://s3.example.com`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The encryption that the store applies at rest (SSE), besides our own.
    pub server_side_encryption: ServerSideEncryption,
    /// Whether backups are encrypted before they leave this machine. When not, the repository's key lies in
    /// the repository.
    pub encrypted: bool,
    /// The secret that opens the repository.
    pub key: Key,
    /// The most that is read from the server and written to the store, in MB per second; 0 is no limit.
    pub rate_max: u32,
    /// Point-in-time recovery.
    pub pitr: Pitr,
    /// The exercise that proves that a backup can be restored.
    pub drill: Drill,
    /// The logical copy kept outside.
    pub export: Export,
    /// An existing pgBackRest repository, read and reported, never written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgbackrest: Option<PgBackRest>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            enabled: true,
            every: Every::Day,
            at: Clock::at(3, 0),
            retention: HumanDuration::from_days(14),
            keep: Keep::default(),
            method: Method::Auto,
            source: Source::Auto,
            repository: None,
            copy_to: None,
            endpoint: None,
            region: None,
            server_side_encryption: ServerSideEncryption::Store,
            encrypted: true,
            key: Key::default(),
            rate_max: 0,
            pitr: Pitr::default(),
            drill: Drill::default(),
            export: Export::default(),
            pgbackrest: None,
        }
    }
}

/// What is kept beyond the retention: numbers of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest ones, however old.
    #[schemars(range(min = 1))]
    pub last: u32,
    /// The last of each of so many days.
    pub daily: u32,
    /// The last of each of so many weeks, which begin on Monday.
    pub weekly: u32,
    /// The last of each of so many months.
    pub monthly: u32,
    /// The last of each of so many years.
    pub yearly: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Keep { last: 2, daily: 0, weekly: 0, monthly: 0, yearly: 0 }
    }
}

/// What takes the backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The provider's snapshots on RDS and Cloud SQL, the repository elsewhere.
    Auto,
    /// A repository of our own, filled over PostgreSQL's replication protocol.
    Repository,
    /// The snapshots of the provider that runs the environment.
    ProviderSnapshots,
}

/// Where the cluster's files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// From the data directory where the program runs on the database host and can read it, else over the
    /// replication protocol.
    Auto,
    /// Over the replication protocol.
    Protocol,
    /// From the data directory.
    Local,
}

/// The secret that opens the repository: an age identity or a passphrase. Without both of `env` and `file`,
/// an identity in `state_dir`, made at the first backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// The variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub env: Option<String>,
    /// The file that holds it, relative to the strategy file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Public keys (age) of those who may open the repository besides.
    pub recipients: Vec<String>,
}

/// Point-in-time recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pitr {
    /// Whether the WAL is archived so that any moment of the window can be recovered.
    pub enabled: bool,
    /// How far back any moment can be recovered. The strategy asks for 7 days in production.
    pub window: HumanDuration,
    /// The replication slot that keeps the WAL that is not archived yet.
    #[schemars(extend("format" = "identifier"))]
    pub slot: String,
    /// How far the archive may stay behind the server before it is an alarm.
    pub lag_max: HumanDuration,
    /// How much WAL the slot may hold back on the server before it is an alarm, in MB.
    pub slot_size_max: u32,
    /// Whether a commit waits until its WAL is in the archive: no committed row is ever lost, and every commit
    /// is as slow as the store.
    pub synchronous: bool,
}

impl Default for Pitr {
    fn default() -> Self {
        Pitr {
            enabled: false,
            window: HumanDuration::from_days(7),
            slot: "obyra_db".to_owned(),
            lag_max: HumanDuration::from_seconds(60),
            slot_size_max: 10_240,
            synchronous: false,
        }
    }
}

/// The restore drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drill {
    /// Whether restores are exercised.
    pub enabled: bool,
    /// How often the latest backup is restored in isolation and checked.
    pub every: Every,
    /// Queries that the application could not live without, run on the restored database.
    pub queries: Vec<SmokeQuery>,
}

impl Default for Drill {
    fn default() -> Self {
        Drill { enabled: true, every: Every::Quarter, queries: Vec::new() }
    }
}

/// A query of the restore drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeQuery {
    /// The query; it only reads.
    pub sql: String,
    /// The text of the first column of its first row. Without it, one row is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

/// The logical export: `pg_dump`, encrypted, kept elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Whether logical exports are made.
    pub enabled: bool,
    /// How often.
    pub every: Every,
    /// How long an export is kept.
    pub retention: HumanDuration,
    /// Where exports are kept, apart from the backups: `s3://bucket/prefix` or `gs://bucket/prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "store"))]
    pub repository: Option<String>,
    /// The encryption that the store applies at rest (SSE).
    pub server_side_encryption: ServerSideEncryption,
    /// Public keys (age) of those who may decrypt an export; the private keys stay with them.
    pub recipients: Vec<String>,
}

impl Default for Export {
    fn default() -> Self {
        Export {
            enabled: false,
            every: Every::Month,
            retention: HumanDuration::from_days(365),
            repository: None,
            server_side_encryption: ServerSideEncryption::Store,
            recipients: Vec::new(),
        }
    }
}

/// Encryption at rest by the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerSideEncryption {
    /// With keys that the store manages (SSE-S3, Google-managed keys).
    Store,
    /// With a key in the provider's key management service (SSE-KMS, CMEK).
    Kms,
    /// None: only our own encryption.
    None,
}

/// A repository of pgBackRest, for as long as it is still in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PgBackRest {
    /// The stanza.
    #[schemars(length(min = 1))]
    pub stanza: String,
    /// Its configuration file; pgBackRest's own default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}
