//! Facts about backups: what the repository holds now, how far behind the archive is, and what drills and
//! exports the ledger proves.

use jiff::{SignedDuration, Timestamp};
use obyra_backup::expire;
use obyra_backup::holdings::Holdings;
use obyra_backup::repository::Repository;
use obyra_backup::repository::layout::BackupId;
use obyra_continuity::{Fact, LineId};
use obyra_evidence::{Every, Failure, HumanBytes, HumanDuration, Outcome, text};
use obyra_postgres::tokio_postgres::Row;
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Session, sql_failure};

use super::{broken, holds, unknown};
use crate::commands::backup;
use crate::environment::Opened;
use crate::repository;

/// What a missed backup may be late: the time that it takes, and a machine that was off at night.
const GRACE: SignedDuration = SignedDuration::from_hours(6);

/// The facts, line by line.
pub async fn facts(opened: &Opened<'_>, session: &Session) -> Result<Vec<(LineId, Fact)>, Failure> {
    let policy = &opened.environment.backup;
    if !opened.environment.declares("backup") || !policy.enabled {
        return Ok(not_asked(opened));
    }
    if opened.environment.backs_up_by_snapshots() {
        return Ok(LINES.map(|line| (line, Fact::NotBuilt)).to_vec());
    }
    let mut facts = match holdings(opened).await {
        Ok(Some((repository, holdings))) => of_holdings(opened, session, &repository, &holdings).await?,
        Ok(None) => none_yet(opened).await,
        Err(failure) => {
            let fact = unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend.clone());
            [LineId::Backups, LineId::Retention, LineId::Pitr].map(|line| (line, fact.clone())).to_vec()
        }
    };
    facts.push((LineId::RestoreDrill, drill(opened)?));
    facts.push((LineId::LogicalExport, export(opened)?));
    if !policy.pitr.enabled {
        facts.push((LineId::Pitr, Fact::NotAsked));
    }
    Ok(facts)
}

const LINES: [LineId; 5] =
    [LineId::Backups, LineId::Retention, LineId::Pitr, LineId::RestoreDrill, LineId::LogicalExport];

/// Backups are asked of everybody but of an environment that says that it has none.
fn not_asked(opened: &Opened<'_>) -> Vec<(LineId, Fact)> {
    let mut facts = LINES.map(|line| (line, Fact::NotAsked)).to_vec();
    if !opened.environment.declares("backup") {
        let mend = text::backup::FACT_UNDECLARED_MEND.message();
        facts[0].1 = unknown(text::backup::FACT_UNDECLARED.message(), Some(mend));
    }
    facts
}

/// The repository, and what it holds of the environment's newest cluster.
async fn holdings(opened: &Opened<'_>) -> Result<Option<(Repository, Holdings)>, Failure> {
    let Some(repository) = repository::existing(opened).await? else { return Ok(None) };
    let clusters = repository::clusters_of(opened, &repository).await?;
    let Some(cluster) = clusters.last() else { return Ok(None) };
    let holdings = Holdings::read(&repository, *cluster).await?;
    Ok(Some((repository, holdings)))
}

/// The newest backup that can be restored, unless the next one is due.
pub async fn newest(opened: &Opened<'_>) -> Result<Option<BackupId>, Failure> {
    let holdings = holdings(opened).await?;
    let newest = holdings.as_ref().and_then(|(_, holdings)| holdings.newest());
    let in_time = newest.filter(|kept| !is_late(opened, kept.header.stopped));
    Ok(in_time.map(|kept| kept.header.id.clone()))
}

async fn none_yet(opened: &Opened<'_>) -> Vec<(LineId, Fact)> {
    let run = format!("obyra-db backup run {}", opened.name());
    let none = || broken(text::backup::FACT_NONE.message(), &run);
    let backups = match backup::adopted(opened).await {
        Some(Ok(adopted)) => {
            let late = adopted.last().is_none_or(|newest| is_late(opened, newest.stopped));
            let told = backup::told_of_adopted(opened, &adopted);
            // Old or damaged is known; whether it could be restored is not.
            let prove = text::cli::RUN.with("command", &run);
            if late { broken(told, &run) } else { unknown(told, Some(prove)) }
        }
        Some(Err(failure)) => unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend.clone()),
        None => none(),
    };
    vec![(LineId::Backups, backups), (LineId::Retention, none()), (LineId::Pitr, none())]
}

async fn of_holdings(
    opened: &Opened<'_>,
    session: &Session,
    repository: &Repository,
    holdings: &Holdings,
) -> Result<Vec<(LineId, Fact)>, Failure> {
    Ok(vec![
        (LineId::Backups, backups(opened, holdings)?),
        (LineId::Retention, retention(opened, repository, holdings).await),
        (LineId::Pitr, pitr(opened, session, holdings).await),
    ])
}

/// Configured: the newest is young enough. Tested: a drill or a verification passed.
fn backups(opened: &Opened<'_>, holdings: &Holdings) -> Result<Fact, Failure> {
    let run = format!("obyra-db backup run {}", opened.name());
    let Some(newest) = holdings.newest() else {
        return Ok(broken(text::backup::FACT_NOT_RESTORABLE.with("count", holdings.backups.len()), run));
    };
    let header = &newest.header;
    let told = text::backup::FACT_NEWEST
        .with("backup", &header.id)
        .with("at", minute(header.stopped))
        .with("stored", HumanBytes(header.totals.stored));
    if is_late(opened, header.stopped) {
        return Ok(broken(text::backup::FACT_LATE.with("at", minute(header.stopped)), run));
    }
    if let Some(what) = backup::damaged_told(header) {
        return Ok(broken(what, format!("obyra-db backup list {}", opened.name())));
    }
    let drill = format!("obyra-db backup drill {}", opened.name());
    match opened.latest("backup.drill")? {
        Some(record) if record.outcome == Outcome::Passed => Ok(holds(told)),
        Some(record) => Ok(broken(text::backup::FACT_DRILL_FAILED.with("why", record.observed), drill)),
        None => {
            let mend = text::cli::RUN.with("command", drill);
            Ok(unknown(text::backup::FACT_UNTESTED.with("at", minute(header.stopped)), Some(mend)))
        }
    }
}

async fn retention(opened: &Opened<'_>, repository: &Repository, holdings: &Holdings) -> Fact {
    let policy = &opened.environment.backup;
    match expire::plan(repository, holdings, policy, opened.now()).await {
        Ok(plan) if plan.backups.backups.is_empty() => {
            let oldest = holdings.backups.first().map(|kept| minute(kept.header.stopped)).unwrap_or_default();
            holds(
                text::backup::FACT_RETENTION
                    .with("count", holdings.backups.len())
                    .with("oldest", oldest)
                    .with("retention", policy.retention.short()),
            )
        }
        Ok(plan) => {
            let told = text::backup::FACT_UNEXPIRED.with("count", plan.backups.backups.len());
            broken(told, format!("obyra-db backup expire {}", opened.name()))
        }
        Err(failure) => unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend),
    }
}

/// Any instant of the window, and the archive not further behind than allowed.
async fn pitr(opened: &Opened<'_>, session: &Session, holdings: &Holdings) -> Fact {
    let pitr = &opened.environment.backup.pitr;
    let wal = format!("obyra-db backup wal {}", opened.name());
    let reaches = holdings.reaches();
    let Some(reach) = reaches.last() else {
        return broken(text::backup::LIST_NOTHING.message(), wal);
    };
    let now = match server_position(session).await {
        Ok(now) => now,
        Err(failure) => return unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend),
    };
    match slot(session, &pitr.slot).await {
        Ok(Some(slot)) if slot.retained > u64::from(pitr.slot_size_max) * 1_000_000 => {
            let told =
                if slot.active { text::backup::FACT_SLOT_GROWS } else { text::backup::FACT_SLOT_ALONE };
            return broken(told.with("slot", &pitr.slot).with("size", HumanBytes(slot.retained)), wal);
        }
        Ok(_) => {}
        Err(failure) => return unknown(text::cli::FACT_UNREADABLE.with("why", &failure), failure.mend),
    }
    let behind = now.0.saturating_sub(reach.end.0);
    if behind > 0 && reach.to < pitr.lag_max.before(opened.now()) {
        let told = text::backup::FACT_BEHIND
            .with("size", HumanBytes(behind))
            .with("to", minute(reach.to))
            .with("max", pitr.lag_max.short());
        return broken(told, wal);
    }
    let begins = pitr.window.before(opened.now());
    let first = holdings.backups.iter().map(|kept| kept.header.stopped).min();
    // A repository that is younger than the window reaches back as far as it can.
    if reach.from > begins && first.is_some_and(|first| first < reach.from) {
        return broken(text::backup::FACT_WINDOW_BROKEN.with("from", minute(reach.from)), wal);
    }
    holds(backup::reach_told(reach))
}

/// What the server keeps for whoever receives its WAL.
struct Slot {
    active: bool,
    /// Bytes.
    retained: u64,
}

/// Our slot; `None` where the server has none.
async fn slot(session: &Session, name: &str) -> Result<Option<Slot>, Failure> {
    let sql = "SELECT active, coalesce(pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() \
               THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn), 0)::bigint \
               FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let rows = session.query(sql, &[&name]).await;
    let rows = rows.map_err(|error| sql_failure(text::backup::POSITION.message(), &error))?;
    let slot =
        |row: &Row| Slot { active: row.get(0), retained: row.get::<_, i64>(1).try_into().unwrap_or(0) };
    Ok(rows.first().map(slot))
}

async fn server_position(session: &Session) -> Result<Lsn, Failure> {
    let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
               ELSE pg_catalog.pg_current_wal_flush_lsn() END::text";
    let failed = |error: &dyn std::fmt::Display| Failure::new(text::backup::POSITION).because(error);
    let row =
        session.query_one(sql, &[]).await.map_err(|e| sql_failure(text::backup::POSITION.message(), &e))?;
    row.get::<_, String>(0).parse::<Lsn>().map_err(|e| failed(&e))
}

fn drill(opened: &Opened<'_>) -> Result<Fact, Failure> {
    let policy = &opened.environment.backup.drill;
    if !policy.enabled {
        return Ok(Fact::NotAsked);
    }
    let command = format!("obyra-db backup drill {}", opened.name());
    let Some(record) = opened.latest("backup.drill")? else {
        return Ok(unknown(
            text::backup::FACT_NO_DRILL.message(),
            Some(text::cli::RUN.with("command", command)),
        ));
    };
    let at = minute(record.at);
    if record.outcome != Outcome::Passed {
        return Ok(broken(text::backup::FACT_DRILL_FAILED.with("why", record.observed), command));
    }
    if is_older(opened, record.at, policy.every) {
        return Ok(broken(text::backup::FACT_DRILL_OLD.with("at", at), command));
    }
    let figure = |name: &str| record.figures.get(name).copied().unwrap_or_default().round() as u64;
    let told = text::backup::FACT_DRILL
        .with("at", at)
        .with("rto", HumanDuration::from_seconds(figure("rto_seconds")).short())
        .with("rpo", HumanDuration::from_seconds(figure("rpo_seconds")).short());
    Ok(holds(told))
}

fn export(opened: &Opened<'_>) -> Result<Fact, Failure> {
    let policy = &opened.environment.backup.export;
    if !policy.enabled {
        return Ok(Fact::NotAsked);
    }
    let command = format!("obyra-db backup export {}", opened.name());
    let Some(record) = opened.latest("backup.export")? else {
        return Ok(broken(text::backup::FACT_NO_EXPORT.message(), command));
    };
    let at = minute(record.at);
    if !matches!(record.outcome, Outcome::Changed | Outcome::Passed) {
        return Ok(broken(text::backup::FACT_EXPORT_FAILED.with("why", record.observed), command));
    }
    if is_older(opened, record.at, policy.every) {
        return Ok(broken(text::backup::FACT_EXPORT_OLD.with("at", at), command));
    }
    Ok(holds(text::backup::FACT_EXPORT.with("at", at)))
}

fn is_late(opened: &Opened<'_>, newest: Timestamp) -> bool {
    is_older(opened, newest, opened.environment.backup.every)
}

fn is_older(opened: &Opened<'_>, at: Timestamp, every: Every) -> bool {
    let period = match every {
        Every::Hour => SignedDuration::from_hours(2),
        _ => SignedDuration::from_hours(24 * every.days_max() as i64) + GRACE,
    };
    opened.now().duration_since(at) > period
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
