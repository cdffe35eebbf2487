//! Timelines: each promotion begins a new one, and a history file tells from which it branched off
//! (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>).

use std::fmt;

use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::Lsn;
use super::segment::{hex, hex_upper};
use crate::Result;

/// A timeline. Decimal for people, eight hexadecimal digits in file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The one that initdb begins. It has no history file.
    pub const FIRST: TimelineId = TimelineId(1);

    /// As in file names: `0000001A`.
    pub fn hex(self) -> String {
        format!("{:08X}", self.0)
    }

    /// Reads the eight hexadecimal digits of a file name.
    pub fn parse_hex(digits: &str) -> Option<TimelineId> {
        let number = hex_upper(digits).filter(|number| digits.len() == 8 && *number > 0)?;
        u32::try_from(number).ok().map(TimelineId)
    }

    /// The name of its history file: `0000001A.history`.
    pub fn history_file_name(self) -> String {
        format!("{}.history", self.hex())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a timeline was left for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// The position after its last byte that counts; the next timeline goes on from here.
    pub switch_point: Lsn,
    /// Why, in the server's words.
    pub reason: String,
}

/// A timeline with its parents, as a history file tells them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    timeline: TimelineId,
    parents: Vec<TimelineSwitch>,
}

impl TimelineHistory {
    /// A timeline without parents, as the first one is.
    pub fn without_parents(timeline: TimelineId) -> TimelineHistory {
        TimelineHistory { timeline, parents: Vec::new() }
    }

    /// Reads a history file: a line for each parent, the oldest first, with its number, its switch
    /// point and the reason. Empty lines and `#` comments are allowed. As in the server, the
    /// timelines must grow; here the switch points must not shrink either.
    pub fn parse(timeline: TimelineId, content: &str) -> Result<TimelineHistory> {
        let mut parents: Vec<TimelineSwitch> = Vec::new();
        for (nth, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fits = |switch: &TimelineSwitch| {
                switch.timeline < timeline
                    && parents.last().is_none_or(|last| {
                        last.timeline < switch.timeline && last.switch_point <= switch.switch_point
                    })
            };
            match switch(line).filter(fits) {
                Some(switch) => parents.push(switch),
                None => {
                    let what = text::replication::BAD_HISTORY
                        .with("file", timeline.history_file_name())
                        .with("line", nth + 1);
                    return Err(Failure::new(what).because(line.escape_debug()));
                }
            }
        }
        Ok(TimelineHistory { timeline, parents })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Its parents, the oldest first.
    pub fn parents(&self) -> &[TimelineSwitch] {
        &self.parents
    }

    /// The timeline that it branched off from.
    pub fn parent(&self) -> Option<TimelineId> {
        self.parents.last().map(|switch| switch.timeline)
    }

    /// Where it begins: the switch point of its parent.
    pub fn begin(&self) -> Lsn {
        self.parents.last().map_or(Lsn::INVALID, |switch| switch.switch_point)
    }

    /// Where a parent was left; `None` for a timeline that is no parent.
    pub fn switch_point(&self, parent: TimelineId) -> Option<Lsn> {
        self.parents.iter().find(|switch| switch.timeline == parent).map(|switch| switch.switch_point)
    }

    /// Which timeline holds the byte at a position: it, or one of its parents.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        // The server may switch twice at one position; the timeline in between then holds nothing.
        self.parents
            .iter()
            .find(|switch| lsn < switch.switch_point)
            .map_or(self.timeline, |switch| switch.timeline)
    }

    /// Whether WAL up to a position on another timeline is part of this history, so that recovery
    /// may go on from there to here. A base backup that ended at `lsn` on `ancestor` can be
    /// recovered along this timeline exactly if this is true.
    pub fn descends_from(&self, ancestor: TimelineId, lsn: Lsn) -> bool {
        let mut begin = Lsn::INVALID;
        for switch in &self.parents {
            if switch.timeline == ancestor {
                return begin <= lsn && lsn <= switch.switch_point;
            }
            begin = switch.switch_point;
        }
        ancestor == self.timeline && begin <= lsn
    }
}

/// `1<tab>0/3000148<tab>no recovery target specified`
fn switch(line: &str) -> Option<TimelineSwitch> {
    let (timeline, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (position, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let timeline = timeline.bytes().all(|byte| byte.is_ascii_digit()).then(|| timeline.parse().ok())??;
    let (high, low) = position.split_once('/')?;
    let half = |digits: &str| hex(digits).filter(|_| digits.len() <= 8);
    Some(TimelineSwitch {
        timeline: TimelineId(timeline),
        switch_point: Lsn((half(high)? << 32) | half(low)?),
        reason: reason.trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "# ours\n\n1\t0/3000148\tno recovery target specified\n  2 \t0/5000000\tbefore \
                           transaction 715, at 2026-01-01 00:00:00+00\r\n4\t0/5000000\n";

    fn history() -> TimelineHistory {
        TimelineHistory::parse(TimelineId(7), HISTORY).unwrap()
    }

    #[test]
    fn names_are_hexadecimal_and_people_read_decimals() {
        assert_eq!(TimelineId(26).to_string(), "26");
        assert_eq!(TimelineId(26).history_file_name(), "0000001A.history");
        assert_eq!(TimelineId::parse_hex("0000001A"), Some(TimelineId(26)));
        for bad in ["", "1A", "0000001a", "00000000", "000000001A", "+000001A"] {
            assert_eq!(TimelineId::parse_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_history_tells_its_parents() {
        let history = history();
        let parents: Vec<_> = history.parents().iter().map(|p| (p.timeline.0, p.switch_point.0)).collect();
        assert_eq!(parents, [(1, 0x300_0148), (2, 0x500_0000), (4, 0x500_0000)]);
        assert_eq!(history.parents()[0].reason, "no recovery target specified");
        assert_eq!(history.parents()[1].reason, "before transaction 715, at 2026-01-01 00:00:00+00");
        assert_eq!(history.parents()[2].reason, "");
        assert_eq!(history.parent(), Some(TimelineId(4)));
        assert_eq!(history.begin(), Lsn(0x500_0000));
        assert_eq!(history.switch_point(TimelineId(2)), Some(Lsn(0x500_0000)));
        assert_eq!(history.switch_point(TimelineId(7)), None);
    }

    #[test]
    fn each_byte_is_held_by_one_timeline() {
        let at = |lsn| history().timeline_at(Lsn(lsn)).0;
        assert_eq!(at(0), 1);
        assert_eq!(at(0x300_0147), 1);
        assert_eq!(at(0x300_0148), 2);
        assert_eq!(at(0x4FF_FFFF), 2);
        assert_eq!(at(0x500_0000), 7);
        let first = TimelineHistory::without_parents(TimelineId::FIRST);
        assert_eq!(first.timeline_at(Lsn(u64::MAX)), TimelineId::FIRST);
    }

    #[test]
    fn a_descendant_has_what_its_ancestor_had_up_to_the_switch_point() {
        let history = history();
        assert!(history.descends_from(TimelineId(1), Lsn(0x300_0148)));
        assert!(!history.descends_from(TimelineId(1), Lsn(0x300_0149)));
        assert!(history.descends_from(TimelineId(2), Lsn(0x300_0148)));
        assert!(!history.descends_from(TimelineId(2), Lsn(0x300_0147)));
        assert!(history.descends_from(TimelineId(4), Lsn(0x500_0000)));
        assert!(history.descends_from(TimelineId(7), Lsn(0x600_0000)));
        assert!(!history.descends_from(TimelineId(7), Lsn(0x4FF_FFFF)));
        assert!(!history.descends_from(TimelineId(3), Lsn(0x400_0000)));
        let first = TimelineHistory::without_parents(TimelineId::FIRST);
        assert!(first.descends_from(TimelineId::FIRST, Lsn(1)));
        assert!(!first.descends_from(TimelineId(2), Lsn(1)));
    }

    #[test]
    fn a_malformed_history_names_its_line() {
        for bad in [
            "1\n",
            "one\t0/1\t\n",
            "+1\t0/1\t\n",
            "1\t0-1\t\n",
            "1\t123456789/0\t\n",
            "7\t0/1\tno timeline is its own parent\n",
            "2\t0/1\t\n1\t0/2\t\n",
            "1\t0/2\t\n2\t0/1\t\n",
        ] {
            let failure = TimelineHistory::parse(TimelineId(7), bad).unwrap_err();
            assert_eq!(failure.what.fields()["file"], "00000007.history", "{bad}");
        }
        let failure = TimelineHistory::parse(TimelineId(7), "# ours\n\nnonsense here\n").unwrap_err();
        assert_eq!(failure.what.fields()["line"], "3");
    }

    #[test]
    fn is_kept_in_json() {
        let json = serde_json::to_string(&history()).unwrap();
        assert!(json.contains(r#"{"timeline":1,"switch_point":"0/3000148","reason":"no rec"#), "{json}");
        assert_eq!(serde_json::from_str::<TimelineHistory>(&json).unwrap(), history());
    }
}
