//! What is written gives the schema, on every version, and a deploy works from empty and on what there is.

use std::fs;

use obyra_migrations::baseline::{Chain, Change, Site as _, Truth};
use obyra_migrations::stamp::stamp;
use obyra_migrations::{Deployment, Unconverged};
use obyra_postgres::cluster::MAJORS_FOR_TESTS;

use crate::support::{Database, Project, python};
use crate::{Parts, Roles, drafted, superuser, told};

const EVERYTHING: &str = include_str!("everything.sql");

/// A database whose history nobody can replay.
async fn grown(major: u32, sql: &str) -> Database {
    let database = Database::on(major).await;
    Roles { major }.prepare(&superuser(&database)).await.expect("roles");
    let admin = database.another().await;
    // The test's own migrator has another password than the site's.
    let password = obyra_postgres::quote::literal("s3cr3t/of the@migration");
    let script = format!(
        "ALTER ROLE migrator PASSWORD {password}; GRANT USAGE ON SCHEMA public TO owner;
         SET ROLE owner; SET search_path = app; CREATE EXTENSION hstore SCHEMA app; {sql}"
    );
    admin.batch_execute(&script).await.expect("a schema");
    database
}

fn broken() -> Project {
    Project::new().revision_of("first", &[], "pass", "pass").revision_of(
        "second",
        &["first"],
        "op.execute('ALTER TABLE users ADD x int')",
        "pass",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_schema_can_hold_on_the_usual_version() {
    everything(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_schema_can_hold_on_every_other_version() {
    for major in MAJORS_FOR_TESTS.into_iter().filter(|major| *major != 16) {
        everything(major).await;
    }
}

async fn everything(major: u32) {
    let (project, database) = (broken(), grown(major, EVERYTHING).await);
    let parts = Parts::of(&project, major).await;
    let live = superuser(&database);
    let truth = Truth::Live(Box::new(live.clone()));
    let draft = parts.draft(&project, &truth).await.expect("a draft");
    assert_eq!(told(&draft), [""; 0], "PostgreSQL {major}: {:#?}", draft.findings);
    assert!(!draft.revision.source.contains("pg_attver"), "{}", draft.revision.source);
    assert!(draft.revision.objects > 40, "{}", draft.revision.objects);
    // The same schema gives the same bytes.
    assert_eq!(parts.draft(&project, &truth).await.expect("a draft").revision, draft.revision);

    let change = Change::plan(&project.policy, project.path(), &draft.revision, "all of it", "20260801_0900");
    let change = change.expect("a change");
    change.make(&draft.revision).expect("files");
    let empty = Database::on(major).await;
    Roles { major }.prepare(&superuser(&empty)).await.expect("roles");
    let deployed = empty.deploy(&project).await.expect("a deploy from empty");
    assert_eq!(deployed.to.as_ref(), Some(&draft.revision.id));
    assert!(empty.has("app.users").await && empty.has("audit.log").await);

    // Where the schema is, nothing runs.
    let python = python().await;
    let deployment = Deployment { work: database.work(&project, &python), admin: &database.admin };
    let stamped = stamp(&deployment, &draft.revision.id, &mut Unconverged).await.expect("a stamp");
    assert_eq!(stamped.from, ["long_gone"]);
    let deployed = database.deploy(&project).await.expect("a deploy");
    assert_eq!(deployed.revisions, []);
    let chain = Chain::Own(&draft.revision.id);
    assert_eq!(parts.compare(&project, chain, &live).await.expect("a comparison"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_is_named() {
    let sql = "CREATE TABLE users (id int PRIMARY KEY, name text); CREATE COLLATION plain (provider = libc, locale = 'C');";
    let (project, database) = (Project::new(), grown(16, sql).await);
    let parts = Parts::of(&project, 16).await;
    let live = superuser(&database);
    let draft = parts.draft(&project, &Truth::Live(Box::new(live.clone()))).await.expect("a draft");
    let change =
        "SET ROLE owner; SET search_path = app; ALTER TABLE users ADD extra int, ALTER name SET NOT NULL;
                  CREATE INDEX extra_index ON users (extra); DROP COLLATION plain; CREATE TABLE more (id int);
                  CREATE TABLE obyra_own (id int)";
    database.another().await.batch_execute(change).await.expect("changes");
    let found = parts.compare(&project, Chain::Draft(&draft.revision), &live).await.expect("a comparison");
    let expected = [
        "baseline.made-beside collation app.plain",
        "baseline.made-otherwise column app.users.name",
        "baseline.not-made column app.users.extra",
        "baseline.not-made index extra_index on app.users",
        "baseline.not-made table app.more",
        "baseline.not-made table app.obyra_own",
    ];
    let mut found = found;
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_and_what_is_altered_at_run_time() {
    let models = "
from sqlalchemy import MetaData, Table, Column, Integer, Text, DDL, event
metadata = MetaData()
users = Table('users', metadata, Column('id', Integer, primary_key=True), Column('name', Text))
event.listen(users, 'after_create', DDL('CREATE INDEX users_by_name ON users (name)'))
";
    let env = include_str!("../support/env.py")
        .replace("{before}", "from models import metadata")
        .replace("target_metadata=None{options}", "target_metadata=metadata");
    let project = Project::with_env_file(&env);
    fs::write(project.path().join("models.py"), models).expect("models");
    fs::create_dir(project.path().join("helpers")).expect("a package");
    let helper = "
import os
from sqlalchemy import create_engine, text
from models import users

def ensure():
    with create_engine(os.environ['DATABASE_URL']).begin() as connection:
        connection.execute(text(f'ALTER TABLE {users.name} ADD COLUMN IF NOT EXISTS extra int'))

if __name__ == '__main__':
    raise SystemExit('not as a program')
";
    fs::write(project.path().join("helpers/runtime.py"), helper).expect("a helper");
    let sql = "DO $$ BEGIN IF to_regclass('users') IS NOT NULL THEN
                 ALTER TABLE users ADD COLUMN IF NOT EXISTS note text; END IF; END $$";
    fs::write(project.path().join("alter.sql"), sql).expect("a script");
    let parts = Parts::of(&project, 16).await;
    let files = ["helpers/runtime.py:ensure".to_owned(), "alter.sql".to_owned()];
    let draft = parts.draft(&project, &Truth::Models(files.to_vec())).await.expect("a draft");
    assert_eq!(told(&draft), [""; 0], "{:#?}", draft.findings);
    for part in ["CREATE TABLE users", "extra integer", "note text", "users_by_name"] {
        assert!(draft.revision.source.contains(part), "{part}: {}", draft.revision.source);
    }
    let nowhere = Truth::Models(vec!["nowhere.py".to_owned()]);
    let failure = parts.draft(&project, &nowhere).await.expect_err("no such file");
    assert_eq!(crate::support::code(&failure), "baseline.runtime-unreadable");
    let program = Truth::Models(vec!["helpers/runtime.py".to_owned()]);
    let failure = parts.draft(&project, &program).await.expect_err("it ends the process");
    assert!(failure.to_string().contains("not as a program"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_that_the_application_gets_in_the_way_of_is_not_written() {
    let boot =
        "with engine.begin() as other: other.exec_driver_sql('CREATE TABLE IF NOT EXISTS users (id int)')";
    let project = Project::with_env(boot, "");
    let draft =
        drafted(&project, "CREATE SCHEMA app; CREATE TABLE app.users (id int);").await.expect("a draft");
    assert_eq!(told(&draft), ["baseline.boot-ddl application"]);

    let project = Project::with_env("connection.exec_driver_sql('SET search_path TO app')", "");
    let failure = drafted(&project, "CREATE SCHEMA app; CREATE TABLE app.users (id int);").await;
    assert_eq!(
        crate::support::code(&failure.expect_err("nothing is committed")),
        "migrations.silent-rollback"
    );
}
