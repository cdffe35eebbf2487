//! For CI servers: JUnit XML, valid against the schema of Apache Ant's JUnit tasks, which Jenkins,
//! GitLab and GitHub's actions read.

use jiff::Timestamp;

use crate::{Finding, Language, Severity};

/// A suite of cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name, for example `obyra-db check production`.
    pub name: String,
    /// When it was observed.
    pub at: Timestamp,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// One case of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What groups it, for example `production.section-7`.
    pub class: String,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What there is to read about it; may be empty.
    pub details: String,
}

/// How a case ended, with the sentence that a CI server shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In order.
    Passed,
    /// Not in order: a `failure`. The type is a stable code.
    Failed {
        /// What kind.
        kind: String,
        /// In one sentence.
        message: String,
    },
    /// Could not be observed: an `error`, since unknown is never green.
    Unknown {
        /// In one sentence.
        message: String,
    },
    /// Waived: `skipped`.
    Waived {
        /// In one sentence.
        message: String,
    },
}

/// A document with one suite.
pub fn document(suite: &Suite) -> String {
    let count = |wanted: fn(&Verdict) -> bool| suite.cases.iter().filter(|c| wanted(&c.verdict)).count();
    let failures = count(|verdict| matches!(verdict, Verdict::Failed { .. }));
    let errors = count(|verdict| matches!(verdict, Verdict::Unknown { .. }));
    let skipped = count(|verdict| matches!(verdict, Verdict::Waived { .. }));
    let cases: String = suite.cases.iter().map(case).collect();
    // The schema of Ant's JUnit knows no output of a single case: it stands together at the end.
    let passed = suite.cases.iter().filter(|c| c.verdict == Verdict::Passed && !c.details.is_empty());
    let output: String = passed.map(|c| format!("{}\n{}\n", c.name, c.details)).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"{}\" id=\"0\" package=\"obyra-db\" hostname=\"localhost\" timestamp=\"{}\" time=\"0\" \
         tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">\n    \
         <properties/>\n{cases}    <system-out>{}</system-out>\n    <system-err/>\n  \
         </testsuite>\n</testsuites>\n",
        escape(&suite.name),
        suite.at.strftime("%Y-%m-%dT%H:%M:%S"),
        suite.cases.len(),
        escape(&output),
    )
}

/// Findings as a suite: errors and warnings are failures, notes are passed cases.
pub fn findings(name: &str, at: Timestamp, findings: &[Finding], language: Language) -> String {
    let cases = findings.iter().map(|finding| {
        let message = finding.message.say(language);
        let kind = finding.message.code().id().to_owned();
        let mend = finding.mend.as_ref().map(|mend| format!("\n-> {}", mend.say(language)));
        let place = finding.place.as_ref().map(|place| format!("{place}: "));
        Case {
            class: kind.clone(),
            name: finding.subject.clone(),
            details: format!("{}{message}{}", place.unwrap_or_default(), mend.unwrap_or_default()),
            verdict: match finding.severity {
                Severity::Note => Verdict::Passed,
                Severity::Warning | Severity::Error => Verdict::Failed { kind, message },
            },
        }
    });
    document(&Suite { name: name.to_owned(), at, cases: cases.collect() })
}

fn case(case: &Case) -> String {
    let details = escape(&case.details);
    let inner = match &case.verdict {
        Verdict::Passed => String::new(),
        Verdict::Failed { kind, message } => element("failure", kind, message, &details),
        Verdict::Unknown { message } => element("error", "unknown", message, &details),
        Verdict::Waived { message } => format!("<skipped message=\"{}\"/>", escape(message)),
    };
    let (class, name) = (escape(&case.class), escape(&case.name));
    format!("    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\">{inner}</testcase>\n")
}

fn element(tag: &str, kind: &str, message: &str, details: &str) -> String {
    format!("<{tag} type=\"{}\" message=\"{}\">{details}</{tag}>", escape(kind), escape(message))
}

/// Text for an element or an attribute; characters that XML 1.0 forbids are replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
