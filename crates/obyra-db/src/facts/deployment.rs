//! Facts about migrations and seeds: what the database shows now, and what the ledger proves.

use obyra_continuity::{Fact, LineId};
use obyra_evidence::{Failure, Outcome, text};
use obyra_postgres::Session;

use super::{broken, holds, unknown};
use crate::commands::migrate::Application;
use crate::commands::seed;
use crate::environment::Opened;

/// The facts, line by line.
pub async fn facts(opened: &Opened<'_>, session: &Session) -> Result<Vec<(LineId, Fact)>, Failure> {
    let (migrations, at_head) = match migrations(opened, session).await {
        Ok(facts) => facts,
        Err(failure) => (unobserved(&failure), unobserved(&failure)),
    };
    let (seeds, idempotent) = match seeds(opened, session).await {
        Ok(facts) => facts,
        Err(failure) => (unobserved(&failure), unobserved(&failure)),
    };
    Ok(vec![
        (LineId::Migrations, migrations),
        (LineId::AtHead, at_head),
        (LineId::Seeds, seeds),
        (LineId::IdempotentSeeds, idempotent),
    ])
}

fn unobserved(failure: &Failure) -> Fact {
    unknown(text::cli::FACT_UNREADABLE.with("why", failure), failure.mend.clone())
}

/// Whether the whole history was once seen to run on an empty database up to today's head, and
/// whether this database stands at that head.
async fn migrations(opened: &Opened<'_>, session: &Session) -> Result<(Fact, Fact), Failure> {
    let application = Application::of(opened).await?;
    let (_, plan) = application.observe(opened, session).await?;
    let deploy = format!("obyra-db migrate deploy {}", opened.name());
    if let Some(obstacle) = plan.obstacle() {
        let told = text::cli::FACT_UNREADABLE.with("why", &obstacle.message);
        let fact = broken(told, format!("obyra-db migrate status {}", opened.name()));
        return Ok((fact.clone(), fact));
    }
    let Some(head) = &plan.to else {
        return Ok((Fact::NotAsked, Fact::NotAsked));
    };
    let at_head = if plan.is_empty() {
        holds(text::cli::FACT_AT_HEAD.with("head", head))
    } else {
        broken(text::cli::FACT_BEHIND.with("count", plan.pending.len()).with("head", head), &deploy)
    };
    Ok((from_empty(opened, head)?, at_head))
}

/// Any environment's deploy from the base to this head is proof that the history replays.
fn from_empty(opened: &Opened<'_>, head: &str) -> Result<Fact, Failure> {
    let filter = obyra_evidence::Filter { subject_prefix: Some("migrate.".to_owned()), ..Default::default() };
    let proof = opened.ledger()?.records(&filter)?.into_iter().rev().find(|entry| {
        let fact = |name: &str| entry.record.facts.get(name).map(String::as_str);
        entry.record.outcome == Outcome::Changed
            && fact("from_base") == Some("true")
            && fact("head") == Some(head)
    });
    Ok(match proof {
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
    })
}

/// Whether every seed is applied as it is in the folder, and whether exactly these were proven idempotent.
async fn seeds(opened: &Opened<'_>, session: &Session) -> Result<(Fact, Fact), Failure> {
    let (seeds, plan) = seed::observe(opened, session).await?;
    if seeds.is_empty() {
        let fact = unknown(text::cli::FACT_SEEDS_NONE.message(), None);
        return Ok((fact.clone(), fact));
    }
    let verify = format!("obyra-db seed verify {}", opened.name());
    let proof = opened.latest("seed.verify")?;
    let same = |record: &obyra_evidence::Record| record.facts.get("seeds") == Some(&seed::digest(&seeds));
    let idempotent = match proof {
        Some(record) if record.outcome == Outcome::Passed && same(&record) => holds(
            text::cli::FACT_SEEDS_PROVEN
                .with("count", seeds.len())
                .with("at", record.at.strftime("%Y-%m-%d %H:%M UTC")),
        ),
        Some(record) if record.outcome == Outcome::Failed && same(&record) => {
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
