//! The ledger between processes: two that append at once, one that is killed, and the auditor's
//! Python, which is taken from the documentation as it stands there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use obyra_evidence::{Ledger, Outcome, Record};

const FILE: &str = "OBYRA_TEST_LEDGER";
const COUNT: &str = "OBYRA_TEST_COUNT";

fn record(observed: String) -> Record {
    Record {
        at: Timestamp::UNIX_EPOCH,
        environment: "dev".into(),
        subject: "seeds.verify".into(),
        expected: "ñ \"quoted\" \\ \u{1}\n".into(),
        observed,
        outcome: Outcome::Unknown,
        figures: [("rows".to_owned(), 1e22), ("duration_seconds".to_owned(), 0.1)].into(),
        facts: Default::default(),
    }
}

/// Not a test of its own: the other tests run it in a process of its own.
#[test]
fn appender() {
    let Some(file) = env::var_os(FILE) else { return };
    let count: usize = env::var(COUNT).unwrap().parse().unwrap();
    for number in 0..count {
        let ledger = Ledger::open(Path::new(&file)).unwrap();
        ledger.append(&record(format!("{} {number}", std::process::id()))).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a second process is the point of these tests")]
fn start_appender(file: &Path, count: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "appender"])
        .env(FILE, file)
        .env(COUNT, count.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_and_threads_continue_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.sqlite");
    let children: Vec<Child> = (0..3).map(|_| start_appender(&file, 20)).collect();
    let shared = Ledger::open(&file).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let shared = &shared;
            scope.spawn(move || {
                for number in 0..10 {
                    shared.append(&record(format!("thread {thread} {number}"))).unwrap();
                }
            });
        }
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(shared.verify().unwrap().records, 3 * 20 + 2 * 10);
}

#[test]
fn a_killed_process_leaves_a_whole_chain() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.sqlite");
    let mut verified = 0;
    for round in 1..=5_u64 {
        let mut child = start_appender(&file, 1_000_000);
        let deadline = Instant::now() + Duration::from_secs(20);
        let reached = |wanted| {
            Ledger::open_existing_readonly(&file).and_then(|l| l.verify()).is_ok_and(|v| v.records >= wanted)
        };
        while !reached(verified + round) {
            assert!(Instant::now() < deadline, "the appender appends");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        verified = Ledger::open_existing_readonly(&file).unwrap().verify().unwrap().records;
    }
    let ledger = Ledger::open(&file).unwrap();
    assert_eq!(ledger.append(&record("after".into())).unwrap().sequence, verified + 1);
}

#[test]
fn the_python_of_the_documentation_verifies_an_export() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    for number in 0..5 {
        ledger.append(&record(format!("record {number}"))).unwrap();
    }
    let export = folder.path().join("evidence.jsonl");
    assert_eq!(ledger.export(&mut File::create(&export).unwrap()).unwrap(), 5);
    let head = ledger.verify().unwrap().head_hash;

    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/evidence.md")).unwrap();
    let (_, rest) = guide.split_once("```python\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    assert!(program.lines().count() <= 12, "ten lines and an import");
    let Some((succeeded, said)) = python(program, &export) else { return };
    assert!(succeeded && said.contains(&format!("5 records, head {head}")), "{said}");

    let whole = fs::read_to_string(&export).unwrap();
    for (broken, complaint) in [
        (whole.replace("record 2", "record 9"), "record 3"),
        (
            whole.lines().filter(|line| !line.contains("record 1")).map(|l| format!("{l}\n")).collect(),
            "record 2",
        ),
    ] {
        fs::write(&export, broken).unwrap();
        let (succeeded, said) = python(program, &export).unwrap();
        assert!(!succeeded && said.contains(complaint), "{said}");
    }
}

/// Runs the program; `None` where there is no Python.
#[expect(clippy::disallowed_methods, reason = "the auditor's tool is another program")]
fn python(program: &str, export: &Path) -> Option<(bool, String)> {
    let output = Command::new("python3").arg("-c").arg(program).arg(export).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
