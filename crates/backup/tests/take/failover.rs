//! Backups around a failover: taken before it or on the standby, and recovered to moments on both sides of it.

use std::time::Duration;

use obyra_backup::restore::Target;
use obyra_backup::take::{self, From, Options};
use obyra_backup::wal::Archive;
use obyra_evidence::Quiet;
use obyra_postgres::replication::Checkpoint;
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Conninfo, Limits, Session};
use tokio::time::timeout;

use super::receiver::Receiver;
use super::server::{Server, eventually, run};
use super::site::{Site, Way, ask, contents, prove_sound};
use super::whole::{Begun, Load, bench};

async fn session(server: &Server) -> Session {
    Session::connect(&server.admin().with_database("bench"), Limits::patient()).await.unwrap()
}

/// A primary with something in it, and a standby.
async fn pair() -> (Site, Server) {
    let site = Site::new(16).await;
    site.session().await.batch_execute("CREATE DATABASE bench").await.unwrap();
    let mut initialize = bench(&site.server);
    initialize.args(["--initialize", "--scale=2", "--quiet", "bench"]);
    run(initialize);
    let standby =
        Server::standby_of(&site.server, &["wal_keep_size=2GB", "max_prepared_transactions=5"]).await;
    (site, standby)
}

async fn flushed(server: &Server) -> Lsn {
    ask(&session(server).await, "SELECT pg_current_wal_flush_lsn()").await.parse().unwrap()
}

async fn replayed(standby: &Server, position: Lsn) {
    let condition = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    let session = standby.session().await;
    eventually(&condition, async || (ask(&session, &condition).await == "true").then_some(())).await;
}

/// Writes so much WAL under load that both sides of a moment have commits.
async fn work(server: &Server) -> Load {
    let load = Load::start(server);
    let begin = flushed(server).await;
    eventually("work is done", async || (flushed(server).await.bytes_since(begin) > 2 << 20).then_some(()))
        .await;
    load
}

/// What a server holds once the last of a load that was stopped has ended: a transaction that was under way may
/// commit a little later.
async fn settled(server: &Server) -> Vec<(String, String)> {
    let under_way = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'pgbench'";
    let session = session(server).await;
    eventually("the load ends", async || (ask(&session, under_way).await == "0").then_some(())).await;
    contents(&session).await
}

async fn survives(of_standby: bool) {
    let (mut site, standby) = pair().await;
    let hosts = [&site.server, &standby].map(|server| server.admin().hosts()[0].name.clone()).join(",");
    let either = "port=5432,5432 user=postgres dbname=postgres target_session_attrs=primary";
    let either = Conninfo::parse(&format!("host={hosts} {either}")).unwrap();
    let archive = Archive::new(&site.repository, site.server.cluster());
    let receiver = Receiver::start(&archive, &either);
    let load = work(&site.server).await;
    let target = if of_standby { standby.admin() } else { site.server.admin() };
    let options = Options { checkpoint: Checkpoint::Fast, threads: 2, ..Options::default() };
    let request = site.request(options);
    let taken = take::run(&site.repository, &From::Protocol { target }, &request, &Quiet).await.unwrap();
    assert!(!taken.wal.received, "the receiver delivers");
    drop(load);
    let before = settled(&site.server).await;
    let moment = flushed(&site.server).await;
    receiver.has(moment).await;
    replayed(&standby, moment).await;

    let load = work(&site.server).await;
    site.server.kill();
    drop(load);
    assert_eq!(ask(&standby.session().await, "SELECT pg_promote()").await, "true");
    drop(work(&standby).await);
    let after = settled(&standby).await;
    receiver.has(flushed(&standby).await).await;
    receiver.stop().await;

    let restored = async |target, expected: &[(String, String)]| {
        let instance = site.raise(&taken.header, target).await;
        let admin = instance.restored.admin("bench").unwrap();
        let copy = Session::connect(&admin, Limits::patient()).await.unwrap();
        assert!(contents(&copy).await == expected);
        drop(copy);
        prove_sound(&site, instance).await;
    };
    restored(Target::Latest, &after).await;
    restored(Target::Lsn(moment), &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_old_primary_recovers_along_the_new_one() {
    survives(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_standby_recovers_along_its_promotion() {
    survives(true).await;
}

/// A standby cannot switch segments: what it ends with is in the middle of one. And its backup's files are
/// only whole when all is replayed that it had replayed when the last of them was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_standby_brings_its_own_wal() {
    let (site, standby) = pair().await;
    let load = work(&site.server).await;
    let (site, _primary) = site.of(standby);
    let mut taken = Vec::new();
    for way in [Way::Protocol, Way::Local] {
        let backup = site.try_take(way, Options::default(), &Quiet).await.unwrap();
        assert!(backup.wal.received || !taken.is_empty(), "the first one has nobody else");
        taken.push(backup.header);
    }
    drop(load);
    // Nothing is written any more: the segment in which this one ends is never completed.
    let last = site.try_take(Way::Protocol, Options::default(), &Quiet);
    taken.push(timeout(Duration::from_secs(60), last).await.expect("it ends").unwrap().header);
    for header in taken {
        let instance = site.raise(&header, Target::Backup(header.id.clone())).await;
        prove_sound(&site, instance).await;
    }
}

/// What was read before and after a promotion does not belong together.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_during_which_its_standby_is_promoted_is_none() {
    let (site, standby) = pair().await;
    let begun = Begun::default();
    let options =
        Options { rate_max: Some(4 << 20), checkpoint: Checkpoint::Fast, threads: 2, ..Options::default() };
    let request = site.request(options);
    let from = From::Protocol { target: standby.admin() };
    let (taken, ()) = tokio::join!(take::run(&site.repository, &from, &request, &begun), async {
        begun.reading.notified().await;
        assert_eq!(ask(&standby.session().await, "SELECT pg_promote()").await, "true");
    });
    let failure = taken.unwrap_err();
    assert!(failure.to_string().contains("promoted"), "{failure}");
    assert_eq!(site.headers().await, []);
}
