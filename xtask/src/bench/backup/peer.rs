//! pgBackRest, as its own documentation would set it up for this: zstd 1, AES-256, bundles, block incremental.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use obyra_postgres::secrecy::ExposeSecret as _;

use super::cluster::{Bench, size_of};
use super::program::{as_a_server_does, command, finish, sync};
use super::s3::{self, S3};
use super::{Cost, timed};

/// pgBackRest with a repository of its own.
pub struct PgBackRest {
    program: PathBuf,
    config: PathBuf,
    /// `None` in a bucket.
    repository: Option<PathBuf>,
    spool: PathBuf,
    /// The folder of its WAL, in the repository.
    archive: String,
    owner: (u32, u32),
    password: String,
}

/// What it says of itself; `None` if it is not there.
pub fn version(program: &Path) -> Option<String> {
    let output = command(program).arg("version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Debian's 2.45 knows nothing newer than PostgreSQL 15.
pub fn newest_that_it_knows(version: Option<&str>) -> u32 {
    match version {
        Some(version) if version.contains(" 2.45") => 15,
        _ => 16,
    }
}

impl PgBackRest {
    /// Makes its stanza, in a folder or in the bucket.
    pub fn prepare(bench: &Bench, program: &Path, s3: Option<&S3>) -> Result<PgBackRest> {
        let admin = bench.admin();
        let host = admin.hosts().first().context("a host")?;
        let data = bench.data();
        let owner = std::fs::metadata(&data).map(|meta| (meta.uid(), meta.gid()))?;
        let repository = bench.scratch("pgbackrest");
        let block =
            if version(program).is_some_and(|v| v.contains(" 2.45")) { "" } else { "repo1-block=y\n" };
        let (log, spool) = (bench.scratch("pgbackrest-log"), bench.scratch("pgbackrest-spool"));
        for folder in [&repository, &log, &spool] {
            std::fs::create_dir_all(folder)?;
            std::os::unix::fs::chown(folder, Some(owner.0), Some(owner.1))?;
        }
        let place = match s3 {
            None => format!("repo1-path={}\n", repository.display()),
            Some(s3) => format!(
                "repo1-type=s3\nrepo1-path=/pgbackrest\nrepo1-s3-bucket={}\nrepo1-s3-endpoint=localhost\n\
                 repo1-storage-port={}\nrepo1-storage-ca-file={}\nrepo1-s3-uri-style=path\n\
                 repo1-s3-region=us-east-1\nrepo1-s3-key={}\nrepo1-s3-key-secret={}\n",
                s3::BUCKET,
                s3.port,
                s3.certificate.display(),
                s3::KEY,
                s3::SECRET
            ),
        };
        let settings = format!(
            "[global]\n{place}repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benchmark\nrepo1-bundle=y\n\
             {block}compress-type=zst\ncompress-level=1\nprocess-max=2\nstart-fast=y\narchive-check=n\n\
             log-path={}\nlock-path={}\nlog-level-console=error\nlog-level-file=off\n\
             [main]\npg1-path={data}\npg1-socket-path={}\npg1-port={}\npg1-user={}\npg1-database=shop\n",
            log.display(),
            log.display(),
            host.name,
            host.port,
            admin.user(),
        );
        let config = bench.scratch("pgbackrest.conf");
        std::fs::write(&config, settings)?;
        let password = admin.password().map(|p| p.expose_secret().to_owned()).unwrap_or_default();
        let archive = format!("archive/main/{}-1", bench.version().split('.').next().unwrap_or_default());
        let peer = PgBackRest {
            program: program.to_path_buf(),
            config,
            repository: s3.is_none().then_some(repository),
            spool,
            archive,
            owner,
            password,
        };
        finish(peer.command().args(["--no-online", "stanza-create"]))?;
        Ok(peer)
    }

    fn command(&self) -> Command {
        let mut command = command(&self.program);
        command.arg("--config").arg(&self.config).arg("--stanza=main").env("PGPASSWORD", &self.password);
        if rustix_is_root() {
            command.uid(self.owner.0).gid(self.owner.1).current_dir("/");
        }
        command
    }

    /// Takes a backup.
    pub fn backup(&self, kind: &str) -> Result<Cost> {
        let before = self.stored()?;
        let wall = timed(|| {
            finish(self.command().arg(format!("--type={kind}")).arg("backup"))?;
            self.repository.as_deref().map_or(Ok(()), sync)
        })?;
        Ok(Cost { wall, stored: self.stored()?.saturating_sub(before), memory: 0 })
    }

    /// Bytes of its backups; 0 where they are in no folder.
    fn stored(&self) -> Result<u64> {
        self.repository.as_ref().map_or(Ok(0), |repository| size_of(&repository.join("backup")))
    }

    /// Restores the newest backup.
    pub fn restore(&self, bench: &Bench) -> Result<Cost> {
        let into = bench.scratch("pgbackrest-restored");
        std::fs::create_dir_all(&into)?;
        std::os::unix::fs::chown(&into, Some(self.owner.0), Some(self.owner.1))?;
        let wall = timed(|| {
            finish(
                self.command().arg(format!("--pg1-path={}", into.display())).args(["--type=none", "restore"]),
            )?;
            sync(&into)
        })?;
        std::fs::remove_dir_all(into)?;
        Ok(Cost { wall, ..Cost::default() })
    }

    /// Pushes segments that wait: the better of its two ways, one by one, and ahead of the server.
    pub fn push(&self, segments: &[PathBuf]) -> Result<Duration> {
        let one_by_one = self.push_with(segments, &["--no-archive-async"])?;
        // What was pushed would be found there already.
        finish(self.command().args(["repo-rm", "--recurse", &self.archive]))?;
        let spool = format!("--spool-path={}", self.spool.display());
        Ok(one_by_one.min(self.push_with(segments, &["--archive-async", &spool])?))
    }

    fn push_with(&self, segments: &[PathBuf], how: &[&str]) -> Result<Duration> {
        as_a_server_does(segments, |segment| {
            finish(self.command().args(how).arg("archive-push").arg(segment))
        })
    }
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
