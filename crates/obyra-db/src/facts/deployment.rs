//! Facts about migrations and seeds: what the database shows now, and what the ledger proves.

use obyra_continuity::{Fact, LineId};
use obyra_evidence::{Entry, Failure, Filter, Outcome, text};
use obyra_postgres::Session;

use super::{broken, holds, unknown};
use crate::commands::migrate::Application;
use crate::commands::seed;
use crate::environment::Opened;

/// The facts, line by line.
pub async fn facts(opened: &Opened<'_>, session: &Session) -> Result<Vec<(LineId, Fact)>, Failure> {
    let History { replays, at_head, upgrade, downgrade } = match migrations(opened, session).await {
        Ok(facts) => facts,
        Err(failure) => History::all(&unobserved(&failure)),
    };
    let (seeds, idempotent) = match seeds(opened, session).await {
        Ok(facts) => facts,
        Err(failure) => (unobserved(&failure), unobserved(&failure)),
    };
    Ok(vec![
        (LineId::Migrations, replays),
        (LineId::AtHead, at_head),
        (LineId::UpgradeGate, upgrade),
        (LineId::DowngradeGate, downgrade),
        (LineId::Seeds, seeds),
        (LineId::IdempotentSeeds, idempotent),
    ])
}

fn unobserved(failure: &Failure) -> Fact {
    unknown(text::cli::FACT_UNREADABLE.with("why", failure), failure.mend.clone())
}

/// The lines about Alembic's history.
struct History {
    replays: Fact,
    at_head: Fact,
    upgrade: Fact,
    downgrade: Fact,
}

impl History {
    fn all(fact: &Fact) -> History {
        let fact = || fact.clone();
        History { replays: fact(), at_head: fact(), upgrade: fact(), downgrade: fact() }
    }
}

/// Whether the whole history was once seen to run on an empty database up to today's head, whether
/// this database stands at that head, and what the gate found of it.
async fn migrations(opened: &Opened<'_>, session: &Session) -> Result<History, Failure> {
    let application = Application::of(opened).await?;
    let (_, plan) = application.observe(opened, session).await?;
    let deploy = format!("obyra-db migrate deploy {}", opened.name());
    if let Some(obstacle) = plan.obstacle() {
        let told = text::cli::FACT_UNREADABLE.with("why", &obstacle.message);
        let fact = broken(told, format!("obyra-db migrate status {}", opened.name()));
        return Ok(History::all(&fact));
    }
    let Some(head) = &plan.to else {
        return Ok(History::all(&Fact::NotAsked));
    };
    let at_head = if plan.is_empty() {
        holds(text::cli::FACT_AT_HEAD.with("head", head))
    } else {
        broken(text::cli::FACT_BEHIND.with("count", plan.pending.len()).with("head", head), &deploy)
    };
    let records = opened.ledger()?.records(&Filter::default())?;
    Ok(History {
        replays: from_empty(&records, head),
        at_head,
        upgrade: gated(&records, "gate.upgrade", head),
        downgrade: gated(&records, "gate.downgrade", head),
    })
}

/// What the newest gate of this head found, whichever environment it was run for.
fn gated(records: &[Entry], subject: &str, head: &str) -> Fact {
    let found = records.iter().rev().find(|entry| {
        entry.record.subject == subject
            && entry.record.outcome != Outcome::Unknown
            && entry.record.facts.get("head").is_some_and(|of| of == head)
    });
    let command = "obyra-db migrate gate";
    let Some(entry) = found else {
        let mend = text::cli::RUN.with("command", command);
        return unknown(text::gate::FACT_UNPROVEN.with("head", head), Some(mend));
    };
    let at = entry.record.at.strftime("%Y-%m-%d %H:%M UTC");
    if entry.record.outcome == Outcome::Failed {
        let evidence = text::gate::FACT_FAILED.with("at", at).with("why", &entry.record.observed);
        return broken(evidence, command);
    }
    let evidence = match subject {
        "gate.upgrade" => text::gate::FACT_UPGRADE.with("head", head),
        _ => text::gate::FACT_DOWNGRADE
            .with("count", entry.record.figures.get("checked").copied().unwrap_or_default()),
    };
    holds(evidence.with("at", at).with("record", entry.sequence))
}

/// Any environment's deploy from the base to this head is proof that the history replays, and so is a gate.
fn from_empty(records: &[Entry], head: &str) -> Fact {
    let proof = records.iter().rev().find(|entry| {
        let fact = |name: &str| entry.record.facts.get(name).map(String::as_str);
        let ended = match entry.record.subject.as_str() {
            "gate.upgrade" => Outcome::Passed,
            subject if subject.starts_with("migrate.") => Outcome::Changed,
            _ => return false,
        };
        entry.record.outcome == ended && fact("from_base") == Some("true") && fact("head") == Some(head)
    });
    match proof {
        Some(entry) => holds(
            text::cli::FACT_FROM_EMPTY
                .with("environment", &entry.record.environment)
                .with("at", entry.record.at.strftime("%Y-%m-%d %H:%M UTC"))
                .with("head", head)
                .with("record", entry.sequence),
        ),
        None => unknown(
            text::cli::FACT_FROM_EMPTY_UNPROVEN.with("head", head),
            Some(text::cli::RUN.with("command", "obyra-db up dev --recreate")),
        ),
    }
}

/// Whether every seed is applied as it is in the folder, and whether exactly these were proven idempotent.
async fn seeds(opened: &Opened<'_>, session: &Session) -> Result<(Fact, Fact), Failure> {
    let (seeds, plan) = seed::observe(opened, session).await?;
    if seeds.is_empty() {
        let fact = unknown(text::cli::FACT_SEEDS_NONE.message(), None);
        return Ok((fact.clone(), fact));
    }
    let verify = format!("obyra-db seed verify {}", opened.name());
    let idempotent = match seed::proof_of(opened, &seeds)? {
        Some(record) if record.outcome == Outcome::Passed => holds(
            text::cli::FACT_SEEDS_PROVEN
                .with("count", seeds.len())
                .with("at", record.at.strftime("%Y-%m-%d %H:%M UTC")),
        ),
        Some(record) if record.outcome == Outcome::Failed => {
            broken(text::cli::FACT_UNREADABLE.with("why", &record.observed), &verify)
        }
        _ => unknown(text::cli::FACT_SEEDS_UNPROVEN.message(), Some(text::cli::RUN.with("command", &verify))),
    };
    let waiting = plan.to_run().count();
    let applied = if !plan.is_in_order() {
        broken(
            text::cli::FACT_SEEDS_PENDING.with("count", waiting),
            format!("obyra-db seed apply {}", opened.name()),
        )
    } else {
        match &idempotent {
            Fact::Holds { evidence } => {
                let mut evidence = evidence.clone();
                evidence.insert(0, text::cli::FACT_SEEDS_APPLIED.with("count", seeds.len()));
                Fact::Holds { evidence }
            }
            other => other.clone(),
        }
    };
    Ok((applied, idempotent))
}
