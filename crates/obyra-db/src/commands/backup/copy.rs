//! `backup copy`: the second repository, on another disk or at another provider.

use obyra_backup::copy::{self, Copied};
use obyra_backup::repository::claims::{Note, Process};
use obyra_evidence::{Exit, Failure, HumanBytes, Outcome, text};

use super::run::host;
use crate::environment::{Opened, Told};
use crate::repository;

/// Copies what is new, records, tells. Ends with 2 where something could not be copied.
pub async fn copy(opened: &Opened<'_>) -> Result<Exit, Failure> {
    let store = repository::copy_store(opened)?;
    let repository = repository::required(opened).await?;
    opened.can_record()?;
    let note = Note {
        environment: opened.name().to_owned(),
        host: host(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        started: opened.now(),
        uses: Vec::new(),
        everything: true,
        ended: false,
        process: Process::this(),
    };
    let outcome = copy::run(&repository, &store, note, &opened.invocation.progress()).await;
    let expected = "the second repository holds all that the first does";
    let copied = opened.recorded("backup.copy", expected, outcome, |copied| {
        let ended = if copied.is_whole() { Outcome::Changed } else { Outcome::Failed };
        (ended, told(copied, expected))
    })?;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&copied);
    } else {
        printer.line(
            text::backup::COPIED
                .with("store", store.url())
                .with("count", copied.backups.len())
                .with("objects", copied.objects)
                .with("size", HumanBytes(copied.bytes)),
        );
        for way in &copied.ways_removed {
            printer.line(text::backup::WAY_REMOVED.with("way", way));
        }
        for object in &copied.damaged {
            printer.line(text::backup::COPY_DAMAGED.with("object", object));
        }
        for backup in &copied.left_out {
            printer.line(text::backup::COPY_LEFT_OUT.with("backup", backup));
        }
    }
    Ok(if copied.is_whole() { Exit::Done } else { Exit::Findings })
}

fn told(copied: &Copied, expected: &str) -> Told {
    let observed = format!("{} new backups, {} damaged objects", copied.backups.len(), copied.damaged.len());
    Told::new(expected, observed)
        .figure("objects", copied.objects as f64)
        .figure("bytes", copied.bytes as f64)
        .figure("damaged", copied.damaged.len() as f64)
}
