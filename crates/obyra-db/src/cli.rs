//! The command line: verbs, their arguments and their examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Makes a written PostgreSQL strategy true, keeps it true and proves it.
#[derive(Debug, Parser)]
#[command(name = "obyra-db", version, propagate_version = true, max_term_width = 100, after_help = FIRST_STEPS)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

const FIRST_STEPS: &str = "\
First steps:
  obyra-db demo                  the whole strategy on a throw-away PostgreSQL 16
  obyra-db init                  write obyra-db.toml here
  obyra-db up dev                bring dev to the strategy
  obyra-db check dev             the deploy checklist, each line with its evidence

Exit codes: 0 done or in order, 1 failed, 2 drift or findings, 3 refused for safety,
64 wrong usage or a wrong strategy file, 130 interrupted.";

/// Options that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The strategy file; default: obyra-db.toml here or in the nearest folder above
    #[arg(long, global = true, value_name = "FILE", env = "OBYRA_DB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Output for machines
    #[arg(long, global = true)]
    pub json: bool,
    /// The language of the output; default: the strategy's, else the locale's
    #[arg(long, global = true, value_enum, value_name = "LANGUAGE")]
    pub lang: Option<Lang>,
    /// Only results and failures
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// The languages of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// English
    En,
    /// Spanish
    Es,
}

/// Confirmation for verbs that change something.
#[derive(Args, Clone, Copy, Debug)]
pub struct Consent {
    /// Do not ask: make the change
    #[arg(long, short)]
    pub yes: bool,
}

/// An environment of the strategy, or a database that has no strategy yet.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Subject {
    /// The environment, as the strategy names it
    pub environment: Option<String>,
    /// Instead of an environment: the variable that holds a connection string (observing only)
    #[arg(long, value_name = "VAR")]
    pub url_env: Option<String>,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a commented strategy file
    #[command(
        after_help = "Examples:\n  obyra-db init\n  obyra-db init --lang es\n  obyra-db init --template minimal --output db/obyra-db.toml"
    )]
    Init(Init),
    /// The JSON Schema of the strategy file, for editors
    #[command(after_help = "Example:\n  obyra-db schema > obyra-db.schema.json")]
    Schema,
    /// The whole strategy on a throw-away PostgreSQL 16 with the example application
    #[command(
        after_help = "Everything stays in ./obyra-demo; nothing is left running.\nRun it again: it changes nothing."
    )]
    Demo(Demo),
    /// Bring an environment to the strategy: cluster, access, migrations, seeds, checklist
    #[command(
        after_help = "Examples:\n  obyra-db up dev\n  obyra-db up dev --recreate --yes     start dev anew, without its data\n  obyra-db up staging --yes"
    )]
    Up(Up),
    /// Stop an embedded environment; its data stays
    Down(Named),
    /// Show what would change in the database's access, and why
    #[command(
        after_help = "Exit code 0: nothing would change. 2: drift.\n\nExamples:\n  obyra-db plan production\n  obyra-db plan production --json | jq '.steps[].sql[]'"
    )]
    Plan(Named),
    /// Make the changes that `plan` shows, verified, in one transaction
    #[command(after_help = "Examples:\n  obyra-db apply staging\n  obyra-db apply production --yes")]
    Apply(NamedConsent),
    /// The deploy checklist, each line with its evidence
    #[command(
        after_help = "Examples:\n  obyra-db check production\n  obyra-db check production --format markdown >> pull-request.md\n  obyra-db check staging --format junit > checklist.xml"
    )]
    Check(Check),
    /// One screen: is it well, what is due
    #[command(
        after_help = "Examples:\n  obyra-db status\n  obyra-db status production\n  obyra-db status --url-env DATABASE_URL"
    )]
    Status(Status),
    /// Run a command with a role's connection in DATABASE_URL and the PG* variables
    #[command(
        after_help = "Examples:\n  obyra-db exec dev -- psql\n  obyra-db exec production --as obyra_readonly -- psql -c 'SELECT count(*) FROM projects'\n  obyra-db exec dev --as obyra_app -- flask run"
    )]
    Exec(Exec),
    /// Print a role's connection string, without its password unless --reveal
    #[command(
        after_help = "Examples:\n  obyra-db url dev --as obyra_app\n  obyra-db url dev --as obyra_app --reveal --driver psycopg"
    )]
    Url(Url),
    /// Access of a database that has no strategy yet
    #[command(subcommand)]
    Access(Access),
    /// Alembic migrations
    #[command(subcommand)]
    Migrate(Migrate),
    /// Versioned, idempotent seeds
    #[command(subcommand)]
    Seed(Seed),
    /// Physical backups, point-in-time recovery, restores and their proof
    #[command(subcommand)]
    Backup(crate::commands::backup::Backup),
    /// The ledger of what was done and observed
    #[command(subcommand)]
    Evidence(Evidence),
    /// Completions for a shell
    #[command(after_help = "Example:\n  obyra-db completions bash > /etc/bash_completion.d/obyra-db")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder, for example /usr/local/share/man/man1
        folder: PathBuf,
    },
}

impl Verb {
    /// Whether it runs until it is interrupted, and then ends by itself.
    pub fn ends_itself(&self) -> bool {
        matches!(self, Verb::Backup(crate::commands::backup::Backup::Wal(_)))
    }

    /// Whether it reads what a server sends in small pieces and as fast as it can. If another thread than the one
    /// that reads waited for the socket, it would be woken for each piece, and that costs both sides more than the
    /// bytes do. The work on these is done by threads of its own.
    pub fn reads_one_stream(&self) -> bool {
        use crate::commands::backup::Backup;
        matches!(self, Verb::Backup(Backup::Run(_) | Backup::Wal(_)))
    }
}

/// Arguments of `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// Which template
    #[arg(long, value_enum, default_value = "obyra")]
    pub template: Template,
    /// Where to write it
    #[arg(long, short, value_name = "FILE", default_value = "obyra-db.toml")]
    pub output: PathBuf,
}

/// The templates of `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// OBYRA's strategy
    Obyra,
    /// A small strategy for any team
    Minimal,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// The demo's own folder
    #[arg(long, value_name = "DIR", default_value = "obyra-demo")]
    pub dir: PathBuf,
    /// Leave the server and the application's page running until Ctrl-C
    #[arg(long)]
    pub stay: bool,
}

/// An environment by name.
#[derive(Args, Debug)]
pub struct Named {
    /// The environment, as the strategy names it
    pub environment: String,
}

/// An environment by name, and consent.
#[derive(Args, Debug)]
pub struct NamedConsent {
    /// The environment, as the strategy names it
    pub environment: String,
    #[command(flatten)]
    pub consent: Consent,
}

/// Arguments of `up`.
#[derive(Args, Debug)]
pub struct Up {
    /// The environment, as the strategy names it
    pub environment: String,
    /// Remove the cluster and its data first: embedded dev only, refused everywhere else
    #[arg(long)]
    pub recreate: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The format
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The formats of a checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// JSON
    Json,
    /// Markdown, for a pull request
    Markdown,
    /// JUnit XML, for CI
    Junit,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// The environment; default: all of the strategy
    pub environment: Option<String>,
    /// Instead of an environment: the variable that holds a connection string
    #[arg(long, value_name = "VAR", conflicts_with = "environment")]
    pub url_env: Option<String>,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The role; default: the administrator of the environment
    #[arg(long = "as", value_name = "ROLE")]
    pub role: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Arguments of `url`.
#[derive(Args, Debug)]
pub struct Url {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The role; default: the administrator of the environment
    #[arg(long = "as", value_name = "ROLE")]
    pub role: Option<String>,
    /// Print the password too
    #[arg(long)]
    pub reveal: bool,
    /// The form of the connection string
    #[arg(long, value_enum, default_value = "libpq")]
    pub driver: Driver,
}

/// The forms of a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// postgresql://
    Libpq,
    /// postgresql+psycopg://, for SQLAlchemy
    Psycopg,
}

/// Verbs of `access`.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Write the [access] section that describes a database as it is
    #[command(
        after_help = "Examples:\n  obyra-db access import production > access.toml\n  DATABASE_URL=postgresql://… obyra-db access import --url-env DATABASE_URL"
    )]
    Import(Subject),
}

/// Verbs of `migrate`.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Alembic upgrade to the head, proven from a second connection
    #[command(
        after_help = "Examples:\n  obyra-db migrate deploy dev\n  obyra-db migrate deploy production --yes"
    )]
    Deploy(NamedConsent),
    /// The revision that the database is at, and what is pending
    Status(Named),
    /// Whether this branch's migrations can be deployed, found out on a throw-away server
    #[command(
        after_help = "Exit code 0: no finding of level error. 2: findings.\n\nExamples:\n  obyra-db migrate gate\n  obyra-db migrate gate production --format github\n  obyra-db migrate gate --all --schema production-schema.sql\n  obyra-db migrate gate --last 3 --json"
    )]
    Gate(crate::commands::gate::Gate),
    /// What in the application's code changes the schema behind Alembic's back; passwords in code
    #[command(
        after_help = "Exit code 0: no finding of level error. 2: findings.\n\nExamples:\n  obyra-db migrate scan\n  obyra-db migrate scan --format sarif > scan.sarif\n  obyra-db migrate scan app --tickets tickets --lang es"
    )]
    Scan(crate::commands::scan::Scan),
    /// Write one revision that creates the schema as it is, in place of a history that cannot be replayed
    #[command(
        after_help = "Examples:\n  obyra-db migrate baseline production --dry-run\n  obyra-db migrate baseline production --message 'the schema of 2026'\n  obyra-db migrate baseline --schema production-schema.sql --yes\n  obyra-db migrate baseline --from-models --runtime app/migrations_runtime.py:ensure_columns"
    )]
    Baseline(crate::commands::baseline::Baseline),
    /// Have the version table name a revision whose schema the database has; no revision runs
    #[command(
        after_help = "Refused (3) where the schema is another.\n\nExamples:\n  obyra-db migrate stamp staging 3f2a91c0d1e2\n  obyra-db migrate stamp production head --yes"
    )]
    Stamp(crate::commands::stamp::Stamp),
    /// The alterations that the application runs at every start
    #[command(subcommand)]
    Runtime(crate::commands::runtime::Runtime),
    /// Write the workflow of a CI server: the gate on each pull request, the deploy behind an approval
    #[command(
        after_help = "Examples:\n  obyra-db migrate ci-template github\n  obyra-db migrate ci-template gitlab staging --print"
    )]
    CiTemplate(crate::commands::ci::CiTemplate),
    /// Write `flask db gate` and `flask db seed` for a Flask application
    #[command(after_help = "Example:\n  obyra-db migrate flask-commands")]
    FlaskCommands(crate::commands::ci::FlaskCommands),
}

/// Verbs of `seed`.
#[derive(Debug, Subcommand)]
pub enum Seed {
    /// Apply the seeds that are pending
    Apply(NamedConsent),
    /// Prove on a temporary copy that a second run changes no row
    Verify(Named),
    /// What is applied, pending or changed
    Status(Named),
}

/// Verbs of `evidence`.
#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// The records, newest last
    #[command(
        after_help = "Examples:\n  obyra-db evidence list production\n  obyra-db evidence list --subject access --json"
    )]
    List {
        /// Only this environment
        environment: Option<String>,
        /// Only subjects that begin so: access, migrate, migrations, seed, gate, runtime, or check, which is left out otherwise
        #[arg(long)]
        subject: Option<String>,
        /// At most so many, the newest
        #[arg(long, default_value_t = 50)]
        last: usize,
    },
    /// Recompute the chain of hashes
    Verify {
        /// A head hash noted before: proves that nothing was cut off since
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// Every record as a line of JSON, for an auditor
    #[command(after_help = "Example:\n  obyra-db evidence export > evidence.jsonl")]
    Export,
}
