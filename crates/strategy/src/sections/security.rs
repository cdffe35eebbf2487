//! The `[security]` section: strategy, section 6.

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every connection and every server must respect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Security")]
pub struct Policy {
    /// Whether connections from outside must use TLS (`require_ssl=1`).
    pub require_tls: bool,
    /// The oldest TLS version that the server may accept.
    pub tls_version_min: TlsVersion,
    /// Whether `pg_stat_statements` must be active, to find slow queries.
    pub query_statistics: bool,
    /// From when on a query counts as slow.
    pub slow_query: HumanDuration,
    /// Tables with sensitive data, as `schema.table` with the logical schema name. Each needs a
    /// rule in `[access.sensitive]`, so that nobody reads more of it than was decided.
    pub sensitive_tables: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            require_tls: true,
            tls_version_min: TlsVersion::Tls12,
            query_statistics: true,
            slow_query: HumanDuration::from_seconds(1),
            sensitive_tables: Vec::new(),
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}
