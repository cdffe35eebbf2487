//! Findings about files, in each of the formats that people and CI servers read.

use std::collections::BTreeSet;
use std::path::Path;

use clap::ValueEnum;
use obyra_evidence::Finding;
use obyra_evidence::render::{self, github, json, junit, sarif, terminal};
use obyra_migrations::scan::is_about_a_secret;

use crate::clock;
use crate::printer::Printer;

/// A line that the renderer takes for a secret, and therefore does not show.
const NOT_SHOWN: &str = "password = …";

/// The formats of findings.
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

/// Prints findings. `name` is the suite's, for JUnit.
pub fn print(printer: Printer, name: &str, format: Format, findings: &[Finding]) {
    let language = printer.language;
    match if printer.json { Format::Json } else { format } {
        Format::Text => {
            // The line of a secret is not shown, whatever it looks like.
            let sources =
                |file: &Path| render::from_disk(file).map(|source| without_secrets(source, file, findings));
            printer.data(&terminal::findings(findings, language, printer.style(), &sources));
        }
        Format::Json => printer.json(&json::lint(findings, language)),
        Format::Sarif => printer.json(&sarif::document(env!("CARGO_PKG_VERSION"), findings, language)),
        Format::Junit => printer.data(&junit::findings(name, clock::now(), findings, language)),
        Format::Github => printer.data(&github::annotations(findings, language)),
    }
}

/// A source without the lines that findings about secrets point at.
fn without_secrets(source: String, file: &Path, findings: &[Finding]) -> String {
    let secrets = findings.iter().filter(|finding| is_about_a_secret(finding));
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
