//! `up` brings an environment to the strategy from whatever state it is in; `down` stops it.

use obyra_evidence::{Exit, Failure, Outcome, text};
use obyra_postgres::cluster::{Embedded, EmbeddedSpec};
use obyra_postgres::{Limits, Session, quote, sql_failure};
use obyra_strategy::Stage;

use crate::cli::{Consent, Up};
use crate::commands::backup::run;
use crate::commands::converge::Detail;
use crate::commands::{check, converge, migrate, seed};
use crate::confirm::confirm;
use crate::environment::{Opened, Told};
use crate::facts;
use crate::invocation::Invocation;

/// Cluster, access, migrations, seeds, checklist.
pub async fn up(invocation: &mut Invocation, arguments: &Up) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    invocation.printer.within = true;
    let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
    if arguments.recreate {
        recreate(&opened, arguments.consent).await?;
    }
    bring_up(&opened, arguments.consent).await?;
    check::check_opened(&opened, crate::cli::Format::Text).await
}

/// All of `up` but the checklist.
pub async fn bring_up(opened: &Opened<'_>, consent: Consent) -> Result<(), Failure> {
    let printer = opened.invocation.printer;
    if opened.embedded() {
        printer.heading(text::cli::UP_CLUSTER);
        cluster(opened).await?;
    }
    printer.heading(text::cli::UP_ACCESS);
    converge::apply_opened(opened, consent, Detail::Reasons).await?;
    printer.heading(text::cli::UP_MIGRATIONS);
    if opened.environment.declares("migrations") {
        migrate::deploy_opened(opened, consent).await?;
    } else {
        printer.note(text::cli::NOT_DECLARED.with("section", "migrations"));
    }
    printer.heading(text::cli::UP_SEEDS);
    if opened.environment.declares("seeds") {
        seed::apply_opened(opened, consent).await?;
        seed::prove_unless_proven(opened).await?;
    } else {
        printer.note(text::cli::NOT_DECLARED.with("section", "seeds"));
    }
    if opened.embedded() && opened.environment.declares("backup") && opened.environment.backup.enabled {
        printer.heading(text::cli::UP_BACKUP);
        backup(opened).await?;
    }
    Ok(())
}

/// A backup where the last one is too old. Elsewhere that would take as long as a database is large, and is
/// for a schedule to do.
async fn backup(opened: &Opened<'_>) -> Result<(), Failure> {
    if let Some(newest) = facts::backups::newest(opened).await? {
        opened.invocation.printer.note(text::cli::UP_BACKED_UP.with("backup", newest));
        return Ok(());
    }
    run::take_opened(opened, false).await.map(drop)
}

/// Starts the embedded cluster and makes its database; both stay as they are where they exist.
async fn cluster(opened: &Opened<'_>) -> Result<(), Failure> {
    let installation = opened.installation().await?;
    let spec = EmbeddedSpec { dir: opened.cluster_folder(), settings: Vec::new() };
    let cluster = Embedded::up(&spec, &installation, &opened.invocation.progress()).await?;
    let admin = Session::connect(&cluster.admin(), Limits::default()).await?;
    let database = &opened.environment.database;
    let failed = |e| sql_failure(text::cli::DATABASE_NOT_MADE.with("database", database), &e);
    let exists = admin
        .query_opt("SELECT FROM pg_catalog.pg_database WHERE datname = $1", &[database])
        .await
        .map_err(failed)?
        .is_some();
    if !exists {
        admin.batch_execute(&format!("CREATE DATABASE {}", quote::ident(database))).await.map_err(failed)?;
        let told = Told::new("an embedded PostgreSQL with its database", format!("created {database}"))
            .fact("version", &installation.version);
        opened.record("cluster.create", Outcome::Changed, told)?;
    }
    opened.invocation.printer.note(
        text::cli::CLUSTER_UP
            .with("version", &installation.version)
            .with("place", cluster.loopback().host_summary())
            .with("database", database),
    );
    Ok(())
}

/// Dev may be recreated without keeping data; nothing else may, whatever the flags.
async fn recreate(opened: &Opened<'_>, consent: Consent) -> Result<(), Failure> {
    let environment = opened.environment;
    if !opened.embedded() || environment.stage != Stage::Development || !environment.recreate {
        return Err(Failure::refused(text::cli::RECREATE_REFUSED.with("environment", opened.name()))
            .mended_by(text::cli::RECREATE_REFUSED_MEND));
    }
    let folder = opened.cluster_folder();
    confirm(&opened.invocation.printer, consent, text::cli::RECREATE_ASK.with("folder", folder.display()))?;
    Embedded::destroy(&folder).await?;
    opened.record(
        "cluster.destroy",
        Outcome::Changed,
        Told::new("dev may be recreated", "removed with its data"),
    )
}

/// Stops an embedded cluster; its data stays.
pub async fn down(invocation: &mut Invocation, name: &str) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, name)?;
    if !opened.embedded() {
        return Err(Failure::refused(text::cli::DOWN_REFUSED.with("environment", name)));
    }
    let ran = Embedded::down(&opened.cluster_folder()).await?;
    let told = if ran { text::cli::CLUSTER_STOPPED } else { text::cli::CLUSTER_NOT_RUNNING };
    invocation.printer.note(told.with("environment", name));
    Ok(Exit::Done)
}
