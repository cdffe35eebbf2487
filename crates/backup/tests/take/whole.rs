//! Everything that a cluster may hold and that may happen to it while a backup is taken.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Child, Stdio};
use std::sync::Mutex;

use obyra_backup::repository::manifest::Source;
use obyra_backup::restore::{Instance, Target};
use obyra_backup::take::Options;
use obyra_evidence::{Message, Progress};
use obyra_postgres::{Limits, Session};
use tokio::sync::Notify;

use super::server::Server;
use super::site::{Site, Way, ask, contents, prove_sound};

/// A load that goes on until it is dropped.
pub struct Load(Child);

impl Load {
    pub fn start(server: &Server) -> Load {
        let mut pgbench = bench(server);
        pgbench.args(["--no-vacuum", "--client=3", "--jobs=1", "--time=600", "bench"]);
        Load(pgbench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub fn bench(server: &Server) -> std::process::Command {
    let mut pgbench = server.program("pgbench");
    pgbench.arg("--host").arg(server.admin().hosts()[0].socket_dir().unwrap());
    pgbench.args(["--username=postgres"]);
    pgbench
}

/// Tells when files are being read.
#[derive(Default)]
pub struct Begun {
    pub reading: Notify,
    pub said: Mutex<Vec<String>>,
}

impl Progress for Begun {
    fn begin(&self, what: Message, _: Option<u64>) {
        if what.code() == obyra_evidence::text::backup::TAKE_READING {
            self.reading.notify_one();
        }
    }
    fn advance(&self, _: u64) {}
    fn done(&self) {}
    fn note(&self, what: Message) {
        self.said.lock().unwrap().push(what.to_string());
    }
}

pub async fn in_database(site: &Site, name: &str) -> Session {
    Session::connect(&site.server.admin().with_database(name), Limits::patient()).await.unwrap()
}

/// A cluster with everything in it.
pub async fn furnish(site: &Site) {
    let session = site.session().await;
    for space in ["space one", "two"] {
        let folder = site.server.room().join(space);
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(site.server.owner().0), Some(site.server.owner().1)).unwrap();
        let sql = format!("CREATE TABLESPACE \"{space}\" LOCATION '{}'", folder.display());
        session.batch_execute(&sql).await.unwrap();
    }
    session.batch_execute("CREATE DATABASE bench").await.unwrap();
    super::server::run({
        let mut pgbench = bench(&site.server);
        pgbench.args(["--initialize", "--scale=2", "--quiet", "bench"]);
        pgbench
    });
    let made = "CREATE TABLE spaced (id int PRIMARY KEY USING INDEX TABLESPACE two, t text) TABLESPACE \"space one\";
        INSERT INTO spaced SELECT n, repeat(md5(n::text), 9) FROM generate_series(1, 20000) n;
        CREATE UNLOGGED TABLE unlogged AS SELECT n FROM generate_series(1, 5000) n;
        CREATE TABLE shrinking AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n;
        CREATE TABLE dropped AS SELECT n, repeat('y', 500) AS t FROM generate_series(1, 20000) n;
        CREATE TABLE rewritten AS SELECT n, repeat('z', 500) AS t FROM generate_series(1, 20000) n;
        DELETE FROM rewritten WHERE n % 2 = 0;
        CREATE TABLE hinted AS SELECT n, repeat('h', 100) AS t FROM generate_series(1, 30000) n;
        CREATE TABLE prepared (n int);
        SELECT lo_from_bytea(4711, decode(repeat('00ff10', 200000), 'hex'));
        CREATE TABLE empty (n int)";
    in_database(site, "bench").await.batch_execute(made).await.unwrap();
}

/// What happens while the backup is taken.
pub async fn disturb(site: &Site, major: u32) {
    let session = in_database(site, "bench").await;
    session
        .batch_execute("CREATE TEMPORARY TABLE passing AS SELECT n FROM generate_series(1, 9000) n")
        .await
        .unwrap();
    session
        .batch_execute("BEGIN; INSERT INTO prepared VALUES (1); PREPARE TRANSACTION 'later'")
        .await
        .unwrap();
    // Each page changes twice although nothing is written: what is committed, and what was rolled back.
    for _ in 0..2 {
        assert_eq!(ask(&session, "SELECT count(*) FROM hinted").await, "30000");
        session.batch_execute("BEGIN; DELETE FROM hinted; ROLLBACK").await.unwrap();
    }
    session.batch_execute("TRUNCATE shrinking").await.unwrap();
    session.batch_execute("DROP TABLE dropped").await.unwrap();
    session.batch_execute("VACUUM FULL rewritten").await.unwrap();
    session.batch_execute("DELETE FROM spaced WHERE id > 5000").await.unwrap();
    session.batch_execute("VACUUM (TRUNCATE) spaced").await.unwrap();
    let admin = site.session().await;
    let strategies: &[&str] = if major < 15 { &[""] } else { &["STRATEGY file_copy", "STRATEGY wal_log"] };
    for (number, strategy) in strategies.iter().enumerate() {
        let sql = format!("CREATE DATABASE made_{number} {strategy}");
        admin.batch_execute(&sql).await.unwrap();
        let made = in_database(site, &format!("made_{number}")).await;
        made.batch_execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 3000) n").await.unwrap();
    }
}

pub async fn restored(instance: &Instance, database: &str) -> Session {
    Session::connect(&instance.restored.admin(database).unwrap(), Limits::patient()).await.unwrap()
}

async fn survives(major: u32, way: Way) {
    let site = Site::new(major).await;
    furnish(&site).await;
    let load = Load::start(&site.server);
    let begun = Begun::default();
    // Slow enough that things happen while it is read.
    let options = Options { rate_max: Some(24 << 20), ..Options::default() };
    let (taken, ()) = tokio::join!(site.try_take(way, options, &begun), async {
        begun.reading.notified().await;
        disturb(&site, major).await;
    });
    let taken = taken.unwrap();
    drop(load);
    assert_eq!(taken.header.damaged, []);
    assert_eq!(taken.header.server_complaint, None);
    assert_eq!(taken.header.source, if way == Way::Local { Source::Local } else { Source::Protocol });
    assert_eq!(taken.header.tablespaces.len(), 2);
    assert!(begun.said.lock().unwrap().is_empty(), "{:?}", begun.said);
    let source = in_database(&site, "bench").await;
    let expected = contents(&source).await;
    site.archive().await;

    let instance = site.raise(&taken.header, Target::Latest).await;
    let copy = restored(&instance, "bench").await;
    assert_eq!(contents(&copy).await, expected);
    assert_eq!(ask(&copy, "SELECT count(*) FROM unlogged").await, "0");
    let large = "SELECT md5(lo_get(4711))";
    assert_eq!(ask(&copy, large).await, ask(&source, large).await);
    copy.batch_execute("COMMIT PREPARED 'later'").await.unwrap();
    assert_eq!(ask(&copy, "SELECT count(*) FROM prepared").await, "1");
    let made = restored(&instance, "made_0").await;
    assert_eq!(ask(&made, "SELECT count(*) FROM t").await, "3000");
    drop((copy, made));
    prove_sound(&site, instance).await;
    // And at its own end, without anything that came after.
    let instance = site.raise(&taken.header, Target::Backup(taken.header.id.clone())).await;
    prove_sound(&site, instance).await;
}

macro_rules! versions {
    ($($name:ident: $major:literal, $way:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            survives($major, Way::$way).await;
        })*
    };
}

versions! {
    postgresql_14_over_the_protocol: 14, Protocol;
    postgresql_14_from_its_directory: 14, Local;
    postgresql_15_over_the_protocol: 15, Protocol;
    postgresql_15_from_its_directory: 15, Local;
    postgresql_16_over_the_protocol: 16, Protocol;
    postgresql_16_from_its_directory: 16, Local;
    postgresql_17_over_the_protocol: 17, Protocol;
    postgresql_17_from_its_directory: 17, Local;
    postgresql_18_over_the_protocol: 18, Protocol;
    postgresql_18_from_its_directory: 18, Local;
}
