//! `pg_dump` into `psql`: SQL from one server straight into another, in one transaction.

use std::process::Stdio;

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::Conninfo;
use obyra_postgres::cluster::Installation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use crate::{Result, child};

/// Bytes that are passed on at a time.
const CHUNK: usize = 256 << 10;

/// Runs both; returns the bytes that passed. A failure of either leaves the target as it was.
pub(super) async fn run(
    installation: &Installation,
    (from, arguments): (&Conninfo, &[String]),
    (to, before): (&Conninfo, &str),
    progress: &dyn Progress,
) -> Result<u64> {
    let mut dump = installation.tool_on("pg_dump", from);
    dump.args(["--no-password", "--no-publications", "--no-subscriptions", "--no-security-labels"]);
    dump.args(["--no-tablespaces"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut load = installation.tool_on("psql", to);
    load.args(["--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1"]);
    load.args(["--file=-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut dump = child::spawn(dump, text::backup::PART_DUMP)?;
    let mut load = child::spawn(load, text::backup::PART_LOAD)?;
    let complaints = (child::complaint(&mut dump), child::complaint(&mut load));
    let pump = pump(&mut dump, &mut load, before, progress);
    let (passed, dump_said, load_said) = tokio::join!(pump, complaints.0, complaints.1);
    let dumped = child::ended(&mut dump, text::backup::PART_DUMP, dump_said).await;
    let loaded = child::ended(&mut load, text::backup::PART_LOAD, load_said).await;
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
