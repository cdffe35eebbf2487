//! The figures that a drill compares with: rows and content of each table, taken when the backup was, and
//! kept sealed beside it.
//!
//! Best are figures of a quiet instant: a position of the log such that everything committed before it is in
//! all snapshots, and nothing after it. Recovery to that position must find exactly the same again. On a
//! server that never pauses there may be none: then the figures are close, not exact, and say so.

mod instant;

use bytes::Bytes;
use jiff::Timestamp;
use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Conninfo, Limits, Session, quote, sql_failure};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::figures::{self, TableFigures};
use crate::repository::Repository;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::Header;
use crate::repository::pack::{Kind, Pack, PackWriter};

/// zstd's level: figures are small.
const LEVEL: i32 = 3;
/// Ranges of blocks that are read of a table that is too large to be read whole.
const RANGES: u64 = 32;

/// How much of a database is read for its figures.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Tables up to this size are read whole, in bytes; of larger ones, a sample.
    pub whole_table_bytes: u64,
    /// Bytes of the sample of a larger table.
    pub sample_bytes: u64,
    /// Bytes of all that is read; what comes after is not recorded.
    pub total_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { whole_table_bytes: 64 << 20, sample_bytes: 8 << 20, total_bytes: 2 << 30 }
    }
}

/// What a cluster held at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The backup to which the figures belong.
    pub backup: BackupId,
    /// When they were taken, by the server's clock.
    pub taken: Timestamp,
    /// The timeline.
    pub timeline: u32,
    /// The position at which all snapshots were taken; absent if the server never paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Lsn>,
    /// The snapshots, as PostgreSQL writes a `pg_snapshot`.
    #[serde(default)]
    pub visible: Vec<String>,
    /// The bootstrap superuser, as whom a restored copy can be asked.
    pub superuser: String,
    /// The databases.
    pub databases: Vec<RecordedDatabase>,
}

/// What a database held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedDatabase {
    /// Its name.
    pub name: String,
    /// Its tables.
    pub tables: Vec<RecordedTable>,
    /// Tables that the role may not read, or for which the budget did not suffice.
    pub unread: u64,
}

/// What a table held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedTable {
    /// Its rows and their content.
    #[serde(flatten)]
    pub figures: TableFigures,
    /// The blocks that were read, as ranges; all, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<(u32, u32)>,
}

/// Takes the figures of a cluster that runs, after a backup of it has ended: on the primary, as a role that
/// may connect to its databases. What that role may not read is counted as unread.
pub async fn record(
    admin: &Conninfo,
    backup: &Header,
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<Recorded> {
    let control = Session::connect(admin, Limits::patient()).await?;
    let failed = |e| sql_failure(text::backup::FIGURES.message(), &e);
    let superuser = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10";
    let superuser = control.query_one(superuser, &[]).await.map_err(failed)?;
    let names = control
        .query(
            "SELECT datname::text FROM pg_catalog.pg_database
              WHERE datallowconn AND NOT datistemplate AND pg_catalog.has_database_privilege(datname, 'CONNECT')
              ORDER BY 1",
            &[],
        )
        .await
        .map_err(failed)?;
    let mut sessions = Vec::with_capacity(names.len());
    for row in &names {
        let name: String = row.get(0);
        sessions.push((Session::connect(&admin.with_database(&name), Limits::patient()).await?, name));
    }
    progress.begin(text::backup::FIGURES_TAKING.message(), None);
    let taken = take(&control, &sessions, budget).await;
    progress.done();
    let (held, databases) = taken?;
    Ok(Recorded {
        backup: backup.id.clone(),
        taken: held.time,
        timeline: backup.timeline,
        at: held.at,
        visible: held.visible,
        superuser: superuser.get(0),
        databases,
    })
}

async fn take(
    control: &Session,
    sessions: &[(Session, String)],
    budget: &Budget,
) -> Result<(instant::Held, Vec<RecordedDatabase>)> {
    let held = instant::hold(control, sessions).await?;
    let mut left = budget.total_bytes;
    let mut databases = Vec::with_capacity(sessions.len());
    for (session, name) in sessions {
        databases.push(database(session, name, budget, &mut left).await?);
    }
    Ok((held, databases))
}

/// The tables of the snapshot that is open.
async fn database(
    session: &Session,
    name: &str,
    budget: &Budget,
    left: &mut u64,
) -> Result<RecordedDatabase> {
    let failed = |e| sql_failure(text::backup::FIGURES_OF.with("table", name), &e);
    figures::settle(session).await?;
    let sql = "
        SELECT n.nspname::text, c.relname::text, pg_catalog.pg_relation_size(c.oid),
               pg_catalog.has_table_privilege(c.oid, 'SELECT')
                   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                   AND NOT pg_catalog.row_security_active(c.oid)
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p'
           AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                              AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY 3, 1, 2";
    let (mut tables, mut unread) = (Vec::new(), 0);
    for row in session.query(sql, &[]).await.map_err(failed)? {
        let (schema, table): (String, String) = (row.get(0), row.get(1));
        let (bytes, may): (i64, bool) = (row.get(2), row.get(3));
        let bytes = bytes.unsigned_abs();
        let blocks =
            if bytes > budget.whole_table_bytes { sample(bytes, budget.sample_bytes) } else { Vec::new() };
        let cost = if blocks.is_empty() { bytes } else { budget.sample_bytes };
        if !may || cost > *left {
            unread += 1;
            continue;
        }
        *left -= cost;
        let figures = figures::of_blocks(session, quote::qualified(&schema, &table), &blocks).await?;
        tables.push(RecordedTable { figures, blocks });
    }
    Ok(RecordedDatabase { name: name.to_owned(), tables, unread })
}

/// Ranges of blocks, evenly over the table, its beginning and its end among them.
fn sample(table_bytes: u64, sample_bytes: u64) -> Vec<(u32, u32)> {
    let blocks = table_bytes / 8192;
    let length = (sample_bytes / 8192 / RANGES).max(1);
    let last = blocks.saturating_sub(length);
    let number = |block: u64| u32::try_from(block).unwrap_or(u32::MAX);
    (0..RANGES)
        .map(|nth| last * nth / (RANGES - 1))
        .map(|from| (number(from), number(from + length)))
        .collect()
}

/// Keeps figures beside their backup.
pub async fn store(repository: &Repository, cluster: ClusterId, recorded: &Recorded) -> Result<()> {
    let name = cluster.figures(&recorded.backup);
    let seal = |e: serde_json::Error| Failure::new(text::backup::SEAL.with("object", &name)).because(e);
    let raw = serde_json::to_vec(recorded).map_err(seal)?;
    let mut pack = PackWriter::new(&repository.keys, &name, LEVEL)?;
    pack.push(Kind::Data, &raw, Vec::new())?;
    repository.store.create_new(&name, pack.finish()?.bytes).await
}

/// The figures that were kept with a backup; `None` if there are none.
pub async fn load(
    repository: &Repository,
    cluster: ClusterId,
    backup: &BackupId,
) -> Result<Option<Recorded>> {
    let name = cluster.figures(backup);
    let Some(bytes) = repository.store.get(&name).await? else { return Ok(None) };
    parse(repository, &name, bytes).map(Some)
}

fn parse(repository: &Repository, name: &str, bytes: Bytes) -> Result<Recorded> {
    let mut raw = Vec::new();
    for frame in Pack::open(&repository.keys, name, bytes)?.frames(Kind::Data) {
        raw.append(&mut frame?);
    }
    let unreadable = |e| Failure::new(text::backup::OBJECT_UNREADABLE.with("object", name)).because(e);
    serde_json::from_slice(&raw).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_table() {
        let ranges = sample(8192 * 100_000, 8192 * 320);
        assert_eq!(ranges.len(), 32);
        assert_eq!((ranges[0], ranges[31]), ((0, 10), (99_990, 100_000)));
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
