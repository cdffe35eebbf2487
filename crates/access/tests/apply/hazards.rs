//! The hazards of PostgreSQL's privileges, one test each; what they have in common is in `model`.

use obyra_access::plan_objects_as_owner;

use crate::support::{Admin, MODEL, World, finds, model_with, policy, statements};

/// Whoever creates a role on PostgreSQL 16 may administer it and no more; the grant to itself that
/// is needed is made when something needs it, and is no drift afterwards.
#[tokio::test]
async fn an_administrator_grants_itself_what_it_needs_and_only_then() {
    for world in World::all().await.into_iter().filter(|w| w.who == Admin::Master) {
        let policy = world.model().await;
        let edges = "SELECT count(*) FROM pg_auth_members WHERE member = 'master'::regrole AND roleid = 'obyra_owner'::regrole";
        assert_eq!(world.one(edges).await, if world.major >= 16 { "2" } else { "1" });
        assert_eq!(world.plan(&policy).await.steps, []);
        world
            .sql(match world.major {
                16.. => "GRANT obyra_owner TO master WITH INHERIT FALSE, SET FALSE GRANTED BY master",
                _ => "REVOKE obyra_owner FROM master",
            })
            .await;
        assert_eq!(world.plan(&policy).await.steps, [], "nothing needs it");
        world.sql("REVOKE SELECT ON app.\"order\" FROM obyra_readonly").await;
        let plan = world.converge(&policy).await;
        assert!(statements(&plan).contains("GRANT obyra_owner TO CURRENT_USER"), "{}", statements(&plan));
    }
}

/// `NOSUPERUSER` is refused even where it changes nothing.
#[tokio::test]
async fn only_differing_attributes_are_stated() {
    for world in World::all().await {
        let mut policy = world.model().await;
        policy.roles.get_mut("obyra_app").unwrap().connection_limit = Some(7);
        let plan = world.converge(&policy).await;
        assert_eq!(statements(&plan), "ALTER ROLE obyra_app CONNECTION LIMIT 7");
    }
}

/// What another grantor gave is revoked as that grantor; anything else would do nothing.
#[tokio::test]
async fn grants_of_other_grantors_go_too() {
    for world in World::all().await {
        let more = "\"table app.order\" = { obyra_app = [\"SELECT WITH GRANT OPTION\"] }\n";
        let policy = world.model().await;
        let loose = model_with("authoritative", more);
        world.converge(&loose).await;
        world.sql("CREATE ROLE guest; CREATE ROLE friend").await;
        if world.who == Admin::Master {
            world.sql("GRANT obyra_app TO master").await;
        }
        // Granted on by a role that may grant on.
        world.as_role("obyra_app", "GRANT SELECT ON app.\"order\" TO guest").await;
        let plan = world.plan(&loose).await;
        assert!(statements(&plan).contains("SET LOCAL ROLE obyra_app\nREVOKE"), "{}", statements(&plan));
        world.converge(&loose).await;
        assert_eq!(
            world.one("SELECT has_table_privilege('guest', 'app.\"order\"', 'SELECT')").await,
            "false"
        );
        // When the grant option itself goes, everything that hangs from it goes along.
        world.as_role("obyra_app", "GRANT SELECT ON app.\"order\" TO guest").await;
        let plan = world.converge(&policy).await;
        assert!(statements(&plan).contains("CASCADE"), "{}", statements(&plan));
        assert_eq!(
            world.one("SELECT has_table_privilege('guest', 'app.\"order\"', 'SELECT')").await,
            "false"
        );
    }
}

/// The server accepts a GRANT on a database from who does not own it, with a warning, and does
/// nothing. That is found before COMMIT.
#[tokio::test]
async fn a_grant_without_effect_is_rolled_back() {
    let world = World::start(Admin::Master).await;
    world.sql("ALTER DATABASE obras OWNER TO postgres; GRANT CREATE ON DATABASE obras TO master").await;
    let policy = policy(MODEL);
    let plan = world.plan(&policy).await;
    assert!(finds(&plan, "access.grant-needed"), "{:?}", plan.findings);
    let failure = world.apply(&policy, &plan).await.unwrap_err();
    assert_eq!(failure.what.code().id(), "access.without-effect", "{failure}");
    assert!(failure.mend.unwrap().to_string().contains("GRANT postgres TO master"));
    assert_eq!(world.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'obyra%'").await, "0");
}

/// No stored list means PostgreSQL's default, which lets everybody call routines. Taking that back
/// for one schema would do nothing.
#[tokio::test]
async fn routines_are_closed_to_public_now_and_later() {
    for world in World::all().await {
        let policy = world.model().await;
        world.sql("CREATE ROLE guest; GRANT USAGE ON SCHEMA app TO guest").await;
        world
            .as_role(
                "obyra_migrate",
                "SET ROLE obyra_owner; CREATE FUNCTION app.later() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            )
            .await;
        for routine in ["app.twice(int, app.mood)", "app.later()"] {
            let query = format!("SELECT has_function_privilege('guest', '{routine}', 'EXECUTE')");
            assert_eq!(world.one(&query).await, "false", "{routine}");
        }
        world.as_role("obyra_readonly", "SELECT app.later()").await;
        let plan = world.plan(&policy).await;
        assert_eq!(statements(&plan), "REVOKE USAGE ON SCHEMA app FROM guest");
    }
}

/// Revoking from a table wipes its columns; revoking from a column under a table's grant does
/// nothing; dropped columns keep their lists; new columns stay closed.
#[tokio::test]
async fn columns_of_sensitive_tables() {
    for world in World::all().await {
        let policy = world.model().await;
        world.sql("GRANT SELECT ON app.users TO obyra_readonly; GRANT SELECT (name) ON app.users TO obyra_readonly").await;
        world.converge(&policy).await;
        let reads = |column: &str| {
            format!("SELECT has_column_privilege('obyra_readonly', 'app.users', '{column}', 'SELECT')")
        };
        assert_eq!(world.one(&reads("email")).await, "true");
        assert_eq!(world.one(&reads("name")).await, "false");
        world.sql("GRANT SELECT (name) ON app.users TO obyra_readonly; ALTER TABLE app.users DROP COLUMN name; ALTER TABLE app.users ADD COLUMN token text").await;
        assert_eq!(world.plan(&policy).await.steps, []);
        assert_eq!(world.one(&reads("token")).await, "false");
        world.sql("ALTER TABLE app.users RENAME email TO mail").await;
        let plan = world.plan(&policy).await;
        assert!(finds(&plan, "access.column-missing"));
        assert_eq!(statements(&plan), "REVOKE SELECT (mail) ON TABLE app.users FROM obyra_readonly");
    }
}

/// Dropped and created again, a sensitive table is as open as default privileges make it. The
/// migration closes it itself, before its COMMIT, as the owner.
#[tokio::test]
async fn a_recreated_sensitive_table_is_closed_before_anybody_sees_it() {
    for world in World::all().await {
        let policy = world.model().await;
        let migrate = world.login("obyra_migrate").await;
        migrate
            .batch_execute("BEGIN; DROP TABLE app.users; CREATE TABLE app.users (id int, email text, password_hash text)")
            .await
            .unwrap();
        let observed = obyra_access::observe(&migrate, &policy, &world.target).await.unwrap();
        let plan = plan_objects_as_owner(&policy, &world.target, &observed);
        assert_eq!(
            statements(&plan),
            "REVOKE SELECT ON TABLE app.users FROM obyra_readonly\nGRANT SELECT (email, id) ON TABLE app.users TO obyra_readonly"
        );
        for step in &plan.steps {
            migrate.batch_execute(&step.sql.join("; ")).await.unwrap();
        }
        migrate.batch_execute("COMMIT").await.unwrap();
        assert_eq!(world.plan(&policy).await.steps, []);
        assert!(world.try_as("obyra_readonly", "SELECT password_hash FROM app.users").await.is_err());
    }
}

/// `CREATE SCHEMA IF NOT EXISTS` needs the right to create even where the schema exists.
#[tokio::test]
async fn the_migration_role_cannot_create_schemas() {
    let world = World::start(Admin::Superuser).await;
    world.model().await;
    let session = world.login("obyra_migrate").await;
    assert!(session.batch_execute("CREATE SCHEMA IF NOT EXISTS app").await.is_err());
    let more = "[roles.obyra_owner]\ndatabase = [\"CREATE\"]\n";
    world.converge(&model_with("authoritative", more)).await;
    session.batch_execute("CREATE SCHEMA IF NOT EXISTS app").await.unwrap();
}

/// The names that an existing deployment uses are adopted, and the old roles retired without
/// losing what they own.
#[tokio::test]
async fn old_roles_are_retired_without_orphans() {
    for world in World::all().await {
        world
            .sql("CREATE ROLE app_owner; CREATE ROLE app_ro LOGIN; CREATE SCHEMA app AUTHORIZATION app_owner")
            .await;
        world.sql("SET ROLE app_owner; CREATE TABLE app.users (id serial, email text); CREATE VIEW app.v AS SELECT 1; GRANT SELECT ON app.users TO app_ro; RESET ROLE").await;
        world.sql("GRANT USAGE ON SCHEMA app TO app_ro; CREATE SCHEMA other AUTHORIZATION app_owner; GRANT CREATE ON DATABASE obras TO app_owner").await;
        if world.who == Admin::Master {
            world.sql("GRANT app_owner, app_ro TO master WITH ADMIN OPTION").await;
        }
        let refused = model_with("authoritative", "[retired]\napp_owner = {}\napp_ro = {}\n");
        let plan = world.plan(&refused).await;
        assert!(finds(&plan, "access.retired-owns"), "{:?}", plan.findings);
        assert!(!statements(&plan).contains("DROP ROLE app_owner"));
        let policy = model_with(
            "authoritative",
            "[retired]\napp_owner = { reassign_to = \"obyra_owner\" }\napp_ro = {}\n",
        );
        world.converge(&policy).await;
        assert_eq!(world.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'app%'").await, "0");
        let owners = "SELECT string_agg(DISTINCT nspowner::regrole::text, ',') FROM pg_namespace WHERE nspname IN ('app', 'other')";
        assert_eq!(world.one(owners).await, "obyra_owner");
    }
}

/// A retired role that other databases still know is refused.
#[tokio::test]
async fn a_role_that_other_databases_know_is_not_dropped() {
    let world = World::start(Admin::Superuser).await;
    world.sql("CREATE ROLE old; GRANT CONNECT ON DATABASE postgres TO old").await;
    world.sql("GRANT SELECT ON pg_catalog.pg_class TO old").await;
    let policy = policy("owner = \"obyra_owner\"\n[retired]\nold = {}\n");
    world.converge(&policy).await;
    assert_eq!(world.one("SELECT count(*) FROM pg_roles WHERE rolname = 'old'").await, "0");
    world.sql("CREATE ROLE old").await;
    let elsewhere = world.elsewhere("template1").await;
    elsewhere
        .batch_execute(
            "CREATE TABLE public.belongs_to_old (); ALTER TABLE public.belongs_to_old OWNER TO old",
        )
        .await
        .unwrap();
    let plan = world.plan(&policy).await;
    assert!(finds(&plan, "access.retired-elsewhere"), "{:?}", plan.findings);
    assert!(plan.is_empty());
}

/// What the console of a provider creates is mightier than it looks; by SQL it is exactly as declared.
#[tokio::test]
async fn an_administrator_is_made_with_the_providers_own_role() {
    let world = World::start(Admin::Master).await;
    let policy = model_with("authoritative", "[roles.obyra_admin]\nkind = \"admin\"\n");
    world.converge(&policy).await;
    let row = world.one("SELECT concat(rolsuper, rolcreaterole, rolcreatedb, pg_has_role(oid, 'rds_superuser', 'MEMBER'), has_database_privilege(oid, 'obras', 'CONNECT')) FROM pg_roles WHERE rolname = 'obyra_admin'").await;
    assert_eq!(row, "ftttt");
    let world = World::start(Admin::Superuser).await;
    world.converge(&policy).await;
    assert_eq!(world.one("SELECT rolsuper FROM pg_roles WHERE rolname = 'obyra_admin'").await, "true");
}

/// Extensions' objects keep what their scripts gave; odd names are quoted everywhere.
#[tokio::test]
async fn extensions_are_left_alone_and_odd_names_survive() {
    for world in World::all().await {
        world.model().await;
        world.sql("CREATE EXTENSION pg_stat_statements SCHEMA app").await;
        world.sql("CREATE ROLE \"Odd \"\"Rôle\"\", =x/y\"; GRANT SELECT ON app.\"order\" TO \"Odd \"\"Rôle\"\", =x/y\"").await;
        world.as_role("obyra_migrate", "SET ROLE obyra_owner; CREATE TABLE app.\"Odd.\"\"Table\"\" \" (\"a b\" int, \"c\"\"d\" int); CREATE TYPE app.\"char\" AS ENUM (); CREATE FUNCTION app.\"F\"(\"char\", app.\"char\"[], VARIADIC int[]) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE app.p(INOUT x int) LANGUAGE plpgsql AS 'BEGIN END'; CREATE AGGREGATE app.total(int) (sfunc = int4pl, stype = int)").await;
        let more = "\"table app.\\\"Odd.\\\"\\\"Table\\\"\\\" \\\"\" = { obyra_readonly = ['SELECT (\"a b\", \"c\"\"d\")'] }\n";
        let plan = world.converge(&model_with("authoritative", more)).await;
        let sql = statements(&plan);
        assert!(!sql.contains("pg_stat_statements"), "{sql}");
        assert!(
            sql.contains("GRANT SELECT (\"a b\", \"c\"\"d\") ON TABLE app.\"Odd.\"\"Table\"\" \""),
            "{sql}"
        );
        world.sql("DROP ROLE \"Odd \"\"Rôle\"\", =x/y\"").await;
    }
}

/// Settings hold from the next login on, for the role that logs in, and are compared by meaning.
#[tokio::test]
async fn settings_of_sessions() {
    for world in World::all().await {
        world.model().await;
        let session = world.login("obyra_migrate").await;
        let role: String = session.query_one("SHOW role", &[]).await.unwrap().get(0);
        let path: String = session.query_one("SHOW search_path", &[]).await.unwrap().get(0);
        assert_eq!((role.as_str(), path.as_str()), ("obyra_owner", "app"));
        // Only a superuser may give a role settings that no extension has announced.
        let tenant = if world.who == Admin::Superuser { r#""app.Tenant" = "a\\b'c","# } else { "" };
        let policy = model_with(
            "authoritative",
            &format!(
                "[roles.other]\nsearch_path = [\"app\", \"audit\", \"app\", \"nowhere\"]\n\
                 settings = {{ {tenant} work_mem = 65536 }}\n"
            ),
        );
        world.converge(&policy).await;
        let config = "SELECT setconfig::text FROM pg_db_role_setting WHERE setrole = 'other'::regrole";
        let tenant = if world.who == Admin::Superuser { "\"app.tenant=a\\\\b'c\"," } else { "" };
        let expected = format!("{{{tenant}\"search_path=app, audit\",work_mem=65536}}");
        assert_eq!(world.one(config).await, expected);
    }
}

/// Nobody is locked out without being named, the administrator not at all.
#[tokio::test]
async fn who_loses_connect_is_named() {
    for world in World::all().await {
        world.sql("CREATE ROLE reporting LOGIN").await;
        if world.who == Admin::Master {
            world.sql("ALTER DATABASE obras OWNER TO postgres; GRANT postgres TO master").await;
        }
        let policy = policy(MODEL);
        let plan = world.plan(&policy).await;
        assert!(finds(&plan, "access.locked-out"));
        let finding = plan.findings.iter().find(|f| f.message.code().id() == "access.locked-out").unwrap();
        assert_eq!(finding.message.fields()["roles"], "reporting");
    }
}
