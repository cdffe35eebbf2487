//! What is kept and what may go: a pure function of the backups, the policy and the time, with a reason for
//! each.
//!
//! Days, counts, grandfather-father-son and the PITR window are all asked; whoever has one reason to stay,
//! stays. The last backup that can be restored never goes, whatever the policy says.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use obyra_evidence::{Code, Message, text};
use obyra_postgres::wal::{Lsn, SegmentName, WalSegmentSize};
use serde::Serialize;

use crate::policy::{Keep, Policy};
use crate::repository::layout::BackupId;
use crate::wal::Hole;

/// A backup, as far as its retention is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub id: BackupId,
    /// When it was complete: the first instant that it can bring back.
    pub stopped: Timestamp,
    /// The timeline on which it began.
    pub timeline: u32,
    /// Where its recovery begins.
    pub start: Lsn,
    /// Where its recovery becomes consistent.
    pub stop: Lsn,
    /// Whether all that its recovery needs is in the repository. One that cannot be restored keeps nobody's
    /// place.
    pub restorable: bool,
}

/// Why a backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is younger than the retention.
    Young,
    /// It is one of the newest.
    Last,
    /// The last of its day.
    Daily,
    /// The last of its week.
    Weekly,
    /// The last of its month.
    Monthly,
    /// The last of its year.
    Yearly,
    /// The window of point-in-time recovery begins with it.
    Pitr,
    /// There is no other that can be restored.
    OnlyOne,
}

impl Reason {
    /// The reason in words.
    pub fn message(self, policy: &Policy) -> Message {
        let counted = |code: Code, count: u32| code.with("count", count);
        match self {
            Reason::Young => text::backup::KEPT_YOUNG.with("retention", policy.retention.short()),
            Reason::Last => counted(text::backup::KEPT_LAST, policy.keep.last),
            Reason::Daily => counted(text::backup::KEPT_DAILY, policy.keep.daily),
            Reason::Weekly => counted(text::backup::KEPT_WEEKLY, policy.keep.weekly),
            Reason::Monthly => counted(text::backup::KEPT_MONTHLY, policy.keep.monthly),
            Reason::Yearly => counted(text::backup::KEPT_YEARLY, policy.keep.yearly),
            Reason::Pitr => text::backup::KEPT_PITR.with("window", policy.pitr.window.short()),
            Reason::OnlyOne => text::backup::KEPT_ONLY_ONE.message(),
        }
    }
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub id: BackupId,
    /// Why it stays; nothing if it may go.
    pub kept: BTreeSet<Reason>,
}

impl Verdict {
    /// Whether it may go.
    pub fn expires(&self) -> bool {
        self.kept.is_empty()
    }
}

/// The WAL that must stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalKept {
    /// From each of these on everything, on its timeline and on all later ones. There can be several: after a
    /// restore to an earlier moment the new timeline begins before the old one ended.
    from: Vec<(u32, Lsn)>,
    /// What older backups need to become consistent: timeline, start, stop.
    ranges: Vec<(u32, Lsn, Lsn)>,
}

impl WalKept {
    /// Whether a segment must stay; `bytes` is the size of a segment.
    pub fn keeps(&self, segment: &SegmentName, bytes: u64) -> bool {
        let begins = segment.number * bytes;
        let ends = begins + bytes;
        let timeline = segment.timeline.0;
        let after = |(since, from): &(u32, Lsn)| timeline >= *since && ends > from.0;
        let inside =
            |(on, start, stop): &(u32, Lsn, Lsn)| timeline == *on && ends > start.0 && begins <= stop.0;
        self.from.iter().any(after) || self.ranges.iter().any(inside)
    }

    /// Whether any of what is missing must be there.
    pub fn misses(&self, hole: &Hole, size: WalSegmentSize) -> bool {
        let numbers = hole.from.0 / size.bytes()..hole.to.0.div_ceil(size.bytes());
        let mut segments = numbers.map(|number| SegmentName { timeline: hole.timeline, number });
        segments.any(|segment| self.keeps(&segment, size.bytes()))
    }
}

/// The decision: backups oldest first, each with its reasons, and the WAL that stays with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// One for each backup, oldest first.
    pub verdicts: Vec<Verdict>,
    /// The WAL.
    pub wal: WalKept,
}

/// Decides.
pub fn decide(backups: &[Held], policy: &Policy, now: Timestamp) -> Decision {
    let mut backups: Vec<&Held> = backups.iter().collect();
    backups.sort_by_key(|backup| (backup.stopped, backup.id.clone()));
    let whole: Vec<&Held> = backups.iter().copied().filter(|backup| backup.restorable).collect();
    let mut kept: BTreeSet<(&BackupId, Reason)> = BTreeSet::new();

    let oldest = policy.retention.before(now);
    kept.extend(backups.iter().filter(|backup| backup.stopped >= oldest).map(|b| (&b.id, Reason::Young)));
    kept.extend(newest(&whole, policy.keep.last).map(|backup| (&backup.id, Reason::Last)));
    for (reason, count, bucket) in calendars(policy.keep) {
        kept.extend(last_of_each(&whole, count, bucket).into_iter().map(|backup| (&backup.id, reason)));
    }
    let base = window_base(&whole, policy, now);
    kept.extend(base.map(|backup| (&backup.id, Reason::Pitr)));
    let nothing = whole.iter().all(|backup| !kept.iter().any(|(id, _)| *id == &backup.id));
    if let Some(only) = whole.last().filter(|_| nothing) {
        kept.insert((&only.id, Reason::OnlyOne));
    }

    let reasons =
        |id: &BackupId| kept.iter().filter(|(of, _)| *of == id).map(|(_, reason)| *reason).collect();
    let verdicts: Vec<Verdict> =
        backups.iter().map(|b| Verdict { id: b.id.clone(), kept: reasons(&b.id) }).collect();
    let staying = backups.iter().zip(&verdicts).filter(|(_, verdict)| !verdict.expires()).map(|(b, _)| *b);
    let wal = wal_kept(staying, base);
    Decision { verdicts, wal }
}

/// The backup from which every instant of the window can be reached: the newest that was complete when the
/// window begins; where there is none yet, the oldest.
fn window_base<'a>(whole: &[&'a Held], policy: &Policy, now: Timestamp) -> Option<&'a Held> {
    if !policy.pitr.enabled {
        return None;
    }
    let begins = policy.pitr.window.before(now);
    let before = whole.iter().rev().find(|backup| backup.stopped <= begins);
    before.or(whole.first()).copied()
}

/// Everything since the base of the window; without a window, since the newest backup.
fn wal_kept<'a>(staying: impl Iterator<Item = &'a Held>, base: Option<&Held>) -> WalKept {
    let staying: Vec<&Held> = staying.collect();
    let base = base.or(staying.iter().rev().find(|b| b.restorable).copied()).or(staying.first().copied());
    let since = staying.iter().filter(|b| base.is_some_and(|base| b.stopped >= base.stopped));
    WalKept {
        from: since.map(|backup| (backup.timeline, backup.start)).collect(),
        ranges: staying.iter().map(|b| (b.timeline, b.start, b.stop)).collect(),
    }
}

fn newest<'a>(whole: &'a [&'a Held], count: u32) -> impl Iterator<Item = &'a Held> {
    whole.iter().rev().take(count as usize).copied()
}

type Bucket = fn(Date) -> (i16, i16);

fn calendars(keep: Keep) -> [(Reason, u32, Bucket); 4] {
    [
        (Reason::Daily, keep.daily, |date| (date.year(), date.day_of_year())),
        (Reason::Weekly, keep.weekly, |date| {
            let week = date.iso_week_date();
            (week.year(), i16::from(week.week()))
        }),
        (Reason::Monthly, keep.monthly, |date| (date.year(), i16::from(date.month()))),
        (Reason::Yearly, keep.yearly, |date| (date.year(), 0)),
    ]
}

/// The last backup of each of the newest `count` periods that have one.
fn last_of_each<'a>(whole: &[&'a Held], count: u32, bucket: Bucket) -> Vec<&'a Held> {
    let mut seen = BTreeSet::new();
    let mut last = Vec::new();
    for backup in whole.iter().rev() {
        let period = bucket(backup.stopped.to_zoned(TimeZone::UTC).date());
        if seen.len() < count as usize && seen.insert(period) {
            last.push(*backup);
        }
    }
    last
}

#[cfg(test)]
mod tests;
