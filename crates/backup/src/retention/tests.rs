use jiff::SignedDuration;
use obyra_evidence::HumanDuration;
use obyra_postgres::wal::TimelineId;

use super::*;
use crate::policy::Pitr;

const MIB16: u64 = 16 << 20;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A backup taken at 03:00 of a day, on timeline 1, that starts in segment `nth`.
fn held(day: &str, nth: u64) -> Held {
    let stopped = at(&format!("{day}T03:00:00Z"));
    Held {
        id: BackupId::new(stopped, 0),
        stopped,
        timeline: 1,
        start: Lsn(nth * MIB16 + 40),
        stop: Lsn(nth * MIB16 + 900),
        restorable: true,
    }
}

fn daily(from: &str, days: u64) -> Vec<Held> {
    let first = at(&format!("{from}T03:00:00Z")).to_zoned(TimeZone::UTC).date();
    let day = |nth: u64| first.checked_add(SignedDuration::from_hours(24 * nth as i64)).unwrap();
    (0..days).map(|nth| held(&day(nth).to_string(), 10 * nth + 10)).collect()
}

fn policy(days: u64, keep: Keep, window_days: Option<u64>) -> Policy {
    let window = HumanDuration::from_days(window_days.unwrap_or(7));
    let pitr = Pitr { enabled: window_days.is_some(), window, ..Pitr::default() };
    Policy { retention: HumanDuration::from_days(days), keep, pitr, ..Policy::default() }
}

fn only(last: u32) -> Keep {
    Keep { last, ..Keep::default() }
}

/// `day: reasons` of those that stay.
fn staying(backups: &[Held], policy: &Policy, now: &str) -> Vec<String> {
    let decision = decide(backups, policy, at(now));
    let stay = decision.verdicts.iter().filter(|verdict| !verdict.expires());
    stay.map(|verdict| {
        let reasons: Vec<String> = verdict.kept.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
        format!("{} {}", &verdict.id.as_str()[..8], reasons.join(" "))
    })
    .collect()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: TimelineId(timeline), number }
}

#[test]
fn days_keep_the_young_ones() {
    let backups = daily("2026-11-01", 5);
    let stay = staying(&backups, &policy(2, only(1), None), "2026-11-05T12:00:00Z");
    assert_eq!(stay, ["20261104 young", "20261105 young last"]);
}

#[test]
fn the_only_one_never_goes() {
    let backups = daily("2026-01-01", 2);
    let stay = staying(&backups, &policy(1, only(0), None), "2026-11-05T12:00:00Z");
    assert_eq!(stay, ["20260102 onlyone"]);
}

#[test]
fn one_that_cannot_be_restored_takes_nobodys_place() {
    let mut backups = daily("2026-11-01", 3);
    backups[2].restorable = false;
    let stay = staying(&backups, &policy(1, only(1), None), "2026-11-03T12:00:00Z");
    assert_eq!(stay, ["20261102 last", "20261103 young"]);
    let later = staying(&backups, &policy(1, only(1), None), "2026-11-20T12:00:00Z");
    assert_eq!(later, ["20261102 last"]);
}

#[test]
fn grandfather_father_son() {
    let backups = daily("2026-01-01", 320);
    let keep = Keep { last: 1, daily: 2, weekly: 2, monthly: 3, yearly: 1 };
    let stay = staying(&backups, &policy(0, keep, None), "2026-11-17T00:00:00Z");
    assert_eq!(
        stay,
        [
            "20260930 monthly",
            "20261031 monthly",
            "20261115 daily weekly",
            "20261116 last daily weekly monthly yearly",
        ]
    );
}

#[test]
fn the_window_keeps_the_backup_before_it_and_all_wal_since() {
    let backups = daily("2026-11-01", 10);
    let policy = policy(3, only(1), Some(7));
    let decision = decide(&backups, &policy, at("2026-11-10T12:00:00Z"));
    let base = &backups[2];
    assert_eq!(staying(&backups, &policy, "2026-11-10T12:00:00Z")[0], "20261103 pitr");
    let first = base.start.0 / MIB16;
    assert!(decision.wal.keeps(&segment(1, first), MIB16), "where the base begins");
    assert!(!decision.wal.keeps(&segment(1, first - 1), MIB16), "before it");
    assert!(decision.wal.keeps(&segment(1, first + 5), MIB16), "between two backups");
    assert!(decision.wal.keeps(&segment(2, first + 5), MIB16), "on a later timeline");
}

#[test]
fn without_a_window_only_what_backups_need() {
    let backups = daily("2026-11-01", 3);
    let decision = decide(&backups, &policy(30, only(1), None), at("2026-11-03T12:00:00Z"));
    let (first, newest) = (backups[0].start.0 / MIB16, backups[2].start.0 / MIB16);
    assert!(decision.wal.keeps(&segment(1, first), MIB16));
    assert!(!decision.wal.keeps(&segment(1, first + 1), MIB16));
    assert!(decision.wal.keeps(&segment(1, newest + 1), MIB16), "on its way to the next backup");
}

#[test]
fn a_timeline_that_begins_before_the_base_keeps_its_wal() {
    // Restored to a moment before the base: timeline 2 begins at segment 15, its backup is at 16.
    let mut backups = daily("2026-11-01", 10);
    let mut after = held("2026-11-11", 16);
    after.timeline = 2;
    backups.push(after);
    let decision = decide(&backups, &policy(30, only(1), Some(7)), at("2026-11-11T12:00:00Z"));
    assert!(backups[3].start.0 / MIB16 > 20, "the base is later in the log");
    assert!(decision.wal.keeps(&segment(2, 17), MIB16), "yet this is what follows the newest backup");
}

#[test]
fn nothing_of_nothing() {
    let decision = decide(&[], &Policy::default(), at("2026-11-11T12:00:00Z"));
    assert_eq!(decision, Decision { verdicts: Vec::new(), wal: WalKept::default() });
    assert!(!decision.wal.keeps(&segment(1, 1), MIB16));
}

/// Whatever the policy: deciding twice changes nothing, and what the window needs is there.
#[test]
fn expiring_is_idempotent_and_never_breaks_the_window() {
    for days in [0, 1, 5, 40] {
        for window in [None, Some(1), Some(7), Some(60)] {
            for keep in [only(0), only(3), Keep { last: 1, daily: 3, weekly: 3, monthly: 2, yearly: 1 }] {
                let policy = policy(days, keep, window);
                let backups = daily("2026-08-01", 60);
                let now = at("2026-09-29T12:00:00Z");
                let decision = decide(&backups, &policy, now);
                let stay: Vec<Held> = backups
                    .iter()
                    .zip(&decision.verdicts)
                    .filter(|(_, verdict)| !verdict.expires())
                    .map(|(backup, _)| backup.clone())
                    .collect();
                let again = decide(&stay, &policy, now);
                assert!(again.verdicts.iter().all(|verdict| !verdict.expires()), "{policy:?}");
                if let Some(window) = window {
                    let begins = HumanDuration::from_days(window).before(now);
                    let reachable = stay.iter().any(|backup| backup.stopped <= begins);
                    assert!(reachable || backups[0].stopped > begins, "{policy:?}");
                }
            }
        }
    }
}

#[test]
fn what_was_let_go_is_no_hole() {
    let backups = daily("2026-11-01", 20);
    let wal = decide(&backups, &policy(30, Keep::default(), Some(7)), at("2026-11-20T04:00:00Z")).wal;
    let size = WalSegmentSize::DEFAULT;
    let misses = |from: Lsn, to: Lsn| wal.misses(&Hole { timeline: TimelineId(1), from, to }, size);
    // The window begins with the backup of the 13th, in segment 130.
    let (base, older) = (&backups[12], &backups[4]);
    assert!(!misses(Lsn(51 * MIB16), Lsn(60 * MIB16)));
    assert!(!misses(Lsn(121 * MIB16), Lsn(130 * MIB16)));
    assert!(misses(Lsn(121 * MIB16), Lsn(131 * MIB16)));
    assert!(misses(base.stop, Lsn(132 * MIB16)));
    assert!(misses(Lsn(150 * MIB16 + 5), Lsn(150 * MIB16 + 6)));
    // What an older backup needs for itself.
    assert!(misses(older.start, older.stop));
}
