//! `backup expire`: what the retention lets go is removed, after it was shown.

use obyra_backup::expire::{self, Plan};
use obyra_backup::holdings::Holdings;
use obyra_backup::repository::Repository;
use obyra_evidence::{Exit, Failure, HumanBytes, Outcome, text};
use serde_json::json;

use super::Expire;
use crate::confirm::confirm;
use crate::environment::{Opened, Told};
use crate::repository;

/// Shows what would go, asks, removes it, records it.
pub async fn expire(opened: &Opened<'_>, arguments: &Expire) -> Result<Exit, Failure> {
    let Some(repository) = repository::existing(opened).await? else {
        opened.invocation.printer.note(text::backup::NONE_YET.with("environment", opened.name()));
        return Ok(Exit::Done);
    };
    for cluster in repository::clusters_of(opened, &repository).await? {
        let holdings = Holdings::read(&repository, cluster).await?;
        let policy = &opened.environment.backup;
        let plan = expire::plan(&repository, &holdings, policy, opened.now()).await?;
        show(opened, &plan);
        if plan.is_empty() || arguments.dry_run {
            continue;
        }
        let ask = text::backup::EXPIRE_ASK
            .with("count", plan.backups.backups.len())
            .with("size", HumanBytes(plan.backups.bytes + plan.wal_bytes()));
        confirm(&opened.invocation.printer, arguments.consent, ask)?;
        remove(opened, &repository, &holdings, &plan).await?;
    }
    Ok(Exit::Done)
}

/// After a backup: what the retention lets go, without a question, since the strategy said so.
pub async fn expire_after_backup(
    opened: &Opened<'_>,
    repository: &Repository,
    holdings: &Holdings,
) -> Result<(), Failure> {
    let plan = expire::plan(repository, holdings, &opened.environment.backup, opened.now()).await?;
    if plan.is_empty() { Ok(()) } else { remove(opened, repository, holdings, &plan).await }
}

async fn remove(
    opened: &Opened<'_>,
    repository: &Repository,
    holdings: &Holdings,
    plan: &Plan,
) -> Result<(), Failure> {
    opened.can_record()?;
    let progress = opened.invocation.progress();
    let outcome = expire::apply(repository, plan, holdings, &progress).await;
    let expected = "what the retention lets go is removed";
    let expired = opened.recorded("backup.expire", expected, outcome, |expired| {
        let names: Vec<&str> = expired.backups.backups.iter().map(|id| id.as_str()).collect();
        let told = Told::new(expected, format!("removed {}", names.join(", ")))
            .figure("backups", names.len() as f64)
            .figure("packs", expired.backups.packs as f64)
            .figure("bytes", (expired.backups.bytes + expired.wal_bytes) as f64)
            .figure("wal_objects", expired.wal as f64);
        (Outcome::Changed, told)
    })?;
    let printer = opened.invocation.printer;
    for held in &expired.backups.held {
        printer.note(text::backup::EXPIRE_HELD.with("backup", &held.backup).with("by", &held.by));
    }
    for locked in &expired.backups.locked {
        let why = locked.until.map_or_else(|| locked.why.clone(), |until| until.to_string());
        printer.note(text::backup::EXPIRE_LOCKED.with("object", &locked.object).with("why", why));
    }
    printer.note(
        text::backup::EXPIRED
            .with("count", expired.backups.backups.len())
            .with("size", HumanBytes(expired.backups.bytes + expired.wal_bytes)),
    );
    Ok(())
}

fn show(opened: &Opened<'_>, plan: &Plan) {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&json!({
            "backups": plan.decision.verdicts,
            "packs": plan.backups.packs,
            "bytes": plan.backups.bytes,
            "wal_objects": plan.wal.len(),
            "wal_bytes": plan.wal_bytes(),
        }));
        return;
    }
    let policy = &opened.environment.backup;
    for verdict in &plan.decision.verdicts {
        let reasons: Vec<String> =
            verdict.kept.iter().map(|reason| reason.message(policy).say(printer.language)).collect();
        let told = if verdict.expires() {
            text::backup::EXPIRE_GOES.with("backup", &verdict.id)
        } else {
            text::backup::EXPIRE_STAYS.with("backup", &verdict.id).with("reasons", reasons.join("; "))
        };
        printer.line(told);
    }
    if !plan.wal.is_empty() {
        let size = HumanBytes(plan.wal_bytes());
        printer.line(text::backup::EXPIRE_WAL.with("count", plan.wal.len()).with("size", size));
    }
    if plan.is_empty() {
        printer.line(text::backup::EXPIRE_NOTHING);
    }
}
