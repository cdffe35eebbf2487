//! The database on which statements are tried: at Alembic's head, as a dump has it, or empty.

use std::collections::BTreeSet;

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::Result;

use super::Stands;
use crate::driver::{Attend, Driver, Graph, Replay, UpgradeError, Workplace};
use crate::explain::words;
use crate::gate::stage::{Database, Stage};
use crate::gate::start;
use crate::observe::{Identity, version_tables};
use crate::runtime::Site;
use crate::runtime::check::{Bench, Start};
use crate::{Policy, find_or_make};

/// A server and a database. Whatever happens, both are gone with this value.
pub(super) struct Ready {
    pub database: Database,
    _stage: Stage,
}

impl Ready {
    /// Starts a server, and brings a database to where the helper finds it.
    pub async fn make(
        bench: &Bench<'_>,
        site: &mut impl Site,
        progress: &dyn Progress,
    ) -> Result<(Ready, Stands)> {
        progress.begin(text::runtime::PREPARING.message(), None);
        let by_port = matches!(&bench.start, Start::Head { policy, .. } if !policy.variables.is_empty());
        let mut stage = Stage::start(bench.postgres, bench.database, by_port, progress).await?;
        let (database, stands) = match &bench.start {
            Start::Empty => (stage.database(site).await?, Stands::Empty),
            Start::Dump(dump) => {
                let empty = stage.empty().await?;
                start::restore(stage.installation(), dump, &empty).await?;
                let database = stage.prepared(site).await?;
                start::hand_over(&database.admin, &database.runner).await?;
                (database, Stands::Dump)
            }
            Start::Head { .. } => upgraded(bench, &mut stage, site, progress).await?,
        };
        progress.done();
        Ok((Ready { database, _stage: stage }, stands))
    }
}

/// Sees that the application is where it was sent.
struct Onlooker {
    identity: Identity,
    role: String,
}

impl Attend for Onlooker {
    async fn configured(&mut self, found: Identity) -> Result<()> {
        found.must_be(&self.identity, &self.role)
    }
}

/// Alembic's head. A history that does not get there is the gate's to judge.
///
/// The application runs its helper whenever it is loaded. It is loaded on a database of its own, so that the
/// one on which the statements are tried has seen none of them.
async fn upgraded(
    bench: &Bench<'_>,
    stage: &mut Stage,
    site: &mut impl Site,
    progress: &dyn Progress,
) -> Result<(Database, Stands)> {
    let database = stage.database(site).await?;
    let Start::Head { policy, project, python, hidden_variables } = &bench.start else {
        return Ok((database, Stands::Empty));
    };
    let python = find_or_make(python, progress).await?;
    let work = Workplace { policy, project, python: &python, target: None, hidden_variables };
    let mut driver = Driver::start(&work).await?;
    let graph = match driver.graph(&work).await {
        Ok(graph) => graph,
        Err(failure) if failure.what.code() == text::migrations::GRAPH_UNREADABLE => {
            return Ok((database, Stands::Unreached(said(&failure))));
        }
        Err(failure) => return Err(failure),
    };
    if graph.revisions.is_empty() {
        return Ok((database, Stands::Empty));
    }
    driver.connect(&database).await?;
    if let Err(failure) = driver.current(&work).await {
        return Ok((database, Stands::Unreached(failure.to_string())));
    }
    let database = stage.database(site).await?;
    driver.connect(&database).await?;
    let stands = replayed(bench, (policy, &mut driver), &graph, &database).await?;
    Ok((database, stands))
}

async fn replayed(
    bench: &Bench<'_>,
    (policy, driver): (&Policy, &mut Driver),
    graph: &Graph,
    database: &Database,
) -> Result<Stands> {
    let to = if let [head] = graph.heads.as_slice() { head.clone() } else { "heads".to_owned() };
    let replay = Replay { to: to.clone(), ..Replay::default() };
    let identity = Identity::of(&database.admin).await?;
    let mut onlooker = Onlooker { identity, role: database.runner.user().to_owned() };
    match driver.replay(&replay, &mut onlooker, bench.patience).await {
        Ok(_) => {
            // What was committed, another connection sees.
            let tables = version_tables(policy, &database.admin).await?;
            let seen: BTreeSet<String> = tables.into_iter().flat_map(|table| table.revisions).collect();
            if seen == graph.heads.iter().cloned().collect() {
                return Ok(Stands::Head(graph.heads.join(", ")));
            }
            Ok(Stands::Unreached(text::gate::SILENT_ROLLBACK.message().to_string()))
        }
        Err(UpgradeError::Complaint(complaint)) => {
            Ok(Stands::Unreached(words(&complaint.kind, &complaint.said)))
        }
        Err(UpgradeError::TimedOut) => {
            let seconds = bench.patience.as_secs();
            let told = text::gate::TIMED_OUT.with("revision", "–").with("seconds", seconds);
            Ok(Stands::Unreached(told.to_string()))
        }
        Err(UpgradeError::Failure(failure)) => Err(failure),
    }
}

fn said(failure: &Failure) -> String {
    failure.why.clone().unwrap_or_else(|| failure.what.to_string())
}
