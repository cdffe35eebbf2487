//! Steps as they are collected, and what the mode makes of those that take access away.

use obyra_evidence::{Finding, Message, Severity, text};

use super::{Phase, Risk, Step};
use crate::policy::Mode;

impl Step {
    pub(crate) fn new(phase: Phase, reason: Message, subject: impl Into<String>) -> Step {
        Step {
            phase,
            reason,
            subject: subject.into(),
            sql: Vec::new(),
            risk: Risk::None,
            acts_for: Vec::new(),
            batch: 0,
            locks: 1,
        }
    }

    pub(crate) fn sql(mut self, statement: impl Into<String>) -> Step {
        self.sql.push(statement.into());
        self
    }

    pub(crate) fn risk(mut self, risk: Risk) -> Step {
        self.risk = risk;
        self
    }

    pub(crate) fn acting_for(mut self, role: impl Into<String>) -> Step {
        self.acts_for.push(role.into());
        self
    }

    pub(crate) fn locking(mut self, locks: u64) -> Step {
        self.locks = locks;
        self
    }
}

/// Collects steps and findings.
#[derive(Default)]
pub(crate) struct Drafts {
    mode: Mode,
    pub(crate) steps: Vec<Step>,
    pub(crate) findings: Vec<Finding>,
}

impl Drafts {
    pub(crate) fn new(mode: Mode) -> Drafts {
        Drafts { mode, ..Drafts::default() }
    }

    /// A step towards what is declared: taken in every mode.
    pub(crate) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// A step away from what is not declared: taken, reported or left out, as the mode says.
    pub(crate) fn remove(&mut self, step: Step) {
        match self.mode {
            Mode::Authoritative => self.steps.push(step),
            Mode::Adopt => {
                let mend = text::access::MEND_UNDECLARED.with("sql", step.sql.join("; "));
                self.find(Finding::new(Severity::Warning, step.subject, step.reason).mended_by(mend));
            }
            Mode::Additive => {}
        }
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}
