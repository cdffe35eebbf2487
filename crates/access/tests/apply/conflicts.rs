//! Others at work on the same database: two applies, a running ALTER TABLE, a killed session, a
//! database that changed since the plan, a lock table that is too small.

use std::collections::BTreeMap;
use std::time::Duration;

use obyra_access::{Order, Patience, apply};
use obyra_evidence::{Exit, Quiet};
use obyra_postgres::cluster::{TemporaryOptions, for_tests_with};

use crate::support::{Admin, MODEL, TABLES, World, policy, statements};

#[tokio::test]
async fn of_two_applies_the_second_finds_its_plan_outdated() {
    for who in [Admin::Superuser, Admin::Master] {
        let world = World::start(who).await;
        let policy = policy(MODEL);
        let plan = world.plan(&policy).await;
        let (one, two) = (world.another().await, world.another().await);
        let none = BTreeMap::new();
        let outcomes = tokio::join!(
            world.apply_with(&one, &policy, &plan, &none),
            world.apply_with(&two, &policy, &plan, &none)
        );
        let failure = match outcomes {
            (Ok(_), Err(failure)) | (Err(failure), Ok(_)) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(failure.what.code().id(), "access.changed-meanwhile");
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(world.plan(&policy).await.steps, []);
    }
}

#[tokio::test]
async fn a_plan_that_is_outdated_is_not_applied() {
    let world = World::start(Admin::Superuser).await;
    let policy = world.model().await;
    world.sql("GRANT SELECT ON app.users TO PUBLIC").await;
    let plan = world.plan(&policy).await;
    world.sql("CREATE ROLE late; GRANT SELECT ON app.payments TO late").await;
    let failure = world.apply(&policy, &plan).await.unwrap_err();
    assert_eq!(failure.what.code().id(), "access.changed-meanwhile");
    assert!(failure.why.unwrap().contains("late"));
    assert_eq!(world.one("SELECT has_table_privilege('late', 'app.users', 'SELECT')").await, "true");
}

#[tokio::test]
async fn beside_alter_table_it_waits_and_starts_over() {
    let world = World::start(Admin::Superuser).await;
    let policy = world.model().await;
    // Somebody alters the table, and only then ends the transaction.
    let other = world.another().await;
    other.batch_execute("BEGIN; ALTER TABLE app.users ADD COLUMN later int").await.unwrap();
    world.sql("GRANT SELECT ON app.\"order\" TO PUBLIC").await;
    let mut changed = policy.clone();
    changed.sensitive.get_mut("app.users").unwrap().insert("obyra_app".into(), vec!["id".into()]);
    let plan = world.plan(&changed).await;
    let (applied, ()) = tokio::join!(world.apply(&changed, &plan), async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        other.batch_execute("COMMIT").await.unwrap();
    });
    let applied = applied.unwrap();
    assert!(applied.retries > 0 || applied.steps > 0, "{applied:?}");
    assert_eq!(world.plan(&changed).await.steps, []);
}

#[tokio::test]
async fn who_alters_a_table_for_long_is_named() {
    let world = World::start(Admin::Superuser).await;
    let policy = world.model().await;
    world.sql("CREATE POLICY all_rows ON app.users USING (id > 0)").await;
    let other = world.another().await;
    other.batch_execute("BEGIN; ALTER TABLE app.users ADD COLUMN later int").await.unwrap();
    world.admin.batch_execute("SET lock_timeout = 50").await.unwrap();
    let failure = obyra_access::observe(&world.admin, &policy, &world.target).await.unwrap_err();
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let mend = failure.mend.unwrap().to_string();
    assert!(mend.contains(&format!("pg_terminate_backend({pid})")) && mend.contains("app.users"), "{mend}");
}

#[tokio::test]
async fn a_lock_that_never_comes_free_ends_in_words() {
    let world = World::start(Admin::Superuser).await;
    world.sql(&format!("CREATE SCHEMA app; CREATE SCHEMA audit; {TABLES}")).await;
    let policy = policy(MODEL);
    let plan = world.plan(&policy).await;
    let other = world.another().await;
    other.batch_execute("BEGIN; LOCK TABLE app.users IN ACCESS SHARE MODE").await.unwrap();
    let order =
        Order { policy: &policy, target: &world.target, approved: &plan, passwords: &BTreeMap::new() };
    let patience = Patience { lock_timeout: Duration::from_millis(50), attempts: 2, ..Patience::default() };
    let failure = apply(&world.admin, order, &patience, &Quiet).await.unwrap_err();
    assert!(failure.why.as_ref().unwrap().contains("lock timeout"), "{failure}");
    assert!(failure.mend.is_some());
    assert_eq!(world.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'obyra%'").await, "0");
    assert_eq!(world.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, "0");
    other.batch_execute("COMMIT").await.unwrap();
    world.converge(&policy).await;
}

#[tokio::test]
async fn grants_beside_grants_never_show_a_concurrently_updated_tuple() {
    let world = World::start(Admin::Superuser).await;
    let policy = world.model().await;
    let noise = async {
        let other = world.another().await;
        for round in 0..60 {
            let verb = if round % 2 == 0 {
                "GRANT SELECT ON app.users, app.payments TO PUBLIC"
            } else {
                "REVOKE SELECT ON app.users, app.payments FROM PUBLIC"
            };
            let _ = other.batch_execute(verb).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let work = async {
        for _ in 0..12 {
            let plan = world.plan(&policy).await;
            if let Err(failure) = world.apply(&policy, &plan).await {
                assert!(!failure.to_string().contains("concurrently"), "{failure}");
            }
        }
    };
    tokio::join!(noise, work);
    world.sql("REVOKE SELECT ON app.users, app.payments FROM PUBLIC").await;
    assert_eq!(world.plan(&policy).await.steps, []);
}

#[tokio::test]
async fn killed_at_any_moment_it_is_whole_or_not_at_all() {
    let world = World::start(Admin::Superuser).await;
    let policy = policy(MODEL);
    let plan = world.plan(&policy).await;
    let state = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'obyra%'";
    for delay in [1, 3, 6, 10, 15, 25, 40] {
        if world.one(state).await != "0" {
            break;
        }
        let victim = world.another().await;
        let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let none = BTreeMap::new();
        let (outcome, ()) = tokio::join!(world.apply_with(&victim, &policy, &plan, &none), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            world.sql(&format!("SELECT pg_terminate_backend({pid}, 2000)")).await;
        });
        let left = world.plan(&policy).await;
        match outcome {
            Ok(_) => assert_eq!(left.steps, []),
            Err(_) if world.one(state).await == "0" => assert_eq!(left.fingerprint, plan.fingerprint),
            // The answer to COMMIT may be lost; what was committed is whole.
            Err(_) => assert_eq!(left.steps, []),
        }
        assert_eq!(world.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, "0");
    }
    let plan = world.plan(&policy).await;
    world.apply(&policy, &plan).await.unwrap();
    assert_eq!(world.plan(&policy).await.steps, []);
}

#[tokio::test]
async fn what_would_fill_the_lock_table_is_divided() {
    let settings = [("max_locks_per_transaction", "10"), ("max_connections", "20")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    let options = TemporaryOptions { settings: settings.to_vec(), ..TemporaryOptions::default() };
    let world = World::on(for_tests_with(&options).await, Admin::Superuser).await;
    world.sql("CREATE SCHEMA app").await;
    let policy = policy(&MODEL.replace("app = \"read\"", "app = \"read-write\""));
    for _ in 0..8 {
        world.sql("DO $$ BEGIN FOR i IN 1..25 LOOP EXECUTE format('CREATE TABLE app.t%s (id serial PRIMARY KEY, name text)', (SELECT count(*) FROM pg_tables WHERE schemaname = 'app')); END LOOP; END $$").await;
    }
    let plan = world.plan(&policy).await;
    assert!(plan.steps.iter().map(|s| s.batch).max().unwrap() > 2, "{}", statements(&plan).len());
    let applied = world.apply(&policy, &plan).await.unwrap();
    assert!(applied.transactions > 2, "{applied:?}");
    assert_eq!(world.plan(&policy).await.steps, []);
    assert_eq!(
        world
            .one("SELECT count(*) FROM pg_tables WHERE schemaname = 'app' AND tableowner = 'obyra_owner'")
            .await,
        "200"
    );
}

#[tokio::test]
async fn access_that_the_policy_does_not_imply_rolls_everything_back() {
    for who in [Admin::Superuser, Admin::Master] {
        let world = World::start(who).await;
        let policy = world.model().await;
        // A trap: an event trigger that opens the table again behind every REVOKE.
        world
            .sql(
                "CREATE ROLE backdoor; GRANT USAGE ON SCHEMA app TO backdoor;
                 CREATE FUNCTION public.trap() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS
                 $$BEGIN EXECUTE 'GRANT backdoor TO obyra_readonly'; END$$;
                 GRANT SELECT ON app.users TO PUBLIC;
                 CREATE EVENT TRIGGER trap ON ddl_command_end WHEN TAG IN ('REVOKE') EXECUTE FUNCTION public.trap()",
            )
            .await;
        let plan = world.plan(&policy).await;
        let failure = world.apply(&policy, &plan).await.unwrap_err();
        assert_eq!(failure.what.code().id(), "access.without-effect", "{failure}");
        assert_eq!(
            world.one("SELECT has_table_privilege('obyra_readonly', 'app.users', 'SELECT')").await,
            "true"
        );
    }
}
