//! Locks and rewrites, measured on tables that existed before.

use obyra_migrations::gate::{Size, Sizes};

use crate::support::Project;
use crate::{Options, each, gated, gated_with, rules, said, sound};

/// The rules about locks, for one statement on a table that existed before.
async fn of(upgrade: &str) -> Vec<String> {
    let project = sound().revision_of("two", &["one"], upgrade, "pass");
    let blocking = |rule: &String| rule.starts_with("gate.rewrite") || rule.starts_with("gate.blocking");
    rules(&gated(&project).await).into_iter().filter(blocking).collect()
}

#[tokio::test]
async fn what_rewrites_or_reads_a_whole_table_is_named_with_its_line() {
    let rewrite = ["gate.rewrite two.py:9"];
    assert_eq!(of("op.execute('ALTER TABLE users ALTER id TYPE bigint')").await, rewrite);
    assert_eq!(
        of("op.execute('ALTER TABLE users ADD at timestamptz DEFAULT clock_timestamp()')").await,
        rewrite
    );
    assert_eq!(of("op.execute('DO $$ BEGIN ALTER TABLE users ALTER id TYPE bigint; END $$')").await, rewrite);
    let scan = ["gate.blocking-scan two.py:9"];
    assert_eq!(of("op.execute('CREATE INDEX users_name ON users (name)')").await, scan);
    assert_eq!(of("op.alter_column('users', 'name', nullable=False)").await, scan);
    assert_eq!(of("op.execute(\"ALTER TABLE users ADD CHECK (name <> '')\")").await, scan);
    assert_eq!(of("op.execute('ALTER TABLE users ADD UNIQUE (name)')").await, scan);
    assert_eq!(
        of("op.execute('ALTER TABLE users ADD other int REFERENCES users')").await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn what_is_over_in_a_moment_is_no_finding() {
    for harmless in [
        "op.execute('ALTER TABLE users ADD age int')",
        "op.execute('ALTER TABLE users ADD age int DEFAULT 7 NOT NULL')",
        "op.execute('ALTER TABLE users DROP name')",
        "op.execute(\"ALTER TABLE users ADD CONSTRAINT c CHECK (name <> '') NOT VALID\")",
        "op.execute('CREATE TABLE fresh (id int)')\nop.execute('CREATE INDEX fresh_id ON fresh (id)')\n\
         op.execute('ALTER TABLE fresh ALTER id TYPE bigint')",
        "op.execute('UPDATE users SET name = name')\nop.execute('ALTER TABLE users ADD age int')",
    ] {
        assert_eq!(of(harmless).await, Vec::<String>::new(), "{harmless}");
    }
}

/// The statements of linters' rules that are more than taste, in the forms that are harmful and in those that are not.
#[tokio::test]
async fn what_linters_of_sql_warn_of() {
    let (rewrite, scan): (&[&str], &[&str]) = (&["gate.rewrite"], &["gate.blocking-scan"]);
    each(&[
        ("op.execute('ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users')", scan),
        ("op.execute('ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID')", &[]),
        ("op.execute('ALTER TABLE orders ADD n bigserial')", rewrite),
        ("op.execute('ALTER TABLE orders ADD n int GENERATED ALWAYS AS (id * 2) STORED')", rewrite),
        ("op.execute('ALTER TABLE orders ALTER code TYPE varchar(16)')", &[]),
        ("op.execute('ALTER TABLE orders ALTER code TYPE varchar(4)')", rewrite),
        ("op.execute('ALTER TABLE orders ALTER code TYPE text')", &[]),
        ("op.execute('CREATE UNIQUE INDEX ON orders (code)')", scan),
        ("op.execute('TRUNCATE orders CASCADE')", &["gate.table-lock"]),
    ])
    .await;
}

#[tokio::test]
async fn a_domain_reads_the_tables_that_use_it() {
    let made = "for what in ('CREATE DOMAIN code AS text', 'CREATE TABLE things (id int PRIMARY KEY, code code)'): op.execute(what)";
    let gone = "for what in ('DROP TABLE things', 'DROP DOMAIN code'): op.execute(what)";
    let checked = "op.execute(\"ALTER DOMAIN code ADD CONSTRAINT filled CHECK (VALUE <> '')\")";
    let undone = "op.execute('ALTER DOMAIN code DROP CONSTRAINT filled')";
    let project = || Project::new().revision_of("one", &[], made, gone);
    let report = gated(&project().revision_of("two", &["one"], checked, undone)).await;
    assert_eq!(rules(&report), ["gate.blocking-scan two.py:9"]);
    let later = checked.replace("'')", "'') NOT VALID");
    let report = gated(&project().revision_of("two", &["one"], &later, undone)).await;
    assert_eq!(rules(&report), Vec::<String>::new());
}

#[tokio::test]
async fn a_proof_in_its_own_transaction_keeps_nobody_waiting() {
    let proven = "op.execute('ALTER TABLE users ADD CONSTRAINT known CHECK (name IS NOT NULL) NOT VALID')
with op.get_context().autocommit_block():
    op.execute('ALTER TABLE users VALIDATE CONSTRAINT known')
op.alter_column('users', 'name', nullable=False)";
    assert_eq!(of(proven).await, Vec::<String>::new());
    let in_one = "op.execute('ALTER TABLE users ADD CONSTRAINT known CHECK (name IS NOT NULL) NOT VALID')
op.execute('ALTER TABLE users VALIDATE CONSTRAINT known')";
    assert_eq!(of(in_one).await, ["gate.blocking-scan two.py:10"]);
}

#[tokio::test]
async fn sizes_decide_what_matters() {
    let project = || {
        sound().revision_of("two", &["one"], "op.execute('ALTER TABLE users ALTER id TYPE bigint')", "pass")
    };
    let with = |rows| {
        let size = Size { rows, bytes: rows * 200 };
        Options { sizes: Sizes::from([("app.users".to_owned(), size)]), ..Options::default() }
    };
    let report = gated_with(&project(), &with(2_100_000)).await.unwrap();
    let said = said(&report, "gate.rewrite");
    assert!(said.contains("app.users (2.1 M rows, 420.0 MB) under ACCESS EXCLUSIVE"), "{said}");
    let report = gated_with(&project(), &with(12)).await.unwrap();
    assert!(!rules(&report).iter().any(|rule| rule.starts_with("gate.rewrite")), "{:?}", rules(&report));
}

#[tokio::test]
async fn a_comment_allows_with_a_reason() {
    let allowed =
        "op.execute('ALTER TABLE users ALTER id TYPE bigint')  # obyra-db: allow[gate.rewrite] 30 rows";
    let project = Project::new().revision_of("one", &[], crate::USERS, crate::NO_USERS).revision_of(
        "two",
        &["one"],
        allowed,
        "op.execute('ALTER TABLE users ALTER id TYPE int')",
    );
    let report = gated(&project).await;
    assert_eq!(rules(&report), ["gate.allowed two.py:9"]);
    assert!(report.is_in_order() && said(&report, "gate.allowed").ends_with("30 rows"));
}

/// In one transaction for all, an older revision's locks are still held unless it was committed first.
#[tokio::test]
async fn only_what_the_branch_adds_is_measured_in_one_transaction() {
    let project = sound()
        .revision_of("two", &["one"], "op.execute('ALTER TABLE users ALTER id TYPE bigint')", "pass")
        .revision_of(
            "three",
            &["two"],
            "op.execute('ALTER TABLE users ADD age int')",
            "op.execute('ALTER TABLE users DROP age')",
        );
    let report = gated_with(&project, &Options { last: Some(1), ..Options::default() }).await.unwrap();
    assert!(!rules(&report).iter().any(|rule| rule.starts_with("gate.")), "{:?}", rules(&report));
    let locks: Vec<String> = report
        .commands
        .iter()
        .flat_map(|command| &command.locks)
        .map(|lock| format!("{} {}", lock.mode, lock.table))
        .collect();
    assert_eq!(locks, ["ACCESS EXCLUSIVE app.users"]);
}
