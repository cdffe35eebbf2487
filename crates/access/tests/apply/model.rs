//! The recommended model: converge an empty database, migrate, converge again, and look at who
//! may do what.

use std::collections::BTreeMap;

use obyra_access::Phase;
use obyra_postgres::secrecy::SecretString;

use crate::support::{Admin, MODEL, TABLES, World, policy, statements};

#[tokio::test]
async fn an_empty_database_comes_to_the_model_and_stays_there() {
    for world in World::every().await {
        let policy = world.model().await;
        let app = |sql: &'static str| world.try_as("obyra_app", sql);
        app("SELECT * FROM app.users; INSERT INTO app.users (email) VALUES ('a'); DELETE FROM app.\"order\"")
            .await
            .unwrap();
        app("INSERT INTO audit.log (what) VALUES ('x')").await.unwrap();
        app("SELECT app.twice(1, 'good')").await.unwrap();
        app("SELECT * FROM app.alembic_version").await.unwrap();
        assert!(app("SELECT * FROM audit.log").await.is_err());
        assert!(app("DELETE FROM app.alembic_version").await.is_err());
        assert!(app("CREATE TABLE app.mine ()").await.is_err());
        assert_eq!(app("CREATE TABLE public.mine ()").await.is_ok(), world.leaves_public_open());
        assert!(app("CREATE TEMP TABLE mine ()").await.is_err());
        let readonly = |sql: &'static str| world.try_as("obyra_readonly", sql);
        readonly("SELECT id, email FROM app.users; SELECT * FROM app.totals, app.summary").await.unwrap();
        assert!(readonly("SELECT password_hash FROM app.users").await.is_err());
        assert!(readonly("SELECT * FROM app.payments").await.is_err());
        assert!(readonly("INSERT INTO app.\"order\" VALUES (1)").await.is_err());
        assert_eq!(world.plan(&policy).await.steps, []);
    }
}

/// The whole plan for an empty database, as a person reads it before approving.
const FIRST_PLAN: &str = "\
CREATE ROLE obyra_app LOGIN CONNECTION LIMIT 60
CREATE ROLE obyra_migrate LOGIN
CREATE ROLE obyra_owner NOLOGIN
CREATE ROLE obyra_readonly LOGIN
GRANT obyra_app TO obyra_migrate WITH ADMIN FALSE, INHERIT TRUE, SET TRUE
GRANT obyra_owner TO obyra_migrate WITH ADMIN FALSE, INHERIT FALSE, SET TRUE
ALTER ROLE obyra_app IN DATABASE obras SET idle_in_transaction_session_timeout = '60s'
ALTER ROLE obyra_app IN DATABASE obras SET search_path = 'app'
ALTER ROLE obyra_migrate IN DATABASE obras SET role = 'obyra_owner'
ALTER ROLE obyra_migrate IN DATABASE obras SET search_path = 'app'
ALTER ROLE obyra_readonly IN DATABASE obras SET default_transaction_read_only = 'on'
REVOKE CONNECT, TEMPORARY ON DATABASE obras FROM PUBLIC
GRANT CONNECT ON DATABASE obras TO obyra_app
GRANT CONNECT ON DATABASE obras TO obyra_migrate
GRANT CONNECT ON DATABASE obras TO obyra_readonly
CREATE SCHEMA analytics AUTHORIZATION obyra_owner
CREATE SCHEMA app AUTHORIZATION obyra_owner
CREATE SCHEMA audit AUTHORIZATION obyra_owner
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA analytics GRANT SELECT ON TABLES TO obyra_readonly
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA analytics GRANT EXECUTE ON ROUTINES TO obyra_readonly
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO obyra_app
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT SELECT ON TABLES TO obyra_readonly
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT USAGE ON SEQUENCES TO obyra_app
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT EXECUTE ON ROUTINES TO obyra_app
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT EXECUTE ON ROUTINES TO obyra_readonly
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA audit GRANT INSERT ON TABLES TO obyra_app
ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA audit GRANT USAGE ON SEQUENCES TO obyra_app
GRANT USAGE ON SCHEMA analytics TO obyra_readonly
GRANT USAGE ON SCHEMA app TO obyra_app
GRANT USAGE ON SCHEMA app TO obyra_readonly
GRANT USAGE ON SCHEMA audit TO obyra_app
";

#[tokio::test]
async fn the_first_plan_says_it_all() {
    let world = World::start(Admin::Superuser).await;
    assert_eq!(format!("{}\n", statements(&world.plan(&policy(MODEL)).await)), FIRST_PLAN);
}

#[tokio::test]
async fn unmodified_migrations_create_what_belongs_to_the_owner() {
    for world in World::all().await {
        world.converge(&policy(MODEL)).await;
        let session = world.login("obyra_migrate").await;
        session
            .batch_execute("CREATE TABLE t (id serial); RESET ALL; RESET ROLE; CREATE TABLE u ()")
            .await
            .unwrap();
        let owners = "SELECT string_agg(tablename || ' ' || tableowner, ',' ORDER BY 1) FROM pg_tables \
                      WHERE schemaname = 'app'";
        assert_eq!(world.one(owners).await, "t obyra_owner,u obyra_owner");
        // Usable at once, without another apply.
        world.as_role("obyra_app", "INSERT INTO app.t DEFAULT VALUES").await;
        world.as_role("obyra_readonly", "SELECT * FROM app.t").await;
        session.batch_execute("SET ROLE none").await.unwrap();
        assert!(session.batch_execute("CREATE TABLE app.v ()").await.is_err(), "it fails closed");
    }
}

#[tokio::test]
async fn passwords_reach_the_server_as_verifiers_only() {
    for who in [Admin::Superuser, Admin::Master] {
        let world = World::start(who).await;
        let policy = policy(MODEL);
        let plan = world.plan(&policy).await;
        let passwords = BTreeMap::from([("obyra_app".to_owned(), SecretString::from("plain-text-password"))]);
        let applied = world.apply_with(&world.admin, &policy, &plan, &passwords).await.unwrap();
        assert_eq!(applied.passwords, ["obyra_app"]);
        assert!(applied.verified > 10, "{applied:?}");
        let stored = world.one("SELECT rolpassword FROM pg_authid WHERE rolname = 'obyra_app'").await;
        assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%plain-text%' AND pid <> pg_backend_pid()";
        assert_eq!(world.one(seen).await, "0");
        assert!(!format!("{applied:?} {plan:?}").contains("plain-text"));
    }
}

#[tokio::test]
async fn everything_drifts_and_comes_back() {
    for world in World::all().await {
        let policy = world.model().await;
        let before = acls(&world).await;
        world
            .sql(
                "CREATE ROLE intruder LOGIN;
                 GRANT SELECT ON app.users TO obyra_readonly, intruder, PUBLIC;
                 GRANT SELECT (amount) ON app.payments TO obyra_readonly;
                 GRANT USAGE, CREATE ON SCHEMA app TO intruder; GRANT CREATE ON SCHEMA public TO PUBLIC;
                 REVOKE INSERT ON app.\"order\" FROM obyra_app;
                 GRANT ALL ON SEQUENCE app.users_id_seq TO obyra_readonly;
                 GRANT EXECUTE ON FUNCTION app.twice(int, app.mood) TO intruder;
                 GRANT TEMPORARY ON DATABASE obras TO PUBLIC; GRANT CREATE ON DATABASE obras TO obyra_app;
                 GRANT obyra_owner TO obyra_app; GRANT obyra_app TO intruder; GRANT pg_read_all_data TO obyra_readonly;
                 ALTER ROLE obyra_app CREATEDB; ALTER ROLE obyra_app CONNECTION LIMIT 5;
                 ALTER ROLE obyra_app IN DATABASE obras SET search_path = 'elsewhere';
                 ALTER ROLE obyra_readonly SET work_mem = '1GB';
                 ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app GRANT ALL ON TABLES TO intruder;
                 ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner GRANT EXECUTE ON ROUTINES TO PUBLIC;
                 CREATE TABLE app.stray (id int);",
            )
            .await;
        if world.major >= 16 {
            world.sql("GRANT obyra_owner TO obyra_migrate WITH INHERIT TRUE").await;
        }
        let plan = world.plan(&policy).await;
        let sql = statements(&plan);
        for part in ["intruder", "amount", "obyra_owner", "search_path", "CREATEDB", "stray", "60"] {
            assert!(sql.contains(part), "{part} in {sql}");
        }
        if world.who == Admin::Master {
            // What a superuser owns or granted cannot be taken by who is none: it is named.
            assert!(world.apply(&policy, &plan).await.is_err());
            world
                .sql(
                    "DROP TABLE app.stray; REVOKE obyra_owner FROM obyra_app; REVOKE obyra_app FROM intruder;
                     REVOKE pg_read_all_data FROM obyra_readonly; ALTER ROLE obyra_app NOCREATEDB;
                     ALTER DEFAULT PRIVILEGES FOR ROLE obyra_owner IN SCHEMA app REVOKE ALL ON TABLES FROM intruder",
                )
                .await;
            if world.major >= 16 {
                world.sql("REVOKE obyra_owner FROM obyra_migrate GRANTED BY postgres").await;
            }
        }
        world.converge(&policy).await;
        world.sql("DROP TABLE IF EXISTS app.stray").await;
        assert_eq!(acls(&world).await, before);
        world.sql("DROP OWNED BY intruder; DROP ROLE intruder").await;
    }
}

/// Everything that says who may do what, as text.
async fn acls(world: &World) -> String {
    world
        .one(
            "SELECT concat_ws(E'\\n',
               (SELECT string_agg(relname || ' ' || relacl::text, E'\\n' ORDER BY relname) FROM pg_class
                 WHERE relnamespace::regnamespace::text IN ('app', 'audit')),
               (SELECT string_agg(attname || ' ' || attacl::text, E'\\n' ORDER BY attname) FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16383),
               (SELECT string_agg(proname || ' ' || proacl::text, ',') FROM pg_proc WHERE pronamespace::regnamespace::text = 'app'),
               (SELECT string_agg(nspname || ' ' || nspacl::text, ',' ORDER BY nspname) FROM pg_namespace WHERE nspname IN ('app', 'audit', 'public')),
               (SELECT string_agg(setconfig::text, ',' ORDER BY setrole::regrole::text) FROM pg_db_role_setting),
               (SELECT string_agg(defaclacl::text, ',' ORDER BY defaclobjtype, defaclnamespace, defaclacl::text) FROM pg_default_acl))",
        )
        .await
}

#[tokio::test]
async fn the_order_of_phases_holds() {
    let world = World::start(Admin::Superuser).await;
    world.sql(&format!("CREATE SCHEMA app; CREATE SCHEMA audit; {TABLES}")).await;
    let policy = policy(MODEL);
    let plan = world.converge(&policy).await;
    let phases: Vec<Phase> = plan.steps.iter().map(|s| s.phase).collect();
    assert!(phases.is_sorted(), "{phases:?}");
    assert!(phases.contains(&Phase::Owners));
    assert_eq!(
        world.one("SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('app', 'audit') AND relowner::regrole::text <> 'obyra_owner'").await,
        "0"
    );
    assert!(plan.steps.iter().all(|s| s.batch == 0));
}
