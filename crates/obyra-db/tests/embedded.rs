//! Dev on an embedded cluster, from nothing to the checklist, with the example application.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use project::{Dev, application};

#[test]
fn from_nothing_to_the_checklist_and_again() {
    let dev = Dev(application());
    // The backup, the monitor and the gate are not built yet: unknown is never green.
    dev.run(&["up", "dev", "--yes"]).ends(2).says("isolate_organizations").says("unknown");
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["migrate", "status", "dev"]).ends(0);
    dev.run(&["seed", "status", "dev"]).ends(0);
    dev.run(&["evidence", "verify"]).ends(0);

    let records =
        |dev: &Dev| dev.run(&["evidence", "list", "dev", "--subject", "access", "--json"]).ends(0).stdout;
    let before = records(&dev);
    dev.run(&["apply", "dev", "--yes"]).ends(0);
    assert_eq!(before, records(&dev), "a second apply changes nothing and records nothing");
}

#[test]
fn a_grant_by_hand_is_named_mended_and_remembered() {
    let dev = Dev(application());
    dev.run(&["up", "dev", "--yes"]);
    dev.sql("GRANT UPDATE ON users TO obyra_readonly").ends(0);
    dev.run(&["plan", "dev"]).ends(2).says("users").says("obyra_readonly").says("REVOKE");
    dev.run(&["apply", "dev"]).ends(3).says("--yes");
    dev.run(&["apply", "dev", "--yes"]).ends(0);
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["evidence", "list", "dev", "--subject", "access.apply"]).ends(0).says("users");
}

#[test]
fn json_is_one_document() {
    let dev = Dev(project::Project::empty());
    dev.run(&["init", "--template", "minimal"]).ends(0);
    let strategy = std::fs::read_to_string(dev.0.path().join("obyra-db.toml")).unwrap();
    dev.0.write("obyra-db.toml", &format!("{strategy}\n[seeds]\nrun_as = \"app_migrate\"\n"));
    dev.0.write("migrations/seeds/001_nothing.sql", "SELECT 1;\n");
    for verb in [
        "up dev --yes",
        "plan dev",
        "apply dev --yes",
        "seed apply dev --yes",
        "seed verify dev",
        "status dev",
    ] {
        let mut arguments: Vec<&str> = verb.split(' ').collect();
        arguments.push("--json");
        let run = dev.run(&arguments);
        let read = serde_json::from_str::<serde_json::Value>(&run.stdout);
        assert!(read.is_ok(), "{verb}: {read:?}\n{}\n{}", run.stdout, run.stderr);
    }
}

#[test]
fn nothing_is_changed_where_its_evidence_could_not_be_kept() {
    let dev = Dev(project::Project::empty());
    dev.run(&["init", "--template", "minimal"]).ends(0);
    dev.run(&["up", "dev", "--yes"]).ends(2);
    dev.sql("REVOKE CONNECT ON DATABASE app_dev FROM app").ends(0);
    let (ledger, aside) = (dev.0.path().join(".obyra-db/evidence.sqlite"), dev.0.path().join("aside"));
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    dev.run(&["apply", "dev", "--yes"]).ends(1).says("evidence ledger");
    std::fs::remove_dir(&ledger).unwrap();
    std::fs::rename(&aside, &ledger).unwrap();
    dev.run(&["plan", "dev"]).ends(2).says("CONNECT");
    dev.run(&["apply", "dev", "--yes"]).ends(0);
}

#[test]
fn dev_may_lose_its_data_and_nothing_else_may() {
    let dev = Dev(application());
    dev.run(&["up", "dev", "--yes"]);
    dev.sql("CREATE TABLE public.by_hand (id int)").ends(0);
    dev.run(&["up", "dev", "--recreate"]).ends(3);
    dev.sql("SELECT * FROM by_hand").ends(0);
    dev.run(&["up", "dev", "--recreate", "--yes"]);
    dev.sql("SELECT * FROM by_hand").ends(1);
}

#[test]
fn a_team_without_python() {
    let dev = Dev(project::Project::empty());
    dev.run(&["init", "--template", "minimal"]).ends(0);
    // Alembic and seeds are not asked where the file has no section for them; a plan for emergencies is.
    dev.run(&["up", "dev", "--yes"])
        .ends(2)
        .says("the strategy does not ask for it here")
        .says("it is not stated where the emergency credentials are kept");
    dev.0.write("schema.sql", "CREATE TABLE products (id serial PRIMARY KEY, name text);");
    let psql = ["exec", "dev", "--as", "app_migrate", "--", "psql", "-X", "-q", "-1", "-f", "schema.sql"];
    dev.run(&psql).ends(0);
    dev.run(&[
        "exec",
        "dev",
        "--as",
        "app",
        "--",
        "psql",
        "-X",
        "-c",
        "INSERT INTO products VALUES (1, 'x')",
    ])
    .ends(0);
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["status", "dev"]).ends(0).hides("unknown");
}

#[test]
fn a_reader_that_goes_away_stops_nothing_in_the_middle() {
    let dev = Dev(application());
    let mut up = dev.0.process(&["up", "dev", "--yes"]);
    let mut up = up.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    drop(up.stdout.take());
    assert_eq!(up.wait().unwrap().code(), Some(2));
    dev.run(&["plan", "dev"]).ends(0);
    dev.run(&["seed", "status", "dev"]).ends(0);
}
