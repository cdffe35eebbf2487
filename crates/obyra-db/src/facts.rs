//! What is known about each line of the strategy, gathered from the plan, from sessions and
//! from the ledger. What cannot be observed is a fact of its own: unknown, and why.

pub mod backups;
mod database;
mod deployment;
mod runtime;
mod source;

use obyra_continuity::{Fact, Facts, LineId, observe as runbook_observe, plan as runbook_plan};
use obyra_evidence::{Failure, Message, text};
use obyra_strategy::not_built;

use crate::commands::converge::Planned;
use crate::environment::Opened;

/// Lines whose capability is not built, whatever the environment declares.
const NOT_BUILT: [LineId; 1] = [LineId::Monitoring];

/// Lines that the strategy asks of some environments only.
const NOT_EVERYWHERE: [LineId; 7] = [
    LineId::HighAvailability,
    LineId::Pitr,
    LineId::RestoreDrill,
    LineId::LogicalExport,
    LineId::Retention,
    LineId::Alerts,
    LineId::AnonymisedCopies,
];

/// Lines that a file asks for by having a section. A team that writes no `[migrations]` is not asked
/// for its Alembic revisions, and the line says so instead of failing for ever.
/// Backups, monitoring and a plan for emergencies are asked of everybody.
const SECTION_OF: [(LineId, &str); 7] = [
    (LineId::Migrations, "migrations"),
    (LineId::AtHead, "migrations"),
    (LineId::UpgradeGate, "migrations"),
    (LineId::DowngradeGate, "migrations"),
    (LineId::RuntimeHelpers, "migrations"),
    (LineId::Seeds, "seeds"),
    (LineId::IdempotentSeeds, "seeds"),
];

/// Gathers the facts of an environment. A database that cannot be reached is a failure, not a fact.
pub async fn gather(opened: &Opened<'_>) -> Result<Facts, Failure> {
    let planned = Planned::of(opened).await?;
    let mut facts = Facts::about(opened.name());
    let mut tell = |line: LineId, fact: Fact| {
        facts.facts.insert(line, fact);
    };
    // Later facts replace earlier ones: asked nowhere, declared but not built, observed.
    for line in NOT_EVERYWHERE {
        tell(line, Fact::NotAsked);
    }
    for line in not_built(opened.environment).into_iter().map(|missing| missing.line).chain(NOT_BUILT) {
        tell(line, Fact::NotBuilt);
    }
    for (line, fact) in database::facts(opened, &planned).await? {
        tell(line, fact);
    }
    for (line, fact) in deployment::facts(opened, &planned.session).await? {
        tell(line, fact);
    }
    for (line, fact) in backups::facts(opened, &planned.session).await? {
        tell(line, fact);
    }
    tell(LineId::NoCreateAll, source::no_create_all(opened));
    tell(LineId::RuntimeHelpers, runtime::helpers(opened));
    let document =
        runbook_observe::document(&opened.strategy.folder.join(&opened.environment.runbook.document));
    for (line, fact) in runbook_plan::facts(&opened.environment.runbook, &document) {
        tell(line, fact);
    }
    for (line, section) in SECTION_OF {
        if !opened.environment.declares(section) {
            tell(line, Fact::NotAsked);
        }
    }
    if opened.environment.access.roles.values().all(|role| role.rotate.is_none()) {
        tell(LineId::Rotation, Fact::NotAsked);
    }
    Ok(facts)
}

/// A line that holds, with what shows it.
fn holds(evidence: Message) -> Fact {
    Fact::Holds { evidence: vec![evidence] }
}

/// A line that does not hold, with what shows it and the command that mends it.
fn broken(evidence: Message, command: impl std::fmt::Display) -> Fact {
    Fact::Broken { evidence: vec![evidence], mend: text::cli::RUN.with("command", command) }
}

/// A line that could not be observed.
fn unknown(why: Message, mend: Option<Message>) -> Fact {
    Fact::Unknown { why, mend }
}
