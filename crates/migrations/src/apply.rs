//! Doing it: `migrate deploy` brings a database to the head, and proves that it is there.
//!
//! The caller holds the change lock. Each revision is reported with its duration; before each
//! COMMIT the caller may converge privileges in the same transaction; afterwards a second
//! connection must see what the migration saw from inside.

mod attendant;
mod proof;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::{Limits, Result, Session};
use serde::Serialize;

use self::attendant::Attendant;
pub use self::proof::Committed;
use crate::driver::{Complaint, Driver, DriverConnection, Stage, UpgradeError, Workplace};
use crate::observe::{Identity, Objects, observe, version_tables};
use crate::plan::{Plan, plan};
use crate::{Policy, explain};

/// What a deploy works with.
#[derive(Clone, Copy, Debug)]
pub struct Deployment<'a> {
    /// The policy, the project, its Python, and the database as the role that migrates.
    pub work: Workplace<'a>,
    /// The second connection: it holds the change lock, and its eyes are the proof.
    pub admin: &'a Session,
}

/// Called before each COMMIT of the migration, on its own connection: what it does there becomes
/// visible together with the objects that the revisions created, or not at all.
pub trait Converge: Send {
    /// An error rolls the migration back.
    fn converge(&mut self, connection: &mut DriverConnection<'_>) -> impl Future<Output = Result<()>> + Send;
}

/// Leaves the privileges as the revisions and the default privileges make them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unconverged;

impl Converge for Unconverged {
    async fn converge(&mut self, _: &mut DriverConnection<'_>) -> Result<()> {
        Ok(())
    }
}

/// What a deploy did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deployed {
    /// The revisions that the database stood at before: none if it was empty.
    pub from: Vec<String>,
    /// The revision that it stands at now; none if the project has no revisions.
    pub to: Option<String>,
    /// The revisions that were applied, in their order.
    pub revisions: Vec<DeployedRevision>,
    /// Whether it started from the base, so that it proves the whole history.
    pub from_base: bool,
    /// Relations, types, routines and schemas that exist now and did not before.
    pub objects_created: usize,
    /// The tables among them.
    pub tables_created: usize,
    /// How long the revisions' own code took.
    pub seconds: f64,
    /// What the second connection saw afterwards; none if there was nothing to see.
    pub committed: Option<Committed>,
}

/// A revision that was applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeployedRevision {
    /// Its identifier.
    pub id: String,
    /// The first line of its docstring.
    pub doc: String,
    /// Its file.
    pub file: PathBuf,
    /// How long its own code took.
    pub seconds: f64,
}

/// Brings the database to the head. Several heads, an unknown revision, or an application that
/// connects elsewhere are refused before anything runs.
pub async fn deploy(
    deployment: &Deployment<'_>,
    converge: &mut impl Converge,
    progress: &dyn Progress,
) -> Result<Deployed> {
    let Deployment { work, admin } = deployment;
    let mut driver = Driver::start(work).await?;
    let graph = driver.graph(work).await?;
    let observed = observe(work.policy, admin, graph).await?;
    let plan = plan(work.policy, &observed);
    refuse(&plan)?;
    let Some(head) = plan.to.clone().filter(|_| !plan.is_empty()) else {
        let committed = proof::standing(admin, &observed.version_tables).await?;
        return Ok(Deployed::nothing(plan, committed));
    };

    reach(work).await?;
    let before = Objects::seen_by(admin).await?;
    let identity = Identity::of(admin).await?;
    let mut attendant = Attendant::new(deployment, &plan, identity, converge, progress);
    let ended = driver.upgrade(&head, &mut attendant).await;
    attendant.end();
    let seen = attendant.seen;
    match ended {
        Ok(transaction) => {
            let proven = proof::prove(deployment, &transaction, &seen, &before, &head).await?;
            Ok(Deployed::of(plan, seen.revisions, proven))
        }
        Err(UpgradeError::Complaint(complaint)) => {
            let failure = driver.explain(work, &complaint).await;
            let before = seen.before_revision(&before);
            Err(what_stayed(deployment, failure, &complaint, (&plan, before)).await)
        }
        Err(UpgradeError::Failure(failure)) => Err(seen.blame(&plan, failure)),
        // A deploy waits as long as the revisions take.
        Err(UpgradeError::TimedOut) => {
            Err(Failure::new(text::migrations::DRIVER_SILENT.with("status", "timeout")))
        }
    }
}

/// A wrong password or a certificate that does not fit is named better here than by the application's driver.
async fn reach(work: &Workplace<'_>) -> Result<()> {
    match work.target {
        Some(target) => Session::connect(target, Limits::default()).await.map(drop),
        None => Err(Failure::usage(text::migrations::NO_TARGET)),
    }
}

/// A plan with an obstacle is not carried out.
fn refuse(plan: &Plan) -> Result<()> {
    let Some(obstacle) = plan.obstacle() else {
        return Ok(());
    };
    let failure = Failure::refused(obstacle.message.clone());
    let failure = obstacle.place.iter().fold(failure, |failure, place| failure.at(place.clone()));
    Err(obstacle.mend.iter().fold(failure, |failure, mend| failure.mended_by(mend.clone())))
}

/// Adds to a failed upgrade what a second connection finds of it.
async fn what_stayed(
    deployment: &Deployment<'_>,
    failure: Failure,
    complaint: &Complaint,
    (plan, before): (&Plan, Option<&Objects>),
) -> Failure {
    use text::migrations as say;
    let transaction = complaint.transaction.as_ref();
    // autocommit_block() asserts that there is a transaction of Alembic's own.
    if let Some(transaction) = transaction.filter(|t| t.external && complaint.kind == "AssertionError") {
        return explain::silent_rollback(deployment.work.project, transaction.began_at.as_ref());
    }
    let (Stage::Revision, Some(id)) = (complaint.stage, complaint.revision.as_deref()) else {
        return failure;
    };
    let Ok((current, objects)) = standing(deployment.work.policy, deployment.admin).await else {
        return failure;
    };
    let doc = plan.pending.iter().find(|revision| revision.id == id).map_or("", |revision| &revision.doc);
    let left = before.map_or(0, |before| objects.beyond(before));
    let what = if left == 0 { say::REVISION_ROLLED_BACK } else { say::REVISION_LEFT_OBJECTS };
    let what = what.with("revision", id).with("doc", doc).with("current", at(&current));
    let what = if left == 0 { what } else { what.with("count", left) };
    let mend = failure.mend.or_else(|| (left > 0).then(|| say::MEND_LEFT_OBJECTS.message()));
    Failure { what, mend, ..failure }
}

async fn standing(policy: &Policy, admin: &Session) -> Result<(Vec<String>, Objects)> {
    let revisions =
        version_tables(policy, admin).await?.into_iter().flat_map(|table| table.revisions).collect();
    Ok((revisions, Objects::seen_by(admin).await?))
}

/// Revisions as a person reads them.
fn at(revisions: &[String]) -> String {
    if revisions.is_empty() { "base".to_owned() } else { revisions.join(" ") }
}

impl Deployed {
    fn nothing(plan: Plan, committed: Option<Committed>) -> Deployed {
        Deployed {
            from: plan.from,
            to: plan.to,
            revisions: Vec::new(),
            from_base: false,
            objects_created: 0,
            tables_created: 0,
            seconds: 0.0,
            committed,
        }
    }

    fn of(plan: Plan, seconds: BTreeMap<String, f64>, proven: proof::Proven) -> Deployed {
        let revisions = plan.pending.into_iter().map(|revision| DeployedRevision {
            seconds: seconds.get(&revision.id).copied().unwrap_or_default(),
            id: revision.id,
            doc: revision.doc,
            file: revision.file,
        });
        Deployed {
            from_base: plan.from.is_empty(),
            from: plan.from,
            to: plan.to,
            revisions: revisions.collect(),
            objects_created: proven.objects_created,
            tables_created: proven.tables_created,
            seconds: seconds.values().sum(),
            committed: Some(proven.committed),
        }
    }
}
