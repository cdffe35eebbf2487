//! The catalogue of a database as names and definitions, kept up to date by what the event triggers report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::driver::Look;

/// One object: a table, a column, an index, a type.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    oid: Option<i64>,
    name: String,
    definition: String,
}

/// The objects by the relation that they belong to; those that belong to none are under 0.
///
/// Cloning is cheap: a relation that did not change is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue(BTreeMap<i64, Arc<Vec<Object>>>);

/// What is different about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub name: String,
    /// Its definition before; none if it was not there.
    pub before: Option<String>,
    /// Its definition now; none if it is gone.
    pub now: Option<String>,
}

impl Catalogue {
    /// Takes over what was looked at.
    pub fn update(&mut self, look: Look) {
        if look.everything {
            self.0.clear();
        }
        let gone: BTreeSet<i64> = look.looked_at.into_iter().collect();
        self.0.retain(|relation, _| !gone.contains(relation) && (*relation != 0 || !look.other));
        // An index or a policy that was dropped by itself is told by its own oid.
        for objects in self.0.values_mut() {
            let dropped = |object: &Object| object.oid.is_some_and(|oid| gone.contains(&oid));
            if objects.iter().any(dropped) {
                let kept = objects.iter().filter(|object| !dropped(object)).cloned().collect();
                *objects = Arc::new(kept);
            }
        }
        let mut fresh: BTreeMap<i64, Vec<Object>> = BTreeMap::new();
        for (relation, oid, name, definition) in look.rows {
            fresh.entry(relation).or_default().push(Object { oid, name, definition });
        }
        self.0.extend(fresh.into_iter().map(|(relation, objects)| (relation, Arc::new(objects))));
    }

    /// Whether there is a table or view of this oid.
    pub fn has(&self, relation: i64) -> bool {
        relation != 0 && self.0.contains_key(&relation)
    }

    /// The name of a relation: `app.users`.
    pub fn name(&self, relation: i64) -> Option<&str> {
        let own = |object: &&Object| object.oid == Some(relation);
        let object = self.0.get(&relation)?.iter().find(own)?;
        let kinds = ["table ", "view ", "materialized view ", "sequence "];
        kinds.iter().find_map(|kind| object.name.strip_prefix(kind))
    }

    /// The columns of a table.
    pub fn columns(&self, relation: i64) -> Vec<&str> {
        let Some(prefix) = self.name(relation).map(|name| format!("column {name}.")) else {
            return Vec::new();
        };
        let objects = self.0.get(&relation).into_iter().flat_map(|objects| objects.iter());
        objects.filter_map(|object| object.name.strip_prefix(&prefix)).collect()
    }

    /// What is different here from `before`, by name.
    pub fn changes_since(&self, before: &Catalogue) -> Vec<Change> {
        let (was, is) = (before.differing(self), self.differing(before));
        let names: BTreeSet<&str> = was.keys().chain(is.keys()).copied().collect();
        let changes = names.into_iter().filter_map(|name| {
            let (was, is) = (was.get(name).copied(), is.get(name).copied());
            (was != is).then(|| Change {
                name: name.to_owned(),
                before: was.map(str::to_owned),
                now: is.map(str::to_owned),
            })
        });
        changes.collect()
    }

    /// The objects, without the relations that both share.
    fn differing<'a>(&'a self, other: &Catalogue) -> BTreeMap<&'a str, &'a str> {
        let differing = self.0.iter().filter(|(relation, objects)| {
            other.0.get(relation).is_none_or(|theirs| !Arc::ptr_eq(objects, theirs))
        });
        differing
            .flat_map(|(_, objects)| objects.iter())
            .map(|object| (object.name.as_str(), object.definition.as_str()))
            .collect()
    }

    /// The definition of an object.
    pub fn definition(&self, name: &str) -> Option<&str> {
        let mut all = self.0.values().flat_map(|objects| objects.iter());
        all.find(|object| object.name == name).map(|object| object.definition.as_str())
    }
}

impl Change {
    /// Whether rows are lost with it.
    pub fn loses_rows(&self) -> bool {
        self.now.is_none() && (self.name.starts_with("table ") || self.name.starts_with("column "))
    }
}

/// `- index a on app.b; ~ column app.b.c: integer -> bigint`, the first few.
pub(crate) fn shown(changes: &[Change]) -> String {
    const CHANGES_SHOWN: usize = 6;
    let mut parts: Vec<String> = changes
        .iter()
        .filter(|change| !belongs_to_another(change, changes))
        .map(|change| match (&change.before, &change.now) {
            (Some(before), Some(now)) => format!("~ {}: {} -> {}", change.name, short(before), short(now)),
            (Some(_), None) => format!("- {}", change.name),
            (None, _) => format!("+ {}", change.name),
        })
        .collect();
    if parts.len() > CHANGES_SHOWN {
        let more = parts.len() - CHANGES_SHOWN;
        parts.truncate(CHANGES_SHOWN);
        parts.push(format!("… {more}"));
    }
    parts.join("; ")
}

/// A definition in one line, cut off where it gets long.
pub(super) fn short(definition: &str) -> String {
    const CHARS_SHOWN: usize = 100;
    let one_line = definition.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(CHARS_SHOWN) {
        Some((end, _)) => format!("{}…", &one_line[..end]),
        None => one_line,
    }
}

/// The names of what came or went, a table standing for its parts.
pub(super) fn named(changes: &[Change]) -> String {
    shown(changes)
        .split("; ")
        .map(|part| part.trim_start_matches(['+', '-', ' ']))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The columns and indexes of a table that came or went say nothing that the table does not.
pub(crate) fn belongs_to_another(change: &Change, changes: &[Change]) -> bool {
    if change.before.is_some() == change.now.is_some() {
        return false;
    }
    let table = match change.name.strip_prefix("column ") {
        Some(column) => column.rsplit_once('.').map(|(table, _)| table),
        None => change.name.rsplit_once(" on ").map(|(_, table)| table),
    };
    let Some(table) = table else { return false };
    changes.iter().any(|other| {
        let same = other.before.is_some() == change.before.is_some();
        let whole = other.name.strip_prefix("table ") == Some(table);
        whole && same && other.before.is_some() != other.now.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(looked_at: &[i64], rows: &[(i64, i64, &str, &str)]) -> Look {
        let rows = rows.iter().map(|(relation, oid, name, definition)| {
            (*relation, Some(*oid), (*name).to_owned(), (*definition).to_owned())
        });
        Look { looked_at: looked_at.to_vec(), rows: rows.collect(), ..Look::default() }
    }

    #[test]
    fn an_object_that_comes_back_the_same_is_no_change() {
        let mut before = Catalogue::default();
        before.update(look(&[], &[(1, 1, "table app.a", ""), (1, 9, "index i on app.a", "btree (x)")]));
        let mut now = before.clone();
        now.update(look(&[9], &[]));
        let changes = now.changes_since(&before);
        assert_eq!(shown(&changes), "- index i on app.a");
        assert!(!changes[0].loses_rows());
        // The table was dropped and made again, with new oids.
        now.update(look(&[1, 2], &[(2, 2, "table app.a", ""), (2, 8, "index i on app.a", "btree (x)")]));
        assert_eq!(now.changes_since(&before), []);
        assert!(now.has(2) && !now.has(1) && !now.has(0));
        assert_eq!(now.name(2), Some("app.a"));
    }

    #[test]
    fn a_table_stands_for_its_parts() {
        let mut before = Catalogue::default();
        before.update(look(&[], &[(1, 1, "table app.a", ""), (1, 7, "column app.a.id", "integer")]));
        let changes = Catalogue::default().changes_since(&before);
        assert_eq!(shown(&changes), "- table app.a");
        assert!(changes.iter().all(Change::loses_rows));
    }
}
