//! Which revisions ran where, and what their files did then: written by a deploy, read by the gate.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Failure, Filter, Ledger, Severity};
use obyra_migrations::driver::Revision;
use obyra_migrations::graph::{Applied, checksum};
use obyra_strategy::Stage;

use crate::environment::{Opened, Told, ledger_file};

/// The subject of a deploy's record.
pub const SUBJECT: &str = "migrate.deploy";
/// What the fact of a revision is called: this, and its identifier.
const FACT: &str = "revision.";

/// Adds what the files of revisions do now, at their deploy.
pub fn with_checksums<'a>(
    told: Told,
    revisions: impl IntoIterator<Item = &'a Revision>,
) -> Result<Told, Failure> {
    revisions.into_iter().try_fold(told, |told, revision| {
        Ok(match checksum(&revision.file)? {
            Some(checksum) => told.fact(&format!("{FACT}{}", revision.id), checksum),
            None => told,
        })
    })
}

/// What the ledger says of every environment of the strategy; nothing where there is no ledger.
pub fn applied(opened: &Opened<'_>) -> Result<Vec<Applied>, Failure> {
    let file = ledger_file(opened.strategy);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let filter = Filter { subject_prefix: Some(SUBJECT.to_owned()), ..Filter::default() };
    let mut by_environment: BTreeMap<String, BTreeMap<String, Applied>> = BTreeMap::new();
    for entry in Ledger::open_existing_readonly(&file)?.records(&filter)? {
        let record = entry.record;
        let Ok(environment) = opened.strategy.environment(&record.environment) else { continue };
        let known = by_environment.entry(record.environment.clone()).or_default();
        // The database is a new one: what the one before it ran is of no concern.
        if record.facts.get("from_base").is_some_and(|fact| fact == "true") {
            known.clear();
        }
        let severity = match environment.stage {
            Stage::Development => Severity::Warning,
            Stage::Staging | Stage::Production => Severity::Error,
        };
        let at = record.at.strftime("%Y-%m-%d %H:%M UTC").to_string();
        for (fact, checksum) in record.facts {
            let Some(revision) = fact.strip_prefix(FACT).map(str::to_owned) else { continue };
            let (environment, at) = (record.environment.clone(), at.clone());
            known.insert(revision.clone(), Applied { environment, at, revision, checksum, severity });
        }
    }
    Ok(by_environment.into_values().flat_map(BTreeMap::into_values).collect())
}

/// The revisions of a plan that are no longer pending: what a deploy that failed has committed all the same.
pub fn committed<'a>(before: &'a [Revision], pending: &[Revision]) -> impl Iterator<Item = &'a Revision> {
    let left: BTreeSet<String> = pending.iter().map(|revision| revision.id.clone()).collect();
    before.iter().filter(move |revision| !left.contains(&revision.id))
}
