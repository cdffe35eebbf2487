//! A deploy from empty to the head, on a real server with a real Alembic.

mod support;

use obyra_evidence::{Exit, Failure};
use obyra_migrations::driver::{Driver, DriverConnection};
use obyra_migrations::{Converge, observe, plan};
use obyra_postgres::Session;
use support::{Database, Notes, Project, code, exists, mend, place, python};

const USERS: &str = "op.execute('CREATE TABLE users (id int PRIMARY KEY)')";

fn two_revisions() -> Project {
    Project::new().revision("one", &[], USERS).revision(
        "two",
        &["one"],
        "print('revisions may print')\nop.execute(\"CREATE TYPE mood AS ENUM ('ok', '100%')\")",
    )
}

#[tokio::test]
async fn an_empty_database_reaches_the_head_with_proof() {
    let (database, project, notes) = (Database::new().await, two_revisions(), Notes::default());
    let deployed = database.deploy_with(&project, &mut obyra_migrations::Unconverged, &notes).await.unwrap();

    assert_eq!((deployed.from.len(), deployed.to.as_deref()), (0, Some("two")));
    assert!(deployed.from_base);
    let ids: Vec<&str> = deployed.revisions.iter().map(|revision| revision.id.as_str()).collect();
    assert_eq!(ids, ["one", "two"]);
    assert!(deployed.revisions.iter().all(|revision| revision.seconds > 0.0));
    // The version table, users, their two primary keys, and the enum.
    assert_eq!((deployed.tables_created, deployed.objects_created), (2, 5));
    let committed = deployed.committed.expect("a proof");
    assert_eq!(committed.version_table, "app.alembic_version");
    assert_eq!(committed.revisions, ["two"]);
    assert_ne!(committed.migrated_by_backend, committed.seen_by_backend);
    let notes = notes.0.into_inner().unwrap();
    assert!(notes[0].starts_with("one the one revision: ") && notes.len() == 2, "{notes:?}");

    // The objects belong to the owner, although the migrator made them.
    let owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'app.users'::regclass";
    assert_eq!(database.admin.query_one(owner, &[]).await.unwrap().get::<_, String>(0), "owner");

    let again = database.deploy(&project).await.unwrap();
    assert!(again.revisions.is_empty() && !again.from_base);
    assert_eq!(again.committed.expect("a proof").revisions, ["two"]);
}

#[tokio::test]
async fn what_is_pending_is_told_without_the_application() {
    let (database, project, python) = (Database::new().await, two_revisions(), python().await);
    let work = obyra_migrations::driver::Workplace { target: None, ..database.work(&project, &python) };
    let graph = Driver::start(&work).await.unwrap().graph(&work).await.unwrap();
    assert_eq!(
        (graph.heads.as_slice(), graph.bases.as_slice()),
        (&["two".to_owned()][..], &["one".to_owned()][..])
    );

    let observed = observe(&project.policy, &database.admin, graph.clone()).await.unwrap();
    assert_eq!(plan(&project.policy, &observed).pending.len(), 2);
    database.deploy(&project).await.unwrap();
    let observed = observe(&project.policy, &database.admin, graph).await.unwrap();
    assert_eq!(observed.current(), ["two"]);
    assert!(plan(&project.policy, &observed).is_empty());

    let work = database.work(&project, &python);
    assert_eq!(Driver::start(&work).await.unwrap().current(&work).await.unwrap(), ["two"]);
}

#[tokio::test]
async fn branches_and_their_merge_are_applied_in_order() {
    let project = two_revisions()
        .revision("three", &["one"], "op.execute('CREATE VIEW everybody AS SELECT * FROM users')")
        .revision("merged", &["two", "three"], "pass");
    let database = Database::new().await;
    let deployed = database.deploy(&project).await.unwrap();
    assert_eq!((deployed.revisions.len(), deployed.to.as_deref()), (4, Some("merged")));
}

#[tokio::test]
async fn two_heads_are_refused_with_their_files_and_the_mend() {
    let project = two_revisions().revision("three", &["one"], "pass");
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!((code(&failure), failure.exit), ("migrations.several-heads", Exit::Refused));
    let said = failure.to_string();
    assert!(said.contains("versions/two.py") && said.contains("versions/three.py"), "{said}");
    assert!(failure.mend.unwrap().to_string().starts_with("alembic merge -m 'merge' "));
    assert!(!database.has("app.users").await);
}

#[tokio::test]
async fn two_files_with_one_identifier_are_refused() {
    let project = two_revisions();
    let versions = project.path().join("migrations/versions");
    std::fs::copy(versions.join("two.py"), versions.join("copy.py")).unwrap();
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!((code(&failure), failure.exit), ("migrations.graph-ambiguous", Exit::Refused));
    assert!(failure.to_string().contains("two"), "{failure}");
}

#[tokio::test]
async fn a_project_without_revisions_has_nothing_to_deploy() {
    let deployed = Database::new().await.deploy(&Project::new()).await.unwrap();
    assert_eq!((deployed.to, deployed.committed, deployed.revisions.len()), (None, None, 0));
}

/// Grants as access does, and looks with another session whether anything is visible already.
struct Granting {
    watcher: Session,
    calls: usize,
}

impl Converge for Granting {
    async fn converge(&mut self, connection: &mut DriverConnection<'_>) -> Result<(), Failure> {
        self.calls += 1;
        let sql =
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'
                    AND NOT has_table_privilege('reader', oid, 'SELECT')";
        let mut grants = Vec::new();
        for row in connection.query(sql).await? {
            let table = format!("app.{}", row[0].as_str().expect("a name"));
            assert!(!exists(&self.watcher, &table).await, "{table} is visible before its privileges");
            grants.push(format!("GRANT SELECT ON {table} TO reader"));
        }
        connection.execute(&grants).await
    }
}

/// With an autocommit block in the middle: what precedes it is committed when it begins.
const INDEXED: &str = "op.execute('CREATE TABLE payments (id int)')
with op.get_context().autocommit_block():
    op.execute('CREATE INDEX CONCURRENTLY payments_id ON payments (id)')";

#[tokio::test]
async fn no_table_is_visible_before_its_privileges() {
    for options in ["", ", transaction_per_migration=True"] {
        let project =
            Project::with_env("pass", options).revision("one", &[], USERS).revision("two", &["one"], INDEXED);
        let database = Database::new().await;
        let mut granting = Granting { watcher: database.another().await, calls: 0 };
        let deployed = database.deploy_with(&project, &mut granting, &obyra_evidence::Quiet).await.unwrap();
        assert_eq!(deployed.tables_created, 3);
        assert!(granting.calls >= 3, "{options}: {} calls", granting.calls);
        let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'
                    AND has_table_privilege('reader', oid, 'SELECT')";
        assert_eq!(database.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 3);
        assert!(database.has("app.payments_id").await);
    }
}

/// Runs a statement that fails.
struct Failing;

impl Converge for Failing {
    async fn converge(&mut self, connection: &mut DriverConnection<'_>) -> Result<(), Failure> {
        connection.execute(&["SELECT 1".to_owned(), "GRANT SELECT ON nowhere TO reader".to_owned()]).await
    }
}

#[tokio::test]
async fn privileges_that_cannot_be_converged_roll_the_migration_back() {
    let (database, project) = (Database::new().await, two_revisions());
    let failure = database.deploy_with(&project, &mut Failing, &obyra_evidence::Quiet).await.unwrap_err();
    assert_eq!(code(&failure), "migrations.inside-statement-failed");
    let said = failure.to_string();
    assert!(said.contains("GRANT SELECT ON nowhere") && said.contains("42P01"), "{said}");
    assert!(!database.has("app.users").await && !database.has("app.alembic_version").await);
}

#[tokio::test]
async fn a_silent_rollback_is_named_with_its_line() {
    let project = Project::with_env("connection.execute(text(\"SET search_path TO app\"))", "").revision(
        "one",
        &[],
        USERS,
    );
    let database = Database::new().await;
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.silent-rollback", "migrations.mend-silent-rollback")
    );
    assert_eq!(place(&project, &failure), "migrations/env.py:11");
    assert!(!database.has("app.users").await);

    // The same env.py with a revision that needs a transaction of Alembic's own.
    let project =
        Project::with_env("connection.execute(text(\"SELECT 1\"))", "").revision("one", &[], INDEXED);
    let failure = database.deploy(&project).await.unwrap_err();
    assert_eq!(
        (code(&failure), place(&project, &failure).as_str()),
        ("migrations.silent-rollback", "migrations/env.py:11")
    );
}

#[tokio::test]
async fn a_transaction_that_env_py_commits_itself_is_fine() {
    let env = include_str!("support/env.py").replace("engine.connect()", "engine.begin()");
    let env = env.replace("{before}", "pass").replace("{options}", "");
    let project = Project::with_env_file(&env).revision("one", &[], USERS);
    let database = Database::new().await;
    assert_eq!(database.deploy(&project).await.unwrap().tables_created, 2);
}

#[tokio::test]
async fn an_application_that_connects_elsewhere_migrates_nothing() {
    let database = Database::new().await;
    database.admin.batch_execute("CREATE DATABASE other").await.unwrap();
    let env = include_str!("support/env.py").replace(
        "os.environ[\"DATABASE_URL\"]",
        "os.environ[\"DATABASE_URL\"].replace(\"/app?\", \"/other?\")",
    );
    let project = Project::with_env_file(&env.replace("{before}", "pass").replace("{options}", ""));
    let failure = database.deploy(&project.revision("one", &[], USERS)).await.unwrap_err();
    assert_eq!((code(&failure), failure.exit), ("migrations.wrong-database", Exit::Refused));
    assert!(failure.to_string().contains("other"), "{failure}");
}
