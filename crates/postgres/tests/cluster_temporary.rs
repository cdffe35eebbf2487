//! Temporary clusters, on the real thing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod child;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::{fs, thread};

use obyra_postgres::cluster::{
    MAJORS_FOR_TESTS, TemporaryCluster, TemporaryOptions, cache_for_tests, for_tests, for_tests_version,
    for_tests_with, installation_for_tests,
};
use obyra_postgres::{Conninfo, Limits, Session};

async fn ask(target: &Conninfo, sql: &str) -> String {
    let session = Session::connect(target, Limits::default()).await.unwrap();
    session.query_one(sql, &[]).await.unwrap().get(0)
}

fn is_running(dir: &Path) -> bool {
    let marker = format!("{}/data", dir.display());
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|p| fs::read(p.ok()?.path().join("cmdline")).ok());
    processes.into_iter().any(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').any(|argument| argument == marker)
    })
}

#[tokio::test]
async fn it_asks_for_a_password_and_encrypts() {
    let cluster = for_tests().await;
    assert_eq!(ask(&cluster.admin(), "SELECT current_user::text").await, "postgres");
    assert_eq!(ask(&cluster.admin(), "SHOW data_checksums").await, "on");
    assert_eq!(ask(&cluster.admin(), "SHOW server_encoding").await, "UTF8");
    let tls = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(&cluster.loopback(), tls).await, "TLSv1.3");
    for target in [cluster.admin(), cluster.loopback()] {
        let wrong = target.with_role("postgres", Some("wrong".into()));
        assert!(Session::connect(&wrong, Limits::default()).await.is_err());
    }
    let mode = fs::metadata(cluster.dir().join("password")).map(|m| m.permissions().mode() & 0o777);
    assert!(mode.is_err() || mode.unwrap() == 0o600);
}

#[tokio::test]
async fn it_is_gone_when_dropped() {
    let cluster = for_tests().await;
    let dir = cluster.dir().to_path_buf();
    assert!(is_running(&dir));
    drop(cluster);
    assert!(!is_running(&dir));
    assert!(!dir.exists());
}

#[tokio::test]
async fn options_are_heard() {
    let cluster = for_tests_with(&TemporaryOptions {
        tls: false,
        settings: vec![("wal_level".into(), "logical".into()), ("fsync".into(), "on".into())],
        hba: vec!["local all postgres trust".into()],
        in_memory: false,
    })
    .await;
    let trusted = cluster.admin().with_role("postgres", None);
    assert_eq!(ask(&trusted, "SHOW wal_level").await, "logical");
    assert_eq!(ask(&trusted, "SHOW fsync").await, "on");
    assert_eq!(ask(&trusted, "SHOW full_page_writes").await, "off");
    assert_eq!(ask(&trusted, "SHOW listen_addresses").await, "");
}

#[tokio::test]
async fn a_bad_setting_is_told_in_the_servers_words() {
    let installation = installation_for_tests().await.unwrap();
    let options = TemporaryOptions {
        settings: vec![("work_mem".into(), "much".into())],
        ..TemporaryOptions::default()
    };
    let cache = cache_for_tests();
    let failure = TemporaryCluster::start_with(&installation, &cache, &options).await.unwrap_err();
    assert!(failure.why.unwrap().contains("invalid value for parameter \"work_mem\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once() {
    let clusters: Vec<_> = (0..4).map(|_| tokio::spawn(for_tests())).collect();
    let mut ports = Vec::new();
    let mut alive = Vec::new();
    for cluster in clusters {
        let cluster = cluster.await.unwrap();
        ports.push(ask(&cluster.loopback(), "SHOW port").await);
        alive.push(cluster);
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 4);
}

#[tokio::test]
async fn every_version_is_had() {
    for major in MAJORS_FOR_TESTS {
        let cluster = for_tests_version(major).await;
        assert_eq!(cluster.installation().major, major);
        assert!(ask(&cluster.loopback(), "SHOW server_version").await.starts_with(&format!("{major}.")));
        assert_eq!(ask(&cluster.loopback(), "SHOW data_checksums").await, "on");
        assert_eq!(ask(&cluster.loopback(), "SHOW shared_preload_libraries").await, "pg_stat_statements");
    }
}

/// Not a test of its own: what `leftovers_of_a_killed_program_are_swept` kills.
#[tokio::test]
async fn child_starts_one_and_waits_to_be_killed() {
    if child::subject().is_none() {
        return;
    }
    let cluster = for_tests().await;
    println!("cluster {}", cluster.dir().display());
    thread::park();
}

#[tokio::test]
async fn leftovers_of_a_killed_program_are_swept() {
    let alive = for_tests().await;
    let mut child = child::same_user("child_starts_one_and_waits_to_be_killed", Path::new("/"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let dir = lines.find_map(|l| l.unwrap().split_once("cluster ").map(|(_, dir)| dir.to_owned())).unwrap();
    let dir = Path::new(&dir);
    assert!(is_running(dir));
    child.kill().unwrap();
    child.wait().unwrap();
    // Another test's start may sweep it at any moment now; ours at the latest.
    let _next = for_tests().await;
    assert!(!is_running(dir));
    assert!(!dir.exists());
    assert!(is_running(alive.dir()), "a living program's cluster is left alone");
}

#[tokio::test]
async fn a_damaged_template_is_made_again() {
    let installation = installation_for_tests().await.unwrap();
    let cache = tempfile::Builder::new().prefix("cache-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(TemporaryCluster::start(&installation, cache.path()).await.unwrap());
    let templates = || fs::read_dir(cache.path().join("initdb")).unwrap().map(|e| e.unwrap().path());
    let template = templates().find(|path| path.is_dir()).unwrap();
    fs::write(template.join("data/global/pg_control"), "").unwrap();
    let cluster = TemporaryCluster::start(&installation, cache.path()).await.unwrap();
    assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
}

/// Not a test of its own: what `an_ordinary_user_without_a_home_can_start_one` runs as another user.
#[tokio::test]
async fn child_starts_one() {
    if child::subject().is_none() {
        return;
    }
    let cluster = for_tests().await;
    assert_eq!(ask(&cluster.loopback(), "SELECT 'well'").await, "well");
}

#[tokio::test]
async fn an_ordinary_user_without_a_home_can_start_one() {
    installation_for_tests().await.unwrap();
    let Some((mut command, _home)) = child::ordinary_user("child_starts_one", child::NOBODY) else { return };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_user_without_an_entry_is_told_what_to_do() {
    installation_for_tests().await.unwrap();
    let Some((mut command, _home)) = child::ordinary_user("child_starts_one", 54_321) else { return };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("PostgreSQL wants an entry for user 54321 in /etc/passwd"), "{said}");
}
