//! `pg_amcheck` on every database: heaps and B-trees that contradict themselves
//! (<https://www.postgresql.org/docs/current/app-pgamcheck.html>).

use std::process::Stdio;

use obyra_evidence::{Failure, text};
use obyra_postgres::{Limits, Session, sql_failure};

use super::checks::Check;
use crate::Result;
use crate::restore::Instance;

/// Databases that are checked at once.
const JOBS: &str = "--jobs=2";
/// Lines of findings that are kept.
const LINES: usize = 10;

pub(super) async fn check(instance: &Instance) -> Result<Check> {
    let name = text::backup::DRILL_AMCHECK;
    let admin = instance.restored.admin("postgres")?;
    let session = Session::connect(&admin, Limits::default()).await?;
    let available = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'";
    let available = session.query_opt(available, &[]).await;
    let available = available.map_err(|e| sql_failure(text::backup::DRILL_FAILED.message(), &e))?;
    if available.is_none() {
        return Ok(Check::skipped(name, text::backup::DRILL_AMCHECK_MISSING));
    }
    let mut command = instance.restored.installation().tool_on("pg_amcheck", &admin);
    command.args(["--all", "--install-missing", "--no-password", JOBS]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|e| Failure::new(text::backup::DRILL_FAILED.message()).because(e))?;
    if output.status.success() {
        return Ok(Check::passed(name, text::backup::DRILL_AMCHECK_CLEAN));
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let detail = lines[..lines.len().min(LINES)].join("\n");
    Ok(Check::failed(name, text::backup::DRILL_AMCHECK_FOUND.with("count", lines.len()), detail))
}
