//! What the source scan finds, and what it leaves alone: small applications in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use obyra_evidence::Severity;
use obyra_migrations::scan::{Report, scan_sources};

/// Splits `== app.py` headed texts into files.
fn files(text: &str) -> Vec<(&str, &[u8])> {
    let sections = text.trim_start_matches("== ").split("\n== ");
    let parts = sections.map(|section| section.split_once('\n').unwrap_or((section, "")));
    parts.map(|(name, body)| (name.trim(), body.as_bytes())).collect()
}

fn scan(text: &str) -> Report {
    scan_sources(&files(text)).unwrap()
}

/// `rule severity file:line`, in the order of the places.
fn found(text: &str) -> Vec<String> {
    let shown = scan(text).findings.into_iter().map(|finding| {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let place = finding.place.unwrap();
        let rule = finding.message.code().id().trim_start_matches("scan.");
        format!("{rule} {severity} {}:{}", place.file.display(), place.line)
    });
    shown.collect()
}

#[track_caller]
fn finds(text: &str, expected: &[&str]) {
    assert_eq!(found(text), expected, "{text}");
}

/// An application that serves, beside the code in question.
fn in_app(code: &str) -> Vec<String> {
    found(&format!(
        "== app.py\nfrom flask import Flask\nfrom db import *\nimport subject\n== db.py\nfrom flask_sqlalchemy import SQLAlchemy\ndb = SQLAlchemy()\n== wsgi.py\nimport app\n== subject.py\n{code}"
    ))
}

#[test]
fn create_all_through_every_alias() {
    for code in [
        "from db import db\ndb.create_all()\n",
        "from db import db as database\n\ndatabase.create_all()\n",
        "import db as ext\next.db.create_all()\n",
        "import db\nmetadata = db.db.metadata\nmetadata.create_all(bind=None)\n",
        "from db import db\ncreate = db.create_all\ncreate()\n",
        "from db import db\ngetattr(db, 'create_all')()\n",
        "from db import db\nf = getattr(db, 'create_all')\nf()\n",
        "from functools import partial\nfrom db import db\nf = partial(db.create_all, bind=None)\nf()\n",
        "from db import db\nx = db\ny = x\ny.create_all()\n",
        "from sqlalchemy import MetaData\nthings = MetaData()\nthings.create_all(1)\n",
        "async def f(conn, Base):\n    await conn.run_sync(Base.metadata.create_all)\nf(1, 2)\n",
        "class A:\n    def f(self):\n        self.db.create_all()\nA().f()\n",
        "from db import db\n(lambda: db.create_all())()\n",
        "from db import db\nwith x:\n  if y:\n    for z in q: db.create_all()\n",
        "import db\ndb.db.Model.metadata.create_all(db.db.engine)\n",
    ] {
        let found = in_app(code);
        assert_eq!(found.len(), 1, "{code} {found:?}");
        assert!(found[0].starts_with("create-all error subject.py:"), "{code} {found:?}");
    }
}

#[test]
fn tables_one_by_one() {
    for (code, rule) in [
        ("import m\nm.User.__table__.create(engine)\n", "table-create"),
        ("import m\nm.User.__table__.drop(engine)\n", "table-drop"),
        ("import sqlalchemy as sa\nt = sa.Table('t', sa.MetaData())\nt.create(engine)\n", "table-create"),
        ("from sqlalchemy import Table\nTable('t', m).create(engine)\n", "table-create"),
        ("for table in metadata.sorted_tables:\n    table.create(engine, checkfirst=True)\n", "table-create"),
        ("metadata.tables['x'].create(engine)\n", "table-create"),
        ("t = User.__table__\nt.create(bind=engine)\n", "table-create"),
        ("from db import db\ndb.drop_all()\n", "drop-all"),
    ] {
        let found = in_app(code);
        assert_eq!(found.len(), 1, "{code} {found:?}");
        assert!(found[0].starts_with(&format!("{rule} error")), "{code} {found:?}");
    }
}

#[test]
fn statements_however_they_are_built() {
    for code in [
        "conn.execute('ALTER TABLE t ADD x int')\n",
        "from sqlalchemy import text\nconn.execute(text('''\n  -- why\n  CREATE TABLE t (a int)'''))\n",
        "conn.execute(f'ALTER TABLE {name} ADD COLUMN x int')\n",
        "SQL = 'CREATE INDEX i ON t (a)'\nconn.exec_driver_sql(SQL)\n",
        "SQL = ['SELECT 1', 'DROP TABLE t']\nfor s in SQL:\n    conn.execute(s)\n",
        "class M:\n    SQL = ('ALTER TABLE a ADD b int',)\n    def f(self):\n        for s in self.SQL: cur.execute(s)\nM().f()\n",
        "class M:\n    SQL = 'ALTER TABLE a ADD b int'\ncur.execute(M.SQL)\n",
        "import constants\nconn.execute(constants.SQL)\n== constants.py\nSQL = 'ALTER TABLE a ADD b int'\n",
        "from constants import SQL as S\nfor s in S: conn.execute(s)\n== constants.py\nSQL = ['ALTER TABLE a ADD b int']\n",
        "from constants import SQL\nconn.execute(SQL)\n== constants.py\nfrom deep import SQL\n== deep.py\nSQL = 'DROP TABLE x'\n",
        "stmts = []\nstmts.append('ALTER TABLE a ADD b int')\nfor s in stmts: conn.execute(s)\n",
        "for name, sql in [('a', 'CREATE TABLE a ()'), ('b', 'CREATE TABLE b ()')]:\n    conn.execute(sql)\n",
        "for name, sql in {'a': 'CREATE TABLE a ()'}.items():\n    conn.execute(sql)\n",
        "conn.execute('ALTER TABLE %s ADD x int' % t)\n",
        "conn.execute('ALTER TABLE {} ADD x int'.format(t))\n",
        "conn.execute('ALTER TABLE ' + t + ' ADD x int')\n",
        "conn.execute('CREATE ' 'TABLE t (a int)')\n",
        "conn.execute('; '.join(['CREATE TABLE a ()', 'CREATE TABLE b ()']))\n",
        "def run(c, sql):\n    c.execute(sql)\nrun(conn, 'CREATE TABLE t ()')\n",
        "def run(c, sql):\n    c.execute(sql)\ndef outer(s):\n    run(c, s)\nouter('CREATE TABLE t ()')\n",
        "from helpers import run\nrun('CREATE TABLE t ()')\n== helpers.py\nimport psycopg\ndef run(sql): cur.execute(sql)\n",
        "import helpers\nhelpers.run(sql='CREATE TABLE t ()')\n== helpers.py\nimport psycopg\ndef run(sql): cur.execute(sql)\n",
        "class S:\n    def run(self, q): self.c.execute(q)\n    def f(self): self.run('DROP TABLE t')\nS().f()\n",
        "def sql(): return 'ALTER TABLE a ADD b int'\nconn.execute(sql())\n",
        "def sql():\n    yield 'ALTER TABLE a ADD b int'\nfor s in sql(): conn.execute(s)\n",
        "from sqlalchemy.schema import CreateTable\nconn.execute(CreateTable(t))\n",
        "from psycopg import sql\ncur.execute(sql.SQL('ALTER TABLE {} ADD x int').format(t))\n",
        "conn.execute(statement='CREATE TABLE t ()')\n",
        "P = 'ALTER TABLE'\nconn.execute(f'{P} x ADD y int')\n",
        "conn.execute('ALTER TABLE a ADD b int' if new else 'SELECT 1')\n",
        "[conn.execute(s) for s in ('CREATE TABLE t ()',)]\n",
        "from sqlalchemy import DDL\nconn.execute(DDL('CREATE TABLE t ()'))\n",
    ] {
        let found = in_app(code);
        assert_eq!(found.len(), 1, "{code} {found:?}");
        assert!(found[0].starts_with("ddl-executed error subject.py"), "{code} {found:?}");
    }
}

#[test]
fn blocks_and_constructs() {
    assert_eq!(
        in_app("conn.execute('DO $$ BEGIN ALTER TABLE t ADD x int; END $$')\n"),
        ["ddl-in-do error subject.py:1"]
    );
    assert_eq!(
        in_app(
            "from sqlalchemy import DDL, event\nevent.listen(T, 'after_create', DDL('CREATE INDEX i ON t (a)'))\n"
        ),
        ["ddl-construct warning subject.py:2"]
    );
}

#[test]
fn mentions_are_no_findings() {
    for code in [
        "# db.create_all()\n",
        "'''db.create_all() and ALTER TABLE t'''\n",
        "print('run db.create_all() first')\n",
        "HELP = 'CREATE TABLE t ()'\n",
        "log.info('ALTER TABLE t ADD x int')\n",
        "hasattr(db, 'create_all')\n",
        "from unittest import mock\nmock.patch.object(db, 'create_all')\n",
        "conn.execute('SELECT 1')\nconn.execute('CREATE TEMP TABLE x (a int)')\nconn.execute('TRUNCATE t')\n",
        "import sqlite3\nc = sqlite3.connect('cache')\nc.execute('CREATE TABLE t (a)')\n",
        "import sqlite3\nclass W:\n    def execute(self, q): self.c.execute(q)\nwith sqlite3.connect('x') as c: c.execute('CREATE TABLE t (a)')\n",
        "import sqlite3\nwith sqlite3.connect('cache') as c:\n    c.cursor().execute('CREATE TABLE t (a)')\n",
        "class Fixtures:\n    def create_all(self): pass\n    def f(self): self.create_all()\nFixtures().f()\n",
        "client.create(name='x')\nstripe.Table.create(1)\nUser.create(1)\n",
        "def show(sql): print(sql)\nshow('CREATE TABLE t ()')\n",
        "sql: str\n",
        "text('ALTER TABLE t ADD x int')\n",
    ] {
        assert_eq!(in_app(code), [""; 0], "{code}");
    }
}

/// An application that also runs on another database makes its tables there as it likes.
#[test]
fn branches_of_another_database() {
    let base = "from db import db\n";
    for (code, lines) in [
        ("if url.startswith('sqlite'):\n    db.create_all()\nelse:\n    upgrade()\n", &[][..]),
        ("if engine.dialect.name == 'sqlite':\n    db.create_all()\nelse:\n    db.create_all()\n", &[5]),
        ("if engine.dialect.name != 'sqlite':\n    db.create_all()\nelse:\n    db.create_all()\n", &[3]),
        (
            "if name == 'postgresql':\n    db.create_all()\nelif x:\n    db.create_all()\nelse:\n    db.create_all()\n",
            &[3],
        ),
        ("if name in ('mysql', 'mariadb'):\n    db.create_all()\nelif x:\n    db.create_all()\n", &[5]),
        ("if not is_sqlite:\n    db.create_all()\nelse:\n    db.create_all()\n", &[3]),
        ("if debug and 'sqlite' in url:\n    db.create_all()\nelse:\n    db.create_all()\n", &[5]),
        ("if debug or 'sqlite' in url:\n    db.create_all()\n", &[3]),
        ("def make():\n    db.create_all()\nif is_sqlite:\n    if debug:\n        make()\n", &[]),
        ("if sqlite_path:\n    db.create_all()\n", &[3]),
    ] {
        let errors = in_app(&format!("{base}{code}")).into_iter().filter(|found| found.contains(" error "));
        let expected: Vec<_> =
            lines.iter().map(|line| format!("create-all error subject.py:{line}")).collect();
        assert_eq!(errors.collect::<Vec<_>>(), expected, "{code}");
    }
}

/// A template of Python was never Python, and a test that lies beside the migrations is none of them.
#[test]
fn what_only_looks_like_the_application() {
    finds(
        "== template/client.py\nimport os\n{% for x in y %}\nz = 1\n{% endfor %}\n",
        &["syntax-error note template/client.py:2"],
    );
    finds(
        "== migrations/env.py\n\n== migrations/versions/1.py\nrevision = '1'\ndown_revision = None\n\
         == migrations/test/test_first.py\nimport sqlalchemy as sa\nmetadata = sa.MetaData()\nmetadata.create_all()\n\
         u = 'postgresql://app:hunter2-Zq@db.example.com/x'\n",
        &[
            "create-all note migrations/test/test_first.py:3",
            "connection-string note migrations/test/test_first.py:4",
        ],
    );
    // A revision may be about tests.
    finds(
        "== migrations/env.py\n\n== migrations/versions/test_results.py\nfrom models import db\nrevision = '1'\ndown_revision = None\n\
         def upgrade(): db.create_all()\n== models.py\nfrom flask_sqlalchemy import SQLAlchemy\ndb = SQLAlchemy()\n",
        &["create-all warning migrations/versions/test_results.py:4"],
    );
}

#[test]
fn who_runs_it_decides_the_severity() {
    let models = "== models.py\nfrom flask_sqlalchemy import SQLAlchemy\ndb = SQLAlchemy()\n";
    for (code, expected) in [
        (
            "== app.py\nfrom flask import Flask\nfrom models import db\napp = Flask('x')\ndb.create_all()\n",
            "create-all error app.py:4",
        ),
        (
            "== app.py\nfrom flask import Flask\nfrom models import db\ndef create_app():\n    app = Flask('x')\n    db.create_all()\n    return app\n",
            "create-all error app.py:5",
        ),
        (
            "== app.py\nfrom flask import Flask\nfrom models import db\napp = Flask('x')\n@app.route('/')\ndef f():\n    db.create_all()\n",
            "create-all error app.py:6",
        ),
        (
            "== app.py\nfrom flask import Flask\nfrom models import db\napp = Flask('x')\n@app.cli.command('init')\ndef f():\n    db.create_all()\n",
            "create-all warning app.py:6",
        ),
        (
            "== app.py\nfrom flask import Flask\nfrom models import db\napp = Flask('x')\nif __name__ == '__main__':\n    db.create_all()\n",
            "create-all warning app.py:5",
        ),
        (
            "== app.py\nfrom flask import Flask\napp = Flask('x')\n== scripts/init.py\nfrom models import db\ndb.create_all()\n",
            "create-all warning scripts/init.py:2",
        ),
        (
            "== app.py\nfrom flask import Flask\napp = Flask('x')\n== old.py\nfrom models import db\ndb.create_all()\n",
            "create-all warning old.py:2",
        ),
        (
            "== app.py\nfrom flask import Flask\nimport store\napp = Flask('x')\n== store.py\nfrom models import db\ndef init(): db.create_all()\n",
            "create-all warning store.py:2",
        ),
        (
            "== app.py\nfrom flask import Flask\nimport store\napp = Flask('x')\nstore.init()\n== store.py\nfrom models import db\ndef init(): db.create_all()\n",
            "create-all error store.py:2",
        ),
        (
            "== app.py\nfrom flask import Flask\nfrom store import init as start\napp = Flask('x')\nstart()\n== store.py\nfrom models import db\ndef init(): db.create_all()\n",
            "create-all error store.py:2",
        ),
        (
            "== tests/test_x.py\nfrom models import db\ndef test_x(): db.create_all()\n",
            "create-all note tests/test_x.py:2",
        ),
        (
            "== app.py\nfrom flask import Flask\nimport store\napp = Flask('x')\n== store.py\nfrom models import db\ndef init(): db.create_all()\n== conftest.py\nimport store\nstore.init()\n",
            "create-all note store.py:2",
        ),
        (
            "== migrations/env.py\nx = 1\n== migrations/versions/1.py\nfrom models import db\nrevision = '1'\ndown_revision = None\ndef upgrade(): db.create_all()\n",
            "create-all warning migrations/versions/1.py:4",
        ),
        (
            "== Procfile\nweb: gunicorn app:app\n== app.py\nfrom flask import Flask\napp = Flask('x')\n== app_old.py\nfrom flask import Flask\nfrom models import db\napp = Flask('y')\ndb.create_all()\n",
            "create-all warning app_old.py:4",
        ),
        (
            "== api/main.py\nfrom fastapi import FastAPI\nfrom models import db\n@asynccontextmanager\nasync def lifespan(app):\n    db.create_all()\n    yield\napp = FastAPI(lifespan=lifespan)\n",
            "create-all error api/main.py:5",
        ),
    ] {
        let text = format!("{models}{code}");
        let found: Vec<_> = found(&text).into_iter().filter(|f| !f.contains("Procfile")).collect();
        assert_eq!(found, [expected], "{code}");
    }
}

#[test]
fn the_way_is_named() {
    let report = scan(
        "== wsgi.py\nfrom app import create_app\n== app.py\nfrom flask import Flask\nimport store\ndef create_app():\n    \
         store.init()\n== store.py\nfrom flask_sqlalchemy import SQLAlchemy\ndb = SQLAlchemy()\ndef init(): db.create_all()\n",
    );
    let fields = report.findings[0].message.fields();
    assert_eq!(fields["way"], "app.py:create_app → store.py:init");
    assert_eq!(fields["reach"], "boot");
    assert_eq!(report.findings[0].subject, "init");
}

#[test]
fn hidden_failures() {
    for (handler, hidden) in [
        ("except Exception:\n    pass", true),
        ("except:\n    log.warning('x')", true),
        ("except (ValueError, SQLAlchemyError) as e:\n    db.session.rollback()\n    print(e)", true),
        ("except Exception:\n    raise", false),
        ("except Exception as e:\n    log.error(e)\n    raise RuntimeError() from e", false),
        ("except Exception:\n    if bad: raise", false),
        ("except Exception:\n    sys.exit(1)", false),
        ("except ImportError:\n    pass", false),
        ("except Exception as e:\n    failures.append(e)", false),
        ("except Exception:\n    ok = False", false),
        ("except Exception as e:\n    message = str(e)\n    log.error(message)", true),
        ("finally:\n    pass", false),
    ] {
        let code = format!("try:\n    conn.execute('ALTER TABLE t ADD x int')\n{handler}\n");
        let found = in_app(&code);
        let swallowed = found.iter().any(|f| f == "ddl-swallowed error subject.py:3");
        assert_eq!(swallowed, hidden, "{handler} {found:?}");
    }
    let suppressed = in_app("with suppress(Exception):\n    conn.execute('ALTER TABLE t ADD x int')\n");
    assert_eq!(suppressed, ["ddl-swallowed error subject.py:1", "ddl-executed error subject.py:2"]);
    finds(
        "== migrations/env.py\n\n== migrations/versions/1.py\nfrom alembic import op\nrevision = '1'\ndown_revision = None\n\
         def upgrade():\n    try:\n        op.add_column('t', 1)\n    except Exception:\n        pass\n",
        &["ddl-swallowed warning migrations/versions/1.py:7"],
    );
}

#[test]
fn secrets_are_placed_and_never_shown() {
    let report = scan(
        "== config.py\nURL = 'postgresql://app:hunter2-Zq@db.example.com/x'\nDB_PASSWORD = 'hunter2-Zq'\n\
         import os\np = os.environ.get('DB_PASSWORD', 'hunter2-Zq')\nconnect(password='hunter2-Zq')\n\
         L = 'postgresql://postgres:postgres@localhost/x'\nsettings = {'PG_PASSWORD': 'hunter2-Zq'}\n\
         class C:\n    db_password: str = 'hunter2-Zq'\n",
    );
    let rules: Vec<_> = report.findings.iter().map(|f| f.message.code().id()).collect();
    assert_eq!(
        rules,
        [
            "scan.connection-string",
            "scan.password-in-code",
            "scan.password-in-code",
            "scan.password-in-code",
            "scan.default-credentials",
            "scan.password-in-code",
            "scan.password-in-code"
        ]
    );
    assert!(!format!("{report:?}").contains("hunter2"));
    // The role's own name as its password is a default for a developer's machine.
    for code in [
        "class Settings:\n    PG_USER: str = 'obyra'\n    PG_PASSWORD: str = 'obyra'\n",
        "user = os.getenv('DB_USER', 'obyra')\npassword = os.getenv('DB_PASSWORD', 'obyra')\n",
        "connect(user='obyra', password='obyra')\n",
    ] {
        let found = in_app(code);
        assert!(found.len() == 1 && found[0].starts_with("default-credentials note"), "{code} {found:?}");
    }
    for code in [
        "DB_PASSWORD = os.environ['DB_PASSWORD']\n",
        "password = 'x1y2z3'\n",
        "DB_PASSWORD = ''\n",
        "PASSWORD_HASH = 'abc'\n",
    ] {
        assert_eq!(in_app(code), [""; 0], "{code}");
    }
}

#[test]
fn comments_allow_with_a_reason() {
    let base = "from db import db\n";
    let found = |code: &str| in_app(&format!("{base}{code}"));
    assert_eq!(found("db.create_all()  # obyra-db: allow[create-all] the demo has no data\n"), [""; 0]);
    assert_eq!(found("# obyra-db: allow[scan.create-all] the demo has no data\ndb.create_all()\n"), [""; 0]);
    assert_eq!(
        found("db.create_all()  # obyra-db: allow[create-all]\n"),
        ["create-all error subject.py:2", "allow-without-reason warning subject.py:2"]
    );
    assert_eq!(found("x = 1  # obyra-db: allow[create-all] why\n"), ["allow-needless warning subject.py:2"]);
    assert_eq!(
        found("x = 1  # obyra-db: allow[nonsense] why\n"),
        ["allow-unknown-rule warning subject.py:2"]
    );
    assert_eq!(found("x = '# obyra-db: allow[create-all] why'\n"), [""; 0]);
    let report = scan("== a.py\nfrom m import db\ndb.create_all()  # obyra-db: allow[create-all] the demo\n");
    assert_eq!(report.allowed.len(), 1);
    assert_eq!(report.allowed[0].reason, "the demo");
}
