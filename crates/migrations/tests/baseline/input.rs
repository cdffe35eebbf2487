//! What cannot be a baseline is named, with its place and what mends it, before anything is written.

use std::fs;

use obyra_evidence::Exit;
use obyra_migrations::baseline::Truth;

use crate::support::{Database, Project, code, mend, place};
use crate::{Parts, drafted, superuser, told};

const USERS: &str = "CREATE SCHEMA app;\nCREATE TABLE app.users (id int);\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_none() {
    let project = Project::new();
    let parts = Parts::of(&project, 16).await;
    let newer = "-- Dumped from database version 18.1\n-- Dumped by pg_dump version 18.1\n";
    let cases: [(&str, &[u8], &str, &str); 8] = [
        ("archive", b"PGDMP\x01\x0e\x00", "baseline.dump-is-archive", ""),
        ("zipped", b"\x1f\x8b\x08\x00", "baseline.dump-is-archive", ""),
        ("latin", b"CREATE TABLE a\xf1o (id int);", "baseline.dump-unreadable", ""),
        ("newer", newer.as_bytes(), "baseline.dump-newer", ""),
        (
            "rows",
            b"SET x = 1;\n\nCOPY app.users (id) FROM stdin;\n1\n\\.\n",
            "baseline.dump-has-rows",
            "rows:3",
        ),
        (
            "inserts",
            b"CREATE TABLE t (id int);\nINSERT INTO t VALUES (1);\n",
            "baseline.dump-has-rows",
            "inserts:2",
        ),
        ("connect", b"CREATE DATABASE a;\n\\connect a\n", "baseline.dump-has-meta", "connect:2"),
        ("include", b"\\i other.sql\n", "baseline.dump-has-meta", "include:1"),
    ];
    for (name, bytes, expected, at) in cases {
        let file = project.path().join(name);
        fs::write(&file, bytes).expect("a file");
        let failure = parts.draft(&project, &Truth::Dump(file)).await.expect_err(name);
        assert_eq!((code(&failure), failure.exit), (expected, Exit::Usage), "{name}: {failure}");
        assert!(failure.why.is_some() || failure.mend.is_some(), "{name}: {failure}");
        if !at.is_empty() {
            assert_eq!(place(&project, &failure), at);
        }
    }
    let failure = parts.draft(&project, &Truth::Dump("nowhere.sql".into())).await.expect_err("no file");
    assert_eq!(code(&failure), "baseline.dump-unreadable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pg_dump_writes_around_a_schema_is_no_obstacle() {
    let dump = "
\\restrict a1B2c3
-- Dumped from database version 16.10
-- Dumped by pg_dump version 17.6
SET transaction_timeout = 0;
SET check_function_bodies = false;
--
-- Name: app; Type: SCHEMA; Schema: -; Owner: somebody
--
CREATE SCHEMA app;
ALTER SCHEMA app OWNER TO somebody;
--
-- Name: users; Type: TABLE; Schema: app; Owner: somebody
--
CREATE TABLE app.users (id int);
ALTER TABLE app.users OWNER TO somebody;
--
-- Name: other; Type: SCHEMA; Schema: -; Owner: somebody
--
CREATE SCHEMA other;
--
-- Name: left_over; Type: TABLE; Schema: other; Owner: somebody
--
CREATE TABLE other.left_over (id int);
--
-- Name: watch; Type: EVENT TRIGGER; Schema: -; Owner: somebody
--
CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION other.watch();
--
-- Name: rare; Type: EXTENSION; Schema: -; Owner: -
--
CREATE EXTENSION IF NOT EXISTS rare WITH SCHEMA public;
--
-- Name: EXTENSION rare; Type: COMMENT; Schema: -; Owner: -
--
COMMENT ON EXTENSION rare IS 'not everywhere';
--
-- Name: TABLE users; Type: ACL; Schema: app; Owner: somebody
--
GRANT SELECT ON TABLE app.users TO reporting;
--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: app; Owner: somebody
--
ALTER DEFAULT PRIVILEGES FOR ROLE somebody IN SCHEMA app GRANT SELECT ON TABLES TO reporting;
\\unrestrict a1B2c3
";
    let draft = drafted(&Project::new(), dump).await.expect("a draft");
    let expected = [
        "baseline.beside event trigger watch",
        "baseline.extension-left-out extension rare",
        "baseline.beside table other.left_over",
    ];
    assert_eq!(told(&draft), expected, "{:#?}", draft.findings);
    assert!(draft.is_proven());
    assert!(!draft.revision.source.contains("somebody") && !draft.revision.source.contains("GRANT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_needs_and_the_strategy_does_not_have() {
    let project = Project::new();
    let needs = format!(
        "{USERS}-- Name: x; Type: TABLE; Schema: app; Owner: -\nCREATE TABLE app.x (y other.kind);\n"
    );
    let failure = drafted(&project, &needs).await.expect_err("no such schema");
    assert_eq!((code(&failure), mend(&failure)), ("baseline.restore-failed", "baseline.mend-outside"));
    assert_eq!(place(&project, &failure), "schema.sql:4");

    let extension = "-- Name: rare; Type: EXTENSION; Schema: -; Owner: -\nCREATE EXTENSION rare;\n";
    let failure = drafted(&project, &format!("{USERS}{extension}{}", &needs[USERS.len()..])).await;
    assert_eq!(mend(&failure.expect_err("no such extension")), "baseline.mend-extension");

    // Without pg_dump's remarks nobody can tell what to leave out.
    let failure = drafted(&project, "CREATE SCHEMA other; CREATE TABLE other.t (id int);").await;
    assert_eq!(code(&failure.expect_err("another schema")), "baseline.dump-outside");

    let failure = drafted(&project, "CREATE SCHEMA app; SELECT 1;").await.expect_err("nothing");
    assert_eq!(code(&failure), "baseline.nothing");

    // A policy of a role that nobody declares.
    let policy = format!("{USERS}CREATE POLICY p ON app.users TO stranger USING (true);\n");
    let failure = drafted(&project, &policy).await.expect_err("no such role");
    assert!(failure.to_string().contains("role \"stranger\" does not exist"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_the_migration_may_not_make() {
    let sql =
        "CREATE SCHEMA app; CREATE EXTENSION postgres_fdw SCHEMA public; CREATE TABLE app.users (id int);";
    let draft = drafted(&Project::new(), sql).await.expect("a draft");
    assert_eq!(told(&draft)[0].split(' ').next(), Some("baseline.upgrade-failed"), "{:#?}", draft.findings);
    let said = draft.findings[0].message.to_string();
    assert!(said.contains("permission denied to create extension \"postgres_fdw\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_in_the_middle() {
    let (project, database) = (Project::new(), Database::new().await);
    let admin = database.another().await;
    admin.batch_execute("CREATE TABLE app.users (id int)").await.expect("a table");
    let parts = Parts::of(&project, 16).await;
    let live = superuser(&database);
    // pg_dump waits for this lock, and loses its connection there.
    admin.batch_execute("BEGIN; LOCK TABLE app.users IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let end = async {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^LOCK'";
        while database.admin.query(sql, &[]).await.expect("an answer").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let truth = Truth::Live(Box::new(live));
    let (failure, ()) = tokio::join!(parts.draft(&project, &truth), end);
    let failure = failure.expect_err("the connection is gone");
    assert_eq!(code(&failure), "baseline.dump-failed");
    assert!(failure.to_string().contains("terminating connection"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_newer_than_the_programs() {
    let (project, database) = (Project::new(), Database::new().await);
    let parts = Parts::of(&project, 15).await;
    let live = superuser(&database);
    let failure = parts.draft(&project, &Truth::Live(Box::new(live))).await.expect_err("newer");
    assert_eq!((code(&failure), mend(&failure)), ("baseline.server-newer", "baseline.mend-newer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_alembic() {
    let project = Project::new();
    fs::remove_file(project.path().join("migrations/env.py")).expect("a file");
    let failure = drafted(&project, USERS).await.expect_err("no env.py");
    assert_eq!((code(&failure), failure.exit), ("migrations.directory-without-env", Exit::Usage));
    let failure = Parts::of(&Project::new(), 16).await;
    let models = failure.draft(&Project::new(), &Truth::Models(Vec::new())).await.expect_err("no models");
    assert_eq!(code(&models), "baseline.create-all-failed");
}
