//! `seed apply|verify|status`: the numbered SQL files that every environment needs.

use obyra_evidence::render;
use obyra_evidence::{Exit, Failure, Outcome, Record, text};
use obyra_postgres::{ChangeLock, Conninfo, Limits, Session};
use obyra_seeds::{Action, Copied, Plan, Planned, Proof, Seed as File, Target, Tracking};

use crate::cli::{Consent, Seed};
use crate::commands::converge;
use crate::confirm::confirm;
use crate::environment::{LOCK_WAIT, Opened, Told};
use crate::invocation::Invocation;

/// Runs the verb.
pub async fn seed(invocation: &mut Invocation, verb: &Seed) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    match verb {
        Seed::Apply(arguments) => {
            let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
            apply_opened(&opened, arguments.consent).await?;
            Ok(Exit::Done)
        }
        Seed::Verify(arguments) => {
            let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
            verify_opened(&opened).await
        }
        Seed::Status(arguments) => {
            let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
            let session = opened.session().await?;
            let (_, plan) = observe(&opened, &session).await?;
            Ok(status(&opened, &plan))
        }
    }
}

/// The files, and what is to be done about each.
pub async fn observe(opened: &Opened<'_>, session: &Session) -> Result<(Vec<File>, Plan), Failure> {
    let seeds = obyra_seeds::discover(&opened.environment.seeds.directory_in(&opened.strategy.folder))?;
    let observed = obyra_seeds::observe(session, &tracking(opened)?).await?;
    let plan = obyra_seeds::plan(&seeds, &observed);
    Ok((seeds, plan))
}

/// What identifies a set of seeds: their numbers and checksums.
fn digest(seeds: &[File]) -> String {
    let parts: Vec<String> =
        seeds.iter().map(|seed| format!("{:03}:{}", seed.number, &seed.checksum[..12])).collect();
    parts.join(" ")
}

/// `seed apply` within longer work.
pub async fn apply_opened(opened: &Opened<'_>, consent: Consent) -> Result<(), Failure> {
    let printer = opened.invocation.printer;
    let session = Session::connect(&runner(opened).await?, Limits::patient()).await?;
    let (seeds, plan) = observe(opened, &session).await?;
    let pending = plan.to_run().count();
    if pending == 0 && plan.is_in_order() {
        printer.note(text::cli::SEEDS_NONE.with("count", seeds.len()));
        return tell_json(opened, &[]);
    }
    if pending > 0 {
        let ask = text::cli::SEEDS_ASK.with("count", pending).with("environment", opened.name());
        confirm(&printer, consent, ask)?;
    }
    opened.can_record()?;
    let lock = ChangeLock::acquire(&session, LOCK_WAIT).await?;
    let progress = opened.invocation.progress();
    let tracking = tracking(opened)?;
    let planned = Planned { seeds: &seeds, plan: &plan, tracking: &tracking };
    let outcome = obyra_seeds::apply(&session, &lock, planned, &progress).await;
    let expected = "pending seeds applied, each in its transaction";
    let (ended, told) = match &outcome {
        Ok(applied) => {
            let names: Vec<String> =
                applied.iter().map(|seed| format!("{:03}_{}", seed.number, seed.name)).collect();
            let rows: u64 = applied.iter().map(|seed| seed.rows).sum();
            (Outcome::Changed, Told::new(expected, names.join(", ")).figure("rows", rows as f64))
        }
        Err(failure) => (Outcome::Failed, Told::new(expected, failure)),
    };
    opened.record("seed.apply", ended, told.fact("seeds", digest(&seeds)))?;
    let applied = outcome?;
    // The tracking table itself is new the first time: its privileges follow the strategy too, under the
    // same lock, so that no apply beside it makes this plan an old one.
    converge::settle_under_lock(opened, &opened.session().await?).await?;
    lock.release(&session).await?;
    tell_json(opened, &applied)
}

/// The JSON of `seed apply`: what was applied now.
fn tell_json(opened: &Opened<'_>, applied: &[obyra_seeds::Applied]) -> Result<(), Failure> {
    if opened.invocation.printer.json {
        let report = serde_json::json!({ "environment": opened.name(), "applied": applied });
        opened.invocation.printer.json_of_step(&report);
    }
    Ok(())
}

/// What the newest proof on record says of exactly these files.
pub fn proof_of(opened: &Opened<'_>, seeds: &[File]) -> Result<Option<Record>, Failure> {
    let newest = opened.latest("seed.verify")?;
    Ok(newest.filter(|record| record.facts.get("seeds") == Some(&digest(seeds))))
}

/// The proof, unless the ledger has it for exactly these files.
pub async fn prove_unless_proven(opened: &Opened<'_>) -> Result<(), Failure> {
    let seeds = obyra_seeds::discover(&opened.environment.seeds.directory_in(&opened.strategy.folder))?;
    let proven = proof_of(opened, &seeds)?.is_some_and(|record| record.outcome == Outcome::Passed);
    if proven { Ok(()) } else { verify_opened(opened).await.map(drop) }
}

/// Proves on a temporary copy that a second run changes no row.
pub async fn verify_opened(opened: &Opened<'_>) -> Result<Exit, Failure> {
    let printer = opened.invocation.printer;
    let seeds = obyra_seeds::discover(&opened.environment.seeds.directory_in(&opened.strategy.folder))?;
    let admin = opened.admin().await?;
    let installation = opened.installation().await?;
    let target = Target {
        database: &admin,
        run_as: opened.environment.seeds.run_as.as_deref().unwrap_or(admin.user()),
        installation: &installation,
        cache: &opened.invocation.cache()?,
        copied: Copied::Schema,
    };
    let progress = opened.invocation.progress();
    let outcome = obyra_seeds::verify(target, &seeds, &tracking(opened)?, &progress).await;
    record_proof(opened, &seeds, &outcome)?;
    let proof = outcome?;
    if printer.json {
        printer.json_of_step(&proof);
    } else {
        for change in &proof.changes {
            printer.line(text::cli::SEEDS_CHANGED.with("seed", &change.seed).with("table", &change.table));
        }
        if proof.is_idempotent() {
            printer.note(
                text::cli::SEEDS_PROVEN
                    .with("count", proof.seeds.len())
                    .with("tables", proof.tables)
                    .with("rows", proof.rows),
            );
        }
    }
    Ok(if proof.is_idempotent() { Exit::Done } else { Exit::Findings })
}

fn record_proof(
    opened: &Opened<'_>,
    seeds: &[File],
    outcome: &Result<Proof, Failure>,
) -> Result<(), Failure> {
    let expected = "the second run changes no row of any table";
    let (ended, told) = match outcome {
        Ok(proof) if proof.is_idempotent() => (
            Outcome::Passed,
            Told::new(expected, format!("{} tables with {} rows unchanged", proof.tables, proof.rows))
                .figure("rows", proof.rows as f64)
                .figure("tables", proof.tables as f64),
        ),
        Ok(proof) => {
            let changed: Vec<String> = proof
                .changes
                .iter()
                .map(|change| format!("{} changed {}", change.seed, change.table))
                .collect();
            (Outcome::Failed, Told::new(expected, changed.join("; ")))
        }
        Err(failure) => (Outcome::Unknown, Told::new(expected, failure)),
    };
    opened.record("seed.verify", ended, told.fact("seeds", digest(seeds)))
}

fn status(opened: &Opened<'_>, plan: &Plan) -> Exit {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(plan);
    } else {
        for step in &plan.steps {
            let mark = match step.action {
                Action::None => text::cli::SEED_APPLIED,
                Action::Apply | Action::Repeat => text::cli::SEED_PENDING,
                Action::Refuse => text::cli::SEED_REFUSED,
                Action::Missing => text::cli::SEED_MISSING,
            };
            printer.data(&format!(
                "{:03}_{:<32} {:<10} {}",
                step.number,
                step.name,
                mark.message().say(printer.language),
                step.reason.say(printer.language)
            ));
        }
        for finding in plan.findings() {
            printer.data(&render::terminal::finding(
                &finding,
                printer.language,
                printer.style(),
                &render::from_disk,
            ));
        }
    }
    if plan.is_in_order() { Exit::Done } else { Exit::Findings }
}

async fn runner(opened: &Opened<'_>) -> Result<Conninfo, Failure> {
    match &opened.environment.seeds.run_as {
        Some(role) => opened.role(role).await,
        None => opened.admin().await,
    }
}

pub fn tracking(opened: &Opened<'_>) -> Result<Tracking, Failure> {
    let policy = &opened.environment.seeds;
    let schema = opened.environment.schemas.get(&policy.schema).ok_or_else(|| {
        Failure::usage(
            text::cli::SEEDS_NO_SCHEMA.with("schema", &policy.schema).with("environment", opened.name()),
        )
    })?;
    Ok(Tracking::new(policy, schema))
}
