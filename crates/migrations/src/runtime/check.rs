//! A check: the proof by reading and the proof by running, put together for each statement.

use std::path::Path;
use std::time::Duration;

use obyra_evidence::{Finding, Place, Progress, Severity};
use obyra_postgres::cluster::Search;
use obyra_postgres::{Conninfo, Result};
use serde::Serialize;

use super::prove::{Ground, Proof, prove};
use super::trial::{self, Stands, Trial, Twice};
use super::{Helper, Reading, Site, Statement, judge, read};
use crate::{Policy, PythonSearch, gate};

/// On what statements are tried.
#[derive(Clone, Debug)]
pub struct Bench<'a> {
    /// Where PostgreSQL's programs are, of the environment's version.
    pub postgres: &'a Search,
    /// The database's name in the environment.
    pub database: &'a str,
    /// What is in it before.
    pub start: Start<'a>,
    /// The search path of the role that runs them.
    pub ground: Ground,
    /// How long one statement, or one revision before, may take.
    pub patience: Duration,
}

/// What is in the database before the statements.
#[derive(Clone, Debug)]
pub enum Start<'a> {
    /// Nothing.
    Empty,
    /// A schema that `pg_dump --schema-only` wrote.
    Dump(gate::Start),
    /// What Alembic's migrations make of an empty one.
    Head {
        /// The migrations' section of the strategy.
        policy: &'a Policy,
        /// The folder of the strategy file.
        project: &'a Path,
        /// Where the application's Python is.
        python: &'a PythonSearch,
        /// Environment variables that the application must not see: the administrator's connection.
        hidden_variables: &'a [String],
    },
}

/// What is known of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Reading proves that it can run again.
    ProvenByReading,
    /// Running it twice does.
    ProvenByRunning,
    /// It cannot run again.
    Refuted,
    /// Nothing proves either.
    Unknown,
}

impl Verdict {
    /// Whether it can run again.
    pub fn is_proven(self) -> bool {
        matches!(self, Verdict::ProvenByReading | Verdict::ProvenByRunning)
    }
}

/// A statement that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Where it is sent.
    pub place: Place,
    /// Its beginning.
    pub title: String,
    /// What is known of it.
    pub verdict: Verdict,
    #[serde(skip)]
    pub(super) statement: Statement,
    #[serde(skip)]
    pub(super) proof: Proof,
    #[serde(skip)]
    pub(super) twice: Option<Twice>,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The statements that change something, in the order in which they run.
    pub statements: Vec<Checked>,
    /// What a person should know, the gravest first.
    pub findings: Vec<Finding>,
    /// Alembic's head, on which they were tried, if there is one.
    pub head: Option<String>,
    /// Why they were not tried: the head could not be reached.
    pub unreached: Option<String>,
    /// What identifies the content of the files.
    pub digest: String,
    /// How many files there are.
    pub files: usize,
    /// How many statements are not known: those that reading and running leave open, and those that exist
    /// only at run time.
    pub unknown: usize,
}

impl Check {
    /// How many statements are proven by either means.
    pub fn count(&self, of: impl Fn(Verdict) -> bool) -> usize {
        self.statements.iter().filter(|statement| of(statement.verdict)).count()
    }

    /// Whether anything was found that must be mended.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The checksums of the SQL files whose statements are all proven, by whichever means.
    pub fn proven_files(&self, helper: &Helper) -> Vec<String> {
        let proven = helper.files().iter().filter(|entry| {
            let own = self.statements.iter().filter(|each| each.place.file == entry.path());
            let mut own = own.peekable();
            entry.is_sql() && own.peek().is_some() && own.all(|each| each.verdict.is_proven())
        });
        proven.map(|entry| entry.checksum()).collect()
    }

    /// The lines that were judged: those that send a statement, and those of the handlers around it.
    pub(crate) fn judged(&self) -> impl Iterator<Item = &Place> {
        let statements = self.statements.iter();
        statements.flat_map(|each| {
            let handlers = each.statement.caught.iter().map(|handler| &handler.place);
            handlers.chain([&each.place])
        })
    }

    /// Whether every statement is proven.
    pub fn is_clean(&self) -> bool {
        !self.has_errors() && self.unknown == 0
    }
}

/// Reads a helper's statements, and runs them twice on a throw-away server.
pub async fn check(
    helper: &Helper,
    bench: &Bench<'_>,
    site: &mut impl Site,
    progress: &dyn Progress,
) -> Result<Check> {
    let reading = read(helper)?;
    let proofs = prove(&reading.statements, &bench.ground);
    let trial = match needs_running(&reading) {
        true => trial::run(bench, site, (&reading.statements, &proofs), progress).await?,
        false => Trial::default(),
    };
    Ok(judge::judge(helper, reading, proofs, trial))
}

/// A database of which a gate has seen that it is at the head.
pub(crate) struct Reached<'a> {
    /// The connection of the role that migrates.
    pub runner: &'a Conninfo,
    pub head: String,
    /// How long one statement may take.
    pub patience: Duration,
}

/// The same within a gate. Where the head was not reached, the statements are only read.
pub(crate) async fn check_at(
    helper: &Helper,
    ground: &Ground,
    reached: Option<Reached<'_>>,
    progress: &dyn Progress,
) -> Result<Check> {
    let reading = read(helper)?;
    let proofs = prove(&reading.statements, ground);
    let trial = match reached.filter(|_| needs_running(&reading)) {
        Some(Reached { runner, head, patience }) => {
            let read = (reading.statements.as_slice(), proofs.as_slice());
            let runs = trial::twice(runner, patience, read, progress).await?;
            Trial { runs, stands: Stands::Head(head) }
        }
        None => Trial::default(),
    };
    Ok(judge::judge(helper, reading, proofs, trial))
}

/// What is wrong with a file is mended before anything is run.
fn needs_running(reading: &Reading) -> bool {
    reading.findings.is_empty() && !reading.statements.is_empty()
}
