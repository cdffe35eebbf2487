//! What each mode does with what nobody declared.

use obyra_access::Phase;

use crate::support::{Admin, World, finds, model_with, policy, statements};

const DRIFT: &str = "CREATE ROLE intruder LOGIN; GRANT SELECT ON app.users TO obyra_readonly, intruder; \
    GRANT obyra_app TO intruder; ALTER ROLE obyra_app CREATEDB; GRANT CREATE ON SCHEMA app TO intruder; \
    REVOKE INSERT ON app.\"order\" FROM obyra_app; ALTER ROLE obyra_app SET work_mem = '5MB'";

#[tokio::test]
async fn additive_only_adds_and_adopt_reports() {
    for world in World::all().await {
        world.model().await;
        world.sql(DRIFT).await;
        let additive = model_with("additive", "");
        let plan = world.plan(&additive).await;
        assert!(!plan.steps.iter().any(|s| s.phase == Phase::Revokes), "{}", statements(&plan));
        assert!(statements(&plan).contains("GRANT INSERT ON TABLE app.\"order\" TO obyra_app"));
        assert!(!finds(&plan, "access.revoke-objects"));
        let adopt = model_with("adopt", "");
        let plan = world.plan(&adopt).await;
        for code in ["revoke-objects", "membership-undeclared", "role-exceeds", "setting-undeclared"] {
            assert!(finds(&plan, &format!("access.{code}")), "{code}: {:?}", plan.findings);
        }
        assert!(!statements(&plan).contains("REVOKE"), "{}", statements(&plan));
        world.converge(&adopt).await;
        world.converge(&additive).await;
        let still = "SELECT has_table_privilege('intruder', 'app.users', 'SELECT')";
        assert_eq!(world.one(still).await, "true");
    }
}

#[tokio::test]
async fn where_nothing_is_revoked_new_tables_stay_closed_to_who_reads_sensitive_ones_in_part() {
    let world = World::start(Admin::Superuser).await;
    world.converge(&model_with("adopt", "")).await;
    world
        .as_role(
            "obyra_migrate",
            "SET ROLE obyra_owner; CREATE TABLE app.users (id int, email text, secret text)",
        )
        .await;
    assert_eq!(
        world.one("SELECT has_column_privilege('obyra_readonly', 'app.users', 'secret', 'SELECT')").await,
        "false"
    );
    world.converge(&model_with("adopt", "")).await;
    assert_eq!(
        world.one("SELECT has_column_privilege('obyra_readonly', 'app.users', 'email', 'SELECT')").await,
        "true"
    );
}

#[tokio::test]
async fn future_may_be_denied_or_told_apart() {
    for world in World::all().await {
        let mut policy = model_with("authoritative", "");
        policy.roles.get_mut("obyra_readonly").unwrap().future = obyra_access::policy::Future::Deny;
        policy.roles.get_mut("obyra_app").unwrap().future =
            obyra_access::policy::Future::Levels([("app".to_owned(), "read".to_owned())].into());
        world.converge(&policy).await;
        world.as_role("obyra_migrate", "SET ROLE obyra_owner; CREATE TABLE app.t (id int)").await;
        let acl = "SELECT relacl::text FROM pg_class WHERE oid = 'app.t'::regclass";
        let now = world.one(acl).await;
        assert!(now.contains("obyra_app=r/") && !now.contains("readonly"), "{now}");
        world.converge(&policy).await;
        assert!(world.one(acl).await.contains("obyra_readonly=r/"));
    }
}

#[tokio::test]
async fn a_schema_that_the_environment_lacks_is_not_meant_for_it() {
    let mut world = World::start(Admin::Superuser).await;
    world.target.schemas = [("app".to_owned(), "public".to_owned())].into();
    let policy = model_with("authoritative", "");
    world.converge(&policy).await;
    world
        .as_role(
            "obyra_migrate",
            "SET ROLE obyra_owner; CREATE TABLE public.users (id int, email text, secret text)",
        )
        .await;
    world.converge(&policy).await;
    world.as_role("obyra_readonly", "SELECT id, email FROM public.users").await;
    assert!(world.try_as("obyra_readonly", "SELECT secret FROM public.users").await.is_err());
    assert_eq!(world.one("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'audit')").await, "0");
}

#[tokio::test]
async fn one_owner_differs_and_public_may_have_a_level() {
    for world in World::all().await {
        let policy = policy(
            "owner = \"obyra_owner\"\n[roles.PUBLIC]\nschemas = { app = \"read\" }\ndatabase = [\"CONNECT\"]\n\
             [schemas.audit]\nowner = \"auditor\"\n[owners]\n\"table app.mine*\" = \"auditor\"\n\
             [profiles.lookups]\nschema = [\"USAGE\"]\ntables = []\nviews = [\"SELECT\"]\n\
             [roles.viewer]\nschemas = { audit = \"lookups\" }\n\
             [[default_privileges]]\ncreators = [\"auditor\"]\nschemas = [\"app\"]\non = \"tables\"\nto = [\"viewer\"]\nprivileges = [\"SELECT WITH GRANT OPTION\"]\n",
        );
        world.converge(&policy).await;
        world.sql("CREATE TABLE app.mine_1 (id serial); CREATE TABLE app.other (); CREATE VIEW audit.v AS SELECT 1; CREATE TABLE audit.t ()").await;
        if world.who == Admin::Master {
            world.sql("ALTER TABLE app.mine_1 OWNER TO master; ALTER TABLE app.other OWNER TO master; ALTER TABLE audit.t OWNER TO master; ALTER VIEW audit.v OWNER TO master").await;
        }
        world.converge(&policy).await;
        let owners = "SELECT string_agg(relname || ':' || relowner::regrole::text, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace::regnamespace::text IN ('app', 'audit') AND relkind IN ('r', 'v', 'S')";
        assert_eq!(
            world.one(owners).await,
            "mine_1:auditor mine_1_id_seq:auditor other:obyra_owner t:auditor v:auditor"
        );
        assert_eq!(world.one("SELECT has_table_privilege('viewer', 'audit.v', 'SELECT')::text || has_table_privilege('viewer', 'audit.t', 'SELECT') || has_table_privilege('viewer', 'app.other', 'SELECT')").await, "truefalsetrue");
    }
}

#[tokio::test]
async fn extensions_and_settings_of_the_server() {
    let more = "[settings]\nlog_min_duration_statement = \"1s\"\nssl = true\nmax_connections = 123\n\
                shared_preload_libraries = \"pg_stat_statements, auto_explain\"\n";
    let world = World::start(Admin::Superuser).await;
    let mut policy = model_with("authoritative", more);
    policy.extensions = vec!["pg_stat_statements".into(), "no_such_extension".into()];
    let plan = world.converge(&policy).await;
    let sql = statements(&plan);
    assert!(sql.contains("CREATE EXTENSION pg_stat_statements WITH SCHEMA public"), "{sql}");
    assert!(sql.contains("ALTER SYSTEM SET log_min_duration_statement = '1s'"), "{sql}");
    assert!(
        sql.contains("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'auto_explain'"),
        "{sql}"
    );
    assert!(finds(&plan, "access.extension-unavailable") && finds(&plan, "access.needs-restart"));
    let again = world.plan(&policy).await;
    assert!(finds(&again, "access.waits-for-restart"), "{:?}", again.findings);
    // A managed provider is told where such settings live.
    let world = World::start(Admin::Master).await;
    let plan = world.plan(&model_with("authoritative", more)).await;
    let finding = plan.findings.iter().find(|f| f.subject == "setting max_connections").unwrap();
    assert_eq!(finding.mend.as_ref().unwrap().code().id(), "access.mend-parameter-group");
    assert!(!statements(&plan).contains("ALTER SYSTEM"));
}
