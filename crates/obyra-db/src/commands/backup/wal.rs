//! `backup wal`: keeps the archive seconds behind the server, until it is interrupted. `wal-push` and
//! `wal-fetch` are what a server calls.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use obyra_backup::repository::Repository;
use obyra_backup::repository::layout::ClusterId;
use obyra_backup::wal::{Archive, ArchiveEvent, Fetched, ReceiveOptions, fetch_exit_code, receive};
use obyra_evidence::{Exit, Failure, Outcome, text};
use obyra_postgres::Conninfo;
use obyra_postgres::replication::Walsender;
use tokio::sync::watch;

use super::Wal;
use crate::environment::{Opened, Told};
use crate::interrupted;
use crate::invocation::Invocation;
use crate::repository;

/// Receives until it is told to stop, and then stores what has arrived.
pub async fn wal(opened: &Opened<'_>, arguments: &Wal) -> Result<Exit, Failure> {
    if arguments.until_caught_up {
        return catch_up(opened).await.map(|()| Exit::Done);
    }
    let part_every = part_every(opened.environment.backup.pitr.lag_max.to_std());
    follow(opened, part_every, Until::Interrupted).await.map(|()| Exit::Done)
}

/// Receives until the archive has all that the server has now.
pub async fn catch_up(opened: &Opened<'_>) -> Result<(), Failure> {
    // Who waits for the end of it wants no pause before the last part.
    follow(opened, Duration::from_millis(200), Until::CaughtUp).await
}

/// When the receiver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Interrupted,
    CaughtUp,
}

async fn follow(opened: &Opened<'_>, part_every: Duration, until: Until) -> Result<(), Failure> {
    let pitr = &opened.environment.backup.pitr;
    let repository = repository::open_or_create(opened).await?;
    let target = opened.admin().await?;
    let archive = archive_of(&repository, &target).await?;
    let options = ReceiveOptions {
        part_every,
        retained_bytes_max: u64::from(pitr.slot_size_max) * 1_000_000,
        synchronous: pitr.synchronous,
        ..ReceiveOptions::new(&pitr.slot)
    };
    let printer = opened.invocation.printer;
    let store = repository.store.url();
    printer.note(match until {
        Until::Interrupted => text::backup::WAL_BEGINS.with("slot", &pitr.slot).with("store", store),
        Until::CaughtUp => text::backup::WAL_CATCHES_UP.with("slot", &pitr.slot).with("store", store),
    });
    let (caught_up, mut is_caught_up) = watch::channel(false);
    let (alarm, alarms) = std::sync::mpsc::channel();
    let tell = move |event: ArchiveEvent| {
        if matches!(event, ArchiveEvent::CaughtUp { .. }) {
            // Nobody may be waiting for it.
            caught_up.send_replace(true);
        }
        if is_news(&event) {
            printer.note(event.message());
            if let Some(failure) = event.failure() {
                printer.failure(failure);
            }
        }
        if event.is_alarm() {
            // The end of the receiver reads them.
            let _ = alarm.send(event);
        }
    };
    let stop = async move {
        tokio::select! {
            () = interrupted() => {}
            _ = is_caught_up.wait_for(|caught_up| *caught_up), if until == Until::CaughtUp => {}
        }
    };
    let outcome = receive(&archive, &target, &options, Arc::new(tell), stop).await;
    record(opened, alarms.try_iter().collect(), &outcome)?;
    outcome
}

/// The archive of the cluster that answers at this address.
pub async fn archive_of(repository: &Repository, target: &Conninfo) -> Result<Archive, Failure> {
    Ok(Archive::new(repository, cluster_of(target).await?))
}

/// The system identifier of the cluster that answers at this address.
pub async fn cluster_of(target: &Conninfo) -> Result<ClusterId, Failure> {
    let mut walsender = Walsender::connect(target).await?;
    let identity = walsender.identify_system().await?;
    walsender.close().await;
    Ok(ClusterId(identity.system_identifier))
}

/// A part goes out well before the archive would be too far behind.
fn part_every(lag_max: Duration) -> Duration {
    (lag_max / 4).clamp(Duration::from_secs(1), Duration::from_secs(10))
}

/// Each segment and each second is too much to read.
fn is_news(event: &ArchiveEvent) -> bool {
    !matches!(event, ArchiveEvent::Segment { .. } | ArchiveEvent::Part { .. } | ArchiveEvent::Lag(_))
}

/// Alarms stay in the ledger: who reads it later must see that there was a gap.
fn record(
    opened: &Opened<'_>,
    alarms: Vec<ArchiveEvent>,
    outcome: &Result<(), Failure>,
) -> Result<(), Failure> {
    let mut said: Vec<String> = alarms.iter().map(|event| event.message().to_string()).collect();
    if let Err(failure) = outcome {
        said.push(failure.to_string());
    }
    if said.is_empty() {
        return Ok(());
    }
    let told = Told::new("the archive follows the server without a hole", said.join("; "))
        .figure("alarms", alarms.len() as f64);
    opened.record("backup.wal", Outcome::Failed, told)
}

/// For `archive_command`: returns when the file is durable in the archive.
pub async fn push(opened: &Opened<'_>, path: &Path) -> Result<Exit, Failure> {
    let repository = repository::open_or_create(opened).await?;
    let archive = Archive::new(&repository, cluster_beside(path)?);
    obyra_backup::wal::push(&archive, path).await.map(|_| Exit::Done)
}

/// For `restore_command`: whatever fails must not look like the end of the WAL.
pub async fn fetch(invocation: &mut Invocation, environment: &str, name: &str, path: &Path) -> ExitCode {
    let fetched = fetch_file(invocation, environment, name, path).await;
    if let Err(failure) = &fetched {
        invocation.printer.failure(failure);
    }
    ExitCode::from(fetch_exit_code(&fetched, data_directory_of(path)))
}

async fn fetch_file(
    invocation: &mut Invocation,
    environment: &str,
    name: &str,
    path: &Path,
) -> Result<Fetched, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, environment)?;
    let repository = repository::required(&opened).await?;
    let archive = Archive::new(&repository, cluster_beside(path)?);
    obyra_backup::wal::fetch(&archive, name, path).await
}

/// The data directory: `pg_wal` is in it, and the server gives paths relative to it.
fn data_directory_of(path: &Path) -> &Path {
    path.parent().and_then(Path::parent).unwrap_or(Path::new(""))
}

/// Whose WAL this is: `pg_control` begins with the system identifier.
fn cluster_beside(path: &Path) -> Result<ClusterId, Failure> {
    let file = data_directory_of(path).join("global/pg_control");
    let failed = || Failure::new(text::backup::NO_CONTROL_FILE.with("file", file.display()));
    let control = std::fs::read(&file).map_err(|error| failed().because(error))?;
    let identifier = control.first_chunk::<8>().ok_or_else(failed)?;
    Ok(ClusterId(u64::from_le_bytes(*identifier)))
}
