//! `exec` runs a command with a role's connection; `url` prints it.
//!
//! A password travels in the child's environment, never on a command line, where every user
//! of the machine could read it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use obyra_evidence::{Exit, Failure, text};
use obyra_postgres::{Conninfo, Reveal, Scheme};
use secrecy::ExposeSecret;

use crate::cli::{Driver, Exec, Url};
use crate::environment::Opened;
use crate::invocation::Invocation;

/// Runs the command and ends with its exit code.
pub async fn exec(invocation: &mut Invocation, arguments: &Exec) -> Result<ExitCode, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
    let conninfo = connection(&opened, arguments.role.as_deref()).await?;
    let mut command = child(&opened, &conninfo, &arguments.command);
    if opened.embedded() {
        // Whoever has only this program gets psql and pg_dump with it.
        command.env("PATH", path_with(&opened.installation().await?.bin_dir));
    }
    let status = command.status().await.map_err(|e| {
        let program = arguments.command[0].to_string_lossy().into_owned();
        Failure::new(text::cli::EXEC_FAILED.with("program", program)).because(e)
    })?;
    // As shells do: 128 + the signal that ended it.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The search path, ours last: what the user has installed goes first.
fn path_with(folder: &std::path::Path) -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&own).chain([folder.to_path_buf()]);
    std::env::join_paths(folders).unwrap_or(own)
}

#[expect(clippy::disallowed_methods, reason = "running the user's command is what this verb is for")]
fn child(
    opened: &Opened<'_>,
    conninfo: &Conninfo,
    command: &[std::ffi::OsString],
) -> tokio::process::Command {
    let mut child = tokio::process::Command::new(&command[0]);
    child.args(&command[1..]).kill_on_drop(true);
    connect_by_environment(&mut child, opened, conninfo);
    child
}

/// Gives a command a role's connection: in `DATABASE_URL` and in libpq's variables.
pub fn connect_by_environment(
    command: &mut tokio::process::Command,
    opened: &Opened<'_>,
    conninfo: &Conninfo,
) {
    for (name, value) in conninfo.env() {
        command.env(name, value.expose_secret());
    }
    // A Flask application speaks through SQLAlchemy, whose plain postgresql:// means another driver.
    let flask = opened.environment.migrations.app.is_some();
    let scheme = if flask { Scheme::PostgresqlPsycopg } else { Scheme::Postgresql };
    command
        .env("DATABASE_URL", conninfo.url(scheme, Reveal::Password).expose_secret())
        .env("OBYRA_DB_ENV", opened.name());
}

/// Prints the connection string.
pub async fn url(invocation: &mut Invocation, arguments: &Url) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
    let conninfo = connection(&opened, arguments.role.as_deref()).await?;
    let scheme = match arguments.driver {
        Driver::Libpq => Scheme::Postgresql,
        Driver::Psycopg => Scheme::PostgresqlPsycopg,
    };
    let reveal = if arguments.reveal { Reveal::Password } else { Reveal::Hidden };
    invocation.printer.data(conninfo.url(scheme, reveal).expose_secret());
    Ok(Exit::Done)
}

async fn connection(opened: &Opened<'_>, role: Option<&str>) -> Result<Conninfo, Failure> {
    match role {
        Some(role) => opened.role(role).await,
        None => opened.admin().await,
    }
}
