//! One transaction: observe, compare with what was approved, change, verify, commit. It starts
//! over when another session was in the way, and only then.

use std::collections::BTreeSet;
use std::time::Duration;

use obyra_evidence::{Failure, Finding, text};
use obyra_postgres::secrecy::ExposeSecret;
use obyra_postgres::tokio_postgres::Error;
use obyra_postgres::tokio_postgres::error::SqlState;
use obyra_postgres::{Session, lock_holder, scram_verifier, sql_failure};

use super::{Order, Patience, step_failed, verify};
use crate::observe::{Observed, observe};
use crate::quote::{ident, literal};
use crate::{Plan, Result, Step, plan::plan};

/// The pause before a second attempt; each further one is twice as long, up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What one transaction did.
pub(super) struct Part {
    pub(super) steps: usize,
    pub(super) passwords: Vec<String>,
    pub(super) retries: u32,
    pub(super) verified: usize,
    /// Whether steps are left for another transaction.
    pub(super) more: bool,
    pub(super) findings: Vec<Finding>,
}

/// Why an attempt failed: for good, or because somebody was in the way.
enum Trouble {
    Final(Failure),
    InTheWay(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Final(failure)
    }
}

/// Runs one transaction, again and again while others are in its way and patience lasts.
pub(super) async fn run(
    session: &Session,
    order: Order<'_>,
    patience: &Patience,
    first: bool,
) -> Result<Part> {
    let mut pause = FIRST_PAUSE;
    let mut retries = 0;
    loop {
        let failure = match attempt(session, order, patience, first).await {
            Ok(part) => return Ok(Part { retries, ..part }),
            Err(trouble) => {
                // After a lost connection there is nothing left to roll back.
                let _ = session.batch_execute("ROLLBACK").await;
                match trouble {
                    Trouble::Final(failure) => return Err(failure),
                    Trouble::InTheWay(failure) => failure,
                }
            }
        };
        retries += 1;
        if retries >= patience.attempts {
            let holder = lock_holder(session).await;
            return Err(failure.mended_by(holder.unwrap_or_else(|| text::access::MEND_IN_THE_WAY.message())));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(
    session: &Session,
    order: Order<'_>,
    patience: &Patience,
    first: bool,
) -> std::result::Result<Part, Trouble> {
    let timeout = patience.lock_timeout.as_millis();
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {timeout}; \
         SET LOCAL search_path = pg_catalog"
    );
    execute(session, &begin, |e| sql_failure(text::access::TRANSACTION_FAILED.message(), e)).await?;
    let before = observe(session, order.policy, order.target).await?;
    let now = plan(order.policy, order.target, &before);
    agree(order.approved, &now, first)?;
    let todo: Vec<&Step> = now.steps.iter().filter(|s| s.is_transactional()).collect();
    let batch = todo.first().map_or(0, |step| step.batch);
    let (mine, later): (Vec<&Step>, Vec<&Step>) = todo.into_iter().partition(|s| s.batch == batch);
    for step in &mine {
        execute(session, &step.sql.join(";\n"), |e| denied(step, &before, e)).await?;
    }
    let passwords = if first { set_passwords(session, order).await? } else { Vec::new() };
    let (mut verified, mut findings) = (0, now.findings);
    if later.is_empty() && !(mine.is_empty() && passwords.is_empty()) {
        let after = observe(session, order.policy, order.target).await?;
        findings = complete(order, &after)?;
        verified = verify::effective(session, order, &after).await?;
    }
    execute(session, "COMMIT", |e| sql_failure(text::access::TRANSACTION_FAILED.message(), e)).await?;
    Ok(Part { steps: mine.len(), passwords, retries: 0, verified, more: !later.is_empty(), findings })
}

/// Whether the steps are still the approved ones. After a first transaction they are what is left
/// of them.
fn agree(approved: &Plan, now: &Plan, first: bool) -> Result<()> {
    let known: BTreeSet<&String> = approved.steps.iter().flat_map(|s| &s.sql).collect();
    let fresh = now.steps.iter().find(|step| step.sql.iter().any(|sql| !known.contains(sql)));
    let same = if first { approved.fingerprint == now.fingerprint } else { fresh.is_none() };
    if same {
        return Ok(());
    }
    let failure = Failure::refused(text::access::CHANGED_MEANWHILE).mended_by(text::access::MEND_PLAN_AGAIN);
    Err(match fresh {
        Some(step) => failure.because(&step.reason),
        None => failure,
    })
}

async fn execute(
    session: &Session,
    sql: &str,
    failed: impl FnOnce(&Error) -> Failure,
) -> std::result::Result<(), Trouble> {
    match session.batch_execute(sql).await {
        Ok(()) => Ok(()),
        Err(error) if is_in_the_way(&error) => Err(Trouble::InTheWay(failed(&error))),
        Err(error) => Err(Trouble::Final(failed(&error))),
    }
}

/// Whether another session was in the way, so that a moment later the same transaction succeeds, or
/// finds that the database is no longer the one that the plan was made for: names that came or
/// went show only when a statement meets them.
fn is_in_the_way(error: &Error) -> bool {
    const CODES: [SqlState; 7] = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNDEFINED_OBJECT,
        SqlState::UNDEFINED_TABLE,
    ];
    let Some(said) = error.as_db_error() else { return false };
    // "tuple concurrently updated" has no code of its own: two sessions changed one catalogue row.
    CODES.contains(said.code())
        || (*said.code() == SqlState::INTERNAL_ERROR && said.message().starts_with("tuple concurrently"))
}

/// A step's failure; a denied one names the membership that the connected role lacks.
fn denied(step: &Step, observed: &Observed, error: &Error) -> Failure {
    let failure = step_failed(step, error);
    if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return failure;
    }
    match missing_grant(step, observed) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    }
}

/// The grant that would let the connected role take a step.
fn missing_grant(step: &Step, observed: &Observed) -> Option<obyra_evidence::Message> {
    let me = observed.current_role()?;
    let role = step.acts_for.iter().find(|role| **role != me.name)?;
    let options = if observed.server.version.at_least(16) { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    let sql = format!("GRANT {} TO {}{options}", ident(role), ident(&me.name));
    Some(text::access::MEND_RUN_AS_ADMIN.with("sql", sql))
}

async fn set_passwords(session: &Session, order: Order<'_>) -> std::result::Result<Vec<String>, Trouble> {
    for (role, password) in order.passwords {
        let verifier = scram_verifier(password);
        let sql = format!("ALTER ROLE {} PASSWORD {}", ident(role), literal(verifier.expose_secret()));
        execute(session, &sql, |e| sql_failure(text::access::PASSWORD_FAILED.with("role", role), e)).await?;
    }
    Ok(order.passwords.keys().cloned().collect())
}

/// Nothing must be left to do. What is left was accepted by the server and yet not done: a GRANT by
/// someone who is not the owner is a warning, not an error.
fn complete(order: Order<'_>, after: &Observed) -> Result<Vec<Finding>> {
    let rest = plan(order.policy, order.target, after);
    let Some(step) = rest.steps.iter().find(|s| s.is_transactional()) else { return Ok(rest.findings) };
    let me = after.role_name(after.server.current_role);
    let failure = Failure::new(text::access::WITHOUT_EFFECT.with("admin", me).with("subject", &step.subject))
        .because(step.sql.join("; "));
    Err(match missing_grant(step, after) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    })
}
