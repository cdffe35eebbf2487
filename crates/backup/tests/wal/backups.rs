//! The WAL of a base backup: delivered by somebody else or received along with it, and read back either way.

use obyra_backup::wal::{Archive, ArchiveEvent, Hole, ReservedWal, prove};
use obyra_evidence::text;
use obyra_postgres::Session;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId};

use super::gaps::{FORGETFUL, forget};
use super::receiver::Receiver;
use super::server::{Server, Setup};
use super::streams::load;
use super::{Vault, ask, compare, lsn, mib};

async fn start(session: &Session) -> Lsn {
    lsn(session, "pg_backup_start('test', fast => true)").await
}

async fn stop(session: &Session) -> Lsn {
    ask(session, "SELECT lsn FROM pg_backup_stop(wait_for_archive => false)").await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_receives_its_own_wal_where_nobody_else_does() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup::default()).await;
    let (archive, session) = (vault.archive(&server), server.session().await);
    let reserved = ReservedWal::reserve(&archive, &server.admin()).await.unwrap();
    let begin = start(&session).await;
    let wal = reserved.begin(begin, TimelineId::FIRST);
    load(&server, 3).await;
    let end = stop(&session).await;
    let proven = wal.finish(end).await.unwrap();
    assert!(proven.received && proven.segments >= 3, "{proven:?}");
    // Nothing is left behind, once the server has seen that the connection is gone.
    super::wait_until(&session, "SELECT count(*) = 0 FROM pg_replication_slots").await;

    // A segment that is missing, and one that is not what it should be, make it a backup without its WAL.
    let size = mib(1);
    let segment = SegmentName::containing(begin, TimelineId::FIRST, size);
    let object = vault.folder().join(archive_path(&server, segment));
    let kept = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let missing = prove(&archive, begin, end, TimelineId::FIRST, size).await.unwrap_err();
    assert_eq!(missing.what.code(), text::backup::WAL_OF_BACKUP_MISSING);
    assert_eq!(missing.what.fields()["file"], segment.file_name(size));
    let mut damaged = kept.clone();
    damaged[kept.len() / 2] ^= 1;
    std::fs::write(&object, damaged).unwrap();
    let damage = prove(&archive, begin, end, TimelineId::FIRST, size).await.unwrap_err();
    assert_eq!(damage.what.code(), text::backup::OBJECT_DAMAGED);
    std::fs::write(&object, kept).unwrap();
    assert_eq!(prove(&archive, begin, end, TimelineId::FIRST, size).await.unwrap(), proven.segments);
}

fn archive_path(server: &Server, segment: SegmentName) -> String {
    format!("{}/{}", server.cluster().wal(segment.timeline.0), segment.file_name(mib(1)))
}

/// A backup without anybody else who delivers; returns where its WAL begins and ends.
async fn alone(archive: &Archive, server: &Server) -> (Lsn, Lsn) {
    let session = server.session().await;
    let reserved = ReservedWal::reserve(archive, &server.admin()).await.unwrap();
    let begin = start(&session).await;
    let wal = reserved.begin(begin, TimelineId::FIRST);
    load(server, 1).await;
    let end = stop(&session).await;
    assert!(wal.finish(end).await.unwrap().received);
    (begin, end)
}

async fn holes(archive: &Archive) -> Vec<Hole> {
    archive.index(mib(1)).await.unwrap().holes(TimelineId::FIRST)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_with_a_whole_segment_and_brings_what_is_missing_before_it() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let (archive, size) = (vault.archive(&server), mib(1));
    let (begin, end) = alone(&archive, &server).await;
    let index = archive.index(size).await.unwrap();
    let last = SegmentName::ending_at(end, TimelineId::FIRST, size);
    assert_eq!(index.end(TimelineId::FIRST), Some(last.end(size)));
    assert!(index.timelines()[&TimelineId::FIRST].parts.is_empty(), "no segment is there in parts");
    load(&server, 3).await;
    let (_, end) = alone(&archive, &server).await;
    assert_eq!(holes(&archive).await, []);

    // A receiver that ends in the middle of a segment, and a backup that begins behind it.
    let receiver = Receiver::start(&archive, &server.admin());
    load(&server, 1).await;
    receiver.has(lsn(&server.session().await, "pg_current_wal_flush_lsn()").await).await;
    receiver.stop().await;
    load(&server, 1).await;
    let (_, last) = alone(&archive, &server).await;
    assert!(last > end);
    let chain = archive.index(size).await.unwrap().chain(begin, last, TimelineId::FIRST);
    assert!(chain.is_complete(), "{chain:?}");
    assert!(compare(&archive, &server, TimelineId::FIRST, size).await >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_forgot_between_two_backups_is_a_hole() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup { settings: &FORGETFUL, ..Setup::default() }).await;
    let (archive, size) = (vault.archive(&server), mib(1));
    let (_, first) = alone(&archive, &server).await;
    forget(&server).await;
    let (second, end) = alone(&archive, &server).await;
    let from = SegmentName::ending_at(first, TimelineId::FIRST, size).end(size);
    let to = second.segment_start(size);
    assert_eq!(holes(&archive).await, [Hole { timeline: TimelineId::FIRST, from, to }]);
    assert!(archive.index(size).await.unwrap().chain(second, end, TimelineId::FIRST).is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_archive_to_catch_up_waits_for_what_is_missing_further_back() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let archive = vault.archive(&server);
    alone(&archive, &server).await;
    load(&server, 24).await;
    alone(&archive, &server).await;
    // As if the first backup had been taken long before the second: nothing in between.
    let index = archive.index(mib(1)).await.unwrap();
    let stretches = &index.timelines()[&TimelineId::FIRST].stretches;
    let (from, to) = (stretches[0].from, stretches[stretches.len() - 1].to);
    let mut between = SegmentName::containing(from, TimelineId::FIRST, mib(1)).next();
    while between.end(mib(1)) < to {
        // Whole, in parts, or not brought at all.
        let whole = vault.folder().join(archive_path(&server, between));
        for entry in std::fs::read_dir(whole.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().starts_with(&*whole.to_string_lossy()) {
                std::fs::remove_file(path).unwrap();
            }
        }
        between = between.next();
    }
    let found = holes(&archive).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let receiver = Receiver::start(&archive, &server.admin());
    let caught_up = |event: &ArchiveEvent| matches!(event, ArchiveEvent::CaughtUp { .. }).then_some(());
    receiver.heard("it has caught up", caught_up).await;
    receiver.stop().await;
    assert_eq!(holes(&archive).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_leaves_it_to_a_receiver_that_runs() {
    let vault = Vault::new().await;
    let server = Server::start_new(Setup::default()).await;
    let (archive, session) = (vault.archive(&server), server.session().await);
    let receiver = Receiver::start(&archive, &server.admin());
    load(&server, 2).await;
    receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
    let reserved = ReservedWal::reserve(&archive, &server.admin()).await.unwrap();
    let begin = start(&session).await;
    let wal = reserved.begin(begin, TimelineId::FIRST);
    // It sees that the segment before the start arrives, and lets its slot go.
    super::wait_until(&session, "SELECT count(*) = 1 FROM pg_replication_slots").await;
    load(&server, 2).await;
    let proven = wal.finish(stop(&session).await).await.unwrap();
    assert!(!proven.received && proven.segments >= 2, "{proven:?}");
    receiver.stop().await;
}
