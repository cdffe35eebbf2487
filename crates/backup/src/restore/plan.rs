//! Which backup, which WAL, along which timeline, up to where: the newest backup that can reach the target.
//!
//! Pure: equal inputs give equal plans, and the clock is one of them. A target that cannot be reached is
//! refused with the reason and with the nearest one that can.

mod reach;
mod refusal;

use std::time::Duration;

use jiff::Timestamp;
use obyra_evidence::{Failure, Message, text};
use obyra_postgres::wal::{Lsn, TimelineHistory, TimelineId, WalSegmentSize};
use serde::Serialize;

use super::coverage::{Coverage, Span};
use super::target::{Stop, Target, shown};
use crate::Result;
use crate::repository::layout::BackupId;
use crate::repository::manifest::Header;

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The backups of the cluster, in any order.
    pub backups: &'a [Header],
    /// Its WAL.
    pub coverage: &'a Coverage,
    /// How fast restores were.
    pub rates: Option<Rates>,
    /// The time.
    pub now: Timestamp,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How far.
    pub target: Target,
    /// Where a restore point or a transaction was found: [`super::find`].
    pub found: Option<Found>,
    /// From this backup and no other.
    pub from: Option<BackupId>,
    /// Along this timeline; the newest one if absent.
    pub timeline: Option<TimelineId>,
}

impl Wish {
    /// The target, and nothing else demanded.
    pub fn to(target: Target) -> Wish {
        Wish { target, found: None, from: None, timeline: None }
    }
}

/// A record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The timeline on which it was written.
    pub timeline: TimelineId,
    /// Where it begins.
    pub at: Lsn,
    /// When it was written.
    pub time: Timestamp,
}

/// How fast restores were here, from the figures of earlier ones.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Files, in bytes per second.
    pub restore: u64,
    /// Replay, in bytes of WAL per second.
    pub replay: u64,
}

/// What will be done.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The backup.
    pub backup: Header,
    /// The target, as it was asked for.
    pub target: String,
    /// The timeline that recovery follows.
    pub timeline: TimelineId,
    /// Where it stops.
    pub stop: Stop,
    /// The WAL that is replayed.
    pub replay: Replay,
    /// How large its segments are.
    pub segment_size: WalSegmentSize,
    /// Bytes that are written, at most.
    pub write_bytes: u64,
    /// How long it will take, where that can be told.
    pub expected: Option<Duration>,
    /// Newer backups, and why each was not chosen.
    pub passed_over: Vec<PassedOver>,
    /// The timelines of the archive, in words.
    pub timelines: Vec<Message>,
    /// What else should be known.
    pub notes: Vec<Message>,
}

/// WAL, from one position to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends, at the latest.
    pub to: Lsn,
    /// How many segments that is.
    pub segments: u64,
    /// How many bytes that is.
    pub bytes: u64,
}

/// A backup that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// Which.
    pub backup: BackupId,
    /// Why.
    pub reason: Message,
}

/// The way that recovery takes: a timeline with its parents, and the WAL along them.
struct Way {
    history: TimelineHistory,
    spans: Vec<Span>,
}

/// A backup that reaches the target.
struct Choice<'a> {
    backup: &'a Header,
    span: Span,
    stop: Stop,
}

/// Decides.
pub fn plan(known: &Known<'_>, wish: &Wish) -> Result<Plan> {
    if let Target::Time(time) = wish.target
        && time > known.now
    {
        return Err(Failure::usage(text::backup::RESTORE_IN_THE_FUTURE.with("target", &wish.target))
            .mended_by(text::backup::RESTORE_IN_THE_FUTURE_MEND.with("now", shown(known.now))));
    }
    let mut backups: Vec<&Header> = known.backups.iter().collect();
    backups.sort_by(|a, b| (b.stop, &b.id).cmp(&(a.stop, &a.id)));
    if let Some(id) = named(wish) {
        backups.retain(|backup| backup.id == *id);
        if backups.is_empty() {
            return Err(Failure::usage(text::backup::RESTORE_NO_SUCH_BACKUP.with("backup", id))
                .mended_by(text::backup::RESTORE_NO_SUCH_BACKUP_MEND));
        }
    }
    let way = way(known.coverage, wish, &backups)?;
    if let Some(refused) = refusal::between_timelines(known.coverage, &way, wish) {
        return Err(refused);
    }
    let mut passed_over = Vec::new();
    for backup in &backups {
        match reach::reach(&way, backup, wish) {
            Ok((span, stop)) => {
                let choice = Choice { backup, span, stop };
                return Ok(finish(known, wish, &way, choice, passed_over));
            }
            Err(reason) => passed_over.push(PassedOver { backup: backup.id.clone(), reason }),
        }
    }
    Err(refusal::out_of_reach(&way, wish, &backups, &passed_over))
}

/// The backup that the wish names.
fn named(wish: &Wish) -> Option<&BackupId> {
    match &wish.target {
        Target::Backup(id) => Some(id),
        _ => wish.from.as_ref(),
    }
}

fn way(coverage: &Coverage, wish: &Wish, backups: &[&Header]) -> Result<Way> {
    let of_target = match &wish.target {
        Target::Backup(_) => backups.first().map(|backup| TimelineId(backup.timeline)),
        Target::Name(_) | Target::Transaction(_) => wish.found.map(|found| found.timeline),
        _ => None,
    };
    let newest =
        || coverage.index.newest_timeline().or_else(|| backups.first().map(|b| TimelineId(b.timeline)));
    let timeline = wish.timeline.or(of_target).or_else(newest).unwrap_or(TimelineId::FIRST);
    let Some(history) = coverage.index.history(timeline) else {
        let what = text::backup::RESTORE_HISTORY_MISSING
            .with("timeline", timeline)
            .with("file", timeline.history_file_name());
        return Err(Failure::refused(what).mended_by(text::backup::RESTORE_HISTORY_MISSING_MEND));
    };
    let spans = coverage.spans(&history);
    Ok(Way { history, spans })
}

fn finish(
    known: &Known<'_>,
    wish: &Wish,
    way: &Way,
    choice: Choice<'_>,
    passed_over: Vec<PassedOver>,
) -> Plan {
    let Choice { backup, span, stop } = choice;
    let replay = replay(known, backup, &span, stop);
    let write_bytes = backup.totals.bytes + replay.bytes;
    let seconds = known.rates.map(|rates| {
        let files = backup.totals.bytes / rates.restore.max(1);
        files + replay.bytes / rates.replay.max(1)
    });
    Plan {
        backup: backup.clone(),
        target: wish.target.to_string(),
        timeline: way.history.timeline(),
        stop,
        replay,
        segment_size: known.coverage.index.size(),
        write_bytes,
        expected: seconds.map(|seconds| Duration::from_secs(seconds.max(1))),
        passed_over,
        timelines: known.coverage.explained(),
        notes: reach::notes(known.coverage, way, wish, backup, &span),
    }
}

/// From the backup's start to the target; where only the target's time is known, to the end of the WAL or
/// of the next backup, whichever comes first.
fn replay(known: &Known<'_>, backup: &Header, span: &Span, stop: Stop) -> Replay {
    let size = known.coverage.index.size();
    let to = match stop {
        Stop::Consistent => backup.stop,
        Stop::Before(lsn) | Stop::After(lsn) => lsn,
        Stop::End => span.to,
        Stop::At(time) => {
            let later = known.backups.iter().filter(|later| later.stopped > time && later.stop > backup.stop);
            later.map(|later| later.stop).min().map_or(span.to, |stop| stop.min(span.to))
        }
    };
    let to = to.max(backup.stop);
    let first = backup.start.segment_start(size);
    Replay {
        from: backup.start,
        to,
        segments: to.bytes_since(first).div_ceil(size.bytes()),
        bytes: to.bytes_since(backup.start),
    }
}

#[cfg(test)]
mod tests;
