//! The head from a schema that exists already.

use obyra_migrations::gate::{Start, Verdict};

use crate::support::{Database, Project};
use crate::{NO_USERS, Options, USERS, gated_with, rules, sound};

fn from_dump(sql: &str, project: &Project) -> Options {
    let file = project.path().join("schema.sql");
    std::fs::write(&file, sql).expect("a file");
    Options { last: Some(1), start: Some(Start::Dump(file)), ..Options::default() }
}

const VERSIONS: &str = "CREATE TABLE app.alembic_version (version_num varchar(32) PRIMARY KEY);";

#[tokio::test]
async fn a_dump_without_data_stands_where_the_branch_began() {
    let add = "op.execute('ALTER TABLE users ADD age int')";
    let project = sound().revision_of("two", &["one"], add, "op.execute('ALTER TABLE users DROP age')");
    let sql = format!(
        "CREATE SCHEMA app; CREATE TABLE app.users (id int PRIMARY KEY, name text); {VERSIONS}\n\
         ALTER TABLE app.users OWNER TO nobody_here;"
    );
    let report = gated_with(&project, &from_dump(&sql, &project)).await.unwrap();
    assert_eq!(rules(&report), Vec::<String>::new(), "{:?}", report.findings);
    assert_eq!(report.upgrade, Verdict::Passed);

    // By hand, production has the column already.
    let sql = sql.replace("name text", "name text, age int");
    let report = gated_with(&project, &from_dump(&sql, &project)).await.unwrap();
    assert_eq!(rules(&report), ["gate.start-failed two.py:9"]);
    assert_eq!(report.upgrade, Verdict::Failed);
}

#[tokio::test]
async fn a_guard_that_skips_and_a_downgrade_that_does_not() {
    let project = sound().revision_of(
        "two",
        &["one"],
        "op.execute('CREATE TABLE IF NOT EXISTS carts (id int)')",
        "op.execute('DROP TABLE carts')",
    );
    let sql = format!(
        "CREATE SCHEMA app; CREATE TABLE app.users (id int); CREATE TABLE app.carts (id int); {VERSIONS}"
    );
    let report = gated_with(&project, &from_dump(&sql, &project)).await.unwrap();
    assert!(
        rules(&report).contains(&"gate.downgrade-drops-existing two.py:12".to_owned()),
        "{:?}",
        rules(&report)
    );
}

#[tokio::test]
async fn a_live_database_is_only_read() {
    let database = Database::new().await;
    database.deploy(&sound()).await.unwrap();
    database.admin.batch_execute("ALTER TABLE app.users ADD by_hand int").await.unwrap();
    let project = Project::new().revision_of("one", &[], USERS, NO_USERS).revision_of(
        "two",
        &["one"],
        "op.execute('ALTER TABLE users ADD by_hand int')",
        "op.execute('ALTER TABLE users DROP by_hand')",
    );
    let live = Start::Live {
        database: Box::new(database.cluster.admin().with_database("app")),
        revisions: vec!["one".to_owned()],
    };
    let options = Options { last: Some(1), start: Some(live), ..Options::default() };
    let report = gated_with(&project, &options).await.unwrap();
    assert_eq!(rules(&report), ["gate.start-failed two.py:9"]);
}
