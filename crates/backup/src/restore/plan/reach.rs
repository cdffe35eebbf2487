//! Whether a backup reaches the target, and if not, why.

use obyra_evidence::{Message, text};
use obyra_postgres::wal::{Lsn, TimelineId};

use super::{Way, Wish};
use crate::repository::manifest::Header;
use crate::restore::coverage::{Coverage, Span};
use crate::restore::target::{Stop, Target, shown};

/// The WAL that takes the backup to the target, and where recovery stops; or why it cannot.
pub(super) fn reach(way: &Way, backup: &Header, wish: &Wish) -> Result<(Span, Stop), Message> {
    let span = usable(way, backup)?;
    let stop = match (&wish.target, &wish.found) {
        (Target::Latest, _) => {
            let is_last = way.spans.last() == Some(span);
            if is_last { Ok(Stop::End) } else { Err(ends_in_a_hole(span)) }
        }
        (Target::Backup(_), _) => Ok(Stop::Consistent),
        (Target::Time(time), _) => {
            if backup.stopped > *time {
                Err(text::backup::RESTORE_ENDED_LATER.with("ended", shown(backup.stopped)))
            } else if span.last_commit.is_some_and(|last| *time < last) || span.newest().is_none() {
                Ok(Stop::At(*time))
            } else if span.complete_until.is_some_and(|until| *time <= until) {
                // Nothing was committed since; recovery would look for a later commit in vain.
                Ok(Stop::End)
            } else {
                Err(ends_in_a_hole(span))
            }
        }
        (Target::Lsn(lsn), _) => before(backup, span, *lsn),
        (Target::Name(_) | Target::Transaction(_), Some(found)) => {
            if backup.stop > found.at {
                Err(text::backup::RESTORE_STOPPED_LATER.with("position", backup.stop))
            } else if found.at < span.to {
                Ok(Stop::After(found.at))
            } else {
                Err(ends_in_a_hole(span))
            }
        }
        (Target::Name(_) | Target::Transaction(_), None) => {
            Err(text::backup::RESTORE_NOT_FOUND.with("target", &wish.target))
        }
    };
    stop.map(|stop| (span.clone(), stop))
}

fn before(backup: &Header, span: &Span, lsn: Lsn) -> Result<Stop, Message> {
    if backup.stop > lsn {
        Err(text::backup::RESTORE_STOPPED_LATER.with("position", backup.stop))
    } else if lsn < span.to {
        Ok(Stop::Before(lsn))
    } else if lsn == span.to {
        Ok(Stop::End)
    } else {
        Err(ends_in_a_hole(span))
    }
}

/// The WAL from the backup's beginning on, if it lies on the way and is there up to its end.
pub(super) fn usable<'a>(way: &'a Way, backup: &Header) -> Result<&'a Span, Message> {
    let timeline = TimelineId(backup.timeline);
    if !way.history.descends_from(timeline, backup.stop) {
        let what = match way.history.switch_point(timeline) {
            Some(left) => text::backup::RESTORE_TIMELINE_LEFT.with("position", left),
            None => text::backup::RESTORE_OTHER_TIMELINE.with("wanted", way.history.timeline()),
        };
        return Err(what.with("timeline", timeline));
    }
    let holds = |span: &&Span| span.from <= backup.start && backup.stop <= span.to;
    way.spans.iter().find(holds).ok_or_else(|| {
        text::backup::RESTORE_WAL_OF_BACKUP_MISSING.with("from", backup.start).with("to", backup.stop)
    })
}

fn ends_in_a_hole(span: &Span) -> Message {
    match span.newest() {
        Some(newest) => {
            text::backup::RESTORE_WAL_ENDS_AT.with("position", span.to).with("newest", shown(newest))
        }
        None => text::backup::RESTORE_WAL_ENDS.with("position", span.to),
    }
}

/// What should be known although the target is reached.
pub(super) fn notes(
    coverage: &Coverage,
    way: &Way,
    wish: &Wish,
    backup: &Header,
    span: &Span,
) -> Vec<Message> {
    let mut notes = Vec::new();
    if !backup.damaged.is_empty() || backup.damaged_more > 0 {
        notes.push(
            text::backup::RESTORE_DAMAGED_BLOCKS
                .with("count", backup.damaged.len() as u64 + backup.damaged_more),
        );
    }
    if matches!(wish.target, Target::Time(_)) && span.newest().is_none() {
        notes.push(text::backup::RESTORE_END_UNKNOWN.with("position", span.to));
    }
    for branch in coverage.branches(&way.history) {
        let beyond = coverage.left_behind(&branch);
        let also = match &wish.target {
            Target::Time(time) => beyond.iter().any(|stretch| {
                stretch.first_commit.is_some_and(|first| first <= *time)
                    && stretch.last_commit.is_some_and(|last| *time <= last)
            }),
            Target::Lsn(lsn) => beyond.iter().any(|s| branch.at < *lsn && s.from <= *lsn && *lsn <= s.to),
            _ => false,
        };
        if also {
            let note = text::backup::RESTORE_ALSO_ON.with("timeline", branch.parent);
            notes.push(note.with("position", branch.at).with("child", branch.child));
        }
    }
    notes
}
