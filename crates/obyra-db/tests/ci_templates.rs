//! The files that a team takes over are what they say: the workflows parse, ask for no more than they need, and
//! each of their commands runs; `flask db gate` and `flask db seed` are Flask-Migrate's neighbours.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;
mod published;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use obyra_evidence::Quiet;
use obyra_migrations::{Policy, PythonSearch, find_or_make};
use obyra_postgres::cluster::{TemporaryCluster, for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Limits, Reveal, Scheme, Session};
use project::{Project, Run, cache, example};
use published::Published;
use serde_yaml_ng::Value;

const STRATEGY: &str = r#"
language = "en"
state_dir = ".obyra-db"

[environments.production]
runs_on = "self-hosted"
url_env = "OBYRA_PRODUCTION_ADMIN_URL"
database = "obyra"
schemas = { app = "app", audit = "audit" }

[environments.dev]
runs_on = "embedded"
database = "obyra"
schemas = { app = "public" }

[secrets]
store = "env"

[access]
owner = "obyra_owner"

[access.roles.obyra_app]
schemas = { app = "read-write" }
search_path = ["app"]

[access.roles.obyra_migrate]
acts_as = "obyra_owner"
member_of = ["obyra_app"]
search_path = ["app"]

[migrations]
app = "obyra_mini:create_app"
run_as = "obyra_migrate"

[seeds]
run_as = "obyra_migrate"
"#;

const SECRETS: [&str; 2] = ["OBYRA_PRODUCTION_ADMIN_URL", "OBYRA_PRODUCTION_OBYRA_MIGRATE_PASSWORD"];

/// The example in a repository whose origin it is itself, a server, and the roles of the strategy.
struct Repository {
    _cluster: TemporaryCluster,
    project: Project,
    secrets: BTreeMap<String, String>,
}

impl Repository {
    async fn new() -> Repository {
        let cluster = for_tests().await;
        let mut project = example("obyra-mini");
        project.write("obyra-db.toml", STRATEGY);
        let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        admin.batch_execute("CREATE DATABASE obyra").await.unwrap();
        let url = cluster.loopback().with_database("obyra").url(Scheme::Postgresql, Reveal::Password);
        let values = [url.expose_secret().to_owned(), "migrate-pw-0123456789".to_owned()];
        let secrets: BTreeMap<String, String> = SECRETS.map(str::to_owned).into_iter().zip(values).collect();
        for (name, value) in &secrets {
            project.set(name, value.as_str());
        }
        project.set("OBYRA_PRODUCTION_OBYRA_APP_PASSWORD", "app-pw-0123456789");
        project.run(&["apply", "production", "--yes"]).ends(0);
        let repository = Repository { _cluster: cluster, project, secrets };
        let git = "git init --quiet --initial-branch main . && git add . && \
                   git -c user.name=t -c user.email=t@example.com commit --quiet -m first && \
                   git remote add origin . && git fetch --quiet origin";
        repository.shell(git, &[]).ends(0);
        repository
    }

    /// Runs a script as a CI server does: with the variables of its job, and none that a developer has.
    #[expect(clippy::disallowed_methods, reason = "a CI server starts a shell")]
    fn shell(&self, script: &str, variables: &[(String, String)]) -> Run {
        let program = Path::new(env!("CARGO_BIN_EXE_obyra-db")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = std::process::Command::new("bash")
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script])
            .current_dir(self.project.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", program.display()))
            .env("HOME", self.project.home())
            .env("OBYRA_DB_CACHE", cache())
            .envs(std::env::vars().filter(|(name, _)| name.starts_with("PIP_") || name.starts_with("SSL_")))
            .envs(variables.iter().cloned())
            .output()
            .unwrap();
        Run::of(output)
    }
}

fn parsed(text: &str) -> Value {
    serde_yaml_ng::from_str(text).expect("YAML")
}

fn strings(value: &Value) -> Vec<String> {
    let sequence = value.as_sequence().expect("a list");
    sequence.iter().map(|each| each.as_str().expect("a string").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_github_workflow_runs() {
    let repository = Repository::new().await;
    let project = &repository.project;
    project.run(&["migrate", "ci-template", "github"]).ends(0).says("reviewers");
    let text = fs::read_to_string(project.path().join(".github/workflows/database.yml")).unwrap();
    published::demand(Published::GithubWorkflow, &text);
    let workflow = parsed(&text);

    // Nothing but what a job asks for; a secret only where the environment guards it.
    assert_eq!(workflow["permissions"].as_mapping().map(|asked| asked.len()), Some(0));
    let jobs = workflow["jobs"].as_mapping().unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(workflow["jobs"]["deploy"]["environment"].as_str(), Some("production"));
    let gate = serde_yaml_ng::to_string(&workflow["jobs"]["gate"]).unwrap();
    assert!(!gate.contains("secrets."), "{gate}");
    let rights = |job: &str| serde_yaml_ng::to_string(&workflow["jobs"][job]["permissions"]).unwrap();
    assert_eq!(rights("gate"), "contents: read\nsecurity-events: write\n");
    assert_eq!(rights("deploy"), "contents: read\n");

    let summary = project.path().join("summary.md");
    for job in ["gate", "deploy"] {
        let job = &workflow["jobs"][job];
        for step in job["steps"].as_sequence().unwrap() {
            if let Some(action) = step["uses"].as_str() {
                let (_, commit) = action.split_once('@').unwrap();
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
                continue;
            }
            let script = step["run"].as_str().unwrap();
            assert!(!script.contains("${{"), "an expression in a script is code from outside: {script}");
            let mut variables = vec![("GITHUB_STEP_SUMMARY".to_owned(), summary.display().to_string())];
            for level in [&workflow["env"], &job["env"], &step["env"]] {
                for (name, value) in level.as_mapping().into_iter().flatten() {
                    let name = name.as_str().unwrap().to_owned();
                    variables.push((name.clone(), value_of(&repository, value.as_str().unwrap())));
                }
            }
            let run = repository.shell(script, &variables);
            let lenient = step["continue-on-error"].as_bool() == Some(true);
            assert!(run.code == 0 || lenient && run.code == 2, "{script}\n{}\n{}", run.stdout, run.stderr);
        }
    }
    published::demand(Published::Sarif, &fs::read_to_string(project.path().join("gate.sarif")).unwrap());
    assert!(fs::read_to_string(&summary).unwrap().contains("production"));
    let evidence = fs::read_to_string(project.path().join("evidence.jsonl")).unwrap();
    assert!(evidence.contains("migrate.deploy") && evidence.contains("seed.apply"), "{evidence}");
    project.run(&["migrate", "status", "production"]).ends(0);
}

/// What GitHub puts in the place of an expression.
fn value_of(repository: &Repository, value: &str) -> String {
    let expression = value.strip_prefix("${{ ").and_then(|value| value.strip_suffix(" }}"));
    match expression {
        None => value.to_owned(),
        Some("github.event.repository.default_branch") => "main".to_owned(),
        Some(other) => match other.split_once('.') {
            Some(("secrets", name)) => repository.secrets[name].clone(),
            Some(("vars", _)) => String::new(),
            _ => panic!("{value}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_gitlab_pipeline_runs() {
    let repository = Repository::new().await;
    let project = &repository.project;
    project.run(&["migrate", "ci-template", "gitlab"]).ends(0).says("protected environment");
    let text = fs::read_to_string(project.path().join(".gitlab-ci.yml")).unwrap();
    published::demand(Published::GitlabPipeline, &text);
    let pipeline = parsed(&text);
    assert_eq!(pipeline["deploy"]["environment"]["name"].as_str(), Some("production"));
    assert_eq!(pipeline["deploy"]["rules"][0]["when"].as_str(), Some("manual"));
    assert_eq!(pipeline["gate"]["artifacts"]["reports"]["junit"].as_str(), Some("gate.xml"));
    assert_eq!(pipeline["gate"]["artifacts"]["when"].as_str(), Some("always"));

    let before = strings(&pipeline[".obyra-db"]["before_script"]).join("\n");
    let common =
        [("CI_DEFAULT_BRANCH", "main"), ("CI_PROJECT_DIR", "."), ("OBYRA_DB_CONFIG", "obyra-db.toml")];
    let common = common.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let gate = strings(&pipeline["gate"]["script"]).join("\n");
    repository.shell(&format!("{before}\n{gate}"), &common).ends(0);
    assert!(fs::read_to_string(project.path().join("gate.xml")).unwrap().contains("<testsuite "));

    let secrets = repository.secrets.iter().map(|(name, value)| (name.clone(), value.clone()));
    let variables: Vec<(String, String)> = common.iter().cloned().chain(secrets).collect();
    let deploy = strings(&pipeline["deploy"]["script"]).join("\n");
    repository.shell(&format!("{before}\n{deploy}"), &variables).ends(0);
    let after = strings(&pipeline["deploy"]["after_script"]).join("\n");
    repository.shell(&after, &variables).ends(0);
    assert!(fs::read_to_string(project.path().join("evidence.jsonl")).unwrap().contains("migrate.deploy"));
    project.run(&["migrate", "status", "production"]).ends(0);
}

#[test]
fn a_file_of_somebody_s_own_is_left_alone() {
    let project = example("obyra-mini");
    project.write("obyra-db.toml", STRATEGY);
    project.write(".gitlab-ci.yml", "test:\n  script: [make]\n");
    project.run(&["migrate", "ci-template", "gitlab"]).ends(3).says("--print");
    let print = project.run(&["migrate", "ci-template", "gitlab", "--print"]).ends(0);
    assert_eq!(
        fs::read_to_string(project.path().join(".gitlab-ci.yml")).unwrap(),
        "test:\n  script: [make]\n"
    );
    project.run(&["migrate", "ci-template", "gitlab", "--force"]).ends(0);
    assert_eq!(fs::read_to_string(project.path().join(".gitlab-ci.yml")).unwrap(), print.stdout);
    project.run(&["migrate", "ci-template", "gitlab"]).ends(0).says("exactly this already");
    project.run(&["migrate", "ci-template", "jenkins"]).ends(64);
    project.run(&["migrate", "ci-template", "github", "nowhere"]).ends(64);
    project.run(&["migrate", "ci-template", "github", "dev"]).ends(64).says("url_env");
}

#[test]
fn a_strategy_below_the_repository_is_named_from_its_root() {
    let project = Project::empty();
    project.write("services/money/obyra-db.toml", STRATEGY);
    fs::create_dir(project.path().join(".git")).unwrap();
    project.run(&["migrate", "ci-template", "github", "--config", "services/money/obyra-db.toml"]).ends(0);
    let text = fs::read_to_string(project.path().join(".github/workflows/database.yml")).unwrap();
    assert_eq!(parsed(&text)["env"]["OBYRA_DB_CONFIG"].as_str(), Some("services/money/obyra-db.toml"));
    assert!(!text.contains("seed apply"), "there are no seeds");
}

#[tokio::test(flavor = "multi_thread")]
async fn flask_has_both_commands_beside_those_of_flask_migrate() {
    let repository = Repository::new().await;
    let project = &repository.project;
    project.run(&["migrate", "deploy", "production", "--yes"]).ends(0);
    // The example has the file as it is written.
    project.run(&["migrate", "flask-commands"]).ends(0).says("exactly this already");

    let search = PythonSearch {
        project: project.path().to_owned(),
        cache: cache(),
        configured: None,
        activated: None,
        requirements: project.path().join(Policy::default().requirements),
    };
    let python = find_or_make(&search, &Quiet).await.unwrap().interpreter;
    let mut variables: Vec<(String, String)> =
        repository.secrets.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    variables.push(("DATABASE_URL".to_owned(), "postgresql://nobody@127.0.0.1:1/nothing".to_owned()));
    let flask = |arguments: &str| {
        let app = "--app obyra_mini:create_app";
        repository.shell(&format!("{} -m flask {app} db {arguments}", python.display()), &variables)
    };
    let help = flask("--help").ends(0);
    for command in ["upgrade", "downgrade", "migrate", "gate", "seed"] {
        assert!(help.stdout.contains(&format!("  {command} ")), "{command}: {}", help.stdout);
    }
    flask("gate --last 1 --json").ends(0).says("[]");
    flask("gate --config nowhere.toml").ends(64);
    flask("seed production").ends(0);
    project.run(&["seed", "status", "production"]).ends(0);
    let none = format!("PATH=/nowhere {} -m flask --app obyra_mini:create_app db gate", python.display());
    repository.shell(&none, &variables).ends(1).says("obyra-db is not on the PATH");

    // Where nothing was written yet, the file goes into the package, and the two lines are told.
    fs::remove_file(project.path().join("obyra_mini/database_commands.py")).unwrap();
    project.run(&["migrate", "flask-commands"]).ends(0).says("from . import database_commands");
    flask("gate --last 1 --json").ends(0);
}
