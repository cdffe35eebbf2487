//! For code scanning: SARIF 2.1.0, which GitHub, GitLab and editors read. No line of a file is quoted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Code, Finding, Language, Severity};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// A log with one run.
pub fn document(version: &str, findings: &[Finding], language: Language) -> Value {
    let rules = rules(findings);
    let index: BTreeMap<&str, usize> = rules.iter().enumerate().map(|(at, code)| (code.id(), at)).collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &index, language)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "obyra-db",
                "semanticVersion": version,
                "rules": rules.iter().map(|code| rule(*code, findings, language)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rules(findings: &[Finding]) -> Vec<Code> {
    let mut rules: Vec<Code> = findings.iter().map(|finding| finding.message.code()).collect();
    rules.sort();
    rules.dedup();
    rules
}

fn rule(code: Code, findings: &[Finding], language: Language) -> Value {
    let mend = findings.iter().filter(|finding| finding.message.code() == code).find_map(|f| f.mend.as_ref());
    let mut rule = json!({ "id": code.id(), "name": name(code.id()) });
    if let Some(mend) = mend {
        rule["help"] = json!({ "text": mend.say(language) });
    }
    rule
}

fn result(finding: &Finding, index: &BTreeMap<&str, usize>, language: Language) -> Value {
    let id = finding.message.code().id();
    let mut message = finding.message.say(language);
    if let Some(mend) = &finding.mend {
        message += &format!("\n{}", mend.say(language));
    }
    let mut result = json!({
        "ruleId": id,
        "ruleIndex": index.get(id),
        "level": level(finding.severity),
        "message": { "text": message },
    });
    if let Some(place) = &finding.place {
        result["locations"] = json!([{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&place.file.to_string_lossy()) },
            "region": { "startLine": place.line.max(1), "startColumn": place.column.max(1) },
        }}]);
    }
    result
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// `scan.create-all` as `ScanCreateAll`, which is how SARIF wants a rule's readable name.
fn name(id: &str) -> String {
    let words = id.split(['.', '-']);
    words
        .flat_map(|word| {
            word.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c })
        })
        .collect()
}

/// A path as a relative reference; an absolute path as a `file:` URI.
fn uri(path: &str) -> String {
    let mut out = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    let path = path.strip_prefix("./").unwrap_or(path);
    for byte in path.bytes() {
        match byte {
            b'\\' => out.push('/'),
            byte if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) => out.push(char::from(byte)),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{Place, text};

    #[test]
    fn each_rule_once_and_each_result_with_its_place() {
        let place = |file: &str| Place { file: PathBuf::from(file), line: 3, column: 5 };
        let findings = [
            Finding::new(Severity::Error, "a", text::scan::PYTHON_2)
                .at(place("./app/mi base.py"))
                .mended_by(text::scan::MEND_PYTHON_2),
            Finding::new(Severity::Note, "b", text::scan::PYTHON_2).at(place("/x/ñ.py")),
            Finding::new(Severity::Warning, "c", text::scan::NOT_UTF8),
        ];
        let document = document("0.1.0", &findings, Language::En);
        let run = &document["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(2));
        assert_eq!(run["tool"]["driver"]["rules"][1]["name"], "ScanPython2");
        let results = run["results"].as_array().cloned().unwrap_or_default();
        assert_eq!(results.len(), 3);
        assert_eq!(results[0]["ruleIndex"], 1);
        assert_eq!(results[0]["level"], "error");
        let location = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "app/mi%20base.py");
        assert_eq!(location["region"], json!({ "startLine": 3, "startColumn": 5 }));
        let second = &results[1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert_eq!(second, "file:///x/%C3%B1.py");
        assert!(results[2].get("locations").is_none());
    }

    #[test]
    fn nothing_found_is_a_run_without_results() {
        let document = document("0.1.0", &[], Language::Es);
        assert_eq!(document["runs"][0]["results"], json!([]));
        assert_eq!(document["version"], "2.1.0");
    }
}
