//! What a round trip says: whether the schema after down and up is the one before.

use obyra_evidence::{Finding, Message, Place, Severity, text};

use super::catalogue::{Change, named, shown};
use super::places::Places;
use super::watch::{Leg, Trips};
use crate::driver::{Complaint, Phase};
use crate::explain::words;

/// The findings of one revision's round trip.
pub(super) fn findings(places: &Places<'_>, revision: &str, trips: &Trips) -> Vec<Finding> {
    let trip = Trip { places, revision, subject: format!("revision {revision}"), trips };
    let mut findings = Vec::new();
    findings.extend(trip.downgrade());
    findings.extend(trip.repeated());
    findings.extend(trip.guarded());
    findings
}

struct Trip<'a> {
    places: &'a Places<'a>,
    revision: &'a str,
    subject: String,
    trips: &'a Trips,
}

impl Trip<'_> {
    fn downgrade(&self) -> Option<Finding> {
        use text::gate as say;
        match self.trips.legs.get(&Phase::Reversed)? {
            Leg::Failed(complaint) => {
                let message =
                    say::DOWNGRADE_FAILED.with("revision", self.revision).with("why", why(complaint));
                Some(self.failed(message, complaint, "downgrade").mended_by(say::MEND_DOWNGRADE_FAILED))
            }
            Leg::Ran(changes) if changes.is_empty() => None,
            Leg::Ran(changes) => Some(self.differs(changes)),
        }
    }

    /// The downgrade ran, and the schema is not what it was.
    fn differs(&self, changes: &[Change]) -> Finding {
        use text::gate as say;
        let at = self.places.function(self.revision, "downgrade");
        let existed: Vec<Change> = changes.iter().filter(|change| change.now.is_none()).cloned().collect();
        if existed.iter().any(Change::loses_rows) {
            let message = say::DOWNGRADE_DROPS_EXISTING
                .with("revision", self.revision)
                .with("objects", named(&existed));
            let finding = self.places.finding(Severity::Error, &self.subject, message, at);
            return finding.mended_by(say::MEND_DOWNGRADE_DROPS_EXISTING);
        }
        if changes == self.trips.made {
            let message =
                say::DOWNGRADE_EMPTY.with("revision", self.revision).with("changes", shown(changes));
            let finding = self.places.finding(Severity::Error, &self.subject, message, at);
            return finding.mended_by(say::MEND_DOWNGRADE_EMPTY);
        }
        let message = say::DOWNGRADE_DIFFERS.with("revision", self.revision).with("changes", shown(changes));
        self.places
            .finding(Severity::Error, &self.subject, message, at)
            .mended_by(say::MEND_DOWNGRADE_DIFFERS)
    }

    /// A downgrade that leaves things behind has been reported; that the upgrade then fails follows from it.
    fn repeated(&self) -> Option<Finding> {
        use text::gate as say;
        match self.trips.legs.get(&Phase::Reversed) {
            Some(Leg::Ran(changes)) if changes.is_empty() => {}
            _ => return None,
        }
        match self.trips.legs.get(&Phase::Repeated)? {
            Leg::Failed(complaint) => {
                let message =
                    say::REPEATED_FAILED.with("revision", self.revision).with("why", why(complaint));
                Some(self.failed(message, complaint, "upgrade").mended_by(say::MEND_REPEATED))
            }
            Leg::Ran(changes) if changes.is_empty() => None,
            Leg::Ran(changes) => {
                let message =
                    say::REPEATED_DIFFERS.with("revision", self.revision).with("changes", shown(changes));
                let at = self.places.function(self.revision, "upgrade");
                Some(
                    self.places
                        .finding(Severity::Error, &self.subject, message, at)
                        .mended_by(say::MEND_REPEATED),
                )
            }
        }
    }

    /// An upgrade that does nothing where its table exists already, and a downgrade that drops it all the same.
    fn guarded(&self) -> Option<Finding> {
        use text::gate as say;
        let Some(Leg::Ran(again)) = self.trips.legs.get(&Phase::Again) else { return None };
        let Some(Leg::Ran(down)) = self.trips.legs.get(&Phase::Reversed) else { return None };
        let tables: Vec<Change> =
            self.trips.made.iter().filter(|change| change.before.is_none()).cloned().collect();
        let rows = tables.iter().any(|c| c.name.starts_with("table ") || c.name.starts_with("column "));
        if !again.is_empty() || !down.is_empty() || !rows {
            return None;
        }
        let message = say::GUARDED_UPGRADE.with("revision", self.revision).with("objects", named(&tables));
        let at = self.places.function(self.revision, "downgrade");
        let finding = self.places.finding(Severity::Warning, &self.subject, message, at);
        Some(finding.mended_by(say::MEND_GUARDED_UPGRADE))
    }

    fn failed(&self, message: Message, complaint: &Complaint, function: &str) -> Finding {
        let at: Option<Place> = complaint.place.as_ref().map(|line| self.places.line(line));
        let at = at.or_else(|| self.places.function(self.revision, function));
        self.places.finding(Severity::Error, &self.subject, message, at)
    }
}

/// What an exception says, in one line.
pub(super) fn why(complaint: &Complaint) -> String {
    words(&complaint.kind, &complaint.said)
}
