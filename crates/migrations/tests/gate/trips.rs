//! Down and up again: every way in which a schema fails to come back.

use obyra_migrations::gate::Verdict;

use crate::support::Project;
use crate::{USERS, gated, rules, said, sound};

async fn found(project: &Project) -> Vec<String> {
    let report = gated(project).await;
    assert_eq!(
        (report.upgrade, report.downgrade),
        (Verdict::Passed, Verdict::Failed),
        "{:?}",
        report.findings
    );
    rules(&report).into_iter().filter(|rule| rule.starts_with("gate.")).collect()
}

#[tokio::test]
async fn a_downgrade_that_does_nothing() {
    assert_eq!(found(&Project::new().revision("one", &[], USERS)).await, ["gate.downgrade-empty one.py:12"]);
}

#[tokio::test]
async fn a_downgrade_that_fails() {
    let project = Project::new().revision_of("one", &[], USERS, "op.execute('DROP TABLE people')");
    assert_eq!(found(&project).await, ["gate.downgrade-failed one.py:13"]);
}

#[tokio::test]
async fn a_downgrade_that_leaves_or_changes_something() {
    let two = sound().revision_of(
        "two",
        &["one"],
        "op.execute(\"CREATE TYPE mood AS ENUM ('a')\")\nop.execute('ALTER TABLE users ADD mood mood')",
        "op.execute('ALTER TABLE users DROP mood')",
    );
    let report = gated(&two).await;
    assert_eq!(rules(&report), ["gate.downgrade-differs two.py:13"]);
    assert!(said(&report, "gate.downgrade-differs").ends_with("+ enum app.mood"), "{:?}", report.findings);

    let wider = sound().revision_of(
        "two",
        &["one"],
        "op.execute('ALTER TABLE users ALTER name TYPE varchar(80)')",
        "op.execute('ALTER TABLE users ALTER name TYPE varchar')",
    );
    let report = gated(&wider).await;
    let said = said(&report, "gate.downgrade-differs");
    assert!(said.contains("~ column app.users.name: text -> character varying"), "{said}");
}

#[tokio::test]
async fn a_guarded_upgrade_whose_downgrade_drops_what_was_there() {
    let project = sound().revision_of(
        "two",
        &["one"],
        "op.execute('CREATE TABLE IF NOT EXISTS users (id int)')",
        "op.execute('DROP TABLE IF EXISTS users')",
    );
    assert_eq!(found(&project).await, ["gate.downgrade-drops-existing two.py:12"]);

    // From empty it is this revision that makes the table; elsewhere it may be another one's.
    let alone = Project::new().revision_of(
        "one",
        &[],
        "op.execute('CREATE TABLE IF NOT EXISTS users (id int)')",
        "op.execute('DROP TABLE IF EXISTS users')",
    );
    let report = gated(&alone).await;
    assert_eq!(rules(&report), ["gate.guarded-upgrade one.py:12"]);
    assert_eq!(report.downgrade, Verdict::Passed);
}

#[tokio::test]
async fn an_upgrade_that_works_only_once() {
    let once = "import builtins
if hasattr(builtins, 'obyra_was_here'): op.execute('CREATE TABLE again (id int)')
op.execute('CREATE TABLE IF NOT EXISTS one (id int)')
builtins.obyra_was_here = True";
    let project = Project::new().revision_of("one", &[], once, "op.execute('DROP TABLE one')");
    let found = found(&project).await;
    assert!(found.contains(&"gate.repeated-differs one.py:8".to_owned()), "{found:?}");
}

/// A new value of an enum cannot be used in its own transaction, but downgrades come in another one.
#[tokio::test]
async fn what_needs_a_transaction_of_its_own_gets_it() {
    let add = "with op.get_context().autocommit_block():
    op.execute(\"ALTER TYPE mood ADD VALUE IF NOT EXISTS 'b'\")";
    let remove = "op.execute(\"UPDATE users SET mood = 'a' WHERE mood = 'b'\")
op.execute('ALTER TYPE mood RENAME TO old_mood')
op.execute(\"CREATE TYPE mood AS ENUM ('a')\")
op.execute('ALTER TABLE users ALTER mood TYPE mood USING mood::text::mood')
op.execute('DROP TYPE old_mood')";
    let make = "op.execute(\"CREATE TYPE mood AS ENUM ('a')\")\nop.execute('CREATE TABLE users (mood mood)')";
    for options in ["", ", transaction_per_migration=True"] {
        let project = Project::with_env("pass", options)
            .revision_of("one", &[], make, "op.execute('DROP TABLE users')\nop.execute('DROP TYPE mood')")
            .revision_of("two", &["one"], add, remove)
            .revision_of(
                "three",
                &["two"],
                "op.execute('CREATE TABLE c (id int)')",
                "op.execute('DROP TABLE c')",
            );
        let report = gated(&project).await;
        let errors: Vec<String> =
            rules(&report).into_iter().filter(|rule| !rule.starts_with("gate.rewrite")).collect();
        assert_eq!(errors, Vec::<String>::new(), "{options}: {:?}", report.findings);
        assert_eq!(report.downgrade, Verdict::Passed);
    }
}

/// `create_table` makes the type of an Enum by itself, and Alembic remembers for the rest of a command that it has.
#[tokio::test]
async fn a_type_that_a_table_makes_comes_back() {
    let make = "import sqlalchemy as sa
op.create_table('moods', sa.Column('mood', sa.Enum('a', 'b', name='mood')))";
    let index = "
with op.get_context().autocommit_block():
    op.create_index('moods_mood', 'moods', ['mood'], postgresql_concurrently=True)";
    for make in [make.to_owned(), make.to_owned() + index] {
        let drop = "op.drop_table('moods')\nop.execute('DROP TYPE mood')";
        let report = gated(&Project::new().revision_of("one", &[], &make, drop)).await;
        assert_eq!((rules(&report), report.downgrade), (Vec::new(), Verdict::Passed), "{make}");
    }
    let project = Project::new().revision_of("one", &[], make, "op.drop_table('moods')");
    assert_eq!(found(&project).await, ["gate.downgrade-differs one.py:13"]);
}

#[tokio::test]
async fn concurrent_indexes_go_down_and_up_for_good() {
    let up = "with op.get_context().autocommit_block():
    op.execute('CREATE INDEX CONCURRENTLY users_name ON users (name)')";
    let down = "with op.get_context().autocommit_block():
    op.execute('DROP INDEX CONCURRENTLY users_name')";
    let report = gated(&sound().revision_of("two", &["one"], up, down)).await;
    assert_eq!(rules(&report), Vec::<String>::new());
    assert_eq!(report.downgrade, Verdict::Passed);

    // Two of them, of which the first cannot come back.
    let project = sound().revision("two", &["one"], up).revision_of(
        "three",
        &["two"],
        &up.replace("users_name", "users_other"),
        &down.replace("users_name", "users_other"),
    );
    let report = gated(&project).await;
    let found: Vec<String> = rules(&report).into_iter().filter(|rule| rule.starts_with("gate.")).collect();
    assert_eq!(found, ["gate.downgrade-empty two.py:13"]);
}

/// `COMMIT` as a statement takes the savepoint with it: the round trip is tried for good.
#[tokio::test]
async fn a_revision_that_commits_by_itself() {
    let project = sound().revision_of(
        "two",
        &["one"],
        "op.execute('COMMIT')\nop.execute('CREATE TABLE own (id int)')",
        "op.execute('COMMIT')\nop.execute('DROP TABLE own')",
    );
    let report = gated(&project).await;
    assert_eq!(report.upgrade, Verdict::Passed, "{:?}", report.findings);
    assert_eq!(rules(&report), Vec::<String>::new());
}

/// Every kind of object, made and changed and dropped: what the event triggers report is all that changes.
#[tokio::test]
async fn every_kind_of_object_is_seen() {
    let create = "op.execute('''
CREATE TABLE base (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text DEFAULT 'x', b int CHECK (b > 0), UNIQUE (a, b));
CREATE TABLE part (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX part_at ON part (at);
CREATE VIEW seen AS SELECT id FROM base;
CREATE MATERIALIZED VIEW stored AS SELECT a FROM base;
CREATE SEQUENCE counter OWNED BY base.b;
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (x int, y int);
CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT ON base FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE POLICY mine ON base USING (b = 1);
ALTER TABLE base ENABLE ROW LEVEL SECURITY;
COMMENT ON COLUMN base.a IS 'said';
''')";
    let change = "op.execute('''
ALTER TABLE base DISABLE ROW LEVEL SECURITY; ALTER POLICY mine ON base USING (b = 2); ALTER TABLE base DISABLE TRIGGER stamped;
ALTER TABLE part ADD c int; DROP INDEX part_at; ALTER VIEW seen RENAME TO looked; ALTER DOMAIN positive ADD CHECK (VALUE < 9);
DO $do$ BEGIN ALTER TYPE pair ADD ATTRIBUTE z int; COMMENT ON TABLE base IS 'new'; ALTER SEQUENCE counter OWNED BY NONE; END $do$;
''')";
    let back = "op.execute('''
ALTER SEQUENCE counter OWNED BY base.b; COMMENT ON TABLE base IS NULL; ALTER TYPE pair DROP ATTRIBUTE z;
ALTER DOMAIN positive DROP CONSTRAINT positive_check1; ALTER VIEW looked RENAME TO seen; CREATE INDEX part_at ON part (at);
ALTER TABLE part DROP c; ALTER TABLE base ENABLE TRIGGER stamped; ALTER POLICY mine ON base USING (b = 1);
ALTER TABLE base ENABLE ROW LEVEL SECURITY;
''')";
    let drop = "op.execute('DROP TABLE part, base CASCADE')\nop.execute('DROP FUNCTION stamp, one')\n\
                op.execute('DROP TYPE pair')\nop.execute('DROP DOMAIN positive')";
    let project =
        Project::new().revision_of("one", &[], create, drop).revision_of("two", &["one"], change, back);
    let report = gated(&project).await;
    assert_eq!(rules(&report), Vec::<String>::new(), "{:?}", report.findings);

    // With nothing undone, each change is told.
    let report =
        gated(&Project::new().revision_of("one", &[], create, drop).revision("two", &["one"], change)).await;
    let said = said(&report, "gate.downgrade-empty");
    for part in ["domain app.positive", "comment 'new'", "column app.part.c", "column app.part_1.c"] {
        assert!(said.contains(part) || said.contains("… "), "{part}: {said}");
    }
}
