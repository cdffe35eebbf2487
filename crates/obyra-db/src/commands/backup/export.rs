//! `backup export`: the logical copy kept outside, encrypted for people, proven by a restore.

use obyra_backup::export::{self, Export, Recipients, Source};
use obyra_backup::repository::store::Store;
use obyra_evidence::{Exit, Failure, HumanBytes, Outcome, text};

use crate::environment::{Opened, Told};
use crate::repository;

/// Exports, proves, records, and removes what is older than the retention.
pub async fn export(opened: &Opened<'_>) -> Result<Exit, Failure> {
    let policy = &opened.environment.backup.export;
    let store = store(opened)?;
    let recipients = Recipients::parse(&policy.recipients)?;
    opened.can_record()?;
    let outcome = run(opened, &store, &recipients).await;
    let expected = "a logical export, restored and equal to its source";
    let export = opened.recorded("backup.export", expected, outcome, |export| {
        let told = Told::new(expected, format!("{} rows of {} tables", export.rows, export.tables))
            .figure("bytes", export.bytes as f64)
            .figure("rows", export.rows as f64)
            .figure("tables", export.tables as f64)
            .fact("object", &export.object)
            .fact("blake3", &export.blake3);
        (Outcome::Passed, told)
    })?;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&export);
    } else {
        printer.line(
            text::backup::EXPORTED
                .with("object", &export.object)
                .with("store", store.url())
                .with("size", HumanBytes(export.bytes))
                .with("rows", export.rows)
                .with("tables", export.tables),
        );
    }
    expire(opened, &store).await?;
    Ok(Exit::Done)
}

async fn run(opened: &Opened<'_>, store: &Store, recipients: &Recipients) -> Result<Export, Failure> {
    let database = opened.admin().await?;
    let installation = opened.installation().await?;
    let source = Source {
        environment: opened.name(),
        database: &database,
        installation: &installation,
        cache: &opened.invocation.cache()?,
    };
    export::run(&source, store, recipients, opened.now(), &opened.invocation.progress()).await
}

async fn expire(opened: &Opened<'_>, store: &Store) -> Result<(), Failure> {
    let oldest = opened.environment.backup.export.retention.before(opened.now());
    for gone in export::expire(store, opened.name(), oldest).await? {
        opened.invocation.printer.note(text::backup::EXPORT_EXPIRED.with("object", gone.object));
    }
    Ok(())
}

fn store(opened: &Opened<'_>) -> Result<Store, Failure> {
    let policy = &opened.environment.backup.export;
    let Some(url) = &policy.repository else {
        return Err(Failure::usage(text::strategy::EXPORT_WITHOUT_PLACE.with("environment", opened.name())));
    };
    repository::store_at(opened, Some(url), policy.server_side_encryption)
}
