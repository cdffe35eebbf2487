//! What is wanted of the seeds: the section `[seeds]` of the strategy.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seeds: where the files are, who runs them, where it is noted what was applied.
///
/// Paths are relative to the folder of the strategy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Seeds")]
pub struct Policy {
    /// The folder of the files `NNN_name.sql`, applied in the order of their numbers.
    pub directory: PathBuf,
    /// The role that runs them. Absent: the role that the environment's connection names.
    pub run_as: Option<String>,
    /// The logical name of the schema that holds the tracking table.
    pub schema: String,
    /// The tracking table: number, name, checksum, when, how long, by whom.
    pub table: String,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            directory: "migrations/seeds".into(),
            run_as: None,
            schema: "app".to_owned(),
            table: "obyra_seeds".to_owned(),
        }
    }
}

impl Policy {
    /// The folder in a project.
    pub fn directory_in(&self, project: &Path) -> PathBuf {
        project.join(&self.directory)
    }
}
