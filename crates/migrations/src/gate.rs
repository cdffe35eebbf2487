//! The gate: whether a branch's migrations can be deployed, found out on a throw-away server.
//!
//! One cluster and one Python process. The history is replayed from empty as production would run it; the
//! revisions that are checked also go down and up again, to an equal catalogue; what the code hides is read
//! from the server's own log. Nothing is believed from an exit code.

mod blocks;
mod branch;
pub(crate) mod catalogue;
mod course;
mod drift;
mod hazards;
mod judge;
mod log;
mod models;
mod once;
mod places;
mod proof;
mod running;
pub(crate) mod stage;
pub(crate) mod start;
mod stopped;
mod trips;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use obyra_evidence::{Finding, Place, Progress, Severity};
use obyra_postgres::Result;
use obyra_postgres::cluster::Search;
use serde::Serialize;

pub use self::branch::Scope;
use self::course::Course;
pub use self::stage::Site;
pub use self::start::{Start, sizes};
use crate::driver::Workplace;
use crate::graph::Applied;
use crate::runtime::{Check, Ground, Helper};
use crate::{Policy, PythonEnvironment, PythonSearch};

/// What is to be gated, and on what.
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
    /// The strategy's schemas in it, the application's first: where the models' tables are looked for.
    pub schemas: &'a [String],
    /// Which revisions are checked one by one.
    pub scope: Scope,
    /// A schema from which the head must be reached too.
    pub start: Option<&'a Start>,
    /// How large the environment's tables are, as far as that is known.
    pub sizes: &'a Sizes,
    /// The revisions as environments ran them, as far as that was recorded.
    pub applied: &'a [Applied],
    /// What the application alters at its start, and where that acts; none if it does not.
    pub runtime: Option<(&'a Helper, &'a Ground)>,
}

/// Sizes by `schema.table`.
pub type Sizes = BTreeMap<String, Size>;

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Its rows, as the statistics estimate them.
    pub rows: u64,
    /// With its indexes.
    pub bytes: u64,
}

impl Size {
    /// `2.1 M`.
    pub fn rows_shown(self) -> String {
        short(self.rows, ["", "k", "M", "G"])
    }

    /// `340.0 MB`.
    pub fn bytes_shown(self) -> String {
        short(self.bytes, ["B", "kB", "MB", "GB"])
    }
}

fn short(value: u64, units: [&str; 4]) -> String {
    let (mut value, mut unit) = (value as f64, 0);
    while value >= 1000.0 && unit < 3 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", units[unit]).trim_end().to_owned()
}

/// How a part of the gate ended. What could not be tried is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Proven.
    Passed,
    /// Refuted.
    Failed,
    /// Not tried.
    #[default]
    Unknown,
}

/// What the gate found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The head, if there is exactly one.
    pub head: Option<String>,
    /// Whether an empty database, and the starting schema if there is one, reached the head, committed.
    pub upgrade: Verdict,
    /// Whether the checked revisions went down and up again to the same schema.
    pub downgrade: Verdict,
    /// The revisions that ran from empty, with the seconds that their own code took.
    pub revisions: Vec<Timed>,
    /// The revisions that were checked one by one.
    pub checked: BTreeSet<String>,
    /// Whether these are those that the branch adds.
    pub checked_branch: bool,
    /// Whether `create_all` made the models beside what the revisions made.
    pub models_made: bool,
    /// Each command of the checked revisions that changed the catalogue, with its locks on older tables.
    pub commands: Vec<Measured>,
    /// What the application alters at its start. Without a head that was reached, it is only read.
    #[serde(skip)]
    pub alterations: Option<Check>,
    /// What a person should know, the gravest first.
    pub findings: Vec<Finding>,
}

/// A revision that ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// Its identifier.
    pub revision: String,
    /// How long its own code took.
    pub seconds: f64,
}

/// A command that changed the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The revision.
    pub revision: String,
    /// The command's tag.
    pub command: String,
    /// What it made or changed.
    pub objects: Vec<String>,
    /// The line that sent it.
    pub place: Option<Place>,
    /// The locks that the transaction then held on tables that are older than the revision.
    pub locks: Vec<TableLock>,
}

/// A lock that others notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableLock {
    /// The table.
    pub table: String,
    /// The mode, as SQL writes it.
    pub mode: &'static str,
    /// The command wrote the table anew.
    pub rewritten: bool,
    /// The command read all of it.
    pub scanned: bool,
}

/// Runs the gate. A failure means that it could not be run; what is wrong with the migrations is a finding.
pub async fn gate(order: &Order<'_>, site: &mut impl Site, progress: &dyn Progress) -> Result<Report> {
    let mut course = Course::prepare(order, site, progress).await?;
    let reached = !course.graph().revisions.is_empty() && course.reach_from_empty(site).await?;
    if reached {
        course.for_good(site).await?;
    }
    course.alter_at_start(site, reached).await?;
    if reached {
        course.reach_from_start(site).await?;
    }
    Ok(course.report())
}

impl<'a> Order<'a> {
    fn workplace(&self, python: &'a PythonEnvironment) -> Workplace<'a> {
        let Order { policy, project, hidden_variables, .. } = *self;
        Workplace { policy, project, python, target: None, hidden_variables }
    }
}

impl Report {
    /// Whether anything stands in the way of a deploy.
    pub fn is_in_order(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    /// Adds findings from elsewhere, leaves each defect once, and sorts them: the gravest first, then by place.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
        let known = once::Known {
            reached: self.upgrade == Verdict::Passed,
            models_made: self.models_made,
            judged: self.alterations.iter().flat_map(Check::judged).map(once::line).collect(),
        };
        once::each(&mut self.findings, &known);
        self.findings.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| a.place.cmp(&b.place)).then_with(|| a.cmp(b))
        });
        self.findings.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let size = Size { rows: 2_130_000, bytes: 340_000_000 };
        assert_eq!((size.rows_shown().as_str(), size.bytes_shown().as_str()), ("2.1 M", "340.0 MB"));
        assert_eq!(Size { rows: 12, bytes: 8192 }.rows_shown(), "12");
    }
}
