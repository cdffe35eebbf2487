//! The same commands against a server that a connection string reaches, as a superuser and as
//! the administrator that a managed provider gives: no superuser, CREATEROLE and CREATEDB.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use obyra_postgres::cluster::{TemporaryCluster, for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Reveal, Scheme, Session};
use project::{PRODUCTION as STRATEGY, Project};

/// A server with the database `obyra`, and the project that reaches it as an administrator.
struct Production {
    cluster: TemporaryCluster,
    project: Project,
}

impl Production {
    async fn with(strategy: &str) -> Production {
        let cluster = for_tests().await;
        let session = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        session
            .batch_execute("CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'm4ster-pw'")
            .await
            .unwrap();
        session.batch_execute("CREATE DATABASE obyra OWNER master").await.unwrap();
        let mut production = Production { project: Project::with(strategy), cluster };
        production.project.set("OBYRA_PRODUCTION_OBYRA_APP_PASSWORD", "app-pw-0123456789");
        production.project.set("OBYRA_PRODUCTION_OBYRA_READONLY_PASSWORD", "ro-pw-0123456789");
        production
    }

    fn superuser(&mut self) {
        let url = self.cluster.loopback().with_database("obyra");
        self.reach(&url);
    }

    fn master(&mut self) {
        let url = self
            .cluster
            .loopback()
            .with_database("obyra")
            .with_role("master", Some("m4ster-pw".to_owned().into()));
        self.reach(&url);
    }

    fn reach(&mut self, url: &Conninfo) {
        self.project.set("ADMIN_URL", url.url(Scheme::Postgresql, Reveal::Password).expose_secret());
    }

    async fn sql(&self, sql: &str) {
        let admin = self.cluster.admin().with_database("obyra");
        Session::connect(&admin, Limits::default()).await.unwrap().batch_execute(sql).await.unwrap();
    }

    async fn converges(&self) {
        let project = &self.project;
        project.run(&["plan", "production"]).ends(2).says("CREATE ROLE obyra_owner");
        project.run(&["apply", "production"]).ends(3).says("--yes");
        project.run(&["apply", "production", "--yes"]).ends(0);
        project.run(&["plan", "production"]).ends(0);

        self.sql("SET ROLE obyra_owner; CREATE TABLE app.users (id int, name text, password_hash text)")
            .await;
        project.run(&["plan", "production"]).ends(2).says("app.users").says("GRANT SELECT (id, name)");
        project.run(&["apply", "production", "--yes"]).ends(0);

        let psql = |role: &str, sql: &str| {
            let tool = self.cluster.installation().bin_dir.join("psql");
            project.run(&[
                "exec",
                "production",
                "--as",
                role,
                "--",
                tool.to_str().unwrap(),
                "-X",
                "-q",
                "-c",
                sql,
            ])
        };
        psql("obyra_readonly", "SELECT id, name FROM app.users").ends(0);
        psql("obyra_readonly", "SELECT password_hash FROM app.users").ends(1).says("permission denied");
        psql("obyra_app", "INSERT INTO app.users VALUES (1, 'a', 'h')").ends(0);
        psql("obyra_app", "CREATE TABLE app.mine (id int)").ends(1).says("permission denied");

        self.sql("SET ROLE obyra_owner; GRANT DELETE ON app.users TO obyra_readonly").await;
        project
            .run(&["plan", "production"])
            .ends(2)
            .says("REVOKE DELETE ON TABLE app.users FROM obyra_readonly");
        project.run(&["apply", "production", "--yes"]).ends(0);
        project.run(&["plan", "production"]).ends(0);
        project.run(&["check", "production"]).ends(2).says("[roles]");
        project.run(&["evidence", "verify"]).ends(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_superuser() {
    let mut production = Production::with(STRATEGY).await;
    production.superuser();
    production.converges().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_managed_administrator() {
    let mut production = Production::with(STRATEGY).await;
    production.master();
    production.converges().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_database_is_imported_and_then_unchanged() {
    let mut production = Production::with(STRATEGY).await;
    production.superuser();
    production
        .sql(
            "CREATE ROLE legacy_app LOGIN; CREATE ROLE legacy_owner; CREATE SCHEMA app AUTHORIZATION legacy_owner; \
             SET ROLE legacy_owner; CREATE TABLE app.t (id int); GRANT SELECT ON app.t TO legacy_app; \
             GRANT USAGE ON SCHEMA app TO legacy_app",
        )
        .await;
    let imported = production.project.run(&["access", "import", "--url-env", "ADMIN_URL"]).ends(0).stdout;
    assert!(imported.contains("legacy_app"), "{imported}");
    let environment = STRATEGY.split("[access]").next().unwrap();
    // The import speaks of schemas under their own names.
    let environment =
        environment.replace(r#"{ app = "app", audit = "audit" }"#, r#"{ app = "app", public = "public" }"#);
    production.project.write("obyra-db.toml", &format!("{environment}\n{imported}"));
    production.project.run(&["plan", "production"]).ends(0);
    production.sql("GRANT UPDATE ON app.t TO legacy_app").await;
    production
        .project
        .run(&["plan", "production"])
        .ends(2)
        .says("REVOKE UPDATE ON TABLE app.t FROM legacy_app");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail_say_why() {
    let mut production = Production::with(STRATEGY).await;
    let url = production.cluster.loopback().with_database("obyra");
    let wrong = url.with_password(Some("not-the-password".to_owned().into()));
    production.reach(&wrong);
    production.project.run(&["plan", "production"]).ends(1).says("password").hides("not-the-password");

    production.reach(&url);
    let missing = STRATEGY.replace("database = \"obyra\"", "database = \"nowhere\"");
    production.project.write("obyra-db.toml", &missing);
    production.project.run(&["plan", "production"]).ends(1).says("nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_is_told_what_is_missing() {
    let mut production = Production::with(STRATEGY).await;
    production.sql("CREATE ROLE nobody_much LOGIN PASSWORD 'x-0123456789'").await;
    let url = production.cluster.loopback().with_database("obyra");
    production.reach(&url.with_role("nobody_much", Some("x-0123456789".to_owned().into())));
    production
        .project
        .run(&["apply", "production", "--yes"])
        .ends(1)
        .says("CREATEROLE")
        .hides("x-0123456789");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_appears_anywhere() {
    let mut production = Production::with(STRATEGY).await;
    production.superuser();
    production.sql("CREATE EXTENSION pg_stat_statements").await;
    let secrets = ["app-pw-0123456789", "ro-pw-0123456789"];
    let mut told = String::new();
    for arguments in [
        &["plan", "production"][..],
        &["apply", "production", "--yes"],
        &["plan", "production", "--json"],
        &["check", "production", "--json"],
        &["status", "production"],
        &["url", "production", "--as", "obyra_app"],
        &["evidence", "export"],
    ] {
        let run = production.project.run(arguments);
        told += &run.stdout;
        told += &run.stderr;
    }
    let admin = production.cluster.admin().with_database("obyra");
    let session = Session::connect(&admin, Limits::default()).await.unwrap();
    let statements =
        session.query_one("SELECT string_agg(query, ' ') FROM pg_stat_statements", &[]).await.unwrap();
    told += statements.get::<_, &str>(0);
    let ledger = std::fs::read(production.project.path().join(".obyra-db/evidence.sqlite")).unwrap();
    told += &String::from_utf8_lossy(&ledger);
    for secret in secrets {
        assert!(!told.contains(secret));
    }
    let revealed = production.project.run(&["url", "production", "--as", "obyra_app", "--reveal"]).ends(0);
    revealed.says(secrets[0]);
}
