//! One lock per database for whatever changes it: access, migrations, seeds.
//!
//! It is an advisory lock of the session, so the server gives it back by itself when the
//! program dies, and the same session may take it again inside a transaction.

use std::time::Duration;

use obyra_evidence::{Failure, Message, text};
use tokio::time::{Instant, sleep};

use crate::{Result, Session, sql_failure};

/// The lock's key as a SQL expression. `pg_advisory_xact_lock(…)` of this key within the
/// session that holds the [`ChangeLock`] is granted at once.
pub const CHANGE_LOCK_KEY_SQL: &str =
    "pg_catalog.hashtextextended('obyra-db:' || pg_catalog.current_database(), 0)";

/// Asking again this often costs the server nothing, and a person does not notice the delay.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The right to change this database, held until [`ChangeLock::release`] or the end of the session.
#[derive(Debug)]
#[must_use = "the lock is held until it is released or the session ends"]
pub struct ChangeLock {
    backend: i32,
}

impl ChangeLock {
    /// Takes the lock, waiting so long at most. When it cannot, the failure says who holds it.
    pub async fn acquire(session: &Session, wait: Duration) -> Result<ChangeLock> {
        let deadline = Instant::now() + wait;
        let ask = format!(
            "SELECT pg_catalog.pg_try_advisory_lock({CHANGE_LOCK_KEY_SQL}), pg_catalog.pg_backend_pid()"
        );
        loop {
            let answer = session.query_one(&ask, &[]).await.map_err(|e| failed(&e))?;
            if answer.get(0) {
                return Ok(ChangeLock { backend: answer.get(1) });
            }
            if Instant::now() >= deadline {
                return Err(busy(session, wait).await);
            }
            sleep(ASK_AGAIN_AFTER.min(deadline - Instant::now())).await;
        }
    }

    /// Gives the lock back.
    pub async fn release(self, session: &Session) -> Result<()> {
        let give = format!(
            "SELECT pg_catalog.pg_advisory_unlock({CHANGE_LOCK_KEY_SQL}), pg_catalog.pg_backend_pid()"
        );
        let answer = session.query_one(&give, &[]).await.map_err(|e| failed(&e))?;
        let (given, backend): (bool, i32) = (answer.get(0), answer.get(1));
        if given && backend == self.backend {
            return Ok(());
        }
        // A pooler that hands out another server connection for each transaction loses session locks.
        Err(Failure::new(text::postgres::LOCK_LOST).mended_by(text::postgres::MEND_POOLER))
    }
}

fn failed(error: &tokio_postgres::Error) -> Failure {
    sql_failure(text::postgres::LOCK_FAILED.message(), error)
}

/// Who holds the lock. Somebody without `pg_read_all_stats` sees no start of other roles' sessions.
async fn busy(session: &Session, wait: Duration) -> Failure {
    let who = format!(
        "SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''),
                to_char(coalesce(a.xact_start, a.backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
           FROM pg_catalog.pg_locks l
           LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
          WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND (l.classid::bigint << 32) | l.objid::bigint = {CHANGE_LOCK_KEY_SQL}
          LIMIT 1"
    );
    let waited = format!("{:.0}", wait.as_secs_f64());
    match session.query_opt(&who, &[]).await {
        Ok(Some(holder)) => {
            let since: Option<String> = holder.get(3);
            Failure::new(
                text::postgres::LOCK_HELD
                    .with("seconds", waited)
                    .with("pid", holder.get::<_, i32>(0))
                    .with("application", holder.get::<_, String>(1))
                    .with("role", holder.get::<_, String>(2))
                    .with("since", since.as_deref().unwrap_or("?")),
            )
            .mended_by(text::postgres::MEND_LOCK_HELD.with("pid", holder.get::<_, i32>(0)))
        }
        Ok(None) => Failure::new(text::postgres::LOCK_BUSY.with("seconds", waited))
            .mended_by(text::postgres::MEND_AGAIN),
        Err(error) => failed(&error),
    }
}

/// Who holds a lock that even readers wait for, as what mends a lock timeout: the oldest such session
/// of this database. `None` where there is none any more, or where it cannot be asked.
pub async fn lock_holder(session: &Session) -> Option<Message> {
    let who = "SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), l.relation::regclass::text,
                      coalesce(to_char(coalesce(a.xact_start, a.backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '?')
                 FROM pg_catalog.pg_locks l
                 LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
                WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock'
                  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                  AND l.pid <> pg_catalog.pg_backend_pid()
                ORDER BY a.xact_start, l.relation
                LIMIT 1";
    let holder = session.query_opt(who, &[]).await.ok()??;
    Some(
        text::postgres::MEND_LOCK_HOLDER
            .with("pid", holder.get::<_, i32>(0))
            .with("application", holder.get::<_, String>(1))
            .with("role", holder.get::<_, String>(2))
            .with("table", holder.get::<_, String>(3))
            .with("since", holder.get::<_, String>(4)),
    )
}
