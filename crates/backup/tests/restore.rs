//! Clusters brought back to a point: on real servers, from a backup that was cut while they ran.

#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "restore/cut.rs"]
mod cut;
#[path = "restore/live.rs"]
mod live;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use live::{Live, ask, ledger, session};
use obyra_backup::repository::catalogue::Manifest;
use obyra_backup::restore::{Action, Control, Into, Place, Recovery, Target, Whole, Wish};
use obyra_evidence::{Exit, Quiet};
use obyra_postgres::cluster::{Embedded, EmbeddedSpec};
use obyra_postgres::wal::TimelineId;
use obyra_postgres::{Limits, Session};

const MAKE: &str = "CREATE TABLE ledger (id serial PRIMARY KEY, what text NOT NULL)";

/// Between two moments that the server's clock tells apart.
fn just_after(time: Timestamp) -> Timestamp {
    time.checked_add(SignedDuration::from_micros(1)).unwrap()
}

#[tokio::test]
async fn every_kind_of_target_brings_back_exactly_what_had_been_committed() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.add("before").await;
    let backup = live.backup().await;
    let first = live.add("first").await;
    let lsn = live.ask("pg_current_wal_insert_lsn()").await;
    live.add("second").await;
    live.run("SELECT pg_create_restore_point('before the upgrade')").await;
    live.run("BEGIN; INSERT INTO ledger (what) VALUES ('third')").await;
    let xid = live.ask("pg_current_xact_id()").await;
    live.run("COMMIT").await;
    live.add("fourth").await;
    live.archive().await;

    assert_eq!(live.ledger(Target::Latest).await, "before first second third fourth");
    assert_eq!(live.ledger(Target::Time(first)).await, "before first");
    assert_eq!(live.ledger(Target::Lsn(lsn.parse().unwrap())).await, "before first");
    assert_eq!(live.ledger(Target::Name("before the upgrade".to_owned())).await, "before first second");
    assert_eq!(live.ledger(Target::Transaction(xid.parse().unwrap())).await, "before first second third");
    assert_eq!(live.ledger(Target::Backup(backup.id)).await, "before");
    let absent = live.plan(Wish::to(Target::Name("nothing".to_owned()))).await.unwrap_err();
    assert_eq!(absent.what.code().id(), "backup.restore-not-found");
}

#[tokio::test]
async fn the_oldest_and_the_newest_version_too() {
    for major in [14, 18] {
        let mut live = Live::start(major).await;
        live.run(MAKE).await;
        live.backup().await;
        let first = live.add("first").await;
        live.run("SELECT pg_create_restore_point('here')").await;
        live.add("second").await;
        live.archive().await;
        assert_eq!(live.ledger(Target::Time(first)).await, "first", "{major}");
        assert_eq!(live.ledger(Target::Name("here".to_owned())).await, "first", "{major}");
        assert_eq!(live.ledger(Target::Latest).await, "first second", "{major}");
        let control = fs::read(live.data().join("global/pg_control")).unwrap();
        let control = Control::parse(&control).unwrap();
        assert_eq!(control.system_identifier, live.id.0);
        for (name, value) in control.at_least {
            assert_eq!(
                live.ask(&format!("current_setting('{name}')")).await,
                value.to_string(),
                "{major} {name}"
            );
        }
    }
}

#[tokio::test]
async fn the_newest_reachable_moment_is_the_last_commit_in_the_archive() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.backup().await;
    let before = live.now().await;
    let last = live.add("last").await;
    live.archive().await;
    let reachable = live.coverage().await.last_commit(TimelineId::FIRST).unwrap();
    assert!(before < reachable && reachable <= last, "{before} {reachable} {last}");
    let refused = live.plan(Wish::to(Target::Time(just_after(last)))).await.unwrap_err();
    assert_eq!((refused.exit, refused.what.code().id()), (Exit::Refused, "backup.restore-after-last"));
    // The moment that the refusal names can be reached indeed.
    let mend = refused.mend.unwrap();
    let named = mend.fields()["newest"].split(" (").next().unwrap().to_owned();
    assert_eq!(live.ledger(Target::parse(&named).unwrap()).await, "");
}

#[tokio::test]
async fn a_second_recovery_follows_the_timeline_that_the_first_began() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.backup().await;
    let good = live.add("good").await;
    let mistake = live.add("mistake").await;
    live.add("more of it").await;
    live.archive().await;
    // Back to before the mistake; from there life goes on, on timeline 2.
    let second_life = live.raise(Wish::to(Target::Time(good))).await.unwrap();
    assert_eq!(second_life.restored.told().new_timeline, Some(TimelineId(2)));
    let server = session(&second_life).await;
    server.batch_execute("INSERT INTO ledger (what) VALUES ('better')").await.unwrap();
    let better = live.now().await;
    server.batch_execute("INSERT INTO ledger (what) VALUES ('best')").await.unwrap();
    let current = ask(&second_life, "pg_walfile_name(pg_switch_wal())").await;
    live::archive(&live.repository, live.id, &second_life.restored.data(), &current).await;
    drop(second_life);

    let coverage = live.coverage().await;
    assert_eq!(coverage.index.newest_timeline(), Some(TimelineId(2)));
    assert_eq!(live.ledger(Target::Latest).await, "good better best");
    assert_eq!(live.ledger(Target::Time(better)).await, "good better");
    assert_eq!(live.ledger(Target::Time(good)).await, "good");
    // What timeline 2 never had is told apart, and can be had by naming timeline 1.
    let refused = live.plan(Wish::to(Target::Time(mistake))).await.unwrap_err();
    assert_eq!(refused.what.code().id(), "backup.restore-between-timelines");
    let along = Wish { timeline: Some(TimelineId(1)), ..Wish::to(Target::Time(mistake)) };
    assert_eq!(ledger(&live.raise(along).await.unwrap()).await, "good mistake");
    let plan = live.plan(Wish::to(Target::Latest)).await.unwrap();
    assert_eq!(plan.timelines.len(), 2);
}

#[tokio::test]
async fn a_backup_without_its_own_wal_is_no_backup() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.add("first").await;
    live.archive().await;
    live.backup().await;
    let refused = live.plan(Wish::to(Target::Latest)).await.unwrap_err();
    assert_eq!(refused.what.code().id(), "backup.restore-no-usable-backup");
    assert!(refused.why.unwrap().contains("is not all in the archive"));
    // With its WAL it is one; and if that WAL goes after the plan was made, recovery says what is missing.
    live.archive().await;
    let plan = live.plan(Wish::to(Target::Latest)).await.unwrap();
    let wal = live.folder.path().join(format!("repository/{}", live.id.wal(1)));
    fs::rename(&wal, live.folder.path().join("gone")).unwrap();
    let manifest = live.manifest(&plan).await;
    let failure = live.stage().raise(&plan, &manifest, Action::Promote, &Quiet).await.unwrap_err();
    assert_eq!(failure.mend.unwrap().code().id(), "cluster.recovery-without-wal-mend");
}

#[tokio::test]
async fn wal_that_cannot_be_read_is_not_taken_for_the_end_of_the_log() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.backup().await;
    live.add("first").await;
    live.archive().await;
    live.add("second").await;
    live.archive().await;
    let plan = live.plan(Wish::to(Target::Latest)).await.unwrap();
    let wal = live.folder.path().join(format!("repository/{}", live.id.wal(1)));
    let mut segments: Vec<_> = fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let last = segments.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(last, bytes).unwrap();
    let manifest = live.manifest(&plan).await;
    let failure = live.stage().raise(&plan, &manifest, Action::Promote, &Quiet).await.unwrap_err();
    assert_eq!(failure.what.code().id(), "backup.object-damaged");
    assert!(failure.what.to_string().contains(last.file_name().unwrap().to_str().unwrap()), "{failure}");
}

#[tokio::test]
async fn a_restored_server_is_apart_from_the_cluster_it_came_from() {
    let archived = tempfile::tempdir().unwrap();
    let command = format!("touch {}/archived", archived.path().display());
    let settings = [
        ("archive_mode", "on"),
        ("archive_command", command.as_str()),
        ("primary_conninfo", "host=production.invalid"),
        ("shared_preload_libraries", "auto_explain, pg_cron"),
        ("max_connections", "47"),
    ];
    // pg_cron is not installed here: the original runs without it, its backup says otherwise.
    let mut live = Live::start_with(16, &[settings[0], settings[2], settings[4]]).await;
    live.run(MAKE).await;
    for (name, value) in [settings[1], settings[3]] {
        live.run(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    live.run("ALTER SYSTEM SET restore_command = 'touch /nowhere'").await;
    live.backup().await;
    live.add("first").await;
    live.archive().await;
    let instance = live.raise(Wish::to(Target::Latest)).await.unwrap();
    for (setting, value) in [
        ("archive_mode", "off"),
        ("archive_command", "(disabled)"),
        ("primary_conninfo", ""),
        ("listen_addresses", ""),
        ("max_logical_replication_workers", "0"),
        ("shared_preload_libraries", "auto_explain"),
        ("max_connections", "47"),
        ("autovacuum", "off"),
    ] {
        assert_eq!(ask(&instance, &format!("current_setting('{setting}')")).await, value, "{setting}");
    }
    assert_eq!(instance.left_out, ["pg_cron"]);
    let files = ask(
        &instance,
        "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE current_setting('data_directory') || '%'",
    );
    assert_eq!(files.await, "0", "no setting comes from the restored directory");
    ask(&instance, "pg_switch_wal()").await;
    assert!(!archived.path().join("archived").exists());
    let replication = instance.restored.admin("postgres").unwrap();
    let refused = obyra_postgres::replication::Walsender::connect(&replication).await;
    assert!(refused.is_err(), "nobody replicates from it");
    let data = instance.restored.data();
    drop(instance);
    assert!(!data.exists());
}

#[tokio::test]
async fn a_running_cluster_is_never_restored_over() {
    let mut live = Live::start(16).await;
    let backup = live.backup().await;
    let manifest = Manifest::read(&live.repository, live.id, &backup.id).await.unwrap();
    let into = Into { data: live.data(), ..Into::default() };
    let refused = Place::look(&manifest, &into).unwrap_err();
    assert_eq!((refused.exit, refused.what.code().id()), (Exit::Refused, "backup.restore-server-runs"));
}

#[tokio::test]
async fn recovery_can_pause_and_go_on() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.backup().await;
    // The server answers as soon as it is consistent, and the target is some way off.
    for _ in 0..8 {
        live.run("CREATE TABLE more AS SELECT generate_series(1, 1000); DROP TABLE more").await;
        live.archive().await;
    }
    let first = live.add("first").await;
    live.add("second").await;
    live.archive().await;
    let plan = live.plan(Wish::to(Target::Time(first))).await.unwrap();
    let manifest = live.manifest(&plan).await;
    let instance = live.stage().raise(&plan, &manifest, Action::Pause, &Quiet).await.unwrap();
    assert!(instance.restored.told().paused);
    assert_eq!(ledger(&instance).await, "first");
    assert_eq!(ask(&instance, "pg_is_in_recovery()").await, "true");
    let latest = live.plan(Wish::to(Target::Latest)).await.unwrap();
    let instance = instance.go_on(&latest, Action::Promote, &Quiet).await.unwrap();
    assert_eq!(ledger(&instance).await, "first second");
    assert_eq!(ask(&instance, "pg_is_in_recovery()").await, "false");
    // Stopped with a checkpoint, and gone with its folder.
    let scratch = instance.restored.stop().await.unwrap();
    assert!(scratch.data().join("PG_VERSION").exists() && !scratch.data().join("postmaster.pid").exists());
}

#[tokio::test]
async fn tablespaces_and_unlogged_tables_come_back_beside_the_originals() {
    let mut live = Live::start(16).await;
    let space = tempfile::Builder::new().prefix("obyra-space-").tempdir_in("/tmp").unwrap();
    give_to_the_server(space.path());
    live.run(&format!("CREATE TABLESPACE aside LOCATION '{}'", space.path().display())).await;
    live.run(MAKE).await;
    live.run("CREATE TABLE far (n int) TABLESPACE aside; INSERT INTO far SELECT generate_series(1, 1000)")
        .await;
    live.run("CREATE UNLOGGED TABLE light (n int); INSERT INTO light VALUES (1)").await;
    live.run("CHECKPOINT").await;
    let backup = live.backup().await;
    assert_eq!(backup.tablespaces.len(), 1);
    live.run(
        "INSERT INTO far SELECT generate_series(1001, 2000); CREATE TABLE farther (n int) TABLESPACE aside",
    )
    .await;
    live.archive().await;
    let of_the_original = files_below(space.path());
    let instance = live.raise(Wish::to(Target::Latest)).await.unwrap();
    assert_eq!(ask(&instance, "SELECT count(*) FROM far").await, "2000");
    // An unlogged table is empty after any recovery, and usable.
    assert_eq!(ask(&instance, "SELECT count(*) FROM light").await, "0");
    let copy = session(&instance).await;
    copy.batch_execute("INSERT INTO light VALUES (2); DROP TABLE far; CHECKPOINT").await.unwrap();
    let location =
        ask(&instance, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'aside'").await;
    assert!(location.starts_with(instance.restored.data().parent().unwrap().to_str().unwrap()), "{location}");
    assert_eq!(files_below(space.path()), of_the_original);
    assert_eq!(live.ask("SELECT count(*) FROM far").await, "2000");
}

fn give_to_the_server(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((uid, gid)) = obyra_postgres::cluster::owner_of_files(folder).unwrap() {
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

/// The way of `obyra-db backup restore`: a folder in which somebody else starts a server.
#[tokio::test]
async fn a_restored_folder_recovers_under_any_server() {
    let mut live = Live::start(16).await;
    live.run(MAKE).await;
    live.run("ALTER SYSTEM SET work_mem = '7MB'").await;
    live.backup().await;
    let first = live.add("first").await;
    live.add("second").await;
    live.archive().await;
    // Where a cluster of that name would be, so that the server can be started as one.
    let home = tempfile::Builder::new().prefix("obyra-restored-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let wal = home.path().join("wal");
    fs::create_dir(&wal).unwrap();
    for path in files_below(&live.data().join("pg_wal")) {
        let copy = wal.join(path.file_name().unwrap());
        fs::copy(&path, &copy).unwrap();
        fs::set_permissions(copy, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let recovery = Recovery {
        restore_command: format!("cp '{}/%f' '%p'", wal.display()),
        action: Action::Promote,
        archiving: false,
    };
    let destination = Into { data: home.path().join("data"), ..Into::default() };
    let (plan, coverage) = (live.plan(Wish::to(Target::Time(first))).await.unwrap(), live.coverage().await);
    let whole = Whole {
        repository: &live.repository,
        cluster: live.id,
        plan: &plan,
        coverage: &coverage,
        destination: &destination,
        recovery: &recovery,
        discard_wal: false,
        threads: 2,
    };
    whole.look().await.unwrap().run(&Quiet).await.unwrap();

    use obyra_postgres::secrecy::ExposeSecret as _;
    let password = live.cluster.admin().password().unwrap().clone();
    fs::write(home.path().join("password"), password.expose_secret()).unwrap();
    let spec = EmbeddedSpec { dir: home.path().to_path_buf(), settings: Vec::new() };
    let server = Embedded::up(&spec, live.cluster.installation(), &Quiet).await.unwrap();
    let there = Session::connect(&server.admin(), Limits::default()).await.unwrap();
    let ask = async |sql: &str| there.query_one(sql, &[]).await.unwrap().get::<_, String>(0);
    // It answers while it recovers, and takes writes a moment later.
    while ask("SELECT pg_is_in_recovery()::text").await == "true" {}
    assert_eq!(ask("SELECT string_agg(what, ' ') FROM ledger").await, "first");
    assert_eq!(ask("SHOW work_mem").await, "7MB", "what ALTER SYSTEM had set stays");
    assert_eq!(ask("SHOW archive_mode").await, "off");
    there.batch_execute("INSERT INTO ledger (what) VALUES ('not archived')").await.unwrap();
    drop(there);

    // Over the cluster that lives there now: not while it runs, and not while its WAL is nowhere else.
    let latest = live.plan(Wish::to(Target::Latest)).await.unwrap();
    let whole = Whole { plan: &latest, ..whole };
    assert_eq!(whole.look().await.err().unwrap().what.code().id(), "backup.restore-server-runs");
    Embedded::down(&spec.dir).await.unwrap();
    let refused = whole.look().await.err().unwrap();
    assert_eq!((refused.exit, refused.what.code().id()), (Exit::Refused, "backup.restore-wal-not-archived"));
    assert!(refused.what.to_string().contains("pg_wal/00000002"), "{refused}");
    let ready = Whole { discard_wal: true, ..whole }.look().await.unwrap();
    let noted: Vec<&str> = ready.notes.iter().map(|note| note.code().id()).collect();
    assert_eq!(noted, ["backup.restore-removes", "backup.restore-wal-not-archived"]);
    let written = ready.run(&Quiet).await.unwrap();
    assert!(written.kept > written.bytes, "{written:?}");
    // The certificate was this server's, and the backup has none.
    fs::remove_file(server.ca_file()).unwrap();
    let server = Embedded::up(&spec, live.cluster.installation(), &Quiet).await.unwrap();
    let there = Session::connect(&server.admin(), Limits::default()).await.unwrap();
    let ask = async |sql: &str| there.query_one(sql, &[]).await.unwrap().get::<_, String>(0);
    while ask("SELECT pg_is_in_recovery()::text").await == "true" {}
    assert_eq!(ask("SELECT string_agg(what, ' ' ORDER BY id) FROM ledger").await, "first second");
    drop(there);
    Embedded::destroy(&spec.dir).await.unwrap();
}
