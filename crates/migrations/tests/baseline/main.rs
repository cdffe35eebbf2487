//! The baseline on real servers and with a real Alembic: what it writes, what it proves, what it refuses.

mod files;
mod input;
mod proof;
mod stamp;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use obyra_evidence::{Failure, Quiet};
use obyra_migrations::PythonSearch;
use obyra_migrations::baseline::{Chain, Draft, Order, Site, Truth, compare, draft};
use obyra_postgres::cluster::{Search, cache_for_tests};
use obyra_postgres::{Conninfo, Limits, Session};
use support::{Project, python};

const PASSWORD: &str = "s3cr3t of the baseline";

/// The roles, schemas and extensions that a strategy would give the database.
pub(crate) struct Roles {
    /// Before PostgreSQL 16 the member says whether it inherits.
    pub(crate) major: u32,
}

impl Site for Roles {
    async fn prepare(&mut self, database: &Conninfo) -> Result<Conninfo, Failure> {
        let session = Session::connect(database, Limits::default()).await?;
        let (inherits, options) =
            if self.major < 16 { ("NOINHERIT", "") } else { ("INHERIT", " WITH INHERIT FALSE, SET TRUE") };
        let roles = format!(
            "DO $$ BEGIN
               CREATE ROLE owner NOLOGIN; CREATE ROLE reader;
               CREATE ROLE migrator LOGIN {inherits} PASSWORD '{PASSWORD}';
               GRANT owner TO migrator{options};
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE migrator IN DATABASE app SET role = 'owner';
             ALTER ROLE migrator IN DATABASE app SET search_path = 'app';
             GRANT CREATE ON DATABASE app TO owner;
             CREATE SCHEMA IF NOT EXISTS app; ALTER SCHEMA app OWNER TO owner;
             CREATE SCHEMA IF NOT EXISTS audit; ALTER SCHEMA audit OWNER TO owner;
             CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
             CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;"
        );
        session.batch_execute(&roles).await.expect("roles");
        Ok(database.with_role("migrator", Some(PASSWORD.into())))
    }
}

/// What an order borrows.
pub(crate) struct Parts {
    python: PythonSearch,
    postgres: Search,
    major: u32,
}

impl Parts {
    pub(crate) async fn of(project: &Project, major: u32) -> Parts {
        python().await;
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        let python = PythonSearch {
            project: project.path().to_owned(),
            cache: cache_for_tests(),
            configured: None,
            activated: None,
            requirements: support.join("requirements.txt"),
        };
        let postgres = Search { bin_dir: None, cache: cache_for_tests(), major };
        Parts { python, postgres, major }
    }

    pub(crate) async fn draft(&self, project: &Project, truth: &Truth) -> Result<Draft, Failure> {
        let schemas = ["app".to_owned(), "audit".to_owned()];
        let mut site = Roles { major: self.major };
        draft(&self.order(project, &schemas), truth, "the schema as it is", &mut site, &Quiet).await
    }

    pub(crate) async fn compare(
        &self,
        project: &Project,
        chain: Chain<'_>,
        live: &Conninfo,
    ) -> Result<Vec<String>, Failure> {
        let schemas = ["app".to_owned(), "audit".to_owned()];
        let mut site = Roles { major: self.major };
        let found = compare(&self.order(project, &schemas), chain, live, &mut site, &Quiet).await?;
        let told = |each: &obyra_evidence::Finding| format!("{} {}", each.message.code().id(), each.subject);
        Ok(found.iter().map(told).collect())
    }

    fn order<'a>(&'a self, project: &'a Project, schemas: &'a [String]) -> Order<'a> {
        Order {
            policy: &project.policy,
            project: project.path(),
            python: &self.python,
            postgres: &self.postgres,
            hidden_variables: &[],
            database: "app",
            schemas,
            without: &[],
        }
    }
}

/// The draft of a script of SQL, on PostgreSQL 16.
pub(crate) async fn drafted(project: &Project, sql: &str) -> Result<Draft, Failure> {
    let file = project.path().join("schema.sql");
    std::fs::write(&file, sql).expect("a script");
    Parts::of(project, 16).await.draft(project, &Truth::Dump(file)).await
}

/// The findings of a draft as `code subject`.
pub(crate) fn told(draft: &Draft) -> Vec<String> {
    let told = |each: &obyra_evidence::Finding| format!("{} {}", each.message.code().id(), each.subject);
    draft.findings.iter().map(told).collect()
}

/// The superuser's connection to a test's database.
pub(crate) fn superuser(database: &support::Database) -> Conninfo {
    database.cluster.admin().with_database("app")
}
