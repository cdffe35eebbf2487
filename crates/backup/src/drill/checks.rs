//! What a drill proved, one check after the other.

use obyra_evidence::{Code, Message};
use serde::Serialize;

/// A check of a restored cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: Code,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, in words.
    pub found: Message,
    /// What else there is to tell, in the words of the server or the tool.
    pub detail: Option<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// It could not be checked here; the reason is what was found.
    Skipped,
}

impl Check {
    pub(super) fn passed(name: Code, found: impl Into<Message>) -> Check {
        Check { name, outcome: Outcome::Passed, found: found.into(), detail: None }
    }

    pub(super) fn failed(name: Code, found: impl Into<Message>, detail: String) -> Check {
        let detail = Some(detail).filter(|detail| !detail.is_empty());
        Check { name, outcome: Outcome::Failed, found: found.into(), detail }
    }

    pub(super) fn skipped(name: Code, found: impl Into<Message>) -> Check {
        Check { name, outcome: Outcome::Skipped, found: found.into(), detail: None }
    }
}
