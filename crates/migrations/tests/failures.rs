//! What goes wrong in a deploy is named: the place, the database's words, and what stayed applied.

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use obyra_migrations::driver::Workplace;
use obyra_migrations::{Deployment, PythonEnvironment, Unconverged, deploy};
use obyra_postgres::Session;
use support::{Database, Project, code, mend, place, python};

const USERS: &str = "op.execute('CREATE TABLE users (id int PRIMARY KEY)')";

#[tokio::test]
async fn a_revision_that_raises_leaves_nothing() {
    let project = Project::new().revision("one", &[], USERS).revision(
        "two",
        &["one"],
        "op.execute('CREATE TABLE a (id int)')\nop.execute('SELECT nothing')",
    );
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.revision-rolled-back");
    assert_eq!(place(&project, &failure), "migrations/versions/two.py:10");
    let said = failure.to_string();
    assert!(said.contains("ERROR 42703: column \"nothing\" does not exist"), "{said}");
    assert!(said.contains("revision two (the two revision)") && said.contains("stands at base"), "{said}");
    assert!(!database.has("app.users").await);
}

#[tokio::test]
async fn an_error_of_the_database_s_own_driver_is_quoted_as_well() {
    let raw = "op.get_bind().connection.cursor().execute('SELECT nothing')";
    let project = Project::new().revision("one", &[], raw);
    let failure = Database::new().await.deploy(&project).await.unwrap_err();
    assert!(failure.to_string().contains("ERROR 42703: column \"nothing\" does not exist"), "{failure}");
}

#[tokio::test]
async fn what_other_revisions_committed_stays() {
    let project = Project::with_env("pass", ", transaction_per_migration=True")
        .revision("one", &[], USERS)
        .revision("two", &["one"], "op.execute('CREATE TABLE a (id int)')\nraise RuntimeError('no more')");
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.revision-rolled-back");
    let said = failure.to_string();
    assert!(said.contains("stands at one") && said.contains("RuntimeError: no more"), "{said}");
    assert!(database.has("app.users").await && !database.has("app.a").await);
}

#[tokio::test]
async fn what_a_revision_committed_in_its_middle_is_counted() {
    let torn = "op.execute('CREATE TABLE a (id int)')
with op.get_context().autocommit_block():
    op.execute('CREATE TABLE b (id int)')
op.execute('CREATE TABLE c (id int)')
raise RuntimeError('late')";
    let project = Project::with_env("pass", ", transaction_per_migration=True")
        .revision("one", &[], USERS)
        .revision("two", &["one"], torn);
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.revision-left-objects", "migrations.mend-left-objects")
    );
    let said = failure.to_string();
    assert!(said.contains("stands at one, and 2 new objects stayed"), "{said}");
    assert!(database.has("app.b").await && !database.has("app.c").await);
}

#[tokio::test]
async fn a_revision_that_ends_the_process_is_named() {
    let exits = Project::new().revision("one", &[], "print('giving up')\nimport sys\nsys.exit(3)");
    let database = Database::new().await;
    let failure = database.deploy(&exits).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.revision-rolled-back", "migrations.mend-system-exit")
    );
    assert_eq!(place(&exits, &failure), "migrations/versions/one.py:11");
    let said = failure.to_string();
    assert!(said.contains("sys.exit(3)") && said.contains("giving up"), "{said}");

    let vanishes = Project::new().revision("one", &[], "import os\nos._exit(3)");
    let failure = database.deploy(&vanishes).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.driver-silent");
    assert!(failure.to_string().contains("exit status: 3"), "{failure}");
    assert_eq!(place(&vanishes, &failure), "migrations/versions/one.py:1");
}

#[tokio::test]
async fn a_lock_that_another_session_holds_is_not_waited_for_for_ever() {
    let database = Database::new().await;
    let project = Project::new().revision("one", &[], USERS);
    database.deploy(&project).await.unwrap();
    let other = database.another().await;
    other.batch_execute("BEGIN; LOCK TABLE app.users IN ACCESS SHARE MODE").await.unwrap();

    let project = project.revision("two", &["one"], "op.execute('ALTER TABLE users ADD COLUMN name text')");
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.revision-rolled-back", "migrations.mend-lock-timeout")
    );
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(database.deploy(&project).await.unwrap().revisions.len(), 1);
}

#[tokio::test]
async fn env_py_that_raises_is_named_without_the_password() {
    let project = Project::with_env("raise RuntimeError('cannot use ' + os.environ['DATABASE_URL'])", "");
    let database = Database::new().await;
    let failure = database.deploy(&project.revision("one", &[], USERS)).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.env-failed");
    let said = format!("{failure} {failure:?}");
    assert!(said.contains("RuntimeError: cannot use postgresql+psycopg://migrator:***@"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[tokio::test]
async fn a_broken_revision_file_is_named() {
    let project = Project::new().revision("one", &[], "op.execute('unclosed");
    let failure = Database::new().await.deploy(&project).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.graph-unreadable");
    assert_eq!(place(&project, &failure), "migrations/versions/one.py:9");

    let project = Project::new().revision("two", &["lost"], "pass");
    let failure = Database::new().await.deploy(&project).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.graph-unreadable");
    assert!(failure.to_string().contains("lost"), "{failure}");
}

#[tokio::test]
async fn a_python_without_alembic_is_named() {
    let (database, project) = (Database::new().await, Project::new().revision("one", &[], USERS));
    let bare = project.path().join("bare");
    #[expect(clippy::disallowed_methods, reason = "a Python without packages is not what the room makes")]
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&bare).status();
    assert!(made.unwrap().success());
    let python = PythonEnvironment {
        interpreter: bare.join("bin/python"),
        path: None,
        origin: obyra_migrations::python::Origin::Configured,
    };
    let deployment = Deployment { work: database.work(&project, &python), admin: &database.admin };
    let failure = deploy(&deployment, &mut Unconverged, &obyra_evidence::Quiet).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.alembic-missing", "migrations.mend-alembic-missing")
    );
}

#[tokio::test]
async fn a_folder_without_env_py_is_named() {
    let mut project = Project::new();
    project.policy.directory = "elsewhere".into();
    let failure = Database::new().await.deploy(&project).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.directory-without-env", "migrations.mend-directory")
    );
}

/// A project whose revision takes its time in the server, and one in whose middle it can be met.
fn slow() -> Project {
    Project::new().revision("one", &[], &format!("{USERS}\nop.execute('SELECT pg_sleep(60)')"))
}

async fn until_it_sleeps(admin: &Session) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND wait_event = 'PgSleep'";
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "the migration never came to its statement");
        if let Some(row) = admin.query_opt(sql, &[]).await.expect("pg_stat_activity") {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_nobody_migrates(database: &Database) -> Duration {
    let began = Instant::now();
    while database.migrators().await > 0 {
        assert!(began.elapsed() < Duration::from_secs(15), "the backend goes on without its client");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_named() {
    let (database, project) = (Database::new().await, slow());
    let killer = database.another().await;
    let kill = async {
        let backend = until_it_sleeps(&killer).await;
        killer.execute("SELECT pg_terminate_backend($1)", &[&backend]).await.unwrap();
    };
    let (deployed, ()) = tokio::join!(database.deploy(&project), kill);
    let failure = deployed.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.revision-rolled-back", "migrations.mend-disconnected")
    );
    assert!(!database.has("app.users").await);
}

#[tokio::test]
async fn a_deploy_that_is_dropped_takes_its_process_and_its_backend_along() {
    let (database, project) = (Database::new().await, slow());
    let watcher = database.another().await;
    tokio::select! {
        _ = database.deploy(&project) => panic!("it cannot end"),
        _ = until_it_sleeps(&watcher) => {}
    }
    until_nobody_migrates(&database).await;
    assert!(!database.has("app.users").await);
}

/// What a `kill -9` of this program does: nobody tells the driver, its stdin just ends.
#[tokio::test]
async fn a_driver_whose_master_is_gone_ends_by_itself() {
    let (database, project, python) = (Database::new().await, slow(), python().await);
    let mut driver = orphan(&database.work(&project, &python));
    until_it_sleeps(&database.admin).await;
    drop(driver.stdin.take());
    let began = Instant::now();
    driver.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "it waited for its statement, which takes a minute");
    until_nobody_migrates(&database).await;
    assert!(!database.has("app.users").await);
}

/// A driver with the requests of an upgrade already in its stdin.
#[expect(clippy::disallowed_methods, reason = "a driver without the room that looks after it")]
fn orphan(work: &Workplace<'_>) -> std::process::Child {
    use obyra_postgres::secrecy::ExposeSecret;
    let url = work
        .target
        .expect("a target")
        .url(obyra_postgres::Scheme::PostgresqlPsycopg, obyra_postgres::Reveal::Password);
    let mut command = Command::new(&work.python.interpreter);
    if let Some(path) = &work.python.path {
        command.env("PYTHONPATH", path);
    }
    let mut child = command
        .args([
            "-u",
            "-c",
            concat!(
                include_str!("../src/driver.py"),
                include_str!("../src/driver/baseline.py"),
                include_str!("../src/driver/replay.py")
            ),
        ])
        .env("DATABASE_URL", url.expose_secret())
        .current_dir(work.project)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let setup = serde_json::json!({
        "directory": work.project.join("migrations"), "config": null, "pyproject": null, "app": null, "version_table_schema": null, "versions": null,
        "session": ["SET client_connection_check_interval = '2s'"], "identity": "SELECT 1",
    });
    let requests = format!(
        "{setup}\n{{\"do\":\"upgrade\",\"to\":\"head\"}}\n{{\"continue\":true}}\n{{\"continue\":true}}\n"
    );
    child.stdin.as_mut().expect("a pipe").write_all(requests.as_bytes()).expect("a reader");
    child
}
