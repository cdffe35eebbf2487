use std::path::PathBuf;

use obyra_evidence::Place;

use super::super::tokens::split as pieces;
use super::*;

fn statements(sql: &str) -> Vec<Statement> {
    let place = |line| Place { file: PathBuf::from("a.sql"), line, column: 1 };
    let statement = |(line, piece): (usize, Piece<'_>)| Statement {
        place: place(line + 1),
        sql: piece.text.to_owned(),
        call: None,
        when: Vec::new(),
        caught: Vec::new(),
    };
    pieces(sql).into_iter().enumerate().map(statement).collect()
}

fn ground(path: &[&str]) -> Ground {
    Ground { search_path: path.iter().map(|schema| (*schema).to_owned()).collect() }
}

/// The verdict on the last statement of a text, with the rules of what is said of it.
fn verdict_on(sql: &str, path: &[&str]) -> String {
    let proof = prove(&statements(sql), &ground(path)).pop().unwrap();
    let verdict = match &proof.verdict {
        Verdict::Proven => "proven".to_owned(),
        Verdict::Refuted => "refuted".to_owned(),
        Verdict::Idle => "idle".to_owned(),
        Verdict::Undecided(why) => format!("undecided {}", short(why)),
        Verdict::Unseen(why) => format!("unseen {}", short(why)),
    };
    proof.remarks.iter().fold(verdict, |all, remark| format!("{all} {}", short(&remark.message)))
}

fn short(message: &Message) -> &'static str {
    message.code().id().trim_start_matches("runtime.")
}

fn verdict(sql: &str) -> String {
    verdict_on(sql, &["app"])
}

#[test]
fn a_handler_must_catch_what_the_server_raises() {
    let block = |statement: &str, caught: &str| {
        format!("DO $$ BEGIN {statement}; EXCEPTION WHEN {caught} THEN NULL; END $$")
    };
    for (statement, caught, expected) in [
        ("CREATE TABLE t (a int)", "duplicate_table", "proven"),
        ("CREATE TABLE t (a int)", "duplicate_object", "refuted guard-wrong-error"),
        ("CREATE TABLE t (a int)", "duplicate_object OR duplicate_table", "proven"),
        ("CREATE TABLE t (a int)", "SQLSTATE '42P07'", "proven"),
        ("CREATE TABLE t (a int)", "others", "refuted guard-swallows"),
        ("CREATE TABLE t (a int)", "syntax_error_or_access_rule_violation", "refuted guard-swallows"),
        ("CREATE TYPE m AS ENUM ('a')", "duplicate_object", "proven"),
        ("CREATE TYPE m AS ENUM ('a')", "duplicate_table", "refuted guard-wrong-error"),
        ("ALTER TABLE t ADD a int", "duplicate_column", "proven"),
        ("ALTER TABLE t ADD a int", "duplicate_object", "refuted guard-wrong-error"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "duplicate_object", "proven"),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (a)", "duplicate_object", "refuted guard-wrong-error"),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (a)", "duplicate_table", "proven"),
        ("CREATE TABLE IF NOT EXISTS t (a int)", "duplicate_object", "proven"),
        ("ALTER TABLE t ADD CHECK (a > 0)", "duplicate_object", "refuted repeats"),
    ] {
        assert_eq!(verdict(&block(statement, caught)), expected, "{statement} / {caught}");
    }
    let followed = block("CREATE TABLE t (a int); CREATE INDEX IF NOT EXISTS i ON t (a)", "duplicate_table");
    assert_eq!(verdict(&followed), "proven skips-rest");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of guards")]
fn a_guard_must_ask_about_the_schema_that_the_statement_means() {
    let guarded = |condition: &str, statement: &str| {
        format!("DO $$ BEGIN IF {condition} THEN {statement}; END IF; END $$")
    };
    let table = "CREATE TABLE users (a int)";
    let column = "ALTER TABLE users ADD COLUMN phone text";
    for (condition, statement, path, expected) in [
        ("to_regclass('users') IS NULL", table, &["app"][..], "proven"),
        ("to_regclass('app.users') IS NULL", table, &["app"], "proven"),
        ("to_regclass('public.users') IS NULL", table, &["app"], "refuted guard-wrong-schema"),
        ("to_regclass('users') IS NULL", table, &["app", "public"], "refuted guard-search-path"),
        (
            "to_regclass('users') IS NULL",
            "CREATE TABLE audit.users (a int)",
            &["app"],
            "refuted guard-wrong-schema",
        ),
        (
            "to_regclass('users') IS NULL",
            "CREATE TABLE public.users (a int)",
            &["app", "public"],
            "refuted guard-search-path",
        ),
        ("to_regclass('audit.users') IS NULL", "CREATE TABLE audit.users (a int)", &["app"], "proven"),
        (
            "NOT EXISTS (SELECT FROM information_schema.tables WHERE table_name = 'users')",
            table,
            &["app"],
            "refuted guard-any-schema",
        ),
        (
            "NOT EXISTS (SELECT FROM information_schema.tables WHERE table_schema = 'public' AND table_name = 'users')",
            table,
            &["app"],
            "refuted guard-wrong-schema",
        ),
        (
            "NOT EXISTS (SELECT FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'users')",
            table,
            &["app", "public"],
            "proven",
        ),
        (
            "NOT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'users' AND column_name = 'phone')",
            column,
            &["app"],
            "refuted guard-any-schema",
        ),
        (
            "NOT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'app' AND column_name = 'phone')",
            column,
            &["app"],
            "refuted guard-any-table",
        ),
        (
            "NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('users') AND attname = 'phone' AND NOT attisdropped)",
            column,
            &["app", "public"],
            "proven",
        ),
        (
            "NOT EXISTS (SELECT FROM pg_type WHERE typname = 'mood')",
            "CREATE TYPE mood AS ENUM ('a')",
            &["app"],
            "refuted guard-any-schema",
        ),
        ("to_regtype('mood') IS NULL", "CREATE TYPE mood AS ENUM ('a')", &["app"], "proven"),
        (
            "NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'c')",
            "ALTER TABLE users ADD CONSTRAINT c UNIQUE (a)",
            &["app"],
            "refuted guard-any-schema",
        ),
        (
            "NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'c' AND conrelid = 'app.users'::regclass)",
            "ALTER TABLE app.users ADD CONSTRAINT c UNIQUE (a)",
            &["app"],
            "proven",
        ),
        (
            "NOT EXISTS (SELECT FROM pg_enum WHERE enumtypid = to_regtype('mood') AND enumlabel = 'b')",
            "ALTER TYPE mood ADD VALUE 'b'",
            &["app"],
            "proven",
        ),
        // The table is there, in some schema: then the alteration fails where it is not.
        (
            "EXISTS (SELECT FROM information_schema.tables WHERE table_name = 'users')",
            "ALTER TABLE users ADD COLUMN IF NOT EXISTS phone text",
            &["app"],
            "refuted guard-any-schema",
        ),
        (
            "to_regclass('users') IS NOT NULL",
            "ALTER TABLE users ADD COLUMN IF NOT EXISTS phone text",
            &["app", "public"],
            "proven",
        ),
        ("to_regclass('users') IS NOT NULL", "DROP TABLE users", &["app"], "proven"),
        // It asks about something else: running it tells.
        ("to_regclass('other') IS NULL", table, &["app"], "undecided why-guard"),
        ("v_flag", table, &["app"], "undecided why-opaque"),
        (
            "NOT EXISTS (SELECT FROM roles WHERE name = 'a')",
            "INSERT INTO roles VALUES ('a')",
            &["app"],
            "undecided why-guard",
        ),
        ("true", table, &["app"], "refuted not-idempotent"),
    ] {
        assert_eq!(
            verdict_on(&guarded(condition, statement), path),
            expected,
            "{condition} / {statement} / {path:?}"
        );
    }
}

#[test]
fn the_search_path_is_followed_where_a_statement_sets_it() {
    let guarded =
        "DO $$ BEGIN IF to_regclass('audit.log') IS NULL THEN CREATE TABLE log (a int); END IF; END $$";
    assert_eq!(verdict(guarded), "refuted guard-wrong-schema");
    assert_eq!(verdict(&format!("SET search_path TO audit; {guarded}")), "proven");
    assert_eq!(verdict(&format!("SET search_path TO \u{e000}; {guarded}")), "undecided why-search-path");
    assert_eq!(verdict("SET search_path TO audit"), "idle");
}

#[test]
fn what_is_dropped_before_may_be_made_anew_unless_it_holds_rows() {
    for (sql, expected) in [
        ("DROP TRIGGER IF EXISTS g ON t; CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()", "proven"),
        (
            "DROP TRIGGER IF EXISTS g ON u; CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()",
            "refuted not-idempotent",
        ),
        ("ALTER TABLE t DROP CONSTRAINT IF EXISTS c; ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "proven"),
        ("DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT 1", "proven"),
        ("DROP TABLE IF EXISTS t; CREATE TABLE t (a int)", "refuted recreates"),
        ("ALTER TABLE t DROP COLUMN IF EXISTS a; ALTER TABLE t ADD COLUMN a int", "refuted recreates"),
        ("DROP VIEW v; CREATE VIEW v AS SELECT 1", "refuted not-idempotent"),
    ] {
        assert_eq!(verdict(sql), expected, "{sql}");
    }
}

#[test]
fn what_is_made_with_a_table_is_guarded_with_it() {
    let block = "DO $$ BEGIN IF to_regclass('t') IS NULL THEN
        CREATE TABLE t (a int); CREATE INDEX i ON t (a); ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0);
      END IF; END $$";
    assert_eq!(verdict(block), "proven");
    let other = "DO $$ BEGIN IF to_regclass('t') IS NULL THEN CREATE TABLE t (a int); CREATE INDEX i ON u (a); END IF; END $$";
    assert_eq!(verdict(other), "undecided why-guard");
}

#[test]
fn forms_that_repeat_lose_or_cannot_be_read() {
    for (sql, expected) in [
        ("CREATE TABLE t (a int)", "refuted not-idempotent"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS a int", "proven"),
        ("ALTER TYPE m ADD VALUE IF NOT EXISTS 'x'", "proven"),
        ("UPDATE t SET n = n + 1", "refuted repeats"),
        ("INSERT INTO t VALUES (1)", "refuted repeats"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING", "proven"),
        ("TRUNCATE t", "refuted loses"),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "proven outside-transaction"),
        ("DO LANGUAGE plperl $$ x $$", "undecided why-language"),
        ("DO $$ BEGIN nonsense", "undecided why-block"),
        ("COPY t FROM stdin", "undecided why-fed"),
        ("SELECT 1", "idle"),
        ("DO $$ BEGIN PERFORM 1; END $$", "idle"),
        ("DO $$ BEGIN EXECUTE v; END $$", "undecided why-form"),
        ("DO $$ BEGIN EXECUTE 'CREATE TABLE t (a int)'; END $$", "refuted not-idempotent"),
    ] {
        assert_eq!(verdict(sql), expected, "{sql}");
    }
}
