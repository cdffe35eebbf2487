//! Statements that change rows or lock tables without changing the catalogue, and blocks that hide errors.

use obyra_migrations::gate::{Size, Sizes};

use crate::{Options, each, gated_with, said, sound};

#[tokio::test]
async fn what_others_wait_for() {
    let model = "import sqlalchemy as sa; users = sa.table('users', sa.column('name')); op.execute(users.update().values(name='x'))";
    each(&[
        ("op.execute(\"UPDATE users SET name = 'x'\")", &["gate.bulk-write"]),
        ("op.execute(\"DELETE FROM users WHERE name LIKE 'x%'\")", &["gate.bulk-write"]),
        (
            "op.execute('SET LOCAL work_mem = 8192; UPDATE users SET name = lower(name)')",
            &["gate.bulk-write"],
        ),
        ("op.execute(\"DO $$ BEGIN UPDATE users SET name = 'x'; END $$\")", &["gate.bulk-write"]),
        (
            "op.execute('WITH gone AS (DELETE FROM users RETURNING 1) SELECT * FROM gone')",
            &["gate.bulk-write"],
        ),
        (model, &["gate.bulk-write"]),
        ("op.execute('LOCK TABLE users')", &["gate.table-lock"]),
        ("op.execute('DO $$ BEGIN LOCK users IN SHARE MODE; END $$')", &["gate.table-lock"]),
        ("op.execute('TRUNCATE users')", &["gate.table-lock"]),
    ])
    .await;
}

#[tokio::test]
async fn what_concerns_nobody_else_is_no_finding() {
    each(&[
        ("op.execute(\"UPDATE users SET name = 'x' WHERE id = 7\")", &[]),
        ("op.execute(\"INSERT INTO users SELECT id, 'x' FROM orders\")", &[]),
        ("op.execute('LOCK TABLE users IN ROW EXCLUSIVE MODE')", &[]),
        ("op.execute('CREATE TABLE own (id int)'); op.execute('UPDATE own SET id = 1'); op.execute('LOCK TABLE own')", &[]),
        ("op.execute('CREATE TEMPORARY TABLE IF NOT EXISTS mine (id int)'); op.execute('UPDATE mine SET id = 1')", &[]),
        ("op.execute('SELECT * FROM users'); op.execute(\"UPDATE users SET name = 'x' WHERE id = 7\")", &[]),
        // The command tells of its lock itself.
        ("op.execute('DO $$ BEGIN ALTER TABLE users ADD age int; END $$')", &[]),
        ("with op.get_context().autocommit_block(): op.execute(\"UPDATE users SET name = 'x'\")", &[]),
    ])
    .await;
}

#[tokio::test]
async fn rows_decide_what_matters() {
    let project = || {
        let up = "op.execute(\"UPDATE users SET name = 'x'\")\nop.execute('LOCK TABLE users')";
        sound().revision_of("two", &["one"], up, "pass")
    };
    let with = |rows| {
        let size = Size { rows, bytes: rows * 200 };
        let sizes = Sizes::from([("app.users".to_owned(), size)]);
        Options { last: Some(1), sizes, ..Options::default() }
    };
    let report = gated_with(&project(), &with(2_100_000)).await.unwrap();
    let said = said(&report, "gate.bulk-write");
    assert!(said.contains("UPDATE in two goes through all of app.users (2.1 M rows, 420.0 MB)"), "{said}");
    assert!(!report.is_in_order());
    let report = gated_with(&project(), &with(12)).await.unwrap();
    assert_eq!(crate::rules(&report), ["graph.empty-downgrade two.py:13"]);
}

/// The server logs no error that a block catches.
#[tokio::test]
async fn a_block_hides_its_errors() {
    let many = "PERFORM 2; ".repeat(800);
    let long = format!("op.execute('DO $$ BEGIN {many} EXCEPTION WHEN OTHERS THEN NULL; END $$')");
    each(&[
        (
            "op.execute(\"DO $$ BEGIN ALTER TABLE nowhere ADD x int; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'x'; END $$\")",
            &["gate.swallowed-in-do"],
        ),
        (&long, &["gate.swallowed-in-do"]),
        ("op.execute('DO $$ BEGIN CREATE TYPE a AS (b int); EXCEPTION WHEN duplicate_object THEN NULL; END $$')", &[]),
    ])
    .await;
}

/// Each hazard that a static reader of SQL knows, seen by measuring: on empty tables, in Alembic's operations, in
/// blocks, and in statements that only exist when they run.
#[tokio::test]
async fn measuring_sees_what_a_reader_of_sql_would() {
    each(&[
        ("op.create_foreign_key('fk', 'orders', 'users', ['user_id'], ['id'])", &["gate.blocking-scan"]),
        ("op.create_check_constraint('positive', 'orders', 'id > 0')", &["gate.blocking-scan"]),
        ("op.create_unique_constraint('once', 'orders', ['code'])", &["gate.blocking-scan"]),
        ("op.create_index('by_code', 'orders', ['code'])", &["gate.blocking-scan"]),
        ("op.alter_column('orders', 'code', nullable=False)", &["gate.blocking-scan"]),
        ("op.alter_column('orders', 'id', type_=sa.BigInteger)", &["gate.rewrite"]),
        ("op.execute('ALTER TABLE orders ALTER at TYPE date USING at::date')", &["gate.rewrite"]),
        ("op.execute('ALTER TABLE orders ADD number bigserial')", &["gate.rewrite"]),
        ("op.execute('ALTER TABLE orders ADD twice int GENERATED ALWAYS AS (id * 2) STORED')", &["gate.rewrite"]),
        ("op.execute(\"DO $$ BEGIN EXECUTE 'CREATE INDEX ON orders (code)'; END $$\")", &["gate.blocking-scan"]),
        ("op.add_column('orders', sa.Column('kind', sa.Text, nullable=False))", &["gate.required-column"]),
        ("op.rename_table('orders', 'purchases')", &["gate.renamed"]),
        ("op.alter_column('orders', 'code', new_column_name='number')", &["gate.renamed"]),
        ("op.drop_column('orders', 'code')", &["gate.removed"]),
        ("op.drop_table('orders')", &["gate.removed"]),
        // A longer text and a new name for a constraint rewrite nothing and read nothing.
        ("op.execute('ALTER TABLE orders ALTER code TYPE text')", &[]),
        ("op.execute('ALTER INDEX orders_pkey RENAME TO pk')", &[]),
        ("with op.get_context().autocommit_block(): op.create_index('i', 'orders', ['code'], postgresql_concurrently=True)", &[]),
    ])
    .await;
}
