//! The content of every table as one number each, computed by the server.

use std::collections::BTreeMap;

use obyra_evidence::text;
use obyra_postgres::{Session, quote};

use super::Change;
use crate::{Result, Tracking};

/// Tables in one statement: enough that a hundred tables are one round trip, few enough that
/// planning it stays cheap and a thousand tables do not fill the lock table.
const TABLES_AT_ONCE: usize = 200;

/// Rows and the sum of their hashes: independent of order, and no row leaves the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digest {
    rows: u64,
    sum: String,
}

/// What the tables and sequences of a database hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    tables: BTreeMap<String, Digest>,
    sequences: BTreeMap<String, String>,
}

impl Content {
    /// Reads all tables but the tracking table, which is not a seed's.
    pub(super) async fn read(observer: &Session, tracking: &Tracking) -> Result<Content> {
        let mut tables = BTreeMap::new();
        let names = names(observer, tracking).await?;
        for some in names.chunks(TABLES_AT_ONCE) {
            let each: Vec<String> = some.iter().map(|(schema, table)| digest_sql(schema, table)).collect();
            let rows = ask(observer, &each.join(" UNION ALL ")).await?;
            for row in rows {
                let rows = row.get::<_, i64>(1).unsigned_abs();
                tables.insert(row.get(0), Digest { rows, sum: row.get(2) });
            }
        }
        let sequences = "SELECT pg_catalog.format('%I.%I', schemaname, sequencename),
                                coalesce(last_value::text, '') FROM pg_catalog.pg_sequences";
        let sequences = ask(observer, sequences).await?;
        Ok(Content { tables, sequences: sequences.iter().map(|row| (row.get(0), row.get(1))).collect() })
    }

    pub(super) fn tables(&self) -> usize {
        self.tables.len()
    }

    pub(super) fn rows(&self) -> u64 {
        self.tables.values().map(|digest| digest.rows).sum()
    }

    /// What differs after a seed.
    pub(super) fn changes(&self, after: &Content, seed: &str) -> Vec<Change> {
        let mut names: Vec<&String> = self.tables.keys().chain(after.tables.keys()).collect();
        names.sort();
        names.dedup();
        let changed = names.into_iter().filter(|name| self.tables.get(*name) != after.tables.get(*name));
        changed
            .map(|name| Change {
                seed: seed.to_owned(),
                table: name.clone(),
                rows_before: self.tables.get(name).map(|digest| digest.rows),
                rows_after: after.tables.get(name).map(|digest| digest.rows),
            })
            .collect()
    }

    /// Sequences that stand elsewhere afterwards.
    pub(super) fn moved_sequences(&self, after: &Content) -> Vec<String> {
        let moved = after.sequences.iter().filter(|(name, value)| self.sequences.get(*name) != Some(value));
        moved.map(|(name, _)| name.clone()).collect()
    }
}

/// Partitions count each for itself, their parents not at all; foreign tables are somebody else's.
async fn names(observer: &Session, tracking: &Tracking) -> Result<Vec<(String, String)>> {
    let tables = format!(
        "SELECT n.nspname, c.relname
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
            AND (c.relkind <> 'm' OR c.relispopulated)
            AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND (n.nspname, c.relname) <> ({}, {})
          ORDER BY 1, 2",
        quote::literal(&tracking.schema),
        quote::literal(&tracking.table),
    );
    Ok(ask(observer, &tables).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// `(r.*)::text` is every column of every type as the type writes itself. With the star, a column
/// named like the alias does not hide the row.
fn digest_sql(schema: &str, table: &str) -> String {
    let name = quote::qualified(schema, table);
    format!(
        "SELECT {}::text, count(*), coalesce(sum(hashtextextended((r.*)::text, 0)::numeric), 0)::text FROM ONLY {name} r",
        quote::literal(&name),
    )
}

async fn ask(observer: &Session, query: &str) -> Result<Vec<tokio_postgres::Row>> {
    match observer.query(query, &[]).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(observer.failure(text::seeds::CONTENT_UNREADABLE.message(), &error).await),
    }
}
