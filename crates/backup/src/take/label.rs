//! `backup_label`: what the server writes down for recovery, read for what the backup must know of it
//! (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP>).

use obyra_evidence::{Failure, text};
use obyra_postgres::wal::{Lsn, TimelineId};

use crate::Result;

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Where recovery begins to read WAL.
    pub(super) start: Lsn,
    /// On which timeline.
    pub(super) timeline: TimelineId,
}

impl Label {
    pub(super) fn parse(label: &str) -> Result<Label> {
        let value = |name: &str| {
            label.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.split(' ').next())
        };
        let start = value("START WAL LOCATION").and_then(|lsn| lsn.parse().ok());
        let timeline = value("START TIMELINE").and_then(|timeline| timeline.parse().ok());
        match start.zip(timeline) {
            Some((start, timeline)) => Ok(Label { start, timeline: TimelineId(timeline) }),
            None => Err(Failure::new(text::backup::TAKE_LABEL_MALFORMED).because(label.escape_debug())),
        }
    }
}

/// The label of a whole backup, where the server sent only what changed: with its two lines about that, no
/// server would start on the files, since it is `pg_combinebackup` that takes them out otherwise.
pub(super) fn of_whole(label: &str) -> String {
    label.split_inclusive('\n').filter(|line| !line.starts_with("INCREMENTAL FROM ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_the_server() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
                     CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                     START TIME: 2026-11-24 03:00:00 UTC\nLABEL: obyra-db\nSTART TIMELINE: 3\n";
        let expected = Label { start: Lsn(0x200_0028), timeline: TimelineId(3) };
        assert_eq!(Label::parse(label).unwrap(), expected);
        assert!(Label::parse(&label.replace("TIMELINE", "TIME")).is_err());
        assert!(Label::parse("").is_err());
        let changed = format!("{label}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!((of_whole(&changed).as_str(), of_whole(label).as_str()), (label, label));
    }
}
