//! The application's smoke queries, on the restored database.

use std::time::Duration;

use obyra_evidence::text;
use obyra_postgres::tokio_postgres::SimpleQueryMessage;
use obyra_postgres::{Limits, Session};

use super::checks::Check;
use crate::restore::Instance;
use crate::{Result, SmokeQuery};

/// A query that takes longer is not the kind that a drill asks.
const LIMIT: Duration = Duration::from_secs(600);
/// Characters of a query by which it is known.
const SHOWN: usize = 60;

pub(super) async fn check(instance: &Instance, database: &str, query: &SmokeQuery) -> Result<Check> {
    let name = text::backup::DRILL_QUERY;
    let shown: String = query.sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = shown.chars().take(SHOWN).collect();
    let limits = Limits { statement_timeout: Some(LIMIT), ..Limits::default() };
    let session = Session::connect(&instance.restored.admin(database)?, limits).await?;
    let sql = format!("BEGIN READ ONLY; {}", query.sql);
    let found = match session.simple_query(&sql).await {
        Ok(messages) => first_value(&messages),
        Err(error) => {
            let why =
                error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            return Ok(Check::failed(name, text::backup::DRILL_QUERY_FAILED.with("query", shown), why));
        }
    };
    let as_text = |found: &Option<String>| found.clone().unwrap_or_else(|| "NULL".to_owned());
    Ok(match (&found, &query.expect) {
        (None, _) => Check::failed(name, text::backup::DRILL_QUERY_EMPTY.with("query", shown), String::new()),
        (Some(value), Some(expected)) if value.as_ref() != Some(expected) => {
            let what = text::backup::DRILL_QUERY_OTHER.with("query", shown).with("expected", expected);
            Check::failed(name, what.with("found", as_text(value)), String::new())
        }
        (Some(value), _) => Check::passed(
            name,
            text::backup::DRILL_QUERY_RIGHT.with("query", shown).with("found", as_text(value)),
        ),
    })
}

/// The first column of the first row of the last statement that has rows; NULL is a value.
fn first_value(messages: &[SimpleQueryMessage]) -> Option<Option<String>> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.try_get(0).ok().flatten().map(str::to_owned)),
        _ => None,
    })
}
