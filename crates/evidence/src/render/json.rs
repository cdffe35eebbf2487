//! For machines: keys and codes in English; `text` in the asked language. Parts are values, so that
//! a verb composes its own document from them and prints it with [`pretty`].

use serde_json::{Value, json};

use crate::{Failure, Finding, Language, Message};

/// A document, ending with a newline.
pub fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// A message: its code, its sentence, its fields.
pub fn message(message: &Message, language: Language) -> Value {
    json!({ "code": message.code().id(), "text": message.say(language), "fields": message.fields() })
}

/// A failure.
pub fn failure(failure: &Failure, language: Language) -> Value {
    json!({
        "exit": failure.exit as i32,
        "what": message(&failure.what, language),
        "place": failure.at,
        "why": failure.why,
        "mend": failure.mend.as_ref().map(|mend| message(mend, language)),
    })
}

/// One finding.
pub fn finding(finding: &Finding, language: Language) -> Value {
    json!({
        "severity": finding.severity,
        "subject": finding.subject,
        "message": message(&finding.message, language),
        "place": finding.place,
        "mend": finding.mend.as_ref().map(|mend| message(mend, language)),
    })
}

/// Findings, in the order given.
pub fn findings(findings: &[Finding], language: Language) -> Value {
    findings.iter().map(|one| finding(one, language)).collect()
}

/// Findings about files, flat: what linters and their readers agree on.
pub fn lint(findings: &[Finding], language: Language) -> Vec<Value> {
    let one = |finding: &Finding| {
        let place = finding.place.as_ref();
        json!({
            "rule": finding.message.code().id(),
            "severity": finding.severity,
            "file": place.map(|place| &place.file),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "subject": finding.subject,
            "message": finding.message.say(language),
            "mend": finding.mend.as_ref().map(|mend| mend.say(language)),
        })
    };
    findings.iter().map(one).collect()
}
