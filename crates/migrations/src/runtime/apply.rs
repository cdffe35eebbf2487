//! Applies exported files: under the caller's lock, observed again, each in its transaction, and seen to be
//! done from another connection.

use std::collections::BTreeSet;
use std::time::Instant;

use obyra_evidence::{Failure, Place, Progress, Result, text};
use obyra_postgres::tokio_postgres::error::ErrorPosition;
use obyra_postgres::tokio_postgres::{Error, SimpleQueryMessage};
use obyra_postgres::{ChangeLock, Session};
use serde::Serialize;

use super::Helper;
use super::plan::{Action, Plan, Step, observe, plan};
use super::prove::Ground;

/// A file that was applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    /// Its name.
    pub file: String,
    /// Its checksum.
    pub checksum: String,
    /// How long it took.
    pub seconds: f64,
    /// Rows that its statements touched.
    pub rows: u64,
}

/// A plan with what it was made from.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The files.
    pub helper: &'a Helper,
    /// What is to be done about them.
    pub plan: &'a Plan,
    /// The search path of the role that runs them.
    pub ground: &'a Ground,
    /// The checksums of files that a check on record has proven.
    pub proven: &'a BTreeSet<String>,
}

/// Applies what a plan says. The lock is the caller's, of the same session; `session` is the role's that runs
/// the files, with its `lock_timeout`; `witness` is another session of the same role.
///
/// Files before a failing one stay applied; the failing one leaves nothing behind.
pub async fn apply(
    session: &Session,
    _lock: &ChangeLock,
    planned: Planned<'_>,
    witness: &Session,
    progress: &dyn Progress,
) -> Result<Vec<Applied>> {
    let again = async |session: &Session| {
        let observed = observe(session, planned.helper).await?;
        plan(planned.helper, &observed, planned.ground, planned.proven)
    };
    if again(session).await? != *planned.plan {
        return Err(Failure::refused(text::runtime::PLAN_CHANGED).mended_by(text::runtime::MEND_PLAN_CHANGED));
    }
    if let Some(step) = planned.plan.steps.iter().find(|step| step.action == Action::Refuse) {
        return Err(Failure::refused(step.reason.clone())
            .at(step.place.clone())
            .mended_by(text::runtime::MEND_UNCHECKED));
    }
    let to_run: Vec<&Step> = planned.plan.to_run().collect();
    progress.begin(text::runtime::APPLYING.message(), Some(to_run.len() as u64));
    let mut applied = Vec::with_capacity(to_run.len());
    for step in to_run {
        applied.push(file(session, planned.helper, step).await?);
        progress.advance(1);
    }
    progress.done();
    // What was committed, another connection sees: no guard has anything to ask for any more.
    let after = again(witness).await?;
    if let Some(step) = after.steps.iter().find(|step| step.action == Action::Run) {
        return Err(
            Failure::new(text::runtime::NOT_DONE.with("file", step.file.display())).at(step.place.clone())
        );
    }
    Ok(applied)
}

/// One file in one transaction: all of it or nothing.
async fn file(session: &Session, helper: &Helper, step: &Step) -> Result<Applied> {
    let entry = helper.files().iter().find(|entry| entry.path() == step.file);
    let text =
        entry.and_then(|entry| entry.source().ok()).map(|source| source.text.as_str()).unwrap_or_default();
    session.take_notices();
    let began = Instant::now();
    let outcome = in_transaction(session, text, step).await;
    if outcome.is_err() {
        // Outside of a transaction this is a warning, and on a lost connection nothing.
        let _ = session.batch_execute("ROLLBACK").await;
    }
    let rows = outcome?;
    let file = step.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Applied { file, checksum: step.checksum.clone(), seconds: began.elapsed().as_secs_f64(), rows })
}

async fn in_transaction(session: &Session, text: &str, step: &Step) -> Result<u64> {
    let begun = transaction(session, "BEGIN; SELECT pg_catalog.pg_current_xact_id()", step).await?;
    let answers = match session.simple_query(text).await {
        Ok(answers) => answers,
        Err(error) => return Err(failed(session, step, text, &error).await),
    };
    let ended = transaction(session, "SELECT pg_catalog.pg_current_xact_id_if_assigned()", step).await?;
    if begun.is_none() || begun != ended {
        return Err(
            Failure::new(text::runtime::ESCAPED.with("file", step.file.display())).at(step.place.clone())
        );
    }
    if let Err(error) = session.batch_execute("COMMIT").await {
        return Err(failed(session, step, "", &error).await);
    }
    // What a file sets ends with it.
    session.reset().await?;
    let rows = answers.iter().map(|answer| match answer {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    });
    Ok(rows.sum())
}

async fn transaction(session: &Session, query: &str, step: &Step) -> Result<Option<String>> {
    match session.simple_query(query).await {
        Ok(answer) => Ok(answer.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })),
        Err(error) => Err(failed(session, step, "", &error).await),
    }
}

async fn failed(session: &Session, step: &Step, text: &str, error: &Error) -> Failure {
    let what = text::runtime::APPLY_FAILED.with("file", step.file.display());
    let pointed = match error.as_db_error().and_then(|said| said.position()) {
        // The server counts characters from 1.
        Some(ErrorPosition::Original(character)) => Some(*character as usize),
        _ => None,
    };
    let place = pointed.map_or_else(|| step.place.clone(), |character| place(step, text, character));
    session.failure(what, error).await.at(place)
}

fn place(step: &Step, text: &str, character: usize) -> Place {
    let before: String = text.chars().take(character.saturating_sub(1)).collect();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place {
        file: step.file.clone(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
