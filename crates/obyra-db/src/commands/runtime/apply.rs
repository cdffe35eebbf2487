//! `migrate runtime apply`: the exported files that have something to do, on an environment.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use obyra_evidence::render::{self, terminal};
use obyra_evidence::{Exit, Failure, Filter, Outcome, text};
use obyra_migrations::runtime::{self, Action, Applied, Helper, Plan, Planned, apply, observe, plan};
use obyra_postgres::{ChangeLock, Conninfo, Limits, Session};
use obyra_strategy::Strategy;

use super::{as_named, ground};
use crate::cli::Consent;
use crate::commands::converge;
use crate::commands::gate::project;
use crate::confirm::confirm;
use crate::environment::{LOCK_WAIT, Opened, Told};
use crate::invocation::Invocation;

const EXPECTED: &str = "the runtime alterations, applied once, each in its transaction";

/// Arguments of `migrate runtime apply`.
#[derive(Args, Debug)]
pub struct Apply {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The folder of SQL files; default: the folder runtime beside the revisions
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub consent: Consent,
}

/// Runs the verb.
pub async fn run(invocation: &Invocation, strategy: &Strategy, arguments: &Apply) -> Result<Exit, Failure> {
    let opened = Opened::new(invocation, strategy, &arguments.environment)?;
    let policy = &opened.environment.migrations;
    let folder = match &arguments.from {
        Some(folder) => folder.clone(),
        None => as_named(runtime::folder(policy, &project(&strategy.folder))),
    };
    let helper = Helper::open(&[folder]).map_err(|failure| {
        if failure.mend.is_some() { failure } else { failure.mended_by(text::runtime::MEND_EXPORT) }
    })?;
    let (ground, proven) = (ground(opened.environment), proven(&opened)?);
    let runner = runner(&opened).await?;
    let session = Session::connect(&runner, limits(&opened)).await?;
    let plan = plan(&helper, &observe(&session, &helper).await?, &ground, &proven)?;
    show(&opened, &plan);
    let printer = invocation.printer;
    let count = plan.to_run().count();
    if count == 0 && !plan.is_pending() {
        printer.note(text::runtime::NONE.with("count", plan.steps.len()));
        return tell_json(&opened, &plan, &[]);
    }
    if count > 0 {
        let ask = text::runtime::ASK.with("count", count).with("environment", opened.name());
        confirm(&printer, arguments.consent, ask)?;
    }
    opened.can_record()?;
    let witness = Session::connect(&runner, Limits::default()).await?;
    let lock = ChangeLock::acquire(&session, LOCK_WAIT).await?;
    let planned = Planned { helper: &helper, plan: &plan, ground: &ground, proven: &proven };
    let outcome = apply(&session, &lock, planned, &witness, &invocation.progress()).await;
    record(&opened, &helper, &outcome)?;
    let applied = outcome?;
    // What is new gets its privileges under the same lock, so that no apply beside it makes this plan an old one.
    converge::settle_under_lock(&opened, &opened.session().await?).await?;
    lock.release(&session).await?;
    let seconds: f64 = applied.iter().map(|file| file.seconds).sum();
    let done = text::runtime::APPLIED.with("count", applied.len()).with("seconds", format!("{seconds:.1}"));
    printer.note(done);
    tell_json(&opened, &plan, &applied)
}

/// The role that migrates: what it makes belongs to the owner.
async fn runner(opened: &Opened<'_>) -> Result<Conninfo, Failure> {
    match &opened.environment.migrations.run_as {
        Some(role) => opened.role(role).await,
        None => opened.admin().await,
    }
}

/// As long as a statement of a migration may wait for a lock.
fn limits(opened: &Opened<'_>) -> Limits {
    let seconds = opened.environment.migrations.lock_timeout.seconds();
    let lock_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
    Limits { lock_timeout, ..Limits::patient() }
}

/// The checksums of files that a check on record has proven.
fn proven(opened: &Opened<'_>) -> Result<BTreeSet<String>, Failure> {
    let filter = Filter { subject_prefix: Some("runtime.check".to_owned()), ..Filter::default() };
    let records = opened.ledger()?.records(&filter)?;
    let passed = records.iter().filter(|entry| entry.record.outcome == Outcome::Passed);
    let files = passed.filter_map(|entry| entry.record.facts.get("proven"));
    Ok(files.flat_map(|files| files.split(' ').map(str::to_owned)).collect())
}

fn show(opened: &Opened<'_>, plan: &Plan) {
    let printer = opened.invocation.printer;
    if printer.json {
        return;
    }
    for step in plan.steps.iter().filter(|step| !matches!(step.action, Action::Wait | Action::Refuse)) {
        let file = step.file.file_name().unwrap_or_default().to_string_lossy();
        let line = text::runtime::PLAN_STEP.with("file", file).with_sentence("reason", step.reason.clone());
        printer.line(line);
    }
    for finding in plan.findings() {
        printer.data(&terminal::finding(&finding, printer.language, printer.style(), &render::from_disk));
    }
}

fn tell_json(opened: &Opened<'_>, plan: &Plan, applied: &[Applied]) -> Result<Exit, Failure> {
    let printer = opened.invocation.printer;
    if printer.json {
        let document =
            serde_json::json!({ "environment": opened.name(), "plan": plan.steps, "applied": applied });
        printer.json_of_step(&document);
    }
    Ok(Exit::Done)
}

fn record(
    opened: &Opened<'_>,
    helper: &Helper,
    outcome: &Result<Vec<Applied>, Failure>,
) -> Result<(), Failure> {
    let (ended, told) = match outcome {
        Ok(applied) => {
            let names: Vec<&str> = applied.iter().map(|file| file.file.as_str()).collect();
            let files: Vec<String> =
                applied.iter().map(|file| format!("{}:{}", file.file, &file.checksum[..12])).collect();
            let rows: u64 = applied.iter().map(|file| file.rows).sum();
            let seconds: f64 = applied.iter().map(|file| file.seconds).sum();
            let told = Told::new(EXPECTED, names.join(", "))
                .figure("files", applied.len() as f64)
                .figure("rows", rows as f64)
                .figure("duration_seconds", seconds)
                .fact("files", files.join(" "));
            (Outcome::Changed, told)
        }
        Err(failure) => (Outcome::Failed, Told::new(EXPECTED, failure)),
    };
    opened.record("runtime.apply", ended, told.fact("content", helper.digest()))
}
