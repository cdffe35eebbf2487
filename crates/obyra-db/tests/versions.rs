//! The strategy's whole path on the versions beside PostgreSQL 16: dev on an embedded cluster, and
//! production on a server that a connection string reaches.

#![allow(clippy::unwrap_used, reason = "a test has nothing else to do")]

mod project;

use obyra_postgres::cluster::{TemporaryCluster, for_tests_version};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Limits, Reveal, Scheme, Session};
use project::{Dev, Project, application};

/// The example application, whose strategy wants this version everywhere.
fn application_on(major: u32) -> Project {
    let project = application();
    change(&project, &[("postgres_version = 16", &format!("postgres_version = {major}"))]);
    project
}

fn change(project: &Project, pairs: &[(&str, &str)]) {
    let mut strategy = std::fs::read_to_string(project.path().join("obyra-db.toml")).unwrap();
    for (from, to) in pairs {
        assert!(strategy.contains(from), "{from}");
        strategy = strategy.replace(from, to);
    }
    project.write("obyra-db.toml", &strategy);
}

#[test]
fn dev_runs_on_every_version() {
    for major in [14, 15, 17, 18] {
        let dev = Dev(application_on(major));
        dev.run(&["up", "dev", "--yes"])
            .ends(2)
            .says("isolate_organizations")
            .says(&format!("PostgreSQL {major}."));
        dev.run(&["plan", "dev"]).ends(0);
        dev.run(&["migrate", "status", "dev"]).ends(0);
        dev.run(&["seed", "status", "dev"]).ends(0);
        if major != 14 && major != 18 {
            continue;
        }
        dev.sql("GRANT UPDATE ON users TO obyra_readonly").ends(0);
        dev.run(&["plan", "dev"]).ends(2).says("REVOKE UPDATE");
        dev.run(&["apply", "dev", "--yes"]).ends(0);
        dev.run(&["plan", "dev"]).ends(0);
    }
}

/// A server with a database `obyra` that belongs to `administrator`, and the application beside it.
async fn production(major: u32, administrator: &str) -> (TemporaryCluster, Project) {
    let cluster = for_tests_version(major).await;
    let first = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
    first
        .batch_execute(
            "CREATE ROLE rds_superuser; CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'm4ster-pw'; \
             GRANT rds_superuser TO master WITH ADMIN OPTION",
        )
        .await
        .unwrap();
    first.batch_execute(&format!("CREATE DATABASE obyra OWNER {administrator}")).await.unwrap();
    let inside = Session::connect(&cluster.admin().with_database("obyra"), Limits::default()).await.unwrap();
    // A provider lets its administrators create it; PostgreSQL lets superusers alone.
    inside.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();

    let mut project = application_on(major);
    for role in ["APP", "MIGRATE", "READONLY", "ADMIN"] {
        project.set(&format!("OBYRA_PRODUCTION_OBYRA_{role}_PASSWORD"), format!("{role}-pw-0123456789"));
    }
    let mut url = cluster.loopback().with_database("obyra");
    if administrator == "master" {
        url = url.with_role("master", Some("m4ster-pw".to_owned().into()));
    } else {
        let rds = "runs_on = \"rds\"\nurl_env = \"OBYRA_PRODUCTION";
        change(&project, &[(rds, &rds.replace("rds", "self-hosted"))]);
    }
    project.set("OBYRA_PRODUCTION_ADMIN_URL", url.url(Scheme::Postgresql, Reveal::Password).expose_secret());
    (cluster, project)
}

#[tokio::test(flavor = "multi_thread")]
async fn production_reaches_the_checklist_on_the_oldest_and_the_newest() {
    for major in [14, 18] {
        for administrator in ["postgres", "master"] {
            let (cluster, project) = production(major, administrator).await;
            project.run(&["up", "production", "--yes"]).ends(2).says("isolate_organizations").says("[roles]");
            // Nothing is left to apply; an open schema that only a superuser can close stays drift.
            let open = (major, administrator) == (14, "master");
            project.run(&["plan", "production"]).ends(if open { 2 } else { 0 }).says("nothing to change");
            project.run(&["migrate", "status", "production"]).ends(0);
            project.run(&["seed", "status", "production"]).ends(0);
            project.run(&["evidence", "verify"]).ends(0);

            let psql = cluster.installation().bin_dir.join("psql");
            let psql = |role: &str, sql: &str| {
                let command =
                    ["exec", "production", "--as", role, "--", psql.to_str().unwrap(), "-X", "-q", "-c", sql];
                project.run(&command)
            };
            psql("obyra_app", "SELECT count(*) FROM users").ends(0);
            psql("obyra_readonly", "SELECT password_hash FROM users").ends(1).says("permission denied");
            psql("obyra_app", "CREATE TABLE app.mine ()").ends(1).says("permission denied");
            psql("obyra_migrate", "CREATE TABLE t (); DROP TABLE t").ends(0);

            let checked = project.run(&["check", "production"]).ends(2);
            let told = "everybody may create objects in the schema public";
            if open {
                checked.says(told).says("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
            } else {
                checked.hides(told);
            }
        }
    }
}
