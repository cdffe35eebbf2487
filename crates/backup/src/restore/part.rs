//! One database, or some tables of one, brought back from an earlier moment into a running server, under
//! another name.
//!
//! The cluster is restored and recovered on a temporary server; `pg_dump` of what is wanted goes straight
//! into `psql` on the target, in one transaction. Nothing that exists is touched, and what arrived is
//! compared with what was dumped.

mod arrive;
mod pipe;
mod prepare;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use obyra_evidence::{Failure, HumanBytes, Message, Progress, text};
use obyra_postgres::{Conninfo, Limits, Session, quote, sql_failure};
use serde::Serialize;

use super::instance::{Instance, Stage};
use super::oids;
use super::plan::Plan;
use super::recovery::Action;
use crate::Result;
use crate::repository::catalogue::Manifest;

/// Databases with smaller oids are PostgreSQL's own; new databases are copies of one of them.
const FIRST_OID: u32 = 16_384;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// What is brought back, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Tables, with their partitions, into a schema that does not exist yet.
    Tables {
        /// Which.
        tables: Vec<TableName>,
        /// The new schema.
        schema: String,
    },
    /// One table, beside the one that there is now.
    Table {
        /// Which.
        table: TableName,
        /// Its new name. The schema exists.
        name: TableName,
    },
    /// The whole database, as a new one.
    Database {
        /// The new database.
        name: String,
    },
}

/// Where it comes from and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct BringBack<'a> {
    /// Where the temporary server is raised.
    pub stage: Stage<'a>,
    /// The moment.
    pub plan: &'a Plan,
    /// The manifest of the plan's backup.
    pub manifest: &'a Arc<Manifest>,
    /// The database, by the name that it had at the moment.
    pub database: &'a str,
    /// What of it.
    pub part: &'a Part,
    /// Where it goes: a database of the running server. For a whole database, any one of it.
    pub target: &'a Conninfo,
}

/// What was brought back.
#[derive(Clone, Debug, Serialize)]
pub struct Brought {
    /// The tables, with their new names.
    pub tables: Vec<BroughtTable>,
    /// Bytes of the dump.
    pub bytes: u64,
    /// Roles of the dump that the target does not have: owners and privileges were left out for them.
    pub missing_roles: Vec<String>,
    /// How long restoring and recovering took.
    pub restoring: Duration,
    /// How long copying and comparing took.
    pub copying: Duration,
}

/// A table that was brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroughtTable {
    /// Its name on the target, quoted where needed.
    pub table: String,
    /// Its rows.
    pub rows: u64,
}

impl TableName {
    /// As SQL.
    pub fn quoted(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }
}

impl BringBack<'_> {
    /// What will be done, in words.
    pub fn words(&self) -> Vec<Message> {
        let size = HumanBytes(self.plan.write_bytes);
        let raise = text::backup::PART_RAISE.with("backup", &self.plan.backup.id).with("size", size);
        let place = self.stage.scratch.map(|folder| folder.display().to_string());
        let mut words = vec![
            raise.with("folder", place.unwrap_or_else(|| std::env::temp_dir().display().to_string())),
            text::backup::PART_RECOVER
                .with("target", &self.plan.target)
                .with("size", HumanBytes(self.plan.replay.bytes)),
        ];
        let copied = |from: &str, to: String| {
            text::backup::PART_COPY.with("from", from).with("to", to).with("database", self.target.database())
        };
        match self.part {
            Part::Tables { tables, schema } => {
                words.extend(
                    tables.iter().map(|table| copied(&table.quoted(), quote::qualified(schema, &table.name))),
                );
            }
            Part::Table { table, name } => words.push(copied(&table.quoted(), name.quoted())),
            Part::Database { name } => {
                words.push(text::backup::PART_COPY_DATABASE.with("from", self.database).with("to", name));
            }
        }
        words.push(text::backup::PART_NOTHING_OVERWRITTEN.message());
        words
    }

    /// Does it.
    pub async fn run(&self, progress: &dyn Progress) -> Result<Brought> {
        // Before anything takes long: whether it could arrive at all.
        arrive::check(self).await?;
        let instance = self.raise(progress).await?;
        let restoring = instance.timed.files + instance.timed.replay;
        let begun = std::time::Instant::now();
        let brought = self.copy(&instance, progress).await?;
        Ok(Brought { restoring, copying: begun.elapsed(), ..brought })
    }

    async fn raise(&self, progress: &dyn Progress) -> Result<Instance> {
        if let Some(databases) = self.needed_databases().await? {
            let stage = Stage { databases: Some(&databases), ..self.stage };
            match stage.raise(self.plan, self.manifest, Action::Promote, progress).await {
                Ok(instance) if self.has_all(&instance, &databases).await? => return Ok(instance),
                // It was another database at the moment, or recovery minded what was left out.
                Ok(_) | Err(_) => progress.note(text::backup::PART_AGAIN_WHOLE.message()),
            }
        }
        self.stage.raise(self.plan, self.manifest, Action::Promote, progress).await
    }

    /// The databases whose files are needed: ours, and those from which new ones are made. With checksums,
    /// the first change of each page after the backup's beginning is in the log as a whole page, so that
    /// replay never reads what the files of the other databases held. Without, all are restored.
    async fn needed_databases(&self) -> Result<Option<BTreeSet<u32>>> {
        if !self.plan.backup.cluster.checksums {
            return Ok(None);
        }
        let Stage { repository, cluster, .. } = self.stage;
        let ours = oids::of_database(repository, cluster, self.manifest, self.database).await?;
        let Some(ours) = ours.filter(|ours| !ours.is_empty()) else { return Ok(None) };
        let folders = self.manifest.directories.iter().filter_map(|directory| {
            directory.path.strip_prefix("base/").and_then(|oid| oid.parse::<u32>().ok())
        });
        let own = folders.filter(|oid| *oid < FIRST_OID);
        Ok(Some(own.chain(ours).collect()))
    }

    /// Whether the database of that name is, at the moment, one whose files were restored or came with the
    /// log.
    async fn has_all(&self, instance: &Instance, databases: &BTreeSet<u32>) -> Result<bool> {
        let session = Session::connect(&instance.restored.admin("postgres")?, Limits::default()).await?;
        let asked = "SELECT oid FROM pg_catalog.pg_database WHERE datname = $1";
        let row = session.query_opt(asked, &[&self.database]).await.map_err(|e| failed(&e))?;
        let Some(oid) = row.map(|row| row.get::<_, u32>(0)) else { return Ok(false) };
        Ok(databases.contains(&oid))
    }

    async fn copy(&self, instance: &Instance, progress: &dyn Progress) -> Result<Brought> {
        let prepared = prepare::prepare(self, instance).await?;
        progress.begin(text::backup::PART_COPYING.with("database", self.database), None);
        let copied = arrive::copy(self, instance, &prepared, progress).await;
        progress.done();
        copied
    }
}

/// A statement on the temporary server failed.
fn failed(error: &obyra_postgres::tokio_postgres::Error) -> Failure {
    sql_failure(text::backup::PART_FAILED.message(), error)
}
