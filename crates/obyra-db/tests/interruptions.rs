//! The program or the server dies in the middle of an apply: nothing is half applied, no lock is
//! left, and the next apply succeeds.
//!
//! An event trigger holds the apply at a chosen statement until it has been struck, so that
//! every round hits the moment it is meant to hit.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use std::process::{Child, Stdio};

use obyra_postgres::cluster::{TemporaryCluster, for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Reveal, Scheme, Session};
use project::{PRODUCTION, Project};
use rustix::process::{Pid, Signal, kill_process};

/// Waits at the statement whose number stands in `stop.at`, counted within the transaction.
const STOP: &str = "
CREATE SCHEMA stop;
CREATE TABLE stop.at (statement int);
INSERT INTO stop.at VALUES (0);
CREATE FUNCTION stop.here() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE n int := coalesce(nullif(current_setting('stop.n', true), ''), '0')::int + 1;
BEGIN
  PERFORM set_config('stop.n', n::text, true);
  IF n = (SELECT statement FROM stop.at) THEN PERFORM pg_advisory_lock(42); END IF;
END $$;
CREATE EVENT TRIGGER stop ON ddl_command_start EXECUTE FUNCTION stop.here();
";

/// What strikes.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillProgram,
    CtrlC,
    Terminate,
    /// A backend that dies by SIGKILL makes the postmaster restart the whole server.
    CrashServer,
}

async fn connect(database: &Conninfo) -> Session {
    // A server that is just recovering refuses connections: asking again is waiting for it.
    loop {
        if let Ok(session) = Session::connect(database, Limits::default()).await {
            return session;
        }
        tokio::task::yield_now().await;
    }
}

async fn until(session: &Session, condition: &str) {
    while !session.query_one(condition, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
}

const HELD: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'obyra-db' \
                    AND wait_event = 'advisory' AND pid <> pg_backend_pid())";
const GONE: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'obyra-db' \
                    AND pid <> pg_backend_pid() AND backend_type = 'client backend')";

async fn strike(database: &Conninfo, project: &Project, blow: Blow, statement: i32) {
    let holder = connect(&database.with_application_name("the test")).await;
    holder.batch_execute(&format!("UPDATE stop.at SET statement = {statement}")).await.unwrap();
    holder.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let mut program = project
        .process(&["apply", "production", "--yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(&holder, HELD).await;
    let backend =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'obyra-db' AND wait_event = 'advisory'";
    let backend: i32 = holder.query_one(backend, &[]).await.unwrap().get(0);
    hit(blow, &mut program, backend);
    let status = program.wait().unwrap();
    assert!(!status.success(), "{blow:?} at statement {statement}");
    if matches!(blow, Blow::CtrlC | Blow::Terminate) {
        assert_eq!(status.code(), Some(130), "{blow:?} at statement {statement}");
    }
    drop(holder);
    nothing_is_left(database, blow, statement).await;
}

fn hit(blow: Blow, program: &mut Child, backend: i32) {
    let process = Pid::from_child(program);
    match blow {
        Blow::KillProgram => kill_process(process, Signal::KILL).unwrap(),
        Blow::CtrlC => kill_process(process, Signal::INT).unwrap(),
        Blow::Terminate => kill_process(process, Signal::TERM).unwrap(),
        Blow::CrashServer => kill_process(Pid::from_raw(backend).unwrap(), Signal::KILL).unwrap(),
    }
}

async fn nothing_is_left(database: &Conninfo, blow: Blow, statement: i32) {
    let observer = connect(&database.with_application_name("the test")).await;
    until(&observer, GONE).await;
    let left = "SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'obyra%') \
                + (SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'audit')) \
                + (SELECT count(*) FROM pg_default_acl) \
                + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
    let left: i64 = observer.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "{blow:?} at statement {statement} left something");
}

async fn production() -> (TemporaryCluster, Conninfo, Project) {
    let cluster = for_tests().await;
    let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
    admin.batch_execute("CREATE DATABASE obyra").await.unwrap();
    let database = cluster.loopback().with_database("obyra");
    connect(&database).await.batch_execute(STOP).await.unwrap();
    let mut project = Project::with(PRODUCTION);
    project.set("ADMIN_URL", database.url(Scheme::Postgresql, Reveal::Password).expose_secret());
    for role in ["APP", "READONLY"] {
        project.set(&format!("OBYRA_PRODUCTION_OBYRA_{role}_PASSWORD"), "a-password-0123456789");
    }
    (cluster, database, project)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_in_the_middle_of_an_apply_nothing_is_half_applied() {
    let (_cluster, database, project) = production().await;
    for statement in [1, 3, 6, 10] {
        for blow in [Blow::KillProgram, Blow::CtrlC, Blow::Terminate, Blow::CrashServer] {
            strike(&database, &project, blow, statement).await;
        }
    }
    connect(&database).await.batch_execute("DROP EVENT TRIGGER stop").await.unwrap();
    project.run(&["apply", "production", "--yes"]).ends(0);
    project.run(&["plan", "production"]).ends(0);
    project.run(&["evidence", "verify"]).ends(0);
}
