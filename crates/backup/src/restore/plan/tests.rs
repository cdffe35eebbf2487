//! Small worlds in a few lines, and what the planner says of them.

use super::*;
use crate::repository::layout::ClusterId;
use crate::repository::manifest::{Cluster, Source, Totals};
use crate::repository::store::ObjectInfo;
use crate::wal::{Index, Part, WalObject};
use obyra_postgres::wal::{SegmentName, WalFileName, WalSegmentSize};

/// Lines such as
/// ```text
/// wal 1 0/2000000..0/6000000 09:30..11:00 until 11:05
/// history 2: 1 at 0/4000000
/// backup a 1 0/2000028..0/2000100 stopped 10:00
/// ```
/// Segments are 16 MiB, all times are of one day; a time may be `-`, for not known.
struct World {
    backups: Vec<Header>,
    coverage: Coverage,
}

fn at(time: &str) -> Timestamp {
    format!("2026-11-24T{time}:00Z").parse().unwrap()
}

fn range(text: &str) -> (&str, &str) {
    text.split_once("..").unwrap()
}

const CLUSTER: ClusterId = ClusterId(1);
const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

/// The objects that hold WAL: whole segments, and parts at its ends.
fn objects(timeline: TimelineId, from: Lsn, to: Lsn) -> Vec<WalObject> {
    let first = SegmentName::containing(from, timeline, SIZE).number;
    let last = SegmentName::ending_at(to, timeline, SIZE).number;
    let of = |number| {
        let segment = SegmentName { timeline, number };
        let (begin, end) = (from.max(segment.start(SIZE)), to.min(segment.end(SIZE)));
        let offset = |lsn: Lsn| u32::try_from(lsn.bytes_since(segment.start(SIZE))).unwrap();
        match (offset(begin), offset(end)) {
            (0, end) if u64::from(end) == SIZE.bytes() => WalObject::File(WalFileName::Segment(segment)),
            (from, to) => WalObject::Part(Part { segment, from, to }),
        }
    };
    (first..=last).map(of).collect()
}

fn world(lines: &str) -> World {
    let (mut backups, mut found, mut histories, mut dated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["wal", timeline, positions, times, ref until @ ..] => {
                let (from, to) = range(positions);
                let (first, last) = range(times);
                let known = |time: &str| (time != "-").then(|| at(time));
                let timeline = TimelineId(timeline.parse().unwrap());
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                found.extend(objects(timeline, from, to));
                let until = until.get(1).map(|time| at(time));
                dated.push((timeline, from, to, known(first), known(last), until));
            }
            ["history", timeline, ref parents @ ..] => {
                let timeline = TimelineId(timeline.trim_end_matches(':').parse().unwrap());
                let lines: String =
                    parents.chunks(3).map(|parent| format!("{}\t{}\t\n", parent[0], parent[2])).collect();
                found.push(WalObject::File(WalFileName::History(timeline)));
                histories.push(TimelineHistory::parse(timeline, &lines).unwrap());
            }
            ["backup", name, timeline, positions, "stopped", time] => {
                backups.push(backup(name, timeline.parse().unwrap(), positions, at(time)));
            }
            _ => panic!("{line}"),
        }
    }
    let info = |object: WalObject| ObjectInfo {
        name: object.object_name(CLUSTER, SIZE),
        bytes: 1,
        modified: Timestamp::UNIX_EPOCH,
    };
    let listed: Vec<ObjectInfo> = found.into_iter().map(info).collect();
    let index = histories.into_iter().fold(Index::of(CLUSTER, SIZE, &listed), Index::with_history);
    let mut coverage = Coverage::of(index);
    assert_eq!(coverage.stretches.len(), dated.len(), "{:?}", coverage.stretches);
    for (timeline, from, to, first_commit, last_commit, complete_until) in dated {
        let of = coverage.stretches.iter_mut();
        let stretch = of.into_iter().find(|s| (s.timeline, s.from, s.to) == (timeline, from, to)).unwrap();
        (stretch.first_commit, stretch.last_commit) = (first_commit, last_commit);
        stretch.complete_until = complete_until;
    }
    World { backups, coverage }
}

fn backup(name: &str, timeline: u32, positions: &str, stopped: Timestamp) -> Header {
    let (start, stop) = range(positions);
    Header {
        id: id(name),
        environment: "production".to_owned(),
        program: "test".to_owned(),
        started: stopped,
        stopped,
        source: Source::Protocol,
        cluster: Cluster {
            system_identifier: "1".to_owned(),
            version: 160_004,
            checksums: true,
            wal_segment_bytes: 16 << 20,
        },
        timeline,
        start: start.parse().unwrap(),
        stop: stop.parse().unwrap(),
        parent: None,
        backup_label: String::new(),
        tablespace_map: None,
        tablespaces: Vec::new(),
        damaged: Vec::new(),
        damaged_more: 0,
        server_complaint: None,
        changed_only: None,
        totals: Totals { files: 10, bytes: 1 << 30, ..Totals::default() },
    }
}

/// `a` is 20261124T000000Z-000a.
fn id(name: &str) -> BackupId {
    format!("20261124T000000Z-000{name}").parse().unwrap()
}

impl World {
    fn wish(&self, wish: &Wish) -> String {
        let now = at("23:59");
        match plan(&Known { backups: &self.backups, coverage: &self.coverage, rates: None, now }, wish) {
            Ok(plan) => {
                let backup = plan.backup.id.as_str().chars().last().unwrap();
                let stop: Vec<String> =
                    plan.stop.settings().into_iter().map(|(_, value)| format!(" {value}")).collect();
                let Replay { from, to, segments, .. } = plan.replay;
                let notes: Vec<String> =
                    plan.notes.iter().map(|note| format!(" [{}]", note.code().id())).collect();
                let (timeline, stop, notes) = (plan.timeline, stop.concat(), notes.concat());
                format!("{backup} on {timeline}, {from} to {to} ({segments}), stop{stop}{notes}")
            }
            Err(failure) => {
                let mend = failure.mend.map(|mend| format!(" > {mend}")).unwrap_or_default();
                format!("{}{mend}", failure.what)
            }
        }
    }

    fn to(&self, target: &str) -> String {
        let target = match target.split_once(':') {
            Some((hour, _)) if hour.len() == 2 => Target::Time(at(target)),
            Some(("backup", name)) => Target::Backup(id(name)),
            _ => Target::parse(target).unwrap(),
        };
        self.wish(&Wish::to(target))
    }
}

/// Two backups, WAL without a hole, its end known to be complete five minutes longer.
fn plain() -> World {
    world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         backup b 1 0/5000028..0/5000100 stopped 12:00
         wal 1 0/1000000..0/9400000 09:00..13:00 until 13:05",
    )
}

#[test]
fn the_newest_backup_that_can_reach_the_target_is_taken() {
    let world = plain();
    assert_eq!(world.to("latest"), "b on 1, 0/5000028 to 0/9400000 (5), stop");
    assert_eq!(world.to("12:30"), "b on 1, 0/5000028 to 0/9400000 (5), stop 2026-11-24 12:30:00+00");
    // The next backup's end bounds what has to be replayed.
    assert_eq!(world.to("11:00"), "a on 1, 0/2000028 to 0/5000100 (4), stop 2026-11-24 11:00:00+00");
    assert_eq!(world.to("12:00"), "b on 1, 0/5000028 to 0/9400000 (5), stop 2026-11-24 12:00:00+00");
    assert_eq!(world.to("0/4000000"), "a on 1, 0/2000028 to 0/4000000 (2), stop 0/4000000 off");
    assert_eq!(world.to("0/5000100"), "b on 1, 0/5000028 to 0/5000100 (1), stop 0/5000100 off");
    assert_eq!(world.to("backup:a"), "a on 1, 0/2000028 to 0/2000100 (1), stop immediate");
}

#[test]
fn what_is_newer_and_not_chosen_is_explained() {
    let world = plain();
    let known = Known { backups: &world.backups, coverage: &world.coverage, rates: None, now: at("14:00") };
    let plan = plan(&known, &Wish::to(Target::Time(at("11:00")))).unwrap();
    let words: Vec<String> =
        plan.passed_over.iter().map(|passed| format!("{} {}", passed.backup, passed.reason)).collect();
    assert_eq!(words, ["20261124T000000Z-000b it ended at 2026-11-24 12:00:00+00, after the target"]);
}

#[test]
fn sizes_and_durations_come_from_the_figures() {
    let world = plain();
    let rates = Some(Rates { restore: 256 << 20, replay: 32 << 20 });
    let known = Known { backups: &world.backups, coverage: &world.coverage, rates, now: at("14:00") };
    let plan = plan(&known, &Wish::to(Target::Latest)).unwrap();
    assert_eq!(plan.replay.bytes, 0x9400000 - 0x5000028);
    assert_eq!(plan.write_bytes, (1 << 30) + plan.replay.bytes);
    assert_eq!(plan.expected, Some(Duration::from_secs(4 + 2)));
}

#[test]
fn a_target_before_the_first_point_names_that_point() {
    let world = plain();
    let said = "lies before the first point that can be recovered: 2026-11-24 10:00:00+00, at 0/2000100 > \
                restore to that point (--to \"2026-11-24 10:00:00+00\") or to a later one";
    assert_eq!(world.to("09:30"), format!("the target 2026-11-24 09:30:00+00 {said}"));
    assert_eq!(world.to("0/2000050"), format!("the target 0/2000050 {said}"));
}

#[test]
fn a_target_after_the_last_commit_is_reached_only_if_the_archive_is_known_to_be_complete() {
    let world = plain();
    assert_eq!(world.to("13:03"), "b on 1, 0/5000028 to 0/9400000 (5), stop");
    assert_eq!(
        world.to("13:06"),
        "the target 2026-11-24 13:06:00+00 lies after the end of the archive at 0/9400000 > the newest point \
         that can be reached is 2026-11-24 13:05:00+00 (0/9400000); --to latest takes all there is"
    );
    assert_eq!(world.to("0/9400000"), "b on 1, 0/5000028 to 0/9400000 (5), stop");
    assert!(world.to("0/9400001").contains("lies after the end of the archive"));
    let mut unwatched = world;
    unwatched.coverage.stretches[0].complete_until = None;
    assert!(unwatched.to("13:03").contains("can be reached is 2026-11-24 12:59:59.999999+00 (0/9400000)"));
    assert!(unwatched.to("12:59").starts_with("b on 1"));
    unwatched.coverage.stretches[0].last_commit = None;
    assert!(unwatched.to("13:03").ends_with("stop 2026-11-24 13:03:00+00 [backup.restore-end-unknown]"));
}

#[test]
fn the_future_is_refused() {
    assert_eq!(
        plain().wish(&Wish::to(Target::Time("2026-11-25T00:00:00Z".parse().unwrap()))),
        "the target 2026-11-25 00:00:00+00 lies in the future > it is 2026-11-24 23:59:00+00 now"
    );
}

#[test]
fn a_hole_in_the_wal_is_named_with_what_can_be_reached_around_it() {
    let world = world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         backup b 1 0/6000028..0/6000100 stopped 12:00
         wal 1 0/1000000..0/4000000 09:00..11:00
         wal 1 0/6000000..0/9400000 11:50..13:00 until 13:00",
    );
    let hole = "needs WAL that is missing, from 0/4000000 to 0/6000000 > what can be reached is \
                2026-11-24 10:59:59.999999+00 (0/4000000) before it, and from 2026-11-24 12:00:00+00 on";
    assert_eq!(world.to("11:30"), format!("the target 2026-11-24 11:30:00+00 {hole}"));
    assert_eq!(world.to("0/5000000"), format!("the target 0/5000000 {hole}"));
    assert!(world.to("10:30").starts_with("a on 1"));
    assert!(world.to("0/4000000").ends_with("stop"));
    assert!(world.to("12:30").starts_with("b on 1"));
    assert!(world.to("latest").starts_with("b on 1"));
}

#[test]
fn latest_does_not_silently_end_at_a_hole() {
    let world = world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         wal 1 0/1000000..0/4000000 09:00..11:00
         wal 1 0/6000000..0/9400000 11:50..13:00 until 13:00",
    );
    assert_eq!(
        world.to("latest"),
        "the target latest needs WAL that is missing, from 0/4000000 to 0/6000000 > the newest point before \
         it that can be reached is 2026-11-24 10:59:59.999999+00 (0/4000000)"
    );
}

#[test]
fn a_backup_without_its_own_wal_is_passed_over() {
    let world = world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         backup b 1 0/5000028..0/5400000 stopped 12:00
         wal 1 0/1000000..0/5000000 09:00..11:50 until 11:50",
    );
    assert_eq!(world.to("latest"), "a on 1, 0/2000028 to 0/5000000 (3), stop");
    let alone = Wish { from: Some(id("b")), ..Wish::to(Target::Latest) };
    assert!(world.wish(&alone).starts_with("no backup can be restored to latest"));
    assert!(world.to("backup:b").starts_with("no backup can be restored to backup:2026"));
    assert!(world.to("backup:c").starts_with("there is no backup 20261124T000000Z-000c"));
}

/// Timeline 1 was left at 0/5000000 by a recovery to 10:30; what it did until 11:30 was given up. Timeline
/// 2 has its first commit at 11:45.
fn branched() -> World {
    world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         backup b 1 0/6000028..0/6000100 stopped 11:10
         backup c 2 0/7000028..0/7000100 stopped 12:00
         history 2: 1 at 0/5000000
         wal 1 0/1000000..0/5000000 09:00..10:29
         wal 1 0/5000000..0/7000000 10:31..11:30
         wal 2 0/5000000..0/9400000 11:45..13:00 until 13:05",
    )
}

#[test]
fn the_newest_timeline_is_followed_through_its_parents() {
    let world = branched();
    assert_eq!(world.to("latest"), "c on 2, 0/7000028 to 0/9400000 (3), stop");
    assert_eq!(world.to("11:50"), "a on 2, 0/2000028 to 0/7000100 (6), stop 2026-11-24 11:50:00+00");
    assert_eq!(world.to("10:15"), "a on 2, 0/2000028 to 0/6000100 (5), stop 2026-11-24 10:15:00+00");
    let known = Known { backups: &world.backups, coverage: &world.coverage, rates: None, now: at("14:00") };
    let plan = plan(&known, &Wish::to(Target::Time(at("11:50")))).unwrap();
    assert_eq!(
        plan.passed_over[1].reason.to_string(),
        "it is on timeline 1, which was left at 0/5000000, before it ended"
    );
    let words: Vec<String> = plan.timelines.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "timeline 1, with commits until 2026-11-24 11:30:00+00",
            "timeline 2, which branched off timeline 1 at 0/5000000, with commits until 2026-11-24 13:00:00+00"
        ]
    );
}

#[test]
fn a_moment_that_only_the_left_timeline_has_is_refused_unless_that_timeline_is_named() {
    let world = branched();
    assert_eq!(
        world.to("11:00"),
        "at 2026-11-24 11:00:00+00 the cluster was on timeline 1, which was left at 0/5000000 for timeline 2 > \
         add --timeline 1 for that moment, or restore to 2026-11-24 10:29:00+00, the last commit that was kept"
    );
    let along = |timeline: u32, target| {
        let timeline = Some(TimelineId(timeline));
        world.wish(&Wish { timeline, ..Wish::to(target) })
    };
    let moment = Target::Time(at("11:20"));
    assert_eq!(along(1, moment.clone()), "b on 1, 0/6000028 to 0/7000000 (1), stop 2026-11-24 11:20:00+00");
    // Whoever names timeline 2 gets the state in which it began.
    assert!(along(2, moment).starts_with("a on 2"));
    assert_eq!(along(1, Target::Latest), "b on 1, 0/6000028 to 0/7000000 (1), stop");
    assert!(along(3, Target::Latest).starts_with("the archive does not hold the history of timeline 3"));
}

#[test]
fn a_moment_of_a_timeline_whose_beginning_is_missing_lies_in_a_hole() {
    // The first segment of timeline 2 is missing, in which it may have committed from 11:31 on.
    let world = world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         backup c 2 0/7000028..0/7000100 stopped 12:00
         history 2: 1 at 0/5000000
         wal 1 0/1000000..0/5000000 09:00..10:29
         wal 1 0/5000000..0/7000000 10:31..11:30
         wal 2 0/6000000..0/9400000 11:45..13:00",
    );
    let hole = "needs WAL that is missing, from 0/5000000 to 0/6000000 > what can be reached is \
                2026-11-24 10:28:59.999999+00 (0/5000000) before it, and from 2026-11-24 12:00:00+00 on";
    assert_eq!(world.to("11:35"), format!("the target 2026-11-24 11:35:00+00 {hole}"));
    assert_eq!(world.to("11:50"), format!("the target 2026-11-24 11:50:00+00 {hole}"));
    assert!(world.to("10:15").starts_with("a on 2"));
    assert!(world.to("12:30").starts_with("c on 2"));
}

#[test]
fn a_position_that_two_timelines_have_is_the_newest_one_s() {
    let world = branched();
    assert_eq!(
        world.to("0/6000000"),
        "a on 2, 0/2000028 to 0/6000000 (4), stop 0/6000000 off [backup.restore-also-on]"
    );
    assert_eq!(world.to("0/4000000"), "a on 2, 0/2000028 to 0/4000000 (2), stop 0/4000000 off");
}

#[test]
fn the_first_segment_of_a_timeline_stands_in_for_the_last_of_its_parent() {
    // Timeline 1 was left in the middle of a segment that was never archived under its name.
    let world = world(
        "backup a 1 0/2000028..0/2000100 stopped 10:00
         history 2: 1 at 0/4800000
         wal 1 0/1000000..0/4000000 09:00..10:20
         wal 2 0/4000000..0/4800000 -..10:29
         wal 2 0/4800000..0/9400000 11:45..13:00 until 13:05",
    );
    assert_eq!(world.to("12:00"), "a on 2, 0/2000028 to 0/9400000 (8), stop 2026-11-24 12:00:00+00");
}

#[test]
fn names_and_transactions_are_reached_where_they_were_found() {
    let world = branched();
    let found = |timeline, position: &str| {
        Some(Found { timeline: TimelineId(timeline), at: position.parse().unwrap(), time: at("11:00") })
    };
    let wish = Wish { found: found(1, "0/5800000"), ..Wish::to(Target::Name("before".to_owned())) };
    assert_eq!(world.wish(&wish), "a on 1, 0/2000028 to 0/5800000 (4), stop 0/5800000");
    let wish = Wish { found: found(2, "0/7800000"), ..Wish::to(Target::Transaction(715)) };
    assert_eq!(world.wish(&wish), "c on 2, 0/7000028 to 0/7800000 (1), stop 0/7800000");
    let wish = Wish { found: None, ..wish };
    assert_eq!(
        world.wish(&wish),
        "the archive has no xid:715 > obyra-db backup list shows what the archive covers"
    );
}

#[test]
fn an_empty_repository_says_so() {
    let world = world("");
    assert_eq!(
        world.to("latest"),
        "no backup can be restored to latest > obyra-db backup list shows the backups and their WAL"
    );
}
