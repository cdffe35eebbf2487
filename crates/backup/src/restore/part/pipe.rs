//! `pg_dump` into `psql`: SQL from one server straight into another, in one transaction.

use std::process::Stdio;

use obyra_evidence::{Failure, Message, Progress, text};
use obyra_postgres::Conninfo;
use obyra_postgres::cluster::Installation;
use obyra_postgres::secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::Result;

/// Bytes that are passed on at a time.
const CHUNK: usize = 256 << 10;
/// Lines of a complaint that are worth reading.
const LINES: usize = 6;

/// Runs both; returns the bytes that passed. A failure of either leaves the target as it was.
pub(super) async fn run(
    installation: &Installation,
    (from, arguments): (&Conninfo, &[String]),
    (to, before): (&Conninfo, &str),
    progress: &dyn Progress,
) -> Result<u64> {
    let mut dump = installation.tool("pg_dump");
    dump.args(["--no-password", "--no-publications", "--no-subscriptions", "--no-security-labels"]);
    dump.args(["--no-tablespaces"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut load = installation.tool("psql");
    load.args(["--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1"]);
    load.args(["--file=-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut dump = spawn(dump, from, text::backup::PART_DUMP)?;
    let mut load = spawn(load, to, text::backup::PART_LOAD)?;
    let complaints = (complaint(&mut dump), complaint(&mut load));
    let pump = pump(&mut dump, &mut load, before, progress);
    let (passed, dump_said, load_said) = tokio::join!(pump, complaints.0, complaints.1);
    let dumped = ended(&mut dump, text::backup::PART_DUMP.message(), dump_said).await;
    let loaded = ended(&mut load, text::backup::PART_LOAD.message(), load_said).await;
    // When psql gives up, pg_dump breaks off: the reason is psql's.
    loaded?;
    dumped?;
    passed
}

/// Passes the dump on. If it breaks off, psql gets no end: its input must not look complete, so it is killed.
async fn pump(dump: &mut Child, load: &mut Child, before: &str, progress: &dyn Progress) -> Result<u64> {
    let failed = |error: std::io::Error| Failure::new(text::backup::PART_FAILED.message()).because(error);
    let (Some(mut output), Some(mut input)) = (dump.stdout.take(), load.stdin.take()) else {
        return Err(Failure::new(text::backup::PART_FAILED.message()));
    };
    let mut passed = 0;
    let mut chunk = vec![0; CHUNK];
    let mut written = input.write_all(before.as_bytes()).await;
    while written.is_ok() {
        let read = output.read(&mut chunk).await.map_err(failed)?;
        if read == 0 {
            break;
        }
        written = input.write_all(&chunk[..read]).await;
        passed += read as u64;
        progress.advance(read as u64);
    }
    drop(output);
    if written.is_ok() && !dump.wait().await.map_err(failed)?.success() {
        load.start_kill().map_err(failed)?;
    }
    // The end of its input is psql's COMMIT.
    drop(input);
    written.map_err(failed)?;
    Ok(passed)
}

/// The connection goes by environment: an argument would show the password.
fn spawn(mut command: Command, to: &Conninfo, what: obyra_evidence::Code) -> Result<Child> {
    for (name, value) in to.env() {
        command.env(name, value.expose_secret());
    }
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|e| Failure::new(what).because(e))
}

/// What a program complains of, read as it comes so that it never waits for us.
fn complaint(child: &mut Child) -> impl Future<Output = String> + use<> {
    let stderr = child.stderr.take();
    async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // A pipe that breaks ends the complaint; the exit code still tells.
            let _ = stderr.read_to_end(&mut said).await;
        }
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.trim().lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

async fn ended(child: &mut Child, what: Message, said: String) -> Result<()> {
    let status = child.wait().await.map_err(|e| Failure::new(what.clone()).because(e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(what).because(if said.is_empty() { status.to_string() } else { said }))
}
