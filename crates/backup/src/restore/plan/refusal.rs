//! Why no backup reaches the target, and what does reach.

use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use obyra_postgres::wal::Lsn;

use super::reach::usable;
use super::{PassedOver, Way, Wish};
use crate::repository::manifest::Header;
use crate::restore::coverage::{Coverage, Span};
use crate::restore::target::{Target, shown};

/// A moment at which the cluster lived on a timeline that was left at an earlier point: along the newest
/// timeline it would silently become that earlier point.
pub(super) fn between_timelines(coverage: &Coverage, way: &Way, wish: &Wish) -> Option<Failure> {
    let Target::Time(time) = wish.target else { return None };
    if wish.timeline.is_some() {
        return None;
    }
    coverage.branches(&way.history).into_iter().find_map(|branch| {
        let (kept, first) = coverage.around(&branch);
        let kept = kept.filter(|kept| *kept < time)?;
        let lived = coverage.left_behind(&branch);
        let lived = lived.iter().any(|stretch| stretch.first_commit.is_some_and(|first| first <= time));
        // Where the child's first WAL is missing, its first commit may have been before that moment.
        if !lived || !coverage.has_beginning(&branch) || first.is_some_and(|first| first <= time) {
            return None;
        }
        let what = text::backup::RESTORE_BETWEEN_TIMELINES
            .with("target", &wish.target)
            .with("parent", branch.parent)
            .with("child", branch.child)
            .with("position", branch.at);
        let mend = text::backup::RESTORE_BETWEEN_TIMELINES_MEND
            .with("parent", branch.parent)
            .with("kept", shown(kept));
        Some(Failure::refused(what).mended_by(mend))
    })
}

/// No backup of those asked for reaches the target.
pub(super) fn out_of_reach(
    way: &Way,
    wish: &Wish,
    backups: &[&Header],
    passed_over: &[PassedOver],
) -> Failure {
    let usable: Vec<(&Header, &Span)> =
        backups.iter().filter_map(|backup| usable(way, backup).ok().map(|span| (*backup, span))).collect();
    let Some((first, _)) = usable.last() else {
        return none_usable(wish, passed_over);
    };
    if matches!(wish.target, Target::Name(_) | Target::Transaction(_)) && wish.found.is_none() {
        return Failure::refused(text::backup::RESTORE_NOT_FOUND.with("target", &wish.target))
            .mended_by(text::backup::RESTORE_NOT_FOUND_MEND);
    }
    let goal = Goal::of(wish);
    // From the newest backup that ended before the target.
    let Some((_, span)) = usable.iter().find(|(backup, _)| goal.is_after(backup)) else {
        let what = text::backup::RESTORE_BEFORE_FIRST.with("target", &wish.target);
        let what = what.with("first", shown(first.stopped)).with("position", first.stop);
        let mend = text::backup::RESTORE_BEFORE_FIRST_MEND.with("first", shown(ceiling(first.stopped)));
        return Failure::refused(what).mended_by(mend);
    };
    match way.spans.iter().find(|later| later.from > span.to) {
        Some(later) => in_a_hole(wish, &usable, span, later),
        None => after_last(wish, span),
    }
}

/// Where the target lies, as far as that can be compared with a backup.
enum Goal {
    End,
    Time(Timestamp),
    Lsn(Lsn),
}

impl Goal {
    fn of(wish: &Wish) -> Goal {
        match (&wish.target, wish.found) {
            (Target::Time(time), _) => Goal::Time(*time),
            (Target::Lsn(lsn), _) => Goal::Lsn(*lsn),
            (_, Some(found)) => Goal::Lsn(found.at),
            _ => Goal::End,
        }
    }

    fn is_after(&self, backup: &Header) -> bool {
        match self {
            Goal::End => true,
            Goal::Time(time) => backup.stopped <= *time,
            Goal::Lsn(lsn) => backup.stop <= *lsn,
        }
    }
}

fn none_usable(wish: &Wish, passed_over: &[PassedOver]) -> Failure {
    let reasons: Vec<String> =
        passed_over.iter().map(|passed| format!("{}: {}", passed.backup, passed.reason)).collect();
    let failure = Failure::refused(text::backup::RESTORE_NO_USABLE_BACKUP.with("target", &wish.target));
    let failure = if reasons.is_empty() { failure } else { failure.because(reasons.join("\n")) };
    failure.mended_by(text::backup::RESTORE_NO_USABLE_BACKUP_MEND)
}

fn in_a_hole(wish: &Wish, usable: &[(&Header, &Span)], span: &Span, later: &Span) -> Failure {
    let what = text::backup::RESTORE_IN_A_HOLE
        .with("target", &wish.target)
        .with("from", span.to)
        .with("to", later.from);
    let next = usable.iter().rev().find(|(backup, _)| backup.start >= later.from);
    Failure::refused(what).mended_by(match next {
        Some((backup, _)) => text::backup::RESTORE_IN_A_HOLE_MEND
            .with("before", reachable(span))
            .with("after", shown(ceiling(backup.stopped))),
        None => text::backup::RESTORE_REACHABLE_BEFORE_HOLE_MEND.with("newest", reachable(span)),
    })
}

fn after_last(wish: &Wish, span: &Span) -> Failure {
    let what = text::backup::RESTORE_AFTER_LAST.with("target", &wish.target).with("position", span.to);
    Failure::refused(what).mended_by(text::backup::RESTORE_REACHABLE_MEND.with("newest", reachable(span)))
}

/// The newest target that this WAL reaches, as a person may type it.
fn reachable(span: &Span) -> String {
    match span.newest() {
        Some(newest) => format!("{} ({})", shown(floor(newest, span)), span.to),
        None => span.to.to_string(),
    }
}

/// The last commit is told from the end of the log only by a later one; the moment before it needs none.
fn floor(newest: Timestamp, span: &Span) -> Timestamp {
    if span.complete_until == Some(newest) {
        return newest;
    }
    newest.checked_sub(jiff::SignedDuration::from_micros(1)).unwrap_or(newest)
}

/// Whole seconds, upwards: a moment that people can type.
fn ceiling(time: Timestamp) -> Timestamp {
    let second = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(time)
}
