//! `migrate runtime` through a helper's whole life: found bad, exported, applied, made a revision, gone.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use std::collections::BTreeSet;
use std::process::Stdio;

use project::{Dev, Project, example};
use serde_json::Value;

const HELPER: &str = include_str!("runtime/migrations_runtime.py");

const STRATEGY: &str = r#"
language = "en"
state_dir = ".obyra-db"

[environments.dev]
runs_on = "embedded"
database = "app_dev"
schemas = { app = "app" }
recreate = true

[access]
owner = "app_owner"

[access.roles.app]
schemas = { app = "read-write" }
search_path = ["app"]

[access.roles.app_migrate]
acts_as = "app_owner"
member_of = ["app"]
search_path = ["app"]

[migrations]
run_as = "app_migrate"

[migrations.gate]
patience = "20s"
"#;

const ENV: &str = r#"
import os

from alembic import context
from sqlalchemy import create_engine

with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"#;

const FIRST: &str = r#""""users and projects"""

from alembic import op

revision = "first"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE users (id int PRIMARY KEY, name text, logins int NOT NULL DEFAULT 0)")
    op.execute("CREATE TABLE projects (id int PRIMARY KEY, name text)")
    op.execute("INSERT INTO users VALUES (1, 'ana')")


def downgrade():
    op.execute("DROP TABLE projects")
    op.execute("DROP TABLE users")
"#;

/// A project with a history of one revision, and the packages that the example has already.
fn team() -> Project {
    let project = Project::with(STRATEGY);
    let mini = example("obyra-mini");
    let requirements = std::fs::read_to_string(mini.path().join("requirements.txt")).unwrap();
    project.write("requirements.txt", &requirements);
    project.write("migrations/env.py", ENV);
    project.write("migrations/versions/20260101_0900_first.py", FIRST);
    project
}

/// The findings of a run, as `rule file:line`.
fn rules(json: &str) -> BTreeSet<String> {
    let findings: Vec<Value> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let told = |finding: &Value| {
        let file = finding["file"].as_str().unwrap_or_default();
        format!(
            "{} {}:{}",
            finding["rule"].as_str().unwrap(),
            file.rsplit('/').next().unwrap(),
            finding["line"]
        )
    };
    findings.iter().map(told).collect()
}

/// The line of the helper that holds a text.
fn line(text: &str) -> usize {
    HELPER.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no line with {text}")) + 1
}

fn rule(rule: &str, text: &str) -> String {
    format!("runtime.{rule} migrations_runtime.py:{}", line(text))
}

/// The state of a line of the checklist, which leaves out what is asked of nobody.
fn checklist(project: &Project, line: &str) -> String {
    let lines: Value = serde_json::from_str(&project.run(&["check", "dev", "--json"]).stdout).unwrap();
    let lines = lines["lines"].as_array().unwrap();
    let found = lines.iter().find(|one| one["id"] == line);
    found.map_or("not asked", |one| one["status"].as_str().unwrap()).to_owned()
}

#[test]
fn a_helper_is_checked_exported_applied_and_turned_into_a_revision() {
    let dev = Dev(team());
    let project = &dev.0;
    dev.run(&["up", "dev", "--yes"]);
    assert_eq!(checklist(project, "runtime-helpers"), "not asked");
    project.write("migrations_runtime.py", HELPER);
    assert_eq!(checklist(project, "runtime-helpers"), "unknown");

    // What is bad is found, by reading and by running.
    let run = dev.run(&["migrate", "runtime", "check", "--json"]).ends(2);
    let expected: BTreeSet<String> = [
        rule("guard-any-schema", "CREATE TABLE tags"),
        rule("guard-wrong-schema", "CREATE TABLE labels"),
        rule("guard-wrong-error", "def ensure_log")
            .replace(&line("def ensure_log").to_string(), &(line("def ensure_log") + 1).to_string()),
        rule("guard-swallows", "projects_named CHECK"),
        rule("guard-without-savepoint", "projects_numbered CHECK"),
        rule("repeats", "logins + 1"),
        rule("syntax", "ALTER TABEL"),
        rule("fails", "TABLE nowhere"),
        rule("unread", "{extra}"),
        rule("unproven", "demo_rows"),
        rule("swallowed", "with suppress"),
        rule("locks", "IF NOT EXISTS nickname"),
        rule("guard-without-regclass", "ADD COLUMN {name} {kind}"),
    ]
    .into();
    assert_eq!(rules(&run.stdout), expected);
    assert_eq!(checklist(project, "runtime-helpers"), "failed");

    // What is good is written, and is still good.
    let exported = dev.run(&["migrate", "runtime", "export"]).ends(2).says("10 files in migrations/runtime");
    exported.says("left out: CREATE TABLE tags");
    let files: Vec<String> = sorted(&project.path().join("migrations/runtime"));
    assert_eq!(
        files,
        [
            "001_add_projects_color.sql",
            "002_add_projects_archived.sql",
            "003_add_users_phone.sql",
            "004_add_notes.sql",
            "005_add_notes_body.sql",
            "006_add_mood.sql",
            "007_add_users_named_users.sql",
            "008_add_users_nickname.sql",
            "009_set_users.sql",
            "010_remove_old_report.sql",
        ]
    );
    let check = ["migrate", "runtime", "check", "migrations/runtime"];
    assert_eq!(dev.run(&[&check[..], &["--json"]].concat()).ends(0).stdout.trim(), "[]");
    dev.run(&check).ends(0).says("10 proven");
    // Once more, it writes the same; what somebody changed is not written over.
    dev.run(&["migrate", "runtime", "export"]).ends(2);
    assert_eq!(sorted(&project.path().join("migrations/runtime")), files);

    applied(&dev);
    revised(&dev);
}

fn sorted(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const SCHEMA: &str =
    "SELECT string_agg(c.table_name || '.' || c.column_name || ' ' || c.data_type, ', ' ORDER BY 1)
    FROM (SELECT * FROM information_schema.columns WHERE table_schema = 'app' ORDER BY 3, 4) c";

fn applied(dev: &Dev) {
    dev.run(&["migrate", "runtime", "apply", "dev"])
        .ends(3)
        .says("001_add_projects_color.sql: there is something to do");
    let run = dev.run(&["migrate", "runtime", "apply", "dev", "--yes"]).ends(0);
    run.says("005_add_notes_body.sql: there is something to do, once notes is there").says("9 files applied");
    let schema = dev.sql(SCHEMA).ends(0).says("notes.body text").says("users.nickname text").stdout;
    dev.sql("SELECT nickname || '!' FROM app.users").says("ana!");
    // What it made belongs to the owner, and the application may use it.
    dev.run(&[
        "exec",
        "dev",
        "--as",
        "app",
        "--",
        "psql",
        "-X",
        "-c",
        "INSERT INTO notes (body) VALUES ('x')",
    ])
    .ends(0);
    dev.run(&["plan", "dev"]).ends(0);

    // A second run changes nothing.
    let again = dev.run(&["migrate", "runtime", "apply", "dev", "--yes", "--json"]).ends(0);
    let document: Value = serde_json::from_str(&again.stdout).unwrap();
    let actions: Vec<&str> =
        document["plan"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert_eq!(actions.iter().filter(|action| **action == "nothing").count(), 8, "{actions:?}");
    assert_eq!(actions.iter().filter(|action| **action == "run-always").count(), 2, "{actions:?}");
    let rows: u64 =
        document["applied"].as_array().unwrap().iter().map(|file| file["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 0);
    assert_eq!(dev.sql(SCHEMA).stdout, schema);
    let evidence =
        dev.run(&["evidence", "list", "dev", "--subject", "runtime.apply", "--json"]).ends(0).stdout;
    assert_eq!(evidence.matches("\"changed\"").count(), 2, "{evidence}");

    // Somebody who holds the table makes it wait no longer than lock_timeout, and nothing is half done.
    dev.sql("ALTER TABLE app.users DROP COLUMN phone").ends(0);
    dev.0.write("obyra-db.toml", &STRATEGY.replace("run_as =", "lock_timeout = \"1s\"\nrun_as ="));
    let holder = "BEGIN; LOCK TABLE app.users IN ACCESS SHARE MODE; SELECT pg_sleep(20)";
    let mut holder = dev.0.process(&["exec", "dev", "--", "psql", "-X", "-q", "-c", holder]);
    let mut holder = holder.stderr(Stdio::null()).spawn().unwrap();
    while !dev
        .sql("SELECT 'held' FROM pg_locks WHERE relation = 'app.users'::regclass")
        .stdout
        .contains("held")
    {}
    dev.run(&["migrate", "runtime", "apply", "dev", "--yes"])
        .ends(1)
        .says("003_add_users_phone.sql")
        .says("55P03");
    holder.kill().unwrap();
    holder.wait().unwrap();
    dev.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()").ends(0);
    dev.run(&["migrate", "runtime", "apply", "dev", "--yes"]).ends(0);
    assert_eq!(dev.sql(SCHEMA).stdout.len(), schema.len());

    // A file that nothing proves is not run.
    let bad = "CREATE TABLE twice (id int);\n";
    dev.0.write("migrations/runtime/099_bad.sql", bad);
    dev.run(&["migrate", "runtime", "apply", "dev", "--yes"])
        .ends(3)
        .says("runtime.not-idempotent")
        .says("099_bad.sql:1");
    dev.run(&["migrate", "runtime", "export"]).ends(3).says("099_bad.sql is not as an export left it");
    std::fs::remove_file(dev.0.path().join("migrations/runtime/099_bad.sql")).unwrap();
}

fn revised(dev: &Dev) {
    // The helper is mended: what it does is what was exported of it.
    std::fs::remove_file(dev.0.path().join("migrations_runtime.py")).unwrap();
    assert_eq!(checklist(&dev.0, "runtime-helpers"), "passed");
    let run = dev.run(&["migrate", "runtime", "to-revision", "-m", "What the start did"]).ends(0);
    run.says("what_the_start_did.py").says("10 statements").says("cannot take back: DO … UPDATE users");

    // The backfill belongs to the seeds; without it the revision goes both ways.
    let versions = dev.0.path().join("migrations/versions");
    let written = sorted(&versions).pop().unwrap();
    std::fs::remove_file(versions.join(&written)).unwrap();
    std::fs::remove_file(dev.0.path().join("migrations/runtime/009_set_users.sql")).unwrap();
    dev.run(&["migrate", "runtime", "to-revision", "-m", "What the start did"]).ends(0).says("9 statements");
    dev.run(&["migrate", "runtime", "to-revision"]).ends(0).says("is there already");
    let gate = dev.run(&["migrate", "gate", "--all", "--json"]).ends(0);
    let found = rules(&gate.stdout);
    let whole = |rule: &String| {
        !["gate.upgrade", "gate.downgrade", "gate.repeated"].iter().any(|bad| rule.starts_with(bad))
    };
    assert!(
        found.iter().all(whole) && found.iter().any(|rule| rule.starts_with("gate.allowed")),
        "{found:?}"
    );
    let evidence = dev.run(&["evidence", "list", "--subject", "gate", "--json"]).ends(0).stdout;
    assert_eq!(evidence.matches("\"passed\"").count(), 2, "{evidence}");

    // Where the helper has done it, the upgrade does nothing; then the helper can disappear.
    let before = dev.sql(SCHEMA).stdout;
    dev.run(&["migrate", "deploy", "dev", "--yes"]).ends(0);
    assert_eq!(
        dev.sql(SCHEMA).stdout.replace(", alembic_version.version_num character varying", ""),
        before.replace(", alembic_version.version_num character varying", "")
    );
    std::fs::remove_dir_all(dev.0.path().join("migrations/runtime")).unwrap();
    assert_eq!(checklist(&dev.0, "runtime-helpers"), "not asked");
    assert_eq!(dev.run(&["migrate", "runtime", "check", "--json"]).ends(0).stdout.trim(), "[]");
    dev.run(&["migrate", "runtime", "export"]).ends(64).says("there is no runtime helper");
}

#[test]
fn the_broken_example_is_found_broken_and_the_sound_one_has_nothing_to_prove() {
    let broken = example("obyra-broken");
    let found = rules(&broken.run(&["migrate", "runtime", "check", "--json"]).ends(2).stdout);
    for expected in [
        "runtime.guard-wrong-error migrations_runtime.py:9",
        "runtime.guard-any-schema migrations_runtime.py:18",
        "runtime.guard-wrong-schema migrations_runtime.py:21",
        "runtime.repeats migrations_runtime.py:25",
        "runtime.repeats migrations_runtime.py:26",
        "runtime.recreates migrations_runtime.py:28",
        "runtime.guard-swallows migrations_runtime.py:30",
        "runtime.unread migrations_runtime.py:34",
        "runtime.head-unreached migrations_runtime.py:1",
    ] {
        assert!(found.contains(expected), "{expected} is not in {found:#?}");
    }
    let sound = example("obyra-mini");
    sound.run(&["init", "--lang", "en"]).ends(0);
    sound.run(&["migrate", "runtime", "check"]).ends(0).says("there is no runtime helper");
}

#[test]
fn every_format_and_every_bad_input() {
    let project = Project::empty();
    let check = |more: &[&str]| project.run(&[&["migrate", "runtime", "check"], more].concat());
    check(&[]).ends(64).says("obyra-db init");
    check(&["none.py"]).ends(64).says("none.py");
    std::fs::create_dir(project.path().join("empty")).unwrap();
    check(&["empty"]).ends(64).says("neither Python nor SQL");
    project.write("notes.txt", "x");
    check(&["notes.txt"]).ends(64).says("neither Python nor SQL");
    project.run(&["migrate", "runtime", "export", "none.py"]).ends(64);

    project.write("broken.py", "def run(:\n    pass\n");
    check(&["broken.py"]).ends(2).says("scan.syntax-error").says("broken.py:1");
    project.write("old.py", "print 'x'\n");
    check(&["old.py"]).ends(2).says("scan.python-2");
    std::fs::write(project.path().join("latin.py"), b"x = 'a\xf1o'\n").unwrap();
    check(&["latin.py"]).ends(2).says("scan.not-utf8");
    std::fs::write(project.path().join("latin.sql"), b"SELECT 1;\n-- a\xf1o\n").unwrap();
    check(&["latin.sql"]).ends(2).says("runtime.sql-not-utf8").says("latin.sql:2");
    std::fs::write(project.path().join("wide.sql"), b"S\0E\0").unwrap();
    check(&["wide.sql"]).ends(2).says("wide.sql:1");

    // Without a strategy: PostgreSQL 16, an empty database.
    project
        .write("good.sql", "CREATE TABLE IF NOT EXISTS t (a int);\nCREATE INDEX IF NOT EXISTS i ON t (a);\n");
    check(&["good.sql"]).ends(0).says("2 proven by reading").says("an empty database").says("runtime.locks");
    project.write(
        "bad.sql",
        "CREATE TABLE t (a int);\nSELEKT 1;\nDO $$ BEGIN LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;\n\
         SELECT pg_terminate_backend(pg_backend_pid()), setval('s', 1);\nCOPY t FROM stdin;\n\
         CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);\nINSERT INTO t SELECT 1 WHERE NOT EXISTS (SELECT FROM t);\n\
         INSERT INTO t SELECT count(*) FROM t WHERE EXISTS (SELECT FROM t);\n",
    );
    project.write(
        "obyra-db.toml",
        &STRATEGY.replace("20s", "1s").replace("[migrations]\nrun_as = \"app_migrate\"\n", ""),
    );
    let strategy = STRATEGY.split("[migrations]").next().unwrap();
    project.write("obyra-db.toml", &format!("{strategy}[migrations.gate]\npatience = \"1s\"\n"));
    project.write("migrations/env.py", ENV);
    project.write("migrations/versions/.keep", "");
    let mini = example("obyra-mini");
    project
        .write("requirements.txt", &std::fs::read_to_string(mini.path().join("requirements.txt")).unwrap());
    let found = rules(&check(&["bad.sql", "--json"]).ends(2).stdout);
    for expected in [
        "runtime.not-idempotent bad.sql:1",
        "runtime.syntax bad.sql:2",
        "runtime.timed-out bad.sql:3",
        "runtime.fails bad.sql:4",
        "runtime.unproven bad.sql:5",
        "runtime.outside-transaction bad.sql:6",
        "runtime.changes-again bad.sql:8",
    ] {
        assert!(found.contains(expected), "{expected} is not in {found:#?}");
    }
    assert!(!found.iter().any(|rule| rule.ends_with("bad.sql:7")), "{found:#?}");
    check(&["bad.sql", "--format", "sarif"]).ends(2).says("\"version\": \"2.1.0\"").says("runtime.syntax");
    check(&["bad.sql", "--format", "junit"])
        .ends(2)
        .says("<testsuite name=\"obyra-db migrate runtime check\"");
    check(&["bad.sql", "--format", "github"]).ends(2).says("::error file=bad.sql,line=1");
    check(&["bad.sql", "--lang", "es"]).ends(2).says("la segunda vez el servidor da duplicate_table");
}

#[test]
fn a_given_schema_stands_for_a_history_that_cannot_be_replayed() {
    let project = team();
    let broken =
        FIRST.replace("CREATE TABLE projects (id int PRIMARY KEY, name text)", "CREATE TABEL projects");
    project.write("migrations/versions/20260101_0900_first.py", &broken);
    project.write("helper.sql", "ALTER TABLE projects ADD COLUMN IF NOT EXISTS color text;\nUPDATE projects SET name = lower(name) WHERE name <> lower(name);\n");
    let run = project.run(&["migrate", "runtime", "check", "helper.sql"]).ends(0);
    run.says("runtime.head-unreached").says("runtime.unproven").says("--schema DUMP");
    project.run(&["migrate", "runtime", "to-revision", "helper.sql"]).ends(3).says("could not be run");
    project.write(
        "dump.sql",
        "CREATE SCHEMA app;\nCREATE TABLE app.projects (id int PRIMARY KEY, name text);\n",
    );
    let run = project.run(&["migrate", "runtime", "check", "helper.sql", "--schema", "dump.sql"]).ends(0);
    run.says("on the given schema").says("had nothing to do").says("runtime.locks");
    // A reason makes a note of it.
    project.write(
        "helper.sql",
        "ALTER TABLE projects ADD COLUMN IF NOT EXISTS color text; -- obyra-db: allow[runtime.locks] once a night\n\
         -- obyra-db: allow[runtime.unproven] names are few\nUPDATE projects SET name = lower(name) WHERE name <> lower(name);\n",
    );
    let run = project.run(&["migrate", "runtime", "check", "helper.sql", "--schema", "dump.sql"]).ends(0);
    run.says("runtime.locks, allowed: once a night")
        .says("runtime.unproven, allowed: names are few")
        .says("0 unknown");
}
