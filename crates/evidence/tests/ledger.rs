//! The ledger as its users and its enemies see it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan};
use obyra_evidence::{Failure, Filter, GENESIS, Ledger, Outcome, Record};
use rusqlite::Connection;
use tempfile::TempDir;

/// A ledger in a folder that is removed with it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    /// With records 1 to `count`.
    fn with(count: i64) -> Self {
        let bench = Bench::new();
        let ledger = bench.open();
        for number in 1..=count {
            ledger.append(&record(number, "access.apply")).unwrap();
        }
        bench
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state/ledger.sqlite")
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.file()).unwrap()
    }

    /// What somebody with the file and the sqlite3 tool can do.
    fn tamper(&self, sql: &str) {
        let connection = Connection::open(self.file()).unwrap();
        let unguarded = "DROP TRIGGER ledger_refuses_update; DROP TRIGGER ledger_refuses_delete;";
        connection.execute_batch(unguarded).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn complaint(&self) -> String {
        let failure = self.open().verify().unwrap_err();
        assert!(failure.mend.is_some(), "{failure}");
        summary(&failure)
    }
}

fn summary(failure: &Failure) -> String {
    let number = failure.what.fields().get("number").map(|n| format!(" {n}")).unwrap_or_default();
    format!("{}{number}", failure.what.code().id())
}

fn record(number: i64, subject: &str) -> Record {
    Record {
        at: Timestamp::UNIX_EPOCH + number.hours(),
        environment: if number % 2 == 0 { "staging" } else { "production" }.into(),
        subject: subject.into(),
        expected: "cuatro roles, \"ñandú\"\n".into(),
        observed: format!("record {number}"),
        outcome: Outcome::Passed,
        figures: [("duration_seconds".to_owned(), 0.1), ("big".to_owned(), 1e300)].into(),
        facts: [("head".to_owned(), "f00".to_owned())].into(),
    }
}

#[test]
fn what_is_appended_comes_back_in_order() {
    let bench = Bench::new();
    let ledger = bench.open();
    let first = ledger.append(&record(1, "access.apply")).unwrap();
    let second = ledger.append(&record(2, "seeds.verify")).unwrap();
    assert_eq!((first.sequence, first.previous.as_str()), (1, GENESIS));
    assert_eq!((second.sequence, &second.previous), (2, &first.hash));
    assert_eq!(ledger.records(&Filter::default()).unwrap(), [first, second.clone()]);
    let verified = ledger.verify().unwrap();
    assert_eq!((verified.records, verified.head_hash), (2, second.hash));
}

#[test]
fn records_are_appended_together_or_not_at_all() {
    let bench = Bench::with(1);
    let ledger = bench.open();
    ledger.append_all(&[record(2, "check.tls"), record(3, "check.pitr")]).unwrap();
    let mut unwritable = record(5, "check.tls");
    unwritable.figures.insert("steps".into(), f64::INFINITY);
    assert!(ledger.append_all(&[record(4, "check.tls"), unwritable]).is_err());
    ledger.append_all(&[]).unwrap();
    assert_eq!(ledger.verify().unwrap().records, 3);
    let since = ledger.unchanged_since_each("staging", "check.").unwrap();
    assert_eq!(since.into_iter().collect::<Vec<_>>(), [("check.tls".to_owned(), record(2, "").at)]);
}

#[test]
fn filters_narrow() {
    let bench = Bench::with(6);
    let ledger = bench.open();
    ledger.append(&record(7, "seeds.verify")).unwrap();
    let numbers = |filter: Filter| -> Vec<u64> {
        ledger.records(&filter).unwrap().iter().map(|entry| entry.sequence).collect()
    };
    assert_eq!(numbers(Filter { environment: Some("staging".into()), ..Filter::default() }), [2, 4, 6]);
    assert_eq!(numbers(Filter { subject_prefix: Some("seeds".into()), ..Filter::default() }), [7]);
    assert_eq!(numbers(Filter { limit: Some(2), ..Filter::default() }), [6, 7]);
    assert!(numbers(Filter { limit: Some(0), ..Filter::default() }).is_empty());
    let since = Some(Timestamp::UNIX_EPOCH + 6.hours());
    assert_eq!(numbers(Filter { since, ..Filter::default() }), [6, 7]);
}

#[test]
fn the_latest_record_and_how_long_it_has_been_so() {
    let bench = Bench::new();
    let ledger = bench.open();
    for (number, outcome) in
        [(1, Outcome::Passed), (3, Outcome::Failed), (5, Outcome::Passed), (7, Outcome::Passed)]
    {
        ledger.append(&Record { outcome, ..record(number, "check.tls") }).unwrap();
        ledger.append(&record(number, "check.tls.other")).unwrap();
    }
    let latest = ledger.latest("production", "check.tls").unwrap().unwrap();
    assert_eq!(latest.record.observed, "record 7");
    let since = ledger.unchanged_since("production", "check.tls").unwrap().unwrap();
    assert_eq!(since, Timestamp::UNIX_EPOCH + 5.hours());
    assert_eq!(ledger.latest("production", "check").unwrap(), None);
    assert_eq!(ledger.unchanged_since("dev", "check.tls").unwrap(), None);
}

#[test]
fn the_file_is_private() {
    let bench = Bench::with(1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.file()), 0o600);
    assert_eq!(mode(bench.file().parent().unwrap()), 0o700);
    assert_eq!(fs::read_dir(bench.file().parent().unwrap()).unwrap().count(), 1, "one file, no leftovers");
}

#[test]
fn the_table_refuses_everything_but_appending() {
    let bench = Bench::with(3);
    let connection = Connection::open(bench.file()).unwrap();
    for sql in [
        "UPDATE ledger SET record = '{}' WHERE sequence = 2",
        "DELETE FROM ledger WHERE sequence = 3",
        "INSERT OR REPLACE INTO ledger SELECT 2, previous, '{}', 'x' FROM ledger WHERE sequence = 2",
    ] {
        let error = connection.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    assert_eq!(bench.open().verify().unwrap().records, 3);
}

#[test]
fn verify_names_the_first_record_that_was_touched() {
    for (sql, expected) in [
        ("UPDATE ledger SET record = replace(record, 'record 3', 'record x') WHERE sequence = 3", "changed 3"),
        ("UPDATE ledger SET hash = 'x' WHERE sequence = 5", "changed 5"),
        ("DELETE FROM ledger WHERE sequence = 1", "removed 1"),
        ("DELETE FROM ledger WHERE sequence = 3", "removed 3"),
        ("DELETE FROM ledger WHERE sequence >= 4", "removed 4"),
        ("DELETE FROM ledger", "removed 1"),
        (
            "UPDATE ledger SET sequence = -2 WHERE sequence = 2; UPDATE ledger SET sequence = 2 WHERE sequence = 4;
             UPDATE ledger SET sequence = 4 WHERE sequence = -2;",
            "reordered 2",
        ),
        (
            "DELETE FROM ledger WHERE sequence = 3; UPDATE ledger SET sequence = sequence - 1 WHERE sequence > 3;
             UPDATE sqlite_sequence SET seq = 4",
            "reordered 3",
        ),
    ] {
        let bench = Bench::with(5);
        bench.tamper(sql);
        assert_eq!(bench.complaint(), format!("evidence.ledger-{expected}"), "{sql}");
    }
}

#[test]
fn a_cut_tail_is_found_by_the_hash_that_was_kept() {
    let bench = Bench::with(5);
    let kept = bench.open().verify().unwrap().head_hash;
    bench.tamper("DELETE FROM ledger WHERE sequence = 5; UPDATE sqlite_sequence SET seq = 4");
    let ledger = bench.open();
    let remaining = ledger.verify().unwrap();
    assert_eq!(remaining.records, 4, "the chain alone cannot tell");
    assert_eq!(summary(&ledger.verify_against(&kept).unwrap_err()), "evidence.ledger-truncated");
    assert!(ledger.verify_against(&remaining.head_hash).is_ok());
    assert!(ledger.verify_against(GENESIS).is_ok());
    ledger.append(&record(9, "access.apply")).unwrap();
    assert!(ledger.verify_against(&remaining.head_hash).is_ok(), "an older head stays provable");
    assert!(ledger.verify_against(&kept).is_err());
}

#[test]
fn appending_after_a_removal_does_not_hide_it() {
    let bench = Bench::with(5);
    bench.tamper("DELETE FROM ledger WHERE sequence = 5");
    let ledger = bench.open();
    assert_eq!(ledger.append(&record(6, "access.apply")).unwrap().sequence, 6);
    assert_eq!(bench.complaint(), "evidence.ledger-removed 5");
}

#[test]
fn a_record_that_is_none_is_named() {
    let bench = Bench::with(2);
    // A tamperer who recomputes the hash of the last record passes the chain, not the reading.
    let previous = bench.open().records(&Filter::default()).unwrap()[1].previous.clone();
    let forged = sha256(&format!("{previous}\n2\n{{}}"));
    bench.tamper(&format!("UPDATE ledger SET record = '{{}}', hash = '{forged}' WHERE sequence = 2"));
    assert_eq!(bench.complaint(), "evidence.ledger-unreadable-record 2");
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_damaged_or_foreign_file_is_named() {
    let code = |file: &Path| match Ledger::open(file).and_then(|ledger| ledger.verify()) {
        Ok(verified) => format!("{} records", verified.records),
        Err(failure) => failure.what.code().id().to_owned(),
    };
    let bench = Bench::with(120);
    let whole = fs::read(bench.file()).unwrap();

    fs::write(bench.file(), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(code(&bench.file()), "evidence.ledger-damaged", "half of it");
    let mut scribbled = whole.clone();
    scribbled[whole.len() / 2..whole.len() / 2 + 9_000].fill(b'x');
    fs::write(bench.file(), &scribbled).unwrap();
    assert_eq!(code(&bench.file()), "evidence.ledger-damaged", "scribbled over");
    fs::write(bench.file(), "this is not a database, and it is long enough to tell".repeat(50)).unwrap();
    assert_eq!(code(&bench.file()), "evidence.ledger-damaged", "a text file");
    fs::write(bench.file(), "").unwrap();
    assert_eq!(code(&bench.file()), "0 records", "an interrupted creation");
    fs::write(bench.file(), &whole).unwrap();
    assert_eq!(code(&bench.file()), "120 records");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let bench = Bench::with(1);
    let below_a_file = bench.file().join("ledger.sqlite");
    let failure = Ledger::open(&below_a_file).unwrap_err();
    assert!(failure.why.is_some() && failure.mend.is_some(), "{failure}");
    let failure = Ledger::open(Path::new("/proc/ledger/ledger.sqlite")).unwrap_err();
    assert!(failure.why.is_some() && failure.mend.is_some(), "{failure}");
}

#[test]
fn observing_neither_makes_nor_changes_a_ledger() {
    let bench = Bench::new();
    let failure = Ledger::open_existing_readonly(&bench.file()).unwrap_err();
    assert_eq!(failure.what.code().id(), "evidence.ledger-absent");
    assert!(!bench.file().exists());

    let bench = Bench::with(2);
    let ledger = Ledger::open_existing_readonly(&bench.file()).unwrap();
    assert_eq!(ledger.verify().unwrap().records, 2);
    let refused = ledger.append(&record(3, "access.apply")).unwrap_err();
    assert_eq!(refused.what.code().id(), "evidence.ledger-forbidden");
}

#[test]
fn an_export_that_cannot_be_written_fails() {
    let bench = Bench::with(1);
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let failure = bench.open().export(&mut full).unwrap_err();
    assert_eq!(failure.what.code().id(), "evidence.ledger-export");
}
