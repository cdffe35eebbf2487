//! Everything that is wrong with a strategy file, said at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use obyra_evidence::{Failure, Finding, Language, Severity, text};

/// Why a strategy file cannot be used: every finding, in the order of the file.
#[derive(Clone, Debug)]
pub struct Problems {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The language the file asks for, if that much could be read.
    pub language: Language,
    /// What was found, warnings included. At least one is an error.
    pub findings: Vec<Finding>,
}

impl Problems {
    /// One failure with exit code 64, whose `why` lists all findings in a language.
    pub fn failure(&self, language: Language) -> Failure {
        let count = self.errors();
        let what = text::strategy::PROBLEMS.with("count", count).with("file", self.file.display());
        let mut failure = Failure::usage(what).because(listed(&self.findings, language));
        failure.at = self.findings.iter().find_map(|finding| finding.place.clone());
        failure
    }

    /// How many findings are errors.
    pub fn errors(&self) -> usize {
        errors(&self.findings)
    }
}

impl From<Problems> for Failure {
    /// The failure in the language that the file asks for.
    fn from(problems: Problems) -> Failure {
        problems.failure(problems.language)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&self.findings, Language::En))
    }
}

impl std::error::Error for Problems {}

/// How many of these findings are errors.
pub(crate) fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.severity == Severity::Error).count()
}

/// The findings in the order of the file, each once: a value that several environments
/// inherit is wrong once, not once for each of them.
pub(crate) fn in_order(findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Finding> = findings
        .into_iter()
        .filter(|finding| seen.insert((finding.place.clone(), finding.message.clone())))
        .collect();
    kept.sort_by(|a, b| a.place.cmp(&b.place).then(b.severity.cmp(&a.severity)).then_with(|| a.cmp(b)));
    kept
}

fn whole_file(finding: &Finding) -> bool {
    let named =
        finding.place.as_ref().is_some_and(|place| place.file.as_os_str() == finding.subject.as_str());
    named || finding.message.fields().get("file") == Some(&finding.subject)
}

/// One line for each finding: place, subject, what, and what mends it.
fn listed(findings: &[Finding], language: Language) -> String {
    let line = |finding: &Finding| {
        let place = finding.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        // What is wrong with the file as a whole names the file itself.
        let subject = if whole_file(finding) { String::new() } else { format!("{}: ", finding.subject) };
        let mend = finding.mend.as_ref().map(|mend| format!("; {}", mend.say(language))).unwrap_or_default();
        format!("{place}{subject}{}{mend}", finding.message.say(language))
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}
