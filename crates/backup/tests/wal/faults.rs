//! A store that fails, is slow, or does the work and then says that it failed: nothing is acknowledged that
//! it does not have, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::wal::{Archive, ArchiveEvent, ReceiveOptions};
use obyra_postgres::wal::TimelineId;
use obyra_postgres::{Limits, Session};
use tempfile::TempDir;

use super::faulty::{Faulty, Mood};
use super::receiver::{Receiver, SLOT};
use super::server::{Server, Setup};
use super::streams::load;
use super::{ask, compare, eventually, lsn, mib, wait_until};

async fn faulty(server: &Server) -> (TempDir, Arc<Faulty>, Archive) {
    let folder = tempfile::tempdir().unwrap();
    let faulty = Faulty::new(folder.path(), Mood::Well);
    let repository = Repository::open_or_create(faulty.store(), &Unlock::generate()).await.unwrap();
    let archive = Archive::new(&repository, server.cluster());
    (folder, faulty, archive)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_until_the_store_has_it() {
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let (_folder, store, archive) = faulty(&server).await;
    let session = server.session().await;
    session.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    session.batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'")).await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut options = ReceiveOptions::new(SLOT);
    // What goes out at once does so because the server waits.
    options.part_every = Duration::from_secs(3600);
    options.retained_bytes_max = 1 << 20;
    let receiver = Receiver::start_with(&archive, &server.admin(), options);
    let synchronous =
        |e: &ArchiveEvent| matches!(e, ArchiveEvent::Connected { synchronous: true, .. }).then_some(());
    receiver.heard("commits wait for it", synchronous).await;
    session.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    wait_until(&session, "SELECT coalesce(bool_or(sync_state = 'sync'), false) FROM pg_stat_replication")
        .await;

    store.set(Mood::Failing);
    let committing = tokio::spawn({
        let target = server.admin();
        async move {
            let session = Session::connect(&target, Limits::default()).await.unwrap();
            session.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        }
    });
    let failing = |e: &ArchiveEvent| matches!(e, ArchiveEvent::StoreFailing { .. }).then_some(());
    receiver.heard("the store fails", failing).await;
    let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until(&session, waits).await;
    // It was sent, and tried again and again; nothing of it is called durable.
    let tries = store.failed();
    eventually("it is tried again", async || (store.failed() > tries + 2).then_some(())).await;
    // That it is here was told, and no more than that.
    let written =
        "SELECT coalesce(bool_or(write_lsn >= pg_current_wal_flush_lsn()), false) FROM pg_stat_replication";
    wait_until(&session, written).await;
    let durable = "SELECT bool_or(flush_lsn >= write_lsn) FROM pg_stat_replication";
    assert_eq!(ask(&session, durable).await, "false");
    assert_eq!(ask(&session, waits).await, "true");
    assert!(!committing.is_finished());
    // The server is told that we live meanwhile, and somebody that its disk fills.
    session.batch_execute("SET synchronous_commit = off").await.unwrap();
    let filler = "INSERT INTO t SELECT generate_series(1, 100000)";
    session.batch_execute(filler).await.unwrap();
    let retained = |e: &ArchiveEvent| matches!(e, ArchiveEvent::Retained { .. }).then_some(());
    receiver.heard("the server keeps much", retained).await;

    store.set(Mood::Well);
    committing.await.unwrap();
    let back = |e: &ArchiveEvent| matches!(e, ArchiveEvent::StoreBack { .. }).then_some(());
    receiver.heard("the store is back", back).await;
    // A commit that waits has everything before it in the archive.
    session.batch_execute("RESET synchronous_commit").await.unwrap();
    session.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    receiver.stop().await;
    assert!(compare(&archive, &server, TimelineId::FIRST, mib(1)).await >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moody_store_ends_up_with_everything() {
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let (_folder, store, archive) = faulty(&server).await;
    let session = server.session().await;
    store.set(Mood::Moody);
    let receiver = Receiver::start(&archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    load(&server, 20).await;
    let tail = lsn(&session, "pg_current_wal_flush_lsn()").await;
    receiver.has(tail).await;
    assert!(store.failed() > 10);
    store.set(Mood::Well);
    receiver.stop().await;
    // The next one tidies what could not be deleted.
    let receiver = Receiver::start(&archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    receiver.stop().await;
    let index = archive.index(mib(1)).await.unwrap();
    let of = &index.timelines()[&TimelineId::FIRST];
    assert_eq!((of.stretches.len(), of.needless.len()), (1, 0));
    assert!(compare(&archive, &server, TimelineId::FIRST, mib(1)).await >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_stopped_does_not_wait_for_a_store_that_is_away() {
    let server = Server::start_new(Setup::default()).await;
    let (_folder, store, archive) = faulty(&server).await;
    let receiver = Receiver::start(&archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    store.set(Mood::Failing);
    load(&server, 1).await;
    let failing = |e: &ArchiveEvent| matches!(e, ArchiveEvent::StoreFailing { .. }).then_some(());
    receiver.heard("the store fails", failing).await;
    receiver.stop().await;
    // The server still has what the archive does not.
    let session = server.session().await;
    wait_until(&session, "SELECT NOT active FROM pg_replication_slots").await;
    let end = archive.index(mib(1)).await.unwrap().end(TimelineId::FIRST);
    let kept = lsn(&session, "SELECT restart_lsn FROM pg_replication_slots").await;
    assert!(end.is_none_or(|end| kept.segment_start(mib(1)) <= end));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_told_of_what_the_policy_does_not_bear() {
    let setup = Setup { settings: &["max_slot_wal_keep_size=4MB"], ..Setup::default() };
    let server = Server::start_new(setup).await;
    let (_folder, store, archive) = faulty(&server).await;
    let options = ReceiveOptions { synchronous: true, ..ReceiveOptions::new(SLOT) };
    let receiver = Receiver::start_with(&archive, &server.admin(), options);
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    let asynchronous = |e: &ArchiveEvent| {
        let waits = matches!(e, ArchiveEvent::Synchronous { waits: false, .. });
        (waits && e.is_alarm()).then_some(())
    };
    receiver.heard("no commit waits, although it should", asynchronous).await;
    store.set(Mood::Failing);
    load(&server, 4).await;
    // What the policy bears is more than the server does.
    let retained = |event: &ArchiveEvent| match event {
        ArchiveEvent::Retained { bytes, limit } => Some((*bytes, *limit, event.is_alarm())),
        _ => None,
    };
    let (bytes, limit, alarm) = receiver.heard("the server keeps much", retained).await;
    assert!(bytes > limit && limit == (4 << 20) / 10 * 8 && alarm, "{bytes} of {limit}");
    let session = server.session().await;
    assert_eq!(ask(&session, "SELECT wal_status <> 'lost' FROM pg_replication_slots").await, "true");
    store.set(Mood::Well);
    receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
    receiver.stop().await;
}
