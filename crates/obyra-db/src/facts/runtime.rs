//! What the ledger proves of the runtime helper as it is now.

use obyra_continuity::Fact;
use obyra_evidence::{Entry, Failure, Filter, Outcome, text};
use obyra_migrations::runtime::{Helper, found};

use super::{broken, holds, unknown};
use crate::environment::Opened;

const COMMAND: &str = "obyra-db migrate runtime check";

/// Whether each statement of the helper is proven to run again. A project without one is not asked.
pub fn helpers(opened: &Opened<'_>) -> Fact {
    observed(opened)
        .unwrap_or_else(|failure| unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend))
}

fn observed(opened: &Opened<'_>) -> Result<Fact, Failure> {
    let paths = found(&opened.environment.migrations, &opened.strategy.folder);
    if paths.is_empty() {
        return Ok(Fact::NotAsked);
    }
    let content = Helper::open(&paths)?.digest();
    let filter = Filter { subject_prefix: Some("runtime.check".to_owned()), ..Filter::default() };
    let records = opened.ledger()?.records(&filter)?;
    let of_content = |entry: &&Entry| entry.record.facts.get("content") == Some(&content);
    let run = text::cli::RUN.with("command", COMMAND);
    Ok(match records.iter().rev().find(of_content) {
        None if records.is_empty() => unknown(text::runtime::FACT_UNCHECKED.message(), Some(run)),
        None => broken(text::runtime::FACT_CHANGED.message(), COMMAND),
        Some(entry) => judged(entry),
    })
}

fn judged(entry: &Entry) -> Fact {
    let record = &entry.record;
    let at = record.at.strftime("%Y-%m-%d %H:%M UTC");
    let figure = |name: &str| record.figures.get(name).copied().unwrap_or_default();
    match record.outcome {
        Outcome::Passed => holds(
            text::runtime::FACT_CLEAN
                .with("count", figure("statements"))
                .with("at", at)
                .with("record", entry.sequence),
        ),
        Outcome::Failed => {
            broken(text::runtime::FACT_FAILED.with("at", at).with("why", &record.observed), COMMAND)
        }
        Outcome::Unknown | Outcome::Changed => {
            let told = text::runtime::FACT_UNKNOWN.with("at", at).with("count", figure("unknown"));
            unknown(told, Some(text::cli::RUN.with("command", COMMAND)))
        }
    }
}
