//! Levels of access: what a role may do in a schema, kind by kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A level of access: the privileges on a schema and on each kind of object in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// On the schema itself: `USAGE`, `CREATE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<String>,
    /// On tables, partitions and foreign tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// On views and materialised views; as on tables when absent. New views receive what new
    /// tables receive until the next `apply`, since PostgreSQL's default privileges do not tell them apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<Vec<String>>,
    /// On sequences: `USAGE`, `SELECT`, `UPDATE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<String>,
    /// On functions, procedures and aggregates: `EXECUTE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routines: Vec<String>,
    /// On types: `USAGE`. PUBLIC has it unless someone revoked it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
}

impl Profile {
    /// The names of the built-in levels.
    pub const BUILTIN: [&'static str; 4] = ["usage", "read", "read-write", "append"];

    /// A built-in level by its name.
    pub fn builtin(name: &str) -> Option<Profile> {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        let usage = Profile { schema: words(&["USAGE"]), ..Profile::default() };
        Some(match name {
            "usage" => usage,
            "read" => Profile { tables: words(&["SELECT"]), routines: words(&["EXECUTE"]), ..usage },
            "read-write" => Profile {
                tables: words(&["SELECT", "INSERT", "UPDATE", "DELETE"]),
                sequences: words(&["USAGE"]),
                routines: words(&["EXECUTE"]),
                ..usage
            },
            "append" => Profile { tables: words(&["INSERT"]), sequences: words(&["USAGE"]), ..usage },
            _ => return None,
        })
    }
}
