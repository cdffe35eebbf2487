use super::super::object::Kind;
use super::*;

/// What the effects of a statement do the second time, in words.
fn again(sql: &str) -> String {
    let form = of(sql);
    let word = |effect: &Effect| match &effect.again {
        Again::Nothing => "nothing".to_owned(),
        Again::Raises(state) => format!("raises {}", errors::name(state)),
        Again::Repeats(_) => "repeats".to_owned(),
        Again::Loses(_) => "loses".to_owned(),
        Again::Unclear(_) => "unclear".to_owned(),
        Again::Unseen(_) => "unseen".to_owned(),
    };
    form.effects.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_exists_is_skipped_replaced_or_refused() {
    for (sql, expected) in [
        ("CREATE TABLE IF NOT EXISTS t (a int)", "nothing"),
        ("CREATE UNLOGGED TABLE t (a int)", "raises duplicate_table"),
        ("CREATE TABLE t AS SELECT 1", "raises duplicate_table"),
        ("CREATE UNIQUE INDEX IF NOT EXISTS i ON t (a)", "nothing"),
        ("CREATE INDEX i ON t (a)", "raises duplicate_table"),
        ("CREATE INDEX ON t (a)", "repeats"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "nothing"),
        ("CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT 1", "nothing"),
        ("CREATE TYPE mood AS ENUM ('a')", "raises duplicate_object"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$", "nothing"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$", "raises duplicate_function"),
        ("CREATE SCHEMA IF NOT EXISTS app", "nothing"),
        ("CREATE SCHEMA AUTHORIZATION joe", "raises duplicate_schema"),
        ("CREATE EXTENSION IF NOT EXISTS pgcrypto", "nothing"),
        ("CREATE CONSTRAINT TRIGGER g AFTER INSERT ON t EXECUTE FUNCTION f()", "raises duplicate_object"),
        ("CREATE POLICY p ON t USING (true)", "raises duplicate_object"),
        ("CREATE TEMP TABLE t (a int)", ""),
        ("SELECT 1 AS a INTO t", "raises duplicate_table"),
        ("DROP TABLE IF EXISTS a, b", "nothing, nothing"),
        ("DROP INDEX i", "raises undefined_object"),
        ("DROP FUNCTION f(int, text)", "raises undefined_function"),
        ("DROP TRIGGER IF EXISTS g ON t", "nothing"),
    ] {
        assert_eq!(again(sql), expected, "{sql}");
    }
}

#[test]
fn each_action_of_an_alter_is_one() {
    for (sql, expected) in [
        (
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS a numeric(10, 2), ADD b int",
            "nothing, raises duplicate_column",
        ),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "raises duplicate_object"),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (a)", "raises duplicate_table"),
        ("ALTER TABLE t ADD CONSTRAINT c PRIMARY KEY (a)", "raises invalid_table_definition"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "raises invalid_table_definition"),
        ("ALTER TABLE t ADD CHECK (a > 0)", "repeats"),
        ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u", "repeats"),
        (
            "ALTER TABLE IF EXISTS ONLY t DROP COLUMN a, DROP CONSTRAINT IF EXISTS c",
            "raises undefined_column, nothing",
        ),
        ("ALTER TABLE t ALTER a SET NOT NULL, ALTER b SET DEFAULT 0", "nothing, nothing"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint", "nothing"),
        ("ALTER TABLE t ALTER COLUMN a TYPE int USING a * 2", "unseen"),
        ("ALTER TABLE t ALTER COLUMN a TYPE int USING a::int", "nothing"),
        ("ALTER TABLE t ALTER COLUMN a TYPE int USING (CAST(a AS int))", "nothing"),
        ("ALTER TABLE t ALTER a ADD GENERATED ALWAYS AS IDENTITY", "raises object_not_in_prerequisite_state"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY, OWNER TO o", "nothing, nothing"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "raises undefined_column"),
        ("ALTER TABLE t RENAME TO u", "raises undefined_table"),
        ("ALTER TABLE t RENAME CONSTRAINT a TO b", "raises undefined_object"),
        ("ALTER TABLE t ATTACH PARTITION u DEFAULT", "unclear"),
        ("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'x' AFTER 'a'", "nothing"),
        ("ALTER TYPE mood ADD VALUE 'x'", "raises duplicate_object"),
        ("ALTER TYPE mood RENAME VALUE 'a' TO 'b'", "raises invalid_parameter_value"),
        ("ALTER SEQUENCE s RESTART WITH 1", "loses"),
        ("ALTER SEQUENCE s OWNED BY t.a", "nothing"),
        ("ALTER INDEX i RENAME TO j", "raises undefined_table"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r", "nothing"),
        ("ALTER FUNCTION f() OWNER TO o", "nothing"),
        ("ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0)", "raises duplicate_object"),
    ] {
        assert_eq!(again(sql), expected, "{sql}");
    }
}

#[test]
fn rows_are_the_same_only_where_the_form_says_so() {
    for (sql, expected) in [
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO NOTHING", "nothing"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING", "nothing"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING", "unclear"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (id) DO NOTHING", "unclear"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO NOTHING", "nothing"),
        ("INSERT INTO t (a, at) VALUES (1, now()) ON CONFLICT (a) DO UPDATE SET at = excluded.at", "unclear"),
        ("INSERT INTO t (a, n) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET n = excluded.n", "nothing"),
        ("INSERT INTO t (a, n) VALUES (1, 1) ON CONFLICT (a) DO UPDATE SET n = t.n + 1", "repeats"),
        ("INSERT INTO t (a, n) VALUES (1, 1) ON CONFLICT (a) DO UPDATE SET at = now()", "unclear"),
        ("INSERT INTO t (a) VALUES (1)", "repeats"),
        ("INSERT INTO t (a) SELECT 1 WHERE NOT EXISTS (SELECT FROM t WHERE a = 1)", "unclear"),
        ("UPDATE t SET a = 0 WHERE a IS NULL", "nothing"),
        ("UPDATE t SET a = NULL WHERE a IS NULL", "unclear"),
        ("UPDATE t x SET a = 'b' WHERE x.a = 'c' AND x.d", "nothing"),
        ("UPDATE t SET a = 'b' WHERE a <> 'b'", "nothing"),
        ("UPDATE t SET a = lower(b) WHERE a IS DISTINCT FROM lower(b)", "nothing"),
        ("UPDATE t SET a = a + 1", "repeats"),
        ("UPDATE t SET a = t.a || 'x'", "repeats"),
        ("UPDATE t SET a = 1", "repeats"),
        ("UPDATE t SET a = u.a FROM u WHERE u.id = t.id", "unclear"),
        ("DELETE FROM t", "loses"),
        ("DELETE FROM t WHERE a < now()", "unclear"),
        ("TRUNCATE TABLE t", "loses"),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x", "unclear"),
        ("SELECT setval('s', 1)", "unclear"),
        ("SELECT ensure_schema()", "unclear"),
        ("SELECT * FROM app.ensure_schema('x')", "unclear"),
        ("SELECT lower(a) FROM t", ""),
        ("SELECT to_regclass('t') IS NULL, pg_advisory_lock(1), count(*)", ""),
        ("COMMENT ON TABLE t IS 'x'", "nothing"),
        ("GRANT SELECT ON t TO r", "nothing"),
        ("CALL p()", "unclear"),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", "unclear"),
    ] {
        assert_eq!(again(sql), expected, "{sql}");
    }
}

#[test]
fn some_statements_need_more_than_a_transaction_and_others_change_nothing() {
    for (sql, expected) in [
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", Manner::Autonomous),
        ("DROP INDEX CONCURRENTLY i", Manner::Autonomous),
        ("VACUUM t", Manner::Autonomous),
        ("CREATE DATABASE d", Manner::Autonomous),
        ("SELECT to_regclass('t')", Manner::Query),
        ("WITH x AS (SELECT 1) SELECT * FROM x", Manner::Query),
        ("(SELECT 1)", Manner::Query),
        ("SET lock_timeout = '1s'", Manner::Session),
        ("BEGIN", Manner::TransactionControl),
        ("SET TRANSACTION READ ONLY", Manner::TransactionControl),
        ("COPY t FROM stdin", Manner::Fed),
        ("COPY t TO stdout", Manner::Query),
        ("DO $$ BEGIN END $$", Manner::Block),
        ("", Manner::Transactional),
    ] {
        assert_eq!(of(sql).manner, expected, "{sql}");
    }
    let path = |sql| of(sql).search_path;
    assert_eq!(path("SET search_path TO app, \"Public\""), Some(Some(vec!["app".into(), "Public".into()])));
    assert_eq!(path("SET LOCAL search_path = 'app'"), Some(Some(vec!["app".into()])));
    assert_eq!(path("SET search_path TO \u{e000}"), Some(None));
    assert_eq!(path("SET lock_timeout = 0"), None);
}

#[test]
fn objects_are_named_with_what_they_belong_to() {
    let object = |sql| of(sql).effects.remove(0).object;
    assert_eq!(object("ALTER TABLE App.Users ADD \"Phone\" text").to_string(), "app.users.\"Phone\"");
    let index = object("CREATE INDEX i ON ONLY app.users (a)");
    assert_eq!((index.kind, index.to_string().as_str()), (Kind::Relation, "i"));
    assert_eq!(index.of.map(|of| of.to_string()).as_deref(), Some("app.users"));
    assert_eq!(
        object("CREATE TRIGGER g BEFORE INSERT OR UPDATE ON t EXECUTE FUNCTION f()").to_string(),
        "g on t"
    );
    assert_eq!(object("ALTER TYPE app.mood ADD VALUE 'x y'").to_string(), "app.mood.\"x y\"");
    let title =
        of("CREATE TABLE\n  t (a int, b text, c text, d text, e text, f text, g text, h text, i text)").title;
    assert!(title.starts_with("CREATE TABLE t (a int, b text") && title.ends_with('…'), "{title}");
}

const SETUP: &str = "CREATE TABLE t (a int, b text, c int NOT NULL, d int, e int); CREATE TABLE u (a int); CREATE TABLE u2 (a int PRIMARY KEY); CREATE TABLE n5 (a int);
    CREATE TABLE p (a int, c int); CREATE INDEX free ON t (e); CREATE UNIQUE INDEX whole ON t (b);
    CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE pair AS (x int, y int); CREATE DOMAIN dom AS int;
    CREATE VIEW old_view AS SELECT 1 AS one; CREATE SEQUENCE seq; CREATE SCHEMA old_schema;
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION old_f() RETURNS int LANGUAGE sql AS 'SELECT 1'";

/// In an order in which each can run once.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE n (a int)",
    "CREATE TABLE IF NOT EXISTS n2 (a int)",
    "CREATE TABLE n3 AS SELECT 1 AS one",
    "SELECT 1 AS one INTO n4",
    "CREATE INDEX i ON t (a)",
    "CREATE INDEX IF NOT EXISTS i2 ON t (a)",
    "CREATE VIEW v AS SELECT 1 AS one",
    "CREATE OR REPLACE VIEW v2 AS SELECT 1 AS one",
    "CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one",
    "CREATE SEQUENCE s",
    "CREATE SEQUENCE IF NOT EXISTS s2",
    "CREATE SCHEMA sch",
    "CREATE TYPE ty AS ENUM ('x')",
    "CREATE DOMAIN dm AS int",
    "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION g2() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE OR REPLACE TRIGGER tr2 BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE POLICY pol ON t USING (true)",
    "CREATE RULE ru AS ON INSERT TO u DO INSTEAD NOTHING",
    "CREATE ROLE somebody",
    "ALTER TABLE t ADD COLUMN n int",
    "ALTER TABLE t ADD COLUMN IF NOT EXISTS n2 int REFERENCES u2 (a)",
    "ALTER TABLE t ADD CONSTRAINT c1 CHECK (a > 0)",
    "ALTER TABLE t ADD CONSTRAINT c2 UNIQUE (a)",
    "ALTER TABLE t ADD CONSTRAINT c3 UNIQUE USING INDEX whole",
    "ALTER TABLE t ADD CONSTRAINT c4 EXCLUDE (a WITH =)",
    "ALTER TABLE t ADD CONSTRAINT c5 PRIMARY KEY (c)",
    "ALTER TABLE p ADD PRIMARY KEY (c)",
    "ALTER TABLE t ADD CONSTRAINT c6 FOREIGN KEY (a) REFERENCES u2 (a)",
    "ALTER TABLE t ADD CHECK (a > 1)",
    "ALTER TABLE t ALTER COLUMN d SET DEFAULT 1, ALTER COLUMN d SET NOT NULL",
    "ALTER TABLE t ALTER COLUMN d DROP NOT NULL",
    "ALTER TABLE t ALTER COLUMN d TYPE bigint",
    "ALTER TABLE t ALTER COLUMN c ADD GENERATED BY DEFAULT AS IDENTITY",
    "ALTER TABLE t ALTER COLUMN c DROP IDENTITY",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "ALTER TABLE t VALIDATE CONSTRAINT c1",
    "ALTER TABLE t DROP CONSTRAINT c1",
    "ALTER TABLE t DROP COLUMN IF EXISTS n2",
    "ALTER TABLE t DROP COLUMN n",
    "ALTER TABLE t RENAME COLUMN a TO aa",
    "ALTER TABLE t RENAME CONSTRAINT c2 TO cc2",
    "ALTER TABLE u RENAME TO uu",
    "ALTER TABLE n INHERIT n5",
    "ALTER TABLE n NO INHERIT n5",
    "ALTER TYPE mood ADD VALUE 'c'",
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'd'",
    "ALTER TYPE mood RENAME VALUE 'a' TO 'z'",
    "ALTER TYPE mood RENAME TO moods",
    "ALTER TYPE pair ADD ATTRIBUTE z int",
    "ALTER TYPE pair DROP ATTRIBUTE z",
    "ALTER TYPE pair RENAME ATTRIBUTE x TO w",
    "ALTER DOMAIN dom ADD CONSTRAINT dc CHECK (value > 0)",
    "ALTER DOMAIN dom DROP CONSTRAINT dc",
    "ALTER VIEW old_view RENAME TO new_view",
    "ALTER SEQUENCE seq RENAME TO seq2",
    "ALTER INDEX free RENAME TO free2",
    "ALTER SCHEMA old_schema RENAME TO new_schema",
    "ALTER FUNCTION old_f() RENAME TO new_f",
    "ALTER FUNCTION g() STABLE",
    "DROP TABLE n3",
    "DROP VIEW v",
    "DROP MATERIALIZED VIEW mv",
    "DROP SEQUENCE s",
    "DROP INDEX i",
    "DROP TYPE ty",
    "DROP DOMAIN dm",
    "DROP FUNCTION g()",
    "DROP TRIGGER tr ON t",
    "DROP POLICY pol ON t",
    "DROP RULE ru ON uu",
    "DROP SCHEMA sch",
    "DROP ROLE somebody",
    "DROP TABLE IF EXISTS n, n2",
    "COMMENT ON TABLE t IS 'x'",
    "GRANT SELECT ON t TO PUBLIC",
];

/// On every version, each statement runs twice: the second time the server says what the form says.
#[tokio::test]
async fn the_table_of_errors_is_the_servers() {
    use obyra_postgres::cluster::{MAJORS_FOR_TESTS, for_tests_version};
    use obyra_postgres::{Limits, Session};
    for major in MAJORS_FOR_TESTS {
        let cluster = for_tests_version(major).await;
        let session = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        session.batch_execute(SETUP).await.unwrap();
        for sql in STATEMENTS {
            session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{major}: {sql}: {error:?}"));
            let error = session.batch_execute(sql).await.err();
            let state = error.and_then(|error| error.code().map(|code| code.code().to_owned()));
            let expected = of(sql).effects.iter().find_map(|effect| match effect.again {
                Again::Raises(state) => Some(state.to_owned()),
                _ => None,
            });
            assert_eq!(state, expected, "{major}: {sql}");
        }
    }
}
