//! `migrate scan`: what in an application's Python changes the schema behind Alembic's back. Needs neither
//! a strategy nor a database.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use obyra_evidence::render::{self, github, json, junit, sarif, terminal};
use obyra_evidence::{Exit, Failure, Finding, Language, text};
use obyra_migrations::scan::{self, Allowed, Report, tickets};
use serde_json::Value;

use crate::clock;
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

/// A line that the renderer takes for a secret, and therefore does not show.
const NOT_SHOWN: &str = "password = …";

/// The formats of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// JSON
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// JUnit XML, for CI
    Junit,
    /// Annotations of GitHub Actions
    Github,
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

fn print(printer: Printer, arguments: &Scan, report: &Report) {
    let language = printer.language;
    match if printer.json { Format::Json } else { arguments.format } {
        Format::Text => {
            // The line of a secret is not shown, whatever it looks like.
            let sources =
                |file: &Path| render::from_disk(file).map(|source| without_secrets(source, file, report));
            printer.data(&terminal::findings(&report.findings, language, printer.style(), &sources));
            for allowed in &report.allowed {
                printer.line(said(allowed));
            }
        }
        Format::Json => {
            let mut list = json::lint(&report.findings, language);
            list.extend(report.allowed.iter().flat_map(|allowed| allowed_json(allowed, language)));
            printer.json(&list);
        }
        Format::Sarif => {
            printer.json(&sarif::document(env!("CARGO_PKG_VERSION"), &report.findings, language))
        }
        Format::Junit => {
            let name = format!("obyra-db migrate scan {}", arguments.path.display());
            printer.data(&junit::findings(&name, clock::now(), &report.findings, language));
        }
        Format::Github => printer.data(&github::annotations(&report.findings, language)),
    }
}

/// A source without the lines that findings about secrets point at.
fn without_secrets(source: String, file: &Path, report: &Report) -> String {
    let secrets = report.findings.iter().filter(|finding| scan::is_about_a_secret(finding));
    let places = secrets.filter_map(|finding| finding.place.as_ref()).filter(|place| place.file == file);
    let hidden: BTreeSet<usize> = places.map(|place| place.line).collect();
    if hidden.is_empty() {
        return source;
    }
    let lines = source.lines().enumerate();
    lines
        .map(|(at, line)| if hidden.contains(&(at + 1)) { NOT_SHOWN } else { line }.to_owned() + "\n")
        .collect()
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
