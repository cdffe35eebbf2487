//! Logical exports of a real database: what is stored can be read by whoever holds the private key, and by
//! nobody else; an export that cannot be restored is none.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

use std::io::Write as _;
use std::process::Stdio;

use jiff::Timestamp;
use obyra_backup::export::{self, Recipients, Source};
use obyra_backup::figures;
use obyra_backup::repository::store::Store;
use obyra_evidence::Quiet;
use obyra_postgres::cluster::{TemporaryCluster, cache_for_tests, for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::{Conninfo, Limits, Session};

/// A name that a program might take for a connection string.
const DATABASE: &str = r"dbname=it's\";

const SCHEMA: &str = "
    CREATE ROLE obyra_app; CREATE ROLE obyra_owner;
    CREATE SCHEMA app AUTHORIZATION obyra_owner;
    CREATE TYPE app.state AS ENUM ('open', 'paid');
    CREATE TABLE app.\"Órdenes\" (id int PRIMARY KEY, note text, state app.state, at timestamptz);
    CREATE TABLE app.t (t float8, b bytea);
    ALTER TABLE app.\"Órdenes\" ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON app.\"Órdenes\" TO obyra_app USING (id > 0);
    GRANT SELECT ON app.\"Órdenes\" TO obyra_app;
    INSERT INTO app.\"Órdenes\" SELECT i, repeat('ñ', i), 'open', '2026-01-01'::timestamptz + i * interval '1 hour'
      FROM generate_series(1, 500) i;
    INSERT INTO app.t SELECT random(), decode(md5(i::text), 'hex') FROM generate_series(1, 2000) i;
    SELECT lo_from_bytea(0, 'a large object');";

struct Scene {
    cluster: TemporaryCluster,
    folder: tempfile::TempDir,
    identity: age::x25519::Identity,
}

impl Scene {
    async fn new(sql: &str) -> Scene {
        let cluster = for_tests().await;
        let admin = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE \"{DATABASE}\"")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene { cluster, folder, identity: age::x25519::Identity::generate() };
        let shop = Session::connect(&scene.database(), Limits::default()).await.unwrap();
        shop.batch_execute(sql).await.unwrap();
        scene
    }

    fn database(&self) -> Conninfo {
        self.cluster.admin().with_database(DATABASE)
    }

    fn store(&self) -> Store {
        Store::folder(self.folder.path()).unwrap()
    }

    async fn export(&self, now: Timestamp) -> obyra_backup::Result<export::Export> {
        let database = self.database();
        let source = Source {
            environment: "production",
            database: &database,
            installation: self.cluster.installation(),
            cache: &cache_for_tests(),
        };
        let recipients = Recipients::parse(&[self.identity.to_public().to_string()]).unwrap();
        export::run(&source, &self.store(), &recipients, now, &Quiet).await
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn figures_of(database: &Conninfo) -> Vec<figures::TableFigures> {
    let session = Session::connect(database, Limits::default()).await.unwrap();
    session.batch_execute("BEGIN").await.unwrap();
    figures::take(&session).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_the_private_key_gets_every_row_back() {
    let scene = Scene::new(SCHEMA).await;
    let exported = scene.export(at("2026-11-24T03:00:00Z")).await.unwrap();
    assert_eq!((exported.tables, exported.rows), (2, 2500));
    assert_eq!(export::list(&scene.store(), "production").await.unwrap(), std::slice::from_ref(&exported));

    let sealed = scene.store().get(&exported.object).await.unwrap().unwrap();
    assert_eq!(blake3::hash(&sealed).to_hex().as_str(), exported.blake3);
    let stranger = age::x25519::Identity::generate();
    assert!(age::decrypt(&stranger, &sealed).is_err());
    let dump = age::decrypt(&scene.identity, &sealed).unwrap();

    let admin = Session::connect(&scene.cluster.admin(), Limits::default()).await.unwrap();
    admin.batch_execute("CREATE DATABASE again").await.unwrap();
    let again = scene.cluster.admin().with_database("again");
    let mut restore = scene.cluster.installation().tool("pg_restore");
    restore.args(["--exit-on-error", "--dbname", "again"]).stdin(Stdio::piped());
    for (name, value) in again.env() {
        restore.env(name, value.expose_secret());
    }
    let mut restoring = restore.into_std().spawn().unwrap();
    restoring.stdin.take().unwrap().write_all(&dump).unwrap();
    assert!(restoring.wait().unwrap().success());
    assert_eq!(figures_of(&again).await, figures_of(&scene.database()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retention_keeps_the_newest_whatever_its_age() {
    let scene = Scene::new("CREATE TABLE t (i int)").await;
    for day in ["2026-09-01", "2026-10-01"] {
        scene.export(at(&format!("{day}T03:00:00Z"))).await.unwrap();
    }
    let gone = export::expire(&scene.store(), "production", at("2026-11-01T00:00:00Z")).await.unwrap();
    assert_eq!(gone.len(), 1);
    let left = export::list(&scene.store(), "production").await.unwrap();
    assert_eq!(left.iter().map(|one| one.taken.to_string()).collect::<Vec<_>>(), ["2026-10-01T03:00:00Z"]);
    assert!(scene.store().get(&gone[0].object).await.unwrap().is_none());
}

/// A check that reads another table: pg_dump succeeds, and what it wrote is of no use.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_cannot_be_restored_is_not_described() {
    let scene = Scene::new(
        "CREATE TABLE zones (v int); INSERT INTO zones VALUES (7);
         CREATE FUNCTION zone() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT v FROM zones';
         CREATE TABLE t (i int CHECK (i < zone())); INSERT INTO t VALUES (1);",
    )
    .await;
    let failure = scene.export(at("2026-11-24T03:00:00Z")).await.unwrap_err();
    assert!(failure.to_string().contains("pg_restore"), "{failure}");
    assert!(failure.to_string().contains("zones"), "in its own words: {failure}");
    assert!(export::list(&scene.store(), "production").await.unwrap().is_empty());
}

/// A server of a later release keeps a mark of its own among a column's options.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_older_than_the_server_are_named() {
    let scene = Scene::new(
        "CREATE TABLE t (i int);
         UPDATE pg_attribute SET attoptions = '{pg_attver=1}' WHERE attrelid = 't'::regclass AND attname = 'i'",
    )
    .await;
    let failure = scene.export(at("2026-11-24T03:00:00Z")).await.unwrap_err();
    assert_eq!(failure.mend.unwrap().code().id(), "cluster.older-release-mend");
    assert!(export::list(&scene.store(), "production").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_encrypt_for_and_no_server() {
    assert!(Recipients::parse(&[]).is_err());
    let failure = Recipients::parse(&["age1nonsense".to_owned()]).err().unwrap();
    assert!(failure.to_string().contains("age1nonsense"), "{failure}");
    let scene = Scene::new("CREATE TABLE t (i int)").await;
    let nowhere = Conninfo::parse("postgresql://x@127.0.0.1:1/x").unwrap();
    let source = Source {
        environment: "production",
        database: &nowhere,
        installation: scene.cluster.installation(),
        cache: &cache_for_tests(),
    };
    let recipients = Recipients::parse(&[scene.identity.to_public().to_string()]).unwrap();
    let failed = export::run(&source, &scene.store(), &recipients, at("2026-11-24T03:00:00Z"), &Quiet).await;
    assert!(failed.is_err());
}
