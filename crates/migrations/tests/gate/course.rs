//! From empty to the head: what is proven, and what stops it.

use obyra_evidence::HumanDuration;
use obyra_migrations::gate::Verdict;

use crate::support::Project;
use crate::{NO_USERS, Options, USERS, gated, gated_with, rules, said, sound};

#[tokio::test]
async fn a_sound_project_has_no_findings() {
    for options in ["", ", transaction_per_migration=True"] {
        let project = Project::with_env("pass", options)
            .revision_of("one", &[], USERS, NO_USERS)
            .revision_of(
                "two",
                &["one"],
                "op.execute(\"CREATE TYPE mood AS ENUM ('ok', '100%')\")\nop.execute('ALTER TABLE users ADD mood mood')",
                "op.execute('ALTER TABLE users DROP mood')\nop.execute('DROP TYPE mood')",
            );
        let report = gated(&project).await;
        assert_eq!(rules(&report), Vec::<String>::new());
        assert_eq!((report.upgrade, report.downgrade), (Verdict::Passed, Verdict::Passed));
        assert_eq!(
            (report.head.as_deref(), report.revisions.len(), report.checked.len()),
            (Some("two"), 2, 2)
        );
    }
}

#[tokio::test]
async fn a_revision_that_fails_is_named_with_its_line() {
    let project = sound().revision_of("two", &["one"], "op.execute('ALTER TABLE nowhere ADD x int')", "pass");
    let report = gated(&project).await;
    assert!(rules(&report).contains(&"gate.upgrade-failed two.py:9".to_owned()), "{:?}", rules(&report));
    assert!(said(&report, "gate.upgrade-failed").contains("42P01"));
    assert_eq!((report.upgrade, report.downgrade), (Verdict::Failed, Verdict::Unknown));
}

#[tokio::test]
async fn a_silent_rollback_is_no_success() {
    let project = Project::with_env("connection.execute(text(\"SET search_path TO app\"))", "");
    let report = gated(&project.revision_of("one", &[], USERS, NO_USERS)).await;
    assert_eq!(rules(&report), ["gate.silent-rollback env.py:11"]);
    assert_eq!(report.upgrade, Verdict::Failed);
}

#[tokio::test]
async fn a_version_table_elsewhere_is_named() {
    let project = Project::with_env("pass", ", version_table_schema='public'");
    let report = gated(&project.revision_of("one", &[], USERS, NO_USERS)).await;
    assert_eq!(rules(&report), ["gate.version-table-schema env.py:12"]);
    assert!(said(&report, "gate.version-table-schema").contains("public.alembic_version"));
}

#[tokio::test]
async fn a_swallowed_error_is_read_from_the_servers_log() {
    let swallow = "try:
    with op.get_bind().begin_nested():
        op.execute('CREATE TABLE users (id int)')
except Exception:
    pass";
    let report = gated(&sound().revision_of("two", &["one"], swallow, "pass")).await;
    let found = rules(&report);
    assert!(found.contains(&"gate.swallowed-error two.py:11".to_owned()), "{found:?}");
    let said = said(&report, "gate.swallowed-error");
    assert!(said.contains("42P07") && said.contains("CREATE TABLE users (id int)"), "{said}");
}

#[tokio::test]
async fn a_connection_of_ones_own_is_beside_the_transaction() {
    let project = Project::with_env("pass", ", transaction_per_migration=True").revision_of(
        "one",
        &[],
        "import os, sqlalchemy\n\
         with sqlalchemy.create_engine(os.environ['DATABASE_URL']).begin() as other:\n    \
         other.execute(sqlalchemy.text('CREATE TABLE beside (id int)'))",
        "op.execute('DROP TABLE beside')",
    );
    let report = gated(&project).await;
    let found = rules(&report);
    assert!(found.contains(&"gate.outside-transaction one.py:11".to_owned()), "{found:?}");
}

#[tokio::test]
async fn loading_the_application_must_not_create_tables() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let boot = "with engine.begin() as boot:\n    boot.execute(text('CREATE TABLE app.cache (id int)'))\n\
                try:\n    with engine.begin() as boot:\n        boot.execute(text('SELECT * FROM app.nothing'))\n\
                except Exception:\n    pass\n";
    let env = env.replace("with engine.connect()", &format!("{boot}with engine.connect()"));
    let report = gated(&Project::with_env_file(&env).revision_of("one", &[], USERS, NO_USERS)).await;
    assert_eq!(rules(&report), ["gate.boot-ddl env.py:11", "gate.boot-error env.py:14"]);
}

#[tokio::test]
async fn a_loop_a_dead_process_and_the_network_are_ended_and_named() {
    let mut project = sound().revision_of("two", &["one"], "while True:\n    op.execute('SELECT 1')", "pass");
    project.policy.gate.patience = HumanDuration::from_seconds(2);
    let report = gated_with(&project, &Options { last: Some(1), ..Options::default() }).await.unwrap();
    assert!(rules(&report).contains(&"gate.timed-out two.py:8".to_owned()), "{:?}", rules(&report));

    let dies = sound().revision_of("two", &["one"], "import os\nos._exit(7)", "pass");
    let report = gated(&dies).await;
    assert!(rules(&report).contains(&"gate.died two.py:8".to_owned()), "{:?}", rules(&report));
    assert!(said(&report, "gate.died").contains("exit status: 7"));

    let kills = "op.execute('SELECT pg_terminate_backend(pg_backend_pid())')";
    let report = gated(&sound().revision_of("two", &["one"], kills, "pass")).await;
    assert!(rules(&report).contains(&"gate.upgrade-failed two.py:9".to_owned()), "{:?}", rules(&report));

    let ends = "import os, signal\nos.kill(op.get_bind().exec_driver_sql('SELECT pg_backend_pid()').scalar(), signal.SIGKILL)";
    let report = gated(&sound().revision_of("two", &["one"], ends, "pass")).await;
    assert!(rules(&report).contains(&"gate.server-died two.py:8".to_owned()), "{:?}", rules(&report));
    assert_eq!((report.upgrade, report.downgrade), (Verdict::Unknown, Verdict::Unknown));

    let calls = "import urllib.request\ntry:\n    urllib.request.urlopen('http://127.0.0.1:9/')\nexcept OSError:\n    pass";
    let report = gated(&sound().revision_of("two", &["one"], calls, "pass")).await;
    assert!(rules(&report).contains(&"gate.network two.py:11".to_owned()), "{:?}", rules(&report));
}

#[tokio::test]
async fn a_revision_over_its_budget_is_named() {
    let mut project = sound().revision_of("two", &["one"], "op.execute('SELECT pg_sleep(1.2)')", "pass");
    project.policy.gate.revision_budget = HumanDuration::from_seconds(1);
    let report = gated(&project).await;
    assert!(rules(&report).contains(&"gate.slow-revision two.py:8".to_owned()), "{:?}", rules(&report));
}

#[tokio::test]
async fn several_heads_are_all_tried() {
    let project = sound()
        .revision_of("two", &["one"], "op.execute('CREATE TABLE a (id int)')", "op.execute('DROP TABLE a')")
        .revision_of(
            "three",
            &["one"],
            "op.execute('CREATE TABLE b (id int)')",
            "op.execute('DROP TABLE b')",
        );
    let report = gated(&project).await;
    assert!(
        rules(&report).iter().any(|rule| rule.starts_with("graph.several-heads")),
        "{:?}",
        rules(&report)
    );
    assert_eq!((report.head, report.revisions.len(), report.downgrade), (None, 3, Verdict::Passed));
}

#[tokio::test]
async fn a_file_that_is_no_python_is_named() {
    let project = sound();
    std::fs::write(project.path().join("migrations/versions/bad.py"), "def broken(:\n").unwrap();
    let report = gated(&project).await;
    assert!(
        rules(&report).iter().any(|rule| rule.starts_with("scan.syntax-error bad.py:1")),
        "{:?}",
        rules(&report)
    );
    assert_eq!(report.upgrade, Verdict::Failed);
    std::fs::write(project.path().join("migrations/versions/bad.py"), "def upgrade():\n    print 'x'\n")
        .unwrap();
    assert!(rules(&gated(&project).await).contains(&"scan.python-2 bad.py:2".to_owned()));
}

/// As old versions of Flask-Migrate wrote it: ConfigParser takes a percent sign for its own.
#[tokio::test]
async fn a_url_that_goes_through_the_configuration() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let url = "os.environ[\"DATABASE_URL\"]";
    assert!(env.contains(url), "{env}");
    let set = format!("context.config.set_main_option('sqlalchemy.url', {url})\n");
    let env = env.replace("engine = ", &format!("{set}engine = "));
    assert!(env.contains(&set), "{env}");
    let report = gated(&Project::with_env_file(&env).revision_of("one", &[], USERS, NO_USERS)).await;
    assert_eq!(rules(&report), Vec::<String>::new(), "{:?}", report.findings);
}

/// Many an application makes its URL of parts that it finds under names of its own.
#[tokio::test]
async fn an_application_that_looks_elsewhere_is_told_there() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let own = "'postgresql+psycopg://%(DB_LOGIN)s@%(DB_SERVER)s/%(DB_NAME)s' % os.environ";
    let env = env.replace("os.environ[\"DATABASE_URL\"]", own);
    let mut project = Project::with_env_file(&env).revision_of("one", &[], USERS, NO_USERS);
    let variables =
        [("DB_LOGIN", "{user}:{password}"), ("DB_SERVER", "{host}:{port}"), ("DB_NAME", "{database}")];
    project.policy.variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let report = gated(&project).await;
    assert_eq!(rules(&report), Vec::<String>::new(), "{:?}", report.findings);
}

#[tokio::test]
async fn a_finding_holds_no_password() {
    let env = "import os\nraise ValueError(os.environ['DATABASE_URL'] + os.environ['PGPASSWORD'])\n";
    let report = gated(&Project::with_env_file(env).revision_of("one", &[], USERS, NO_USERS)).await;
    let said = said(&report, "gate.environment-failed");
    assert!(
        said.contains("ValueError: postgresql+psycopg://migrator:") && !said.contains("s3cr3t"),
        "{said}"
    );
}

/// A revision may import a module that reads the environment when it is imported, long before the application is loaded.
#[tokio::test]
async fn settings_that_a_revision_imports_know_the_database() {
    let env = include_str!("../support/env.py").replace("{before}", "pass").replace("{options}", "");
    let env =
        env.replace("import os\n", "import os, sys\nsys.path.insert(0, os.getcwd())\nimport settings\n");
    let env = env.replace("os.environ[\"DATABASE_URL\"]", "settings.URL");
    let project = Project::with_env_file(&env);
    let settings = "import os\nURL = os.environ.get('DATABASE_URL', 'postgresql+psycopg:///nowhere')\n";
    std::fs::write(project.path().join("settings.py"), settings).unwrap();
    let up = format!("{USERS}\nimport settings");
    let project = project.revision_of("one", &[], &up, NO_USERS);
    let file = project.path().join("migrations/versions/one.py");
    let text = std::fs::read_to_string(&file).unwrap();
    let first = "import os, sys\nsys.path.insert(0, os.getcwd())\nimport settings\n";
    std::fs::write(&file, format!("{first}{text}")).unwrap();
    let report = gated(&project).await;
    assert_eq!(rules(&report), Vec::<String>::new(), "{:?}", report.findings);
}

/// The first error is the reason, not what every later statement is told.
#[tokio::test]
async fn an_error_that_is_caught_where_it_cannot_be_is_the_reason() {
    let caught = "try:\n    op.execute('ALTER TABLE nowhere ADD x int')\nexcept Exception:\n    pass";
    let report = gated(&sound().revision_of("two", &["one"], caught, "pass")).await;
    let found = rules(&report);
    assert!(found.contains(&"gate.upgrade-failed two.py:10".to_owned()), "{found:?}");
    let said = said(&report, "gate.upgrade-failed");
    assert!(said.contains("42P01") && !said.contains("25P02"), "{said}");
}

#[tokio::test]
async fn an_extension_that_is_not_here_proves_nothing() {
    let up = "op.execute('CREATE EXTENSION nowhere_to_be_found')";
    let report = gated(&sound().revision_of("two", &["one"], up, "pass")).await;
    assert!(rules(&report).contains(&"gate.extension-missing two.py:9".to_owned()), "{:?}", rules(&report));
    assert_eq!((report.upgrade, report.downgrade), (Verdict::Unknown, Verdict::Unknown));
    // One that is here, and that the role may not create.
    let up = "op.execute('CREATE EXTENSION file_fdw')";
    let report = gated(&sound().revision_of("two", &["one"], up, "pass")).await;
    let rule = "gate.upgrade-failed";
    let finding = report.findings.iter().find(|finding| finding.message.code().id() == rule).unwrap();
    assert_eq!(finding.mend.as_ref().unwrap().code().id(), "gate.mend-extension");
}
