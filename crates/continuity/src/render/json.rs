//! For machines: keys, ids and statuses in English, sentences in the asked language.

use obyra_evidence::Language;
use obyra_evidence::render::json::message;
use serde_json::{Value, json};

use super::Report;
use crate::{Line, Summary};

/// The checklist as a JSON document.
pub fn json(report: &Report<'_>, language: Language) -> Value {
    let summary = Summary::of(report.lines);
    json!({
        "environment": report.environment,
        "at": report.at,
        "exit": summary.exit() as i32,
        "summary": summary,
        "lines": report.lines.iter().map(|one| line(one, language)).collect::<Value>(),
    })
}

fn line(line: &Line, language: Language) -> Value {
    json!({
        "id": line.id,
        "section": line.section,
        "title": line.title.say(language),
        "status": line.status,
        "observed": line.observed,
        "evidence": line.evidence.iter().map(|one| message(one, language)).collect::<Value>(),
        "mend": line.mend.as_ref().map(|mend| message(mend, language)),
        "since": line.since,
    })
}
