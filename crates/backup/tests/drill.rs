//! Drills on real servers: what they prove, what they find, and that nothing of them stays.

#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "restore/cut.rs"]
mod cut;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "restore/live.rs"]
mod live;

use std::fs;
use std::path::Path;

use live::Live;
use obyra_backup::drill::{self, Budget, Check, Drill, Drilled, Outcome, Recorded};
use obyra_backup::repository::manifest::Header;
use obyra_backup::restore::{Stage, Target};
use obyra_backup::{Result, SmokeQuery};
use obyra_evidence::Quiet;
use obyra_postgres::{Limits, Session};

const MAKE: &str = "CREATE TABLE ledger (id serial PRIMARY KEY, what text NOT NULL);
    CREATE INDEX ON ledger (what);
    INSERT INTO ledger (what) SELECT 'row ' || n FROM generate_series(1, 3000) n;
    CREATE DATABASE second";

async fn record(live: &Live, backup: &Header) -> Recorded {
    let recorded = drill::record(&live.cluster.admin(), backup, &Budget::default(), &Quiet).await.unwrap();
    drill::store(&live.repository, live.id, &recorded).await.unwrap();
    assert_eq!(drill::load(&live.repository, live.id, &backup.id).await.unwrap().as_ref(), Some(&recorded));
    recorded
}

async fn run(live: &Live, target: &Target, queries: &[SmokeQuery], scratch: &Path) -> Result<Drilled> {
    let stage = Stage { scratch: Some(scratch), ..live.stage() };
    let now = live.now().await;
    let drill = Drill { stage, target, timeline: None, database: "postgres", queries, now };
    drill.run(&Quiet).await
}

/// A folder in which drills happen, and which they leave empty.
fn scratch() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("obyra-drill-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn assert_nothing_left(scratch: &Path) {
    let left: Vec<_> = fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let marker = scratch.to_str().unwrap();
    let running = fs::read_dir("/proc").unwrap().filter_map(|process| {
        let line = fs::read(process.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(marker).then_some(())
    });
    assert_eq!(running.count(), 0, "a server of the drill runs still");
}

fn check<'a>(drilled: &'a Drilled, name: &str) -> &'a Check {
    drilled.checks.iter().find(|check| check.name.id() == name).unwrap()
}

fn query(sql: &str, expect: Option<&str>) -> SmokeQuery {
    SmokeQuery { sql: sql.to_owned(), expect: expect.map(str::to_owned) }
}

#[tokio::test]
async fn a_drill_proves_the_backup_and_measures() {
    for major in [16, 14, 18] {
        let mut live = Live::start(major).await;
        for sql in MAKE.split(';') {
            live.run(sql).await;
        }
        let second =
            Session::connect(&live.cluster.admin().with_database("second"), Limits::default()).await.unwrap();
        second.batch_execute("CREATE TABLE other AS SELECT n FROM generate_series(1, 100) n").await.unwrap();
        let backup = live.backup().await;
        // Prepared and running transactions are no reason for doubt: they had not been committed.
        second.batch_execute("BEGIN; INSERT INTO other VALUES (0)").await.unwrap();
        let recorded = record(&live, &backup).await;
        assert!(recorded.at.is_some_and(|at| at >= backup.stop));
        assert_eq!(recorded.superuser, "postgres");
        second.batch_execute("COMMIT").await.unwrap();
        live.run("UPDATE ledger SET what = 'changed' WHERE id <= 1000").await;
        let last = live.add("the last one").await;
        live.archive().await;

        let scratch = scratch();
        let queries = [
            query("SELECT count(*) FROM ledger WHERE what = 'changed'", Some("1000")),
            query("SELECT 1 FROM ledger LIMIT 1", None),
        ];
        let drilled = run(&live, &Target::Latest, &queries, scratch.path()).await.unwrap();
        assert!(drilled.passed(), "{major}: {:#?}", drilled.checks);
        assert!(drilled.checks.iter().all(|check| check.outcome == Outcome::Passed), "{:#?}", drilled.checks);
        // Compared at the very instant of the figures, and then recovered to the end.
        let figures = check(&drilled, "backup.drill-figures");
        assert_eq!(figures.found.code().id(), "backup.drill-figures-same");
        assert_eq!(
            (figures.found.fields()["tables"].as_str(), figures.found.fields()["rows"].as_str()),
            ("2", "3100")
        );
        assert_eq!(drilled.checks.len(), 5);
        let (commit, lost) = (drilled.last_commit.unwrap(), drilled.rpo_seconds.unwrap());
        assert!(commit <= last && lost >= 0.0, "{commit} {last}");
        assert_eq!(drilled.backup, backup.id);
        assert!(drilled.rto_seconds >= drilled.phases.files + drilled.phases.replay);
        assert!(drilled.bytes > 20 << 20 && drilled.wal_bytes > 0 && drilled.rates().is_some());
        assert_nothing_left(scratch.path());
    }
}

#[tokio::test]
async fn a_drill_finds_what_is_wrong() {
    let mut live = Live::start(16).await;
    for sql in MAKE.split(';') {
        live.run(sql).await;
    }
    live.run("CHECKPOINT").await;
    // Damage on the disk of the original, before the backup: a page that is never touched again.
    let path = live.ask("pg_relation_filepath('ledger_what_idx')").await;
    let file = fs::OpenOptions::new().write(true).open(live.data().join(&path)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage!", 3 * 8192 + 5000).unwrap();
    let backup = live.backup().await;
    let mut recorded = record(&live, &backup).await;
    live.add("later").await;
    live.archive().await;

    let scratch = scratch();
    let queries = [
        query("SELECT count(*) FROM ledger", Some("17")),
        query("SELECT * FROM nowhere", None),
        query("SELECT 1 WHERE false", None),
        query("INSERT INTO ledger (what) VALUES ('x') RETURNING 1", None),
        query("SELECT NULL::text", None),
    ];
    let drilled = run(&live, &Target::Latest, &queries, scratch.path()).await.unwrap();
    assert!(!drilled.passed());
    let failed = |check: &&Check| check.outcome == Outcome::Failed;
    let found: Vec<&str> =
        drilled.checks.iter().filter(failed).map(|check| check.found.code().id()).collect();
    assert_eq!(
        found,
        [
            "backup.drill-amcheck-found",
            "backup.drill-query-other",
            "backup.drill-query-failed",
            "backup.drill-query-empty",
            "backup.drill-query-failed",
            "backup.drill-pages-damaged",
        ]
    );
    let pages = check(&drilled, "backup.drill-pages");
    assert_eq!(pages.detail.as_deref(), Some(format!("{path} block 3").as_str()));
    let read_only = drilled.checks.iter().filter(failed).nth(4).unwrap();
    assert!(read_only.detail.as_ref().unwrap().contains("read-only transaction"));

    // Figures that do not agree: a table with other rows, and one that is not there.
    live.repository.store.delete(&live.id.figures(&backup.id)).await.unwrap();
    let tables = &mut recorded.databases[0].tables;
    let mut absent = tables[0].clone();
    absent.figures.table = "public.never".to_owned();
    tables[0].figures.rows += 1;
    tables.push(absent);
    drill::store(&live.repository, live.id, &recorded).await.unwrap();
    let drilled = run(&live, &Target::Latest, &[], scratch.path()).await.unwrap();
    let figures = check(&drilled, "backup.drill-figures");
    assert_eq!(figures.found.to_string(), "2 of 2 tables are not as recorded");
    let detail = figures.detail.as_ref().unwrap();
    assert!(
        detail.contains("public.ledger: 3000 rows") && detail.contains("public.never: absent"),
        "{detail}"
    );
    assert_nothing_left(scratch.path());
}

#[tokio::test]
async fn a_drill_that_fails_leaves_nothing_either() {
    let mut live = Live::start(16).await;
    live.run("CREATE TABLE ledger (id serial, what text)").await;
    live.backup().await;
    live.add("one").await;
    live.archive().await;
    live.add("two").await;
    live.archive().await;
    let scratch = scratch();
    // Without figures and to a moment: what can be proven is.
    let early = run(&live, &Target::Backup(live.backups[0].id.clone()), &[], scratch.path()).await.unwrap();
    assert!(early.passed());
    assert_eq!(check(&early, "backup.drill-figures").outcome, Outcome::Skipped);
    assert_nothing_left(scratch.path());
    let wal = live.folder.path().join(format!("repository/{}", live.id.wal(1)));
    let mut segments: Vec<_> = fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    // The last one tells the survey where the archive ends; the one before it is damaged.
    let damaged = &segments[segments.len() - 2];
    let mut bytes = fs::read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(damaged, bytes).unwrap();
    let failure = run(&live, &Target::Latest, &[], scratch.path()).await.unwrap_err();
    assert_eq!(failure.what.code().id(), "backup.object-damaged");
    assert_nothing_left(scratch.path());
}

#[tokio::test]
async fn large_tables_are_sampled_and_without_an_exact_instant_figures_are_close() {
    let mut live = Live::start(16).await;
    for sql in MAKE.split(';') {
        live.run(sql).await;
    }
    let backup = live.backup().await;
    let budget = Budget { whole_table_bytes: 100_000, sample_bytes: 40_000, total_bytes: 1 << 30 };
    let recorded = drill::record(&live.cluster.admin(), &backup, &budget, &Quiet).await.unwrap();
    let table = &recorded.databases[0].tables[0];
    assert_eq!(table.blocks.len(), 32);
    assert!(table.figures.rows > 0);
    let stingy = Budget { total_bytes: 10, ..budget };
    let nothing = drill::record(&live.cluster.admin(), &backup, &stingy, &Quiet).await.unwrap();
    assert_eq!((nothing.databases[0].tables.len(), nothing.databases[0].unread), (0, 1));
    drill::store(&live.repository, live.id, &recorded).await.unwrap();
    live.add("later").await;
    live.archive().await;
    let scratch = scratch();
    let drilled = run(&live, &Target::Latest, &[], scratch.path()).await.unwrap();
    assert_eq!(check(&drilled, "backup.drill-figures").found.code().id(), "backup.drill-figures-same");

    // Somebody whose commit is in the log already, before the backup even, while others do not see it yet: no
    // instant is exact.
    let waiting = Session::connect(&live.cluster.admin(), Limits::patient()).await.unwrap();
    live.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    live.run("SELECT pg_reload_conf()").await;
    let commit = tokio::spawn(async move {
        waiting.batch_execute("SET synchronous_commit = on; INSERT INTO ledger (what) VALUES ('waits')").await
    });
    let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')";
    while live.ask(waits).await != "true" {}
    // One that does not wait overtakes it: from then on a copy shows both.
    live.run(
        "BEGIN; SET LOCAL synchronous_commit = local; INSERT INTO ledger (what) VALUES ('overtakes'); COMMIT",
    )
    .await;
    let backup = live.backup().await;
    let recorded = record(&live, &backup).await;
    assert!(recorded.at.is_some(), "nothing was written meanwhile; and yet");
    live.run("ALTER SYSTEM RESET synchronous_standby_names").await;
    live.run("SELECT pg_reload_conf()").await;
    commit.await.unwrap().unwrap();
    live.archive().await;
    let drilled = run(&live, &Target::Latest, &[], scratch.path()).await.unwrap();
    let figures = check(&drilled, "backup.drill-figures");
    assert_eq!((figures.outcome, figures.found.code().id()), (Outcome::Passed, "backup.drill-figures-near"));
}

/// What the cluster was told by `ALTER SYSTEM` is read from its copy too, whatever else the copy is told.
#[tokio::test]
async fn a_drill_never_archives_where_the_original_does() {
    let mut live = Live::start(16).await;
    live.run("CREATE TABLE ledger (id serial, what text)").await;
    let archived = scratch();
    fs::set_permissions(archived.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // The original reads the first of these when it is started again, which it never is.
    live.run("ALTER SYSTEM SET archive_mode = on").await;
    let command = format!("touch {}/%f", archived.path().display());
    live.run(&format!("ALTER SYSTEM SET archive_command = '{command}'")).await;
    live.backup().await;
    live.add("one").await;
    live.archive().await;
    let scratch = scratch();
    assert!(run(&live, &Target::Latest, &[], scratch.path()).await.unwrap().passed());
    assert_nothing_left(scratch.path());
    assert_eq!(fs::read_dir(archived.path()).unwrap().count(), 0);
}
