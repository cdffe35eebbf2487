//! The database that a policy is applied to: its name, its schemas, and where it runs.

use std::collections::BTreeMap;

use serde::Serialize;

/// Where the server runs, as far as access cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// On a machine that we administer.
    #[default]
    SelfHosted,
    /// In a folder, started by this program.
    Embedded,
    /// Amazon RDS: no superuser, settings through the parameter group.
    Rds,
    /// Google Cloud SQL: no superuser, settings through database flags.
    CloudSql,
}

impl Provider {
    /// The provider's own administrator role, where superusers do not exist.
    pub fn admin_role(self) -> Option<&'static str> {
        match self {
            Provider::SelfHosted | Provider::Embedded => None,
            Provider::Rds => Some("rds_superuser"),
            Provider::CloudSql => Some("cloudsqlsuperuser"),
        }
    }
}

/// The database that a policy is applied to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The database's name.
    pub database: String,
    /// The strategy's schemas, and the schema of this database that each one is. What the
    /// strategy grants on other schemas is not meant for this environment. Empty, it stands for
    /// every schema of the database under its own name, as `access import` needs it.
    pub schemas: BTreeMap<String, String>,
    /// Where it runs.
    pub provider: Provider,
}

/// Whether a role belongs to PostgreSQL or to a provider, and is never touched.
pub(crate) fn is_protected(role: &str) -> bool {
    role.starts_with("pg_") || role.starts_with("rds") || role.starts_with("cloudsql")
}
