//! Bad input: a clear error that says what, where and what mends it, and the documented exit code.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use project::Project;

const REMOTE: &str = r#"
state_dir = ".obyra-db"
[environments.production]
runs_on = "self-hosted"
url_env = "ADMIN_URL"
database = "obyra"
"#;

#[test]
fn no_file() {
    Project::empty().run(&["plan", "dev"]).ends(64).says("obyra-db.toml").says("obyra-db init");
}

#[test]
fn an_empty_file() {
    let run = Project::with("").run(&["plan", "dev"]).ends(64).says("1 mistake in").says("is empty");
    assert_eq!(run.stderr.matches("obyra-db.toml").count(), 4, "each sentence names it once: {}", run.stderr);
}

#[test]
fn a_file_that_is_not_toml() {
    Project::with("[environments.dev\n").run(&["plan", "dev"]).ends(64).says("obyra-db.toml:1:");
}

#[test]
fn every_problem_at_once_with_its_place() {
    let strategy = format!("{REMOTE}\n[access]\nmod = \"x\"\n[backup]\nretention = 3\n");
    Project::with(&strategy)
        .run(&["plan", "production"])
        .ends(64)
        .says("obyra-db.toml:9:1")
        .says("mode")
        .says("obyra-db.toml:11:");
}

#[test]
fn an_unknown_environment() {
    Project::with(REMOTE).run(&["plan", "producton"]).ends(64).says("production");
}

#[test]
fn an_unset_variable() {
    Project::with(REMOTE).run(&["plan", "production"]).ends(64).says("ADMIN_URL").says("export ADMIN_URL=");
}

#[test]
fn a_server_that_is_down() {
    let mut project = Project::with(REMOTE);
    project.set("ADMIN_URL", "postgresql://admin:geheim@127.0.0.1:1/obyra");
    project.run(&["plan", "production"]).ends(1).says("127.0.0.1").hides("geheim");
}

#[test]
fn an_embedded_server_that_is_down() {
    let project = Project::empty();
    project.run(&["init"]).ends(0);
    let verbs: [&[&str]; 4] = [
        &["plan", "dev"],
        &["seed", "apply", "dev"],
        &["migrate", "status", "dev"],
        &["url", "dev", "--as", "obyra_app"],
    ];
    for verb in verbs {
        project
            .run(verb)
            .ends(1)
            .says("the embedded PostgreSQL of dev is not running")
            .says("obyra-db up dev");
    }
}

#[test]
fn a_connection_string_that_is_none() {
    let mut project = Project::with(REMOTE);
    project.set("ADMIN_URL", "postgresql://admin:ge@heim/x@h/obyra?pass=geheim");
    project.run(&["plan", "production"]).ends(64).hides("heim");
}

#[test]
fn wrong_usage() {
    Project::empty().run(&["nonsense"]).ends(64);
    Project::empty().run(&["plan"]).ends(64);
    Project::empty().run(&["access", "import"]).ends(64);
    Project::empty().run(&["--help"]).ends(0).says("Exit codes");
}

#[test]
fn a_change_without_consent() {
    let mut project = Project::with(REMOTE);
    project.set("ADMIN_URL", "postgresql://admin@127.0.0.1:1/obyra");
    project.run(&["up", "production", "--recreate", "--yes"]).ends(3).says("production");
    project.run(&["down", "production"]).ends(3);
}

#[test]
fn init_never_overwrites() {
    let project = Project::empty();
    project.run(&["init"]).ends(0);
    project.run(&["init"]).ends(3).says("obyra-db.toml");
    project.run(&["init", "--template", "minimal", "--output", "other.toml", "--lang", "es"]).ends(0);
}

#[test]
fn spanish_where_the_file_says_so() {
    let project = Project::with(&format!("language = \"es\"\n{REMOTE}"));
    project.run(&["plan", "production"]).ends(64).says("no está definida");
    project.run(&["plan", "production", "--lang", "en"]).ends(64).says("is not set");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "assert_cmd cannot redirect the output")]
fn a_result_that_cannot_be_written_out() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("obyra-db"));
    let output = command.arg("schema").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("could not be written out"));
}
