//! What a person should know about an import.

use obyra_evidence::{Finding, Severity, text};

use super::scope::Scope;
use crate::observe::Oid;
use crate::plan::looks_secret;
use crate::target::is_protected;

/// What is not written, and why.
pub(super) fn remarks(scope: &Scope<'_>, unnamed: Vec<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for role in scope.unspoken() {
        let (severity, code) = if role == crate::policy::PUBLIC {
            (Severity::Warning, text::access::IMPORT_NAME_RESERVED)
        } else if is_protected(role) {
            (Severity::Note, text::access::IMPORT_PROVIDER)
        } else {
            (Severity::Note, text::access::IMPORT_SUPERUSER)
        };
        findings.push(Finding::new(severity, format!("role {role}"), code.with("role", role)));
    }
    for object in unnamed {
        let message = text::access::IMPORT_UNNAMED.with("object", &object);
        findings.push(Finding::new(Severity::Warning, object, message));
    }
    for settings in &scope.observed.role_settings {
        for setting in settings.values.keys() {
            findings.extend(setting_left_out(scope, settings.role, setting));
        }
    }
    findings
}

/// A setting that no role's line can say, or should.
fn setting_left_out(scope: &Scope<'_>, role: Oid, setting: &str) -> Option<Finding> {
    if role == 0 {
        let message = text::access::IMPORT_DATABASE_SETTING.with("setting", setting);
        let subject = format!("database {}", scope.observed.database.name);
        return Some(Finding::new(Severity::Note, subject, message));
    }
    let name = scope.role(role).filter(|_| looks_secret(setting))?;
    let message = text::access::IMPORT_SECRET_SETTING.with("setting", setting).with("role", name);
    Some(Finding::new(Severity::Warning, format!("role {name}"), message))
}
