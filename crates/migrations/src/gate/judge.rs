//! What the server's log says about the revisions: errors that the code swallowed, commands outside of Alembic's
//! transaction, and statements that would keep others waiting.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Message, Place, Severity, text};

use super::catalogue::Catalogue;
use super::log::{Command, Entry, Lock, Mode, Told};
use super::places::Places;
use super::running::Running;
use super::stopped::Refused;
use super::watch::{Leg, Seen};
use super::{Measured, Sizes};
use crate::driver::Phase;

/// How much of a statement a finding quotes.
const STATEMENT_CHARS_SHOWN: usize = 160;

/// How many objects a finding lists.
const OBJECTS_SHOWN: usize = 6;

/// The revision, or none at boot, and the line from which another connection was used.
type Elsewhere = (String, Option<Place>);

/// What a line did on another connection.
#[derive(Default)]
struct Did {
    commands: BTreeSet<String>,
    objects: Vec<String>,
}

/// A replay as the log tells it.
pub(super) struct Run<'a> {
    pub places: &'a Places<'a>,
    pub seen: &'a Seen,
    pub entries: &'a [Entry],
    /// The processes of this program's own sessions.
    pub ours: &'a [i32],
    /// The revisions that are checked.
    pub checked: &'a BTreeSet<String>,
    /// The version table's name, which Alembic makes itself.
    pub version_table: &'a str,
    pub sizes: &'a Sizes,
    /// Tables with fewer rows are no concern.
    pub large_rows: u64,
    /// The revisions that are checked are those that a branch adds: they are deployed at once.
    pub by_branch: bool,
    /// Whether what statements do to others counts here: once is enough.
    pub measures: bool,
}

/// What is running as the log goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Now {
    phase: String,
    revision: String,
    process: Option<i32>,
}

impl Run<'_> {
    /// The findings, and each command of a checked revision with its locks.
    pub fn read(&self) -> (Vec<Finding>, Vec<Measured>) {
        let (mut findings, mut measured) = (Vec::new(), Vec::new());
        let mut now = Now { phase: "boot".to_owned(), ..Now::default() };
        let mut swallowed: BTreeMap<(String, String, String), Finding> = BTreeMap::new();
        let mut running = Running::of(self);
        let mut elsewhere = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| !self.ours.contains(&entry.process)) {
            match &entry.said {
                Told::Mark { phase, revision } => {
                    if now.phase == "applied" {
                        findings.extend(running.end());
                    }
                    if phase == "applied" && self.measures && self.checked.contains(revision) {
                        running.begin(revision);
                    }
                    now = Now {
                        phase: phase.clone(),
                        revision: revision.clone(),
                        process: Some(entry.process),
                    };
                }
                Told::Error { sqlstate, message, statement } => {
                    let then = self.during(&now, statement);
                    let key = (then.revision.clone(), sqlstate.clone(), message.clone());
                    if self.was_swallowed(&then) && !swallowed.contains_key(&key) {
                        swallowed.insert(key, self.swallowed(&then, (sqlstate, message, statement)));
                    }
                }
                Told::Command(command) if now.process == Some(entry.process) => {
                    if self.measures && now.phase == "applied" && self.checked.contains(&now.revision) {
                        let at =
                            self.places.statement(Some(&now.revision), &command.query, &self.seen.statements);
                        let breaks = running.command(command, at.as_ref());
                        // One statement is one finding.
                        if breaks.is_empty() {
                            findings.extend(self.blocking(&now.revision, command, at.as_ref()));
                        }
                        findings.extend(breaks);
                        if command.dropped.is_none() {
                            measured.push(self.measured(&now.revision, command, at));
                        }
                    }
                }
                Told::Command(command) => self.note_elsewhere(&now, command, &mut elsewhere),
            }
        }
        findings.extend(swallowed.into_values());
        findings.extend(elsewhere.iter().map(|(at, did)| self.elsewhere(at, did)));
        if self.measures {
            findings.extend(self.statements());
        }
        findings.dedup();
        (findings, measured)
    }

    /// The last statement that the server refused, other than those that it refused because of an earlier one.
    pub fn refused(&self) -> Option<Refused> {
        let errors = self.entries.iter().rev().filter_map(|entry| match &entry.said {
            Told::Error { sqlstate, message, statement } if sqlstate != "25P02" => {
                Some((format!("ERROR {sqlstate}: {message}"), statement))
            }
            _ => None,
        });
        let (why, statement) = errors.into_iter().next()?;
        Some(Refused { why, place: self.places.statement(None, statement, &self.seen.statements) })
    }

    /// Revisions that nobody checks leave no marks: there the statement itself tells which one sent it.
    fn during(&self, now: &Now, statement: &str) -> Now {
        if now.phase != "applied" || self.checked.contains(&now.revision) {
            return now.clone();
        }
        let sent = self.seen.statements.iter().find(|sent| sent.sql.trim() == statement.trim());
        match sent.and_then(|sent| sent.revision.clone()) {
            Some(revision) => Now { revision, ..now.clone() },
            None => now.clone(),
        }
    }

    /// An error is known where the upgrade or the leg of the round trip failed of it.
    fn was_swallowed(&self, now: &Now) -> bool {
        let leg = |phase| {
            let trips = self.seen.trips.get(&now.revision);
            trips.is_some_and(|trips| {
                !trips.needs_commit && matches!(trips.legs.get(&phase), Some(Leg::Ran(_)))
            })
        };
        match now.phase.as_str() {
            "boot" => self.seen.planned.is_some(),
            "applied" => self.seen.applied.contains_key(&now.revision),
            "reversed" => leg(Phase::Reversed),
            "repeated" => leg(Phase::Repeated),
            _ => false,
        }
    }

    fn swallowed(&self, now: &Now, (sqlstate, message, statement): (&str, &str, &str)) -> Finding {
        use text::gate as say;
        let revision = (!now.revision.is_empty()).then_some(now.revision.as_str());
        let function = if now.phase == "reversed" { "downgrade" } else { "upgrade" };
        let at = self.places.statement(revision, statement, &self.seen.statements);
        let at = at.or_else(|| self.places.function(&now.revision, function));
        let error = format!("{sqlstate}: {message}");
        if revision.is_none() {
            let told = say::BOOT_ERROR.with("error", error).with("statement", short(statement));
            let finding = self.places.finding(Severity::Warning, "application", told, at);
            return finding.mended_by(say::MEND_SWALLOWED);
        }
        let told = say::SWALLOWED_ERROR
            .with("revision", &now.revision)
            .with("error", error)
            .with("statement", short(statement));
        let severity = if self.checked.contains(&now.revision) { Severity::Error } else { Severity::Warning };
        let finding = self.places.finding(severity, &format!("revision {}", now.revision), told, at);
        finding.mended_by(say::MEND_SWALLOWED)
    }

    /// A command on another connection than the migration's: at boot, or in a revision beside its transaction.
    fn note_elsewhere(&self, now: &Now, command: &Command, elsewhere: &mut BTreeMap<Elsewhere, Did>) {
        let objects = command.objects.clone().unwrap_or_default();
        let version_table =
            |object: &String| object.rsplit(['.', ' ']).next().is_some_and(|name| name == self.version_table);
        if objects.is_empty() || objects.iter().any(version_table) || now.phase == "end" {
            return;
        }
        let at = self.places.statement(None, &command.query, &self.seen.statements);
        // A revision that the application runs when it is loaded is one all the same.
        if now.phase == "boot" && at.as_ref().is_some_and(|at| self.places.is_of_a_revision(at)) {
            return;
        }
        let did = elsewhere.entry((now.revision.clone(), at)).or_default();
        did.commands.insert(command.tag.clone());
        did.objects.extend(objects);
    }

    /// What one line did there is one finding.
    fn elsewhere(&self, (revision, at): &Elsewhere, did: &Did) -> Finding {
        use text::gate as say;
        let mut objects: Vec<&str> = did.objects.iter().map(String::as_str).collect();
        objects.dedup();
        let more = objects.len().saturating_sub(OBJECTS_SHOWN);
        objects.truncate(OBJECTS_SHOWN);
        let objects = objects.join(", ") + &if more > 0 { format!(", … {more}") } else { String::new() };
        let commands = did.commands.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if revision.is_empty() {
            let told = say::BOOT_DDL.with("command", commands).with("objects", objects);
            let finding = self.places.finding(Severity::Error, "application", told, at.clone());
            return finding.mended_by(say::MEND_BOOT_DDL);
        }
        let told = say::OUTSIDE_TRANSACTION
            .with("revision", revision)
            .with("command", commands)
            .with("objects", objects);
        let at = at.clone().or_else(|| self.places.function(revision, "upgrade"));
        let finding = self.places.finding(Severity::Error, &format!("revision {revision}"), told, at);
        finding.mended_by(say::MEND_OUTSIDE_TRANSACTION)
    }

    /// Tables that existed before, and that the command rewrites or reads whole while others wait.
    fn blocking(&self, revision: &str, command: &Command, at: Option<&Place>) -> Vec<Finding> {
        let existing = self.existing(revision);
        let mut worst: BTreeMap<i64, &Lock> = BTreeMap::new();
        for lock in command.locks.iter().flatten() {
            let concerns = existing.is_some_and(|tables| tables.has(lock.oid));
            if concerns && (lock.rewritten || lock.scanned) {
                let held = worst.entry(lock.oid).or_insert(lock);
                if lock.mode > held.mode {
                    *held = lock;
                }
            }
        }
        worst.into_values().filter_map(|lock| self.blocked(revision, command, lock, at)).collect()
    }

    fn blocked(&self, revision: &str, command: &Command, lock: &Lock, at: Option<&Place>) -> Option<Finding> {
        use text::gate as say;
        if self.is_small(&lock.name) {
            return None;
        }
        let subject = format!("table {}", lock.name);
        let what = if lock.rewritten { say::REWRITE } else { say::BLOCKING_SCAN };
        let told = what.with("command", &command.tag).with("mode", lock.mode.name());
        let told = self.sized(told, revision, &lock.name);
        let known = self.sizes.contains_key(&lock.name);
        let severity = if lock.rewritten || known { Severity::Error } else { Severity::Warning };
        let at = at.cloned().or_else(|| self.places.function(revision, "upgrade"));
        let finding = self.places.finding(severity, &subject, told, at);
        Some(finding.mended_by(instead(command, lock)))
    }

    /// What existed before the revision; where a branch is checked, before the branch.
    pub(super) fn existing(&self, revision: &str) -> Option<&Catalogue> {
        let planned = self.seen.planned.iter().flat_map(|planned| &planned.revisions);
        let first = planned.into_iter().find(|each| self.by_branch && self.checked.contains(*each));
        self.seen.existing.get(first.map_or(revision, String::as_str))
    }

    /// How many rows a table has, where that is known.
    pub(super) fn rows(&self, table: &str) -> Option<u64> {
        self.sizes.get(table).map(|size| size.rows)
    }

    /// A table of which it is known that whatever is done to it is over in a moment.
    pub(super) fn is_small(&self, table: &str) -> bool {
        self.rows(table).is_some_and(|rows| rows < self.large_rows)
    }

    /// A message about a table, with its size.
    pub(super) fn sized(&self, told: Message, revision: &str, table: &str) -> Message {
        use text::gate as say;
        let size = match self.sizes.get(table) {
            Some(size) => say::SIZE.with("rows", size.rows_shown()).with("bytes", size.bytes_shown()),
            None => say::SIZE_UNKNOWN.message(),
        };
        told.with("revision", revision).with("table", table).with_sentence("size", size)
    }

    fn measured(&self, revision: &str, command: &Command, at: Option<Place>) -> Measured {
        let existing = self.existing(revision);
        let locks = command.locks.iter().flatten();
        let locks = locks.filter(|lock| existing.is_some_and(|tables| tables.has(lock.oid))).map(|lock| {
            super::TableLock {
                table: lock.name.clone(),
                mode: lock.mode.name(),
                rewritten: lock.rewritten,
                scanned: lock.scanned,
            }
        });
        Measured {
            revision: revision.to_owned(),
            command: command.tag.clone(),
            objects: command.objects.clone().unwrap_or_default(),
            place: at,
            locks: locks.collect(),
        }
    }
}

/// What to write instead.
fn instead(command: &Command, lock: &Lock) -> Message {
    use text::gate as say;
    let sql = command.query.to_uppercase();
    match command.tag.as_str() {
        "CREATE INDEX" => say::MEND_INDEX.message(),
        "REINDEX" | "CLUSTER" => say::MEND_REINDEX.message(),
        "REFRESH MATERIALIZED VIEW" => say::MEND_REFRESH.message(),
        _ if lock.rewritten && sql.contains(" ADD COLUMN ") => say::MEND_REWRITE_DEFAULT.message(),
        _ if lock.rewritten => say::MEND_REWRITE_TYPE.message(),
        _ if sql.contains("SET NOT NULL") => say::MEND_NOT_NULL.message(),
        _ if sql.contains("VALIDATE CONSTRAINT") => say::MEND_VALIDATE.message(),
        _ if lock.mode == Mode::ShareRowExclusiveLock || sql.contains("FOREIGN KEY") => {
            say::MEND_FOREIGN_KEY.message()
        }
        _ if sql.contains("CHECK") => say::MEND_CHECK.message(),
        _ if sql.contains("UNIQUE") || sql.contains("PRIMARY KEY") => say::MEND_UNIQUE.message(),
        _ => say::MEND_BLOCKING.message(),
    }
}

fn short(statement: &str) -> String {
    let one_line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(STATEMENT_CHARS_SHOWN) {
        Some((end, _)) => format!("{}…", &one_line[..end]),
        None => one_line,
    }
}
