//! `migrate baseline` and `migrate stamp` as a team lives through them: a history that cannot be replayed, an
//! environment with rows, one that is named otherwise, one that has drifted, one that is empty.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use obyra_postgres::cluster::{TemporaryCluster, for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Reveal, Scheme, Session};
use project::{Project, example};

const STRATEGY: &str = r#"
language = "en"
state_dir = ".obyra-db"

[environments.production]
runs_on = "self-hosted"
url_env = "PRODUCTION_URL"
database = "obyra"
schemas = { app = "app", audit = "audit" }

# The same tables, under another schema's name.
[environments.staging]
runs_on = "self-hosted"
url_env = "STAGING_URL"
database = "obyra_staging"
schemas = { app = "public", audit = "audit" }

[environments.fresh]
stage = "development"
runs_on = "self-hosted"
url_env = "FRESH_URL"
database = "obyra_fresh"
schemas = { app = "app", audit = "audit" }

[secrets]
store = "env"

[access]
owner = "obyra_owner"
extensions = ["pg_stat_statements"]

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

/// A server with one database for each environment, and the example application beside their strategy.
struct Team {
    cluster: TemporaryCluster,
    project: Project,
}

impl Team {
    async fn new() -> Team {
        let cluster = for_tests().await;
        let mut project = example("obyra-mini");
        project.write("obyra-db.toml", STRATEGY);
        let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        for (environment, database) in
            [("PRODUCTION", "obyra"), ("STAGING", "obyra_staging"), ("FRESH", "obyra_fresh")]
        {
            admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
            let url = cluster.loopback().with_database(database);
            let url = url.url(Scheme::Postgresql, Reveal::Password);
            project.set(&format!("{environment}_URL"), url.expose_secret());
            // The roles are the cluster's, and so are their passwords.
            for role in ["APP", "MIGRATE"] {
                project.set(&format!("OBYRA_{environment}_OBYRA_{role}_PASSWORD"), "pw-0123456789-abcdef");
            }
        }
        Team { cluster, project }
    }

    fn database(&self, name: &str) -> Conninfo {
        self.cluster.admin().with_database(name)
    }

    async fn sql(&self, database: &str, sql: &str) {
        let session = Session::connect(&self.database(database), Limits::default()).await.unwrap();
        session.batch_execute(sql).await.unwrap();
    }

    async fn count(&self, database: &str, table: &str) -> i64 {
        let session = Session::connect(&self.database(database), Limits::default()).await.unwrap();
        session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }

    /// What a real history suffers: the first revision is a `pass`, because "the tables exist already".
    fn break_history(&self) {
        let file = "migrations/versions/20260801_0900_create_organizations.py";
        let whole = fs::read_to_string(self.project.path().join(file)).unwrap();
        let head = whole.split("def upgrade()").next().unwrap();
        self.project.write(
            file,
            &format!("{head}def upgrade() -> None:\n    pass\n\n\ndef downgrade() -> None:\n    pass\n"),
        );
    }

    fn versions(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        tree(&self.project.path().join("migrations"))
    }
}

/// Every file below a folder, but what Python compiles for itself.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "__pycache__" {
                folders.push(path);
            } else if path.is_file() {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The revision that a plan names.
fn revision(plan: &str) -> String {
    let (_, rest) = plan.split_once("revision ").expect("a revision");
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

/// What the plan says of each environment.
fn stamp_plan(id: &str) -> [String; 4] {
    [
        format!(
            "production: at index_payments_by_date, and the baseline was written from it: obyra-db migrate stamp production {id}"
        ),
        format!(
            "staging: at index_payments_by_date, and its schema is another (1 object, the first: column public.users.by_hand: it is in the schema, and the revisions do not make it): bring it there before obyra-db migrate stamp staging {id}"
        ),
        "fresh: holds no tables yet: obyra-db migrate deploy fresh".to_owned(),
        format!("flask db stamp --purge {id}"),
    ]
}

/// Every old file is where it was, or in the archive, byte for byte.
#[track_caller]
fn nothing_is_lost(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) {
    let archived = |name: &PathBuf| {
        let found = after
            .iter()
            .find(|(path, _)| path.starts_with("archived") && path.file_name() == name.file_name());
        after.get(name).or(found.map(|(_, bytes)| bytes))
    };
    for (name, bytes) in before {
        assert_eq!(archived(name), Some(bytes), "{}", name.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_history_that_cannot_be_replayed_to_one_that_can() {
    let team = Team::new().await;
    let project = &team.project;
    for environment in ["production", "staging", "fresh"] {
        project.run(&["apply", environment, "--yes"]).ends(0);
    }
    for environment in ["production", "staging"] {
        project.run(&["migrate", "deploy", environment, "--yes"]).ends(0);
        project.run(&["seed", "apply", environment, "--yes"]).ends(0);
    }
    let organizations = team.count("obyra", "app.organizations").await;
    assert!(organizations > 0);
    team.sql("obyra_staging", "SET ROLE obyra_owner; ALTER TABLE public.users ADD COLUMN by_hand int").await;
    team.break_history();
    project.run(&["migrate", "gate"]).ends(2).says("gate.upgrade-failed").says("organizations");

    // The plan changes nothing, and the same plan gives the same bytes.
    let before = team.versions();
    let shown = project.run(&["migrate", "baseline", "production", "--dry-run"]).ends(0);
    let shown =
        shown.says("CREATE TABLE organizations").says("13 revisions").says("def downgrade() -> None:");
    assert_eq!(team.versions(), before);
    let id = revision(&shown.stdout);
    for line in stamp_plan(&id) {
        assert!(shown.stdout.contains(&line), "{line:?} is not in\n{}", shown.stdout);
    }
    project.run(&["migrate", "baseline", "production"]).ends(3).says("--yes");
    assert_eq!(team.versions(), before);

    let run = project.run(&["migrate", "baseline", "production", "--yes", "--message", "The schema of 2026"]);
    let run = run.ends(0).says("written: migrations/versions/");
    assert_eq!(revision(&run.stdout), id);
    let after = team.versions();
    let versions: Vec<&PathBuf> = after.keys().filter(|name| name.starts_with("versions")).collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert!(versions[0].to_string_lossy().ends_with("_the_schema_of_2026.py"), "{versions:?}");
    nothing_is_lost(&before, &after);

    // A second run finds it done.
    project.run(&["migrate", "baseline", "production", "--yes"]).ends(0).says("nothing to write");
    assert_eq!(team.versions(), after);

    // From empty, and on the databases that exist.
    project.run(&["migrate", "deploy", "fresh", "--yes"]).ends(0);
    project.run(&["seed", "apply", "fresh", "--yes"]).ends(0);
    assert_eq!(team.count("obyra_fresh", "app.organizations").await, organizations);
    project.run(&["migrate", "deploy", "production", "--yes"]).ends(3).says("index_payments_by_date");
    let stamped = project.run(&["migrate", "stamp", "production", &id[..6], "--yes"]).ends(0);
    stamped.says(&format!("production: index_payments_by_date -> {id}"));
    project.run(&["migrate", "stamp", "production", "head", "--yes"]).ends(0).says("stands at");
    project.run(&["migrate", "deploy", "production", "--yes"]).ends(0).says("no revision is pending");
    project.run(&["migrate", "status", "production"]).ends(0).says(&id);
    assert_eq!(team.count("obyra", "app.organizations").await, organizations);
    project.run(&["plan", "production"]).ends(0);

    // What differs is not stamped, unless somebody takes it upon himself.
    let refused = project.run(&["migrate", "stamp", "staging", &id, "--yes"]).ends(3);
    refused.says("column public.users.by_hand").says("--accept-differences");
    project.run(&["migrate", "status", "staging"]).ends(2).says("index_payments_by_date");
    let accepted =
        project.run(&["migrate", "stamp", "staging", &id, "--yes", "--accept-differences", "--json"]);
    assert!(accepted.ends(0).stdout.contains("by_hand"));
    project.run(&["migrate", "deploy", "staging", "--yes"]).ends(0);

    let records = project.run(&["evidence", "list", "--subject", "migrations.", "--json"]).ends(0).stdout;
    assert_eq!(records.matches("\"migrations.baseline\"").count(), 1, "{records}");
    assert_eq!(records.matches("\"migrations.stamp\"").count(), 2, "{records}");
    assert!(records.contains("difference.0") && records.contains("by_hand"), "{records}");
    project.run(&["evidence", "verify"]).ends(0);

    // The gate has nothing against the new history.
    project.run(&["migrate", "gate", "--all"]).ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_loses_nothing() {
    let team = Team::new().await;
    let project = &team.project;
    let script = "-- Name: app; Type: SCHEMA; Schema: -; Owner: -\nCREATE SCHEMA app;\n\
                  -- Name: users; Type: TABLE; Schema: app; Owner: -\nCREATE TABLE app.users (id int);\n";
    project.write("schema.sql", script);
    let before = team.versions();
    let arguments = ["migrate", "baseline", "--schema", "schema.sql", "--yes"];
    let mut child = project.process(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Whatever moment this is after the files begin to change: it is struck at once.
    let (staged, archive) =
        (project.path().join("migrations/.versions-baseline"), project.path().join("migrations/archived"));
    while !staged.exists() && !archive.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    let bytes = |tree: &BTreeMap<PathBuf, Vec<u8>>| {
        let mut bytes: Vec<Vec<u8>> = tree.values().cloned().collect();
        bytes.sort();
        bytes
    };
    let (old, left) = (bytes(&before), bytes(&team.versions()));
    assert!(old.iter().all(|file| left.contains(file)), "a file is gone");
    project.run(&arguments).ends(0);
    let after = team.versions();
    assert_eq!(after.keys().filter(|name| name.starts_with("versions")).count(), 1, "{:?}", after.keys());
    assert!(old.iter().all(|file| bytes(&after).contains(file)), "a file is gone");
    assert!(!staged.exists());
    project.run(&arguments).ends(0).says("nothing to write");
    assert_eq!(team.versions(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_baseline_writes_nothing() {
    let team = Team::new().await;
    let project = &team.project;
    let before = team.versions();
    project.run(&["migrate", "baseline"]).ends(64);
    project.run(&["migrate", "baseline", "nowhere"]).ends(64);
    project.run(&["migrate", "baseline", "--schema", "a", "--from-models"]).ends(64);
    project.run(&["migrate", "baseline", "production", "--runtime", "a.sql"]).ends(64);
    project.run(&["migrate", "baseline", "--schema", "nowhere.sql", "--yes"]).ends(64).says("nowhere.sql");
    project.write("rows.sql", "CREATE TABLE app.t (id int);\nCOPY app.t (id) FROM stdin;\n1\n\\.\n");
    let refused =
        project.run(&["migrate", "baseline", "--schema", "rows.sql", "--yes", "--lang", "es"]).ends(64);
    refused.says("rows.sql:2:1").says("el volcado contiene filas");
    // An empty database has no schema to write down.
    project.run(&["apply", "production", "--yes"]).ends(0);
    project.run(&["migrate", "baseline", "production", "--yes"]).ends(64).says("nothing to create");
    // A proof that fails is a finding, and evidence.
    project.write(
        "other.sql",
        "CREATE SCHEMA app; CREATE EXTENSION hstore SCHEMA app; CREATE TABLE app.t (id int);",
    );
    let run = project.run(&["migrate", "baseline", "--schema", "other.sql", "--yes"]).ends(2);
    run.says("baseline.upgrade-failed").says("nothing was written").says("[access] extensions");
    let records = project.run(&["evidence", "list", "--subject", "migrations.baseline", "--json"]).stdout;
    assert!(records.contains("\"failed\""), "{records}");
    project.run(&["migrate", "stamp", "production", "nothing", "--yes"]).ends(64).says("no revision nothing");
    assert_eq!(team.versions(), before);

    // The broken example's env.py never commits: no baseline of it could be deployed.
    let broken = example("obyra-broken");
    broken.write("schema.sql", "CREATE SCHEMA app; CREATE TABLE app.clients (id int);");
    let files = tree(&broken.path().join("migrations"));
    broken.run(&["migrate", "baseline", "--schema", "schema.sql", "--yes"]).ends(2).says("baseline.boot-ddl");
    assert_eq!(tree(&broken.path().join("migrations")), files);
}
