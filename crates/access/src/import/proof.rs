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

/// Sets the strictest mode, from the wanted one on, in which the next plan is empty.
pub(super) fn settle_mode(policy: &mut Policy, target: &Target, observed: &Observed) -> Proof {
    let wanted = policy.mode;
    let first = plan(policy, target, observed);
    let change = |step: &Step| {
        let reason =
            text::access::IMPORT_NOT_EMPTY.with("subject", &step.subject).with("reason", &step.reason);
        Finding::new(Severity::Warning, &step.subject, reason)
    };
    let mut proof = Proof { empty: first.is_empty(), findings: first.steps.iter().map(change).collect() };
    if !proof.empty && wanted == Mode::Authoritative {
        policy.mode = Mode::Adopt;
        proof.empty = plan(policy, target, observed).is_empty();
        if proof.empty {
            let subject = format!("database {}", observed.database.name);
            proof.findings.push(Finding::new(Severity::Warning, subject, text::access::IMPORT_MODE));
        } else {
            policy.mode = wanted;
        }
    }
    proof
}
