//! A baseline: one revision that creates the schema which there really is, in place of a history that cannot be
//! replayed.
//!
//! The truth is dumped, written down as explicit SQL, and proven both ways on a throw-away server. Only then, and
//! only by [`Change`], are files moved.

mod course;
mod dump;
mod files;
mod image;
mod literal;
mod proof;
mod restore;
mod revision;
mod script;

use std::path::{Path, PathBuf};

use obyra_evidence::{Finding, Progress, Severity};
use obyra_postgres::cluster::Search;
use obyra_postgres::{Conninfo, Result};
use serde::Serialize;

use self::course::Course;
pub use self::files::{Change, unfinished};
pub(crate) use self::files::{slug, versions};
pub(crate) use self::literal::{execute, harmless};
pub(crate) use self::proof::settled;
use self::restore::Script;
pub use self::revision::Revision;
use crate::driver::Workplace;
pub use crate::gate::Site;
use crate::{Policy, PythonEnvironment, PythonSearch};

/// The environment that a baseline is about, as the throw-away server has to imitate it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The migrations' section of the strategy.
    pub policy: &'a Policy,
    /// The folder of the strategy file.
    pub project: &'a Path,
    /// Where the application's Python is.
    pub python: &'a PythonSearch,
    /// Where PostgreSQL's programs are, of the environment's version.
    pub postgres: &'a Search,
    /// Environment variables that the application must not see: the administrator's connection.
    pub hidden_variables: &'a [String],
    /// The database's name in the environment.
    pub database: &'a str,
    /// The strategy's schemas in it.
    pub schemas: &'a [String],
    /// Tables that belong to neither Alembic nor the application: what obyra-db keeps for itself.
    pub without: &'a [String],
}

/// Where the schema is that the baseline has to create.
#[derive(Clone, Debug)]
pub enum Truth {
    /// In a live database, which is only read.
    Live(Box<Conninfo>),
    /// In a script of `pg_dump --schema-only`.
    Dump(PathBuf),
    /// In the application: what `create_all` makes of its models, and what these files then change. `.sql` is run
    /// as the role that migrates, `.py` within the application; `file.py:function` calls the function.
    Models(Vec<String>),
}

/// A baseline that was written and proven, and the findings of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draft {
    /// The revision.
    pub revision: Revision,
    /// What a person should know, the gravest first. One of error level means that the proof failed.
    pub findings: Vec<Finding>,
}

/// The revisions that a comparison is about.
#[derive(Clone, Copy, Debug)]
pub enum Chain<'a> {
    /// Those of the project, up to one.
    Own(&'a str),
    /// A revision that is not in its place yet.
    Draft(&'a Revision),
}

/// Writes the baseline of a schema and proves it: from empty it gives that schema, its downgrade gives the empty
/// database again, and where it is stamped on that schema nothing is left to upgrade.
pub async fn draft(
    order: &Order<'_>,
    truth: &Truth,
    message: &str,
    site: &mut impl Site,
    progress: &dyn Progress,
) -> Result<Draft> {
    // What is wrong with a file is told before anything is started.
    let given = match truth {
        Truth::Dump(file) => Some(Script::read(file, order.postgres.major)?),
        Truth::Live(_) | Truth::Models(_) => None,
    };
    let staged = files::Staged::new()?;
    let mut course = Course::prepare(order, Some(staged.path()), site, progress).await?;
    let source = match given {
        Some(script) => course.restored(script, Vec::new()).await?,
        None => course.source(truth, site).await?,
    };
    let revision = course.write(&source, message).await?;
    staged.put(&revision)?;
    let mut findings = source.findings();
    findings.extend(course.prove(&source, &revision, site).await?);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    Ok(Draft { revision, findings })
}

/// What is different in a live database from what revisions make of an empty one: nothing, if it may be stamped.
pub async fn compare(
    order: &Order<'_>,
    chain: Chain<'_>,
    live: &Conninfo,
    site: &mut impl Site,
    progress: &dyn Progress,
) -> Result<Vec<Finding>> {
    match chain {
        Chain::Own(to) => Course::prepare(order, None, site, progress).await?.compare(to, live, site).await,
        Chain::Draft(revision) => {
            let staged = files::Staged::new()?;
            staged.put(revision)?;
            let mut course = Course::prepare(order, Some(staged.path()), site, progress).await?;
            course.compare(&revision.id, live, site).await
        }
    }
}

impl Draft {
    /// Whether it may be put in the place of the history.
    pub fn is_proven(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }
}

impl<'a> Order<'a> {
    fn workplace(&self, python: &'a PythonEnvironment) -> Workplace<'a> {
        let Order { policy, project, hidden_variables, .. } = *self;
        Workplace { policy, project, python, target: None, hidden_variables }
    }

    /// Tables by name that are no part of a schema: Alembic's own, and obyra-db's.
    fn tables_left_out(&self) -> Vec<String> {
        let own = std::iter::once(&self.policy.version_table);
        own.chain(self.without).cloned().collect()
    }
}
