//! What a deploy does at each moment when the driver holds the migration.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Failure, Place, Progress, text};
use obyra_postgres::{Result, quote};

use super::{Converge, Deployment};
use crate::driver::{Applied, Attend, DriverConnection, Planned};
use crate::observe::{Identity, OBJECTS_SQL, Objects};
use crate::plan::Plan;

/// What was seen from inside of the migration's transaction.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The revisions that ran, with the seconds that their own code took.
    pub revisions: BTreeMap<String, f64>,
    /// The revision that runs.
    pub running: Option<String>,
    /// The version table's oid.
    pub version_table: Option<u32>,
    /// The objects at the end of the last revision.
    pub objects: Objects,
    /// What others saw when the running revision first committed in its middle, as an
    /// `autocommit_block` does: what is beyond it cannot be rolled back.
    pub torn: Option<Objects>,
    /// Each revision has a transaction of its own.
    pub per_migration: bool,
    /// The process that the migration's statements ran in.
    pub backend: i64,
}

impl Seen {
    /// What the database held before the revision that failed, as far as that is known.
    pub fn before_revision<'a>(&'a self, before: &'a Objects) -> Option<&'a Objects> {
        self.torn.as_ref().or((!self.per_migration).then_some(before))
    }

    /// A driver that ended without a word did so in the revision that was running.
    pub fn blame(&self, plan: &Plan, failure: Failure) -> Failure {
        let running = plan.pending.iter().find(|revision| self.running.as_ref() == Some(&revision.id));
        match running.filter(|_| failure.at.is_none()) {
            Some(revision) => failure.at(Place { file: revision.file.clone(), line: 1, column: 1 }),
            None => failure,
        }
    }
}

/// Checks where Alembic is connected, reports each revision, converges before each COMMIT, and
/// looks at the result from inside.
pub(super) struct Attendant<'a, C> {
    deployment: &'a Deployment<'a>,
    plan: &'a Plan,
    identity: Identity,
    converge: &'a mut C,
    progress: &'a dyn Progress,
    version_table: String,
    pub seen: Seen,
}

impl<'a, C: Converge> Attendant<'a, C> {
    pub fn new(
        deployment: &'a Deployment<'a>,
        plan: &'a Plan,
        identity: Identity,
        converge: &'a mut C,
        progress: &'a dyn Progress,
    ) -> Self {
        progress.begin(text::migrations::DEPLOYING.message(), Some(plan.pending.len() as u64));
        let (version_table, seen) = (String::new(), Seen::default());
        Attendant { deployment, plan, identity, converge, progress, version_table, seen }
    }

    /// No revision will follow.
    pub fn end(&self) {
        self.progress.done();
    }

    async fn look(&mut self, connection: &mut DriverConnection<'_>) -> Result<()> {
        let objects = connection.value(OBJECTS_SQL).await?;
        self.seen.objects = Objects::parse(objects.as_str().unwrap_or_default());
        let table = quote::literal(&self.version_table);
        let sql = format!("SELECT pg_catalog.to_regclass({table})::oid::bigint, pg_catalog.pg_backend_pid()");
        let row = connection.query(&sql).await?.into_iter().next().unwrap_or_default();
        let number = |at: usize| row.get(at).and_then(serde_json::Value::as_i64);
        self.seen.version_table = number(0).and_then(|oid| u32::try_from(oid).ok());
        self.seen.backend = number(1).unwrap_or_default();
        Ok(())
    }
}

impl<C: Converge> Attend for Attendant<'_, C> {
    async fn configured(&mut self, found: Identity) -> Result<()> {
        found.must_be(&self.identity, self.deployment.work.target.map_or("", |target| target.user()))
    }

    async fn planned(&mut self, _: &mut DriverConnection<'_>, planned: &Planned) -> Result<()> {
        let ours: BTreeSet<&String> = self.plan.pending.iter().map(|revision| &revision.id).collect();
        let theirs: BTreeSet<&String> = planned.revisions.iter().collect();
        if ours != theirs {
            let list = |ids: BTreeSet<&String>| ids.into_iter().cloned().collect::<Vec<_>>().join(" ");
            return Err(Failure::refused(
                text::migrations::PLAN_DIFFERS.with("ours", list(ours)).with("theirs", list(theirs)),
            )
            .mended_by(text::migrations::MEND_PLAN_DIFFERS));
        }
        let table = quote::ident(&planned.version_table);
        self.version_table = match &planned.version_table_schema {
            Some(schema) => format!("{}.{table}", quote::ident(schema)),
            None => table,
        };
        self.seen.per_migration = planned.per_migration;
        Ok(())
    }

    fn begin(&mut self, revision: &str) {
        self.seen.running = Some(revision.to_owned());
        self.seen.torn = None;
    }

    async fn applied(&mut self, connection: &mut DriverConnection<'_>, applied: &Applied) -> Result<()> {
        let revision = self.plan.pending.iter().find(|revision| revision.id == applied.revision);
        let doc = revision.map_or("", |revision| revision.doc.as_str());
        self.progress.note(
            text::migrations::REVISION_APPLIED
                .with("revision", &applied.revision)
                .with("doc", doc)
                .with("seconds", format!("{:.2}", applied.seconds)),
        );
        self.progress.advance(1);
        self.seen.revisions.insert(applied.revision.clone(), applied.seconds);
        self.seen.running = None;
        if self.seen.revisions.len() == self.plan.pending.len() {
            self.look(connection).await?;
        }
        Ok(())
    }

    async fn committing(&mut self, connection: &mut DriverConnection<'_>, _autocommit: bool) -> Result<()> {
        if self.seen.running.is_some() && self.seen.torn.is_none() {
            self.seen.torn = Some(Objects::seen_by(self.deployment.admin).await?);
        }
        self.converge.converge(connection).await
    }
}
