//! What no strategy can express, other servers, and a target that has names of its own.

use std::collections::BTreeMap;

use obyra_access::policy::Mode;
use obyra_access::{Policy, Provider, Target, import, observe, target_of};
use obyra_evidence::Language;
use obyra_postgres::cluster::for_tests_version;

use crate::support::{Database, faithful, imported, planned, session, statements};

#[tokio::test]
async fn what_cannot_be_said_is_said_and_taken_from_nobody() {
    let database = Database::empty().await;
    database
        .run(&[
            r#"CREATE ROLE "PUBLIC" LOGIN"#,
            "CREATE ROLE helper LOGIN",
            "GRANT postgres TO helper",
            "ALTER ROLE helper IN DATABASE shop SET app.jwt_secret = 'hunter2'",
            "CREATE TABLE t (id int)",
            r#"GRANT SELECT ON t TO "PUBLIC""#,
        ])
        .await;
    let (imported, target) = imported(&database.admin).await;
    assert_eq!(imported.policy.check(), []);
    assert_eq!(imported.policy.mode, Mode::Adopt);
    assert!(imported.proven);
    assert!(!imported.toml.contains("hunter2"), "{}", imported.toml);
    let codes: Vec<&str> = imported.findings.iter().map(|f| f.message.code().id()).collect();
    for code in [
        "import-mode",
        "import-name-reserved",
        "import-not-empty",
        "import-secret-setting",
        "import-superuser",
    ] {
        assert!(codes.contains(&format!("access.{code}").as_str()), "{code} is not among {codes:?}");
    }
    assert!(imported.toml.lines().filter(|line| line.starts_with('#')).count() >= imported.findings.len());
    assert!(imported.toml_in(Language::Es).contains("no se escribe"));
    let plan = planned(&database.admin, &imported.policy, &target).await;
    assert_eq!(statements(&plan), [""; 0], "{}", imported.toml);
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_empty_database_takes_a_few_lines() {
    let database = Database::empty().await;
    let (imported, _) = faithful(&database.admin).await;
    assert!(imported.toml.lines().count() <= 8, "{}", imported.toml);
}

#[tokio::test]
async fn a_target_gives_the_schemas_their_names() {
    let database = Database::empty().await;
    database
        .run(&[
            "CREATE ROLE owner NOLOGIN; CREATE ROLE app LOGIN; CREATE ROLE outsider NOLOGIN",
            "CREATE SCHEMA main AUTHORIZATION owner; CREATE SCHEMA elsewhere",
            "SET ROLE owner; CREATE TABLE main.users (id int, secret text); CREATE TABLE main.plain (id int);
             GRANT USAGE ON SCHEMA main TO app; GRANT SELECT ON main.plain TO app;
             GRANT SELECT (id) ON main.users TO app;
             ALTER DEFAULT PRIVILEGES IN SCHEMA main GRANT SELECT ON TABLES TO app",
            "RESET ROLE; ALTER ROLE app IN DATABASE shop SET search_path = main",
            "CREATE TABLE elsewhere.t (id int); GRANT SELECT ON elsewhere.t TO outsider",
        ])
        .await;
    let target = Target {
        database: "shop".to_owned(),
        schemas: BTreeMap::from([("app".to_owned(), "main".to_owned())]),
        provider: Provider::SelfHosted,
    };
    let observed = observe(&database.admin, &Policy::default(), &target).await.unwrap();
    let policy = import(&observed, &target, Mode::Authoritative).policy;
    assert_eq!(policy.owner.as_deref(), Some("owner"));
    assert!(!policy.roles.contains_key("outsider"));
    let app = &policy.roles["app"];
    assert_eq!((app.schemas["app"].as_str(), app.search_path[0].as_str()), ("read-tables", "app"));
    assert_eq!(policy.sensitive["app.users"]["app"], ["id"]);
    let plan = planned(&database.admin, &policy, &target).await;
    assert_eq!(statements(&plan), [""; 0]);
}

#[tokio::test]
async fn the_roles_give_the_provider_away() {
    let database = Database::empty().await;
    database.run(&["CREATE ROLE rds_superuser NOLOGIN", "CREATE ROLE rdsadmin LOGIN SUPERUSER"]).await;
    database.run(&["CREATE ROLE master LOGIN", "GRANT rds_superuser TO master", "CREATE SCHEMA app"]).await;
    database.run(&["GRANT USAGE ON SCHEMA app TO rds_superuser", "ALTER SCHEMA app OWNER TO rdsadmin"]).await;
    let observed = observe(&database.admin, &Policy::default(), &Target::default()).await.unwrap();
    assert_eq!(target_of(&observed).provider, Provider::Rds);
    let (imported, _) = faithful(&database.admin).await;
    assert!(imported.toml.contains("the role rdsadmin is not written"), "{}", imported.toml);
    assert!(imported.policy.roles.keys().all(|role| !role.starts_with("rds")), "{}", imported.toml);
}

/// Before PostgreSQL 16 a membership has no options of its own, and nobody remembers its grantor.
#[tokio::test]
async fn older_and_newer_servers_are_imported() {
    for major in [14, 15, 17, 18] {
        let cluster = for_tests_version(major).await;
        let admin = session(&cluster.admin()).await;
        let build = "CREATE ROLE owner NOLOGIN; CREATE ROLE reader NOLOGIN; CREATE ROLE closed LOGIN NOINHERIT;
             CREATE ROLE person LOGIN; GRANT reader TO person WITH ADMIN OPTION; GRANT owner, reader TO closed;
             CREATE SCHEMA app AUTHORIZATION owner; CREATE TABLE app.t (id serial, a text);
             ALTER TABLE app.t OWNER TO owner; GRANT ALL ON app.t TO person; GRANT USAGE ON SCHEMA app TO reader;
             GRANT SELECT (a) ON app.t TO reader; ALTER ROLE closed IN DATABASE postgres SET role = 'owner'";
        admin.batch_execute(build).await.unwrap();
        if major >= 17 {
            admin.batch_execute("GRANT MAINTAIN ON app.t TO closed WITH GRANT OPTION").await.unwrap();
        }
        let (imported, _) = faithful(&admin).await;
        assert_eq!(imported.policy.sensitive["app.t"]["reader"], ["a"]);
        assert_eq!(imported.toml.contains("MAINTAIN WITH GRANT OPTION"), major >= 17, "{}", imported.toml);
    }
}
