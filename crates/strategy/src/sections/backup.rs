//! The `[backup]` section: strategy, section 5.

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Every;
use crate::values::Clock;

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
    /// What takes the backups.
    pub method: Method,
    /// Where they are kept: `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`. Without it, in `state_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "store"))]
    pub repository: Option<String>,
    /// Whether backups are encrypted before they leave this machine.
    pub encrypted: bool,
    /// Point-in-time recovery.
    pub pitr: Pitr,
    /// The exercise that proves that a backup can be restored.
    pub drill: Drill,
    /// The logical copy kept outside.
    pub export: Export,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            enabled: true,
            every: Every::Day,
            at: Clock::at(3, 0),
            retention: HumanDuration::from_days(14),
            method: Method::Auto,
            repository: None,
            encrypted: true,
            pitr: Pitr::default(),
            drill: Drill::default(),
            export: Export::default(),
        }
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

/// Point-in-time recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pitr {
    /// Whether the WAL is archived so that any moment of the window can be recovered.
    pub enabled: bool,
    /// How far back any moment can be recovered. The strategy asks for 7 days in production.
    pub window: HumanDuration,
}

impl Default for Pitr {
    fn default() -> Self {
        Pitr { enabled: false, window: HumanDuration::from_days(7) }
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
}

impl Default for Drill {
    fn default() -> Self {
        Drill { enabled: true, every: Every::Quarter }
    }
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
