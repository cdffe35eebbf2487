//! `backup restore`: brings a cluster back to an instant, beside the original or, for an embedded one, in
//! its place.

use std::path::{Path, PathBuf};

use obyra_backup::restore::{Action, Into, Place, Ready, Recovery, Stage, Whole, Written};
use obyra_evidence::{Exit, Failure, HumanBytes, Message, Outcome, text};
use obyra_postgres::cluster::{Embedded, EmbeddedSpec};
use serde_json::json;

use super::way::{self, Asked, Way};
use super::{RestoreTo, part};
use crate::cli::Consent;
use crate::confirm::confirm;
use crate::environment::{Opened, Told};

/// Plans, shows, asks, restores, records.
pub async fn restore(opened: &Opened<'_>, arguments: &RestoreTo) -> Result<Exit, Failure> {
    let asked = Asked { to: &arguments.to, from: arguments.from.as_deref(), timeline: arguments.timeline };
    let way = Way::find(opened, &asked).await?;
    // One document: the plan where nothing is done, else what was done.
    let is_shown = arguments.dry_run || !opened.invocation.printer.json;
    if arguments.name.is_some() {
        if is_shown {
            show(opened, &way, &way.plan.notes);
        }
        return part::bring_back(opened, &way, arguments).await;
    }
    let Some(into) = &arguments.into else {
        if !opened.embedded() {
            return Err(Failure::usage(text::backup::INTO_MISSING).mended_by(text::backup::INTO_MISSING_MEND));
        }
        show(opened, &way, &way.plan.notes);
        if arguments.dry_run {
            return Ok(Exit::Done);
        }
        in_place(opened, &way, arguments.consent).await?;
        return Ok(Exit::Done);
    };
    let destination = Into {
        data: std::path::absolute(into)
            .map_err(|e| Failure::new(text::cli::FILE_UNUSABLE.with("file", into.display())).because(e))?,
        tablespaces: arguments.tablespace.iter().cloned().collect(),
        other_cluster: arguments.replace_other_cluster,
    };
    let recovery = Recovery {
        restore_command: fetch_command(opened)?,
        action: if arguments.pause { Action::Pause } else { Action::Promote },
        archiving: false,
    };
    let whole = Whole {
        repository: &way.repository,
        cluster: way.cluster,
        plan: &way.plan,
        coverage: &way.coverage,
        destination: &destination,
        recovery: &recovery,
        discard_wal: arguments.discard_wal,
        threads: way::threads(),
    };
    let ready = whole.look().await?;
    if is_shown {
        show(opened, &way, &ready.notes);
    }
    if !opened.invocation.printer.json {
        show_removed(opened, &ready.place);
    }
    if arguments.dry_run {
        return Ok(Exit::Done);
    }
    let ask = text::backup::RESTORE_ASK
        .with("bytes", HumanBytes(way.plan.backup.totals.bytes))
        .with("folder", ready.place.data.display());
    confirm(&opened.invocation.printer, arguments.consent, ask)?;
    let data = ready.place.data.clone();
    let written = into_folder(opened, &way, ready).await?;
    tell_written(opened, &way, &data, &written);
    Ok(Exit::Done)
}

/// The files, and the configuration that recovers them when somebody starts a server there.
async fn into_folder(opened: &Opened<'_>, way: &Way, ready: Ready) -> Result<Written, Failure> {
    let folder = ready.place.data.display().to_string();
    let told = Told::new(format!("{} in {folder}", way.plan.target), way.plan.backup.id.to_string())
        .fact("target", &way.plan.target)
        .fact("folder", &folder);
    opened.can_record()?;
    let outcome = ready.run(&opened.invocation.progress()).await;
    let (ended, told) = match &outcome {
        Ok(written) => (Outcome::Changed, told.figure("written_bytes", written.bytes as f64)),
        Err(failure) => (Outcome::Failed, Told { observed: failure.to_string(), ..told }),
    };
    opened.record("backup.restore", ended, told)?;
    outcome
}

/// How the restored server gets its WAL: by this program, from the same strategy.
fn fetch_command(opened: &Opened<'_>) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::new(text::cli::RUNTIME).because(e))?;
    let config = std::path::absolute(&opened.strategy.file).unwrap_or_else(|_| opened.strategy.file.clone());
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    Ok(format!(
        "{} --quiet --config {} backup wal-fetch {} %f %p",
        quoted(&program),
        quoted(&config),
        opened.name()
    ))
}

/// An embedded cluster: recovered beside, in isolation, and then put in the place of the other, which stays.
pub async fn in_place(opened: &Opened<'_>, way: &Way, consent: Consent) -> Result<PathBuf, Failure> {
    let folder = opened.cluster_folder();
    let cluster = Embedded::open(&folder)?;
    let ask = text::backup::IN_PLACE_ASK.with("environment", opened.name()).with("target", &way.plan.target);
    confirm(&opened.invocation.printer, consent, ask)?;
    opened.can_record()?;
    let installation = opened.installation().await?;
    let root = cluster.as_ref().map_or(folder.clone(), |cluster| cluster.dir().to_path_buf());
    let superuser = cluster.as_ref().map_or_else(|| "postgres".to_owned(), |c| c.admin().user().to_owned());
    let stage = Stage {
        repository: &way.repository,
        cluster: way.cluster,
        installation: &installation,
        // On the same disk: what was recovered is moved, not copied.
        scratch: root.parent(),
        superuser: &superuser,
        databases: None,
        threads: way::threads(),
    };
    let progress = opened.invocation.progress();
    let manifest = way.manifest().await?;
    let instance = stage.raise(&way.plan, &manifest, Action::Promote, &progress).await?;
    let timed = instance.timed;
    let recovered = instance.restored.stop().await?;
    let before =
        Embedded::replace_data(&folder, recovered, &opened.now().strftime("%Y%m%dT%H%M%SZ").to_string())
            .await?;
    let spec = EmbeddedSpec { dir: folder, settings: Vec::new() };
    Embedded::up(&spec, &installation, &progress).await?;
    let told = Told::new(format!("{} in place", way.plan.target), way.plan.backup.id.to_string())
        .figure("restore_seconds", timed.files.as_secs_f64())
        .figure("replay_seconds", timed.replay.as_secs_f64())
        .fact("target", &way.plan.target)
        .fact("before", before.display());
    opened.record("backup.restore", Outcome::Changed, told)?;
    opened
        .invocation
        .printer
        .note(text::backup::IN_PLACE_DONE.with("target", &way.plan.target).with("folder", before.display()));
    Ok(before)
}

fn show(opened: &Opened<'_>, way: &Way, notes: &[Message]) {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&way.plan);
        return;
    }
    for line in way.told().into_iter().chain(notes.iter().cloned()) {
        printer.line(line);
    }
}

/// The first of what the restore removes, by name.
fn show_removed(opened: &Opened<'_>, place: &Place) {
    for path in place.removed.iter().take(REMOVED_SHOWN) {
        opened.invocation.printer.data(&format!("  - {}", path.display()));
    }
    if place.removed.len() > REMOVED_SHOWN {
        opened.invocation.printer.data("  - …");
    }
}

/// How many of the files that a restore removes are named.
const REMOVED_SHOWN: usize = 20;

fn tell_written(opened: &Opened<'_>, way: &Way, data: &Path, written: &Written) {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&json!({ "plan": way.plan, "folder": data, "written": written }));
        return;
    }
    printer.line(
        text::backup::RESTORED
            .with("folder", data.display())
            .with("bytes", HumanBytes(written.bytes))
            .with("kept", HumanBytes(written.kept)),
    );
    printer.line(text::backup::RESTORED_NEXT.with("folder", data.display()));
}
