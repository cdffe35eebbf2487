//! Doing it: under the lock, in one transaction, and only what was approved.
//!
//! Inside the transaction the database is observed again: other steps than the approved ones
//! stop it. Before COMMIT it is observed once more: a step that the server accepted without
//! doing it, or access that anybody has beyond the policy, rolls everything back.

mod transaction;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use obyra_evidence::{Failure, Finding, Progress, text};
use obyra_postgres::secrecy::SecretString;
use obyra_postgres::{ChangeLock, Session, sql_failure};

use crate::observe::observe;
use crate::plan::plan;
use crate::{Plan, Policy, Result, Step, Target};

/// How often, and how far apart, a setting is looked for after the server was told to read it.
const RELOAD_CHECKS: u32 = 20;
const RELOAD_PAUSE: Duration = Duration::from_millis(50);

/// What is to be applied.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// What is wanted.
    pub policy: &'a Policy,
    /// Where.
    pub target: &'a Target,
    /// The plan that was approved.
    pub approved: &'a Plan,
    /// New passwords by role. Only their SCRAM verifiers reach the server.
    pub passwords: &'a BTreeMap<String, SecretString>,
}

/// How patiently it is applied.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long to wait for another run on this database; `None` when the caller holds the lock.
    pub change_lock: Option<Duration>,
    /// How long a statement waits for a lock on an object.
    pub lock_timeout: Duration,
    /// How often a transaction that meets another's lock is tried.
    pub attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            change_lock: Some(Duration::from_secs(30)),
            lock_timeout: Duration::from_secs(5),
            attempts: 6,
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The steps that were taken.
    pub steps: usize,
    /// The roles whose password was set.
    pub passwords: Vec<String>,
    /// In how many transactions.
    pub transactions: u32,
    /// How often another's lock made a transaction start over.
    pub retries: u32,
    /// How many questions of effective access the server answered as the policy implies.
    pub verified: usize,
    /// What remains to be known.
    pub findings: Vec<Finding>,
}

/// Applies an approved plan.
pub async fn apply(
    session: &Session,
    order: Order<'_>,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<Applied> {
    let Some(wait) = patience.change_lock else { return locked(session, order, patience, progress).await };
    let lock = ChangeLock::acquire(session, wait).await?;
    let applied = locked(session, order, patience, progress).await;
    match applied {
        Ok(applied) => lock.release(session).await.map(|()| applied),
        // The first failure says more than a second one about the lock; the session's end frees it.
        Err(failure) => {
            let _ = lock.release(session).await;
            Err(failure)
        }
    }
}

async fn locked(
    session: &Session,
    order: Order<'_>,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<Applied> {
    let count = order.approved.steps.len();
    progress.begin(text::access::APPLYING.with("count", count), Some(count as u64));
    let applied = transactions(session, order, patience, progress).await;
    progress.done();
    let mut applied = applied?;
    let settings: Vec<&Step> = order.approved.steps.iter().filter(|s| !s.is_transactional()).collect();
    applied.steps += settings.len();
    server_settings(session, order, &settings).await?;
    Ok(applied)
}

/// Runs transactions until nothing is left to do. More than one is rare.
async fn transactions(
    session: &Session,
    order: Order<'_>,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<Applied> {
    let mut applied = Applied::default();
    loop {
        let part = transaction::run(session, order, patience, applied.transactions == 0).await?;
        applied.transactions += 1;
        applied.steps += part.steps;
        applied.retries += part.retries;
        applied.verified += part.verified;
        applied.passwords.extend(part.passwords);
        progress.advance(part.steps as u64);
        if !part.more {
            applied.findings = part.findings;
            return Ok(applied);
        }
    }
}

/// `ALTER SYSTEM` cannot be taken back by a transaction, so it comes after everything else holds.
async fn server_settings(session: &Session, order: Order<'_>, steps: &[&Step]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        for statement in &step.sql {
            session.batch_execute(statement).await.map_err(|e| step_failed(step, &e))?;
        }
    }
    let reload = "SELECT pg_catalog.pg_reload_conf()";
    session
        .batch_execute(reload)
        .await
        .map_err(|e| sql_failure(text::access::RELOAD_FAILED.message(), &e))?;
    // The server tells its processes one by one; ours hears of it a moment later.
    for _ in 0..RELOAD_CHECKS {
        let observed = observe(session, order.policy, order.target).await?;
        let left = plan(order.policy, order.target, &observed);
        if left.steps.iter().all(Step::is_transactional) {
            break;
        }
        tokio::time::sleep(RELOAD_PAUSE).await;
    }
    Ok(())
}

fn step_failed(step: &Step, error: &obyra_postgres::tokio_postgres::Error) -> Failure {
    let what = text::access::STEP_FAILED.with("subject", &step.subject).with("reason", &step.reason);
    sql_failure(what, error)
}
