//! One instant for all databases: snapshots between which nothing was written, found by trying.
//!
//! A transaction writes its commit a moment before others see it as committed. So the snapshots are kept,
//! too: whoever has the log can tell whether a commit before the position is in none of them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use obyra_postgres::tokio_postgres::SimpleQueryMessage;
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Session, sql_failure};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How often a quiet instant is sought, and how long it is waited in between.
const TRIES: u32 = 200;
const BETWEEN: Duration = Duration::from_millis(50);

/// Which transactions are committed for whoever holds it (`pg_snapshot`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Visible {
    /// From here on none is.
    ends: u64,
    /// These were running.
    running: Vec<u64>,
    text: String,
}

impl Visible {
    /// Whether a transaction is, by the 32 bits of its number that the log has.
    pub(crate) fn has(&self, xid: u32) -> bool {
        let low = |xid: u64| (xid & u64::from(u32::MAX)) as u32;
        // As the server compares: numbers go round.
        let is_before = xid.wrapping_sub(low(self.ends)).cast_signed() < 0;
        is_before && self.running.iter().all(|running| low(*running) != xid)
    }
}

impl From<Visible> for String {
    fn from(visible: Visible) -> String {
        visible.text
    }
}

impl TryFrom<String> for Visible {
    type Error = String;

    /// `xmin:xmax:xip,xip`
    fn try_from(text: String) -> std::result::Result<Visible, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let malformed = || format!("not a snapshot: {text:?}");
        let [_, ends, running] = parts[..] else { return Err(malformed()) };
        let ends = ends.parse().map_err(|_| malformed())?;
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(str::parse);
        let running = running.collect::<std::result::Result<_, _>>().map_err(|_| malformed())?;
        Ok(Visible { ends, running, text })
    }
}

/// Snapshots that are held by their sessions until these end their transactions.
pub(super) struct Held {
    /// By the server's clock.
    pub time: Timestamp,
    /// The position, if nothing was written meanwhile.
    pub at: Option<Lsn>,
    /// What the sessions see: the same, unless a transaction became visible meanwhile.
    pub visible: Vec<Visible>,
}

/// Opens a transaction in every session, if possible all of one instant.
pub(super) async fn hold(control: &Session, sessions: &[(Session, String)]) -> Result<Held> {
    for left in (0..TRIES).rev() {
        let snapshots = try_join_all(sessions.iter().map(|(session, _)| snapshot(session))).await?;
        let first = snapshots.first().map(|snapshot| snapshot.before);
        let is_quiet = snapshots.iter().all(|one| Some(one.before) == first && Some(one.after) == first);
        if is_quiet || left == 0 {
            let visible: BTreeSet<Visible> = snapshots.into_iter().map(|snapshot| snapshot.visible).collect();
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
    visible: Visible,
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
    let visible = Visible::try_from(visible.to_owned()).map_err(malformed)?;
    Ok(Snapshot { before: before.parse()?, after: after.parse()?, visible })
}

async fn now(control: &Session) -> Result<Timestamp> {
    let sql = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint";
    let row = control.query_one(sql, &[]).await.map_err(failed)?;
    Ok(Timestamp::from_microsecond(row.get(0)).unwrap_or_default())
}

fn failed(error: obyra_postgres::tokio_postgres::Error) -> Failure {
    sql_failure(text::backup::FIGURES.message(), &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_sees() {
        let see = |text: &str| Visible::try_from(text.to_owned()).unwrap();
        let plain = see("100:105:101,103");
        let seen: Vec<u32> = (99..107).filter(|xid| plain.has(*xid)).collect();
        assert_eq!(seen, [99, 100, 102, 104]);
        // In the second epoch, just after the numbers went round.
        let round = see("8589934590:8589934594:8589934590,8589934593");
        let seen: Vec<u32> =
            [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 2].into_iter().filter(|x| round.has(*x)).collect();
        assert_eq!(seen, [u32::MAX - 2, u32::MAX, 0]);
        assert_eq!(String::from(see("1:1:")), "1:1:");
        for bad in ["", "1:2", "1:2:x", "a:b:"] {
            assert!(Visible::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
