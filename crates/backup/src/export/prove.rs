//! The proof of an export: it is restored into a temporary cluster while it is written, and the copy must
//! hold the same rows.

use std::process::Stdio;

use obyra_evidence::text;
use obyra_postgres::cluster::{Installation, TemporaryCluster};
use obyra_postgres::{Conninfo, Limits, Session, quote, sql_failure};
use tokio::process::Child;

use crate::figures::{self, TableFigures};
use crate::{Result, child};

/// The roles that grants and policies of the database may name.
pub(super) async fn roles(session: &Session) -> Result<Vec<String>> {
    let rows = session
        .query("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY 1", &[])
        .await
        .map_err(|error| sql_failure(text::backup::EXPORT.message(), &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Makes an empty database of the same name, and the roles, which can do nothing there.
pub(super) async fn prepare(
    cluster: &TemporaryCluster,
    database: &str,
    roles: &[String],
) -> Result<Conninfo> {
    let failed = |error| sql_failure(text::backup::EXPORT_COPY.message(), &error);
    let session = Session::connect(&cluster.admin(), Limits::default()).await?;
    let present = self::roles(&session).await?;
    for role in roles.iter().filter(|role| !present.contains(role)) {
        session.batch_execute(&format!("CREATE ROLE {}", quote::ident(role))).await.map_err(failed)?;
    }
    let name = if database == "postgres" { "copy" } else { database };
    let sql = format!("CREATE DATABASE {} TEMPLATE template0", quote::ident(name));
    session.batch_execute(&sql).await.map_err(failed)?;
    Ok(cluster.admin().with_database(name))
}

/// pg_restore, which reads the dump from its input and stops at the first error.
pub(super) fn restoring(installation: &Installation, copy: &Conninfo) -> Result<Child> {
    let mut command = installation.tool_on("pg_restore", copy);
    command.args(["--no-password", "--exit-on-error"]).arg(copy.dbname_argument());
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    child::spawn(command, text::backup::PG_RESTORE)
}

/// The copy against the source's snapshot.
pub(super) async fn compare(copy: &Conninfo, expected: &[TableFigures]) -> Result<()> {
    let failed = |error| sql_failure(text::backup::EXPORT_COPY.message(), &error);
    let session = Session::connect(copy, Limits::patient()).await?;
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let found = figures::take(&session).await?;
    session.batch_execute("COMMIT").await.map_err(failed)?;
    let differences = figures::differences(expected, &found);
    if differences.is_empty() {
        return Ok(());
    }
    Err(figures::differ(text::backup::EXPORT_DIFFERS.with("count", differences.len()), &differences))
}
