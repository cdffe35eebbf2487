//! A backup, a DELETE without its WHERE, and the database back at the moment before it.

use obyra_evidence::{Failure, text};
use obyra_postgres::sql_failure;

use super::YES;
use crate::commands::backup::way::{Asked, Way};
use crate::commands::backup::{restore, run, wal};
use crate::environment::Opened;

/// What somebody forgets the end of.
const MISTAKE: &str = "DELETE FROM budget_items";
const COUNT: &str = "SELECT pg_catalog.count(*)::text, pg_catalog.clock_timestamp()::text FROM budget_items";

/// Takes a backup, loses rows, brings them back.
pub async fn mistake(opened: &Opened<'_>) -> Result<(), Failure> {
    let printer = opened.invocation.printer;
    run::take_opened(opened, false).await?;
    let (before, moment) = count(opened).await?;
    printer.line(text::cli::DEMO_ROWS.with("rows", &before).with("at", &moment));
    let session = opened.session().await?;
    let deleted = session.batch_execute(MISTAKE).await;
    deleted.map_err(|e| sql_failure(text::cli::DEMO_MISTAKEN.with("sql", MISTAKE), &e))?;
    drop(session);
    let (after, _) = count(opened).await?;
    printer.line(text::cli::DEMO_MISTAKEN.with("sql", MISTAKE).with("rows", after));
    wal::catch_up(opened).await?;
    let way = Way::find(opened, &Asked { to: &moment, from: None, timeline: None }).await?;
    way.told().into_iter().for_each(|line| printer.line(line));
    let old = restore::in_place(opened, &way, YES).await?;
    let (restored, _) = count(opened).await?;
    printer.line(text::cli::DEMO_BACK.with("rows", &restored));
    if restored != before {
        return Err(Failure::new(text::cli::DEMO_NOT_BACK.with("rows", restored).with("before", before)));
    }
    // Elsewhere the files of before are kept; a demo leaves no heap of them.
    std::fs::remove_dir_all(&old)
        .map_err(|e| Failure::new(text::cli::FILE_UNUSABLE.with("file", old.display())).because(e))
}

/// The rows, and the server's time.
async fn count(opened: &Opened<'_>) -> Result<(String, String), Failure> {
    let session = opened.session().await?;
    let row = session.query_one(COUNT, &[]).await;
    let row = row.map_err(|e| sql_failure(text::cli::DEMO_MISTAKEN.with("sql", COUNT), &e))?;
    Ok((row.get(0), row.get(1)))
}
