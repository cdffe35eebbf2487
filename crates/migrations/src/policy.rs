//! What is wanted of the migrations: the section `[migrations]` of the strategy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::graph::Naming;

/// Alembic's migrations: where they are, how their application is loaded, who runs them.
///
/// Paths are relative to the folder of the strategy file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Migrations")]
pub struct Policy {
    /// Alembic's script folder: the one that holds `env.py` and `versions/`.
    pub directory: PathBuf,
    /// The Flask application as `FLASK_APP` names it: `package.module:factory`. Absent: plain Alembic.
    pub app: Option<String>,
    /// The `alembic.ini`, or a `pyproject.toml` with a section `[tool.alembic]`. Absent: the `alembic.ini` in
    /// `directory`, else the one beside the strategy file, and the `pyproject.toml` beside that.
    pub config: Option<PathBuf>,
    /// The Python interpreter that has the application's packages. Absent: its `.venv` or `venv`, then
    /// the activated environment, then one made from `requirements`.
    pub python: Option<PathBuf>,
    /// Variables in which the application expects its database, where that is not `DATABASE_URL` or libpq's own:
    /// `POSTGRES_HOST = "{host}"`. Known are `{host}`, `{port}`, `{user}`, `{password}`, `{database}` and `{url}`.
    pub variables: BTreeMap<String, String>,
    /// The packages of an environment that obyra-db makes itself.
    pub requirements: PathBuf,
    /// The role that the migrations run as. Absent: the role that the environment's connection names.
    pub run_as: Option<String>,
    /// How long a statement of a migration may wait for a lock before the deploy fails. `0s` is for ever.
    pub lock_timeout: HumanDuration,
    /// The version table's name, where `env.py` does not call it `alembic_version`.
    pub version_table: String,
    /// The schema of the version table. Absent: as `env.py` says, else the first of the search path.
    pub version_table_schema: Option<String>,
    /// The alterations that the application runs at its start: a Python file, or a folder of SQL. Absent:
    /// `migrations_runtime.py` wherever it lies in the project, and the folder `runtime` in `directory`.
    pub runtime: Option<PathBuf>,
    /// What `migrate gate` demands of them.
    pub gate: GatePolicy,
}

/// What the gate demands of migrations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Gate")]
pub struct GatePolicy {
    /// How long a revision may take on a database without rows.
    pub revision_budget: HumanDuration,
    /// How long a revision, or the loading of the application, may say nothing before it is ended.
    pub patience: HumanDuration,
    /// A table with fewer rows may be locked: it is over in a moment. Where the number of rows is not
    /// known, every table counts as large.
    pub large_table_rows: u64,
    /// How the files of revisions are named.
    pub naming: Naming,
}

impl Default for GatePolicy {
    fn default() -> Self {
        GatePolicy {
            revision_budget: HumanDuration::from_seconds(10),
            patience: HumanDuration::from_seconds(60),
            large_table_rows: 10_000,
            naming: Naming::Any,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            directory: "migrations".into(),
            app: None,
            config: None,
            python: None,
            variables: BTreeMap::new(),
            requirements: "requirements.txt".into(),
            run_as: None,
            lock_timeout: HumanDuration::from_seconds(5),
            version_table: "alembic_version".into(),
            version_table_schema: None,
            runtime: None,
            gate: GatePolicy::default(),
        }
    }
}

impl Policy {
    /// The script folder in a project.
    pub fn directory_in(&self, project: &Path) -> PathBuf {
        project.join(&self.directory)
    }

    /// Alembic's configuration in a project. What neither file says has Alembic's defaults.
    pub fn config_in(&self, project: &Path) -> Configuration {
        let pyproject = Some(project.join("pyproject.toml")).filter(|file| file.is_file());
        match &self.config {
            Some(config) if config.extension().is_some_and(|kind| kind == "toml") => {
                Configuration { ini: None, pyproject: Some(project.join(config)) }
            }
            Some(config) => Configuration { ini: Some(project.join(config)), pyproject },
            None => {
                let folders = [self.directory_in(project), project.to_owned()];
                let ini = folders.into_iter().map(|folder| folder.join("alembic.ini"));
                Configuration { ini: ini.into_iter().find(|file| file.is_file()), pyproject }
            }
        }
    }
}

/// The files that Alembic is configured in; what the first says counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Its own.
    pub ini: Option<PathBuf>,
    /// The project's, whose section `[tool.alembic]` Alembic reads from 1.16 on.
    pub pyproject: Option<PathBuf>,
}
