//! A schema as it can be compared with another: the gate's catalogue, and by pg_dump what that does not look at.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Failure, text};
use obyra_postgres::cluster::Installation;
use obyra_postgres::{Conninfo, Result, Session, sql_failure};

use super::dump::{Wanted, dump};
use super::restore::Script;
use crate::driver::Look;
use crate::gate::catalogue::{Catalogue, Change};

/// Kinds of pg_dump's that the gate's catalogue does not see.
const UNSEEN: [&str; 11] = [
    "AGGREGATE",
    "COLLATION",
    "CONVERSION",
    "FOREIGN TABLE",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "STATISTICS",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TRANSFORM",
];

/// A schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    catalogue: Catalogue,
    unseen: BTreeMap<String, String>,
}

impl Image {
    /// Reads a database that has the gate's functions. `database` leads to it as superuser, as `admin` does.
    pub async fn of(
        (admin, database): (&Session, &Conninfo),
        installation: &Installation,
        schemas: &[String],
    ) -> Result<Image> {
        let catalogue = catalogue(admin).await?;
        let script = dump(installation, database, Wanted { schemas, without: &[], clean: false }).await?;
        let script = Script::new(script, None)?;
        let mut unseen: BTreeMap<String, String> = BTreeMap::new();
        for statement in script.statements() {
            let Some(entry) = statement.entry.as_deref() else { continue };
            if UNSEEN.contains(&entry.kind.as_str()) && !statement.begins(&["SET"]) {
                let definition = unseen.entry(entry.to_string()).or_default();
                definition.push_str(&statement.sql);
            }
        }
        Ok(Image { catalogue, unseen })
    }

    /// What is different here from `before`, apart from the tables that are somebody's own.
    pub fn changes_since(&self, before: &Image, own: &BTreeSet<String>) -> Vec<Change> {
        let mut changes = self.catalogue.changes_since(&before.catalogue);
        let names: BTreeSet<&String> = self.unseen.keys().chain(before.unseen.keys()).collect();
        for name in names {
            let (was, is) = (before.unseen.get(name).cloned(), self.unseen.get(name).cloned());
            let known = changes.iter().any(|change| change.name == *name);
            if was != is && !known {
                changes.push(Change { name: name.clone(), before: was, now: is });
            }
        }
        changes.retain(|change| !own.iter().any(|table| is_of(&change.name, table)));
        changes
    }

    /// The definition of an object.
    pub fn definition(&self, name: &str) -> Option<&str> {
        self.catalogue.definition(name)
    }
}

/// The catalogue alone.
pub(super) async fn catalogue(admin: &Session) -> Result<Catalogue> {
    let row = admin.query_one("SELECT obyra_gate.look(true)::text", &[]).await;
    let unreadable = || text::migrations::CATALOGUE_UNREADABLE.message();
    let row = row.map_err(|e| sql_failure(unreadable(), &e))?;
    let look: Look = serde_json::from_str(row.get(0)).map_err(|e| Failure::new(unreadable()).because(e))?;
    let mut catalogue = Catalogue::default();
    catalogue.update(look);
    Ok(catalogue)
}

/// Whether an object is a table, or a part of it.
fn is_of(object: &str, table: &str) -> bool {
    let column = || object.strip_prefix("column ").and_then(|rest| rest.strip_prefix(table));
    object.strip_prefix("table ") == Some(table)
        || column().is_some_and(|rest| rest.starts_with('.'))
        || object.rsplit_once(" on ").is_some_and(|(_, of)| of == table)
}
