//! `cargo xtask bench gate`: the gate of 200 revisions beside Alembic alone: one upgrade in one process, and the
//! three commands (up, down one, up) that teams run in CI. Then every revision down and up again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use obyra_evidence::Quiet;
use obyra_migrations::{Policy, PythonEnvironment, PythonSearch, find_or_make};
use obyra_postgres::cluster::{Installation, Search, TemporaryCluster, TemporaryOptions};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Reveal, Scheme, Session};

use super::median;

const REVISIONS: usize = 200;
const TABLES: usize = 40;
const REQUIREMENTS: &str = include_str!("../../../crates/migrations/tests/support/requirements.txt");

const ENV: &str = "import os
from alembic import context
from sqlalchemy import create_engine
with create_engine(os.environ['DATABASE_URL']).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
";

const STRATEGY: &str = "[environments.ci]
runs_on = 'self-hosted'
url_env = 'NOT_USED_BY_THE_GATE'
database = 'app'
schemas = { app = 'app' }
[access]
owner = 'app_owner'
[access.roles.app]
schemas = { app = 'read-write' }
[access.roles.app_migrate]
acts_as = 'app_owner'
member_of = ['app']
search_path = ['app']
[migrations]
run_as = 'app_migrate'
";

const IN_PROCESS: &str = "from alembic import command; from alembic.config import Config; command.upgrade(Config('migrations/alembic.ini'), 'head')";

const IMPORTS: &str = "from alembic import command; from alembic.config import Config; import psycopg; from sqlalchemy.dialects import postgresql";

/// Runs the benchmark.
pub async fn run(options: &[&str]) -> Result<()> {
    let runs = match options.iter().position(|o| *o == "--runs") {
        Some(at) => options.get(at + 1).context("--runs N")?.parse()?,
        None => 5,
    };
    let bench = Bench::prepare().await?;
    let (mut peer, mut cli, mut gate, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut imports = Vec::new();
    for _ in 0..runs {
        imports.push(bench.timed(&bench.cluster.admin(), &[&["-c", IMPORTS]])?);
        peer.push(bench.in_process().await?);
        gate.push(bench.gate(&[])?);
        cli.push(bench.three_commands().await?);
        all.push(bench.gate(&["--all"])?);
    }
    let paired = |ours: &[Duration], theirs: &[Duration]| {
        let mut ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    let (to_one, to_three) = (paired(&gate, &peer), paired(&gate, &cli));
    let [imports, peer, cli, gate, all] = [imports, peer, cli, gate, all].map(median);
    let cold = gate.as_secs_f64();
    say(format!("{REVISIONS} revisions, {TABLES} tables; medians of {runs} runs, each beside the others"));
    say(format!(
        "Python with Alembic, SQLAlchemy and psycopg imported, nothing run: {:.2} s",
        imports.as_secs_f64()
    ));
    say(format!("alembic upgrade head, one process, server ready:  {:.2} s", peer.as_secs_f64()));
    say(format!("alembic upgrade head, downgrade -1, upgrade head: {:.2} s", cli.as_secs_f64()));
    say(format!(
        "obyra-db migrate gate, server and roles included:  {cold:.2} s; median of the paired ratios: {to_one:.2} x the one process, {to_three:.2} x the three commands",
    ));
    let third = cli.as_secs_f64() / 3.0;
    say(format!(
        "a third of the three commands: {third:.2} s; the one upgrade that proves anything: {:.2} s",
        peer.as_secs_f64()
    ));
    let each = (all.saturating_sub(gate)).as_secs_f64() * 1000.0 / REVISIONS as f64;
    say(format!(
        "obyra-db migrate gate --all: {:.2} s = {each:.1} ms for each round trip",
        all.as_secs_f64()
    ));
    Ok(())
}

struct Bench {
    project: tempfile::TempDir,
    python: PythonEnvironment,
    cluster: TemporaryCluster,
    program: PathBuf,
    cache: PathBuf,
}

impl Bench {
    async fn prepare() -> Result<Bench> {
        let project = tempfile::tempdir()?;
        generate(project.path())?;
        let cache = std::path::absolute("target/obyra-db-cache")?;
        let search = PythonSearch::new(&Policy::default(), project.path(), &cache);
        let python = find_or_make(&search, &Quiet).await?;
        let search = Search { bin_dir: None, cache: cache.clone(), major: 16 };
        let installation = Installation::find_or_fetch(&search, &Quiet).await?;
        let options = TemporaryOptions { in_memory: true, ..TemporaryOptions::default() };
        let cluster = TemporaryCluster::start_with(&installation, &cache, &options).await?;
        let program = std::env::current_exe()?.with_file_name("obyra-db");
        if !program.is_file() {
            bail!("build it first: cargo build --release -p obyra-db");
        }
        Ok(Bench { project, python, cluster, program, cache })
    }

    /// The time of one upgrade in one process.
    async fn in_process(&self) -> Result<Duration> {
        let database = self.database().await?;
        self.timed(&database, &[&["-c", IN_PROCESS]])
    }

    /// The time of the three commands.
    async fn three_commands(&self) -> Result<Duration> {
        let database = self.database().await?;
        let alembic = |more: &[&'static str]| {
            let mut arguments = vec!["-m", "alembic", "-c", "migrations/alembic.ini"];
            arguments.extend(more);
            arguments
        };
        let commands =
            [alembic(&["upgrade", "head"]), alembic(&["downgrade", "-1"]), alembic(&["upgrade", "head"])];
        let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
        self.timed(&database, &commands)
    }

    fn timed(&self, database: &Conninfo, commands: &[&[&str]]) -> Result<Duration> {
        let url = database.url(Scheme::PostgresqlPsycopg, Reveal::Password);
        let began = Instant::now();
        for arguments in commands {
            let mut command = self.python.command();
            let command = command.as_std_mut();
            command
                .args(*arguments)
                .current_dir(self.project.path())
                .env("DATABASE_URL", url.expose_secret());
            finish(command)?;
        }
        Ok(began.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "the program itself, as a user runs it")]
    fn gate(&self, more: &[&str]) -> Result<Duration> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(["migrate", "gate", "--quiet"]).args(more);
        // The peers' environment, activated.
        if let Some(environment) = self.python.interpreter.parent().and_then(Path::parent) {
            command.env("VIRTUAL_ENV", environment);
        }
        finish(command.current_dir(self.project.path()).env("OBYRA_DB_CACHE", &self.cache))?;
        Ok(began.elapsed())
    }

    /// An empty database.
    async fn database(&self) -> Result<Conninfo> {
        let admin = self.cluster.admin();
        let session = Session::connect(&admin, Limits::patient()).await?;
        session.batch_execute("DROP DATABASE IF EXISTS app").await?;
        session.batch_execute("CREATE DATABASE app").await?;
        Ok(admin.with_database("app"))
    }
}

/// A project as teams have them: tables first, then columns, indexes and constraints on them.
fn generate(folder: &Path) -> Result<()> {
    let versions = folder.join("migrations/versions");
    std::fs::create_dir_all(&versions)?;
    std::fs::write(folder.join("migrations/env.py"), ENV)?;
    std::fs::write(folder.join("migrations/alembic.ini"), "[alembic]\nscript_location = %(here)s\n")?;
    std::fs::write(folder.join("requirements.txt"), REQUIREMENTS)?;
    std::fs::write(folder.join("obyra-db.toml"), STRATEGY)?;
    for number in 0..REVISIONS {
        std::fs::write(versions.join(format!("r{number:03}.py")), revision(number)?)?;
    }
    Ok(())
}

fn revision(number: usize) -> Result<String> {
    let down = if number == 0 { "None".to_owned() } else { format!("'r{:03}'", number - 1) };
    let table = format!("t{:02}", number % TABLES);
    let (mut up, drop) = (String::new(), format!("    op.drop_column('{table}', 'c{number}')\n"));
    let down_body = if number < TABLES {
        writeln!(up, "    op.create_table('{table}', sa.Column('id', sa.Integer, primary_key=True),")?;
        writeln!(
            up,
            "        sa.Column('name', sa.Text, nullable=False), sa.Column('at', sa.DateTime(timezone=True),"
        )?;
        writeln!(
            up,
            "        server_default=sa.func.now()), sa.Column('amount', sa.Numeric(14, 2)), sa.Column('org', sa.Integer),"
        )?;
        writeln!(
            up,
            "        sa.CheckConstraint('amount >= 0', name='{table}_amount'), sa.UniqueConstraint('org', 'name'))"
        )?;
        writeln!(up, "    op.create_index('{table}_at', '{table}', ['at'])")?;
        format!("    op.drop_table('{table}')\n")
    } else {
        writeln!(up, "    op.add_column('{table}', sa.Column('c{number}', sa.Integer))")?;
        match number % 3 {
            0 => writeln!(
                up,
                "    op.execute(\"COMMENT ON COLUMN {table}.c{number} IS 'of revision {number}'\")"
            )?,
            1 => writeln!(up, "    op.execute('ALTER TABLE {table} ALTER c{number} SET DEFAULT {number}')")?,
            _ => writeln!(up, "    op.execute('ALTER TABLE {table} ADD CHECK (c{number} > 0) NOT VALID')")?,
        }
        drop
    };
    Ok(format!(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = 'r{number:03}'\ndown_revision = {down}\n\n\n\
         def upgrade():\n{up}\n\ndef downgrade():\n{down_body}"
    ))
}

fn finish(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{:?}: {}\n{out}{err}", command.get_program(), output.status);
    }
    Ok(())
}

/// A benchmark's result is what it prints.
#[expect(clippy::print_stdout, reason = "a task's output")]
fn say(line: String) {
    println!("{line}");
}
