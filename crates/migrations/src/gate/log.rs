//! The server's own log: what the event triggers told it, and every error, whoever caught it.

use std::path::Path;

use obyra_evidence::{Failure, text};
use obyra_postgres::Result;
use serde::Deserialize;

/// The settings that make the log readable by [`entries`].
pub(super) const SETTINGS: [(&str, &str); 3] =
    [("log_line_prefix", "%n %p %e "), ("log_error_verbosity", "terse"), ("log_destination", "stderr")];

/// What a message of ours begins with.
const OURS: &str = "obyra-gate ";

/// One entry that matters, with the process that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub process: i32,
    pub said: Told,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A revision begins, or a part of its round trip.
    Mark { phase: String, revision: String },
    /// A command that changed the catalogue has run.
    Command(Command),
    /// A statement failed.
    Error { sqlstate: String, message: String, statement: String },
}

/// A command that changed the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Command {
    /// Its tag, such as `ALTER TABLE`.
    #[serde(rename = "command")]
    pub tag: String,
    /// The statement that was sent, of which it may be a part.
    pub query: String,
    /// What it made or changed.
    #[serde(default)]
    pub objects: Option<Vec<String>>,
    /// The locks that the transaction holds after it, on tables and of the modes that others notice.
    #[serde(default)]
    pub locks: Option<Vec<Lock>>,
    /// The tables that an ALTER TABLE was about, as they are after it.
    #[serde(default)]
    pub altered: Option<Vec<Altered>>,
    /// The tables, columns and views that it was told to drop: `column app.users.name`. Such an entry holds nothing else.
    #[serde(default)]
    pub dropped: Option<Vec<String>>,
}

/// A table after an ALTER TABLE.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Altered {
    pub oid: i64,
    pub name: String,
    /// Its columns, and whether an INSERT has to name them.
    pub columns: Vec<(String, bool)>,
}

/// A lock on a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Lock {
    pub oid: i64,
    pub mode: Mode,
    /// The table.
    pub name: String,
    /// The command wrote the table anew.
    pub rewritten: bool,
    /// The command read all of the table.
    pub scanned: bool,
}

/// The modes that stop others, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "PostgreSQL's names")]
pub(super) enum Mode {
    ShareLock,
    ShareRowExclusiveLock,
    ExclusiveLock,
    AccessExclusiveLock,
}

impl Mode {
    /// As `pg_locks` calls it.
    pub fn named(name: &str) -> Option<Mode> {
        let all =
            [Mode::ShareLock, Mode::ShareRowExclusiveLock, Mode::ExclusiveLock, Mode::AccessExclusiveLock];
        all.into_iter().find(|mode| format!("{mode:?}") == name)
    }

    /// As SQL writes it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::ShareLock => "SHARE",
            Mode::ShareRowExclusiveLock => "SHARE ROW EXCLUSIVE",
            Mode::ExclusiveLock => "EXCLUSIVE",
            Mode::AccessExclusiveLock => "ACCESS EXCLUSIVE",
        }
    }
}

/// How long the log is.
pub(super) fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |data| data.len())
}

/// The entries that were written after `offset`.
pub(super) fn entries(log: &Path, offset: u64) -> Result<Vec<Entry>> {
    let bytes = std::fs::read(log).map_err(|error| {
        Failure::new(text::gate::LOG_UNREADABLE.with("file", log.display())).because(error)
    })?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    Ok(parse(&String::from_utf8_lossy(&bytes[start..])))
}

fn parse(log: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // The continuation lines of a message begin with a tab.
    for record in records(log) {
        let Some((process, sqlstate, level, message)) = split(&record) else { continue };
        match level {
            "LOG" => {
                let Some(ours) = message.strip_prefix(OURS) else { continue };
                let mark = |value: serde_json::Value| {
                    let text = |key: &str| value.get(key).and_then(|v| v.as_str()).map(str::to_owned);
                    Some(Told::Mark { phase: text("phase")?, revision: text("revision")? })
                };
                let command = serde_json::from_str(ours).map(Told::Command).ok();
                if let Some(said) = command.or_else(|| serde_json::from_str(ours).ok().and_then(mark)) {
                    entries.push(Entry { process, said });
                }
            }
            "ERROR" => entries.push(Entry {
                process,
                said: Told::Error {
                    sqlstate: sqlstate.to_owned(),
                    message: message.to_owned(),
                    statement: String::new(),
                },
            }),
            "STATEMENT" => {
                let last = entries.iter_mut().rev().find(|entry| entry.process == process);
                if let Some(Entry { said: Told::Error { statement, .. }, .. }) = last {
                    *statement = message.to_owned();
                }
            }
            _ => {}
        }
    }
    entries
}

fn records(log: &str) -> Vec<String> {
    let mut records: Vec<String> = Vec::new();
    for line in log.lines() {
        match (line.strip_prefix('\t'), records.last_mut()) {
            (Some(more), Some(last)) => {
                last.push('\n');
                last.push_str(more);
            }
            _ => records.push(line.to_owned()),
        }
    }
    records
}

/// `1786.123 4711 42P07 ERROR:  message`: process, SQLSTATE, level, message.
fn split(record: &str) -> Option<(i32, &str, &str, &str)> {
    let mut words = record.splitn(4, ' ');
    let (_time, process, sqlstate, rest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (level, message) = rest.split_once(":  ")?;
    Some((process.parse().ok()?, sqlstate, level, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_with_their_statement_and_marks_with_their_revision() {
        let log = "1.0 7 00000 LOG:  obyra-gate {\"phase\" : \"applied\", \"revision\" : \"a\"}\n\
                   1.1 7 42P07 ERROR:  relation \"x\" already exists\n\
                   1.1 7 42P07 STATEMENT:  CREATE TABLE x (\n\tid int)\n\
                   1.2 8 00000 LOG:  checkpoint starting: time\n\
                   1.3 7 00000 LOG:  obyra-gate {\"command\" : \"CREATE TABLE\", \"query\" : \"q\", \"objects\" : null, \"locks\" : \
                   [{\"oid\" : \"16\", \"mode\" : \"ShareLock\", \"name\" : \"app.a\", \"rewritten\" : false, \"scanned\" : true}]}\n";
        let entries = parse(&log.replace("\"16\"", "16"));
        assert_eq!(entries.len(), 3, "{entries:?}");
        assert_eq!(entries[0].said, Told::Mark { phase: "applied".into(), revision: "a".into() });
        let Told::Error { sqlstate, statement, .. } = &entries[1].said else { panic!("{entries:?}") };
        assert_eq!((sqlstate.as_str(), statement.as_str()), ("42P07", "CREATE TABLE x (\nid int)"));
        let Told::Command(command) = &entries[2].said else { panic!("{entries:?}") };
        assert_eq!(command.locks.as_ref().map(|locks| locks[0].mode.name()), Some("SHARE"));
    }
}
