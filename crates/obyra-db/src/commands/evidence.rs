//! `evidence list|verify|export`: what was done and observed, and that nobody changed it since.

use obyra_evidence::{Entry, Exit, Failure, Filter, Ledger, render, text};
use obyra_strategy::Strategy;

use crate::cli::Evidence;
use crate::environment::ledger_file;
use crate::invocation::Invocation;

/// Runs the verb.
pub fn evidence(invocation: &mut Invocation, verb: &Evidence) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let ledger = existing(&strategy)?;
    match verb {
        Evidence::List { environment, subject, last } => {
            let filter = Filter {
                environment: environment.clone(),
                subject_prefix: subject.clone(),
                ..Filter::default()
            };
            let mut entries = ledger.records(&filter)?;
            if subject.is_none() {
                // Each check writes a record for each line; who wants them asks for them.
                entries.retain(|entry| !entry.record.subject.starts_with("check."));
            }
            let first = entries.len().saturating_sub(*last);
            list(invocation, &entries[first..]);
        }
        Evidence::Verify { head } => verify(invocation, &ledger, head.as_deref())?,
        Evidence::Export => {
            ledger.export(&mut invocation.printer.stream())?;
        }
    }
    Ok(Exit::Done)
}

fn existing(strategy: &Strategy) -> Result<Ledger, Failure> {
    let file = ledger_file(strategy);
    if !file.exists() {
        return Err(Failure::new(text::cli::NO_EVIDENCE.with("file", file.display()))
            .mended_by(text::cli::RUN.with("command", "obyra-db check ENV")));
    }
    Ledger::open_existing_readonly(&file)
}

fn list(invocation: &Invocation, entries: &[Entry]) {
    if invocation.printer.json {
        invocation.printer.json(&entries);
        return;
    }
    invocation.printer.data(&render::terminal::records(
        entries,
        invocation.printer.language,
        invocation.printer.style(),
    ));
}

fn verify(invocation: &Invocation, ledger: &Ledger, head: Option<&str>) -> Result<(), Failure> {
    let verified = match head {
        Some(head) => ledger.verify_against(head)?,
        None => ledger.verify()?,
    };
    if invocation.printer.json {
        invocation.printer.json(&verified);
    } else {
        invocation.printer.line(
            text::cli::EVIDENCE_INTACT.with("records", verified.records).with("head", &verified.head_hash),
        );
    }
    Ok(())
}
