//! A schema from which the head must be reached: a dump without data, or a live database, read only.

use std::path::PathBuf;
use std::process::Stdio;

use obyra_evidence::{Failure, Finding, Severity, text};
use obyra_postgres::cluster::Installation;
use obyra_postgres::{Conninfo, Result, Session, mark, quote, sql_failure};

use super::{Size, Sizes};

/// Where a starting schema comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A script of `pg_dump --schema-only`.
    Dump(PathBuf),
    /// A live database, with the revisions that it stands at.
    Live {
        /// Its connection, of a role that may read the schema.
        database: Box<Conninfo>,
        /// Where it stands.
        revisions: Vec<String>,
    },
}

/// How large the tables of a database are, by estimate. Tables that nobody has looked at yet are left out.
pub async fn sizes(session: &Session) -> Result<Sizes> {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname), c.reltuples::bigint, pg_catalog.pg_total_relation_size(c.oid)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let rows = session.query(sql, &[]).await;
    let rows = rows.map_err(|e| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &e))?;
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    let size = |row: &obyra_postgres::tokio_postgres::Row| {
        (row.get(0), Size { rows: number(row.get(1)), bytes: number(row.get(2)) })
    };
    Ok(rows.iter().map(size).collect())
}

/// The role that restores; whatever it made is handed over afterwards.
pub(crate) const RESTORER: &str = "obyra_gate_restorer";

/// Restores the schema into an empty database. What the dump says about roles that the gate does not have,
/// it may say in vain.
pub(crate) async fn restore(
    installation: &Installation,
    start: &Start,
    empty: &Conninfo,
) -> Result<Vec<Finding>> {
    let script = match start {
        Start::Dump(file) => tokio::fs::read(file).await.map_err(|error| {
            Failure::usage(text::gate::DUMP_UNREADABLE.with("file", file.display())).because(error)
        })?,
        Start::Live { database, .. } => dump(installation, database).await?,
    };
    let admin = Session::connect(empty, obyra_postgres::Limits::patient()).await?;
    let create = format!(
        "DO $$ BEGIN CREATE ROLE {RESTORER} SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    );
    admin.batch_execute(&create).await.map_err(|e| sql_failure(text::gate::RESTORING.message(), &e))?;
    let mut command = installation.tool_on("psql", empty);
    command
        .args(["--no-psqlrc", "--quiet", "--no-password", "--file", "-"])
        .env("PGOPTIONS", format!("-c role={RESTORER}"));
    let (_, complaints) = run(command, Some(&script)).await?;
    let refused: Vec<&str> = complaints.lines().filter(|line| matters(line)).collect();
    Ok(refused.first().map(|first| partly(first, refused.len(), start)).into_iter().collect())
}

/// Hands over what was restored to whoever the migrations act as.
pub(crate) async fn hand_over(admin: &Session, runner: &Conninfo) -> Result<()> {
    let failed =
        |error: &obyra_postgres::tokio_postgres::Error| sql_failure(text::gate::RESTORING.message(), error);
    let session = Session::connect(runner, obyra_postgres::Limits::default()).await?;
    let row = session.query_one("SELECT current_user::text", &[]).await.map_err(|e| failed(&e))?;
    let owner: String = row.get(0);
    let reassign = format!("REASSIGN OWNED BY {RESTORER} TO {}", quote::ident(&owner));
    admin.batch_execute(&reassign).await.map_err(|e| failed(&e))
}

/// A dump without data does not say at which revision it was taken.
pub(super) async fn stamp(admin: &Session, table: &str, revisions: &[String]) -> Result<()> {
    for revision in revisions {
        let insert = format!("INSERT INTO {table} (version_num) VALUES ({})", quote::literal(revision));
        let inserted = admin.batch_execute(&insert).await;
        inserted.map_err(|e| sql_failure(text::gate::RESTORING.message(), &e))?;
    }
    Ok(())
}

async fn dump(installation: &Installation, database: &Conninfo) -> Result<Vec<u8>> {
    let mut command = installation.tool_on("pg_dump", database);
    command.args(["--schema-only", "--no-owner", "--no-privileges", "--no-password", "--no-tablespaces"]);
    command.args([
        "--no-publications",
        "--no-subscriptions",
        "--no-security-labels",
        "--lock-wait-timeout=10s",
    ]);
    let (script, complaints) = run(command, None).await?;
    if script.is_empty() {
        return Err(Failure::new(text::gate::DUMP_FAILED.with("why", complaints.trim())));
    }
    Ok(script)
}

async fn run(mut command: tokio::process::Command, input: Option<&[u8]>) -> Result<(Vec<u8>, String)> {
    use tokio::io::AsyncWriteExt as _;
    let failed = |error: std::io::Error| Failure::new(text::gate::DUMP_FAILED.with("why", error));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let pipe = child.stdin.take();
    let write = async move {
        if let (Some(mut pipe), Some(input)) = (pipe, input) {
            // A program that ended early says why on its stderr.
            let _ = pipe.write_all(input).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.map_err(failed)?;
    Ok((output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Owners, grants and policies for roles that are the access room's are no part of the question; nor is what
/// an empty database has already.
fn matters(line: &str) -> bool {
    let Some((_, error)) = line.split_once("ERROR:  ") else { return false };
    let role = error.starts_with("role \"") && error.ends_with("\" does not exist");
    !role && error != "schema \"public\" already exists" && !mark::is_refused(error)
}

fn partly(first: &str, count: usize, start: &Start) -> Finding {
    let told = text::gate::DUMP_PARTLY.with("count", count).with("why", first.trim());
    let subject = match start {
        Start::Dump(file) => file.display().to_string(),
        Start::Live { database, .. } => database.host_summary(),
    };
    Finding::new(Severity::Warning, subject, told).mended_by(text::gate::MEND_DUMP)
}
