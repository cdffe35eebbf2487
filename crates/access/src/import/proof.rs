//! The proof that an imported section changes nothing: its plan, made at once.

use obyra_evidence::{Finding, Severity, text};

use crate::observe::Observed;
use crate::plan::plan;
use crate::policy::{Mode, Policy};
use crate::target::Target;

/// Sets the strictest mode, from the wanted one on, in which the next plan is empty. Findings name
/// what an authoritative plan would change, and what would change in any mode.
pub(super) fn settle_mode(policy: &mut Policy, target: &Target, observed: &Observed) -> Vec<Finding> {
    let wanted = policy.mode;
    let first = plan(policy, target, observed);
    if first.is_empty() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = first
        .steps
        .iter()
        .map(|step| {
            let message = text::access::IMPORT_NOT_EMPTY.with("reason", &step.reason);
            Finding::new(Severity::Warning, &step.subject, message)
        })
        .collect();
    if wanted == Mode::Authoritative {
        policy.mode = Mode::Adopt;
        if plan(policy, target, observed).is_empty() {
            let message = text::access::IMPORT_MODE.message();
            findings.push(Finding::new(
                Severity::Warning,
                format!("database {}", observed.database.name),
                message,
            ));
        } else {
            policy.mode = wanted;
        }
    }
    findings
}
