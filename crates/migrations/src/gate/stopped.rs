//! Why a replay did not reach its end, as a finding about the line that stopped it. Pure but for that line's file.

use obyra_evidence::{Code, Failure, Finding, Message, Place, Severity, text};
use obyra_postgres::Result;

use super::places::Places;
use super::trips;
use super::watch::Seen;
use crate::driver::{Complaint, Stage, UpgradeError};

/// Whatever comes after an error in a transaction is refused with this code.
const ABORTED: &str = "25P02";

/// The last statement that the server refused for a reason of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The code and the words.
    pub why: String,
    /// The line that sent it.
    pub place: Option<Place>,
}

/// A replay that stopped.
pub(super) struct Stop<'a> {
    pub places: &'a Places<'a>,
    pub seen: &'a Seen,
    /// How long nothing may be heard.
    pub patience_seconds: u64,
    pub refused: Option<Refused>,
}

impl Stop<'_> {
    /// The finding. `code` is the sentence about a revision that failed. What is no fault of the migrations is a failure.
    pub fn finding(self, error: UpgradeError, code: Code) -> Result<Finding> {
        use text::gate as say;
        let running = self.seen.running.as_deref();
        let subject = running.map_or_else(|| "application".to_owned(), |id| format!("revision {id}"));
        let at = running.and_then(|id| self.places.function(id, "upgrade"));
        let shown = running.unwrap_or("–");
        Ok(match error {
            UpgradeError::TimedOut => {
                let told = say::TIMED_OUT.with("revision", shown).with("seconds", self.patience_seconds);
                self.places.finding(Severity::Error, &subject, told, at).mended_by(say::MEND_TIMED_OUT)
            }
            UpgradeError::Failure(failure) if failure.what.code() == text::migrations::DRIVER_SILENT => {
                let told = say::DIED.with("revision", shown).with("why", &failure);
                self.places.finding(Severity::Error, &subject, told, at).mended_by(say::MEND_DIED)
            }
            UpgradeError::Failure(failure) => return Err(failure),
            UpgradeError::Complaint(complaint) => self.complained(&complaint, code),
        })
    }

    fn complained(self, complaint: &Complaint, code: Code) -> Finding {
        use text::gate as say;
        let mut why = trips::why(complaint);
        let mut at = complaint.place.as_ref().map(|line| self.places.line(line));
        // autocommit_block() asserts that there is a transaction of Alembic's own.
        if let Some(transaction) = complaint.transaction.as_ref().filter(|each| each.external)
            && complaint.kind == "AssertionError"
        {
            let at = transaction.began_at.as_ref().map(|line| self.places.line(line));
            let finding = self.places.finding(Severity::Error, "env.py", say::SILENT_ROLLBACK.message(), at);
            return finding.mended_by(text::migrations::MEND_SILENT_ROLLBACK);
        }
        // The code went on after an error: that error is the reason.
        if let Some(refused) = self.refused.filter(|_| complaint.said.sqlstate.as_deref() == Some(ABORTED)) {
            (why, at) = (refused.why, refused.place.or(at));
        }
        let (subject, told) = match (complaint.stage, &complaint.revision) {
            (Stage::Revision, Some(revision)) if lacks_extension(complaint) => (
                format!("revision {revision}"),
                say::EXTENSION_MISSING.with("revision", revision).with("why", why),
            ),
            (Stage::Revision, Some(revision)) => {
                (format!("revision {revision}"), code.with("revision", revision).with("why", why))
            }
            (Stage::Alembic | Stage::Application, _) => {
                ("application".to_owned(), say::APPLICATION_FAILED.with("why", why))
            }
            _ => ("env.py".to_owned(), say::ENVIRONMENT_FAILED.with("why", why)),
        };
        let at =
            at.or_else(|| complaint.revision.as_deref().and_then(|id| self.places.function(id, "upgrade")));
        let finding = self.places.finding(Severity::Error, &subject, told, at);
        mend(complaint).into_iter().fold(finding, Finding::mended_by)
    }
}

/// The server itself is gone: what it had in memory is lost, and with it the replay.
pub(super) fn server_lost(places: &Places<'_>, seen: &Seen, lost: &Failure) -> Finding {
    use text::gate as say;
    let running = seen.running.as_deref();
    let subject = running.map_or_else(|| "application".to_owned(), |id| format!("revision {id}"));
    let at = running.and_then(|id| places.function(id, "upgrade"));
    let told = say::SERVER_DIED
        .with("revision", running.unwrap_or("–"))
        .with("why", lost.why.as_deref().unwrap_or("?"));
    places.finding(Severity::Error, &subject, told, at).mended_by(say::MEND_SERVER_DIED)
}

/// Whether a finding tells nothing of the migrations: only that they could not be tried here.
pub(super) fn proves_nothing(finding: &Finding) -> bool {
    finding.message.code() == text::gate::EXTENSION_MISSING
}

/// An extension, or a library of one, that is not on this machine.
fn lacks_extension(complaint: &Complaint) -> bool {
    match complaint.said.sqlstate.as_deref() {
        Some("0A000") => complaint.said.message.starts_with("extension "),
        Some("58P01") => true,
        _ => false,
    }
}

fn mend(complaint: &Complaint) -> Option<Message> {
    use text::gate as say;
    let lacks = ["NoSuchModuleError", "ModuleNotFoundError"].contains(&complaint.kind.as_str());
    if lacks && complaint.said.message.contains("psycopg") {
        return Some(say::MEND_DATABASE_DRIVER.message());
    }
    let creates_extension = complaint.said.message.contains("create extension");
    match complaint.stage {
        Stage::Revision if lacks_extension(complaint) => Some(say::MEND_EXTENSION_MISSING.message()),
        Stage::Revision if creates_extension && complaint.said.sqlstate.as_deref() == Some("42501") => {
            Some(say::MEND_EXTENSION.message())
        }
        Stage::Revision => Some(say::MEND_UPGRADE_FAILED.message()),
        Stage::Alembic | Stage::Application => Some(text::migrations::MEND_APP.message()),
        // The server of the gate is there: who does not reach it looks elsewhere.
        Stage::Environment if complaint.kind == "OperationalError" && complaint.said.sqlstate.is_none() => {
            Some(text::migrations::MEND_DATABASE_URL.message())
        }
        Stage::Environment => Some(say::MEND_ENVIRONMENT_FAILED.message()),
        Stage::Graph | Stage::Aborted => None,
    }
}
