//! `migrate scan`: what in an application's Python changes the schema behind Alembic's back. Needs neither
//! a strategy nor a database.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use obyra_evidence::render::{json, terminal};
use obyra_evidence::{Exit, Failure, Finding, Language, text};
use obyra_migrations::scan::{self, Allowed, Report, tickets};
use serde_json::Value;

use crate::commands::findings::{self, Format};
use crate::invocation::Invocation;
use crate::printer::Printer;

/// Arguments of `migrate scan`.
#[derive(Args, Debug)]
pub struct Scan {
    /// The folder, or one file
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The format
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Write a Markdown file for each rule and file into this folder, ready for an issue tracker
    #[arg(long, value_name = "DIR")]
    pub tickets: Option<PathBuf>,
}

/// Runs the verb.
pub fn scan(invocation: &Invocation, arguments: &Scan) -> Result<Exit, Failure> {
    let printer = invocation.printer;
    let started = Instant::now();
    let report = scan::scan(&arguments.path)?;
    let seconds = started.elapsed().as_secs_f64();
    print(printer, arguments, &report);
    if let Some(folder) = &arguments.tickets {
        write_tickets(printer, folder, &report.findings)?;
    }
    printer.note(
        text::scan::REPORT_FILES
            .with("files", report.files)
            .with("kilobytes", report.bytes / 1000)
            .with("seconds", format!("{seconds:.2}")),
    );
    Ok(if report.has_errors() { Exit::Findings } else { Exit::Done })
}

/// What was allowed is listed too, for people and for machines.
fn print(printer: Printer, arguments: &Scan, report: &Report) {
    if printer.json || arguments.format == Format::Json {
        let language = printer.language;
        let mut list = json::lint(&report.findings, language);
        list.extend(report.allowed.iter().flat_map(|allowed| allowed_json(allowed, language)));
        printer.json(&list);
        return;
    }
    let name = format!("obyra-db migrate scan {}", arguments.path.display());
    findings::print(printer, &name, arguments.format, &report.findings);
    if arguments.format == Format::Text {
        for allowed in &report.allowed {
            printer.line(said(allowed));
        }
    }
}

fn allowed_json(allowed: &Allowed, language: Language) -> Vec<Value> {
    let mut objects = json::lint(std::slice::from_ref(&allowed.finding), language);
    for object in &mut objects {
        object["severity"] = "allowed".into();
        object["reason"] = allowed.reason.clone().into();
    }
    objects
}

fn said(allowed: &Allowed) -> obyra_evidence::Message {
    let place = allowed.finding.place.as_ref().map(ToString::to_string).unwrap_or_default();
    text::scan::REPORT_ALLOWED
        .with("rule", allowed.finding.message.code().id())
        .with("place", place)
        .with("reason", terminal::printable(&allowed.reason))
}

fn write_tickets(printer: Printer, folder: &Path, findings: &[Finding]) -> Result<(), Failure> {
    let tickets = tickets::tickets(findings, printer.language);
    tickets::write(folder, &tickets)?;
    printer.note(text::scan::TICKETS_WRITTEN.with("count", tickets.len()).with("folder", folder.display()));
    Ok(())
}
