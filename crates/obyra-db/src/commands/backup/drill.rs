//! `backup drill`: the newest backup restored in isolation, proven, measured, compared with the objectives.

use obyra_backup::drill::{self, Drilled, Outcome as CheckOutcome};
use obyra_backup::restore::{Stage, Target};
use obyra_evidence::{Exit, Failure, HumanBytes, HumanDuration, Message, Outcome, text};
use obyra_postgres::wal::TimelineId;

use super::{DrillTo, way};
use crate::environment::{Opened, Told};

/// Drills, records, tells. Ends with 2 where something was not as it should be.
pub async fn drill(opened: &Opened<'_>, arguments: &DrillTo) -> Result<Exit, Failure> {
    let outcome = drill_opened(opened, arguments).await?;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&outcome.drilled);
    } else {
        tell(opened, &outcome);
    }
    Ok(if outcome.passed() { Exit::Done } else { Exit::Findings })
}

/// A drill beside the objectives that it was held against.
pub struct Judged {
    drilled: Drilled,
    /// Objectives that were missed.
    missed: Vec<Message>,
}

impl Judged {
    fn passed(&self) -> bool {
        self.drilled.passed() && self.missed.is_empty()
    }
}

/// Drills and records, within longer work.
pub async fn drill_opened(opened: &Opened<'_>, arguments: &DrillTo) -> Result<Judged, Failure> {
    let target = Target::parse(&arguments.to)?;
    opened.can_record()?;
    let outcome = run(opened, &target, arguments).await;
    let expected = "the backup is restored in isolation, whole, within the objectives";
    opened.recorded("backup.drill", expected, outcome, |judged| {
        let ended = if judged.passed() { Outcome::Passed } else { Outcome::Failed };
        (ended, told(judged, expected))
    })
}

async fn run(opened: &Opened<'_>, target: &Target, arguments: &DrillTo) -> Result<Judged, Failure> {
    let (repository, cluster) = way::newest_cluster(opened).await?;
    let (major, superuser) = way::origin(&repository, cluster).await?;
    let installation = way::installation(opened, major).await?;
    let drill = drill::Drill {
        stage: Stage {
            repository: &repository,
            cluster,
            installation: &installation,
            scratch: arguments.scratch.as_deref(),
            superuser: &superuser,
            threads: way::threads(),
            databases: None,
        },
        target,
        timeline: arguments.timeline.map(TimelineId),
        database: &opened.environment.database,
        queries: &opened.environment.backup.drill.queries,
        now: opened.now(),
    };
    let drilled = drill.run(&opened.invocation.progress()).await?;
    let missed = missed(opened, &drilled, target);
    Ok(Judged { drilled, missed })
}

/// What the objectives of the runbook say of it. A moment in the past tells nothing of what would be lost now.
fn missed(opened: &Opened<'_>, drilled: &Drilled, target: &Target) -> Vec<Message> {
    let runbook = &opened.environment.runbook;
    let mut missed = Vec::new();
    if let Some(rto) = runbook.rto
        && drilled.rto_seconds > rto.seconds() as f64
    {
        missed.push(
            text::backup::DRILL_RTO_MISSED
                .with("rto", seconds(drilled.rto_seconds))
                .with("objective", rto.short()),
        );
    }
    if let (Some(rpo), Some(lost), Target::Latest) = (runbook.rpo, drilled.rpo_seconds, target)
        && lost > rpo.seconds() as f64
        && !is_idle(drilled)
    {
        missed.push(text::backup::DRILL_RPO_MISSED.with("rpo", seconds(lost)).with("objective", rpo.short()));
    }
    missed
}

/// A server on which nobody commits has nothing newer to lose: recovery went to the end of what it wrote.
fn is_idle(drilled: &Drilled) -> bool {
    drilled.wal_bytes == 0
}

fn told(judged: &Judged, expected: &str) -> Told {
    let drilled = &judged.drilled;
    let failed: Vec<String> = drilled
        .checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .map(|check| check.found.to_string())
        .chain(judged.missed.iter().map(ToString::to_string))
        .collect();
    let observed =
        if failed.is_empty() { format!("{} restored and proven", drilled.backup) } else { failed.join("; ") };
    let count = |wanted| drilled.checks.iter().filter(|check| check.outcome == wanted).count() as f64;
    let told = Told::new(expected, observed)
        .figure("rto_seconds", drilled.rto_seconds)
        .figure("restored_bytes", drilled.bytes as f64)
        .figure("restore_seconds", drilled.phases.files)
        .figure("replayed_bytes", drilled.wal_bytes as f64)
        .figure("replay_seconds", drilled.phases.replay)
        .figure("proof_seconds", drilled.phases.proof)
        .figure("checks_passed", count(CheckOutcome::Passed))
        .figure("checks_failed", count(CheckOutcome::Failed))
        .figure("checks_skipped", count(CheckOutcome::Skipped))
        .fact("backup", &drilled.backup)
        .fact("target", &drilled.target)
        .fact("timeline", drilled.timeline);
    match drilled.rpo_seconds {
        Some(lost) => told.figure("rpo_seconds", lost),
        None => told,
    }
}

fn tell(opened: &Opened<'_>, judged: &Judged) {
    let printer = opened.invocation.printer;
    let drilled = &judged.drilled;
    printer.line(
        text::backup::DRILL_BACK
            .with("backup", &drilled.backup)
            .with("target", &drilled.target)
            .with("bytes", HumanBytes(drilled.bytes))
            .with("wal", HumanBytes(drilled.wal_bytes)),
    );
    for check in &drilled.checks {
        let mark = match check.outcome {
            CheckOutcome::Passed => "✓",
            CheckOutcome::Failed => "✗",
            CheckOutcome::Skipped => "?",
        };
        let name = check.name.message().say(printer.language);
        printer.data(&format!("  {mark} {name}: {}", check.found.say(printer.language)));
        for line in check.detail.iter().flat_map(|detail| detail.lines()) {
            printer.data(&format!("      {line}"));
        }
    }
    if !drilled.left_out.is_empty() {
        printer.line(text::backup::DRILL_LEFT_OUT.with("libraries", drilled.left_out.join(", ")));
    }
    let phases = drilled.phases;
    printer.line(
        text::backup::DRILL_RTO
            .with("rto", seconds(drilled.rto_seconds))
            .with("find", seconds(phases.find))
            .with("files", seconds(phases.files))
            .with("replay", seconds(phases.replay))
            .with("proof", seconds(phases.proof)),
    );
    match (drilled.rpo_seconds, drilled.last_commit) {
        (Some(lost), Some(at)) => printer.line(
            text::backup::DRILL_RPO
                .with("rpo", seconds(lost))
                .with("at", at.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ),
        _ => printer.line(text::backup::DRILL_RPO_UNKNOWN),
    }
    for missed in &judged.missed {
        printer.line(missed.clone());
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        HumanDuration::from_seconds(seconds as u64).short()
    }
}
