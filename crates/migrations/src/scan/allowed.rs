//! Findings that a comment allows, and comments that allow nothing.

use std::collections::BTreeMap;
use std::path::Path;

use obyra_evidence::{Finding, Place, Severity, text};

use super::facts::{Allow, Module};

/// Findings that a comment may allow; those about the file itself, or about comments, are none.
pub(super) const RULES: [&str; 11] = [
    "create-all",
    "drop-all",
    "table-create",
    "table-drop",
    "ddl-executed",
    "ddl-in-do",
    "ddl-construct",
    "ddl-swallowed",
    "connection-string",
    "password-in-code",
    "default-credentials",
];

/// A finding that its line allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The finding.
    pub finding: Finding,
    /// Why it is allowed, in the words of whoever wrote the comment.
    pub reason: String,
}

/// Takes out of the findings what comments allow; adds a finding for each comment that is no good.
pub(super) fn apply(modules: &[Module], findings: &mut Vec<Finding>) -> Vec<Allowed> {
    let by_file: BTreeMap<&Path, &Module> =
        modules.iter().filter(|m| !m.allows.is_empty()).map(|m| (m.source.file.as_path(), m)).collect();
    let mut used: Vec<(*const Allow, &'static str)> = Vec::new();
    let mut allowed = Vec::new();
    findings.retain(|finding| {
        let Some((allow, rule)) = allowing(&by_file, finding) else { return true };
        used.push((std::ptr::from_ref(allow), rule));
        if allow.reason.is_empty() {
            return true;
        }
        allowed.push(Allowed { finding: finding.clone(), reason: allow.reason.clone() });
        false
    });
    for module in by_file.values() {
        for allow in &module.allows {
            findings.extend(complaints(module, allow, &used));
        }
    }
    allowed
}

fn allowing<'m>(
    by_file: &BTreeMap<&Path, &'m Module>,
    finding: &Finding,
) -> Option<(&'m Allow, &'static str)> {
    let place = finding.place.as_ref()?;
    let rule = short(finding);
    let rule = *RULES.iter().find(|known| **known == rule)?;
    let module = by_file.get(place.file.as_path())?;
    let allow = module.allows.iter().find(|allow| {
        let covers = if allow.alone { allow.line + 1 == place.line } else { allow.line == place.line };
        covers && allow.rules.iter().any(|allowed| allowed == rule)
    })?;
    Some((allow, rule))
}

fn complaints(module: &Module, allow: &Allow, used: &[(*const Allow, &'static str)]) -> Vec<Finding> {
    let place: Place = module.source.place(allow.at);
    let finding = |message| {
        Finding::new(Severity::Warning, module.source.file.display(), message)
            .at(place.clone())
            .mended_by(text::scan::MEND_ALLOW)
    };
    let mut complaints = Vec::new();
    if allow.reason.is_empty() {
        complaints.push(finding(text::scan::ALLOW_WITHOUT_REASON.message()));
    }
    for rule in &allow.rules {
        if !RULES.contains(&rule.as_str()) {
            complaints.push(finding(text::scan::ALLOW_UNKNOWN_RULE.with("rule", rule)));
        } else if !used.iter().any(|(by, used)| std::ptr::eq(*by, allow) && used == rule) {
            complaints.push(finding(text::scan::ALLOW_NEEDLESS.with("rule", rule)));
        }
    }
    complaints
}

/// The rule without its room: `create-all`.
pub(super) fn short(finding: &Finding) -> &'static str {
    finding.message.code().id().trim_start_matches("scan.")
}
