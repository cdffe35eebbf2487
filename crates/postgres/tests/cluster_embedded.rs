//! Persistent clusters, on the real thing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod child;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::{fs, process};

use obyra_evidence::{Exit, Quiet};
use obyra_postgres::cluster::{
    Embedded, EmbeddedSpec, Purpose, State, installation_for_tests, installation_for_tests_version,
    reachable_dir,
};
use obyra_postgres::{Conninfo, Limits, Result, Session};
use rustix::process::{Pid, Signal, kill_process};

/// A folder for one cluster, which ends with the test, even a failed one.
struct Ground {
    home: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let home = tempfile::Builder::new().prefix("ground-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Ground { home }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("clusters/dev")
    }

    async fn up(&self) -> Embedded {
        up(&self.dir()).await.unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let dir = self.dir();
        let runtime = || tokio::runtime::Runtime::new().unwrap().block_on(Embedded::destroy(&dir));
        let _ = std::thread::scope(|scope| scope.spawn(runtime).join());
    }
}

async fn up(dir: &Path) -> Result<Embedded> {
    let installation = installation_for_tests().await?;
    let spec = EmbeddedSpec { dir: dir.to_path_buf(), ..EmbeddedSpec::default() };
    Embedded::up(&spec, &installation, &Quiet).await
}

async fn session(target: &Conninfo) -> Session {
    Session::connect(target, Limits::default()).await.unwrap()
}

async fn ask(target: &Conninfo, sql: &str) -> String {
    session(target).await.query_one(sql, &[]).await.unwrap().get(0)
}

async fn pid(dir: &Path) -> u32 {
    match Embedded::status(dir).await.unwrap() {
        State::Running { pid, .. } => pid,
        other => panic!("{other:?}"),
    }
}

/// Kills a process and waits until the kernel has taken it down.
fn kill_9(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    while fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_new_cluster_is_as_the_strategy_wants_it() {
    let ground = Ground::new();
    assert_eq!(Embedded::status(&ground.dir()).await.unwrap(), State::Absent);
    assert!(Embedded::open(&ground.dir()).unwrap().is_none());
    let cluster = ground.up().await;
    let admin = cluster.admin();
    for (setting, wanted) in [
        ("data_checksums", "on"),
        ("ssl", "on"),
        ("ssl_min_protocol_version", "TLSv1.2"),
        ("password_encryption", "scram-sha-256"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("fsync", "on"),
    ] {
        assert_eq!(ask(&admin, &format!("SHOW {setting}")).await, wanted, "{setting}");
    }
    let collation = "SELECT datcollate FROM pg_database WHERE datname = 'template1'";
    assert_eq!(ask(&admin, collation).await, "C.UTF-8");
    let session = session(&cluster.loopback()).await;
    session
        .batch_execute("CREATE EXTENSION pg_stat_statements; SELECT * FROM pg_stat_statements")
        .await
        .unwrap();
    let rules = "SELECT string_agg(DISTINCT type || ' ' || auth_method, ',') FROM pg_hba_file_rules";
    assert_eq!(ask(&admin, rules).await, "hostssl scram-sha-256,local scram-sha-256");
    let mode = |name: &str| fs::metadata(cluster.dir().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("password"), mode("data"), mode("socket")), (0o600, 0o700, 0o700));
    assert!(
        !format!("{cluster:?}").contains(fs::read_to_string(cluster.dir().join("password")).unwrap().trim())
    );
}

#[tokio::test]
async fn up_again_changes_nothing() {
    let ground = Ground::new();
    ground.up().await;
    let first = pid(&ground.dir()).await;
    let again = ground.up().await;
    assert_eq!(pid(&ground.dir()).await, first);
    assert_eq!(Embedded::open(&ground.dir()).unwrap().unwrap().port(), again.port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn three_ups_at_once_make_one_server() {
    let ground = Ground::new();
    let ups: Vec<_> =
        (0..3).map(|_| ground.dir()).map(|dir| tokio::spawn(async move { up(&dir).await })).collect();
    for up in ups {
        let cluster = up.await.unwrap().unwrap();
        assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
    }
}

#[tokio::test]
async fn data_survives_the_kill_of_the_postmaster() {
    let ground = Ground::new();
    let cluster = ground.up().await;
    let session = session(&cluster.admin()).await;
    session.batch_execute("CREATE TABLE kept AS SELECT 'kept' AS word").await.unwrap();
    let busy = tokio::spawn(async move { session.batch_execute("SELECT pg_sleep(600)").await });
    let killed = pid(&ground.dir()).await;
    kill_9(killed);
    let cluster = ground.up().await;
    assert_ne!(pid(&ground.dir()).await, killed);
    assert_eq!(ask(&cluster.admin(), "SELECT word FROM kept").await, "kept");
    assert!(busy.await.unwrap().is_err());
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle() {
    let ground = Ground::new();
    ground.up().await;
    kill_9(pid(&ground.dir()).await);
    let pid_file = ground.dir().join("data/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    let rest = text.split_once('\n').unwrap().1;
    fs::write(&pid_file, format!("{}\n{rest}", process::id())).unwrap();
    assert_eq!(Embedded::status(&ground.dir()).await.unwrap(), State::Stopped);
    assert!(!Embedded::down(&ground.dir()).await.unwrap(), "a stranger is not stopped");
    let cluster = ground.up().await;
    assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
}

#[tokio::test]
async fn down_stops_and_up_finds_the_same_port() {
    let ground = Ground::new();
    assert!(!Embedded::down(&ground.dir()).await.unwrap());
    let port = ground.up().await.port();
    assert!(Embedded::down(&ground.dir()).await.unwrap());
    assert_eq!(Embedded::status(&ground.dir()).await.unwrap(), State::Stopped);
    assert!(!Embedded::down(&ground.dir()).await.unwrap());
    assert_eq!(Embedded::open(&ground.dir()).unwrap().unwrap().port(), port);
    assert_eq!(ground.up().await.port(), port);
}

#[tokio::test]
async fn a_taken_port_is_left_to_whoever_has_it() {
    let ground = Ground::new();
    let port = ground.up().await.port();
    Embedded::down(&ground.dir()).await.unwrap();
    let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let cluster = ground.up().await;
    assert_ne!(cluster.port(), port);
    assert_eq!(ask(&cluster.loopback(), "SHOW port").await, cluster.port().to_string());
}

#[tokio::test]
async fn an_interrupted_initdb_is_done_again() {
    let ground = Ground::new();
    fs::create_dir_all(ground.dir().join("data.new/base")).unwrap();
    fs::write(ground.dir().join("data.new/base/1"), "half").unwrap();
    let cluster = ground.up().await;
    assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
    assert!(!ground.dir().join("data.new").exists());
    assert!(!ground.dir().join("data.password").exists());
}

#[tokio::test]
async fn what_is_no_cluster_is_not_overwritten() {
    let ground = Ground::new();
    fs::create_dir_all(ground.dir().join("data")).unwrap();
    fs::write(ground.dir().join("data/precious"), "data").unwrap();
    let failure = up(&ground.dir()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Refused, "{failure}");
    assert!(ground.dir().join("data/precious").exists());
}

#[tokio::test]
async fn changed_settings_restart_it() {
    let ground = Ground::new();
    ground.up().await;
    let installation = installation_for_tests().await.unwrap();
    let settings = vec![("max_connections".to_owned(), "42".to_owned())];
    let spec = EmbeddedSpec { dir: ground.dir(), settings };
    let cluster = Embedded::up(&spec, &installation, &Quiet).await.unwrap();
    assert_eq!(ask(&cluster.admin(), "SHOW max_connections").await, "42");
}

#[tokio::test]
async fn a_deep_folder_with_odd_characters_works() {
    let ground = Ground::new();
    let dir = ground.home.path().join("it's a \"deep\", $HOME folder/".repeat(4));
    let cluster = up(&dir).await.unwrap();
    assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
    assert_eq!(ask(&cluster.loopback(), "SELECT 'well'").await, "well");
    Embedded::destroy(&dir).await.unwrap();
}

#[tokio::test]
async fn destroy_leaves_nothing() {
    let ground = Ground::new();
    Embedded::destroy(&ground.dir()).await.unwrap();
    let cluster = ground.up().await;
    let admin = cluster.admin();
    Embedded::destroy(&ground.dir()).await.unwrap();
    assert!(!ground.dir().exists());
    assert_eq!(Embedded::status(&ground.dir()).await.unwrap(), State::Absent);
    assert!(Session::connect(&admin, Limits::default()).await.is_err());
}

#[tokio::test]
async fn another_majors_cluster_is_refused() {
    let installation = installation_for_tests_version(15).await.unwrap();
    let ground = Ground::new();
    ground.up().await;
    Embedded::down(&ground.dir()).await.unwrap();
    let spec = EmbeddedSpec { dir: ground.dir(), ..EmbeddedSpec::default() };
    let failure = Embedded::up(&spec, &installation, &Quiet).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let failure = up(Path::new("/dev/null/clusters/dev")).await.unwrap_err();
    assert!(failure.to_string().contains("/dev/null"), "{failure}");
}

#[tokio::test]
async fn roots_closed_folder_is_replaced_by_an_open_one() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let ground = Ground::new();
    fs::set_permissions(ground.home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let chosen = reachable_dir(&ground.dir(), Purpose::Cluster).unwrap();
    assert!(chosen.starts_with("/var/lib/obyra-db"), "{}", chosen.display());
    let cluster = ground.up().await;
    assert_eq!(cluster.dir(), chosen);
    fs::set_permissions(ground.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(ground.up().await.dir(), chosen, "it stays where it is when the folder opens");
    Embedded::destroy(&ground.dir()).await.unwrap();
    assert!(!chosen.exists());
}

/// Not a test of its own: what `an_ordinary_user_can_do_it_all` runs as another user.
#[tokio::test]
async fn child_does_it_all() {
    let Some(home) = child::subject() else { return };
    let dir = home.join("clusters/dev");
    let cluster = up(&dir).await.unwrap();
    assert_eq!(ask(&cluster.loopback(), "SELECT 'well'").await, "well");
    assert!(Embedded::down(&dir).await.unwrap());
    Embedded::destroy(&dir).await.unwrap();
    assert!(!dir.exists());
    fs::set_permissions(&home, fs::Permissions::from_mode(0o555)).unwrap();
    let failure = up(&home.join("closed")).await.unwrap_err();
    assert!(failure.to_string().contains("closed"), "{failure}");
    assert!(failure.mend.is_some());
}

#[tokio::test]
async fn an_ordinary_user_can_do_it_all() {
    // Before, so that the other user finds the programs in the shared cache.
    installation_for_tests().await.unwrap();
    let Some((mut command, _home)) = child::ordinary_user("child_does_it_all", child::NOBODY) else { return };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Not a test of its own: what `a_program_killed_at_any_moment_is_no_obstacle` kills.
#[tokio::test]
async fn child_brings_one_up() {
    let Some(dir) = child::subject() else { return };
    up(&dir).await.unwrap();
}

#[tokio::test]
async fn a_program_killed_at_any_moment_is_no_obstacle() {
    let ground = Ground::new();
    for milliseconds in [50, 200, 500, 900, 1300] {
        let mut child = child::same_user("child_brings_one_up", &ground.dir()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "it failed before it was killed");
    }
    let cluster = ground.up().await;
    assert_eq!(ask(&cluster.admin(), "SELECT 'well'").await, "well");
    let strays = fs::read_dir(ground.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let expected = ["ca.crt", "data", "lock", "password", "port", "server.log", "socket"];
    assert_eq!(strays.filter(|name| !expected.contains(&name.as_str())).collect::<Vec<_>>(), [""; 0]);
}
