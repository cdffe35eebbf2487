//! The program itself, as a user runs it: a strategy file, a repository in a folder or in a bucket, one process
//! for each verb.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Reveal, Scheme};

use super::cluster::{Bench, size_of};
use super::s3::{self, S3};
use super::{Cost, timed};

/// Where the files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Local,
    Protocol,
}

/// The program with a strategy and a repository of its own.
pub struct Program {
    program: PathBuf,
    folder: PathBuf,
    /// `None` in a bucket.
    repository: Option<PathBuf>,
    /// The slot of its WAL.
    slot: String,
    variables: Vec<(&'static str, String)>,
}

impl Program {
    /// Writes the strategy, with a repository in a folder or in the bucket.
    pub fn prepare(bench: &Bench, name: &str, source: Source, s3: Option<&S3>) -> Result<Program> {
        let program = std::env::current_exe()?.with_file_name("obyra-db");
        if !program.is_file() {
            bail!("build it first: cargo build --release -p obyra-db");
        }
        let source = match source {
            Source::Local => "local",
            Source::Protocol => "protocol",
        };
        let folder = bench.scratch(name);
        std::fs::create_dir_all(&folder)?;
        let url = bench.admin().url(Scheme::Postgresql, Reveal::Password).expose_secret().to_owned();
        let mut variables = vec![("BENCH_URL", url), ("OBYRA_DB_CACHE", bench.cache.display().to_string())];
        let (repository, place) = match s3 {
            None => {
                let repository = folder.join("repository");
                let place = format!("repository = 'file://{}'", repository.display());
                (Some(repository), place)
            }
            Some(s3) => {
                variables.push(("AWS_ACCESS_KEY_ID", s3::KEY.to_owned()));
                variables.push(("AWS_SECRET_ACCESS_KEY", s3::SECRET.to_owned()));
                variables.push(("AWS_CA_BUNDLE", s3.certificate.display().to_string()));
                let place = format!(
                    "repository = 's3://{}/{name}'\nendpoint = 'https://localhost:{}'\nregion = 'us-east-1'\n\
                     server_side_encryption = 'none'",
                    s3::BUCKET,
                    s3.port
                );
                (None, place)
            }
        };
        let slot = format!("bench_{name}");
        let strategy = format!(
            "[environments.production]\nruns_on = 'self-hosted'\nurl_env = 'BENCH_URL'\ndatabase = 'shop'\n\
             [backup]\nsource = '{source}'\n{place}\n[backup.pitr]\nenabled = true\nslot = '{slot}'\n"
        );
        std::fs::write(folder.join("obyra-db.toml"), strategy)?;
        Ok(Program { program, folder, repository, slot, variables })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&self.program);
        command.args(words).current_dir(&self.folder);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Takes a backup.
    pub fn backup(&self) -> Result<Cost> {
        let before = self.stored()?;
        let mut memory = 0;
        let wall = timed(|| {
            memory = finish_measured(&mut self.command(&["backup", "run", "production"]))?;
            Ok(())
        })?;
        Ok(Cost { wall, stored: self.stored()? - before, memory })
    }

    /// Bytes in the repository; 0 where it is no folder.
    fn stored(&self) -> Result<u64> {
        self.repository.as_ref().filter(|folder| folder.exists()).map_or(Ok(0), |folder| size_of(folder))
    }

    /// Restores the newest backup.
    pub fn restore(&self, bench: &Bench) -> Result<Cost> {
        let into = bench.scratch("restored");
        let folder = into.display().to_string();
        let target = format!("backup:{}", self.newest()?);
        let mut memory = 0;
        let wall = timed(|| {
            let words = ["backup", "restore", "production", "--to", &target, "--into", &folder, "--yes"];
            memory = finish_measured(&mut self.command(&words))?;
            Ok(())
        })?;
        std::fs::remove_dir_all(into)?;
        Ok(Cost { wall, memory, ..Cost::default() })
    }

    /// The name of the newest backup.
    fn newest(&self) -> Result<String> {
        let output = self.command(&["backup", "list", "production", "--json"]).output()?;
        let list: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let backups = list["clusters"][0]["backups"].as_array().and_then(|backups| backups.last());
        let id = backups.and_then(|newest| newest["backup"]["id"].as_str());
        id.map(str::to_owned).context("a backup in the list")
    }

    /// Makes the slot, so that the server keeps the WAL from here on.
    pub fn keep_wal(&self) -> Result<()> {
        finish(&mut self.command(&["backup", "wal", "production", "--until-caught-up"]))
    }

    /// Pushes segments that wait; returns the time, and the most memory that a call took.
    pub fn push(&self, segments: &[PathBuf]) -> Result<(Duration, u64)> {
        let mut memory = 0;
        let wall = as_a_server_does(segments, |segment| {
            let path = segment.display().to_string();
            memory =
                finish_measured(&mut self.command(&["backup", "wal-push", "production", &path]))?.max(memory);
            Ok(())
        })?;
        Ok((wall, memory))
    }

    /// Receives what the slot kept: how many segments, and what that cost.
    pub async fn receive(&self, bench: &Bench) -> Result<(f64, Cost)> {
        let waiting = "SELECT (pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) / 16777216)::float8
              FROM pg_replication_slots WHERE slot_name = $1";
        let count = bench.session("shop").await?.query_one(waiting, &[&self.slot]).await?.get(0);
        let mut memory = 0;
        let wall = timed(|| {
            memory =
                finish_measured(&mut self.command(&["backup", "wal", "production", "--until-caught-up"]))?;
            Ok(())
        })?;
        Ok((count, Cost { wall, memory, ..Cost::default() }))
    }
}

/// Hands over segments as a server whose archive has fallen behind: all are marked as ready, one call for each,
/// in order, and what was archived is marked as done.
pub fn as_a_server_does(
    segments: &[PathBuf],
    mut archive: impl FnMut(&Path) -> Result<()>,
) -> Result<Duration> {
    let mark = |segment: &Path, ending: &str| {
        let (folder, name) = (segment.parent()?, segment.file_name()?.to_str()?);
        Some(folder.join("archive_status").join(format!("{name}.{ending}")))
    };
    for segment in segments {
        std::fs::write(mark(segment, "ready").context("a segment")?, "")?;
    }
    timed(|| {
        for segment in segments {
            archive(segment)?;
            let (ready, done) = (mark(segment, "ready"), mark(segment, "done"));
            std::fs::rename(ready.context("a segment")?, done.context("a segment")?)?;
        }
        Ok(())
    })
}

/// A child process.
#[expect(clippy::disallowed_methods, reason = "a benchmark runs whole programs")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs it to its end, which must be good.
pub fn finish(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let told = if output.stderr.is_empty() { output.stdout } else { output.stderr };
        bail!("{command:?}: {}", String::from_utf8_lossy(&told).trim());
    }
    Ok(())
}

/// The same; returns the largest resident size that was seen, in bytes.
fn finish_measured(command: &mut Command) -> Result<u64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut largest = 0;
    while child.try_wait()?.is_none() {
        // VmHWM is the kernel's own maximum: looking late loses nothing but the last moments.
        let seen = std::fs::read_to_string(&status).unwrap_or_default();
        let line = seen.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        largest = largest.max(kilobytes.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(largest)
}

/// What is written is on the disk.
pub fn sync(folder: &Path) -> Result<()> {
    finish(command("sync").arg("-f").arg(folder))
}
