//! One seed in one transaction.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use obyra_evidence::{Failure, Message, text};
use obyra_postgres::{Session, quote};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::ErrorPosition;

use crate::{Result, Seed, Tracking};

/// What a seed did.
pub(crate) struct Ran {
    pub duration: Duration,
    pub statements: usize,
    pub rows: u64,
    pub notices: Vec<String>,
}

/// Runs a seed and, if it is to be tracked, records it: all of it or nothing.
pub(crate) async fn run(session: &Session, seed: &Seed, tracking: Option<&Tracking>) -> Result<Ran> {
    let outcome = in_transaction(session, seed, tracking).await;
    if outcome.is_err() {
        // Outside of a transaction this is a warning, and on a lost connection nothing.
        let _ = session.batch_execute("ROLLBACK").await;
    }
    let notices = session.take_notices();
    outcome.map(|ran| Ran { notices, ..ran })
}

async fn in_transaction(session: &Session, seed: &Seed, tracking: Option<&Tracking>) -> Result<Ran> {
    session.take_notices();
    let begun = transaction_id(session, seed, "BEGIN; SELECT pg_catalog.pg_current_xact_id()").await?;
    let started = Instant::now();
    let (statements, rows) = execute(session, seed).await?;
    let duration = started.elapsed();
    let ended = transaction_id(session, seed, "SELECT pg_catalog.pg_current_xact_id_if_assigned()").await?;
    if begun.is_none() || begun != ended {
        // The scan refuses COMMIT and its like before anything runs: this is the proof that it saw all.
        return Err(Failure::new(text::seeds::ESCAPED.with("seed", seed.label())).at(seed.place(0)));
    }
    // What a seed SETs ends with the seed, also for the row that records it.
    session.reset().await?;
    if let Some(tracking) = tracking {
        record(session, seed, tracking, duration).await?;
    }
    match session.batch_execute("COMMIT").await {
        Ok(()) => Ok(Ran { duration, statements, rows, notices: Vec::new() }),
        // Deferred constraints speak up here.
        Err(error) => Err(session.failure(failed(seed), &error).await.at(seed.place(0))),
    }
}

fn failed(seed: &Seed) -> Message {
    text::seeds::FAILED.with("seed", seed.label())
}

/// The last value of a query, for a transaction's id.
async fn transaction_id(session: &Session, seed: &Seed, query: &str) -> Result<Option<String>> {
    match session.simple_query(query).await {
        Ok(answer) => Ok(answer.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })),
        Err(error) => Err(session.failure(failed(seed), &error).await),
    }
}

/// Sends the whole text at once, so that a thousand statements cost one round trip, and counts
/// the answers, so that an error without a position still belongs to a statement.
async fn execute(session: &Session, seed: &Seed) -> Result<(usize, u64)> {
    let (mut statements, mut rows) = (0, 0);
    if seed.statements.is_empty() {
        // The server's answer to nothing would count as one.
        return Ok((statements, rows));
    }
    let error = match session.simple_query_raw(&seed.text).await {
        Err(error) => error,
        Ok(answers) => {
            let mut answers = pin!(answers);
            loop {
                match answers.try_next().await {
                    Ok(Some(SimpleQueryMessage::CommandComplete(affected))) => {
                        statements += 1;
                        rows += affected;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok((statements, rows)),
                    Err(error) => break error,
                }
            }
        }
    };
    let failure = session.failure(failed(seed), &error).await;
    Err(match error.as_db_error() {
        Some(said) => failure.at(seed.place(position(seed, said.position(), statements))),
        None => failure,
    })
}

/// The byte at fault: where the server points, else where the failed statement begins.
fn position(seed: &Seed, pointed: Option<&ErrorPosition>, completed: usize) -> usize {
    match pointed {
        // The server counts characters from 1.
        Some(ErrorPosition::Original(character)) => seed
            .text
            .char_indices()
            .nth((*character as usize).saturating_sub(1))
            .map_or(seed.text.len(), |(byte, _)| byte),
        // A position inside a function's own query says nothing about the file.
        _ => seed.statements.get(completed).map_or(0, |statement| statement.start),
    }
}

async fn record(session: &Session, seed: &Seed, tracking: &Tracking, duration: Duration) -> Result<()> {
    let table = tracking.sql();
    let insert = format!(
        "INSERT INTO {table} AS t (number, name, checksum, applied_at, duration_seconds, applied_by)
         VALUES ({}, {}, {}, pg_catalog.now(), {:.3}, session_user)
         ON CONFLICT (number) DO UPDATE
            SET name = EXCLUDED.name, checksum = EXCLUDED.checksum, applied_at = EXCLUDED.applied_at,
                duration_seconds = EXCLUDED.duration_seconds, applied_by = EXCLUDED.applied_by",
        seed.number,
        quote::literal(&seed.name),
        quote::literal(&seed.checksum),
        duration.as_secs_f64(),
    );
    match session.batch_execute(&insert).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let what = text::seeds::NOT_RECORDED.with("seed", seed.label()).with("table", table);
            Err(session.failure(what, &error).await)
        }
    }
}

#[cfg(test)]
mod tests {
    use obyra_postgres::cluster::for_tests;
    use obyra_postgres::{Limits, Session};

    use super::*;

    /// The scan would refuse these texts. Should it ever miss one, this is what happens.
    #[tokio::test]
    async fn a_seed_that_escapes_is_reported_and_not_recorded() {
        let cluster = for_tests().await;
        let session = Session::connect(&cluster.admin(), Limits::patient()).await.unwrap();
        session.batch_execute("CREATE TABLE t (a int)").await.unwrap();
        let harmless = Seed::new(1, "a", "001_a.sql", "SELECT 1".into()).unwrap();
        for text in ["INSERT INTO t VALUES (1); COMMIT", "COMMIT; BEGIN; SELECT 1", "ROLLBACK; BEGIN"] {
            let seed = Seed { text: text.into(), ..harmless.clone() };
            let failure = run(&session, &seed, None).await.err().unwrap();
            assert_eq!(failure.what.code(), text::seeds::ESCAPED, "{text}");
            // The session is out of any transaction again.
            session.batch_execute("VACUUM t").await.unwrap();
        }
    }
}
