//! What statements of revisions do to others while they run: locks on tables, rows changed all at once, errors that
//! a DO block hides.

use std::collections::BTreeMap;

use obyra_evidence::{Finding, Severity, text};

use super::blocks;
use super::judge::Run;
use super::log::{Command, Mode, Told};
use crate::driver::{Line, Statement, Wrote};

impl Run<'_> {
    /// The findings about statements that change no catalogue, of which no event trigger tells.
    pub(super) fn statements(&self) -> Vec<Finding> {
        let checked = self.seen.wrote.iter().filter(|wrote| self.checked.contains(&wrote.revision));
        let mut findings: Vec<Finding> = checked.flat_map(|wrote| self.wrote(wrote)).collect();
        findings.extend(self.blocks());
        findings
    }

    fn wrote(&self, wrote: &Wrote) -> Vec<Finding> {
        use text::gate as say;
        let Some(existing) = self.existing(&wrote.revision) else { return Vec::new() };
        let tables = wrote.tables.iter().filter(|(oid, ..)| existing.has(*oid));
        let tables: Vec<_> = tables.filter(|(_, name, ..)| !self.is_small(name)).collect();
        let command = blocks::command(&wrote.sql);
        let at = wrote.place.as_ref().map(|line| self.places.line(line));
        let at = at.or_else(|| self.places.function(&wrote.revision, "upgrade"));
        let rows = |name: &str| self.sizes.get(name).map_or(0, |size| size.rows);
        let mut findings = Vec::new();
        // One statement is one finding: about the largest table.
        if let Some((_, table, ..)) =
            tables.iter().filter(|(.., written)| *written).max_by_key(|(_, name, ..)| rows(name))
        {
            let told = self.sized(say::BULK_WRITE.with("command", &command), &wrote.revision, table);
            let severity = if self.sizes.contains_key(table) { Severity::Error } else { Severity::Warning };
            let finding = self.places.finding(severity, &format!("table {table}"), told, at.clone());
            findings.push(finding.mended_by(say::MEND_BULK_WRITE));
        }
        for (oid, table, mode, _) in tables {
            let Some(mode) = mode.as_deref().and_then(Mode::named) else { continue };
            if self.is_of_a_command(wrote, *oid, mode) {
                continue;
            }
            let told = self.sized(say::TABLE_LOCK.with("command", &command), &wrote.revision, table);
            let told = told.with("mode", mode.name());
            let finding = self.places.finding(Severity::Warning, &format!("table {table}"), told, at.clone());
            findings.push(finding.mended_by(say::MEND_TABLE_LOCK));
        }
        findings
    }

    /// Whether a command that changed the catalogue, in the same block, took the lock, and told of it itself.
    fn is_of_a_command(&self, wrote: &Wrote, oid: i64, mode: Mode) -> bool {
        let commands = self.entries.iter().filter_map(|entry| match &entry.said {
            Told::Command(command) => Some(command),
            _ => None,
        });
        let same = |command: &&Command| wrote.sql.trim_start().starts_with(command.query.trim());
        let mut locks = commands.filter(same).flat_map(|command| command.locks.iter().flatten());
        locks.any(|lock| lock.oid == oid && lock.mode >= mode)
    }

    /// DO blocks that catch every error and tell nobody: the server logs none of what they catch.
    fn blocks(&self) -> Vec<Finding> {
        use text::gate as say;
        let mut found: BTreeMap<(&str, Option<&Line>), Finding> = BTreeMap::new();
        for Statement { sql, revision, place } in &self.seen.statements {
            let Some(revision) = revision.as_deref().filter(|id| self.checked.contains(*id)) else {
                continue;
            };
            if found.contains_key(&(revision, place.as_ref())) || !blocks::hides_errors(sql) {
                continue;
            }
            let at = place.as_ref().map(|line| self.places.line(line));
            let at = at.or_else(|| self.places.function(revision, "upgrade"));
            let told = say::SWALLOWED_IN_DO.with("revision", revision);
            let finding = self.places.finding(Severity::Warning, &format!("revision {revision}"), told, at);
            found.insert((revision, place.as_ref()), finding.mended_by(say::MEND_SWALLOWED_IN_DO));
        }
        found.into_values().collect()
    }
}
