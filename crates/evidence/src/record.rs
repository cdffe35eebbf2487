//! An evidence record: what was expected, what was observed, when, and how it ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a check or a change ended. Unknown is never green.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Observed as expected.
    Passed,
    /// Changed, and verified after the change.
    Changed,
    /// Observed otherwise, or the change failed.
    Failed,
    /// Could not be observed; `observed` says which grant or setting is missing.
    Unknown,
}

/// One line of the ledger. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was observed.
    pub at: Timestamp,
    /// The environment, for example `production`.
    pub environment: String,
    /// The capability and what of it, for example `access.apply` or `seeds.verify`.
    pub subject: String,
    /// What the strategy expects.
    pub expected: String,
    /// What was found or done.
    pub observed: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Figures, with the unit last in the name: `duration_seconds`, `steps`.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
    /// Facts that later checks ask for by name: `head`, `from_base`, `fingerprint`.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}
