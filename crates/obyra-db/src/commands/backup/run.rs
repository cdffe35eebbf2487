//! `backup run`: takes a backup, with the WAL that it needs, and lets go of what the retention does not keep.

use obyra_backup::Source;
use obyra_backup::drill::{self, Budget};
use obyra_backup::holdings::Holdings;
use obyra_backup::repository::Repository;
use obyra_backup::take::{self, From, Options, Request, Taken};
use obyra_evidence::{Exit, Failure, HumanBytes, Outcome, text};
use obyra_postgres::replication::Checkpoint;
use obyra_postgres::{Conninfo, Session, sql_failure};
use obyra_strategy::Reach;
use serde_json::json;

use super::{Run, changed_told, damaged_told, expire};
use crate::environment::{Opened, Told};
use crate::repository;

/// Takes a backup.
pub async fn run(opened: &Opened<'_>, arguments: &Run) -> Result<Exit, Failure> {
    let taken = take_opened(opened, arguments.full).await?;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&json!({
            "backup": taken.header,
            "manifest_bytes": taken.manifest_bytes,
            "resumed": taken.resumed,
        }));
    }
    Ok(if taken.header.damaged.is_empty() { Exit::Done } else { Exit::Findings })
}

/// Takes a backup within longer work, records it, and expires what the retention lets go.
pub async fn take_opened(opened: &Opened<'_>, full: bool) -> Result<Taken, Failure> {
    if opened.environment.backs_up_by_snapshots() {
        return Err(Failure::refused(text::backup::PROVIDER.with("environment", opened.name()))
            .mended_by(text::backup::PROVIDER_MEND));
    }
    opened.can_record()?;
    let repository = repository::open_or_create(opened).await?;
    let outcome = take_into(opened, &repository, full).await;
    let expected = "a backup that can be restored, every page that was read verified";
    let taken = opened.recorded("backup.run", expected, outcome, |taken| {
        (Outcome::Changed, told(taken, expected).fact(repository::REPOSITORY_FACT, repository.store.url()))
    })?;
    tell(opened, &taken);
    record_figures(opened, &repository, &taken).await;
    let holdings = Holdings::read(&repository, taken.cluster).await?;
    expire::expire_after_backup(opened, &repository, &holdings).await?;
    Ok(taken)
}

/// What a drill compares with. The backup stands without it, and the drill then says so.
async fn record_figures(opened: &Opened<'_>, repository: &Repository, taken: &Taken) {
    let progress = opened.invocation.progress();
    let recorded = async {
        let admin = opened.admin().await?;
        let figures = drill::record(&admin, &taken.header, &Budget::default(), &progress).await?;
        drill::store(repository, taken.cluster, &figures).await
    };
    if let Err(failure) = recorded.await {
        opened.invocation.printer.note(text::backup::FIGURES_NOT_RECORDED.with("why", &failure));
    }
}

async fn take_into(opened: &Opened<'_>, repository: &Repository, full: bool) -> Result<Taken, Failure> {
    let target = opened.admin().await?;
    let policy = &opened.environment.backup;
    let rate_max = (policy.rate_max > 0).then(|| u64::from(policy.rate_max) * 1_000_000);
    let request = Request {
        environment: opened.name().to_owned(),
        host: host(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        now: opened.now(),
        options: Options { full, rate_max, checkpoint: Checkpoint::Fast, ..Options::default() },
    };
    let from = source(opened, target).await?;
    take::run(repository, &from, &request, &opened.invocation.progress()).await
}

/// The data directory where it can be read, which is faster and costs the server less.
async fn source(opened: &Opened<'_>, target: Conninfo) -> Result<From, Failure> {
    let local = match opened.environment.backup.source {
        Source::Protocol => false,
        Source::Local => true,
        Source::Auto => matches!(opened.environment.reach, Reach::Embedded) || is_here(&target).await?,
    };
    Ok(if local { From::Local { target, data_directory: None } } else { From::Protocol { target } })
}

/// Whether the server is reached over a socket of this machine, and its data directory can be read.
async fn is_here(target: &Conninfo) -> Result<bool, Failure> {
    if target.hosts().iter().any(|host| host.socket_dir().is_none()) {
        return Ok(false);
    }
    let session = Session::connect(target, obyra_postgres::Limits::default()).await?;
    let sql = "SELECT pg_catalog.current_setting('data_directory', true)";
    let row = session.query_one(sql, &[]).await;
    let row = row.map_err(|error| sql_failure(text::backup::POSITION.message(), &error))?;
    // Who may not know the directory may not read it either. In a container, a folder of that name may be
    // another one: only the identifier in it tells, which is compared when the backup begins.
    let directory: Option<String> = row.get(0);
    Ok(directory.is_some_and(|directory| std::fs::read(format!("{directory}/global/pg_control")).is_ok()))
}

/// This machine's name.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

fn told(taken: &Taken, expected: &str) -> Told {
    let totals = taken.header.totals;
    let observed = if taken.header.damaged.is_empty() {
        taken.header.id.to_string()
    } else {
        format!("{}, with {} damaged pages in the cluster", taken.header.id, taken.header.damaged.len())
    };
    let seconds = taken.header.stopped.duration_since(taken.header.started).as_secs_f64();
    let told = match taken.header.changed_only {
        None => Told::new(expected, observed).fact("read", "every page"),
        // The rest is as it was by the server's word.
        Some(changed) => Told::new(expected, observed)
            .fact("read", "what the server knew to have changed")
            .fact("every_page_read", changed.all_read)
            .figure("received_bytes", changed.received as f64),
    };
    told.figure("bytes", totals.bytes as f64)
        .figure("stored_bytes", totals.stored as f64)
        .figure("seconds", seconds)
        .fact("backup", &taken.header.id)
        .fact("cluster", &taken.header.cluster.system_identifier)
        .fact("start", taken.header.start)
        .fact("stop", taken.header.stop)
}

fn tell(opened: &Opened<'_>, taken: &Taken) {
    let printer = opened.invocation.printer;
    let header = &taken.header;
    let seconds = header.stopped.duration_since(header.started).as_secs_f64();
    let what = if header.parent.is_some() { text::backup::TAKEN } else { text::backup::TAKEN_FULL };
    printer.note(
        what.with("backup", &header.id)
            .with("bytes", HumanBytes(header.totals.bytes))
            .with("stored", HumanBytes(header.totals.stored))
            .with("seconds", format!("{seconds:.1}")),
    );
    if let Some(changed) = changed_told(header) {
        printer.note(changed);
    }
    if let Some(damaged) = damaged_told(header) {
        printer.note(damaged);
    }
}
