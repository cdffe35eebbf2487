use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::store::{Options, Store};
use obyra_backup::restore::Target;
use obyra_backup::take;
use obyra_backup::verify::{self, Share};
use obyra_evidence::{Quiet, text};
use obyra_postgres::{Limits, Session};

use crate::proxy::{Fault, Proxy, Request};
use crate::seaweed::{BUCKET, options, seaweed, store};
use crate::site::{Site, Way, ask, contents, prove_sound};

const MADE: &str = "CREATE TABLE kept (id int PRIMARY KEY, t text);
    INSERT INTO kept SELECT n, repeat(md5(n::text), 9) FROM generate_series(1, 20000) n; CHECKPOINT";
const CHANGED: &str = "UPDATE kept SET t = 'changed ' || id WHERE id % 97 = 0;
    CREATE TABLE later AS SELECT n FROM generate_series(1, 3000) n";

/// A cluster whose backups go through a proxy.
async fn site(proxy: &Proxy, prefix: &str, unlock: &Unlock) -> Site {
    let mut site = Site::new(16).await;
    let there = Store::open(&format!("s3://{BUCKET}/{prefix}"), &options(proxy.port)).unwrap();
    site.repository = Repository::open_or_create(there, unlock).await.unwrap();
    site
}

/// A full backup, an incremental one and WAL go up, and a server comes back, while one request of six meets
/// a fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_backed_up_and_brought_back_through_faults() {
    let proxy = Proxy::start(seaweed().port).await;
    let site = site(&proxy, "cluster", &Unlock::generate()).await;
    proxy.choose(|request: &Request| {
        let turn = request.number as usize;
        turn.is_multiple_of(6).then(|| Fault::PASSING[turn / 6 % Fault::PASSING.len()])
    });
    let session = site.session().await;
    session.batch_execute(MADE).await.unwrap();
    let full = site.try_take(Way::Protocol, take::Options::default(), &Quiet).await.unwrap();
    session.batch_execute(CHANGED).await.unwrap();
    let taken = site.try_take(Way::Local, take::Options::default(), &Quiet).await.unwrap();
    assert_eq!(taken.header.parent, Some(full.header.id.clone()));
    assert!(taken.header.totals.stored < full.header.totals.stored / 2, "{:?}", taken.header.totals);
    session
        .batch_execute("INSERT INTO kept SELECT n, 'after' FROM generate_series(30000, 31000) n")
        .await
        .unwrap();
    let expected = contents(&session).await;
    site.archive().await;
    let instance = site.raise(&taken.header, Target::Latest).await;
    let restored =
        Session::connect(&instance.restored.admin("postgres").unwrap(), Limits::patient()).await.unwrap();
    assert_eq!(contents(&restored).await, expected);
    assert_eq!(ask(&restored, "SELECT count(*) FROM kept WHERE t = 'after'").await, "1001");
    drop(restored);
    prove_sound(&site, instance).await;
    let verified = verify::contents(&site.repository, &Share::ALL, None, &Quiet).await.unwrap();
    assert_eq!(verified.faults, []);
    let (requests, faults) = proxy.counts();
    assert!(requests > 100 && faults > 15, "{requests} {faults}");
}

/// The store goes away in the middle of a backup: told clearly, nothing is broken, and what arrived is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_leaves_nothing_broken() {
    let (proxy, unlock) = (Proxy::start(seaweed().port).await, Unlock::generate());
    let mut site = site(&proxy, "away", &unlock).await;
    let patience = Some(std::time::Duration::from_secs(1));
    let impatient = Options { patience, ..options(proxy.port) };
    let there = Store::open(&format!("s3://{BUCKET}/away"), &impatient).unwrap();
    site.repository = Repository::open(there, &unlock).await.unwrap();
    let session = site.session().await;
    session.batch_execute(MADE).await.unwrap();
    for (method, part) in [("PUT", "/packs/"), ("PUT", "/wal/"), ("PUT", "/backups/")] {
        proxy.next(u64::MAX, method, part, Fault::Refused(503));
        let failure = site.try_take(Way::Protocol, take::Options::default(), &Quiet).await.unwrap_err();
        assert!(failure.to_string().contains(part), "{part}: {failure}");
        assert_eq!(failure.mend.as_ref().unwrap().code(), text::backup::STORE_BUSY_MEND, "{failure}");
        let plain = Repository::open(store("away"), &unlock).await.unwrap();
        let verified = verify::contents(&plain, &Share::ALL, None, &Quiet).await.unwrap();
        assert_eq!((verified.faults, verified.backups), (Vec::new(), 0), "{part}");
    }
    proxy.next(0, "", "", Fault::Slow);
    let expected = contents(&session).await;
    let taken = site.try_take(Way::Protocol, take::Options::default(), &Quiet).await.unwrap();
    let instance = site.raise(&taken.header, Target::Backup(taken.header.id.clone())).await;
    let restored =
        Session::connect(&instance.restored.admin("postgres").unwrap(), Limits::patient()).await.unwrap();
    assert_eq!(contents(&restored).await, expected);
}
