//! What is received is what the server wrote, byte for byte.

use std::fs;

use obyra_backup::wal::{ArchiveEvent, ReceiveOptions};
use obyra_evidence::{Exit, text};
use obyra_postgres::wal::{SegmentName, TimelineId};

use super::receiver::{Receiver, SLOT};
use super::server::{Server, Setup};
use super::{Vault, ask, compare, lsn, mib, wait_until};

/// Writes so many MiB of WAL in small transactions.
pub async fn load(server: &Server, mib: u64) {
    let session = server.session().await;
    session.batch_execute("CREATE TABLE IF NOT EXISTS load (id bigserial, words text)").await.unwrap();
    let begin = lsn(&session, "pg_current_wal_lsn()").await;
    while lsn(&session, "pg_current_wal_lsn()").await.bytes_since(begin) < mib << 20 {
        let some =
            "INSERT INTO load (words) SELECT repeat(md5(random()::text), 8) FROM generate_series(1, 500)";
        session.batch_execute(some).await.unwrap();
    }
}

/// What is received is what the server wrote, also across restarts of the receiver.
async fn byte_equal(setup: Setup<'_>, mib_of_wal: u64) {
    let size = mib(setup.segment_mib.into());
    let vault = Vault::new().await;
    // Nothing is recycled before the test has compared it.
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..setup }).await;
    let archive = vault.archive(&server);
    let receiver = Receiver::start(&archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    load(&server, mib_of_wal).await;
    let session = server.session().await;
    let end = lsn(&session, "pg_switch_wal()").await;
    session.batch_execute("CREATE TABLE in_the_next_segment ()").await.unwrap();
    receiver.has(end).await;
    wait_until(&session, &format!("SELECT flush_lsn >= '{end}' FROM pg_stat_replication")).await;
    assert_eq!(ask(&session, "SELECT application_name FROM pg_stat_replication").await, SLOT);
    let tail = lsn(&session, "pg_current_wal_flush_lsn()").await;
    receiver.has(tail).await;
    receiver.stop().await;

    let index = archive.index(size).await.unwrap();
    let first = index.timelines()[&TimelineId::FIRST].stretches[0].from;
    assert!(index.chain(first, tail, TimelineId::FIRST).is_complete());
    let compared = compare(&archive, &server, TimelineId::FIRST, size).await;
    assert!(compared as u64 * size.bytes() >= mib_of_wal << 20, "{compared} segments");
    // The unfinished one is there in parts, as far as it goes, and no part outlived its segment.
    let unfinished = SegmentName::containing(tail, TimelineId::FIRST, size);
    let parts = archive.get_parts(unfinished, size).await.unwrap();
    let written = fs::read(server.wal(&unfinished.file_name(size))).unwrap();
    assert!(parts.len() as u64 >= tail.segment_offset(size) && parts == written[..parts.len()]);
    assert!(index.timelines()[&TimelineId::FIRST].needless.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_every_size_and_version_are_byte_equal_under_load() {
    byte_equal(Setup { segment_mib: 1, ..Setup::default() }, 24).await;
    for major in [14, 18] {
        byte_equal(Setup { major, segment_mib: 16, ..Setup::default() }, 40).await;
    }
    byte_equal(Setup { segment_mib: 64, ..Setup::default() }, 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_goes_on_where_the_archive_ends() {
    let (vault, size) = (Vault::new().await, mib(1));
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let archive = vault.archive(&server);
    let session = server.session().await;
    for round in 0..8 {
        let receiver = Receiver::start(&archive, &server.admin());
        receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
        load(&server, 1 + round % 3).await;
        if round % 2 == 0 {
            receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
        }
        load(&server, 1).await;
        receiver.kill().await;
        wait_until(&session, "SELECT count(*) = 0 FROM pg_stat_replication").await;
    }
    let receiver = Receiver::start(&archive, &server.admin());
    let tail = lsn(&session, "pg_current_wal_flush_lsn()").await;
    receiver.has(tail).await;
    receiver.stop().await;
    let index = archive.index(size).await.unwrap();
    assert_eq!(index.timelines()[&TimelineId::FIRST].stretches.len(), 1, "no hole");
    assert!(compare(&archive, &server, TimelineId::FIRST, size).await >= 16);
    assert!(index.timelines()[&TimelineId::FIRST].needless.is_empty(), "leftovers were tidied away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shuts_down_waits_until_all_is_durable_and_comes_back() {
    let vault = Vault::new().await;
    let mut server = Server::start_new(Setup::default()).await;
    let archive = vault.archive(&server);
    // Without the server's question, the part would go out in an hour.
    let mut options = ReceiveOptions::new(SLOT);
    options.part_every = std::time::Duration::from_secs(3600);
    let receiver = Receiver::start_with(&archive, &server.admin(), options);
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    load(&server, 1).await;
    server.stop().await;
    receiver
        .heard("the server is gone", |e| matches!(e, ArchiveEvent::ServerLost { .. }).then_some(()))
        .await;
    let end = archive.index(mib(1)).await.unwrap().end(TimelineId::FIRST).unwrap();
    server.start().await;
    let session = server.session().await;
    assert!(
        end >= lsn(&session, "SELECT redo_lsn FROM pg_control_checkpoint()").await,
        "the last checkpoint"
    );
    let connected =
        |e: &ArchiveEvent| matches!(e, ArchiveEvent::Connected { from, .. } if *from >= end).then_some(());
    receiver.heard("it streams again", connected).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_cluster_is_refused_and_so_is_a_copy_that_went_its_own_way() {
    let vault = Vault::new().await;
    let mut server = Server::start_new(Setup::default()).await;
    let archive = vault.archive(&server);
    let stranger = Server::start_new(Setup::default()).await;
    let refused = Receiver::start(&archive, &stranger.admin()).end().await.unwrap_err();
    assert_eq!(refused.what.code(), text::backup::WAL_SERVER_OF_OTHER_CLUSTER);
    assert_eq!(refused.exit, Exit::Refused);

    let mut copy = Server::copy_of(&server, &[]);
    let receiver = Receiver::start(&archive, &server.admin());
    receiver.heard("it streams", |e| matches!(e, ArchiveEvent::Connected { .. }).then_some(())).await;
    load(&server, 1).await;
    receiver.has(lsn(&server.session().await, "pg_current_wal_flush_lsn()").await).await;
    receiver.stop().await;
    server.kill();
    // It has not been there, and writes something else into the same segments.
    copy.start().await;
    load(&copy, 3).await;
    let refused = Receiver::start(&archive, &copy.admin()).end().await.unwrap_err();
    assert_eq!(refused.what.code(), text::backup::WAL_TWO_WRITERS);
    assert!(refused.mend.unwrap().to_string().contains("new timeline"));
}
