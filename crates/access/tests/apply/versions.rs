//! What differs from one version of PostgreSQL to another.

use obyra_postgres::cluster::for_tests_version;

use crate::support::{Admin, World, finds, model_with, policy, statements};

async fn world(major: u32, who: Admin) -> World {
    World::on(for_tests_version(major).await, who).await
}

/// The database's owner cannot close it; everything else is done, and who can is told how.
#[tokio::test]
async fn a_public_schema_of_a_superuser_is_named_and_stops_nothing() {
    for who in [Admin::Superuser, Admin::Master] {
        let world = world(14, who).await;
        let policy = policy(crate::support::MODEL);
        let plan = world.converge(&policy).await;
        let closes = statements(&plan).contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        assert_eq!(closes, who == Admin::Superuser);
        assert_eq!(finds(&plan, "access.public-open"), who == Admin::Master);
        if who == Admin::Master {
            let finding =
                plan.findings.iter().find(|f| f.message.code().id() == "access.public-open").unwrap();
            let mend = finding.mend.as_ref().unwrap().to_string();
            world.sql(mend.strip_prefix("as whoever may: ").unwrap()).await;
            assert!(!finds(&world.plan(&policy).await, "access.public-open"));
        }
        assert!(world.try_as("obyra_app", "CREATE TABLE public.mine ()").await.is_err());
    }
}

/// From PostgreSQL 17 on, MAINTAIN is a privilege like the others; before, there is none to give.
#[tokio::test]
async fn maintain_is_given_where_it_exists() {
    let more = "\"table app.order\" = { obyra_app = [\"SELECT\", \"MAINTAIN\"] }\n";
    for major in [16, 17, 18] {
        let world = world(major, Admin::Master).await;
        let plain = world.model().await;
        let policy = model_with("authoritative", more);
        let plan = world.converge(&policy).await;
        let has = "SELECT has_table_privilege('obyra_app', 'app.\"order\"', 'MAINTAIN')";
        if major < 17 {
            assert!(!statements(&plan).contains("MAINTAIN"), "{}", statements(&plan));
            assert!(
                finds(&plan, "access.maintain-unknown")
                    && !finds(&world.plan(&plain).await, "access.maintain-unknown")
            );
            continue;
        }
        assert_eq!(world.one(has).await, "true");
        world.sql("CREATE ROLE intruder; GRANT MAINTAIN ON app.users TO intruder, PUBLIC").await;
        let plan = world.converge(&plain).await;
        assert_eq!(statements(&plan).matches("REVOKE MAINTAIN").count(), 2, "{}", statements(&plan));
        assert_eq!(world.one(has).await, "false");
        assert_eq!(
            world.one("SELECT has_table_privilege('intruder', 'app.users', 'MAINTAIN')").await,
            "false"
        );
    }
}

/// Before PostgreSQL 16 whoever may create roles administers every role that is no superuser;
/// from then on only those that it was given.
#[tokio::test]
async fn memberships_mean_what_the_version_makes_of_them() {
    for major in [14, 15, 16, 18] {
        let world = world(major, Admin::Master).await;
        world.sql("CREATE ROLE obyra_owner NOLOGIN; CREATE ROLE obyra_app LOGIN").await;
        let policy = policy(crate::support::MODEL);
        let plan = world.plan(&policy).await;
        assert_eq!(finds(&plan, "access.grant-needed"), major >= 16, "{major}: {:?}", plan.findings);
        if major >= 16 {
            world.sql("GRANT obyra_owner, obyra_app TO master WITH ADMIN OPTION").await;
        }
        let sql = statements(&world.converge(&policy).await);
        let options =
            sql.contains("GRANT obyra_owner TO obyra_migrate WITH ADMIN FALSE, INHERIT FALSE, SET TRUE");
        assert_eq!(
            (options, sql.contains("CREATE ROLE obyra_migrate LOGIN NOINHERIT")),
            (major >= 16, major < 16)
        );
        // The migration role acts as the owner and has nothing of it before it does.
        let owns = "SELECT pg_has_role('obyra_migrate', 'obyra_owner', 'USAGE')";
        assert_eq!(world.one(owns).await, "false");
        world.as_role("obyra_migrate", "SET ROLE obyra_owner; CREATE TABLE app.t ()").await;
        assert!(world.try_as("obyra_migrate", "DROP TABLE app.t").await.is_err());
    }
}

/// What the version cannot say is told; `ALL` means the same everywhere.
#[tokio::test]
async fn what_a_version_cannot_say_is_told() {
    for major in [14, 16, 17] {
        let world = world(major, Admin::Superuser).await;
        let more = "\"table app.order\" = { obyra_app = [\"ALL\"] }\n\
                    [roles.visitor]\nmember_of = [{ role = \"obyra_app\", set = false }]\n";
        world.model().await;
        let plan = world.converge(&model_with("authoritative", more)).await;
        assert_eq!(finds(&plan, "access.set-false-unknown"), major < 16, "{major}");
        let sets = world.try_as("visitor", "SET ROLE obyra_app").await.is_ok();
        assert_eq!(sets, major < 16, "{major}");
        let all = "SELECT string_agg(privilege_type, ', ' ORDER BY privilege_type) FROM aclexplode((SELECT relacl FROM pg_class \
                   WHERE oid = 'app.\"order\"'::regclass)) WHERE grantee = 'obyra_app'::regrole";
        assert_eq!(
            world.one(all).await,
            "DELETE, INSERT, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE",
            "{major}"
        );
    }
}
