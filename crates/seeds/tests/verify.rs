//! The proof of idempotence, and what it catches.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod support;

use obyra_evidence::{Quiet, text::seeds as say};
use obyra_postgres::cluster::{Installation, cache_for_tests, for_tests_version, installation_for_tests};
use obyra_seeds::{Copied, Proof, Target, verify};
use support::{Site, tracking};

async fn proof(site: &Site, copied: Copied) -> Result<Proof, obyra_evidence::Failure> {
    proof_with(&installation_for_tests().await.unwrap(), site, copied).await
}

async fn proof_with(
    installation: &Installation,
    site: &Site,
    copied: Copied,
) -> Result<Proof, obyra_evidence::Failure> {
    let cache = cache_for_tests();
    let database = site.target();
    let target = Target { database: &database, run_as: "obyra_migrate", installation, cache: &cache, copied };
    verify(target, &site.seeds(), &tracking(), &Quiet).await
}

fn changes(proof: &Proof) -> Vec<(&str, &str)> {
    proof.changes.iter().map(|change| (change.seed.as_str(), change.table.as_str())).collect()
}

const ORGANIZATIONS: &str = "INSERT INTO organizations (name, r) VALUES ('Andén Sur', '{\"b\":1,\"a\":2}'), ('Ñandú', NULL) ON CONFLICT DO NOTHING;";

#[tokio::test]
async fn idempotent_seeds_are_proven_so_and_the_target_is_left_alone() {
    let site = Site::new().await;
    site.write("001_organizations.sql", ORGANIZATIONS);
    site.write(
        "002_users.sql",
        "INSERT INTO users SELECT 1, id FROM organizations WHERE name = 'Ñandú' ON CONFLICT DO NOTHING;
         DO $$ BEGIN
            ASSERT (SELECT version_num FROM alembic_version) = 'a1b2c3';
            ASSERT session_user = 'obyra_migrate' AND current_user = 'obyra_owner';
            ASSERT current_setting('search_path') = 'app, \"$user\"' AND current_database() = 'obras';
         END $$",
    );
    let proof = proof(&site, Copied::Schema).await.unwrap();
    assert!(proof.is_idempotent(), "{:?}", proof.changes);
    assert_eq!((proof.tables, proof.rows), (3, 4));
    assert_eq!(proof.seeds.len(), 2);
    assert_eq!(proof.sequences, ["app.organizations_id_seq"]);
    assert_eq!(site.ask("SELECT count(*)::text FROM app.organizations").await, "0");
}

#[tokio::test]
async fn the_administrator_may_run_them_too() {
    let site = Site::new().await;
    site.write("001_organizations.sql", "INSERT INTO app.users VALUES (1, 1); DELETE FROM app.users");
    let installation = installation_for_tests().await.unwrap();
    let (database, cache) = (site.cluster.admin().with_database("obras"), cache_for_tests());
    let target = Target {
        database: &database,
        run_as: database.user(),
        installation: &installation,
        cache: &cache,
        copied: Copied::Schema,
    };
    assert!(verify(target, &site.seeds(), &tracking(), &Quiet).await.unwrap().is_idempotent());
}

#[tokio::test]
async fn a_seed_that_rewrites_rows_is_caught_although_their_number_stays() {
    let site = Site::new().await;
    site.write("001_organizations.sql", ORGANIZATIONS);
    site.write(
        "002_touch.sql",
        "UPDATE organizations SET touched_at = clock_timestamp() WHERE name = 'Ñandú'",
    );
    site.write("003_more.sql", "INSERT INTO users SELECT coalesce(max(id), 0) + 1, 1 FROM users");
    let proof = proof(&site, Copied::Schema).await.unwrap();
    assert_eq!(changes(&proof), [("002_touch", "app.organizations"), ("003_more", "app.users")]);
    assert_eq!((proof.changes[0].rows_before, proof.changes[0].rows_after), (Some(2), Some(2)));
    assert_eq!((proof.changes[1].rows_before, proof.changes[1].rows_after), (Some(1), Some(2)));
}

#[tokio::test]
async fn seeds_that_undo_each_other_are_caught_and_tables_that_come_and_go_too() {
    let site = Site::new().await;
    site.write("001_organizations.sql", ORGANIZATIONS);
    site.write("002_one.sql", "UPDATE organizations SET touched_at = '2026-01-01' WHERE name = 'Ñandú'");
    site.write("003_two.sql", "UPDATE organizations SET touched_at = '2026-01-02' WHERE name = 'Ñandú'");
    site.write(
        "004_table.sql",
        "DO $$ BEGIN EXECUTE format('CREATE TABLE t%s ()', (SELECT count(*) FROM pg_tables)); END $$",
    );
    let proof = proof(&site, Copied::Schema).await.unwrap();
    let seeds: Vec<_> = changes(&proof).into_iter().map(|(seed, _)| seed).collect();
    assert_eq!(seeds, ["002_one", "003_two", "004_table"]);
    assert_eq!((proof.changes[2].rows_before, proof.changes[2].rows_after), (None, Some(0)));
}

#[tokio::test]
async fn data_that_migrations_made_is_copied_only_when_asked() {
    let site = Site::new().await;
    site.admin()
        .await
        .batch_execute("INSERT INTO app.organizations (id, name) VALUES (40, 'Base')")
        .await
        .unwrap();
    site.write("001_users.sql", "INSERT INTO users VALUES (1, 40) ON CONFLICT DO NOTHING");
    let failure = proof(&site, Copied::Schema).await.unwrap_err();
    assert_eq!(failure.what.code(), say::FAILED);
    assert!(proof(&site, Copied::SchemaAndData).await.unwrap().is_idempotent());
}

#[tokio::test]
async fn more_than_a_hundred_tables_of_every_kind() {
    let site = Site::new().await;
    site.admin()
        .await
        .batch_execute(
            "SET ROLE obyra_owner;
             DO $$ BEGIN FOR i IN 1..250 LOOP
                EXECUTE format('CREATE TABLE app.\"Tabla %s\" (t int, r text, obyra_row bytea)', i);
             END LOOP; END $$;
             CREATE TABLE app.kinds (r point, p inet, a int[], x xml, v tsvector, m money, e int4range, b bit(3));
             CREATE TABLE app.empty ();
             CREATE TABLE app.parts (k int, note text) PARTITION BY RANGE (k);
             CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES FROM (0) TO (10);
             CREATE MATERIALIZED VIEW app.seen AS SELECT count(*) FROM app.parts;
             ALTER TABLE app.kinds ENABLE ROW LEVEL SECURITY; ALTER TABLE app.kinds FORCE ROW LEVEL SECURITY;
             CREATE POLICY own ON app.kinds USING (false) WITH CHECK (true)",
        )
        .await
        .unwrap();
    site.write(
        "001_kinds.sql",
        "INSERT INTO kinds VALUES ('(1,2)', '10.0.0.1', '{1,2}', '<a/>', 'a:1', '3', '[1,2)', '101');
         INSERT INTO parts VALUES (1, clock_timestamp()::text)",
    );
    let proof = proof(&site, Copied::Schema).await.unwrap();
    assert_eq!(proof.tables, 256);
    assert_eq!(changes(&proof), [("001_kinds", "app.kinds"), ("001_kinds", "app.parts_1")]);
}

/// With newer programs, as where only those are installed, and with the version's own.
#[tokio::test]
async fn every_version_is_copied() {
    for major in [14, 15, 17, 18] {
        let cluster = for_tests_version(major).await;
        let site = Site::on(cluster).await;
        site.write("001_organizations.sql", ORGANIZATIONS);
        assert_eq!(site.apply().await.unwrap().len(), 1);
        // A server of a later release than the programs may have what they do not know: 15.20 does.
        if major < 15 {
            assert!(proof(&site, Copied::Schema).await.unwrap().is_idempotent());
        }
        let own = site.cluster.installation().clone();
        for copied in [Copied::Schema, Copied::SchemaAndData] {
            let proof = proof_with(&own, &site, copied).await.unwrap();
            assert!(proof.is_idempotent(), "{major}: {:?}", proof.changes);
            assert_eq!(proof.rows, 3, "{major}");
        }
        site.write("002_touch.sql", "UPDATE organizations SET touched_at = clock_timestamp()");
        let proof = proof_with(&own, &site, Copied::Schema).await.unwrap();
        assert_eq!(changes(&proof), [("002_touch", "app.organizations")]);
    }
}

#[tokio::test]
async fn programs_older_than_the_server_are_refused_before_anything_is_done() {
    let site = Site::new().await;
    let mut installation = installation_for_tests().await.unwrap();
    installation.major = 14;
    installation.version = "14.9".into();
    let (database, cache) = (site.target(), cache_for_tests());
    let target = Target {
        database: &database,
        run_as: "obyra_migrate",
        installation: &installation,
        cache: &cache,
        copied: Copied::Schema,
    };
    let failure = verify(target, &[], &tracking(), &Quiet).await.unwrap_err();
    assert_eq!(failure.what.code(), say::DUMP_TOO_OLD);
}
