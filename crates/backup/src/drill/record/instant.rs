//! One instant for all databases: snapshots between which nothing was written, found by trying.
//!
//! A transaction writes its commit a moment before others see it as committed, and long before where it waits
//! for a standby. So the snapshots are kept, too: a server that has recovered to the position can tell whether
//! what was committed before it is in all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use obyra_postgres::tokio_postgres::SimpleQueryMessage;
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Session, sql_failure};

use crate::Result;

/// How often a quiet instant is sought, and how long it is waited in between.
const TRIES: u32 = 200;
const BETWEEN: Duration = Duration::from_millis(50);

/// Snapshots that are held by their sessions until these end their transactions.
pub(super) struct Held {
    /// By the server's clock.
    pub time: Timestamp,
    /// The position, if nothing was written meanwhile.
    pub at: Option<Lsn>,
    /// What the sessions see (`pg_snapshot`): the same, unless a transaction became visible meanwhile.
    pub visible: Vec<String>,
}

/// Opens a transaction in every session, if possible all of one instant.
pub(super) async fn hold(control: &Session, sessions: &[(Session, String)]) -> Result<Held> {
    for left in (0..TRIES).rev() {
        let snapshots = try_join_all(sessions.iter().map(|(session, _)| snapshot(session))).await?;
        let first = snapshots.first().map(|snapshot| snapshot.before);
        let is_quiet = snapshots.iter().all(|one| Some(one.before) == first && Some(one.after) == first);
        if is_quiet || left == 0 {
            let visible: BTreeSet<String> = snapshots.into_iter().map(|snapshot| snapshot.visible).collect();
            let (time, at) = (now(control).await?, first.filter(|_| is_quiet));
            // Recovery stops at a position when it sees the record after it: this makes one, durably.
            let record = "SET synchronous_commit = local;
                          SELECT pg_catalog.pg_logical_emit_message(true, 'obyra-db', 'figures')";
            control.batch_execute(record).await.map_err(failed)?;
            return Ok(Held { time, at, visible: visible.into_iter().collect() });
        }
        for (session, _) in sessions {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(Held { time: now(control).await?, at: None, visible: Vec::new() })
}

struct Snapshot {
    before: Lsn,
    after: Lsn,
    visible: String,
}

/// One message, so that the server does all of it without waiting for us.
async fn snapshot(session: &Session) -> Result<Snapshot> {
    const SQL: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text; COMMIT; \
        BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
        SELECT pg_catalog.pg_current_snapshot()::text; SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
    let messages = session.simple_query(SQL).await.map_err(failed)?;
    let values: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    let malformed = |why: String| Failure::new(text::backup::FIGURES.message()).because(why);
    let [before, visible, after] = values[..] else { return Err(malformed(format!("{values:?}"))) };
    Ok(Snapshot { before: before.parse()?, after: after.parse()?, visible: visible.to_owned() })
}

async fn now(control: &Session) -> Result<Timestamp> {
    let sql = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint";
    let row = control.query_one(sql, &[]).await.map_err(failed)?;
    Ok(Timestamp::from_microsecond(row.get(0)).unwrap_or_default())
}

fn failed(error: obyra_postgres::tokio_postgres::Error) -> Failure {
    sql_failure(text::backup::FIGURES.message(), &error)
}
