//! What a person should know about an import.

use obyra_evidence::{Finding, Severity, text};

use super::scope::Scope;

/// What is not written, and why.
pub(super) fn remarks(scope: &Scope<'_>, unnamed: Vec<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for role in scope.unspoken() {
        let finding = if role == crate::policy::PUBLIC {
            Finding::new(Severity::Warning, format!("role {role}"), text::access::IMPORT_NAME_RESERVED)
        } else {
            Finding::new(Severity::Note, format!("role {role}"), text::access::IMPORT_SUPERUSER)
        };
        findings.push(finding);
    }
    for object in unnamed {
        findings.push(Finding::new(Severity::Warning, object, text::access::IMPORT_UNNAMED));
    }
    let for_all = scope.observed.role_settings.iter().filter(|s| s.role == 0);
    for name in for_all.flat_map(|settings| settings.values.keys()) {
        let message = text::access::IMPORT_DATABASE_SETTING.with("setting", name);
        let subject = format!("database {}", scope.observed.database.name);
        findings.push(Finding::new(Severity::Note, subject, message));
    }
    findings
}
