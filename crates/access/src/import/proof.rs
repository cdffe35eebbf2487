//! The proof that an imported section changes nothing: its plan, made at once.

use obyra_evidence::{Finding, Severity, text};

use crate::observe::Observed;
use crate::plan::{Step, plan};
use crate::policy::{Mode, Policy};
use crate::target::Target;

/// What the plan of an imported section says.
pub(super) struct Proof {
    /// Whether it changes nothing.
    pub empty: bool,
    /// What an authoritative plan would change, and what became of the mode.
    pub findings: Vec<Finding>,
}

/// Keeps the wanted mode where the next plan is then empty; in place of `authoritative`, `adopt` may
/// make it so. What an authoritative plan would change is found in every mode.
pub(super) fn settle_mode(policy: &mut Policy, target: &Target, observed: &Observed) -> Proof {
    let wanted = std::mem::replace(&mut policy.mode, Mode::Authoritative);
    let strictest = plan(policy, target, observed);
    let change = |step: &Step| {
        let reason =
            text::access::IMPORT_NOT_EMPTY.with("subject", &step.subject).with("reason", &step.reason);
        Finding::new(Severity::Warning, &step.subject, reason)
    };
    let mut findings: Vec<Finding> = strictest.steps.iter().map(change).collect();
    let milder = if wanted == Mode::Authoritative { Mode::Adopt } else { wanted };
    policy.mode = if strictest.is_empty() { wanted } else { milder };
    let empty = strictest.is_empty() || plan(policy, target, observed).is_empty();
    if !empty {
        policy.mode = wanted;
    } else if policy.mode != wanted {
        let subject = format!("database {}", observed.database.name);
        findings.push(Finding::new(Severity::Warning, subject, text::access::IMPORT_MODE));
    }
    Proof { empty, findings }
}
