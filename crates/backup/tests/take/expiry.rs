//! What an expiry does beside backups that run.

use obyra_backup::Policy;
use obyra_backup::expire::{self, Expired};
use obyra_backup::holdings::Holdings;
use obyra_backup::repository::claims::{Claim, Note};
use obyra_backup::take::Options;
use obyra_evidence::Quiet;

use super::server::{Server, Setup};
use super::site::{Site, Way};

/// In a month, the first of three backups goes, and its WAL with it.
async fn expired(site: &Site, holdings: &Holdings) -> Expired {
    let later = "2026-12-31T00:00:00Z".parse().unwrap();
    let plan = expire::plan(&site.repository, holdings, &Policy::default(), later).await.unwrap();
    assert!(!plan.wal.is_empty());
    expire::apply(&site.repository, &plan, holdings, &Quiet).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_stays_while_a_backup_runs_that_may_have_begun_before_all_others() {
    let site = Site::around(Server::start_new(Setup::default()).await).await;
    let cluster = site.server.cluster();
    let take = || async { site.try_take(Way::Local, Options::default(), &Quiet).await.unwrap() };
    for _ in 0..3 {
        take().await;
        site.archive().await;
    }
    let read = || async { Holdings::read(&site.repository, cluster).await.unwrap() };
    let before = read().await;
    let note = Note {
        environment: "test".to_owned(),
        host: "elsewhere".to_owned(),
        pid: 1,
        program: "test".to_owned(),
        started: "2026-11-24T03:00:00Z".parse().unwrap(),
        uses: Vec::new(),
        everything: false,
        ended: false,
        process: None,
    };
    let running = "20991124T030000Z-0001".parse().unwrap();
    let claim = Claim::begin(&site.repository, cluster, &running, note).await.unwrap();
    assert_eq!(expired(&site, &before).await.wal, 0, "one runs");
    claim.give_up().await;
    take().await;
    assert_eq!(expired(&site, &before).await.wal, 0, "one has come since");
    assert!(expired(&site, &read().await).await.wal > 0);
}
