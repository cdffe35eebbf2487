//! What a revision takes from the version of the application that is still running while it is deployed: columns that
//! an INSERT has to name, names that are gone.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Message, Place, Severity, text};

use super::catalogue::{Catalogue, Change};
use super::judge::Run;
use super::log::{Altered, Command};

/// The commands of revisions as they follow on each other.
pub(super) struct Running<'r> {
    run: &'r Run<'r>,
    revision: String,
    /// What the running version knows.
    existing: Catalogue,
    /// Columns that came since.
    added: BTreeSet<String>,
    /// Columns that every INSERT has to name since a command, and where that stands.
    demanded: BTreeMap<String, Option<Place>>,
    /// The present names of tables that were renamed.
    renamed: BTreeMap<i64, String>,
    /// Columns that were reported already.
    reported: BTreeSet<String>,
}

impl<'r> Running<'r> {
    /// No revision has begun.
    pub fn of(run: &'r Run<'r>) -> Self {
        Running {
            run,
            revision: String::new(),
            existing: Catalogue::default(),
            added: BTreeSet::new(),
            demanded: BTreeMap::new(),
            renamed: BTreeMap::new(),
            reported: BTreeSet::new(),
        }
    }

    /// A revision that is checked begins. What a branch adds is deployed at once: to the version that is running,
    /// its revisions are one.
    pub fn begin(&mut self, revision: &str) {
        if !self.run.by_branch {
            *self = Running::of(self.run);
        }
        self.revision = revision.to_owned();
        self.existing = self.run.existing(revision).cloned().unwrap_or_default();
    }

    /// The findings about a command.
    pub fn command(&mut self, command: &Command, at: Option<&Place>) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(command.dropped.as_ref().and_then(|dropped| self.removed(command, dropped, at)));
        for altered in command.altered.iter().flatten() {
            if !self.existing.has(altered.oid) {
                continue;
            }
            findings.extend(self.renamed(command, altered, at));
            let gone = |name: &str| {
                let own = name.strip_prefix(&altered.name).and_then(|rest| rest.strip_prefix('.'));
                own.is_some_and(|own| !altered.columns.iter().any(|(column, _)| column == own))
            };
            self.demanded.retain(|name, _| !gone(name));
            for (column, demanded) in &altered.columns {
                findings.extend(self.column(altered, (column, *demanded), at));
            }
        }
        findings
    }

    /// A column without a default cannot be added to rows that are there already.
    fn column(
        &mut self,
        table: &Altered,
        (column, demanded): (&str, bool),
        at: Option<&Place>,
    ) -> Option<Finding> {
        use text::gate as say;
        let name = format!("{}.{column}", table.name);
        let before = self.existing.name(table.oid).unwrap_or(&table.name);
        if self.existing.definition(&format!("column {before}.{column}")).is_some() {
            return None;
        }
        let is_new = self.added.insert(name.clone());
        if !demanded {
            self.demanded.remove(&name);
            return None;
        }
        self.demanded.entry(name.clone()).or_insert_with(|| at.cloned());
        if !is_new || self.run.rows(&table.name) == Some(0) {
            return None;
        }
        self.reported.insert(name.clone());
        let told = say::REQUIRED_COLUMN.with("revision", &self.revision).with("column", &name);
        let finding = self.finding(Severity::Error, &format!("column {name}"), told, at);
        Some(finding.mended_by(say::MEND_REQUIRED_COLUMN))
    }

    fn renamed(&mut self, command: &Command, table: &Altered, at: Option<&Place>) -> Option<Finding> {
        use text::gate as say;
        let old =
            self.renamed.get(&table.oid).map(String::as_str).or_else(|| self.existing.name(table.oid))?;
        let column = command.objects.iter().flatten().find_map(|object| object.strip_prefix("table column "));
        let kind = if column.is_some() { "column" } else { "table" };
        let (old, new) = match column {
            Some(column) => {
                let names: BTreeSet<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
                let gone = self.existing.columns(table.oid).into_iter().find(|name| !names.contains(name));
                // A column that came with the revision may have any name.
                (format!("{old}.{}", gone?), column.to_owned())
            }
            None if old != table.name => (old.to_owned(), table.name.clone()),
            None => return None,
        };
        if column.is_none() {
            self.renamed.insert(table.oid, table.name.clone());
        }
        let told = say::RENAMED.with("revision", &self.revision).with("old", &old).with("new", new);
        let finding = self.finding(Severity::Warning, &format!("{kind} {old}"), told, at);
        Some(finding.mended_by(say::MEND_RENAMED))
    }

    /// What was dropped, and was there before the revision: rows do not come back with a name. A view does, and a function.
    fn removed(&self, command: &Command, dropped: &[String], at: Option<&Place>) -> Option<Finding> {
        use text::gate as say;
        let gone = |object: &&String| {
            let is_back =
                || !self.made().iter().any(|change| change.name == **object && change.now.is_none());
            let of_code = ["view ", "materialized view ", "function ", "procedure "];
            let comes_back = of_code.iter().any(|kind| object.starts_with(kind));
            // Nobody calls the function of a trigger by its name.
            let is_used = |definition: &str| !definition.contains("RETURNS trigger");
            self.existing.definition(object).is_some_and(is_used) && !(comes_back && is_back())
        };
        let gone: Vec<&str> = dropped.iter().filter(gone).map(String::as_str).collect();
        let first = gone.first()?;
        let told = say::REMOVED
            .with("revision", &self.revision)
            .with("command", &command.tag)
            .with("objects", gone.join(", "));
        Some(self.finding(Severity::Warning, first, told, at).mended_by(say::MEND_REMOVED))
    }

    /// The findings at a revision's end: columns that the running version does not know, and has to name.
    pub fn end(&mut self) -> Vec<Finding> {
        use text::gate as say;
        let unknown = self.demanded.iter().filter(|(column, _)| !self.reported.contains(*column));
        let found = unknown.map(|(column, at)| {
            let told = say::COLUMN_DEMANDED.with("revision", &self.revision).with("column", column);
            let finding = self.finding(Severity::Warning, &format!("column {column}"), told, at.as_ref());
            finding.mended_by(say::MEND_COLUMN_DEMANDED)
        });
        let found = found.collect();
        self.reported.extend(self.demanded.keys().cloned());
        found
    }

    fn made(&self) -> &[Change] {
        self.run.seen.trips.get(&self.revision).map_or(&[], |trips| &trips.made)
    }

    fn finding(&self, severity: Severity, subject: &str, told: Message, at: Option<&Place>) -> Finding {
        let at = at.cloned().or_else(|| self.run.places.function(&self.revision, "upgrade"));
        self.run.places.finding(severity, subject, told, at)
    }
}
