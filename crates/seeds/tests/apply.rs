//! Seeds on a real database: applied once, refused when changed, and never by halves.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod support;

use obyra_evidence::{Exit, Place, Quiet, text::seeds as say};
use obyra_seeds::{Action, Applied, Observed, Planned, Seed, apply, observe, plan};
use support::{Site, tracking};

const ORGANIZATION: &str =
    "INSERT INTO organizations (name) VALUES ('Andén Sur'), ('Ñandú') ON CONFLICT (name) DO NOTHING;";

fn labels(applied: &[Applied]) -> Vec<(u32, usize, u64)> {
    applied.iter().map(|seed| (seed.number, seed.statements, seed.rows)).collect()
}

fn line_and_column(at: Option<Place>) -> (usize, usize) {
    at.map(|place| (place.line, place.column)).expect("a place")
}

#[tokio::test]
async fn seeds_are_applied_once_by_the_role_that_runs_them() {
    let site = Site::new().await;
    site.write("001_organizations.sql", ORGANIZATION);
    site.write("002_users.sql", "-- People\n\nINSERT INTO users VALUES (1, 1); SELECT count(*) FROM users;");
    site.write("003_nothing.sql", "-- still to be written\n");
    assert_eq!(labels(&site.apply().await.unwrap()), [(1, 1, 2), (2, 2, 2), (3, 0, 0)]);
    assert_eq!(site.apply().await.unwrap(), []);
    assert!(site.plan().await.is_in_order());

    let Observed::Recorded(rows) = observe(&site.runner().await, &tracking()).await.unwrap() else {
        panic!("no table")
    };
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].name.as_str(), rows[0].applied_by.as_str()), ("organizations", "obyra_migrate"));
    assert_eq!(rows[0].checksum, site.seeds()[0].checksum);
    assert!(rows[0].applied_at.ends_with('Z') && rows[0].duration_seconds < 5.0);
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'obyra_seeds'";
    assert_eq!(site.ask(owner).await, "obyra_owner");
}

#[tokio::test]
async fn a_changed_seed_is_refused_unless_it_is_repeatable() {
    let site = Site::new().await;
    site.write("001_a.sql", ORGANIZATION);
    site.write("002_b.sql", "-- obyra-db: repeatable\nSELECT 1");
    site.apply().await.unwrap();

    site.write("002_b.sql", "-- obyra-db: repeatable\nSELECT 2");
    assert_eq!(
        site.plan().await.to_run().map(|s| (s.number, s.action)).collect::<Vec<_>>(),
        [(2, Action::Repeat)]
    );
    assert_eq!(labels(&site.apply().await.unwrap()), [(2, 1, 1)]);

    site.write("001_a.sql", "SELECT 1");
    site.write("003_c.sql", "SELECT 3");
    let failure = site.apply().await.unwrap_err();
    assert_eq!((failure.what.code(), failure.exit), (say::CHANGED_REFUSED, Exit::Refused));
    assert_eq!(site.ask("SELECT count(*)::text FROM app.obyra_seeds").await, "2");
}

#[tokio::test]
async fn an_error_names_the_place_and_leaves_nothing_behind() {
    let site = Site::new().await;
    for (text, place, said) in [
        (
            "INSERT INTO users VALUES (7, 7);\n-- ñandú\nSELECT 'año', 1 FROMM users;\nSELECT 1",
            (3, 23),
            "syntax error",
        ),
        ("SELECT 'ñ';\n  SELECT  nowhere", (2, 11), "column \"nowhere\" does not exist"),
        // Without a position from the server: the statement's beginning.
        (
            "INSERT INTO alembic_version VALUES ('x');\n /* again */ INSERT INTO alembic_version VALUES ('x')",
            (2, 14),
            "duplicate key",
        ),
        (
            "SELECT 1;;\nSELECT 2; DO $$ BEGIN RAISE EXCEPTION 'no; never'; END $$; SELECT 3",
            (2, 11),
            "no; never",
        ),
        ("DO $$ BEGIN COMMIT; END $$", (1, 1), "invalid transaction termination"),
        (
            "CREATE INDEX CONCURRENTLY ON users (organization_id)",
            (1, 1),
            "cannot run inside a transaction block",
        ),
        (
            "CREATE TABLE mine (); DROP TABLE mine; CREATE SCHEMA x; CREATE ROLE r",
            (1, 57),
            "permission denied",
        ),
        // Found at COMMIT: the constraint is deferred.
        ("INSERT INTO users VALUES (7, 7)", (1, 1), "violates foreign key"),
    ] {
        site.write("001_a.sql", text);
        let failure = site.apply().await.expect_err(text);
        let why = failure.why.clone().unwrap_or_default();
        assert!(why.contains(said), "{text}: {failure}");
        assert_eq!(line_and_column(failure.at), place, "{text}");
        assert_eq!(failure.what.code(), say::FAILED);
        assert_eq!(site.ask("SELECT count(*)::text FROM app.users").await, "0", "{text}");
        assert_eq!(site.ask("SELECT count(*)::text FROM app.obyra_seeds").await, "0", "{text}");
    }
}

#[tokio::test]
async fn seeds_before_a_failing_one_stay() {
    let site = Site::new().await;
    site.write("001_a.sql", ORGANIZATION);
    site.write("002_b.sql", "SELEC 1");
    site.write("003_c.sql", "SELECT 1");
    site.apply().await.unwrap_err();
    assert_eq!(site.ask("SELECT string_agg(number::text, ',') FROM app.obyra_seeds").await, "1");
    site.write("002_b.sql", "SELECT 1");
    assert_eq!(labels(&site.apply().await.unwrap()).len(), 2);
}

#[tokio::test]
async fn what_a_seed_sets_ends_with_it() {
    let site = Site::new().await;
    site.write("001_a.sql", "SELECT pg_catalog.set_config('search_path', '', false); SET ROLE obyra_migrate; SET lock_timeout = 0");
    site.write("002_b.sql", ORGANIZATION);
    site.write(
        "003_c.sql",
        "DO $$ BEGIN ASSERT current_user = 'obyra_owner' AND current_setting('lock_timeout') = '5s'; RAISE NOTICE 'so'; END $$",
    );
    let applied = site.apply().await.unwrap();
    assert_eq!(applied[2].notices, ["NOTICE: so"]);
}

#[tokio::test]
async fn a_seed_that_leaves_its_transaction_is_stopped_or_at_least_reported() {
    let site = Site::new().await;
    let text = "INSERT INTO organizations (name) VALUES ('a');\nCOMMIT; BEGIN; SELECT 1";
    let failure = Seed::new(1, "a", "001_a.sql", text.into()).unwrap_err();
    assert_eq!(failure.what.code(), say::TRANSACTION_CONTROL);
    assert_eq!(line_and_column(failure.at), (2, 1));

    // What the scan cannot see: a procedure's COMMIT fails inside a transaction, so nothing escapes.
    site.admin()
        .await
        .batch_execute(
            "CREATE PROCEDURE app.leave() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
             GRANT EXECUTE ON PROCEDURE app.leave() TO obyra_owner",
        )
        .await
        .unwrap();
    site.write("001_a.sql", "INSERT INTO organizations (name) VALUES ('a'); CALL leave()");
    let failure = site.apply().await.unwrap_err();
    assert!(failure.why.unwrap().contains("invalid transaction termination"));
    assert_eq!(site.ask("SELECT count(*)::text FROM app.organizations").await, "0");
}

#[tokio::test]
async fn a_plan_that_is_no_longer_true_is_not_carried_out() {
    let site = Site::new().await;
    site.write("001_a.sql", ORGANIZATION);
    let (seeds, stale) = (site.seeds(), site.plan().await);
    site.apply().await.unwrap();
    let session = site.runner().await;
    let lock = obyra_postgres::ChangeLock::acquire(&session, std::time::Duration::ZERO).await.unwrap();
    let planned = Planned { seeds: &seeds, plan: &stale, tracking: &tracking() };
    let failure = apply(&session, &lock, planned, &Quiet).await.unwrap_err();
    assert_eq!((failure.what.code(), failure.exit), (say::PLAN_CHANGED, Exit::Refused));
}

#[tokio::test]
async fn a_table_of_that_name_that_is_not_ours_is_not_touched() {
    let site = Site::new().await;
    site.admin().await.batch_execute("CREATE TABLE app.obyra_seeds (number int)").await.unwrap();
    let failure = observe(&site.runner().await, &tracking()).await.unwrap_err();
    assert_eq!(failure.what.code(), say::TRACKING_UNREADABLE);
}

#[tokio::test]
async fn without_rights_on_the_schema_nothing_is_tried() {
    let site = Site::new().await;
    site.admin()
        .await
        .batch_execute("ALTER SCHEMA app OWNER TO postgres; GRANT USAGE ON SCHEMA app TO obyra_owner")
        .await
        .unwrap();
    site.write("001_a.sql", ORGANIZATION);
    let failure = site.apply().await.unwrap_err();
    assert_eq!(failure.what.code(), say::TRACKING_NOT_CREATED);
    assert!(failure.why.unwrap().contains("permission denied for schema app"));
    assert!(failure.mend.is_some());
}

#[test]
fn a_plan_is_data() {
    let seeds = [Seed::new(1, "a", "001_a.sql", "SELECT 1".into()).unwrap()];
    let json = serde_json::to_value(plan(&seeds, &Observed::Absent)).unwrap();
    assert_eq!(json["steps"][0]["action"], "apply");
    assert_eq!(json["steps"][0]["reason"]["code"], "seeds.pending");
}
