//! One environment: what it is, where it runs, how it is reached, and what it must obey.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use obyra_access::Provider;
use obyra_backup::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sections::{Sections, alerts, anonymize, monitor, secrets, security};
use crate::values::Network;

/// The keys of `[environments.NAME]` itself, as they stand in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Environment")]
pub struct Declaration {
    /// What the environment is for. Without it, its name decides: `dev`, `local` and `test` are
    /// development, `staging` and `qa` are staging, `prod` is production. A name that says
    /// nothing is development when it is embedded, and production, to be safe, when it is not.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Where its PostgreSQL runs.
    pub runs_on: RunsOn,
    /// The variable that holds the administrator's connection string.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub url_env: Option<String>,
    /// The file that holds the administrator's connection string, relative to this file.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub url_file: Option<PathBuf>,
    /// The administrator's connection string itself, without a password: for servers that know
    /// the administrator by certificate or by `peer`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub url: Option<String>,
    /// The database.
    #[schemars(extend("format" = "identifier"))]
    pub database: String,
    /// The schema of this database that stands behind each logical name of the strategy.
    #[serde(default = "public_schema")]
    pub schemas: BTreeMap<String, Identifier>,
    /// The networks from which connections may come.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// The major version of PostgreSQL: which one an embedded environment and the temporary
    /// clusters of the migration gate run, and which one is expected elsewhere.
    #[serde(default = "postgres_version")]
    #[schemars(range(min = 14, max = 18))]
    pub postgres_version: u32,
    /// The folder of PostgreSQL's programs. Without it they are found, or fetched.
    #[serde(default)]
    pub bin_dir: Option<PathBuf>,
    /// Whether the database may be dropped and made again without keeping its data. Only in
    /// development.
    #[serde(default)]
    pub recreate: bool,
    /// Whether a standby takes over when the primary fails.
    #[serde(default)]
    pub high_availability: bool,
    /// A read replica, for heavy reports.
    #[serde(default)]
    pub replica: Option<Replica>,
    /// The instance's name at the provider, for its snapshots and its metrics.
    #[serde(default)]
    pub instance: Option<String>,
    /// The provider's region (RDS) or project (Cloud SQL).
    #[serde(default)]
    pub region: Option<String>,
}

fn postgres_version() -> u32 {
    16
}

fn public_schema() -> BTreeMap<String, Identifier> {
    BTreeMap::from([("app".to_owned(), Identifier("public".to_owned()))])
}

/// The name of a PostgreSQL object, as it is written between quotes: 1 to 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = "identifier"))]
pub struct Identifier(pub String);

/// What an environment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Work in progress; data may be lost.
    Development,
    /// The rehearsal before production.
    Staging,
    /// Real users and real data.
    Production,
}

impl Stage {
    /// The stage that an environment's name says, if it says one.
    pub fn named(name: &str) -> Option<Stage> {
        const DEVELOPMENT: &[&str] = &["dev", "local", "test", "demo", "ci", "sandbox", "desarrollo"];
        const STAGING: &[&str] = &["stag", "stg", "qa", "uat", "preprod", "pre-prod", "homolog", "ensayo"];
        const PRODUCTION: &[&str] = &["prod", "live"];
        let name = name.to_lowercase();
        [(DEVELOPMENT, Stage::Development), (STAGING, Stage::Staging), (PRODUCTION, Stage::Production)]
            .into_iter()
            .find(|(words, _)| words.iter().any(|word| name.starts_with(word)))
            .map(|(_, stage)| stage)
    }
}

/// Where PostgreSQL runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOn {
    /// In a folder of `state_dir`, started and stopped by this program.
    Embedded,
    /// On a server of our own, in a container or on Kubernetes.
    SelfHosted,
    /// Amazon RDS or Aurora.
    Rds,
    /// Google Cloud SQL.
    CloudSql,
}

impl RunsOn {
    /// The same, as the access room names it.
    pub fn provider(self) -> Provider {
        match self {
            RunsOn::Embedded => Provider::Embedded,
            RunsOn::SelfHosted => Provider::SelfHosted,
            RunsOn::Rds => Provider::Rds,
            RunsOn::CloudSql => Provider::CloudSql,
        }
    }

    /// Whether a provider runs it, so that nobody is superuser there.
    pub fn is_managed(self) -> bool {
        matches!(self, RunsOn::Rds | RunsOn::CloudSql)
    }
}

/// A read replica: how it is reached, and who uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// The variable that holds the replica's connection string.
    #[schemars(length(min = 1))]
    pub url_env: String,
    /// The roles that are meant to use it.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// How an environment is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It runs in a folder of `state_dir`.
    Embedded,
    /// By the connection string in this variable.
    UrlEnv(String),
    /// By the connection string in this file.
    UrlFile(PathBuf),
    /// By this connection string, which holds no password.
    Url(String),
}

/// An environment, with the common sections and its own laid over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// Its name in the file: `production`.
    pub name: String,
    /// What it is for.
    pub stage: Stage,
    /// Where it runs.
    pub runs_on: RunsOn,
    /// How it is reached.
    pub reach: Reach,
    /// The database.
    pub database: String,
    /// The schema behind each logical name.
    pub schemas: BTreeMap<String, String>,
    /// The networks from which connections may come.
    pub networks: Vec<Network>,
    /// The major version of PostgreSQL.
    pub postgres_major: u32,
    /// The folder of PostgreSQL's programs, if the file names one. Absolute.
    pub bin_dir: Option<PathBuf>,
    /// Whether it may be dropped and made again.
    pub recreate: bool,
    /// Whether a standby takes over when the primary fails.
    pub high_availability: bool,
    /// A read replica.
    pub replica: Option<Replica>,
    /// The instance's name at the provider.
    pub instance: Option<String>,
    /// The provider's region or project.
    pub region: Option<String>,
    /// Roles and privileges.
    pub access: obyra_access::Policy,
    /// Alembic.
    pub migrations: obyra_migrations::Policy,
    /// Seeds.
    pub seeds: obyra_seeds::Policy,
    /// Backups.
    pub backup: obyra_backup::Policy,
    /// TLS, statistics, sensitive tables.
    pub security: security::Policy,
    /// Passwords.
    pub secrets: secrets::Policy,
    /// Measurements.
    pub monitor: monitor::Policy,
    /// Alerts.
    pub alerts: alerts::Policy,
    /// Anonymised copies.
    pub anonymize: anonymize::Policy,
    /// The runbook.
    pub runbook: obyra_continuity::Runbook,
    /// Waived checklist lines.
    pub waivers: Vec<obyra_continuity::Waiver>,
    declared: BTreeSet<String>,
}

impl Environment {
    /// Puts an environment together. `None` when it cannot be reached, which the checks report.
    pub(crate) fn assemble(
        name: &str,
        own: Declaration,
        sections: Sections,
        declared: BTreeSet<String>,
        folder: &Path,
    ) -> Option<Environment> {
        let reach = own.reach(folder)?;
        Some(Environment {
            name: name.to_owned(),
            stage: own.stage_of(name),
            runs_on: own.runs_on,
            reach,
            database: own.database,
            schemas: own.schemas.into_iter().map(|(logical, schema)| (logical, schema.0)).collect(),
            networks: own.networks,
            postgres_major: own.postgres_version,
            bin_dir: own.bin_dir.map(|bin_dir| folder.join(bin_dir)),
            recreate: own.recreate,
            high_availability: own.high_availability,
            replica: own.replica,
            instance: own.instance,
            region: own.region,
            access: sections.access,
            migrations: sections.migrations,
            seeds: sections.seeds,
            backup: sections.backup,
            security: sections.security,
            secrets: sections.secrets,
            monitor: sections.monitor,
            alerts: sections.alerts,
            anonymize: sections.anonymize,
            runbook: sections.runbook,
            waivers: sections.waivers,
            declared,
        })
    }

    /// Whether the file has this section for it. One that is absent has the default values,
    /// which is not the same as being wanted.
    pub fn declares(&self, section: &str) -> bool {
        self.declared.contains(section)
    }

    /// Whether its backups are the provider's snapshots, and not those of a repository.
    pub fn backs_up_by_snapshots(&self) -> bool {
        match self.backup.method {
            Method::ProviderSnapshots => true,
            Method::Auto => self.runs_on.is_managed(),
            Method::Repository => false,
        }
    }
}

impl Declaration {
    /// What the environment is for: as declared, else as its name says. A name that says
    /// nothing is development if we run it ourselves, and gets production's care if not.
    pub(crate) fn stage_of(&self, name: &str) -> Stage {
        let otherwise = if self.runs_on == RunsOn::Embedded { Stage::Development } else { Stage::Production };
        self.stage.or_else(|| Stage::named(name)).unwrap_or(otherwise)
    }

    /// How it is reached; `None` when the file does not say. Paths become absolute.
    pub(crate) fn reach(&self, folder: &Path) -> Option<Reach> {
        if self.runs_on == RunsOn::Embedded {
            return Some(Reach::Embedded);
        }
        let variable = self.url_env.clone().map(Reach::UrlEnv);
        let file = self.url_file.as_ref().map(|file| Reach::UrlFile(folder.join(file)));
        variable.or(file).or_else(|| self.url.clone().map(Reach::Url))
    }
}
