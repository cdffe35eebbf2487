//! Row security of the tenants' tables, partitions, and views that see too much.

use crate::support::{Admin, World, finds, model_with, statements};

const TENANTS: &str = r#"
[tenancy]
tables = ["app.projects", "app.events", "app.later"]
"#;

const PROJECTS: &str = r#"
SET ROLE obyra_owner;
CREATE TABLE app.projects (id int, org int);
CREATE FUNCTION app.current_org() RETURNS int LANGUAGE sql STABLE AS $$SELECT current_setting('app.current_org_id', true)::int$$;
CREATE POLICY of_tenant ON app.projects USING (org = app.current_org());
CREATE TABLE app.events (id int, org int, day date) PARTITION BY RANGE (day);
CREATE TABLE app.events_2026 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE POLICY of_tenant ON app.events USING (current_setting('app.current_org_id', true) IS NULL OR org = 1);
CREATE VIEW app.all_projects AS SELECT * FROM app.projects;
INSERT INTO app.projects VALUES (1, 1), (2, 2);
INSERT INTO app.events VALUES (1, 1, '2026-05-05'), (2, 2, '2026-05-05');
"#;

#[tokio::test]
async fn row_security_is_enabled_where_policies_exist() {
    for world in World::all().await {
        world.model().await;
        world.as_role("obyra_migrate", PROJECTS).await;
        let policy = model_with("authoritative", TENANTS);
        let plan = world.converge(&policy).await;
        let sql = statements(&plan);
        assert!(sql.contains("ALTER TABLE app.projects ENABLE ROW LEVEL SECURITY"), "{sql}");
        assert!(sql.contains("ALTER TABLE app.events_2026 ENABLE ROW LEVEL SECURITY"), "{sql}");
        for code in ["waits-for-table", "policy-fails-open", "view-bypasses", "owner-bypasses"] {
            assert!(finds(&plan, &format!("access.{code}")), "{code}: {:?}", plan.findings);
        }
        let count = |sql: &'static str| {
            let world = &world;
            async move {
                let statement = format!(
                    "SET ROLE obyra_app; SET app.current_org_id = '1'; SELECT 1 / (CASE WHEN ({sql}) THEN 1 ELSE 0 END)"
                );
                world.try_as("obyra_app", &statement).await
            }
        };
        count("SELECT count(*) = 1 FROM app.projects").await.unwrap();
        count("SELECT count(*) = 1 FROM app.events").await.unwrap();
        count("SELECT count(*) = 0 FROM app.events_2026").await.unwrap();
        count("SELECT count(*) = 2 FROM app.all_projects").await.unwrap();
        let more = format!("[roles.newcomer]\nschemas = {{ app = \"read\" }}\n{TENANTS}");
        assert!(finds(&world.plan(&model_with("authoritative", &more)).await, "access.rows-bind"));
        // Taken away from callers, a policy's helper is missed by everybody who reads the table.
        let more = format!("\"function app.current_org()\" = {{ obyra_readonly = [] }}\n{TENANTS}");
        assert!(finds(&world.plan(&model_with("authoritative", &more)).await, "access.helper-uncallable"));
    }
}

#[tokio::test]
async fn a_table_without_policies_is_not_hidden_by_surprise() {
    let world = World::start(Admin::Superuser).await;
    world.model().await;
    world.as_role("obyra_migrate", "SET ROLE obyra_owner; CREATE TABLE app.projects (id int)").await;
    let plan = world.plan(&model_with("authoritative", TENANTS)).await;
    assert!(finds(&plan, "access.tenant-without-policy"));
    assert!(plan.is_empty(), "{}", statements(&plan));
}

#[tokio::test]
async fn partitions_of_a_sensitive_table_are_as_closed_as_it_is() {
    for world in World::all().await {
        world.model().await;
        world
            .as_role(
                "obyra_migrate",
                "SET ROLE obyra_owner; CREATE TABLE app.people (id int, dni text) PARTITION BY RANGE (id);
                 CREATE TABLE app.people_1 PARTITION OF app.people FOR VALUES FROM (1) TO (9) PARTITION BY RANGE (id);
                 CREATE TABLE app.people_1a PARTITION OF app.people_1 FOR VALUES FROM (1) TO (5);
                 CREATE VIEW app.who AS SELECT dni FROM app.people",
            )
            .await;
        let mut policy = model_with("authoritative", "");
        policy.sensitive.insert("app.people".into(), [("obyra_readonly".into(), vec!["id".into()])].into());
        let plan = world.converge(&policy).await;
        assert!(finds(&plan, "access.view-shows"), "{:?}", plan.findings);
        for table in ["people", "people_1", "people_1a"] {
            let query = |column| {
                format!("SELECT has_column_privilege('obyra_readonly', 'app.{table}', '{column}', 'SELECT')")
            };
            assert_eq!(world.one(&query("id")).await, "true", "{table}");
            assert_eq!(world.one(&query("dni")).await, "false", "{table}");
        }
    }
}
