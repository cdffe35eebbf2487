//! The throw-away server of a gate or a baseline: one cluster, one database at a time, always under the same name.

use std::future::Future;
use std::path::PathBuf;

use obyra_evidence::{Failure, Finding, Progress, text};
use obyra_postgres::cluster::{Installation, Search, TemporaryCluster, TemporaryOptions};
use obyra_postgres::{Conninfo, Limits, Result, Session, quote, sql_failure};

use super::log;

const MEASURE: &str = include_str!("measure.sql");
const SNAPSHOT: &str = include_str!("snapshot.sql");
const DRIFT: &str = include_str!("drift.sql");

/// Makes a new database what the environment's is before its first revision: roles, schemas, privileges.
pub trait Site: Send {
    /// `database` leads to the new database as superuser. Returns the connection of the role that migrates.
    fn prepare(&mut self, database: &Conninfo) -> impl Future<Output = Result<Conninfo>> + Send;

    /// What is to be proven on a database that has reached the head from empty, committed. It is thrown away afterwards.
    fn reached(&mut self, _database: &Conninfo) -> impl Future<Output = Result<Vec<Finding>>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// The cluster. Whatever happens, it is gone with this value.
pub(crate) struct Stage {
    cluster: TemporaryCluster,
    first: Session,
    database: String,
    made: usize,
}

/// A database of the stage.
pub(crate) struct Database {
    /// The superuser's session: the second connection of every proof.
    pub admin: Session,
    /// The connection of the role that migrates.
    pub runner: Conninfo,
    /// Where the server's log stood when the database was ready.
    pub log_offset: u64,
    /// The folder of the server's data.
    pub data: PathBuf,
}

impl Stage {
    /// Starts the cluster. Nothing of it needs to survive a crash. `by_port`: not every application can make a URL of
    /// a socket's path.
    pub async fn start(
        postgres: &Search,
        database: &str,
        by_port: bool,
        progress: &dyn Progress,
    ) -> Result<Stage> {
        let installation = Installation::find_or_fetch(postgres, progress).await?;
        let mut settings = own(&log::SETTINGS);
        settings.extend(own(&[("autovacuum", "off"), ("jit", "off"), ("checkpoint_timeout", "1h")]));
        let options =
            TemporaryOptions { settings, in_memory: true, tls: by_port, ..TemporaryOptions::default() };
        let cluster = TemporaryCluster::start_with(&installation, &postgres.cache, &options).await?;
        // Every other database, the maintenance one too, may have to make room for the next.
        let first = cluster.admin().with_database("template1");
        let first = Session::connect(&first, Limits::patient()).await?;
        Ok(Stage { cluster, first, database: database.to_owned(), made: 0 })
    }

    /// An empty database as the environment's is before its first revision. The one before keeps another name,
    /// since dropping it would take longer.
    pub async fn database(&mut self, site: &mut impl Site) -> Result<Database> {
        self.empty().await?;
        self.prepared(site).await
    }

    /// An empty database that nobody has prepared: the superuser's connection to it.
    pub async fn empty(&mut self) -> Result<Conninfo> {
        let name = quote::ident(&self.database);
        if self.made > 0 {
            let aside = quote::ident(&format!("obyra_gate_{}", self.made));
            let end = format!(
                "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity
                  WHERE datname = {} AND pid <> pg_catalog.pg_backend_pid()",
                quote::literal(&self.database)
            );
            self.run(&end).await?;
            self.run(&format!("ALTER DATABASE {name} RENAME TO {aside}")).await?;
        }
        self.made += 1;
        // The maintenance database itself may bear the name.
        if self.made > 1 || self.database != self.cluster.admin().database() {
            // Files need not go through the log, where nothing is to be recovered from it.
            let strategy = if self.installation().major >= 15 { "STRATEGY file_copy" } else { "" };
            self.run(&format!("CREATE DATABASE {name} TEMPLATE template0 {strategy}")).await?;
        }
        Ok(self.reached())
    }

    /// The superuser's connection to the database at hand.
    pub fn reached(&self) -> Conninfo {
        self.cluster.admin().with_database(&self.database)
    }

    /// The superuser's session in the database at hand, with the gate's eyes in it.
    pub async fn watched(&self) -> Result<Session> {
        let admin = Session::connect(&self.reached(), Limits::patient()).await?;
        self.watch(admin).await
    }

    async fn watch(&self, admin: Session) -> Result<Session> {
        for script in [MEASURE, SNAPSHOT, DRIFT] {
            admin.batch_execute(script).await.map_err(|error| self.failed(&error))?;
        }
        Ok(admin)
    }

    /// The database, prepared by the site, with the gate's eyes in it.
    pub async fn prepared(&self, site: &mut impl Site) -> Result<Database> {
        let reached = self.reached();
        let (runner, admin) =
            tokio::join!(site.prepare(&reached), Session::connect(&reached, Limits::patient()));
        let (runner, admin) = (runner?, admin?);
        let door = self.cluster.loopback().with_database(&self.database);
        let runner = door.with_role(runner.user(), runner.password().cloned());
        let admin = self.watch(admin).await?;
        let log_offset = log::length(&self.log());
        Ok(Database { admin, runner, log_offset, data: self.cluster.dir().join("data") })
    }

    /// PostgreSQL's programs.
    pub fn installation(&self) -> &Installation {
        self.cluster.installation()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.cluster.log_file()
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.first.batch_execute(sql).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &obyra_postgres::tokio_postgres::Error) -> Failure {
        sql_failure(text::gate::STAGE_FAILED.with("database", &self.database), error)
    }
}

fn own(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
