//! What the gate sees of a replay while it runs.

use std::collections::BTreeMap;

use obyra_evidence::Progress;
use obyra_postgres::{Result, quote};
use serde_json::Value;

use super::catalogue::{Catalogue, Change};
use crate::driver::{
    Applied, Attend, Complaint, DriverConnection, Line, Look, Models, Network, Passed, Phase, Planned,
    Replay, Statement, Trip, Wrote,
};
use crate::observe::{Identity, OBJECTS_SQL, Objects};

/// How one part of a round trip ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leg {
    /// It ran, and this is different from what it should be: for `Again`, from what was there before it.
    Ran(Vec<Change>),
    /// It raised.
    Failed(Box<Complaint>),
}

/// The round trip of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Trips {
    pub legs: BTreeMap<Phase, Leg>,
    /// It could not be run without committing, or the database refused what it allows in a transaction of its own.
    pub needs_commit: bool,
    /// What the upgrade itself changed.
    pub made: Vec<Change>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The revisions that ran, with the seconds that their own code took.
    pub applied: BTreeMap<String, f64>,
    /// The revision that runs.
    pub running: Option<String>,
    /// The revisions that Alembic will run.
    pub planned: Option<Planned>,
    /// The objects at the end of the last revision.
    pub objects: Objects,
    /// The version table's oid, as the migration sees it.
    pub version_table: Option<i64>,
    /// Its schema.
    pub version_schema: Option<String>,
    /// Round trips by revision.
    pub trips: BTreeMap<String, Trips>,
    /// What existed before a revision that is checked.
    pub existing: BTreeMap<String, Catalogue>,
    /// What statements did that change no catalogue.
    pub wrote: Vec<Wrote>,
    pub statements: Vec<Statement>,
    pub network: Vec<Network>,
    pub models: Option<Models>,
    /// The application's command group `db` hides Flask-Migrate's; where, if that is known.
    pub hidden_group: Option<Option<Line>>,
    /// The application runs its migrations when it is loaded; where, if that is known.
    pub boot_upgrade: Option<Option<Line>>,
    /// The catalogue at the end.
    pub catalogue: Catalogue,
}

/// Attends a replay.
pub(super) struct Watcher<'a> {
    replay: &'a Replay,
    identity: &'a Identity,
    role: &'a str,
    progress: &'a dyn Progress,
    /// The catalogue, once the first revision that is checked is near.
    now: Option<Catalogue>,
    /// The catalogue before the revision that is checked.
    before: Catalogue,
    /// The catalogue in the middle of a round trip.
    midway: Catalogue,
    pub seen: Seen,
}

impl<'a> Watcher<'a> {
    pub fn new(
        replay: &'a Replay,
        (identity, role): (&'a Identity, &'a str),
        progress: &'a dyn Progress,
    ) -> Self {
        let (before, midway) = (Catalogue::default(), Catalogue::default());
        Watcher { replay, identity, role, progress, now: None, before, midway, seen: Seen::default() }
    }

    /// The revision that follows in the plan.
    fn next(&self, revision: &str) -> Option<&String> {
        let plan = &self.seen.planned.as_ref()?.revisions;
        plan.iter().position(|each| each == revision).and_then(|at| plan.get(at + 1))
    }

    /// Takes over what changed.
    fn update(&mut self, look: Look) {
        self.now.get_or_insert_default().update(look);
    }

    /// What another connection must see as well.
    async fn look_at_the_end(&mut self, connection: &mut DriverConnection<'_>) -> Result<()> {
        let objects = connection.value(OBJECTS_SQL).await?;
        self.seen.objects = Objects::parse(objects.as_str().unwrap_or_default());
        self.seen.catalogue = self.now.clone().unwrap_or_default();
        let Some(planned) = &self.seen.planned else { return Ok(()) };
        let table = quote::ident(&planned.version_table);
        let table = match &planned.version_table_schema {
            Some(schema) => format!("{}.{table}", quote::ident(schema)),
            None => table,
        };
        let sql = format!(
            "SELECT c.oid::bigint, n.nspname::text FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass({})",
            quote::literal(&table)
        );
        let row = connection.query(&sql).await?.into_iter().next().unwrap_or_default();
        self.seen.version_table = row.first().and_then(Value::as_i64);
        self.seen.version_schema = row.get(1).and_then(Value::as_str).map(str::to_owned);
        Ok(())
    }

    fn trips(&mut self, revision: &str) -> &mut Trips {
        self.seen.trips.entry(revision.to_owned()).or_default()
    }
}

impl Attend for Watcher<'_> {
    async fn configured(&mut self, found: Identity) -> Result<()> {
        found.must_be(self.identity, self.role)
    }

    async fn planned(&mut self, _: &mut DriverConnection<'_>, planned: &Planned) -> Result<()> {
        self.seen.planned = Some(planned.clone());
        if let (Some(first), Some(look)) = (planned.revisions.first(), &planned.look) {
            let mut now = Catalogue::default();
            now.update(look.clone());
            self.seen.existing.insert(first.clone(), now.clone());
            self.before = now.clone();
            self.now = Some(now);
        }
        Ok(())
    }

    fn begin(&mut self, revision: &str) {
        self.seen.running = Some(revision.to_owned());
    }

    fn passed(&mut self, passed: Passed) {
        let revision = passed.revision;
        self.progress.advance(1);
        if let Some(look) = passed.look {
            self.before = self.now.clone().unwrap_or_default();
            self.update(look);
        }
        let now = self.now.clone().unwrap_or_default();
        if self.replay.checked.contains(&revision) {
            let made = now.changes_since(&self.before);
            self.trips(&revision).made = made;
        }
        if let Some(next) = self.next(&revision).cloned() {
            self.seen.existing.insert(next, now);
        }
        self.seen.applied.insert(revision, passed.seconds);
        self.seen.running = None;
    }

    /// The last revision has run.
    async fn applied(&mut self, connection: &mut DriverConnection<'_>, _: &Applied) -> Result<()> {
        self.look_at_the_end(connection).await
    }

    fn tripped(&mut self, phase: Phase, trip: Trip) {
        self.seen.running = None;
        let committed = self.replay.committed;
        let here = self.now.clone().unwrap_or_default();
        if trip.needs_commit || trip.failed.as_ref().is_some_and(is_artifact) {
            self.trips(&trip.revision).needs_commit = true;
            return;
        }
        let leg = match (trip.failed, trip.look) {
            (Some(complaint), _) => Leg::Failed(Box::new(complaint)),
            (None, look) => {
                let look = look.unwrap_or_default();
                match phase {
                    Phase::Again => Leg::Ran(twice(&here, look)),
                    Phase::Reversed => {
                        self.midway = here;
                        self.midway.update(look);
                        Leg::Ran(self.midway.changes_since(&self.before))
                    }
                    Phase::Repeated => {
                        let mut there = self.midway.clone();
                        there.update(look);
                        let changes = there.changes_since(&here);
                        // A round trip that stays leaves other oids behind.
                        if committed {
                            self.now = Some(there);
                        }
                        Leg::Ran(changes)
                    }
                }
            }
        };
        self.trips(&trip.revision).legs.insert(phase, leg);
    }

    fn statement(&mut self, statement: Statement) {
        self.seen.statements.push(statement);
    }

    fn wrote(&mut self, wrote: Wrote) {
        self.seen.wrote.push(wrote);
    }

    fn network(&mut self, network: Network) {
        self.seen.network.push(network);
    }

    fn hidden_group(&mut self, place: Option<Line>) {
        self.seen.hidden_group = Some(place);
    }

    fn boot_upgrade(&mut self, place: Option<Line>) {
        self.seen.boot_upgrade.get_or_insert(place);
    }

    fn models(&mut self, models: Models) {
        self.seen.models = Some(models);
    }
}

/// What an upgrade that runs a second time changes.
fn twice(here: &Catalogue, look: Look) -> Vec<Change> {
    if look.looked_at.is_empty() && !look.other {
        return Vec::new();
    }
    let mut twice = here.clone();
    twice.update(look);
    let changes = twice.changes_since(here);
    // What was dropped and made again is as good as changed: it was emptied.
    if changes.is_empty() { vec![Change { name: String::new(), before: None, now: None }] } else { changes }
}

/// What the database refuses within the transaction that made the object, and allows in the next one: values of a
/// new enum label, and tables with deferred checks. A round trip by itself tells.
fn is_artifact(complaint: &Complaint) -> bool {
    matches!(complaint.said.sqlstate.as_deref(), Some("55P04" | "55006" | "25001" | "2D000"))
}
