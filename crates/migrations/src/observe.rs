//! What is: the revisions in the folder, and those that the database stands at.

use std::collections::BTreeSet;

use obyra_evidence::{Failure, text};
use obyra_postgres::{Result, Session, quote, sql_failure};
use serde::Serialize;

use crate::Policy;
use crate::driver::Graph;

/// Tables of the version table's name and shape, in any schema.
const VERSION_TABLES_SQL: &str = "
    SELECT n.nspname::text, c.oid
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version_num' AND NOT a.attisdropped
     WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
     ORDER BY 1";

/// All that a migration can create and lose again, but the rows: relations, types, routines, schemas.
/// One text, so that it comes over any driver alike.
pub(crate) const OBJECTS_SQL: &str = "
    WITH own AS (
      SELECT oid FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
    SELECT coalesce(pg_catalog.string_agg(each, ' '), '') FROM (
      SELECT 's' || oid AS each FROM own
      UNION ALL SELECT CASE c.relkind WHEN 'r' THEN 't' WHEN 'p' THEN 't' ELSE 'c' END || c.oid
        FROM pg_catalog.pg_class c JOIN own ON own.oid = c.relnamespace
      UNION ALL SELECT 'y' || t.oid FROM pg_catalog.pg_type t JOIN own ON own.oid = t.typnamespace
        WHERE t.typtype IN ('e', 'd', 'r')
      UNION ALL SELECT 'p' || p.oid FROM pg_catalog.pg_proc p JOIN own ON own.oid = p.pronamespace) objects";

/// A version table and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The revisions that it names.
    pub revisions: Vec<String>,
    #[serde(skip)]
    pub(crate) oid: u32,
}

impl VersionTable {
    /// `schema.name`, quoted where need be.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quote::ident(&self.schema), quote::ident(&self.name))
    }
}

/// The migrations of an environment as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The revisions in the folder.
    pub graph: Graph,
    /// The version tables of the database: none before the first deploy, one afterwards.
    pub version_tables: Vec<VersionTable>,
}

impl Observed {
    /// The revisions that the database stands at.
    pub fn current(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.version_tables.iter().flat_map(|table| &table.revisions).collect();
        all.into_iter().cloned().collect()
    }
}

/// Observes the database; the revisions come from [`Driver::graph`](crate::driver::Driver::graph).
pub async fn observe(policy: &Policy, session: &Session, graph: Graph) -> Result<Observed> {
    Ok(Observed { graph, version_tables: version_tables(policy, session).await? })
}

/// The version tables of the database, in the policy's schema or in any.
pub async fn version_tables(policy: &Policy, session: &Session) -> Result<Vec<VersionTable>> {
    let unreadable = |error| {
        sql_failure(text::migrations::VERSION_TABLE_UNREADABLE.with("table", &policy.version_table), &error)
    };
    let rows = session.query(VERSION_TABLES_SQL, &[&policy.version_table]).await.map_err(unreadable)?;
    let mut tables = Vec::new();
    for row in rows {
        let schema: String = row.get(0);
        if policy.version_table_schema.as_ref().is_none_or(|wanted| *wanted == schema) {
            let name = policy.version_table.clone();
            let mut table = VersionTable { schema, name, revisions: Vec::new(), oid: row.get(1) };
            table.revisions = revisions_in(session, &table).await?;
            tables.push(table);
        }
    }
    Ok(tables)
}

/// The revisions that a version table names.
pub(crate) async fn revisions_in(session: &Session, table: &VersionTable) -> Result<Vec<String>> {
    let sql = format!("SELECT version_num::text FROM {} ORDER BY 1", table.qualified());
    let rows = session.query(&sql, &[]).await.map_err(|error| {
        sql_failure(text::migrations::VERSION_TABLE_UNREADABLE.with("table", table.qualified()), &error)
    })?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The database's objects, each as a letter for its kind and its oid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects(BTreeSet<String>);

impl Objects {
    /// Reads what [`OBJECTS_SQL`] returns.
    pub fn parse(text: &str) -> Objects {
        Objects(text.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// What a session sees.
    pub async fn seen_by(session: &Session) -> Result<Objects> {
        let row = session.query_one(OBJECTS_SQL, &[]).await;
        let row =
            row.map_err(|error| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &error))?;
        Ok(Objects::parse(row.get(0)))
    }

    /// How many are here and not there.
    pub fn beyond(&self, other: &Objects) -> usize {
        self.0.difference(&other.0).count()
    }

    /// How many tables are here and not there.
    pub fn tables_beyond(&self, other: &Objects) -> usize {
        self.0.difference(&other.0).filter(|object| object.starts_with('t')).count()
    }

    /// How many of `expected` are not here, and how many that it dropped from `before` still are.
    pub fn differs_from(&self, expected: &Objects, before: &Objects) -> usize {
        let missing = expected.beyond(self);
        let dropped = before.0.difference(&expected.0);
        missing + dropped.filter(|object| self.0.contains(*object)).count()
    }
}

/// The database, as a session on it sees it. Two sessions that see the same are on the same database:
/// no two servers started in the same microsecond and gave a database of one name the same oid.
pub(crate) const IDENTITY_SQL: &str = "
    SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text || ' ' || d.oid, d.datname::text, session_user::text
      FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// Which database a session is on, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The server and the database, as one opaque word.
    pub database: String,
    /// The database's name.
    pub name: String,
    /// The role that logged in.
    pub role: String,
}

impl Identity {
    /// What a session says of itself.
    pub async fn of(session: &Session) -> Result<Identity> {
        let row = session.query_one(IDENTITY_SQL, &[]).await;
        let row =
            row.map_err(|error| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &error))?;
        Ok(Identity { database: row.get(0), name: row.get(1), role: row.get(2) })
    }

    /// An application that ignores `DATABASE_URL` must not be let loose on whatever it found instead.
    pub(crate) fn must_be(self, expected: &Identity, role: &str) -> Result<()> {
        use text::migrations as say;
        let refusal = if self.database != expected.database {
            say::WRONG_DATABASE.with("found", self.name).with("expected", &expected.name)
        } else if self.role != role {
            say::WRONG_ROLE.with("found", self.role).with("expected", role)
        } else {
            return Ok(());
        };
        Err(Failure::refused(refusal).mended_by(say::MEND_DATABASE_URL))
    }

    /// What the migration's connection says of itself. A connection that could not be asked is nowhere.
    pub(crate) fn from_row(row: &[serde_json::Value]) -> Identity {
        let text = |at: usize| row.get(at).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        Identity { database: text(0), name: text(1), role: text(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_compared_within_what_the_migration_touched() {
        let before = Objects::parse("t1 c2 t3");
        let inside = Objects::parse("t1 c2 t4 y5");
        assert_eq!((inside.beyond(&before), inside.tables_beyond(&before)), (2, 1));
        // Another session made p9 meanwhile: no concern of ours.
        assert_eq!(Objects::parse("t1 c2 t4 y5 p9").differs_from(&inside, &before), 0);
        // Rolled back: t4 and y5 are missing, and t3 is there again.
        assert_eq!(before.differs_from(&inside, &before), 3);
    }
}
