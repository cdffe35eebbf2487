//! Applies the pending seeds: under the caller's lock, observed again, each in its transaction.

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::{ChangeLock, Session};
use serde::Serialize;

use crate::run::run;
use crate::{Action, Observed, Plan, Result, Seed, Step, Tracking, observe, plan};

/// A seed that was applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// How many statements it had.
    pub statements: usize,
    /// How many rows they touched.
    pub rows: u64,
    /// What the server remarked (`RAISE NOTICE`).
    pub notices: Vec<String>,
}

/// A plan with the seeds it was made from and the table it was compared with.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The seeds.
    pub seeds: &'a [Seed],
    /// What is to be done about them.
    pub plan: &'a Plan,
    /// Where it is recorded.
    pub tracking: &'a Tracking,
}

/// Applies what a plan says. The lock is the caller's, of the same session; the session is the role's
/// that runs seeds, best with [`obyra_postgres::Limits::patient`].
///
/// Seeds before a failing one stay applied and recorded; the failing one leaves nothing behind.
pub async fn apply(
    session: &Session,
    _lock: &ChangeLock,
    planned: Planned<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Applied>> {
    let observed = observe(session, planned.tracking).await?;
    if plan(planned.seeds, &observed) != *planned.plan {
        return Err(Failure::refused(text::seeds::PLAN_CHANGED).mended_by(text::seeds::MEND_PLAN_CHANGED));
    }
    refuse_changed(planned)?;
    let seed_of = |step: &Step| planned.seeds.iter().find(|seed| seed.number == step.number);
    let pending: Vec<&Seed> = planned.plan.to_run().filter_map(seed_of).collect();
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    if observed == Observed::Absent {
        create_table(session, planned.tracking).await?;
    }
    progress.begin(text::seeds::APPLYING.message(), Some(pending.len() as u64));
    let outcome = apply_each(session, &pending, planned.tracking, progress).await;
    progress.done();
    outcome
}

async fn apply_each(
    session: &Session,
    pending: &[&Seed],
    tracking: &Tracking,
    progress: &dyn Progress,
) -> Result<Vec<Applied>> {
    let mut applied = Vec::with_capacity(pending.len());
    for seed in pending {
        let ran = run(session, seed, Some(tracking)).await?;
        progress.advance(1);
        progress.note(
            text::seeds::APPLIED
                .with("seed", seed.label())
                .with("seconds", format!("{:.3}", ran.duration.as_secs_f64()))
                .with("rows", ran.rows),
        );
        applied.push(Applied {
            number: seed.number,
            name: seed.name.clone(),
            duration_seconds: ran.duration.as_secs_f64(),
            statements: ran.statements,
            rows: ran.rows,
            notices: ran.notices,
        });
    }
    Ok(applied)
}

/// A changed seed stops all of them: those after it may build on what it now says.
fn refuse_changed(planned: Planned<'_>) -> Result<()> {
    let Some(step) = planned.plan.steps.iter().find(|step| step.action == Action::Refuse) else {
        return Ok(());
    };
    let failure = Failure::refused(
        text::seeds::CHANGED_REFUSED.with("seed", format!("{:03}_{}", step.number, step.name)),
    )
    .because(&step.reason)
    .mended_by(text::seeds::MEND_CHANGED);
    Err(match planned.seeds.iter().find(|seed| seed.number == step.number) {
        Some(seed) => failure.at(seed.place(0)),
        None => failure,
    })
}

async fn create_table(session: &Session, tracking: &Tracking) -> Result<()> {
    let table = tracking.sql();
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            number           integer PRIMARY KEY,
            name             text NOT NULL,
            checksum         text NOT NULL,
            applied_at       timestamptz NOT NULL,
            duration_seconds double precision NOT NULL,
            applied_by       text NOT NULL
         );
         COMMENT ON TABLE {table} IS 'Seeds applied by obyra-db'"
    );
    match session.batch_execute(&create).await {
        Ok(()) => {
            session.take_notices();
            Ok(())
        }
        Err(error) => {
            Err(session.failure(text::seeds::TRACKING_NOT_CREATED.with("table", table), &error).await)
        }
    }
}
