use std::path::PathBuf;

use super::super::condition::Condition;
use super::*;

fn reading(text: &str) -> Reading {
    let source = Source::decode(PathBuf::from("a.py"), text.as_bytes().to_vec()).unwrap();
    read(&source)
}

/// The statements of a file as `line: sql [conditions] [handlers]`, then what could not be read.
fn shown(text: &str) -> Vec<String> {
    let reading = reading(text);
    assert!(reading.findings.is_empty(), "{:?}", reading.findings);
    let one = |statement: &Statement| {
        let when = statement.when.iter().flat_map(|guard| guard.condition.parts()).map(|part| match part {
            Condition::Opaque(written) => format!("opaque {written}"),
            part => match part.question() {
                Some((question, expected)) => {
                    let no = if expected { "" } else { "not " };
                    let asked = question.asked.as_ref();
                    let asked = asked.map_or("?".to_owned(), |a| {
                        format!("{:?} {} {:?}", a.object.kind, a.object, a.scope)
                    });
                    format!("{no}{asked}")
                }
                None => part.sql().unwrap_or_else(|| "mixed".to_owned()),
            },
        });
        let when = when.collect::<Vec<_>>().join(" & ");
        let caught: Vec<String> = statement
            .caught
            .iter()
            .map(
                |handler| {
                    if handler.caught.hides_more() { "broad".to_owned() } else { handler.caught.shown() }
                },
            )
            .collect();
        format!("{}: {} [{when}] [{}]", statement.place.line, statement.sql, caught.join("; "))
    };
    let mut all: Vec<String> = reading.statements.iter().map(one).collect();
    all.extend(reading.unread.iter().map(|(place, call)| format!("{}: unread {call}", place.line)));
    all
}

#[test]
fn statements_come_from_constants_lists_loops_and_fstrings() {
    let text = r#"
from sqlalchemy import text
TABLE = "users"
COLUMNS = [("phone", "text"), ("age", "int")]
MORE = {"city": "text"}

def ensure(connection):
    for name, kind in COLUMNS:
        connection.execute(text(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {name} {kind}"))
    for name, kind in MORE.items():
        connection.exec_driver_sql("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {}".format(TABLE, name + " " + kind))
    statements = ["CREATE SCHEMA IF NOT EXISTS audit"]
    statements.append("COMMENT ON SCHEMA audit IS '%s'" % "log")
    for statement in statements:
        cursor.execute(statement)
    op.execute("; ".join(["DROP VIEW IF EXISTS a", "DROP VIEW IF EXISTS b"]))
"#;
    assert_eq!(
        shown(text),
        [
            "9: ALTER TABLE users ADD COLUMN IF NOT EXISTS phone text [] []",
            "9: ALTER TABLE users ADD COLUMN IF NOT EXISTS age int [] []",
            "11: ALTER TABLE users ADD COLUMN IF NOT EXISTS city text [] []",
            "15: CREATE SCHEMA IF NOT EXISTS audit [] []",
            "15: COMMENT ON SCHEMA audit IS 'log' [] []",
            "16: DROP VIEW IF EXISTS a [] []",
            "16: DROP VIEW IF EXISTS b [] []",
        ]
    );
}

#[test]
fn guards_in_python_are_questions_to_the_database() {
    let text = r#"
from sqlalchemy import inspect, text

def has(connection, name):
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None

def run(engine):
    inspector = inspect(engine)
    columns = {column["name"] for column in inspector.get_columns("users")}
    with engine.begin() as connection:
        if not has(connection, "app.notes"):
            connection.execute(text("CREATE TABLE app.notes (id int)"))
        if "phone" not in columns:
            connection.execute(text("ALTER TABLE users ADD COLUMN phone text"))
        if not inspector.has_table("tags", schema="app"):
            connection.execute(text("CREATE TABLE app.tags (id int)"))
        found = connection.execute(text("SELECT 1 FROM pg_type WHERE typname = 'mood'")).first()
        if found is None:
            connection.execute(text("CREATE TYPE mood AS ENUM ('a')"))
        if "old" in inspector.get_table_names() and engine.dialect.name == "postgresql":
            connection.execute(text("DROP TABLE old"))
        if any(c["name"] == "age" for c in inspector.get_columns("users")):
            return
        connection.execute(text("ALTER TABLE users ADD COLUMN age int"))
"#;
    assert_eq!(
        shown(text),
        [
            "12: CREATE TABLE app.notes (id int) [not Relation notes Schema(\"app\")] []",
            "14: ALTER TABLE users ADD COLUMN phone text [not Column users.phone Path] []",
            "16: CREATE TABLE app.tags (id int) [not Relation tags Schema(\"app\")] []",
            "19: CREATE TYPE mood AS ENUM ('a') [not Type mood Anywhere] []",
            "21: DROP TABLE old [Relation old Path] []",
            "24: ALTER TABLE users ADD COLUMN age int [not Column users.age Path] []",
        ]
    );
}

#[test]
fn counts_rows_and_cursors_answer_too() {
    let text = r#"
def run(cur, conn):
    cur.execute("SELECT count(*) FROM information_schema.tables WHERE table_name = %s", ("a",))
    if cur.fetchone()[0] == 0:
        cur.execute("CREATE TABLE a (x int)")
    cur.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'a' AND table_schema = 'app'")
    names = [row[0] for row in cur.fetchall()]
    for column in ["b", "c"]:
        if column in names:
            continue
        cur.execute(f"ALTER TABLE a ADD COLUMN {column} int")
    if not conn.execute("SELECT EXISTS (SELECT FROM pg_indexes WHERE indexname = 'i')").scalar():
        conn.execute("CREATE INDEX i ON a (b)")
    if len(conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'x'").fetchall()) == 0:
        conn.execute("CREATE EXTENSION x")
"#;
    assert_eq!(
        shown(text),
        [
            "5: CREATE TABLE a (x int) [not Relation a Anywhere] []",
            "11: ALTER TABLE a ADD COLUMN b int [not Column a.b Schema(\"app\")] []",
            "11: ALTER TABLE a ADD COLUMN c int [not Column a.c Schema(\"app\")] []",
            "13: CREATE INDEX i ON a (b) [not Relation i Anywhere] []",
            "15: CREATE EXTENSION x [not Extension x Global] []",
        ]
    );
}

#[test]
fn handlers_that_hide_are_told_from_those_that_do_not() {
    let text = r#"
from contextlib import suppress
from psycopg.errors import DuplicateTable, DuplicateObject

def run(c, log):
    try:
        c.execute("CREATE TABLE a (x int)")
    except DuplicateTable:
        pass
    try:
        c.execute("CREATE TABLE b (x int)")
    except (DuplicateObject, ValueError) as error:
        log.info("there already: %s", error)
    try:
        c.execute("CREATE TABLE c (x int)")
    except Exception:
        c.rollback()
    try:
        c.execute("CREATE TABLE d (x int)")
    except Exception:
        raise
    with suppress(Exception):
        c.execute("CREATE TABLE e (x int)")
"#;
    assert_eq!(
        shown(text),
        [
            "7: CREATE TABLE a (x int) [] [DuplicateTable]",
            "11: CREATE TABLE b (x int) [] [DuplicateObject]",
            "15: CREATE TABLE c (x int) [] [broad]",
            "19: CREATE TABLE d (x int) [] []",
            "23: CREATE TABLE e (x int) [] [broad]",
        ]
    );
}

#[test]
fn what_only_exists_at_run_time_is_told() {
    let text = r#"
import os
from sqlalchemy import select
from .elsewhere import STATEMENTS, send
from alembic import op

def run(c, name, db):
    c.execute(f"DROP TABLE IF EXISTS {name}")
    for statement in STATEMENTS:
        c.execute(statement)
    if os.environ.get("EXTRA"):
        c.execute("CREATE TABLE extra (x int)")
    send(c, "ALTER TABLE a ADD b int")
    op.create_table("t")
    db.create_all()
    c.execute(select(name))
    task.execute("nothing of the kind")
    print("CREATE TABLE x (y int)")
    sqlite = __import__("x")

def never_sent():
    return "CREATE TABLE never (x int)"
"#;
    assert_eq!(
        shown(text),
        [
            "12: CREATE TABLE extra (x int) [opaque os.environ.get(\"EXTRA\")] []",
            "13: ALTER TABLE a ADD b int [] []",
            "8: unread c.execute()",
            "10: unread c.execute()",
            "14: unread op.create_table()",
            "15: unread db.create_all()",
        ]
    );
}

#[test]
fn another_databases_statements_are_no_concern() {
    let text = r#"
import sqlite3

def run(engine, connection):
    local = sqlite3.connect("x.db")
    local.execute("CREATE TABLE a (x int)")
    if engine.dialect.name == "sqlite":
        connection.execute("ALTER TABLE a ADD b int")
        return
    if engine.url.get_backend_name() != "postgresql":
        return
    connection.execute("CREATE TABLE c (x int)")
"#;
    assert_eq!(shown(text), ["12: CREATE TABLE c (x int) [] []"]);
}

#[test]
fn classes_flags_defaults_and_branches() {
    let text = r#"
_READY = False

class Helper:
    STATEMENTS = ("CREATE SCHEMA IF NOT EXISTS a",)

    def __init__(self, connection):
        self.connection = connection

    def run(self, schema="audit"):
        global _READY
        if _READY:
            return
        for statement in self.STATEMENTS:
            self.send(statement)
        self.send(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        _READY = True

    def send(self, statement):
        self.connection.execute(statement)

def pick(flag, c):
    kind = "text"
    if flag:
        kind = "int"
    c.execute(f"ALTER TABLE t ADD COLUMN IF NOT EXISTS a {kind}")
    name = "x" if True else "y"
    c.execute(f"DROP VIEW IF EXISTS {name}")

def generated():
    yield "DROP VIEW IF EXISTS one"
    yield "DROP VIEW IF EXISTS two"

def main(c):
    for statement in generated():
        c.execute(statement)

if __name__ == "__main__":
    main(connect())
"#;
    assert_eq!(
        shown(text),
        [
            "36: DROP VIEW IF EXISTS one [] []",
            "36: DROP VIEW IF EXISTS two [] []",
            "20: CREATE SCHEMA IF NOT EXISTS a [] []",
            "20: CREATE SCHEMA IF NOT EXISTS audit [] []",
            "28: DROP VIEW IF EXISTS x [] []",
            "26: unread c.execute()",
        ]
    );
}

#[test]
fn bad_files_are_findings_and_no_file_is_a_reason_to_panic() {
    let rule = |text: &str| reading(text).findings.first().map(|finding| finding.message.code().id());
    assert_eq!(rule("def f(:\n"), Some("scan.syntax-error"));
    assert_eq!(rule("print 'x'\n"), Some("scan.python-2"));
    let deep = format!("x = {}1{}", "[".repeat(5000), "]".repeat(5000));
    let on_a_large_stack = super::super::files::on_a_large_stack(|| reading(&deep).findings.len()).unwrap();
    assert_eq!(on_a_large_stack, 1);
    for text in [
        "",
        "c.execute()",
        "c.execute(*a, **b)",
        "def f(c): f(c); c.execute(f(c))",
        "x = x + x\nc.execute(x)",
        "a = a[0][1]['x']",
        "for a, (b, c) in d: pass",
        "s = '{'.format(1) + '%' % 2 + '{0[a]}'.format(3)",
        "while True:\n    c.execute('DROP VIEW IF EXISTS a')",
        "match x:\n    case 1:\n        c.execute('DROP VIEW IF EXISTS a')",
        "c.execute('')",
        "c.execute(';')",
        "async def f(c):\n    await c.execute('DROP VIEW IF EXISTS a')",
        "l = [1] * 3\nl.append(l)\nc.execute(l)",
    ] {
        reading(text);
    }
    // A loop over loops ends.
    let loops =
        (0..8).map(|depth| format!("{}for x{depth} in range_:\n", "  ".repeat(depth))).collect::<String>();
    let grows =
        format!("range_ = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n{loops}{}c.execute('SELECT 1')\n", "  ".repeat(8));
    reading(&grows);
}

/// The verdicts on the statements of a file, with the rules of what is said of them.
fn verdicts(text: &str) -> Vec<String> {
    use super::super::prove::{Ground, prove};
    let statements = reading(text).statements;
    let proofs = prove(&statements, &Ground::default());
    let one = |proof: &super::super::prove::Proof| {
        let rules =
            proof.remarks.iter().map(|remark| remark.message.code().id().trim_start_matches("runtime."));
        let word = format!("{:?}", proof.verdict);
        let word = word.split('(').next().unwrap_or_default().to_lowercase();
        std::iter::once(word.as_str()).chain(rules).collect::<Vec<_>>().join(" ")
    };
    proofs.iter().map(one).collect()
}

#[test]
fn an_error_that_is_caught_in_python_needs_a_savepoint() {
    let text = r#"
from psycopg.errors import DuplicateTable, DuplicateObject

def run(engine):
    with engine.begin() as c:
        try:
            c.execute("CREATE TABLE a (x int)")
        except DuplicateTable:
            pass
        try:
            with c.begin_nested():
                c.execute("CREATE TABLE b (x int)")
        except DuplicateTable:
            pass
        try:
            c.execute("CREATE TABLE c (x int)")
        except DuplicateTable:
            c.rollback()
        try:
            with c.begin_nested():
                c.execute("CREATE TABLE d (x int)")
        except DuplicateObject:
            pass
    try:
        with engine.begin() as c:
            c.execute("CREATE TABLE e (x int)")
    except DuplicateTable:
        pass
"#;
    let expected =
        ["refuted guard-without-savepoint", "proven", "proven", "refuted guard-wrong-error", "proven"];
    assert_eq!(verdicts(text), expected);
    let autocommit = format!("# isolation_level=\"AUTOCOMMIT\"\n{text}");
    assert_eq!(verdicts(&autocommit)[0], "proven");
}

#[test]
fn a_switch_that_somebody_else_sets_hides_nothing() {
    let text = r#"
def run(c, dry_run=True, schema="audit"):
    if dry_run:
        return
    c.execute(f"CREATE SCHEMA {schema}")

def main(c):
    inner(c)

def inner(c, dry_run=True):
    if not dry_run:
        c.execute("CREATE TABLE never (x int)")
"#;
    assert_eq!(shown(text), ["5: CREATE SCHEMA audit [mixed] []"]);
}

#[test]
fn a_password_is_shown_nowhere() {
    let text = "c.execute(\"ALTER ROLE r PASSWORD 'hunter2'\")\nif f(\"postgresql://u:hunter2@h/d\"):\n    c.execute('CREATE TABLE t (a int)')\n";
    let statements = reading(text).statements;
    let proofs = super::super::prove::prove(&statements, &Default::default());
    let told = format!("{:?}", proofs.iter().map(|proof| (&proof.title, &proof.verdict)).collect::<Vec<_>>());
    assert!(told.contains("ALTER ROLE r PASSWORD") && !told.contains("hunter2"), "{told}");
}
