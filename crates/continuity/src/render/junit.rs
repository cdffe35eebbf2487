//! For CI servers: a failed line is a failure, an unknown one an error, a waived one skipped.

use obyra_evidence::Language;
use obyra_evidence::render::junit::{Case, Suite, Verdict, document};

use super::{Report, evidence};
use crate::{Line, Status};

/// The checklist as a JUnit document.
pub fn junit(report: &Report<'_>, language: Language) -> String {
    document(&Suite {
        name: format!("obyra-db check {}", report.environment),
        at: report.at,
        cases: report.lines.iter().map(|line| case(line, report.environment, language)).collect(),
    })
}

fn case(line: &Line, environment: &str, language: Language) -> Case {
    let sentences = evidence(line, language);
    let message = sentences.join("; ");
    let mend = line.mend.as_ref().map(|mend| format!("-> {}", mend.say(language)));
    Case {
        class: format!("{environment}.section-{}", line.section),
        name: format!("{}: {}", line.id.id(), line.title.say(language)),
        verdict: match line.status {
            Status::Passed => Verdict::Passed,
            Status::Failed => Verdict::Failed { kind: line.id.id().to_owned(), message },
            Status::Unknown => Verdict::Unknown { message },
            Status::Waived => Verdict::Waived { message },
        },
        details: sentences.into_iter().chain(mend).collect::<Vec<_>>().join("\n"),
    }
}
