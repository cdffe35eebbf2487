//! The peers of `bench access`: pgroles (Rust) and pgbedrock (Python), installed under `target/bench-peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use obyra_postgres::secrecy::ExposeSecret;
use obyra_postgres::{Conninfo, Reveal, Scheme};

use super::median;

const RUNS: usize = 3;

/// A peer and what its plan without changes took.
pub struct Peer {
    /// Its name and version.
    pub name: &'static str,
    /// The median of its runs, or why there is none.
    pub duration: std::result::Result<Duration, String>,
}

/// Measures both peers on the database.
pub fn measure(database: &Conninfo) -> Result<Vec<Peer>> {
    let folder = PathBuf::from("target/bench-peers");
    std::fs::create_dir_all(&folder)?;
    let words = |outcome: Result<Duration>| outcome.map_err(|e| format!("{e:#}"));
    Ok(vec![
        Peer { name: "pgroles 0.15.0 (diff)", duration: words(pgroles(&folder, database)) },
        Peer { name: "pgbedrock 0.4.2 (configure --check)", duration: words(pgbedrock(&folder, database)) },
    ])
}

/// Generates a manifest from the database, then asks for the difference to it.
fn pgroles(folder: &Path, database: &Conninfo) -> Result<Duration> {
    let program = folder.join("pgroles/bin/pgroles");
    if !program.exists() {
        let root = folder.join("pgroles");
        let install = ["install", "--quiet", "--locked", "--version", "0.15.0", "pgroles-cli", "--root"];
        finish(command("cargo").args(install).arg(root))?;
    }
    let manifest = folder.join("pgroles.yaml");
    let url = database.url(Scheme::Postgresql, Reveal::Password);
    let generate = ["generate", "--suggest-profiles", "--output"];
    finish(command(&program).env("DATABASE_URL", url.expose_secret()).args(generate).arg(&manifest))?;
    std::fs::write(&manifest, with_wildcards(&std::fs::read_to_string(&manifest)?))?;
    repeat(|| {
        let diff = ["diff", "--format", "summary", "--no-exit-code", "--file"];
        finish(command(&program).env("DATABASE_URL", url.expose_secret()).args(diff).arg(&manifest))
    })
}

/// pgroles refuses its own manifest of this database: more than 4,096 grants. Here a role holds the same on
/// everything of a kind in a schema, which the peer can say with `name: '*'`, so we say it for it.
fn with_wildcards(manifest: &str) -> String {
    let (head, rest) = manifest.split_once("\ngrants:\n").unwrap_or((manifest, ""));
    let (grants, tail) = rest.split_once("\ndefault_privileges:").unwrap_or((rest, ""));
    let mut seen = std::collections::BTreeSet::new();
    let mut kept = String::new();
    for grant in grants.split("- role: ").filter(|grant| !grant.trim().is_empty()) {
        let in_schema = grant.contains("    schema: ");
        let grant: Vec<&str> = grant
            .lines()
            .map(|line| if in_schema && line.starts_with("    name: ") { "    name: '*'" } else { line })
            .collect();
        if seen.insert(grant.join("\n")) {
            kept += &format!("- role: {}\n", grant.join("\n"));
        }
    }
    format!("{head}\ngrants:\n{kept}default_privileges:{tail}")
}

/// Generates a specification, then checks the database against it.
fn pgbedrock(folder: &Path, database: &Conninfo) -> Result<Duration> {
    let venv = folder.join("pgbedrock");
    let program = venv.join("bin/pgbedrock");
    if !program.exists() {
        finish(command("python3").args(["-m", "venv"]).arg(&venv))?;
        finish(command(venv.join("bin/pip")).args([
            "install",
            "--quiet",
            "pgbedrock==0.4.2",
            "psycopg2-binary",
        ]))?;
    }
    let (host, port) =
        database.hosts().first().map(|h| (h.name.clone(), h.port.to_string())).context("a host")?;
    let password = database.password().map(|p| p.expose_secret().to_owned()).unwrap_or_default();
    // The peer takes its password on the command line only; the cluster lives for this run.
    let connect =
        ["-h", &host, "-p", &port, "-U", database.user(), "-d", database.database(), "-w", &password];
    let generated = command(&program).arg("generate").args(connect).output()?;
    if !generated.status.success() {
        bail!("generate: {}", String::from_utf8_lossy(&generated.stderr));
    }
    let specification = folder.join("pgbedrock.yaml");
    std::fs::write(&specification, generated.stdout)?;
    repeat(|| {
        // Its specification asks for the password of each role that has one.
        let mut check = command(&program);
        check.env("POSTGRES_PASSWORD", &password).args(["configure", "--check"]).args(connect);
        finish(check.arg(&specification))
    })
}

fn repeat(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut durations = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        durations.push(start.elapsed());
    }
    Ok(median(durations))
}

#[expect(clippy::disallowed_methods, reason = "peers are other people's programs")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

fn finish(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let told = if output.stderr.is_empty() { output.stdout } else { output.stderr };
        let told = String::from_utf8_lossy(&told).trim().to_owned();
        bail!("{:?}: {}", command.get_program(), told.lines().last().unwrap_or_default());
    }
    Ok(())
}
