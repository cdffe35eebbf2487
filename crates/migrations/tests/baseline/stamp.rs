//! The version table says what it is told, in one transaction, and a second connection sees it.

use obyra_migrations::driver::{Driver, Graph};
use obyra_migrations::stamp::{Stamped, named, stamp};
use obyra_migrations::{Deployment, Unconverged};

use crate::support::{Database, Project, code, mend, python};

async fn stamped(
    database: &Database,
    project: &Project,
    to: &str,
) -> Result<Stamped, obyra_evidence::Failure> {
    let python = python().await;
    let deployment = Deployment { work: database.work(project, &python), admin: &database.admin };
    stamp(&deployment, to, &mut Unconverged).await
}

fn two() -> Project {
    Project::new().revision("one", &[], "pass").revision("two", &["one"], "pass")
}

#[tokio::test]
async fn whatever_it_said_before() {
    let (project, database) = (two(), Database::new().await);
    let first = stamped(&database, &project, "one").await.expect("a stamp");
    assert_eq!((first.from.len(), first.to.as_str()), (0, "one"));
    let admin = database.another().await;
    admin.batch_execute("INSERT INTO app.alembic_version VALUES ('gone'), ('lost')").await.expect("rows");
    let second = stamped(&database, &project, "two").await.expect("a stamp");
    assert_eq!(second.from, ["gone", "lost", "one"]);
    assert_eq!(database.deploy(&project).await.expect("a deploy").revisions, []);
}

#[tokio::test]
async fn one_that_was_not_committed_is_no_success() {
    let project = Project::with_env("connection.execute(text('SELECT 1'))", "").revision("one", &[], "pass");
    let failure = stamped(&Database::new().await, &project, "one").await.expect_err("nothing is committed");
    assert_eq!(
        (code(&failure), mend(&failure)),
        ("migrations.silent-rollback", "migrations.mend-silent-rollback")
    );

    let elsewhere =
        "engine = create_engine(engine.url.set(database='postgres')); connection = engine.connect()";
    let project = Project::with_env(elsewhere, "").revision("one", &[], "pass");
    let failure = stamped(&Database::new().await, &project, "one").await.expect_err("another database");
    assert_eq!(code(&failure), "migrations.wrong-database");
}

#[tokio::test]
async fn two_version_tables_are_refused() {
    let (project, database) = (two(), Database::new().await);
    let tables = "CREATE TABLE app.alembic_version (version_num text); CREATE TABLE public.alembic_version (version_num text)";
    database.another().await.batch_execute(tables).await.expect("tables");
    let failure = stamped(&database, &project, "one").await.expect_err("two tables");
    assert_eq!(code(&failure), "migrations.several-version-tables");
}

#[tokio::test]
async fn a_revision_is_named_as_in_alembic() {
    let (project, database) = (two(), Database::new().await);
    let python = python().await;
    let work = database.work(&project, &python);
    let graph: Graph = Driver::start(&work).await.expect("a driver").graph(&work).await.expect("a graph");
    let named = |wanted: &str| named(&project.policy, &graph, wanted);
    assert_eq!(named("head").expect("the head"), "two");
    assert_eq!(named("on").expect("a beginning"), "one");
    for nobody in ["", "x", "heads", "base"] {
        assert_eq!(code(&named(nobody).expect_err(nobody)), "baseline.stamp-revision-unknown");
    }
}
