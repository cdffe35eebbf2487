//! Projects with revisions, databases with a migration role, and a Python that has Alembic.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use obyra_evidence::{Failure, HumanDuration, Message, Progress, Quiet};
use obyra_migrations::driver::Workplace;
use obyra_migrations::{
    Converge, Deployed, Deployment, Policy, PythonEnvironment, PythonSearch, Unconverged, deploy,
    find_or_make,
};
use obyra_postgres::cluster::{TemporaryCluster, cache_for_tests, for_tests_version};
use obyra_postgres::{Conninfo, Limits, Session};
use tempfile::TempDir;
use tokio::sync::OnceCell;

const PASSWORD: &str = "s3cr3t/of the@migration";

/// A Python with Alembic, SQLAlchemy and psycopg, made once.
pub async fn python() -> PythonEnvironment {
    static MADE: OnceCell<PythonEnvironment> = OnceCell::const_new();
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    MADE.get_or_init(|| async { python_for(&support).await }).await.clone()
}

/// A Python with the packages of a project's requirements.
pub async fn python_for(project: &Path) -> PythonEnvironment {
    let search = PythonSearch {
        project: project.to_owned(),
        cache: cache_for_tests(),
        configured: None,
        activated: None,
        requirements: project.join("requirements.txt"),
    };
    find_or_make(&search, &Quiet).await.expect("a Python with Alembic")
}

/// A folder with an `env.py` and revisions.
pub struct Project {
    folder: TempDir,
    pub policy: Policy,
}

impl Project {
    pub fn new() -> Project {
        Project::with_env("pass", "")
    }

    /// `before` runs before `context.configure()`, whose further arguments are `options`.
    pub fn with_env(before: &str, options: &str) -> Project {
        let env = include_str!("env.py").replace("{before}", before).replace("{options}", options);
        Project::with_env_file(&env)
    }

    pub fn with_env_file(env: &str) -> Project {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("migrations/versions")).expect("folders");
        fs::write(folder.path().join("migrations/env.py"), env).expect("env.py");
        let policy = Policy { lock_timeout: HumanDuration::from_seconds(1), ..Policy::default() };
        Project { folder, policy }
    }

    /// Adds a revision; `upgrade` is the body of its function.
    pub fn revision(self, id: &str, down: &[&str], upgrade: &str) -> Project {
        self.revision_of(id, down, upgrade, "pass")
    }

    /// Adds a revision with the bodies of both functions. The first line of `upgrade` is line 9.
    pub fn revision_of(self, id: &str, down: &[&str], upgrade: &str, downgrade: &str) -> Project {
        let down = match down {
            [] => "None".to_owned(),
            parents => format!("({:?},)", parents.join("\", \"")).replace("\\\"", "\""),
        };
        let body = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let (upgrade, downgrade) = (body(upgrade), body(downgrade));
        let source = format!(
            "\"\"\"the {id} revision\"\"\"\n\nfrom alembic import op\n\nrevision = \"{id}\"\ndown_revision = {down}\n\n\
             def upgrade():\n{upgrade}\n\ndef downgrade():\n{downgrade}"
        );
        fs::write(self.path().join(format!("migrations/versions/{id}.py")), source).expect("a revision");
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A cluster with a database whose objects belong to `owner`, and a role `migrator` that acts as it.
pub struct Database {
    pub cluster: TemporaryCluster,
    pub admin: Session,
    pub target: Conninfo,
}

impl Database {
    pub async fn new() -> Database {
        Database::on(16).await
    }

    /// The same on another version.
    pub async fn on(major: u32) -> Database {
        let cluster = for_tests_version(major).await;
        // Before PostgreSQL 16 the member says whether it inherits.
        let (inherits, options) =
            if major < 16 { ("NOINHERIT", "") } else { ("INHERIT", " WITH INHERIT FALSE, SET TRUE") };
        let first = session(&cluster.admin()).await;
        first.batch_execute("CREATE DATABASE app").await.expect("a database");
        let target = cluster.admin().with_database("app");
        let admin = session(&target).await;
        let password = obyra_postgres::quote::literal(PASSWORD);
        admin
            .batch_execute(&format!(
                "CREATE ROLE owner NOLOGIN; CREATE ROLE reader; CREATE ROLE migrator LOGIN {inherits} PASSWORD {password};
                 GRANT owner TO migrator{options};
                 ALTER ROLE migrator IN DATABASE app SET role = 'owner';
                 ALTER ROLE migrator IN DATABASE app SET search_path = 'app';
                 CREATE SCHEMA app AUTHORIZATION owner;"
            ))
            .await
            .expect("roles");
        let target = target.with_role("migrator", Some(PASSWORD.into()));
        Database { cluster, admin, target }
    }

    /// Another session of the administrator.
    pub async fn another(&self) -> Session {
        session(&self.cluster.admin().with_database("app")).await
    }

    pub async fn deploy(&self, project: &Project) -> Result<Deployed, Failure> {
        self.deploy_with(project, &mut Unconverged, &Quiet).await
    }

    pub async fn deploy_with(
        &self,
        project: &Project,
        converge: &mut impl Converge,
        progress: &dyn Progress,
    ) -> Result<Deployed, Failure> {
        let python = python().await;
        let deployment = Deployment { work: self.work(project, &python), admin: &self.admin };
        deploy(&deployment, converge, progress).await
    }

    pub fn work<'a>(&'a self, project: &'a Project, python: &'a PythonEnvironment) -> Workplace<'a> {
        Workplace {
            policy: &project.policy,
            project: project.path(),
            python,
            target: Some(&self.target),
            hidden_variables: &[],
        }
    }

    /// Whether a relation exists for others.
    pub async fn has(&self, relation: &str) -> bool {
        exists(&self.admin, relation).await
    }

    /// The migration's backends that are still there.
    pub async fn migrators(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'migrator'";
        self.admin.query_one(sql, &[]).await.expect("pg_stat_activity").get(0)
    }
}

pub async fn session(target: &Conninfo) -> Session {
    Session::connect(target, Limits::default()).await.expect("a session")
}

pub async fn exists(session: &Session, relation: &str) -> bool {
    session.query_one("SELECT to_regclass($1) IS NOT NULL", &[&relation]).await.expect("an answer").get(0)
}

/// Remembers the notes.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _: Message, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn done(&self) {}
    fn note(&self, what: Message) {
        self.0.lock().expect("one thread").push(what.to_string());
    }
}

/// The code of a failure's message.
pub fn code(failure: &Failure) -> &'static str {
    failure.what.code().id()
}

/// The code of a failure's mend.
pub fn mend(failure: &Failure) -> &'static str {
    failure.mend.as_ref().map_or("", |mend| mend.code().id())
}

/// The file and line of a failure, below the project's folder.
pub fn place(project: &Project, failure: &Failure) -> String {
    let place = failure.at.as_ref().expect("a place");
    let file: PathBuf = place.file.strip_prefix(project.path()).unwrap_or(&place.file).to_owned();
    format!("{}:{}", file.display(), place.line)
}
