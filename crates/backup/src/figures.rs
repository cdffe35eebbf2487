//! Figures of a database's content: for each table its rows and a hash of them all, to tell whether a copy
//! is the same.
//!
//! The hash is a sum over the rows, so that their order does not matter; what it reads is one snapshot.

use obyra_evidence::{Failure, text};
use obyra_postgres::tokio_postgres::Client;
use obyra_postgres::{quote, sql_failure};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The figures of one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableFigures {
    /// `schema.table`, quoted where needed.
    pub table: String,
    /// How many rows.
    pub rows: i64,
    /// The sum of the rows' 64-bit hashes, as digits.
    pub content: String,
}

/// Two databases differ in a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// Its figures in the source; `None` if it is not there.
    pub expected: Option<TableFigures>,
    /// Its figures in the copy.
    pub found: Option<TableFigures>,
}

/// How values are written as text must not depend on who asks.
const SETTINGS: &str = "SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; \
    SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
    SET LOCAL xmlbinary = 'base64'; SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off";

/// Tables with rows of their own, but for those of extensions, which may hold what is the server's.
const TABLES: &str = "
    SELECT n.nspname, c.relname
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r'
       AND c.relpersistence = 'p'
       AND n.nspname <> 'information_schema'
       AND n.nspname !~ '^pg_'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY 1, 2";

/// Takes the figures of every permanent table in the transaction that is open: the caller's snapshot decides
/// what they are of.
pub async fn take(transaction: &Client) -> Result<Vec<TableFigures>> {
    let failed = |error| sql_failure(text::backup::FIGURES.message(), &error);
    settle(transaction).await?;
    let tables = transaction.query(TABLES, &[]).await.map_err(failed)?;
    let mut figures = Vec::with_capacity(tables.len());
    for row in tables {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let table = format!("{}.{}", quote::ident(&schema), quote::ident(&name));
        figures.push(of_blocks(transaction, table, &[]).await?);
    }
    Ok(figures)
}

/// The same of some tables, named as in SQL.
pub async fn take_of(transaction: &Client, tables: &[String]) -> Result<Vec<TableFigures>> {
    settle(transaction).await?;
    let mut figures = Vec::with_capacity(tables.len());
    for table in tables {
        figures.push(of_blocks(transaction, table.clone(), &[]).await?);
    }
    Ok(figures)
}

/// Settles, in the transaction that is open, how values are written as text.
pub(crate) async fn settle(transaction: &Client) -> Result<()> {
    let settled = transaction.batch_execute(SETTINGS).await;
    settled.map_err(|error| sql_failure(text::backup::FIGURES.message(), &error))
}

/// The figures of a table, named as in SQL, after [`settle`]: of ranges of its blocks, or of all of it if
/// there are none.
pub(crate) async fn of_blocks(
    transaction: &Client,
    table: String,
    blocks: &[(u32, u32)],
) -> Result<TableFigures> {
    const HASH: &str = "hashtextextended((\"obyra-db row\".*)::text, 0)::numeric";
    let part = |condition: String| {
        format!(
            "SELECT count(*) AS rows, sum({HASH}) AS content FROM ONLY {table} AS \"obyra-db row\" {condition}"
        )
    };
    // A scan of its own for each range: several in one condition would read all of the table.
    let range =
        |(from, to): &(u32, u32)| part(format!("WHERE ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid"));
    let parts: Vec<String> =
        if blocks.is_empty() { vec![part(String::new())] } else { blocks.iter().map(range).collect() };
    let sql = format!(
        "SELECT sum(rows)::bigint, coalesce(sum(content), 0)::text FROM ({}) AS parts",
        parts.join(" UNION ALL ")
    );
    let row = transaction.query_one(&sql, &[]).await;
    let row = row.map_err(|error| sql_failure(text::backup::FIGURES_OF.with("table", &table), &error))?;
    Ok(TableFigures { rows: row.get(0), content: row.get(1), table })
}

/// Where the copy is not what the source was.
pub fn differences(expected: &[TableFigures], found: &[TableFigures]) -> Vec<Difference> {
    let find = |all: &[TableFigures], table: &str| all.iter().find(|one| one.table == table).cloned();
    let mut differences: Vec<Difference> = expected
        .iter()
        .map(|one| Difference {
            table: one.table.clone(),
            expected: Some(one.clone()),
            found: find(found, &one.table),
        })
        .filter(|difference| difference.expected != difference.found)
        .collect();
    let surplus = found.iter().filter(|one| find(expected, &one.table).is_none());
    differences.extend(surplus.map(|one| Difference {
        table: one.table.clone(),
        expected: None,
        found: Some(one.clone()),
    }));
    differences
}

/// The failure that names the first tables that differ.
pub fn differ(what: obyra_evidence::Message, differences: &[Difference]) -> Failure {
    let shown = |figures: &Option<TableFigures>| match figures {
        Some(figures) => format!("{} rows, content {}", figures.rows, figures.content),
        None => "absent".to_owned(),
    };
    let first: Vec<String> = differences
        .iter()
        .take(5)
        .map(|one| format!("{}: {} against {}", one.table, shown(&one.expected), shown(&one.found)))
        .collect();
    Failure::new(what).because(first.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(table: &str, rows: i64) -> TableFigures {
        TableFigures { table: table.to_owned(), rows, content: (rows * 7).to_string() }
    }

    #[test]
    fn what_is_missing_changed_and_too_much() {
        let source = [figures("a.b", 1), figures("a.c", 2), figures("a.d", 3)];
        let copy = [figures("a.b", 1), figures("a.c", 5), figures("a.x", 1)];
        let tables: Vec<_> = differences(&source, &copy).into_iter().map(|one| one.table).collect();
        assert_eq!(tables, ["a.c", "a.d", "a.x"]);
        assert!(differences(&source, &source).is_empty());
        let told = differ(text::backup::FIGURES.message(), &differences(&source, &copy)).to_string();
        assert!(told.contains("a.d: 3 rows, content 21 against absent"), "{told}");
    }
}
