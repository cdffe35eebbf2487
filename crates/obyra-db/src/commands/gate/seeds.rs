//! The seeds within a gate: where the migrations have reached the head, each runs twice, and the second time changes nothing.

use obyra_evidence::{Failure, Finding, Message, Severity, text};
use obyra_migrations::gate::Site as _;
use obyra_postgres::{Conninfo, Limits, Session};
use obyra_seeds::{Change, Proof, Seed, discover, prove};

use super::{Prepared, project};
use crate::commands::seed::tracking;

/// What is wrong with the seeds. `database` leads to the head as superuser.
pub async fn findings(site: &mut Prepared<'_>, database: &Conninfo) -> Result<Vec<Finding>, Failure> {
    let opened = site.opened;
    let folder = opened.environment.seeds.directory_in(&project(&opened.strategy.folder));
    if !opened.environment.declares("seeds") || !folder.is_dir() {
        return Ok(Vec::new());
    }
    let seeds = match discover(&folder) {
        Ok(seeds) => seeds,
        Err(failure) => return Ok(vec![failed(&failure)]),
    };
    match proven(site, database, &seeds).await {
        Ok(proof) => Ok(proof.changes.iter().map(|change| repeats(change, &seeds)).collect()),
        Err(failure) => Ok(vec![failed(&failure)]),
    }
}

async fn proven(site: &mut Prepared<'_>, database: &Conninfo, seeds: &[Seed]) -> Result<Proof, Failure> {
    let environment = site.opened.environment;
    let runner = match &environment.seeds.run_as {
        Some(role) => database.with_role(role, Some(site.password.clone())),
        None => database.clone(),
    };
    // Another role than the one that migrates may do to the new tables what a deploy would give it.
    if environment.seeds.run_as != environment.migrations.run_as {
        site.prepare(database).await?;
    }
    let (runner, observer) = (
        Session::connect(&runner, Limits::patient()).await?,
        Session::connect(database, Limits::patient()).await?,
    );
    let progress = site.opened.invocation.progress();
    prove((&runner, &observer), seeds, &tracking(site.opened)?, &progress).await
}

fn failed(failure: &Failure) -> Finding {
    let told = text::gate::SEED_FAILED.with("why", failure);
    let mend = failure.mend.clone().unwrap_or_else(|| Message::from(text::gate::MEND_SEED_FAILED));
    let finding = Finding::new(Severity::Error, "seeds", told).mended_by(mend);
    failure.at.iter().fold(finding, |finding, place| finding.at(place.clone()))
}

fn repeats(change: &Change, seeds: &[Seed]) -> Finding {
    let told = text::gate::SEED_REPEATS
        .with("seed", &change.seed)
        .with("table", &change.table)
        .with("before", change.rows_before.unwrap_or_default())
        .with("after", change.rows_after.unwrap_or_default());
    let finding = Finding::new(Severity::Error, format!("seed {}", change.seed), told)
        .mended_by(text::gate::MEND_SEED_REPEATS);
    let file = seeds.iter().find(|seed| seed.label() == change.seed);
    file.iter().fold(finding, |finding, seed| finding.at(seed.first_line()))
}
