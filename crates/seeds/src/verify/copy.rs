//! A copy of a database on a temporary cluster: roles, schema, Alembic's version, settings.

mod roles;

use std::process::Stdio;

use obyra_evidence::{Failure, Message, text};
use obyra_postgres::cluster::TemporaryCluster;
use obyra_postgres::{Conninfo, Limits, Session, mark, quote, sql_failure};
use tokio::process::Command;

use super::{Copied, Target};
use crate::Result;

/// The copy, gone when it is dropped.
pub(super) struct Copy {
    cluster: TemporaryCluster,
    database: String,
    runner: Conninfo,
}

impl Copy {
    pub(super) async fn make(target: Target<'_>) -> Result<Copy> {
        let source = Session::connect(target.database, Limits::patient()).await?;
        let (programs, server) = (target.installation.major, source.version().major());
        if programs < server {
            return Err(Failure::new(
                text::seeds::DUMP_TOO_OLD
                    .with("programs", &target.installation.version)
                    .with("server", server),
            )
            .mended_by(text::seeds::MEND_DUMP_TOO_OLD.with("server", server)));
        }
        let cluster = TemporaryCluster::start(target.installation, target.cache).await?;
        let admin = Session::connect(&cluster.admin(), Limits::patient()).await?;
        let database = target.database.database().to_owned();
        roles::create(&source, &admin).await?;
        create_database(&source, &admin, &database).await?;
        transfer(target, &cluster.admin()).await?;

        let inside = Session::connect(&cluster.admin().with_database(&database), Limits::patient()).await?;
        if target.copied == Copied::Schema {
            copy_alembic_version(&source, &inside).await?;
        }
        roles::copy_settings(&source, &inside, target.run_as).await?;
        let admin = cluster.admin().with_database(&database);
        // The copy's superuser has a password already, and the observer needs it.
        let runner = if target.run_as == admin.user() {
            admin
        } else {
            admin.with_role(target.run_as, Some(roles::let_in(&inside, target.run_as).await?))
        };
        Ok(Copy { cluster, database, runner })
    }

    /// A session as the role that runs seeds, with its settings, as on the target.
    pub(super) async fn runner(&self) -> Result<Session> {
        Session::connect(&self.runner, Limits::patient()).await
    }

    /// A session that sees every row of every table.
    pub(super) async fn observer(&self) -> Result<Session> {
        Session::connect(&self.cluster.admin().with_database(&self.database), Limits::patient()).await
    }
}

fn failed() -> Message {
    text::seeds::COPY_FAILED.message()
}

async fn create_database(source: &Session, admin: &Session, database: &str) -> Result<()> {
    let owner = source
        .query_one(
            "SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .map_err(|e| sql_failure(failed(), &e))?;
    // A database of that name exists where the target is the maintenance database itself.
    let exists = admin
        .query_opt("SELECT FROM pg_catalog.pg_database WHERE datname = $1", &[&database])
        .await
        .map_err(|e| sql_failure(failed(), &e))?;
    let verb = if exists.is_some() { "ALTER DATABASE {} OWNER TO {}" } else { "CREATE DATABASE {} OWNER {}" };
    let statement =
        verb.replacen("{}", &quote::ident(database), 1).replacen("{}", &quote::ident(owner.get(0)), 1);
    admin.batch_execute(&statement).await.map_err(|e| sql_failure(failed(), &e))
}

/// `pg_dump` and `pg_restore`. Both learn where and who from their environment alone.
async fn transfer(target: Target<'_>, admin: &Conninfo) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Failure::new(failed()).because(e))?;
    let dump = folder.path().join("copy.dump");
    let mut command = target.installation.tool_on("pg_dump", target.database);
    command
        .args(["--format=custom", "--no-password", "--no-tablespaces", "--no-publications"])
        .args(["--no-subscriptions", "--no-security-labels", "--lock-wait-timeout=10s"])
        .arg("--file")
        .arg(&dump);
    if target.copied == Copied::Schema {
        command.arg("--schema-only");
    }
    run(command, "pg_dump").await?;

    let mut command = target.installation.tool_on("pg_restore", admin);
    command
        .args(["--exit-on-error", "--no-password", "--no-tablespaces"])
        .arg(target.database.dbname_argument())
        .arg(&dump);
    run(command, "pg_restore").await
}

async fn run(mut command: Command, program: &str) -> Result<()> {
    let failed = || Failure::new(text::seeds::TOOL_FAILED.with("program", program));
    let output = command
        .env("PGAPPNAME", "obyra-db")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| failed().because(e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(mark::explained(failed().because(said.trim())))
}

/// Seeds may look at which revision they meet, whatever schema the version table is in.
async fn copy_alembic_version(source: &Session, inside: &Session) -> Result<()> {
    let tables = "SELECT n.nspname, c.relname
                    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relname = 'alembic_version' AND c.relkind = 'r'
                     AND pg_catalog.has_table_privilege(c.oid, 'SELECT')";
    let tables = source.query(tables, &[]).await.map_err(|e| sql_failure(failed(), &e))?;
    for table in tables {
        let table = quote::qualified(table.get(0), table.get(1));
        let versions = source
            .query(&format!("SELECT version_num::text FROM {table}"), &[])
            .await
            .map_err(|e| sql_failure(failed(), &e))?;
        for version in versions {
            let insert =
                format!("INSERT INTO {table} (version_num) VALUES ({})", quote::literal(version.get(0)));
            inside.batch_execute(&insert).await.map_err(|e| sql_failure(failed(), &e))?;
        }
    }
    Ok(())
}
