//! What a revision takes from the version that is still running.

use obyra_migrations::gate::{Scope, Size, Sizes};

use crate::support::Project;
use crate::{NO_USERS, Options, USERS, each, gated, gated_with, on_main, rules, said, sound};

#[tokio::test]
async fn columns_that_rows_or_the_running_version_lack() {
    let required: &[&str] = &["gate.required-column"];
    let demanded: &[&str] = &["gate.column-demanded"];
    each(&[
        ("op.execute('ALTER TABLE users ADD age int NOT NULL')", required),
        ("op.execute('DO $$ BEGIN ALTER TABLE users ADD age int NOT NULL; END $$')", required),
        ("for what in ('age int NOT NULL', 'b int'): op.execute('ALTER TABLE users ADD ' + what)", required),
        (
            "for what in ('ADD age int', 'ALTER age SET NOT NULL'): op.execute('ALTER TABLE users ' + what)  # obyra-db: allow[gate.blocking-scan] filled",
            &["gate.allowed", "gate.column-demanded"],
        ),
        ("for what in ('ADD age int NOT NULL DEFAULT 7', 'ALTER age DROP DEFAULT'): op.execute('ALTER TABLE users ' + what)", demanded),
        ("op.execute('ALTER TABLE users ADD age int')", &[]),
        ("op.execute('ALTER TABLE users ADD age int NOT NULL DEFAULT 7')", &[]),
        ("for what in ('CREATE TABLE own (id int NOT NULL)', 'ALTER TABLE own ADD b int NOT NULL'): op.execute(what)", &[]),
        ("for what in ('ADD age int NOT NULL DEFAULT 1', 'ALTER age DROP DEFAULT', 'DROP age'): op.execute('ALTER TABLE users ' + what)", &[]),
    ])
    .await;
}

#[tokio::test]
async fn a_table_that_is_known_to_be_empty_takes_a_required_column() {
    let with = |rows| {
        let sizes = Sizes::from([("app.users".to_owned(), Size { rows, bytes: 8192 })]);
        Options { last: Some(1), sizes, ..Options::default() }
    };
    let up = "op.execute('ALTER TABLE users ADD age int NOT NULL')";
    let project = sound().revision_of("two", &["one"], up, "op.execute('ALTER TABLE users DROP age')");
    assert_eq!(rules(&gated_with(&project, &with(1)).await.unwrap()), ["gate.required-column two.py:9"]);
    assert_eq!(rules(&gated_with(&project, &with(0)).await.unwrap()), ["gate.column-demanded two.py:9"]);
}

#[tokio::test]
async fn names_that_are_gone() {
    each(&[
        ("op.execute('ALTER TABLE users RENAME TO people')", &["gate.renamed"]),
        ("op.execute('ALTER TABLE users SET SCHEMA public')", &["gate.renamed"]),
        ("op.execute('DROP TABLE users')", &["gate.removed"]),
        // Rows do not come back with a name.
        ("op.execute('DROP TABLE users')\nop.execute('CREATE TABLE users (id int PRIMARY KEY, name text)')", &["gate.removed"]),
        ("for what in ('RENAME name TO label', 'DROP label'): op.execute('ALTER TABLE users ' + what)", &["gate.renamed"]),
        ("for what in ('CREATE TABLE own (b int)', 'ALTER TABLE own RENAME b TO c', 'ALTER TABLE own RENAME TO o', 'DROP TABLE o'): op.execute(what)", &[]),
        ("for what in ('ADD b int', 'RENAME b TO c', 'DROP c'): op.execute('ALTER TABLE users ' + what)", &[]),
        ("op.execute('CREATE TEMPORARY TABLE own (id int)'); op.execute('DROP TABLE own')", &[]),
        ("op.execute('ALTER TABLE users RENAME CONSTRAINT users_pkey TO users_key')", &[]),
    ])
    .await;
    let rename = "op.execute('ALTER TABLE users RENAME name TO label')";
    let report = gated(&sound().revision_of("two", &["one"], rename, "pass")).await;
    let renamed = said(&report, "gate.renamed");
    assert!(renamed.contains("renames app.users.name to app.users.label"), "{renamed}");
    // What the running version calls, and what only a trigger calls.
    let made = "for what in ('CREATE SEQUENCE s', 'CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql RETURN a', \
                'CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$'): op.execute(what)";
    let gone =
        "for what in ('DROP SEQUENCE s', 'DROP FUNCTION f(int)', 'DROP FUNCTION t()'): op.execute(what)";
    let code = Project::new().revision_of("one", &[], made, gone).revision_of("two", &["one"], gone, made);
    assert_eq!(rules(&gated(&code).await), ["gate.removed two.py:9", "gate.removed two.py:9"]);
    let anew = "for what in ('DROP FUNCTION f(int)', 'CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql RETURN a + 1'): op.execute(what)";
    let back = anew.replace("a + 1", "a");
    let code = Project::new().revision_of("one", &[], made, gone).revision_of("two", &["one"], anew, &back);
    assert_eq!(rules(&gated(&code).await), Vec::<String>::new());
    // A view that is dropped to be made anew.
    let (make, drop) = ("op.execute('CREATE VIEW v AS SELECT 1 AS a')", "op.execute('DROP VIEW v')");
    let view = Project::new().revision_of("one", &[], make, drop).revision_of(
        "two",
        &["one"],
        &format!("{drop}\n{make}"),
        "op.execute('SELECT 1')",
    );
    assert_eq!(rules(&gated(&view).await), Vec::<String>::new());
}

/// A branch is deployed at once: nobody runs with what its first revision made and its second changes.
#[tokio::test]
async fn what_a_branch_makes_is_its_own() {
    let project = Project::new().revision_of("one", &[], USERS, NO_USERS);
    on_main(&project);
    let project = project
        .revision_of("two", &["one"], "op.execute('CREATE TABLE own (id int, a int)')", "op.execute('DROP TABLE own')")
        .revision_of(
            "three",
            &["two"],
            "op.execute('CREATE INDEX own_id ON own (id)')\nop.execute('ALTER TABLE own ADD b int NOT NULL')\n\
             op.execute('ALTER TABLE own RENAME a TO c')\nop.execute('UPDATE own SET c = 1')",
            "op.execute('ALTER TABLE own RENAME c TO a')\nop.execute('ALTER TABLE own DROP b')\nop.execute('DROP INDEX own_id')",
        );
    let options = Options { scope: Some(Scope::Branch), ..Options::default() };
    let report = gated_with(&project, &options).await.unwrap();
    assert!(report.checked_branch);
    assert_eq!(rules(&report), Vec::<String>::new());
    // One by one, each finds what the one before made.
    let found = rules(&gated(&project).await);
    assert_eq!(found.len(), 4, "{found:?}");
}
