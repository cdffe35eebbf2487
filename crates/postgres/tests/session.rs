//! Sessions on a real server: who is let in, what limits hold, how the end is told.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

use std::time::Duration;

use obyra_evidence::{Code, text::postgres as say};
use obyra_postgres::cluster::{MAJORS_FOR_TESTS, TemporaryCluster, for_tests, for_tests_version};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{
    CHANGE_LOCK_KEY_SQL, ChangeLock, Conninfo, Limits, Session, generate_password, quote, scram_verifier,
};

async fn admin(cluster: &TemporaryCluster) -> Session {
    connect(&cluster.admin()).await
}

async fn connect(target: &Conninfo) -> Session {
    Session::connect(target, Limits::default()).await.unwrap()
}

async fn refused(target: &Conninfo) -> Code {
    let failure = Session::connect(target, Limits::default()).await.expect_err("a refusal");
    assert!(failure.mend.is_some(), "{failure:?}");
    failure.what.code()
}

async fn one(session: &Session, query: &str) -> String {
    session.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn who_is_not_let_in_learns_why() {
    for major in MAJORS_FOR_TESTS {
        let_in(&for_tests_version(major).await).await;
    }
}

async fn let_in(cluster: &TemporaryCluster) {
    let session = admin(cluster).await;
    let password = generate_password().unwrap();
    let verifier = scram_verifier(&password);
    session
        .batch_execute(&format!(
            "CREATE ROLE app LOGIN PASSWORD {verifier}; CREATE ROLE full LOGIN CONNECTION LIMIT 0 PASSWORD {verifier};
             CREATE ROLE nologin NOLOGIN PASSWORD {verifier}",
            verifier = quote::literal(verifier.expose_secret()),
        ))
        .await
        .unwrap();
    session.batch_execute("CREATE DATABASE closed").await.unwrap();
    session.batch_execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").await.unwrap();
    let app = cluster.loopback().with_role("app", Some(password.clone()));
    assert_eq!(one(&connect(&app).await, "SELECT current_user::text").await, "app");

    assert_eq!(refused(&app.with_password(Some("wrong".into()))).await, say::WRONG_PASSWORD);
    assert_eq!(refused(&app.with_password(None)).await, say::PASSWORD_MISSING);
    assert_eq!(refused(&app.with_database("nowhere")).await, say::NO_DATABASE);
    assert_eq!(refused(&app.with_database("closed")).await, say::NO_CONNECT);
    assert_eq!(refused(&app.with_role("full", Some(password.clone()))).await, say::TOO_MANY_CONNECTIONS);
    assert_eq!(refused(&app.with_role("nologin", Some(password.clone()))).await, say::NO_ROLE);
    // PostgreSQL does not tell strangers which roles exist.
    assert_eq!(refused(&app.with_role("nobody", Some(password))).await, say::WRONG_PASSWORD);
}

#[tokio::test]
async fn the_wanted_kind_of_server_is_found_among_the_hosts() {
    for major in MAJORS_FOR_TESTS {
        kinds(&for_tests_version(major).await).await;
    }
}

async fn kinds(cluster: &TemporaryCluster) {
    let session = admin(cluster).await;
    session
        .batch_execute(
            "CREATE ROLE reader LOGIN PASSWORD 'p'; ALTER ROLE reader SET default_transaction_read_only = on",
        )
        .await
        .unwrap();
    let port = cluster.loopback().hosts()[0].port;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let with = |attrs: &str, hosts: &str, ports: &str| {
        Conninfo::parse(&format!(
            "host={hosts} port={ports} user=reader password=p dbname=postgres sslmode=require target_session_attrs={attrs}"
        ))
        .unwrap()
    };
    let (here, ports) = ("127.0.0.1", port.to_string());
    for attrs in ["any", "read-only", "primary", "prefer-standby"] {
        connect(&with(attrs, here, &ports)).await;
        connect(&with(attrs, "127.0.0.1,127.0.0.1", &format!("{closed},{port}"))).await;
    }
    for attrs in ["read-write", "standby"] {
        let failure = Session::connect(&with(attrs, here, &ports), Limits::default()).await.unwrap_err();
        assert_eq!(failure.what.code(), say::WRONG_KIND_OF_SERVER);
        let several = with(attrs, "127.0.0.1,127.0.0.1", &format!("{closed},{port}"));
        let failure = Session::connect(&several, Limits::default()).await.unwrap_err();
        assert_eq!(failure.what.code(), say::NO_HOST);
        let why = failure.why.unwrap();
        assert!(why.contains("refuses connections") && why.contains(attrs), "{why}");
    }
}

#[tokio::test]
async fn a_session_has_a_name_and_limits_and_keeps_them() {
    for major in MAJORS_FOR_TESTS {
        limits(&for_tests_version(major).await).await;
    }
}

async fn limits(cluster: &TemporaryCluster) {
    let limits = Limits { lock_timeout: Some(Duration::from_millis(1500)), statement_timeout: None };
    let session = Session::connect(&cluster.loopback(), limits).await.unwrap();
    assert_eq!(one(&session, "SHOW application_name").await, "obyra-db");
    let named = connect(&cluster.admin().with_application_name("drill")).await;
    assert_eq!(one(&named, "SHOW application_name").await, "drill");
    assert_eq!(one(&named, "SHOW lock_timeout").await, "5s");
    assert!(session.version().at_least(cluster.installation().major) && !session.in_recovery());
    assert_eq!(
        one(&session, "SHOW server_version").await.split(' ').next().unwrap(),
        session.version().to_string()
    );

    session
        .batch_execute(
            "CREATE ROLE other; SET ROLE other; SET search_path = nowhere; SET lock_timeout = '1h'",
        )
        .await
        .unwrap();
    session.reset().await.unwrap();
    assert_eq!(one(&session, "SHOW lock_timeout").await, "1500ms");
    assert_eq!(one(&session, "SHOW statement_timeout").await, "0");
    assert_eq!(
        one(&session, "SELECT current_user || current_setting('search_path')").await,
        "postgres\"$user\", public"
    );

    session.batch_execute("DO $$ BEGIN RAISE NOTICE 'mirá'; END $$").await.unwrap();
    assert_eq!(session.take_notices(), ["NOTICE: mirá"]);
    assert!(session.take_notices().is_empty());
}

#[tokio::test]
async fn the_end_of_a_session_is_told() {
    for major in MAJORS_FOR_TESTS {
        ends(&for_tests_version(major).await).await;
    }
}

async fn ends(cluster: &TemporaryCluster) {
    let watcher = admin(cluster).await;
    let session = connect(&cluster.loopback()).await;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // The statement is closed in the background, and that answer would swallow the last words.
    session.batch_execute("").await.unwrap();
    watcher.query_one("SELECT pg_terminate_backend($1, 5000)", &[&pid]).await.unwrap();
    let error = session.query("SELECT 1", &[]).await.unwrap_err();
    let failure = session.failure(say::GREETING.with("server", "x"), &error).await;
    assert!(failure.why.unwrap().contains("terminating connection due to administrator command"));

    let session = connect(&cluster.loopback()).await;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    drop(session);
    for _ in 0..100 {
        let found = watcher.query_opt("SELECT FROM pg_stat_activity WHERE pid = $1", &[&pid]).await.unwrap();
        if found.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server still has the session");
}

#[tokio::test]
async fn a_session_that_is_dropped_in_the_middle_holds_nothing_for_long() {
    let cluster = for_tests().await;
    let watcher = admin(&cluster).await;
    watcher.batch_execute("CREATE TABLE t ()").await.unwrap();
    for target in [cluster.admin(), cluster.loopback()] {
        let busy = tokio::spawn(async move {
            let session = connect(&target).await;
            let _ = session.batch_execute("BEGIN; LOCK TABLE t; SELECT pg_sleep(60)").await;
        });
        let held = "SELECT count(*)::text FROM pg_locks WHERE relation = 't'::regclass AND granted";
        while one(&watcher, held).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        busy.abort();
        let since = std::time::Instant::now();
        while one(&watcher, held).await != "0" {
            assert!(since.elapsed() < Duration::from_secs(20), "the lock is still held");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn one_at_a_time_changes_a_database_and_the_other_learns_who() {
    for major in MAJORS_FOR_TESTS {
        locks(&for_tests_version(major).await).await;
    }
}

async fn locks(cluster: &TemporaryCluster) {
    let first = connect(&cluster.admin().with_application_name("deploy 7")).await;
    let second = connect(&cluster.loopback()).await;
    let lock = ChangeLock::acquire(&first, Duration::ZERO).await.unwrap();
    // The holder may take it again inside a transaction, as access does.
    first
        .batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({CHANGE_LOCK_KEY_SQL}); COMMIT"))
        .await
        .unwrap();

    let failure = ChangeLock::acquire(&second, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(failure.what.code(), say::LOCK_HELD);
    assert_eq!(failure.what.fields()["application"], "deploy 7");
    assert_eq!(failure.what.fields()["role"], "postgres");
    let pid = one(&first, "SELECT pg_backend_pid()::text").await;
    assert_eq!(failure.what.fields()["pid"], pid);
    assert!(failure.what.fields()["since"].ends_with('Z'), "{failure}");

    // Somebody without rights on statistics still learns the holder.
    first.batch_execute("CREATE ROLE plain LOGIN PASSWORD 'p'").await.unwrap();
    let plain = connect(&cluster.admin().with_role("plain", Some("p".into()))).await;
    let failure = ChangeLock::acquire(&plain, Duration::ZERO).await.unwrap_err();
    assert_eq!(failure.what.fields()["application"], "deploy 7");
    assert_eq!(failure.what.fields()["since"], "?");

    // Another database has a lock of its own.
    first.batch_execute("CREATE DATABASE other").await.unwrap();
    let elsewhere = connect(&cluster.admin().with_database("other")).await;
    ChangeLock::acquire(&elsewhere, Duration::ZERO).await.unwrap().release(&elsewhere).await.unwrap();

    let waiting = tokio::spawn(async move {
        let lock = ChangeLock::acquire(&second, Duration::from_secs(10)).await.unwrap();
        lock.release(&second).await.unwrap();
        second
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    lock.release(&first).await.unwrap();
    let second = waiting.await.unwrap();

    // A lock that was given back behind our back is not given back in silence.
    let lock = ChangeLock::acquire(&second, Duration::ZERO).await.unwrap();
    second.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    assert_eq!(lock.release(&second).await.unwrap_err().what.code(), say::LOCK_LOST);
}

#[tokio::test]
async fn names_and_literals_are_what_the_server_makes_of_them() {
    for major in MAJORS_FOR_TESTS {
        quotes(&for_tests_version(major).await).await;
    }
}

async fn quotes(cluster: &TemporaryCluster) {
    let session = admin(cluster).await;
    let words = session.query("SELECT word FROM pg_get_keywords()", &[]).await.unwrap();
    let mut names: Vec<String> = words.iter().map(|row| row.get(0)).collect();
    names.extend(
        ["a", "A", "a b", "ñ", "1a", "a1", "a$", "_", "", "a\"b", "a'b", "a\\b", "a\nb"].map(String::from),
    );
    for name in names {
        let row = session.query_one("SELECT quote_ident($1), quote_literal($1)", &[&name]).await.unwrap();
        let (ident, literal): (String, String) = (row.get(0), row.get(1));
        // Words that only newer versions keep are quoted too.
        let newer = [
            "json",
            "json_exists",
            "json_query",
            "json_scalar",
            "json_serialize",
            "json_table",
            "json_value",
            "merge_action",
        ];
        if !newer.contains(&name.as_str()) {
            assert_eq!(quote::ident(&name), ident);
        }
        assert_eq!(quote::literal(&name), literal);
        assert_eq!(one(&session, &format!("SELECT {}::text", quote::literal(&name))).await, name);
    }
}
