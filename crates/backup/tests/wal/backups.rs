//! The WAL of a base backup: delivered by somebody else or received along with it, and read back either way.

use obyra_backup::wal::{ReservedWal, prove};
use obyra_evidence::text;
use obyra_postgres::Session;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId};

use super::receiver::Receiver;
use super::server::{Server, Setup};
use super::streams::load;
use super::{Vault, ask, lsn, mib};

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
