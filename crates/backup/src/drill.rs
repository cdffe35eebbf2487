//! The drill: a backup restored in isolation, recovered, and proven; what that took, and what it showed.
//!
//! Nothing of production can be reached from the restored server, and nothing of it is left afterwards,
//! whatever the outcome. A drill that cannot be run fails; one that runs and finds something wrong returns
//! what it found.

mod amcheck;
mod checks;
mod compare;
mod pages;
mod record;
mod smoke;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use obyra_evidence::{Progress, text};
use obyra_postgres::wal::{Lsn, TimelineId, WalSegmentSize};
use serde::Serialize;

use crate::repository::catalogue::{self, Manifest};
use crate::repository::layout::BackupId;
use crate::repository::manifest::Header;
use crate::restore::{
    Action, Coverage, Instance, Known, Plan, Rates, Stage, Stop, Target, Timed, Wish, find, plan, survey,
};
use crate::{Result, SmokeQuery};
pub use checks::{Check, Outcome};
pub use record::{Budget, Recorded, RecordedDatabase, RecordedTable, load, record, store};

/// What is drilled.
#[derive(Clone, Copy, Debug)]
pub struct Drill<'a> {
    /// Where.
    pub stage: Stage<'a>,
    /// To which point; usually `latest`.
    pub target: &'a Target,
    /// Along which timeline, if not the newest.
    pub timeline: Option<TimelineId>,
    /// The database of the smoke queries.
    pub database: &'a str,
    /// What the application could not live without.
    pub queries: &'a [SmokeQuery],
    /// The time.
    pub now: Timestamp,
}

/// What a drill showed.
#[derive(Clone, Debug, Serialize)]
pub struct Drilled {
    /// The backup that was restored.
    pub backup: BackupId,
    /// When it had ended.
    pub backup_ended: Timestamp,
    /// The point that was asked for.
    pub target: String,
    /// The timeline that recovery followed.
    pub timeline: TimelineId,
    /// Where recovery ended.
    pub reached: Option<Lsn>,
    /// When the last transaction that is there had been committed.
    pub last_commit: Option<Timestamp>,
    /// How long each phase took.
    pub phases: Phases,
    /// From the decision to a server that answers, in seconds: what an emergency would have taken.
    pub rto_seconds: f64,
    /// How much time lies between the point that was asked for (now, for `latest`) and the newest commit that
    /// came back, in seconds: what an emergency would have lost, at most. Without any commit, unknown.
    pub rpo_seconds: Option<f64>,
    /// How fast it was: for the expectations of the next restore.
    pub rates: Option<(u64, u64)>,
    /// Bytes of the restored files.
    pub bytes: u64,
    /// Bytes of WAL that were replayed.
    pub wal_bytes: u64,
    /// Libraries that the cluster preloads and the drill's server did not.
    pub left_out: Vec<String>,
    /// What was proven, and what was not.
    pub checks: Vec<Check>,
}

/// Seconds of each phase.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Phases {
    /// Finding the backup and its WAL.
    pub find: f64,
    /// The files.
    pub files: f64,
    /// Recovery.
    pub replay: f64,
    /// The checks, which an emergency would do without.
    pub proof: f64,
}

impl Drilled {
    /// Whether everything that was checked is as it should be.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.outcome != Outcome::Failed)
    }
}

/// What the search found.
struct Prepared {
    plan: Plan,
    manifest: Arc<Manifest>,
    recorded: Option<Recorded>,
    /// A stop on the way, at which the figures of the backup must be found again.
    halt: Option<Plan>,
    seconds: f64,
}

impl Drill<'_> {
    /// Restores, recovers, proves, and removes it all.
    pub async fn run(&self, progress: &dyn Progress) -> Result<Drilled> {
        let prepared = self.prepare(progress).await?;
        let Prepared { plan, manifest, recorded, halt, .. } = &prepared;
        let mut checks = Vec::new();
        let first = halt.as_ref().map_or((plan, Action::Promote), |halt| (halt, Action::Pause));
        let superuser = recorded.as_ref().map_or(self.stage.superuser, |recorded| &recorded.superuser);
        let stage = Stage { superuser, ..self.stage };
        let mut instance = stage.raise(first.0, manifest, first.1, progress).await?;
        let mut proof = Duration::ZERO;
        let begun = Instant::now();
        checks.push(compare::compare(&instance, recorded.as_ref(), halt.is_some()).await?);
        if halt.is_some() {
            proof += begun.elapsed();
            instance = instance.go_on(plan, Action::Promote, progress).await?;
        }
        let begun = Instant::now();
        progress.begin(text::backup::DRILL_PROVING.message(), None);
        let proven = self.prove(&instance, &mut checks).await;
        progress.done();
        proven?;
        let told = instance.restored.told().clone();
        let (timed, left_out) = (instance.timed, instance.left_out.clone());
        // Stopped, all its pages are in its files.
        let scratch = instance.restored.stop().await?;
        checks.push(pages::check(&plan.backup, scratch.data()).await?);
        proof += begun.elapsed();
        drop(scratch);
        let facts = Facts { told, timed, proof };
        Ok(self.drilled(&prepared, &facts, left_out, checks))
    }

    async fn prepare(&self, progress: &dyn Progress) -> Result<Prepared> {
        let begun = Instant::now();
        progress.begin(text::backup::DRILL_FINDING.message(), None);
        let prepared = self.look(progress).await;
        progress.done();
        prepared.map(|prepared| Prepared { seconds: begun.elapsed().as_secs_f64(), ..prepared })
    }

    async fn look(&self, progress: &dyn Progress) -> Result<Prepared> {
        let Stage { repository, cluster, .. } = self.stage;
        let listed = catalogue::backups(repository, cluster).await?;
        // One that cannot be read is passed over, as an emergency would.
        let backups: Vec<Header> = listed.into_iter().filter_map(|listed| listed.header.ok()).collect();
        let size = backups.last().map(|header| WalSegmentSize::new(header.cluster.wal_segment_bytes));
        let coverage = survey(repository, cluster, size.transpose()?.unwrap_or_default()).await?;
        let found = find(repository, cluster, &coverage, self.target, progress).await?;
        let wish = Wish { found, timeline: self.timeline, ..Wish::to(self.target.clone()) };
        let plan = self.plan(&backups, &coverage, &wish)?;
        let manifest = Manifest::read(repository, cluster, &plan.backup.id).await?;
        let recorded = load(repository, cluster, &plan.backup.id).await?;
        let halt = recorded.as_ref().and_then(|recorded| self.halt(&backups, &coverage, &plan, recorded));
        Ok(Prepared { plan, manifest: Arc::new(manifest), recorded, halt, seconds: 0.0 })
    }

    fn plan(&self, backups: &[Header], coverage: &Coverage, wish: &Wish) -> Result<Plan> {
        plan(&Known { backups, coverage, rates: None, now: self.now }, wish)
    }

    /// The way to the position of the figures, if that lies before the target.
    fn halt(
        &self,
        backups: &[Header],
        coverage: &Coverage,
        plan: &Plan,
        recorded: &Recorded,
    ) -> Option<Plan> {
        let at = recorded.at.filter(|_| recorded.timeline == plan.backup.timeline)?;
        let is_before = match plan.stop {
            Stop::End => at < plan.replay.to,
            Stop::Consistent => false,
            Stop::At(time) => recorded.taken < time,
            Stop::Before(lsn) | Stop::After(lsn) => at < lsn,
        };
        let from = Some(plan.backup.id.clone());
        let wish = Wish { from, timeline: Some(plan.timeline), ..Wish::to(Target::Lsn(at)) };
        is_before.then(|| self.plan(backups, coverage, &wish).ok())?
    }

    async fn prove(&self, instance: &Instance, checks: &mut Vec<Check>) -> Result<()> {
        checks.push(amcheck::check(instance).await?);
        for query in self.queries {
            checks.push(smoke::check(instance, self.database, query).await?);
        }
        Ok(())
    }

    fn drilled(
        &self,
        prepared: &Prepared,
        facts: &Facts,
        left_out: Vec<String>,
        checks: Vec<Check>,
    ) -> Drilled {
        let plan = &prepared.plan;
        let Facts { told, timed, proof } = facts;
        let last_commit = told.last_commit.as_deref().and_then(|text| text.parse().ok());
        let wanted = match self.target {
            Target::Time(time) => *time,
            _ => self.now,
        };
        let lost = |last: Timestamp| wanted.duration_since(last).max(SignedDuration::ZERO).as_secs_f64();
        let reached = told.redo_to;
        let wal_bytes = reached.unwrap_or(plan.replay.to).bytes_since(plan.replay.from);
        let phases = Phases {
            find: prepared.seconds,
            files: timed.files.as_secs_f64(),
            replay: timed.replay.as_secs_f64(),
            proof: proof.as_secs_f64(),
        };
        let bytes = timed.written.bytes + timed.written.kept;
        let rate = |bytes: u64, seconds: f64| (seconds > 0.0).then(|| (bytes as f64 / seconds) as u64);
        Drilled {
            backup: plan.backup.id.clone(),
            backup_ended: plan.backup.stopped,
            target: plan.target.clone(),
            timeline: plan.timeline,
            reached,
            last_commit,
            rto_seconds: phases.find + phases.files + phases.replay,
            rpo_seconds: last_commit.map(lost),
            rates: rate(bytes, phases.files).zip(rate(wal_bytes, phases.replay)),
            phases,
            bytes,
            wal_bytes,
            left_out,
            checks,
        }
    }
}

/// What the server and the clock said.
struct Facts {
    told: obyra_postgres::cluster::Told,
    timed: Timed,
    proof: Duration,
}

impl Drilled {
    /// The rates, as a plan takes them.
    pub fn rates(&self) -> Option<Rates> {
        self.rates.map(|(restore, replay)| Rates { restore, replay })
    }
}
