//! Failovers: the archive follows, whether it was behind the new primary or ahead of it.

use obyra_backup::wal::{Archive, ArchiveEvent};
use obyra_postgres::Conninfo;
use obyra_postgres::wal::{SegmentName, TimelineId};

use super::receiver::Receiver;
use super::server::{Server, Setup};
use super::streams::load;
use super::{Vault, compare, lsn, mib, wait_until};

/// Both hosts; whoever is the primary is wanted.
pub fn hosts(servers: [&Server; 2]) -> Conninfo {
    let names = servers.map(|server| server.admin().hosts()[0].name.clone()).join(",");
    let text =
        format!("host={names} port=5432,5432 user=postgres dbname=postgres target_session_attrs=primary");
    Conninfo::parse(&text).unwrap()
}

async fn connected(receiver: &Receiver, timeline: u32) {
    let to = |e: &ArchiveEvent| {
        matches!(e, ArchiveEvent::Connected { timeline: found, .. } if found.0 == timeline).then_some(())
    };
    receiver.heard(&format!("it streams timeline {timeline}"), to).await;
}

/// After a promotion: WAL is complete along the new timeline, and equal to the new primary's.
async fn followed(archive: &Archive, receiver: Receiver, primary: &Server) {
    let size = mib(1);
    connected(&receiver, 2).await;
    load(primary, 3).await;
    let tail = lsn(&primary.session().await, "pg_current_wal_flush_lsn()").await;
    receiver.has(tail).await;
    receiver.stop().await;
    let index = archive.index(size).await.unwrap();
    let first = index.timelines()[&TimelineId::FIRST].stretches[0].from;
    let chain = index.chain(first, tail, TimelineId(2));
    assert!(chain.is_complete(), "{chain:?}");
    assert!(compare(archive, primary, TimelineId(2), size).await >= 3);
    // What the old timeline ended with stays what it is: a part.
    let left = index.histories()[&TimelineId(2)].begin();
    if left.segment_offset(size) > 0 && index.end(TimelineId::FIRST).unwrap() < left + size.bytes() {
        let last = SegmentName::containing(left, TimelineId::FIRST, size);
        assert_eq!(archive.get_segment(last, size).await.unwrap(), None);
        assert!(!archive.parts(last, size).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed_to_the_new_primary() {
    let vault = Vault::new().await;
    let mut primary = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let standby = Server::standby_of(&primary, &["wal_keep_size=1GB"]).await;
    let archive = vault.archive(&primary);
    let receiver = Receiver::start(&archive, &hosts([&primary, &standby]));
    connected(&receiver, 1).await;
    load(&primary, 3).await;
    let flushed = lsn(&primary.session().await, "pg_current_wal_flush_lsn()").await;
    let on_standby = standby.session().await;
    wait_until(&on_standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'")).await;
    primary.kill();
    wait_until(&on_standby, "SELECT pg_promote()").await;
    followed(&archive, receiver, &standby).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_ahead_of_the_new_primary_takes_its_way_from_the_branch() {
    let vault = Vault::new().await;
    let mut primary = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let mut standby = Server::standby_of(&primary, &["wal_keep_size=1GB"]).await;
    let archive = vault.archive(&primary);
    let receiver = Receiver::start(&archive, &hosts([&primary, &standby]));
    connected(&receiver, 1).await;
    load(&primary, 2).await;
    standby.stop().await;
    load(&primary, 3).await;
    receiver.has(lsn(&primary.session().await, "pg_current_wal_flush_lsn()").await).await;
    primary.kill();
    standby.start().await;
    wait_until(&standby.session().await, "SELECT pg_promote()").await;
    let index = archive.index(mib(1)).await.unwrap();
    let ahead = index.end(TimelineId::FIRST).unwrap();
    // Positions that were heard of the old timeline must not pass for the new one's.
    while lsn(&standby.session().await, "pg_current_wal_flush_lsn()").await <= ahead {
        load(&standby, 1).await;
    }
    followed(&archive, receiver, &standby).await;
    let index = archive.index(mib(1)).await.unwrap();
    assert!(index.histories()[&TimelineId(2)].begin() < ahead, "it was ahead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_as_source_is_followed_through_its_promotion() {
    let vault = Vault::new().await;
    let primary = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let standby = Server::standby_of(&primary, &["wal_keep_size=1GB"]).await;
    let archive = vault.archive(&primary);
    let receiver = Receiver::start(&archive, &standby.admin());
    connected(&receiver, 1).await;
    load(&primary, 2).await;
    wait_until(&standby.session().await, "SELECT pg_promote()").await;
    let switched =
        |e: &ArchiveEvent| matches!(e, ArchiveEvent::TimelineSwitch { to: TimelineId(2), .. }).then_some(());
    receiver.heard("the switch", switched).await;
    followed(&archive, receiver, &standby).await;
}
