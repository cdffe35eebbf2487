//! A database that grew for years: every oddity that access has.

use obyra_access::Policy;
use obyra_postgres::Session;

use crate::support::{Database, applied, faithful, planned, run, statements};

/// What a superuser and a provider's administrator can both do.
const ROLES: &[&str] = &[
    "CREATE ROLE app_owner NOLOGIN",
    "CREATE ROLE reporting_owner NOLOGIN NOINHERIT",
    "CREATE ROLE app_ro NOLOGIN",
    "CREATE ROLE app_rw NOLOGIN CONNECTION LIMIT 60",
    "CREATE ROLE web LOGIN IN ROLE app_rw",
    "CREATE ROLE bi LOGIN VALID UNTIL '2031-05-06 07:08:09+03' CONNECTION LIMIT 5 IN ROLE app_ro",
    "CREATE ROLE forever LOGIN VALID UNTIL 'infinity'",
    "CREATE ROLE migrator LOGIN",
    r#"CREATE ROLE "Odd Role" LOGIN"#,
    r#"CREATE ROLE "o'brien ""the"" \ DBA" LOGIN"#,
    r#"CREATE ROLE "user@example.com" LOGIN"#,
    r#"CREATE ROLE "café.año" NOLOGIN"#,
    r#"CREATE ROLE "public " LOGIN"#,
    "CREATE ROLE bystander NOLOGIN",
];

/// Run as an administrator that may act as the owners.
const DATABASE: &[&str] = &[
    "GRANT app_ro TO app_rw",
    r#"GRANT app_ro TO "Odd Role" WITH ADMIN OPTION"#,
    r#"GRANT "café.año" TO "o'brien ""the"" \ DBA""#,
    "ALTER ROLE migrator SET lock_timeout = '10s'",
    "ALTER ROLE migrator IN DATABASE shop SET search_path = app, public",
    "ALTER ROLE web IN DATABASE shop SET search_path = \"$user\", app",
    "ALTER ROLE web IN DATABASE shop SET idle_in_transaction_session_timeout = '60s'",
    "ALTER ROLE web SET timezone = 'America/Argentina/Buenos_Aires'",
    "ALTER ROLE bi SET datestyle = 'ISO, DMY'",
    "ALTER DATABASE shop SET statement_timeout = '5min'",
    "REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC",
    "GRANT CREATE, TEMPORARY ON DATABASE shop TO app_owner",
    "GRANT CONNECT ON DATABASE shop TO bi WITH GRANT OPTION",
    "GRANT CONNECT ON DATABASE shop TO web",
    "CREATE SCHEMA app AUTHORIZATION app_owner",
    "CREATE SCHEMA reporting AUTHORIZATION reporting_owner",
    r#"CREATE SCHEMA "Odd.Schema" AUTHORIZATION app_owner"#,
    "CREATE SCHEMA deserted AUTHORIZATION app_owner",
    "CREATE SCHEMA ext",
    "CREATE EXTENSION citext SCHEMA ext",
    "CREATE EXTENSION pg_trgm SCHEMA public",
    "GRANT USAGE ON SCHEMA app, reporting TO app_ro",
    "GRANT USAGE, CREATE ON SCHEMA app TO app_rw",
    "GRANT USAGE ON SCHEMA ext TO PUBLIC",
    r#"GRANT USAGE ON SCHEMA "Odd.Schema" TO "Odd Role" WITH GRANT OPTION"#,
    "GRANT USAGE ON SCHEMA deserted TO app_ro",
];

/// Run as `app_owner`.
const OBJECTS: &[&str] = &[
    "CREATE TABLE app.users (id serial PRIMARY KEY, email text, name text, password_hash text)",
    "CREATE TABLE app.payments (id int GENERATED ALWAYS AS IDENTITY, user_id int, card text, \"Total (€)\" numeric)",
    "CREATE TABLE app.orders (id serial PRIMARY KEY, tenant int)",
    "CREATE TABLE app.\"order\" (id int, \"select\" text)",
    "CREATE TABLE app.alembic_version (version_num text)",
    "DO $$ BEGIN FOR i IN 1..9 LOOP EXECUTE format('CREATE TABLE app.log_2024_%s (id int)', i); END LOOP; END $$",
    "DO $$ BEGIN FOR i IN 1..9 LOOP EXECUTE format('CREATE TABLE app.thing%s (id int)', i); END LOOP; END $$",
    "CREATE TABLE app.events (at date, what text) PARTITION BY RANGE (at)",
    "CREATE TABLE app.events_2024 PARTITION OF app.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE app.events_old PARTITION OF app.events FOR VALUES FROM ('2020-01-01') TO ('2024-01-01')",
    "CREATE VIEW app.people AS SELECT id, name FROM app.users",
    "CREATE VIEW app.money AS SELECT id FROM app.payments",
    "CREATE MATERIALIZED VIEW app.totals AS SELECT count(*) FROM app.payments",
    "CREATE FUNCTION app.total(int) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION app.total(int, varchar[], timestamptz) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION app.whoami() RETURNS name LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT current_user'",
    "CREATE PROCEDURE app.tidy() LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE app.mood AS ENUM ('good', 'bad')",
    "CREATE DOMAIN app.email AS text",
    "CREATE FUNCTION app.judge(app.mood, ext.citext) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    r#"CREATE TABLE "Odd.Schema"."Odd.Table *" (id int, "Odd, Column)" text)"#,
    r#"CREATE SEQUENCE "Odd.Schema"."one""two""#,
    "CREATE TABLE deserted.island (id int)",
    "GRANT SELECT ON ALL TABLES IN SCHEMA app TO app_ro",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO app_rw",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA app TO app_rw",
    "REVOKE SELECT ON app.users, app.payments, app.money FROM app_ro",
    "GRANT SELECT (id, email, name) ON app.users TO app_ro",
    "GRANT SELECT (id), UPDATE (\"Total (€)\", user_id) ON app.payments TO app_ro",
    "GRANT SELECT (card) ON app.payments TO bi WITH GRANT OPTION",
    "GRANT INSERT (id) ON app.orders TO app_ro",
    "REVOKE INSERT, UPDATE, DELETE ON app.alembic_version FROM app_rw",
    "REVOKE UPDATE, DELETE ON app.log_2024_1, app.log_2024_2, app.log_2024_3, app.log_2024_4, app.log_2024_5,
       app.log_2024_6, app.log_2024_7, app.log_2024_8, app.log_2024_9 FROM app_rw",
    "GRANT ALL ON app.thing7 TO web WITH GRANT OPTION",
    "REVOKE INSERT, UPDATE, DELETE ON app.people, app.money, app.totals FROM app_rw",
    "REVOKE SELECT ON app.events FROM app_ro",
    "GRANT SELECT (what) ON app.events TO app_ro",
    "GRANT TRUNCATE, REFERENCES, TRIGGER ON app.events_old TO app_ro",
    "GRANT SELECT ON app.orders TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION app.total(int) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION app.total(int) TO app_rw",
    "REVOKE EXECUTE ON FUNCTION app.whoami() FROM PUBLIC",
    "REVOKE EXECUTE ON PROCEDURE app.tidy() FROM PUBLIC",
    "GRANT EXECUTE ON PROCEDURE app.tidy() TO app_rw WITH GRANT OPTION",
    "REVOKE EXECUTE ON FUNCTION app.judge(app.mood, ext.citext) FROM PUBLIC",
    "REVOKE USAGE ON TYPE app.mood FROM PUBLIC",
    "GRANT USAGE ON TYPE app.mood TO app_rw",
    "GRANT USAGE ON DOMAIN app.email TO app_ro",
    r#"GRANT SELECT ON "Odd.Schema"."Odd.Table *" TO "Odd Role", "user@example.com""#,
    r#"GRANT UPDATE ("Odd, Column)") ON "Odd.Schema"."Odd.Table *" TO "o'brien ""the"" \ DBA""#,
    r#"GRANT UPDATE ON SEQUENCE "Odd.Schema"."one""two" TO "café.año""#,
    "ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY tenant ON app.orders USING (tenant = 1)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO app_ro",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_rw",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT USAGE ON SEQUENCES TO app_rw WITH GRANT OPTION",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO app_ro",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"café.año\"",
    "ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC",
];

/// Run as `reporting_owner`, in whose schema others create too.
const REPORTING: &[&str] = &[
    "CREATE TABLE reporting.sales (id int, amount numeric)",
    "GRANT SELECT ON reporting.sales TO app_ro, bi",
    "GRANT ALL ON SCHEMA reporting TO app_owner",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA reporting GRANT SELECT ON TABLES TO bi",
    "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO bi",
];

/// Run as `app_owner` in the schema of another.
const MIXED: &[&str] = &[
    "CREATE TABLE reporting.mine (id serial)",
    "CREATE TABLE reporting.mine_too (id int)",
    "CREATE TYPE reporting.shape AS (x int, y int)",
    "CREATE FUNCTION reporting.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "GRANT INSERT ON reporting.mine TO reporting_owner",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA reporting GRANT INSERT ON TABLES TO web",
];

/// Builds everything that does not take a superuser.
async fn build(admin: &Session) {
    for statement in ROLES {
        run(admin, statement).await;
    }
    run(admin, "GRANT app_owner, reporting_owner, web TO CURRENT_USER").await;
    for statement in DATABASE {
        run(admin, statement).await;
    }
    for (owner, statements) in [("app_owner", OBJECTS), ("reporting_owner", REPORTING), ("app_owner", MIXED)]
    {
        run(admin, &format!("SET ROLE {owner}")).await;
        for statement in statements {
            run(admin, statement).await;
        }
        run(admin, "RESET ROLE").await;
    }
    // A grant that somebody else passed on.
    run(admin, "SET ROLE web").await;
    run(admin, "GRANT SELECT, DELETE ON app.thing7 TO bi").await;
    run(admin, "RESET ROLE").await;
}

/// What only a superuser leaves behind.
const SUPERUSER: &[&str] = &[
    "CREATE ROLE dba LOGIN SUPERUSER",
    "CREATE ROLE standby LOGIN REPLICATION",
    "CREATE ROLE robot LOGIN NOINHERIT CREATEDB CREATEROLE BYPASSRLS",
    "GRANT app_owner TO migrator WITH INHERIT FALSE, SET TRUE",
    "ALTER ROLE migrator IN DATABASE shop SET role = 'app_owner'",
    "GRANT app_rw TO robot WITH INHERIT TRUE, SET FALSE, ADMIN TRUE",
    "ALTER ROLE bi IN DATABASE shop SET app.tenant = 'a, \"b\" = c'",
    "GRANT pg_read_all_data TO bi",
    "CREATE TABLE public.legacy (id serial, note text)",
    "CREATE TABLE public.other (id serial)",
    "CREATE FUNCTION public.old() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE public.other OWNER TO app_owner",
    "GRANT SELECT ON public.legacy TO app_ro",
    "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO app_ro",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT UPDATE ON SEQUENCES TO app_ro",
    "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO app_ro",
    "CREATE SCHEMA vault",
    "CREATE TABLE vault.secret (id int)",
    "GRANT USAGE ON SCHEMA vault TO dba",
    "GRANT SELECT ON vault.secret TO dba",
    "ALTER DEFAULT PRIVILEGES FOR ROLE dba GRANT SELECT ON TABLES TO app_ro",
];

#[tokio::test]
async fn a_superuser_imports_every_oddity() {
    let database = Database::empty().await;
    build(&database.admin).await;
    database.run(SUPERUSER).await;
    let (imported, target) = faithful(&database.admin).await;
    println!("{}", imported.toml);
    run(&database.admin, "GRANT DELETE ON app.users TO app_ro").await;
    assert!(applied(&database.admin, &imported.policy, &target).await > 0);
    faithful(&database.admin).await;
    hand_made_grants_are_what_is_reverted(&database.admin, &imported.policy, &target).await;
}

#[tokio::test]
async fn an_administrator_without_superuser_imports_them_too() {
    let database = Database::empty().await;
    database
        .run(&[
            "CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'secret'",
            "ALTER DATABASE shop OWNER TO master",
        ])
        .await;
    let master = database.session_of("master").await;
    build(&master).await;
    let (imported, target) = faithful(&master).await;
    println!("{}", imported.toml);
    run(&master, "GRANT DELETE ON app.users TO app_ro").await;
    assert!(applied(&master, &imported.policy, &target).await > 0);
    faithful(&master).await;
    hand_made_grants_are_what_is_reverted(&master, &imported.policy, &target).await;
}

/// Grants by hand, one after the other: the next plan takes back exactly that, and nothing else.
async fn hand_made_grants_are_what_is_reverted(
    admin: &Session,
    policy: &Policy,
    target: &obyra_access::Target,
) {
    let by_hand = [
        ("GRANT DELETE ON app.users TO app_ro", "REVOKE DELETE ON TABLE app.users FROM app_ro"),
        ("GRANT SELECT (password_hash) ON app.users TO app_ro", "password_hash"),
        ("GRANT SELECT ON app.users TO PUBLIC", "FROM PUBLIC"),
        ("GRANT CREATE ON SCHEMA app TO bi", "REVOKE CREATE ON SCHEMA app FROM bi"),
        ("GRANT EXECUTE ON FUNCTION app.whoami() TO PUBLIC", "app.whoami()"),
        ("GRANT TEMPORARY ON DATABASE shop TO PUBLIC", "FROM PUBLIC"),
        ("GRANT app_rw TO bi", "REVOKE app_rw FROM bi"),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA app GRANT DELETE ON TABLES TO bi", "FROM bi"),
        ("GRANT SELECT ON deserted.island TO bystander", "FROM bystander"),
    ];
    for (grant, revoke) in by_hand {
        run(admin, "BEGIN").await;
        run(admin, grant).await;
        let plan = planned(admin, policy, target).await;
        run(admin, "ROLLBACK").await;
        let statements = statements(&plan);
        let touching: Vec<_> =
            statements.iter().filter(|s| s.contains("REVOKE") || s.contains("GRANT")).collect();
        assert!(touching.len() == 1 && touching[0].contains(revoke), "{grant}\n{statements:#?}");
    }
}
