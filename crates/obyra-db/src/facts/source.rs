//! What the application's source shows: whether it changes the schema behind Alembic's back.

use obyra_continuity::Fact;
use obyra_evidence::{Code, Severity, text};
use obyra_migrations::scan;

use super::{broken, holds, unknown};
use crate::environment::Opened;

/// Rules that say that tables come or go without a revision.
const SCHEMA_CHANGES: [Code; 6] = [
    text::scan::CREATE_ALL,
    text::scan::DROP_ALL,
    text::scan::TABLE_CREATE,
    text::scan::TABLE_DROP,
    text::scan::DDL_EXECUTED,
    text::scan::DDL_IN_DO,
];

/// The whole project is read, without importing any of it. What only tests do is no production code.
pub fn no_create_all(opened: &Opened<'_>) -> Fact {
    let report = match scan::scan(&opened.strategy.folder) {
        Ok(report) if report.files == 0 => return Fact::NotAsked,
        Ok(report) => report,
        Err(failure) => return unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend),
    };
    let changes = |rule: Code| SCHEMA_CHANGES.contains(&rule);
    let found = report.findings.iter().filter(|f| f.severity > Severity::Note && changes(f.message.code()));
    let mut places: Vec<String> =
        found.filter_map(|finding| finding.place.as_ref().map(ToString::to_string)).collect();
    let count = places.len();
    if count == 0 {
        return holds(
            text::cli::FACT_SOURCE_CLEAN.with("files", report.files).with("allowed", report.allowed.len()),
        );
    }
    places.truncate(5);
    let evidence = text::cli::FACT_SOURCE_CHANGES.with("count", count).with("places", places.join(", "));
    broken(evidence, "obyra-db migrate scan --tickets tickets")
}
