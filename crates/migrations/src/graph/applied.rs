//! Revisions that were edited after an environment had run them. Pure.

use std::collections::BTreeMap;

use obyra_evidence::{Finding, Severity, text};

use super::{RevisionFile, checksum};

/// A revision as the ledger says that an environment ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The environment.
    pub environment: String,
    /// When, for people.
    pub at: String,
    /// Its identifier.
    pub revision: String,
    /// The checksum of its file then; see [`checksum`](super::checksum()).
    pub checksum: String,
    /// How much it weighs if the file is another one now: who can make the environment anew is only warned.
    pub severity: Severity,
}

/// A finding for each revision whose file does something else than what was applied. Revisions that nobody
/// recorded, or that are gone, are none.
pub fn edited(revisions: &[RevisionFile], applied: &[Applied]) -> Vec<Finding> {
    let mut by_revision: BTreeMap<&str, Vec<&Applied>> = BTreeMap::new();
    for each in applied {
        by_revision.entry(&each.revision).or_default().push(each);
    }
    let finding = |revision: &RevisionFile| {
        let (id, now) = (revision.revision.known()?, revision.checksum.as_deref()?);
        let applied = by_revision.get(id.as_str())?.iter();
        let others: Vec<&&Applied> = applied.filter(|each| checksum::differ(&each.checksum, now)).collect();
        let severity = others.iter().map(|each| each.severity).max()?;
        let places = others.iter().map(|each| format!("{} ({})", each.environment, each.at));
        let message =
            text::graph::EDITED_AFTER_APPLIED.with("environments", places.collect::<Vec<_>>().join(", "));
        let finding = Finding::new(severity, format!("revision {id}"), message).at(revision.first_line());
        let mend = text::graph::MEND_EDITED_AFTER_APPLIED.with("file", revision.file.display());
        Some(finding.mended_by(mend))
    };
    revisions.iter().filter(|revision| revision.read_by_alembic).filter_map(finding).collect()
}
