//! The proof that seeds are idempotent: on a copy, each runs twice, and the second time no
//! row of any table may change. Row counts would not show a row that is rewritten: contents are
//! compared.

mod content;
mod copy;

use std::path::Path;

use obyra_evidence::{Progress, text};
use obyra_postgres::cluster::Installation;
use obyra_postgres::{Conninfo, Session};
use serde::Serialize;

use crate::run::run;
use crate::{Result, Seed, Tracking};
use content::Content;
use copy::Copy;

/// What is copied, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The database to copy, as a role that may read its whole schema.
    pub database: &'a Conninfo,
    /// The role that runs the seeds.
    pub run_as: &'a str,
    /// The programs for the copy: not older than the server.
    pub installation: &'a Installation,
    /// Where temporary clusters keep their cached initdb.
    pub cache: &'a Path,
    /// How much is copied.
    pub copied: Copied,
}

/// How much of the database the copy has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Copied {
    /// The schema and Alembic's version: never a row of anybody's data leaves its server.
    #[default]
    Schema,
    /// The data too, where seeds build on data that migrations made.
    SchemaAndData,
}

/// What the second run showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Each seed with both durations.
    pub seeds: Vec<Proven>,
    /// Tables whose content the second run changed. Empty: proven.
    pub changes: Vec<Change>,
    /// Sequences that the second run moved. `ON CONFLICT DO NOTHING` does that; no row depends on it.
    pub sequences: Vec<String>,
    /// How many tables were compared.
    pub tables: usize,
    /// How many rows they had after the first run.
    pub rows: u64,
}

/// A seed that ran twice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proven {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// How long the first run took.
    pub first_seconds: f64,
    /// How long the second took.
    pub second_seconds: f64,
}

/// A table that a seed changed although it had run before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The seed, as `001_name`.
    pub seed: String,
    /// The table, qualified.
    pub table: String,
    /// Its rows before the seed's second run; absent if the table did not exist.
    pub rows_before: Option<u64>,
    /// Its rows after it; absent if the table is gone.
    pub rows_after: Option<u64>,
}

impl Proof {
    /// Whether the second run changed no row.
    pub fn is_idempotent(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Copies the database to a temporary cluster and runs every seed there twice.
pub async fn verify(
    target: Target<'_>,
    seeds: &[Seed],
    tracking: &Tracking,
    progress: &dyn Progress,
) -> Result<Proof> {
    progress.begin(text::seeds::COPYING.message(), None);
    let copy = Copy::make(target).await?;
    progress.done();
    prove((&copy.runner().await?, &copy.observer().await?), seeds, tracking, progress).await
}

/// The proof on a database that is thrown away afterwards: as the role that runs seeds, seen by one that reads all.
pub async fn prove(
    (runner, observer): (&Session, &Session),
    seeds: &[Seed],
    tracking: &Tracking,
    progress: &dyn Progress,
) -> Result<Proof> {
    progress.begin(text::seeds::PROVING.message(), Some(2 * seeds.len() as u64));
    let proof = run_twice((runner, observer), seeds, tracking, progress).await;
    progress.done();
    proof
}

async fn run_twice(
    (runner, observer): (&Session, &Session),
    seeds: &[Seed],
    tracking: &Tracking,
    progress: &dyn Progress,
) -> Result<Proof> {
    let first = run_each(runner, seeds, progress).await?;
    let start = Content::read(observer, tracking).await?;
    let mut before = start.clone();
    let (mut proven, mut changes) = (Vec::new(), Vec::new());
    for (seed, first_seconds) in seeds.iter().zip(first) {
        let second = run(runner, seed, None).await?;
        progress.advance(1);
        let after = Content::read(observer, tracking).await?;
        changes.extend(before.changes(&after, &seed.label()));
        before = after;
        proven.push(Proven {
            number: seed.number,
            name: seed.name.clone(),
            first_seconds,
            second_seconds: second.duration.as_secs_f64(),
        });
    }
    Ok(Proof {
        seeds: proven,
        changes,
        sequences: start.moved_sequences(&before),
        tables: start.tables(),
        rows: start.rows(),
    })
}

async fn run_each(runner: &Session, seeds: &[Seed], progress: &dyn Progress) -> Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(seeds.len());
    for seed in seeds {
        let ran = run(runner, seed, None).await?;
        progress.advance(1);
        seconds.push(ran.duration.as_secs_f64());
    }
    Ok(seconds)
}
