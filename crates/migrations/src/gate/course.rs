//! The course of a gate: from empty to the head, then what must be committed, then from a starting schema.

use std::collections::BTreeSet;
use std::time::Duration;

use obyra_evidence::{Code, Failure, Finding, Progress, Severity, text};
use obyra_postgres::{Result, Session, sql_failure};

use super::judge::Run;
use super::places::Places;
use super::proof::{self, Claim};
use super::stage::{Database, Stage};
use super::stopped::{self, Refused, Stop, proves_nothing};
use super::watch::{Leg, Seen, Watcher};
use super::{Order, Report, Scope, Site, Start, Timed, Verdict, branch, log, models, start, trips};
use crate::driver::{Complaint, Driver, Graph, Phase, Replay, Transaction, UpgradeError};
use crate::graph as files;
use crate::observe::{Identity, Objects, version_tables};
use crate::runtime::{Reached, check_at};
use crate::{PythonEnvironment, find_or_make};

/// Connections other than the migration's tell which commands they run.
const TRACE: &str = "SET obyra_gate.watch = 'trace'";

/// A gate under way.
pub(super) struct Course<'a> {
    order: &'a Order<'a>,
    progress: &'a dyn Progress,
    stage: Stage,
    python: PythonEnvironment,
    /// The first database, made while Python was loading.
    ready: Option<Database>,
    /// None after it was ended.
    driver: Option<Driver>,
    graph: Graph,
    /// What to upgrade to.
    to: String,
    /// Revisions whose round trip must be committed to be tried.
    committing: BTreeSet<String>,
    /// Revisions whose round trip is done.
    tripped: BTreeSet<String>,
    trips_failed: bool,
    /// What the server refused last in the replay that was judged last.
    refused: Option<Refused>,
    report: Report,
}

/// A replay that has ended.
struct Ran {
    outcome: std::result::Result<Transaction, UpgradeError>,
    seen: Seen,
    before: Objects,
}

impl<'a> Course<'a> {
    /// Starts the server and Python side by side, and reads the graph of revisions.
    pub async fn prepare(
        order: &'a Order<'a>,
        site: &mut impl Site,
        progress: &'a dyn Progress,
    ) -> Result<Course<'a>> {
        let server = async {
            let mut stage =
                Stage::start(order.postgres, order.database, !order.policy.variables.is_empty(), progress)
                    .await?;
            let ready = stage.database(site).await?;
            Ok::<_, Failure>((stage, ready))
        };
        let application = async {
            let python = find_or_make(order.python, progress).await?;
            let mut driver = Driver::start_with(&order.workplace(&python), &[TRACE]).await?;
            let graph = driver.graph(&order.workplace(&python)).await;
            if graph.is_ok() {
                driver.warm_up().await?;
            }
            Ok::<_, Failure>((python, driver, graph))
        };
        let files = static_findings(order);
        let folders = files::Layout::of(order.policy, order.project).folders;
        let added = branch::added_files(order.scope, folders);
        let (server, application, files, added) = tokio::join!(server, application, files, added);
        // A wrong folder says more than a server that was of no use.
        let (python, mut driver, graph) = application?;
        let (stage, ready) = server?;
        let mut ready = Some(ready);
        let graph = match graph {
            // A revision may need the application, which needs a database.
            Err(failure) if is_unreadable(&failure) && order.policy.app.is_some() => {
                match ready.take() {
                    Some(database) => driver.connect(&database).await?,
                    None => return Err(failure),
                }
                driver.graph(&order.workplace(&python)).await
            }
            graph => graph,
        };
        // What the application has read of its environment before there was a database is of no use.
        let driver = graph.as_ref().is_ok_and(|graph| !graph.imports_application).then_some(driver);
        let mut report = Report::default();
        report.findings.extend(files?);
        let graph = graph_or_finding(graph, &mut report)?;
        let (checked, by_branch) = branch::checked(order.scope, &graph, added);
        report.head = graph.heads.first().filter(|_| graph.heads.len() == 1).cloned();
        let to = report.head.clone().unwrap_or_else(|| "heads".to_owned());
        (report.checked, report.checked_branch) = (checked, by_branch);
        Ok(Course {
            order,
            progress,
            stage,
            python,
            ready,
            driver,
            graph,
            to,
            committing: BTreeSet::new(),
            tripped: BTreeSet::new(),
            trips_failed: false,
            refused: None,
            report,
        })
    }

    /// The revisions.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The head from an empty database, with the round trips that can be taken back. Says whether it got there.
    pub async fn reach_from_empty(&mut self, site: &mut impl Site) -> Result<bool> {
        let mut trips = self.report.checked.clone();
        self.progress.begin(text::gate::REPLAYING.message(), Some(self.graph.revisions.len() as u64));
        loop {
            let database = match self.ready.take() {
                Some(database) => database,
                None => self.stage.database(site).await?,
            };
            let replay = Replay {
                to: self.to.clone(),
                checked: self.report.checked.clone(),
                trips: trips.clone(),
                separate: self.separate(),
                committed: false,
                models: true,
            };
            let ran = self.run(&database, &replay).await?;
            // The application has run its migrations itself when it was loaded. It is not loaded a second time.
            if migrated_itself(&ran) && self.judge(&database, &ran, &replay).await? {
                continue;
            }
            // A revision that ended the transaction itself took the way back with it.
            if let Some(revision) = broken_trip(&ran) {
                trips.remove(&revision);
                self.committing.insert(revision);
                continue;
            }
            self.progress.done();
            let reached = self.judge_from_empty(&database, ran, &replay).await?;
            if reached {
                self.report.findings.extend(site.reached(&self.stage.reached()).await?);
            }
            return Ok(reached);
        }
    }

    async fn judge_from_empty(&mut self, database: &Database, ran: Ran, replay: &Replay) -> Result<bool> {
        let timed =
            |(revision, seconds): (&String, &f64)| Timed { revision: revision.clone(), seconds: *seconds };
        self.report.revisions = ran.seen.applied.iter().map(timed).collect();
        if !self.judge(database, &ran, replay).await? {
            return Ok(false);
        }
        let schemas = self.order.schemas;
        let places = Places::new(self.order.project, &self.graph);
        let misplaced = proof::misplaced(&places, self.order.policy, &database.runner, &ran.seen).await?;
        self.report.findings.extend(misplaced);
        if let Some(models) = &ran.seen.models {
            self.report.models_made = models.made.as_ref().is_some_and(|made| made.failed.is_none());
            let about = (models, &ran.seen.catalogue);
            let found = models::findings(&database.admin, &places, about, schemas).await;
            self.report.findings.extend(found);
        }
        let missing = match ran.outcome {
            Ok(ref transaction) => {
                let claim = Claim {
                    places: &places,
                    policy: self.order.policy,
                    graph: &self.graph,
                    transaction,
                    seen: &ran.seen,
                    before: &ran.before,
                };
                proof::committed(&database.admin, &claim).await?
            }
            Err(error) => vec![self.stopped(error, &ran.seen, text::gate::UPGRADE_FAILED)?],
        };
        let committed = missing.is_empty();
        self.report.upgrade = match committed {
            true => Verdict::Passed,
            false if missing.iter().all(proves_nothing) => Verdict::Unknown,
            false => Verdict::Failed,
        };
        self.report.findings.extend(missing);
        Ok(committed)
    }

    /// Round trips that commit: each revision that needs one goes down and up for good, as on a real server.
    pub async fn for_good(&mut self, site: &mut impl Site) -> Result<()> {
        let mut left = self.committing.clone();
        if left.is_empty() {
            return Ok(());
        }
        self.progress.begin(text::gate::STAIRS.message(), None);
        while !left.is_empty() {
            let database = self.stage.database(site).await?;
            let replay = Replay {
                to: self.to.clone(),
                checked: left.clone(),
                trips: left.clone(),
                separate: left.clone(),
                committed: true,
                models: false,
            };
            let mut ran = self.run(&database, &replay).await?;
            let mut stuck = ran.outcome.is_err();
            if let Err(UpgradeError::Complaint(complaint)) = &ran.outcome
                && let Some((revision, phase)) = leg_of(complaint)
            {
                let legs = &mut ran.seen.trips.entry(revision).or_default().legs;
                legs.insert(phase, Leg::Failed(Box::new(complaint.clone())));
                stuck = false;
            }
            if !self.judge(&database, &ran, &replay).await? {
                break;
            }
            if stuck {
                if let Err(error) = ran.outcome {
                    let finding = self.stopped(error, &ran.seen, text::gate::DOWNGRADE_FAILED)?;
                    self.report.findings.push(finding);
                }
                self.trips_failed = true;
                break;
            }
            let before = left.len();
            left.retain(|revision| !self.tripped.contains(revision));
            if left.len() == before {
                break;
            }
        }
        self.progress.done();
        Ok(())
    }

    /// What the application alters at its start, on a database that has seen none of it.
    pub async fn alter_at_start(&mut self, site: &mut impl Site, is_reached: bool) -> Result<()> {
        let Some((helper, ground)) = self.order.runtime else { return Ok(()) };
        let mut runner = None;
        if is_reached {
            let database = self.stage.database(site).await?;
            let replay = Replay { to: self.to.clone(), ..Replay::default() };
            let ran = self.run(&database, &replay).await?;
            runner = ran.outcome.is_ok().then_some(database.runner);
        }
        let patience = Duration::from_secs(self.order.policy.gate.patience.seconds());
        let reached = runner
            .iter()
            .map(|runner| Reached { runner, head: self.graph.heads.join(", "), patience })
            .next();
        let check = check_at(helper, ground, reached, self.progress).await?;
        self.report.findings.extend(check.findings.iter().cloned());
        self.report.alterations = Some(check);
        Ok(())
    }

    /// The head from a schema as an environment has it, with round trips of what is pending there.
    pub async fn reach_from_start(&mut self, site: &mut impl Site) -> Result<()> {
        let Some(begin) = self.order.start else { return Ok(()) };
        self.progress.begin(text::gate::RESTORING.message(), None);
        let empty = self.stage.empty().await?;
        let restored = start::restore(self.stage.installation(), begin, &empty).await?;
        self.report.findings.extend(restored);
        let database = self.stage.prepared(site).await?;
        start::hand_over(&database.admin, &database.runner).await?;
        self.stamp(&database.admin, begin).await?;
        let replay = Replay {
            to: self.to.clone(),
            checked: self.report.checked.clone(),
            trips: self.report.checked.difference(&self.committing).cloned().collect(),
            separate: self.separate(),
            committed: false,
            models: false,
        };
        let ran = self.run(&database, &replay).await?;
        if !self.judge(&database, &ran, &replay).await? {
            self.report.upgrade = Verdict::Unknown;
            return Ok(());
        }
        let Ran { outcome, seen, .. } = ran;
        if let Err(error) = outcome {
            let finding = self.stopped(error, &seen, text::gate::START_FAILED)?;
            self.report.upgrade = if proves_nothing(&finding) { Verdict::Unknown } else { Verdict::Failed };
            self.report.findings.push(finding);
        }
        self.progress.done();
        Ok(())
    }

    /// A version table without rows in a dump without data says nothing: it stands where the branch began.
    async fn stamp(&self, admin: &Session, begin: &Start) -> Result<()> {
        let tables = version_tables(self.order.policy, admin).await?;
        let Some(table) = tables.first().filter(|table| table.revisions.is_empty()) else {
            return Ok(());
        };
        let revisions = match begin {
            Start::Live { revisions, .. } => revisions.clone(),
            Start::Dump(_) => self.before_checked(),
        };
        start::stamp(admin, &table.qualified(), &revisions).await
    }

    /// The ends of what is not checked.
    fn before_checked(&self) -> Vec<String> {
        let old = self.graph.revisions.iter().filter(|each| !self.report.checked.contains(&each.id));
        let followed: BTreeSet<&String> = old.clone().flat_map(|each| &each.down).collect();
        old.filter(|each| !followed.contains(&each.id)).map(|each| each.id.clone()).collect()
    }

    /// Where a transaction of several revisions is cut: before what production does not have yet; before each
    /// revision, when all are checked, or none of their locks could be told from an earlier one's.
    fn separate(&self) -> BTreeSet<String> {
        if self.order.scope == Scope::All {
            return self.report.checked.clone();
        }
        let first = self.graph.revisions.iter().find(|each| self.report.checked.contains(&each.id));
        first.map(|revision| revision.id.clone()).into_iter().collect()
    }

    async fn run(&mut self, database: &Database, replay: &Replay) -> Result<Ran> {
        let mut driver = match self.driver.take() {
            Some(driver) => driver,
            None => Driver::start_with(&self.order.workplace(&self.python), &[TRACE]).await?,
        };
        driver.connect(database).await?;
        let identity = Identity::of(&database.admin).await?;
        let before = Objects::seen_by(&database.admin).await?;
        let mut watcher = Watcher::new(replay, (&identity, database.runner.user()), self.progress);
        let patience = Duration::from_secs(self.order.policy.gate.patience.seconds());
        let outcome = driver.replay(replay, &mut watcher, patience).await;
        let seen = watcher.seen;
        if matches!(outcome, Ok(_) | Err(UpgradeError::Complaint(_))) {
            self.driver = Some(driver);
        }
        Ok(Ran { outcome, seen, before })
    }

    /// What the log and the round trips of a replay say. False if the server did not live through it.
    async fn judge(&mut self, database: &Database, ran: &Ran, replay: &Replay) -> Result<bool> {
        let places = Places::new(self.order.project, &self.graph);
        let ours = match process(&database.admin).await {
            Ok(ours) => ours,
            Err(lost) => {
                self.report.findings.push(stopped::server_lost(&places, &ran.seen, &lost));
                return Ok(false);
            }
        };
        let entries = log::entries(&self.stage.log(), database.log_offset)?;
        let version_table = match &ran.seen.planned {
            Some(planned) => planned.version_table.as_str(),
            None => self.order.policy.version_table.as_str(),
        };
        let run = Run {
            places: &places,
            seen: &ran.seen,
            entries: &entries,
            ours: &[ours],
            checked: &replay.checked,
            version_table,
            sizes: self.order.sizes,
            large_rows: self.order.policy.gate.large_table_rows,
            by_branch: self.report.checked_branch,
            measures: !replay.committed,
        };
        let (findings, commands) = run.read();
        self.refused = run.refused();
        let mut found = proof::conduct(&places, self.order.policy, &ran.seen);
        found.extend(findings);
        for (revision, each) in &ran.seen.trips {
            if each.needs_commit {
                self.committing.insert(revision.clone());
                continue;
            }
            let findings = trips::findings(&places, revision, each);
            self.trips_failed |= findings.iter().any(|finding| finding.severity == Severity::Error);
            found.extend(findings);
            if each.legs.contains_key(&Phase::Reversed) {
                self.tripped.insert(revision.clone());
            }
        }
        self.report.findings.extend(found);
        if self.report.commands.is_empty() {
            self.report.commands = commands;
        }
        Ok(true)
    }

    /// The finding that an unfinished replay amounts to. What is no fault of the migrations is a failure.
    fn stopped(&mut self, error: UpgradeError, seen: &Seen, code: Code) -> Result<Finding> {
        let places = Places::new(self.order.project, &self.graph);
        let patience_seconds = self.order.policy.gate.patience.seconds();
        let stop = Stop { places: &places, seen, patience_seconds, refused: self.refused.take() };
        stop.finding(error, code)
    }

    /// What was found, in its order. The server ends beside whatever follows; the runtime does not end before it.
    pub fn report(mut self) -> Report {
        let ended = (self.driver.take(), self.stage);
        tokio::task::spawn_blocking(move || drop(ended));
        self.report.downgrade = match (self.trips_failed, self.report.checked.is_subset(&self.tripped)) {
            (true, _) => Verdict::Failed,
            (false, true) if self.report.upgrade == Verdict::Passed => Verdict::Passed,
            _ => Verdict::Unknown,
        };
        let findings = std::mem::take(&mut self.report.findings);
        self.report.add(findings);
        self.report
    }
}

/// The revisions; none, and a finding, where Alembic could not read them.
fn graph_or_finding(graph: Result<Graph>, report: &mut Report) -> Result<Graph> {
    let failure = match graph {
        Ok(graph) => return Ok(graph),
        Err(failure) if is_unreadable(&failure) => failure,
        Err(failure) => return Err(failure),
    };
    let told = text::gate::GRAPH_UNREADABLE.with("why", failure.why.as_deref().unwrap_or("?"));
    let finding = Finding::new(Severity::Error, "migrations", told);
    report.findings.push(match failure.at {
        Some(place) => finding.at(place),
        None => finding,
    });
    report.upgrade = Verdict::Failed;
    Ok(Graph::default())
}

/// What the files themselves tell.
async fn static_findings(order: &Order<'_>) -> Result<Vec<Finding>> {
    let Order { policy, project, .. } = *order;
    let (policy, project, applied) = (policy.clone(), project.to_owned(), order.applied.to_vec());
    let read = tokio::task::spawn_blocking(move || {
        let revisions = files::read(&policy, &project)?;
        let mut findings = files::check(&revisions, &files::Convention { naming: policy.gate.naming });
        findings.extend(files::edited(&revisions, &applied));
        Ok(findings)
    });
    read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn process(session: &Session) -> Result<i32> {
    let row = session.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
    let row = row.map_err(|e| sql_failure(text::gate::SERVER_LOST.message(), &e))?;
    Ok(row.get(0))
}

/// The part of a round trip in which an exception ended the replay.
fn leg_of(complaint: &Complaint) -> Option<(String, Phase)> {
    let phase = match complaint.phase.as_deref()? {
        "again" => Phase::Again,
        "reversed" => Phase::Reversed,
        "repeated" => Phase::Repeated,
        _ => return None,
    };
    complaint.revision.clone().map(|revision| (revision, phase))
}

/// Whether Alembic could not read the revisions.
fn is_unreadable(failure: &Failure) -> bool {
    failure.what.code() == text::migrations::GRAPH_UNREADABLE
}

/// Whether nothing was left to do on a database that was empty.
fn migrated_itself(ran: &Ran) -> bool {
    let planned =
        ran.seen.planned.as_ref().filter(|_| ran.outcome.is_ok() && ran.seen.boot_upgrade.is_some());
    planned.is_some_and(|planned| planned.revisions.is_empty() && !planned.current.is_empty())
}

/// The revision whose round trip could not be taken back.
fn broken_trip(ran: &Ran) -> Option<String> {
    match &ran.outcome {
        Err(UpgradeError::Complaint(complaint)) => leg_of(complaint).map(|(revision, _)| revision),
        _ => None,
    }
}
