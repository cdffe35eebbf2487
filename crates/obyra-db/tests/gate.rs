//! `migrate gate` as a user runs it: on the example that is sound, and on the one that is broken in every way.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use std::collections::BTreeSet;

use project::{Project, example};

/// The findings of a run, as `rule file:line` with the file's own name.
fn rules(project: &Project, arguments: &[&str]) -> BTreeSet<String> {
    let arguments = [&["migrate", "gate", "--json"], arguments].concat();
    let run = project.run(&arguments).ends(2);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).unwrap();
    let told = |finding: &serde_json::Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        for key in ["rule", "severity", "message", "mend"] {
            assert!(!text(key).is_empty(), "{finding}");
        }
        assert!(!text("file").is_empty() && finding["line"].is_u64(), "{finding}");
        let file = text("file");
        match file.rsplit('/').next().filter(|file| !file.is_empty()) {
            Some(file) => format!("{} {file}:{}", text("rule"), finding["line"]),
            None => text("rule"),
        }
    };
    findings.iter().map(told).collect()
}

#[track_caller]
fn expect(found: &BTreeSet<String>, rules: &[&str]) {
    let missing: Vec<&&str> = rules.iter().filter(|rule| !found.contains(**rule)).collect();
    assert!(missing.is_empty(), "not found: {missing:#?}\nfound: {found:#?}");
}

#[test]
fn the_sound_example_has_no_finding_and_its_evidence_counts() {
    let project = example("obyra-mini");
    project.run(&["init", "--lang", "en"]).ends(0);
    let run = project.run(&["migrate", "gate", "--all", "--json"]).ends(0);
    assert_eq!(run.stdout.trim(), "[]");
    let records = project.run(&["evidence", "list", "--subject", "gate", "--json"]).ends(0).stdout;
    assert!(records.contains("gate.upgrade") && records.contains("gate.downgrade"), "{records}");
    assert_eq!(records.matches("\"passed\"").count(), 2, "{records}");

    // The checklist of another environment takes the evidence: it is about the same head.
    struct Down<'a>(&'a Project);
    impl Drop for Down<'_> {
        fn drop(&mut self) {
            self.0.run(&["down", "dev"]);
        }
    }
    let _down = Down(&project);
    project.run(&["up", "dev", "--yes"]);
    let lines: serde_json::Value =
        serde_json::from_str(&project.run(&["check", "dev", "--json"]).stdout).unwrap();
    let shown = lines.to_string();
    for line in ["upgrade-gate", "downgrade-gate", "migrations"] {
        let status = status(&lines, line);
        assert_eq!(status.as_deref(), Some("passed"), "{line}: {shown}");
    }
    // A live environment is read too: it stands at the head already.
    project.run(&["migrate", "gate", "dev"]).ends(0);
    edited_after_it_was_applied(&project);
}

/// `dev` has run every revision, and the ledger knows what their files did.
fn edited_after_it_was_applied(project: &Project) {
    let versions = "migrations/versions";
    let edit = |file: &str, from: &str, to: &str| {
        let file = format!("{versions}/{file}");
        let text = std::fs::read_to_string(project.path().join(&file)).unwrap();
        assert!(text.contains(from), "{text}");
        project.write(&file, &text.replace(from, to));
    };
    let found = || {
        let run = project.run(&["migrate", "gate", "--json"]).stdout;
        let findings: Vec<serde_json::Value> = serde_json::from_str(&run).unwrap();
        let told = |finding: &serde_json::Value| {
            let file = finding["file"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            format!("{} {} {file}", finding["rule"].as_str().unwrap(), finding["severity"].as_str().unwrap())
        };
        findings.iter().map(told).collect::<Vec<_>>()
    };
    // Looks do not count.
    let file = "20260806_1215_index_budget_item_tenant.py";
    edit(file, "def upgrade", "# a remark\n\n\ndef upgrade");
    assert_eq!(found(), Vec::<String>::new());
    edit(file, "op.create_index(", "op.execute(\"SELECT 1\")\n        op.create_index(");
    let rule = |file: &str| format!("graph.edited-after-applied warning {file}");
    assert_eq!(found(), [rule(file)]);

    // A deploy that fails has committed what came before.
    let revision = |id: &str, down: &str, upgrade: &str| {
        let text = format!(
            "from alembic import op\nrevision = \"{id}\"\ndown_revision = \"{down}\"\n\n\ndef upgrade():\n    \
             op.execute(\"{upgrade}\")\n\n\ndef downgrade():\n    op.execute(\"DROP TABLE rates\")\n"
        );
        project.write(&format!("{versions}/20260901_{id}.py"), &text);
    };
    let head = project.run(&["migrate", "status", "dev", "--json"]).stdout;
    let head: serde_json::Value = serde_json::from_str(&head).unwrap();
    revision("0900_rates", head["head"].as_str().unwrap(), "CREATE TABLE rates (id int PRIMARY KEY)");
    revision("1000_fails", "0900_rates", "ALTER TABLE nowhere ADD x int");
    project.run(&["migrate", "deploy", "dev", "--yes"]).ends(1);
    std::fs::remove_file(project.path().join(format!("{versions}/20260901_1000_fails.py"))).unwrap();
    let rates = "20260901_0900_rates.py";
    edit(rates, "id int PRIMARY KEY", "id bigint PRIMARY KEY");
    // The models do not know this table.
    assert_eq!(found(), ["gate.model-drift error env.py".to_owned(), rule(file), rule(rates)]);
}

/// The status of a line, wherever the document has it.
fn status(value: &serde_json::Value, line: &str) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => {
            let own = ["line", "id"].iter().any(|key| map.get(*key).and_then(|id| id.as_str()) == Some(line));
            match own.then(|| map.get("status")).flatten().and_then(|status| status.as_str()) {
                Some(status) => Some(status.to_owned()),
                None => map.values().find_map(|value| status(value, line)),
            }
        }
        serde_json::Value::Array(values) => values.iter().find_map(|value| status(value, line)),
        _ => None,
    }
}

#[test]
fn the_broken_example_is_found_broken_in_every_way() {
    let found = rules(&example("obyra-broken"), &["--all"]);
    expect(
        &found,
        &[
            "gate.silent-rollback env.py:10",
            "gate.version-table-schema env.py:11",
            "gate.hidden-db-group __init__.py:30",
            "gate.boot-ddl __init__.py:40",
            "gate.boot-error __init__.py:40",
            "scan.create-all __init__.py:47",
            "scan.table-create __init__.py:46",
            "graph.naming invoices.py:1",
            "graph.merges-ancestor 20260113_0900_merge.py:7",
            "gate.downgrade-empty 20260102_0900_clients.py:14",
            "gate.downgrade-drops-existing 20260103_0900_clients_again.py:14",
            "gate.swallowed-error 20260104_0900_legacy.py:13",
            "gate.rewrite 20260105_0900_locks.py:11",
            "gate.blocking-scan 20260105_0900_locks.py:12",
            "gate.blocking-scan 20260105_0900_locks.py:13",
            "gate.downgrade-differs 20260106_0900_rating.py:16",
            "gate.downgrade-failed 20260107_0900_notes.py:15",
            "gate.guarded-upgrade 20260108_0900_guarded.py:14",
            "gate.outside-transaction 20260109_0900_beside.py:13",
            "gate.slow-revision 20260110_0900_slow.py:10",
            "gate.network 20260111_0900_network.py:13",
            "gate.table-lock 20260112_0900_running.py:11",
            "gate.bulk-write 20260112_0900_running.py:12",
            "gate.swallowed-in-do 20260112_0900_running.py:13",
            "gate.required-column 20260112_0900_running.py:14",
            "gate.column-demanded 20260112_0900_running.py:16",
            "gate.renamed 20260112_0900_running.py:17",
            "gate.removed 20260112_0900_running.py:18",
            "gate.model-drift models.py:8",
            "gate.model-drift env.py:11",
            "gate.enum-drift env.py:11",
            "gate.drift-missing models.py:8",
            "gate.drift-differs models.py:8",
            "gate.drift-undeclared models.py:8",
            "runtime.guard-wrong-error migrations_runtime.py:9",
            "runtime.guard-any-schema migrations_runtime.py:18",
            "runtime.guard-wrong-schema migrations_runtime.py:21",
            "runtime.repeats migrations_runtime.py:25",
            "runtime.recreates migrations_runtime.py:28",
            "runtime.guard-swallows migrations_runtime.py:30",
        ],
    );
    assert!(found.iter().any(|rule| rule.starts_with("graph.several-heads")), "{found:#?}");
    // What was measured is not said a second time by whoever only read it.
    for twice in [
        "graph.empty-downgrade 20260102_0900_clients.py:14",
        "scan.ddl-executed __init__.py:40",
        "scan.ddl-swallowed __init__.py:41",
        "scan.ddl-swallowed 20260104_0900_legacy.py:14",
        "scan.ddl-construct models.py:25",
        "scan.ddl-executed migrations_runtime.py:18",
        "scan.ddl-swallowed migrations_runtime.py:31",
    ] {
        assert!(!found.contains(twice), "{twice}: {found:#?}");
    }
}

/// Some applications upgrade their database whenever they start. What their revisions do is proven all the same.
#[test]
fn an_application_that_migrates_itself() {
    let project = example("obyra-mini");
    project.run(&["init", "--lang", "en"]).ends(0);
    let file = project.path().join("obyra_mini/__init__.py");
    let text = std::fs::read_to_string(&file).unwrap();
    let boot = "    with app.app_context():\n        flask_migrate.upgrade()\n    return app\n";
    let text = text.replacen("    return app\n", boot, 1).replacen(
        "import os\n",
        "import os\nimport flask_migrate\n",
        1,
    );
    assert!(text.contains(boot), "{text}");
    std::fs::write(&file, text).unwrap();
    let run = project.run(&["migrate", "gate", "--last", "2", "--json"]).ends(0);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).unwrap();
    let rules: Vec<_> = findings.iter().map(|finding| finding["rule"].as_str().unwrap_or_default()).collect();
    assert_eq!(rules, ["gate.boot-upgrade"], "{}", run.stdout);
    assert_eq!(findings[0]["file"], "obyra_mini/__init__.py");
    let records = project.run(&["evidence", "list", "--subject", "gate", "--json"]).ends(0).stdout;
    assert_eq!(records.matches("\"passed\"").count(), 2, "{records}");
}

/// The helper that the strategy allows is proven by running it where the migrations end, and is no finding of the scan.
#[test]
fn what_the_application_alters_at_its_start() {
    let project = example("obyra-mini");
    project.run(&["init", "--lang", "en"]).ends(0);
    let helper = |index: &str| {
        let text = format!(
            "from sqlalchemy import text\n\n\ndef ensure(connection):\n    \
             if connection.execute(text(\"SELECT to_regclass('suppliers')\")).scalar() is not None:\n        \
             connection.execute(text(\"CREATE INDEX {index}suppliers_name ON suppliers (name)\"))\n"
        );
        project.write("obyra_mini/migrations_runtime.py", &text);
    };
    helper("IF NOT EXISTS ");
    let run = project.run(&["migrate", "gate", "--json"]).ends(0);
    assert!(!run.stdout.contains("scan.ddl-executed"), "{}", run.stdout);
    let records = || project.run(&["evidence", "list", "--subject", "runtime", "--json"]).ends(0).stdout;
    assert!(records().contains("\"passed\""), "{}", records());
    helper("");
    let refuted = "runtime.fails-again migrations_runtime.py:6";
    assert_eq!(rules(&project, &[]), BTreeSet::from([refuted.to_owned()]));
    assert!(records().contains("\"failed\""), "{}", records());
}

/// Seeds run twice where the migrations end, as the role that the strategy has for them.
#[test]
fn seeds_that_fail_and_seeds_that_repeat() {
    let project = example("obyra-mini");
    project.run(&["init", "--lang", "en"]).ends(0);
    project.write("migrations/seeds/020_repeats.sql", "-- each time\nUPDATE users SET name = name || '.';\n");
    let repeats = || BTreeSet::from(["gate.seed-repeats 020_repeats.sql:1".to_owned()]);
    assert_eq!(rules(&project, &[]), repeats());

    project.write("migrations/seeds/020_repeats.sql", "\nINSERT INTO nowhere VALUES (1);\n");
    assert_eq!(rules(&project, &[]), BTreeSet::from(["gate.seed-failed 020_repeats.sql:2".to_owned()]));
    let strategy = std::fs::read_to_string(project.path().join("obyra-db.toml")).unwrap();
    let (before, seeds) = strategy.split_once("[seeds]").unwrap();
    assert!(seeds.contains("run_as = \"obyra_migrate\""), "{seeds}");
    let seeds = seeds.replacen("run_as = \"obyra_migrate\"", "run_as = \"obyra_app\"", 1);
    project.write("obyra-db.toml", &format!("{before}[seeds]{seeds}"));
    // What a deploy gives that role is given here too.
    for others in ["001_bootstrap_organizations", "002_admin_users", "003_sample_projects"] {
        std::fs::remove_file(project.path().join(format!("migrations/seeds/{others}.sql"))).unwrap();
    }
    let appends =
        "INSERT INTO suppliers (tax_id, name, category)\nSELECT clock_timestamp()::text, 'a', 'b';\n";
    project.write("migrations/seeds/020_repeats.sql", appends);
    assert_eq!(rules(&project, &[]), repeats());
}

#[test]
fn a_graph_that_alembic_refuses_and_a_revision_without_an_end() {
    let project = example("obyra-broken");
    let found = rules(&project, &["--config", "tangled.toml"]);
    let graph = [
        "graph.missing-parent 20260102_0900_orphan.py:7",
        "graph.cycle 20260103_0900_chicken.py:7",
        "graph.duplicate-id 20260105_0900_twin.py:6",
    ];
    expect(&found, &graph);
    // That Alembic cannot read them follows from these.
    assert!(!found.contains("gate.graph-unreadable"), "{found:#?}");
    expect(&rules(&project, &["--config", "stuck.toml"]), &["gate.timed-out 20260101_0900_loop.py:10"]);
}

#[test]
fn every_format_and_every_wrong_start() {
    let project = example("obyra-broken");
    let gate =
        |more: &[&str]| project.run(&[&["migrate", "gate", "--config", "tangled.toml"], more].concat());
    gate(&["--format", "sarif"]).ends(2).says("\"version\": \"2.1.0\"").says("graph.missing-parent");
    gate(&["--format", "junit"]).ends(2).says("<testsuite name=\"obyra-db migrate gate\"");
    gate(&["--format", "github"])
        .ends(2)
        .says("::error file=migrations_tangled/versions/20260102_0900_orphan.py,line=7");
    gate(&["--lang", "es"]).ends(2).says("la revisión anterior, gone, no existe");
    gate(&["--all", "--last", "2"]).ends(64);
    gate(&["nowhere"]).ends(64);

    // No Alembic in the project.
    let empty = Project::with("[environments.ci]\nruns_on = 'self-hosted'\nurl_env = 'X'\ndatabase = 'x'\n");
    empty.run(&["migrate", "gate"]).ends(64).says("env.py");
}

/// `kill -9` of the program in the middle of a revision: Python notices, and ends the server that nobody else would.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_gate_leaves_no_server() {
    use std::time::{Duration, Instant};

    fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let project = example("obyra-broken");
    // The revision says that it runs, and goes on for ever.
    let revision = project.path().join("migrations_stuck/versions/20260101_0900_loop.py");
    let text = std::fs::read_to_string(&revision).unwrap();
    let body = "def upgrade() -> None:\n    open('runs', 'w').close()\n";
    let text = text.replacen("def upgrade() -> None:\n", body, 1);
    assert!(text.contains(body), "{text}");
    std::fs::write(&revision, text).unwrap();
    let mut program = project
        .process(&["migrate", "gate", "--config", "stuck.toml"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the revision", || project.path().join("runs").exists().then_some(()));
    // Each thread of the runtime has children of its own.
    let of_all_threads = || -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
        let lists = threads.flatten().map(|thread| thread.path().join("children"));
        let lists = lists.filter_map(|file| std::fs::read_to_string(file).ok());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
            .collect()
    };
    let title =
        |process: u32| std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let is_server = |process: &u32| title(*process).contains("postgres\0-D");
    let server = until("the server", || of_all_threads().into_iter().find(is_server));
    program.kill().unwrap();
    program.wait().unwrap();
    until("the server's end", || (!is_server(&server)).then_some(()));
}
