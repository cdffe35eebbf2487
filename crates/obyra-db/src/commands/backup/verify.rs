//! `backup verify`: reads the repository again, and proves that it brings back every instant that it promises.

use obyra_backup::copy;
use obyra_backup::repository::Repository;
use obyra_backup::verify::{self, Share, Verified};
use obyra_evidence::{Exit, Failure, HumanBytes, Outcome, Severity, text};
use serde_json::json;

use super::Verify;
use crate::environment::{Opened, Told};
use crate::repository;

/// Days from here are the rounds of a partial verification: run daily, it reads everything in turn.
const DAY_SECONDS: i64 = 86_400;

/// Verifies, records, tells. Ends with 2 where something is wrong.
pub async fn verify(opened: &Opened<'_>, arguments: &Verify) -> Result<Exit, Failure> {
    let repository = repository::required(opened).await?;
    opened.can_record()?;
    let share = Share {
        percent: arguments.percent,
        round: u64::try_from(opened.now().as_second() / DAY_SECONDS).unwrap_or_default(),
        after: None,
    };
    let pitr = &opened.environment.backup.pitr;
    let window = pitr.enabled.then(|| pitr.window.before(opened.now()));
    let outcome = verify::contents(&repository, &share, window, &opened.invocation.progress()).await;
    let expected = "every object is what was written, and leads back to every instant of the window";
    let verified = opened.recorded("backup.verify", expected, outcome, |verified| {
        let ended = if is_sound(verified) { Outcome::Passed } else { Outcome::Failed };
        (ended, told(verified, expected))
    })?;
    let repairs = arguments.repair && !verified.faults.is_empty();
    if !(repairs && opened.invocation.printer.json) {
        tell(opened, &verified);
    }
    if repairs {
        return repair(opened, &repository, &verified).await;
    }
    Ok(if is_sound(&verified) { Exit::Done } else { Exit::Findings })
}

/// Mends what was found from the second repository. Ends with 2 where something is left.
async fn repair(opened: &Opened<'_>, repository: &Repository, verified: &Verified) -> Result<Exit, Failure> {
    let copy = repository::copy_store(opened)?;
    let outcome = copy::repair(repository, &copy, verified, &opened.invocation.progress()).await;
    let expected = "what was damaged is as it was written again";
    let repaired = opened.recorded("backup.repair", expected, outcome, |repaired| {
        let observed = format!("mended {}; left {}", repaired.mended.len(), repaired.left.join(", "));
        let ended = if repaired.left.is_empty() { Outcome::Changed } else { Outcome::Failed };
        (ended, Told::new(expected, observed).figure("mended", repaired.mended.len() as f64))
    })?;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&json!({ "verified": verified, "repaired": repaired }));
    }
    printer.note(text::backup::REPAIRED.with("count", repaired.mended.len()).with("store", copy.url()));
    for object in &repaired.left {
        printer.note(text::backup::REPAIR_LEFT.with("object", object));
    }
    Ok(if repaired.left.is_empty() { Exit::Done } else { Exit::Findings })
}

fn is_sound(verified: &Verified) -> bool {
    verified.stopped_by.is_none()
        && verified.faults.iter().all(|fault| fault.finding.severity == Severity::Note)
}

fn told(verified: &Verified, expected: &str) -> Told {
    let faults: Vec<String> = verified.faults.iter().map(|fault| fault.finding.message.to_string()).collect();
    let observed = match (&verified.stopped_by, faults.is_empty()) {
        (Some(why), _) => why.clone(),
        (None, true) => format!("{} objects, {} blocks", verified.objects, verified.blocks),
        (None, false) => faults.join("; "),
    };
    Told::new(expected, observed)
        .figure("objects", verified.objects as f64)
        .figure("bytes", verified.bytes as f64)
        .figure("blocks", verified.blocks as f64)
        .figure("faults", verified.faults.len() as f64)
}

fn tell(opened: &Opened<'_>, verified: &Verified) {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(verified);
        return;
    }
    for fault in &verified.faults {
        let mark = if fault.finding.severity == Severity::Note { "!" } else { "✗" };
        printer.data(&format!("  {mark} {}", fault.finding.message.say(printer.language)));
        if !fault.backups.is_empty() {
            let names: Vec<&str> = fault.backups.iter().map(|id| id.as_str()).collect();
            printer.line(text::backup::VERIFY_CONCERNS.with("backups", names.join(", ")));
        }
    }
    if let Some(why) = &verified.stopped_by {
        printer.line(text::backup::VERIFY_STOPPED.with("why", why));
    }
    printer.line(
        text::backup::VERIFIED
            .with("objects", verified.objects)
            .with("size", HumanBytes(verified.bytes))
            .with("blocks", verified.blocks)
            .with("backups", verified.backups)
            .with("count", verified.faults.len()),
    );
}
