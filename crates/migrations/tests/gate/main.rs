//! The gate on real servers: what it proves, what it finds, and that it finds nothing else.

mod course;
mod layouts;
mod locks;
mod models;
mod reach;
mod running;
mod statements;
mod trips;

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Finding, Quiet};
use obyra_migrations::PythonSearch;
use obyra_migrations::gate::{Order, Report, Scope, Site, Sizes, Start, gate};
use obyra_postgres::cluster::{Search, cache_for_tests};
use obyra_postgres::{Conninfo, Limits, Session};
use support::{Project, python};

const PASSWORD: &str = "s3cr3t-of-the-gate";

/// The roles that a strategy would give the database.
pub(crate) struct Roles;

impl Site for Roles {
    async fn prepare(&mut self, database: &Conninfo) -> Result<Conninfo, Failure> {
        let session = Session::connect(database, Limits::default()).await?;
        let roles = format!(
            "DO $$ BEGIN
               CREATE ROLE owner NOLOGIN; CREATE ROLE migrator LOGIN PASSWORD '{PASSWORD}';
               GRANT owner TO migrator WITH INHERIT FALSE, SET TRUE;
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE migrator IN DATABASE app SET role = 'owner';
             ALTER ROLE migrator IN DATABASE app SET search_path = 'app';
             CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION owner;
             ALTER SCHEMA app OWNER TO owner;
             GRANT CREATE ON SCHEMA public TO owner"
        );
        session.batch_execute(&roles).await.expect("roles");
        Ok(database.with_role("migrator", Some(PASSWORD.into())))
    }
}

/// How a project is gated, unless a test says otherwise: all revisions, no starting schema, no sizes.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) last: Option<usize>,
    pub(crate) scope: Option<Scope>,
    pub(crate) start: Option<Start>,
    pub(crate) sizes: Sizes,
    pub(crate) requirements: Option<PathBuf>,
}

pub(crate) async fn gated_with(project: &Project, options: &Options) -> Result<Report, Failure> {
    python().await;
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let python = PythonSearch {
        project: project.path().to_owned(),
        cache: cache_for_tests(),
        configured: None,
        activated: None,
        requirements: options.requirements.clone().unwrap_or_else(|| support.join("requirements.txt")),
    };
    let postgres = Search { bin_dir: None, cache: cache_for_tests(), major: 16 };
    let order = Order {
        policy: &project.policy,
        project: project.path(),
        python: &python,
        postgres: &postgres,
        hidden_variables: &[],
        database: "app",
        schemas: &["app".to_owned()],
        scope: options.scope.or(options.last.map(Scope::Last)).unwrap_or(Scope::All),
        start: options.start.as_ref(),
        sizes: &options.sizes,
        applied: &[],
        runtime: None,
    };
    gate(&order, &mut Roles, &Quiet).await
}

pub(crate) async fn gated(project: &Project) -> Report {
    gated_with(project, &Options::default()).await.expect("a report")
}

/// The findings as `rule file:line`, without what every project of the tests lacks: models.
pub(crate) fn rules(report: &Report) -> Vec<String> {
    let told = |finding: &Finding| {
        let rule = finding.message.code().id();
        let place = finding.place.as_ref().map(|place| {
            let file = place.file.file_name().map(PathBuf::from).unwrap_or_default();
            format!(" {}:{}", file.display(), place.line)
        });
        format!("{rule}{}", place.unwrap_or_default())
    };
    let mut rules: Vec<String> =
        report.findings.iter().map(told).filter(|rule| !rule.starts_with("gate.models-missing")).collect();
    rules.sort();
    rules
}

/// What a finding of a rule says.
pub(crate) fn said(report: &Report, rule: &str) -> String {
    let of_rule = |finding: &&Finding| finding.message.code().id() == rule;
    let found = report.findings.iter().find(of_rule);
    found
        .map(|finding| finding.message.to_string())
        .unwrap_or_else(|| panic!("no {rule} in {:?}", rules(report)))
}

pub(crate) const USERS: &str = "op.execute('CREATE TABLE users (id int PRIMARY KEY, name text)')";
pub(crate) const NO_USERS: &str = "op.execute('DROP TABLE users')";

/// A sound project of one revision.
pub(crate) fn sound() -> Project {
    Project::new().revision_of("one", &[], USERS, NO_USERS)
}

/// Gates one project with a revision for each case, on tables of its own called `users` and `orders` in its text, and
/// demands that the revision's line has the findings of these rules, and of no others.
pub(crate) async fn each(cases: &[(&str, &[&str])]) {
    let own = |text: &str, at: usize| {
        let text = text.replace("users", &format!("users_{at}")).replace("orders", &format!("orders_{at}"));
        text.replace("own", &format!("own_{at}"))
    };
    let tables = "op.execute('CREATE TABLE users (id int PRIMARY KEY, name text)')
op.execute('CREATE TABLE orders (id int PRIMARY KEY, user_id int, code varchar(8), at timestamp)')
";
    let tables: String = (0..cases.len()).map(|at| own(tables, at)).collect();
    let mut project = Project::new().revision("tables", &[], &tables);
    for (at, (upgrade, _)) in cases.iter().enumerate() {
        let down = if at == 0 { "tables".to_owned() } else { format!("r{}", at - 1) };
        let upgrade = format!("import sqlalchemy as sa\n{}", own(upgrade, at));
        project = project.revision(&format!("r{at}"), &[&down], &upgrade);
    }
    let found = rules(&gated(&project).await);
    for (at, (upgrade, expected)) in cases.iter().enumerate() {
        let line = format!(" r{at}.py:10");
        let own: Vec<&str> = found.iter().filter_map(|rule| rule.strip_suffix(&line)).collect();
        assert_eq!(&own, expected, "{upgrade}\n{found:#?}");
    }
}

/// Makes a repository of the project as it stands: what comes afterwards is the branch's.
#[expect(clippy::disallowed_methods, reason = "a repository is what the gate asks for the branch")]
pub(crate) fn on_main(project: &Project) {
    let commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "main"];
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "."], &commit] {
        let mut git = std::process::Command::new("git");
        let ended = git.arg("-C").arg(project.path()).args(arguments).status().expect("git");
        assert!(ended.success(), "{arguments:?}");
    }
}
