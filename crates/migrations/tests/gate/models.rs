//! The models beside the schema.

use crate::support::Project;
use crate::{gated, rules};

const ENV: &str = "import os
from alembic import context
from sqlalchemy import CheckConstraint, Column, Enum, Integer, MetaData, Table, Text, create_engine
metadata = MetaData()
Table('users', metadata, Column('id', Integer, primary_key=True), Column('name', Text),
      Column('mood', Enum('ok', 'bad', name='mood')), CheckConstraint(\"name <> ''\", name='named'))
with create_engine(os.environ['DATABASE_URL']).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
";

fn project(upgrade: &str) -> Project {
    Project::with_env_file(ENV).revision_of(
        "one",
        &[],
        upgrade,
        "op.execute('DROP TABLE users')\nop.execute('DROP TYPE IF EXISTS mood')",
    )
}

async fn findings(upgrade: &str) -> Vec<String> {
    let report = gated(&project(upgrade)).await;
    report
        .findings
        .iter()
        .map(|finding| format!("{}: {}", finding.message.code().id(), finding.message))
        .collect()
}

#[tokio::test]
async fn models_that_agree_are_no_finding() {
    let made = "op.execute(\"CREATE TYPE mood AS ENUM ('ok', 'bad')\")
op.execute(\"CREATE TABLE users (id int PRIMARY KEY, name text, mood mood, CONSTRAINT named CHECK (name != ''))\")";
    assert_eq!(rules(&gated(&project(made)).await), Vec::<String>::new());
}

#[tokio::test]
async fn what_alembic_compares_and_what_it_does_not() {
    let made = "op.execute(\"CREATE TYPE mood AS ENUM ('bad', 'ok')\")
op.execute(\"CREATE TABLE users (id int PRIMARY KEY, mood mood, extra int, name text, CONSTRAINT named CHECK (name <> 'x'))\")";
    let found = findings(made).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|f| f.contains("remove_column users.extra")), "{found:?}");
    assert!(
        found.iter().any(|f| f.starts_with("gate.enum-drift: the enum app.mood has the values 'bad', 'ok'")),
        "{found:?}"
    );
    assert!(found.iter().any(|f| f.starts_with("gate.check-drift") && f.contains("'x'")), "{found:?}");
}
