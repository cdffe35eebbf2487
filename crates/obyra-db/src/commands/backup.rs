//! `backup …`: physical backups, the WAL archive, restores and their proof.

mod copy;
mod drill;
mod expire;
mod export;
mod key;
mod list;
mod part;
pub mod restore;
pub mod run;
mod verify;
pub mod wal;
pub mod way;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use obyra_backup::adopt::{self, Adopted};
use obyra_evidence::{Exit, Failure, Message, text};

use crate::cli::{Consent, Named};
use crate::environment::Opened;
use crate::invocation::Invocation;

pub use list::{changed_told, damaged_told, reach_told};

/// Verbs of `backup`.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Take a backup; only the pages that changed since the last one are stored
    #[command(
        after_help = "Examples:\n  obyra-db backup run production\n  obyra-db backup run production --full"
    )]
    Run(Run),
    /// Keep the WAL archive seconds behind the server, until interrupted
    #[command(
        after_help = "Run it beside the server's life: as a systemd unit, a container, a process of the platform.\n\nExamples:\n  obyra-db backup wal production\n  obyra-db backup wal production --until-caught-up     from cron, where nothing may run for long"
    )]
    Wal(Wal),
    /// For archive_command: put a file of pg_wal into the archive
    #[command(
        after_help = "In postgresql.conf:\n  archive_command = 'obyra-db backup wal-push production %p'"
    )]
    WalPush {
        /// The environment, as the strategy names it
        environment: String,
        /// The file, `%p`
        path: PathBuf,
    },
    /// For restore_command: get a file of WAL out of the archive
    #[command(
        after_help = "In postgresql.conf:\n  restore_command = 'obyra-db backup wal-fetch production %f %p'\n\nExit code 1: the archive does not have it. 255: nobody knows, and recovery must not go on."
    )]
    WalFetch {
        /// The environment, as the strategy names it
        environment: String,
        /// The file's name, `%f`
        name: String,
        /// Where it is wanted, `%p`
        path: PathBuf,
    },
    /// The backups as a timeline: what can be brought back, how large, where the holes are
    #[command(
        after_help = "Examples:\n  obyra-db backup list production\n  obyra-db backup list production --json"
    )]
    List(Named),
    /// Bring a cluster, a database or a table back to an instant
    #[command(
        after_help = "Without --into an embedded cluster is replaced by the restored one; its files stay beside it.\nWith --table or --database the part is brought back into the running server under another name; nothing that exists is touched.\n\nExamples:\n  obyra-db backup restore production --table projects --as projects_before --to '2026-11-24 02:13:05-03'\n  obyra-db backup restore production --to '2026-11-24 02:13:05-03' --into /srv/restored\n  obyra-db backup restore production --to name:before-the-upgrade --into /srv/restored --dry-run\n  obyra-db backup restore dev --to latest --yes"
    )]
    Restore(RestoreTo),
    /// Restore the newest backup in isolation, prove it, measure it, record it
    #[command(
        after_help = "Examples:\n  obyra-db backup drill production\n  obyra-db backup drill production --scratch /mnt/big --json"
    )]
    Drill(DrillTo),
    /// Read the repository again: is everything what was written, does it lead back to every instant?
    #[command(
        after_help = "Examples:\n  obyra-db backup verify production\n  obyra-db backup verify production --percent 15     daily: everything within a week\n  obyra-db backup verify production --repair"
    )]
    Verify(Verify),
    /// Copy what is new to the second repository (copy_to)
    #[command(after_help = "Example:\n  obyra-db backup copy production")]
    Copy(Named),
    /// Who can open the repository
    #[command(subcommand)]
    Key(Key),
    /// Remove what the retention lets go, with a reason for all that stays
    #[command(
        after_help = "Examples:\n  obyra-db backup expire production --dry-run\n  obyra-db backup expire production --yes"
    )]
    Expire(Expire),
    /// The logical copy kept outside: pg_dump, encrypted for people, restored to prove it
    #[command(after_help = "Example:\n  obyra-db backup export production")]
    Export(Named),
}

/// Arguments of `backup run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The environment, as the strategy names it
    pub environment: String,
    /// Store every page again, whatever the last backup holds
    #[arg(long)]
    pub full: bool,
}

/// Arguments of `backup wal`.
#[derive(Args, Debug)]
pub struct Wal {
    /// The environment, as the strategy names it
    pub environment: String,
    /// End when the archive has all that the server has
    #[arg(long)]
    pub until_caught_up: bool,
}

/// Arguments of `backup restore`.
#[derive(Args, Debug)]
pub struct RestoreTo {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The instant: latest, '2026-11-24 02:13:05-03', 0/3000148, name:RESTORE-POINT, backup:ID
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    pub to: String,
    /// The data directory; in one that exists only what differs is written
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// From this backup and no other
    #[arg(long, value_name = "BACKUP")]
    pub from: Option<String>,
    /// Along this timeline; default: the newest
    #[arg(long, value_name = "NUMBER")]
    pub timeline: Option<u32>,
    /// Where a tablespace goes
    #[arg(long, value_name = "OID=DIR", value_parser = tablespace)]
    pub tablespace: Vec<(u32, PathBuf)>,
    /// Stop at the target and wait, readable, instead of taking writes
    #[arg(long)]
    pub pause: bool,
    /// Overwrite the folder of another cluster
    #[arg(long)]
    pub replace_other_cluster: bool,
    /// Only this table, into the running server; may be repeated
    #[arg(long, value_name = "[SCHEMA.]TABLE", requires = "name", conflicts_with = "into")]
    pub table: Vec<String>,
    /// Only this database, or the one of --table; default: the environment's
    #[arg(long, value_name = "NAME", requires = "name", conflicts_with = "into")]
    pub database: Option<String>,
    /// What is brought back is called so: NAME or SCHEMA.NAME for one table, SCHEMA.* for several, a new database
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
    /// Where the temporary server of --table and --database has room; default: the temporary folder
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Lose WAL in the folder that is nowhere else
    #[arg(long)]
    pub discard_wal: bool,
    /// Show the way, and restore nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub consent: Consent,
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let (oid, folder) = text.split_once('=').ok_or("write OID=DIR")?;
    Ok((oid.parse().map_err(|_| format!("not an oid: {oid}"))?, folder.into()))
}

/// Arguments of `backup drill`.
#[derive(Args, Debug)]
pub struct DrillTo {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The instant, as for restore
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    pub to: String,
    /// Along this timeline; default: the newest
    #[arg(long, value_name = "NUMBER")]
    pub timeline: Option<u32>,
    /// Where there is room for the restored cluster; default: the temporary folder
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// Arguments of `backup verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// The environment, as the strategy names it
    pub environment: String,
    /// How much is read, in hundredths; each day another share
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: u8,
    /// Bring what is damaged or missing back from the second repository (copy_to)
    #[arg(long)]
    pub repair: bool,
}

/// Arguments of `backup expire`.
#[derive(Args, Debug)]
pub struct Expire {
    /// The environment, as the strategy names it
    pub environment: String,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// Verbs of `backup key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// The keys, and the ways to unwrap each
    List(Named),
    /// Add a way: another age recipient, or a passphrase from a variable or a file
    #[command(
        after_help = "Examples:\n  obyra-db backup key add production --name devops --recipient age1…\n  obyra-db backup key add production --name vault --env OBYRA_BACKUP_PASSPHRASE"
    )]
    Add(KeyAdd),
    /// Remove a way; the last one stays
    Remove {
        /// The environment, as the strategy names it
        environment: String,
        /// The way's name, as `key list` shows it
        #[arg(long)]
        name: String,
    },
    /// Make a new key for what is written from now on; nothing is written again
    Rotate(Named),
}

impl Key {
    fn environment(&self) -> &str {
        match self {
            Key::List(named) | Key::Rotate(named) => &named.environment,
            Key::Add(arguments) => &arguments.environment,
            Key::Remove { environment, .. } => environment,
        }
    }
}

/// Arguments of `backup key add`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("way").required(true).args(["recipient", "env", "file"])))]
pub struct KeyAdd {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The way's name
    #[arg(long)]
    pub name: String,
    /// An age public key
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Option<String>,
    /// The variable that holds a passphrase
    #[arg(long, value_name = "VAR")]
    pub env: Option<String>,
    /// The file that holds a passphrase or an age identity
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Runs the verb.
pub async fn backup(invocation: &mut Invocation, verb: &Backup) -> Result<ExitCode, Failure> {
    if let Backup::WalFetch { environment, name, path } = verb {
        return Ok(wal::fetch(invocation, environment, name, path).await);
    }
    run_verb(invocation, verb).await.map(|exit| ExitCode::from(exit as u8))
}

async fn run_verb(invocation: &mut Invocation, verb: &Backup) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let open = |name: &str| Opened::new(invocation, &strategy, name);
    match verb {
        Backup::Run(arguments) => run::run(&open(&arguments.environment)?, arguments).await,
        Backup::Wal(arguments) => wal::wal(&open(&arguments.environment)?, arguments).await,
        Backup::WalPush { environment, path } => wal::push(&open(environment)?, path).await,
        Backup::WalFetch { .. } => Ok(Exit::Done),
        Backup::List(arguments) => list::list(&open(&arguments.environment)?).await,
        Backup::Restore(arguments) => restore::restore(&open(&arguments.environment)?, arguments).await,
        Backup::Drill(arguments) => drill::drill(&open(&arguments.environment)?, arguments).await,
        Backup::Verify(arguments) => verify::verify(&open(&arguments.environment)?, arguments).await,
        Backup::Copy(arguments) => copy::copy(&open(&arguments.environment)?).await,
        Backup::Key(verb) => key::key(&open(verb.environment())?, verb).await,
        Backup::Expire(arguments) => expire::expire(&open(&arguments.environment)?, arguments).await,
        Backup::Export(arguments) => export::export(&open(&arguments.environment)?).await,
    }
}

/// What an existing pgBackRest repository has, if the strategy names one.
pub async fn adopted(opened: &Opened<'_>) -> Option<Result<Vec<Adopted>, Failure>> {
    match &opened.environment.backup.pgbackrest {
        Some(stanza) => Some(adopt::adopted(stanza).await),
        None => None,
    }
}

/// The same in a sentence.
pub fn told_of_adopted(opened: &Opened<'_>, adopted: &[Adopted]) -> Message {
    let stanza = opened.environment.backup.pgbackrest.as_ref().map_or("", |named| &named.stanza);
    match adopted.last() {
        None => text::backup::PGBACKREST_NONE.with("stanza", stanza),
        Some(newest) => text::backup::PGBACKREST_HAS
            .with("count", adopted.len())
            .with("stanza", stanza)
            .with("label", &newest.label)
            .with("at", newest.stopped.strftime("%Y-%m-%d %H:%M UTC")),
    }
}
