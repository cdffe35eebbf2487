//! Collects what is wrong while the file is understood, and remembers what was left out,
//! so that one mistake is not reported twice: once as wrong and once as absent.

use std::collections::BTreeSet;
use std::ops::Range;

use obyra_evidence::{Finding, Message, Severity, text};
use toml::de::DeTable;

use crate::meaning::Remark;
use crate::path::Path;
use crate::shape::Fault;
use crate::source::Source;
use crate::tree;

/// The findings so far.
pub(crate) struct Report<'s, 'i> {
    source: &'s Source,
    raw: &'s DeTable<'i>,
    pruned: BTreeSet<Path>,
    findings: Vec<Finding>,
}

impl<'s, 'i> Report<'s, 'i> {
    pub(crate) fn new(source: &'s Source, raw: &'s DeTable<'i>) -> Self {
        Report { source, raw, pruned: BTreeSet::new(), findings: Vec::new() }
    }

    /// Reports the faults of a table that stands at `path` in the file, and takes them out of
    /// it. False when the table itself lacks a key, so that nothing can be read from it.
    pub(crate) fn take(&mut self, faults: Vec<Fault>, path: &Path, table: &mut DeTable<'_>) -> bool {
        let mut whole = true;
        let mut out = BTreeSet::new();
        for fault in faults {
            let known = fault.missing.as_ref().is_some_and(|missing| self.was_pruned(path, missing));
            if !known {
                self.find(Severity::Error, &fault.span, fault.message, fault.mend);
            }
            if fault.prune == Path::top() {
                whole = false;
            } else {
                out.insert(fault.prune);
            }
        }
        // From the end, so that positions in arrays still hold.
        for prune in out.into_iter().rev() {
            tree::prune(table, &prune);
            self.pruned.insert(path.joined(&prune));
        }
        whole
    }

    /// Reports what a type refused although its shape is right.
    pub(crate) fn misfit(&mut self, error: &toml::de::Error, span: &Range<usize>) {
        let message = text::strategy::MISFIT.with("why", error.message().trim_end());
        self.find(Severity::Error, span, message, None);
        if let Some(path) = tree::path_at(self.raw, span) {
            self.pruned.insert(path);
        }
    }

    /// Reports what the checks of meaning remarked on an environment.
    pub(crate) fn remark(&mut self, remarks: Vec<Remark>, environment: &str, merged: &DeTable<'_>) {
        let own = Path::keys(["environments", environment]);
        let fallback = tree::span_of(self.raw, &own).unwrap_or_default();
        for remark in remarks {
            if remark.absence.as_ref().is_some_and(|absent| self.was_pruned(&own, absent)) {
                continue;
            }
            let path = tree::follow(merged, &remark.path);
            let span = tree::span_of(merged, &path).unwrap_or_else(|| fallback.clone());
            self.find(remark.severity, &span, remark.message, remark.mend);
        }
    }

    /// Reports that the file lacks something altogether.
    pub(crate) fn absent(&mut self, message: Message) {
        let finding = Finding::new(Severity::Error, self.source.file().display(), message);
        self.findings.push(finding.at(self.source.place(0)));
    }

    /// Whether nothing was found so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether something was left out here or further down.
    pub(crate) fn pruned_below(&self, path: &Path) -> bool {
        self.pruned.iter().any(|pruned| pruned.is_below(path) || path.is_below(pruned))
    }

    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// A value of an environment may have been left out of its own table or of the common part.
    fn was_pruned(&self, environment: &Path, path: &Path) -> bool {
        let common = *path != Path::top() && self.pruned_below(path);
        common || self.pruned_below(&environment.joined(path))
    }

    fn find(&mut self, severity: Severity, span: &Range<usize>, message: Message, mend: Option<Message>) {
        let subject = match tree::path_at(self.raw, span) {
            Some(path) => path.to_string(),
            None => self.source.file().display().to_string(),
        };
        let mut finding = Finding::new(severity, subject, message).at(self.source.place(span.start));
        finding.mend = mend;
        self.findings.push(finding);
    }
}
