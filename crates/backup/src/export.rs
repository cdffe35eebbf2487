//! The logical export: `pg_dump`, encrypted to people's age keys, streamed into a store of its own, and
//! restored on the way to prove it.
//!
//! One stream feeds three: age and the store, a hash of what is stored, and `pg_restore` on a temporary
//! cluster. Nothing of it reaches a disk unencrypted.

mod prove;
mod seal;
mod stream;

use std::path::Path;

use jiff::Timestamp;
use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::cluster::{Installation, TemporaryCluster, TemporaryOptions};
use obyra_postgres::{Conninfo, Limits, Session, sql_failure};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::figures::{self, TableFigures};
use crate::repository::store::Store;

pub use seal::Recipients;

/// The folder of the exports.
pub const FOLDER: &str = "exports";

/// What is exported, and with what.
pub struct Source<'a> {
    /// The environment's name.
    pub environment: &'a str,
    /// The database.
    pub database: &'a Conninfo,
    /// The programs; no older than the server.
    pub installation: &'a Installation,
    /// Where a temporary cluster finds its template.
    pub cache: &'a Path,
}

/// An export, as its description in the store tells: `exports/<environment>/<time>/export.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The environment.
    pub environment: String,
    /// The database.
    pub database: String,
    /// The moment of its snapshot, by this machine's clock.
    pub taken: Timestamp,
    /// `server_version_num`.
    pub server_version: u32,
    /// The object with pg_dump's custom format, encrypted with age.
    pub object: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its BLAKE3.
    pub blake3: String,
    /// Tables.
    pub tables: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// The age public keys for which it is encrypted.
    pub recipients: Vec<String>,
}

/// Exports a database, and proves the export before it is described.
pub async fn run(
    source: &Source<'_>,
    store: &Store,
    recipients: &Recipients,
    now: Timestamp,
    progress: &dyn Progress,
) -> Result<Export> {
    let folder = format!("{FOLDER}/{}/{}", source.environment, now.strftime("%Y%m%dT%H%M%SZ"));
    let object = format!("{folder}/dump.age");
    progress.begin(text::backup::EXPORTING.with("environment", source.environment), None);
    let exported = dump_and_prove(source, store, recipients, &object, progress).await;
    progress.done();
    let Dumped { server_version, figures, stored } = exported?;
    stream::read_back(store, &object, &stored).await?;
    let export = Export {
        environment: source.environment.to_owned(),
        database: source.database.database().to_owned(),
        taken: now,
        server_version,
        object,
        bytes: stored.bytes,
        blake3: stored.blake3,
        tables: figures.len() as u64,
        rows: figures.iter().map(|table| table.rows.unsigned_abs()).sum(),
        recipients: recipients.public_keys().to_vec(),
    };
    let described =
        serde_json::to_vec_pretty(&export).map_err(|e| Failure::new(text::backup::EXPORT).because(e))?;
    store.create(&format!("{folder}/export.json"), described.into()).await?;
    Ok(export)
}

struct Dumped {
    server_version: u32,
    figures: Vec<TableFigures>,
    stored: stream::Stored,
}

async fn dump_and_prove(
    source: &Source<'_>,
    store: &Store,
    recipients: &Recipients,
    object: &str,
    progress: &dyn Progress,
) -> Result<Dumped> {
    let failed = |error| sql_failure(text::backup::EXPORT.message(), &error);
    let session = Session::connect(source.database, Limits::patient()).await?;
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    // The same snapshot for pg_dump and for the figures: they must agree to the row.
    let snapshot: String =
        session.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await.map_err(failed)?.get(0);
    let roles = prove::roles(&session).await?;
    let cluster =
        TemporaryCluster::start_with(source.installation, source.cache, &TemporaryOptions::default()).await?;
    let copy = prove::prepare(&cluster, source.database.database(), &roles).await?;
    let stream = stream::Stream { source, snapshot: &snapshot, copy: &copy, recipients, store, object };
    let stored = stream.run(progress).await?;
    let figures = figures::take(&session).await?;
    session.batch_execute("COMMIT").await.map_err(failed)?;
    prove::compare(&copy, &figures).await?;
    Ok(Dumped { server_version: session.version().0, figures, stored })
}

/// The exports of an environment, oldest first.
pub async fn list(store: &Store, environment: &str) -> Result<Vec<Export>> {
    let mut exports = Vec::new();
    for object in store.list(&format!("{FOLDER}/{environment}")).await? {
        if !object.name.ends_with("/export.json") {
            continue;
        }
        let Some(described) = store.get(&object.name).await? else { continue };
        let export = serde_json::from_slice(&described).map_err(|e| {
            Failure::new(text::backup::OBJECT_UNREADABLE.with("object", &object.name)).because(e)
        })?;
        exports.push(export);
    }
    exports.sort_by_key(|export: &Export| export.taken);
    Ok(exports)
}

/// Removes the exports that are older than the retention, and never the newest.
pub async fn expire(store: &Store, environment: &str, oldest: Timestamp) -> Result<Vec<Export>> {
    let exports = list(store, environment).await?;
    let newest = exports.last().map(|export| export.taken);
    let going: Vec<Export> =
        exports.into_iter().filter(|export| export.taken < oldest && Some(export.taken) != newest).collect();
    for export in &going {
        // The description first: what cannot be found any more is rubbish, not a promise.
        let description = export.object.replace("/dump.age", "/export.json");
        store.delete(&description).await?;
        store.delete(&export.object).await?;
    }
    Ok(going)
}
