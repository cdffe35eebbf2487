//! WAL that the server removed before it was archived: told, gone around, and filled where somebody has it.

use obyra_backup::wal::{ArchiveEvent, Hole};
use obyra_postgres::wal::TimelineId;

use super::receiver::{Receiver, SLOT};
use super::server::{Server, Setup};
use super::streams::load;
use super::timelines::hosts;
use super::{Vault, compare, lsn, mib, wait_until};

/// The server forgets WAL as soon as it may.
pub const FORGETFUL: [&str; 3] = ["max_wal_size=4MB", "min_wal_size=2MB", "checkpoint_timeout=30s"];

fn gap(event: &ArchiveEvent) -> Option<Hole> {
    if let ArchiveEvent::Gap(hole) = event { Some(*hole) } else { None }
}

async fn received_once(archive: &obyra_backup::wal::Archive, server: &Server) {
    let receiver = Receiver::start(archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    load(server, 2).await;
    receiver.has(lsn(&server.session().await, "pg_current_wal_flush_lsn()").await).await;
    receiver.stop().await;
}

/// Writes, and lets the server forget what it wrote.
pub async fn forget(server: &Server) {
    let session = server.session().await;
    wait_until(&session, "SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = 'archive'")
        .await;
    for _ in 0..3 {
        load(server, 4).await;
        session.batch_execute("CHECKPOINT").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_leaves_a_gap_that_is_told_once() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup { settings: &FORGETFUL, ..Setup::default() }).await;
    let archive = vault.archive(&server);
    received_once(&archive, &server).await;
    let session = server.session().await;
    session.batch_execute(&format!("SELECT pg_drop_replication_slot('{SLOT}')")).await.unwrap();
    forget(&server).await;

    let before = archive.index(mib(1)).await.unwrap().end(TimelineId::FIRST).unwrap();
    let receiver = Receiver::start(&archive, &server.admin());
    let hole = receiver.heard("a gap", gap).await;
    assert_eq!((hole.timeline, hole.from), (TimelineId::FIRST, before));
    let not_healed = |e: &ArchiveEvent| {
        matches!(e, ArchiveEvent::NotHealed { hole: found, .. } if *found == hole).then_some(())
    };
    receiver.heard("nobody has it", not_healed).await;
    receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
    assert!(receiver.all().iter().any(|e| matches!(e, ArchiveEvent::SlotCreated { .. }) && !e.is_alarm()));
    receiver.stop().await;
    let index = archive.index(mib(1)).await.unwrap();
    assert_eq!(index.holes(TimelineId::FIRST), [hole]);
    // The server still has the oldest that is there: not more was given up than had to be.
    assert!(server.wal(&file_name(hole)).exists());

    // The next receiver goes on after the hole, and does not tell of it as if it were new.
    let receiver = Receiver::start(&archive, &server.admin());
    load(&server, 1).await;
    receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
    assert!(receiver.all().iter().find_map(gap).is_none());
    receiver.stop().await;
}

fn file_name(hole: Hole) -> String {
    obyra_postgres::wal::SegmentName::containing(hole.to, hole.timeline, mib(1)).file_name(mib(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_filled_from_a_standby_that_has_it() {
    let vault = Vault::new().await;
    let primary = Server::start_new(Setup { settings: &FORGETFUL, ..Setup::default() }).await;
    let session = primary.session().await;
    session.batch_execute("SELECT pg_create_physical_replication_slot('standby', true)").await.unwrap();
    let standby = Server::standby_of(&primary, &["wal_keep_size=1GB", "primary_slot_name=standby"]).await;
    let archive = vault.archive(&primary);
    received_once(&archive, &primary).await;
    session.batch_execute(&format!("SELECT pg_drop_replication_slot('{SLOT}')")).await.unwrap();
    forget(&primary).await;
    let flushed = lsn(&session, "pg_current_wal_flush_lsn()").await;
    wait_until(&standby.session().await, &format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'")).await;

    let receiver = Receiver::start(&archive, &hosts([&primary, &standby]));
    let hole = receiver.heard("a gap", gap).await;
    let healed = |e: &ArchiveEvent| matches!(e, ArchiveEvent::Healed(found) if *found == hole).then_some(());
    receiver.heard("it is filled", healed).await;
    receiver.has(flushed).await;
    receiver.stop().await;
    let index = archive.index(mib(1)).await.unwrap();
    assert_eq!(index.holes(TimelineId::FIRST), []);
    assert!(compare(&archive, &standby, TimelineId::FIRST, mib(1)).await >= 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_made_anew() {
    for major in [14, 16, 18] {
        let vault = Vault::new().await;
        let settings = [&FORGETFUL[..], &["max_slot_wal_keep_size=2MB"]].concat();
        let server = Server::start_new(Setup { major, settings: &settings, ..Setup::default() }).await;
        let archive = vault.archive(&server);
        received_once(&archive, &server).await;
        forget(&server).await;
        let session = server.session().await;
        wait_until(&session, "SELECT wal_status = 'lost' FROM pg_replication_slots").await;

        let receiver = Receiver::start(&archive, &server.admin());
        receiver.heard("a gap", gap).await;
        load(&server, 1).await;
        receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
        wait_until(&session, "SELECT wal_status IN ('reserved', 'extended') FROM pg_replication_slots").await;
        let lost = receiver.all().iter().any(|e| matches!(e, ArchiveEvent::SlotLost { .. }));
        assert!(lost || major < 15, "PostgreSQL 14 does not tell, and takes it back");
        receiver.stop().await;
    }
}
