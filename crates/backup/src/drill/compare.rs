//! The restored databases against the figures that were recorded with the backup.

use obyra_evidence::text;
use obyra_postgres::{Limits, Session, sql_failure};

use super::checks::Check;
use super::record::{Recorded, RecordedDatabase};
use crate::Result;
use crate::figures::{self, Difference, TableFigures};
use crate::restore::Instance;

/// Tables that are named when they differ.
const NAMED: usize = 10;
/// Without an exact instant, so many rows may have come and gone: a hundredth, and a hundred.
const TOLERANCE_PARTS: i64 = 100;
const TOLERANCE_ROWS: i64 = 100;

/// Compares; `is_there` says that recovery stands at the very position of the figures.
pub(super) async fn compare(
    instance: &Instance,
    recorded: Option<&Recorded>,
    is_there: bool,
) -> Result<Check> {
    let name = text::backup::DRILL_FIGURES;
    let Some(recorded) = recorded else {
        return Ok(Check::skipped(name, text::backup::DRILL_FIGURES_NONE));
    };
    let is_exact = is_there && sees_the_same(instance, recorded).await?;
    let (mut tables, mut rows, mut differences) = (0, 0, Vec::new());
    for database in &recorded.databases {
        let found = figures_of(instance, database).await?;
        let expected: Vec<TableFigures> = database.tables.iter().map(|table| table.figures.clone()).collect();
        tables += expected.len();
        rows += expected.iter().map(|one| one.rows.unsigned_abs()).sum::<u64>();
        let differing = figures::differences(&expected, &found).into_iter();
        let differing = differing.filter(|difference| is_exact || !is_near(difference));
        differences.extend(differing.map(|difference| (database.name.clone(), difference)));
    }
    if differences.is_empty() {
        let what = if is_exact { text::backup::DRILL_FIGURES_SAME } else { text::backup::DRILL_FIGURES_NEAR };
        return Ok(Check::passed(name, what.with("tables", tables).with("rows", rows)));
    }
    let shown = |figures: &Option<TableFigures>| match figures {
        Some(one) => format!("{} rows, content {}", one.rows, one.content),
        None => "absent".to_owned(),
    };
    let named: Vec<String> = differences
        .iter()
        .take(NAMED)
        .map(|(database, one)| {
            format!("{database}: {}: {} instead of {}", one.table, shown(&one.found), shown(&one.expected))
        })
        .collect();
    let what = text::backup::DRILL_FIGURES_DIFFER.with("count", differences.len()).with("tables", tables);
    Ok(Check::failed(name, what, named.join("\n")))
}

/// Whether no transaction is committed here that was not for all snapshots: one that wrote its commit before
/// the position, and still waited for a standby, say.
async fn sees_the_same(instance: &Instance, recorded: &Recorded) -> Result<bool> {
    // Of a number that is still to come the server knows nothing, and says so with an error.
    const SQL: &str = "
        SELECT NOT EXISTS (
          SELECT FROM unnest($1::text[]) AS held (snapshot),
               LATERAL (SELECT pg_snapshot_xip(snapshot::pg_snapshot)
                        UNION ALL
                        SELECT number::text::xid8
                          FROM generate_series(pg_snapshot_xmax(snapshot::pg_snapshot)::text::bigint,
                                               pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) AS number
                       ) AS unseen (xid)
           WHERE CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status(xid) END = 'committed')";
    let failed = |e| sql_failure(text::backup::FIGURES.message(), &e);
    let session = Session::connect(&instance.restored.admin("postgres")?, Limits::patient()).await?;
    Ok(session.query_one(SQL, &[&recorded.visible]).await.map_err(failed)?.get(0))
}

/// The figures of the same tables, and of the same blocks of them, in the restored database. A table that
/// is not there has none.
async fn figures_of(instance: &Instance, database: &RecordedDatabase) -> Result<Vec<TableFigures>> {
    let failed = |e| sql_failure(text::backup::FIGURES.message(), &e);
    let admin = instance.restored.admin(&database.name)?;
    let Ok(session) = Session::connect(&admin, Limits::patient()).await else { return Ok(Vec::new()) };
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    figures::settle(&session).await?;
    let mut found = Vec::with_capacity(database.tables.len());
    for table in &database.tables {
        let sql = "SELECT FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)";
        if session.query_opt(sql, &[&table.figures.table]).await.map_err(failed)?.is_some() {
            found.push(figures::of_blocks(&session, table.figures.table.clone(), &table.blocks).await?);
        }
    }
    Ok(found)
}

fn is_near(difference: &Difference) -> bool {
    let (Some(expected), Some(found)) = (&difference.expected, &difference.found) else { return false };
    (expected.rows - found.rows).abs() <= expected.rows / TOLERANCE_PARTS + TOLERANCE_ROWS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exact_instant_some_rows_may_differ() {
        let rows = |rows: i64| Some(TableFigures { table: "t".to_owned(), rows, content: rows.to_string() });
        let differ = |a: i64, b: i64| Difference { table: "t".to_owned(), expected: rows(a), found: rows(b) };
        assert!(is_near(&differ(10_000, 10_200)) && is_near(&differ(10_000, 9_800)));
        assert!(!is_near(&differ(10_000, 9_799)));
        assert!(!is_near(&Difference { found: None, ..differ(1, 1) }));
    }
}
