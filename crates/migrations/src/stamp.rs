//! `migrate stamp`: the version table says where a database stands, though no revision has run.
//!
//! The caller holds the change lock, and has compared the schema. One transaction takes the place of whatever the
//! table said, also of revisions that nobody has any more; a second connection must see it.

use obyra_evidence::{Failure, text};
use obyra_postgres::Result;
use serde::Serialize;

use crate::apply::{Converge, Deployment};
use crate::baseline::settled;
use crate::driver::{Attend, Driver, DriverConnection, Graph};
use crate::observe::{Identity, version_tables};
use crate::plan::plan;
use crate::{Observed, Policy};

/// What a stamp did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// The revisions that the database was said to stand at.
    pub from: Vec<String>,
    /// The one that it is said to stand at now.
    pub to: String,
}

/// The revision that a person means: its identifier, an unambiguous beginning of it, or `head`.
pub fn named(policy: &Policy, graph: &Graph, wanted: &str) -> Result<String> {
    let mut found = match (wanted, graph.heads.as_slice()) {
        ("head", [head]) => return Ok(head.clone()),
        _ => graph.revisions.iter().filter(|revision| revision.id == wanted).collect::<Vec<_>>(),
    };
    if found.is_empty() && !wanted.is_empty() {
        found = graph.revisions.iter().filter(|revision| revision.id.starts_with(wanted)).collect();
    }
    match found.as_slice() {
        [one] => Ok(one.id.clone()),
        _ => {
            let told = text::baseline::STAMP_REVISION_UNKNOWN
                .with("revision", wanted)
                .with("folder", policy.directory.display());
            Err(Failure::usage(told).mended_by(text::baseline::MEND_STAMP_REVISION))
        }
    }
}

/// Has the version table say that the database stands at a revision of the graph.
pub async fn stamp(deployment: &Deployment<'_>, to: &str, converge: &mut impl Converge) -> Result<Stamped> {
    let Deployment { work, admin } = deployment;
    let mut driver = Driver::start(work).await?;
    let graph = driver.graph(work).await?;
    let tables = version_tables(work.policy, admin).await?;
    let observed = Observed { graph, version_tables: tables };
    // Two version tables are an obstacle; a revision that nobody has is what a stamp is for.
    let obstacle = plan(work.policy, &observed)
        .findings
        .into_iter()
        .find(|finding| finding.message.code() == text::migrations::SEVERAL_VERSION_TABLES);
    if let Some(obstacle) = obstacle {
        let failure = Failure::refused(obstacle.message);
        return Err(obstacle.mend.into_iter().fold(failure, Failure::mended_by));
    }
    let identity = Identity::of(admin).await?;
    let role = work.target.map_or("", |target| target.user());
    let ended = driver.stamp(to, &mut Stamping { identity, role, converge }).await;
    settled(&mut driver, ended, (work, text::baseline::NOT_DRIVEN)).await?;
    let found: Vec<String> =
        version_tables(work.policy, admin).await?.into_iter().flat_map(|table| table.revisions).collect();
    if found != [to] {
        let found = if found.is_empty() { "base".to_owned() } else { found.join(" ") };
        let told = text::baseline::STANDS_ELSEWHERE.with("found", found).with("expected", to);
        return Err(Failure::new(told).mended_by(text::migrations::MEND_NOT_COMMITTED));
    }
    Ok(Stamped { from: observed.current(), to: to.to_owned() })
}

struct Stamping<'a, C> {
    identity: Identity,
    role: &'a str,
    converge: &'a mut C,
}

impl<C: Converge> Attend for Stamping<'_, C> {
    async fn configured(&mut self, found: Identity) -> Result<()> {
        found.must_be(&self.identity, self.role)
    }

    /// The version table may be new.
    async fn committing(&mut self, connection: &mut DriverConnection<'_>, _autocommit: bool) -> Result<()> {
        self.converge.converge(connection).await
    }
}
