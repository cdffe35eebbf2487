//! WAL as it is written: the bytes of pg_wal, the reports, and what cannot be had.

use std::fs;

use futures_util::FutureExt as _;
use obyra_evidence::{Code, text::postgres, text::replication as say};
use obyra_postgres::Session;
use obyra_postgres::cluster::{MAJORS_FOR_TESTS, TemporaryCluster};
use obyra_postgres::replication::{StandbyStatus, StartWal, WalEvent, WalStream, Walsender};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId};

use super::streams::SIZE;
use super::{ask, cluster, session, wait_until, walsender};

/// Some WAL, and a whole segment of it for each switch.
async fn write_wal(sql: &Session, switches: usize) -> Lsn {
    for _ in 0..switches {
        sql.batch_execute("CREATE TABLE IF NOT EXISTS w (); DROP TABLE w; SELECT pg_switch_wal()")
            .await
            .unwrap();
    }
    sql.batch_execute("SET synchronous_commit = on; CREATE TABLE IF NOT EXISTS w (); DROP TABLE w")
        .await
        .unwrap();
    ask(sql, "SELECT pg_current_wal_flush_lsn()").await.parse().unwrap()
}

fn flushed(position: Lsn) -> StandbyStatus {
    StandbyStatus { written: position, flushed: position, applied: Lsn(0) }
}

#[tokio::test]
async fn what_is_received_is_what_the_server_has() {
    for major in MAJORS_FOR_TESTS {
        // In a task of its own, as a receiver beside other work is.
        tokio::spawn(async move { received(&cluster(major, &[]).await).await }).await.unwrap();
    }
}

async fn received(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    let mut sender = walsender(&cluster.loopback()).await;
    sender.create_physical_slot("archive", true, false).await.unwrap();
    let identity = sender.identify_system().await.unwrap();
    let start = identity.position.segment_start(SIZE);
    let wanted = StartWal { slot: Some("archive".into()), timeline: identity.timeline, start };
    let mut stream = sender.start_wal(wanted.clone()).await.unwrap();
    let end = write_wal(&sql, 3).await;
    let mut bytes = Vec::new();
    while start + (bytes.len() as u64) < end {
        // A timer that fires all the time: whatever is cut short loses nothing.
        let Some(event) = stream.next().now_or_never() else {
            tokio::task::yield_now().await;
            stream.report(flushed(start)).await.unwrap();
            continue;
        };
        if let WalEvent::Data { start: at, server_end, bytes: piece } = event.unwrap() {
            assert_eq!(at, start + bytes.len() as u64);
            assert!(server_end >= at);
            bytes.extend_from_slice(&piece);
        }
    }

    let mut segment = SegmentName::containing(start, identity.timeline, SIZE);
    let chunks = bytes.chunks(usize::try_from(SIZE.bytes()).unwrap());
    assert!(chunks.len() >= 4);
    for chunk in chunks {
        let file = fs::read(cluster.dir().join("data/pg_wal").join(segment.file_name(SIZE))).unwrap();
        assert!(file.starts_with(chunk), "{segment}");
        segment = segment.next();
    }

    let position = start + bytes.len() as u64;
    stream.report(StandbyStatus { written: position, flushed: end, applied: Lsn(0) }).await.unwrap();
    let reported = format!(
        "SELECT write_lsn = '{position}' AND flush_lsn = '{end}' AND application_name = 'obyra-db'
             AND abs(extract(epoch FROM now() - reply_time)) < 3600 FROM pg_stat_replication"
    );
    wait_until(&sql, &reported).await;
    let kept = format!("SELECT restart_lsn = '{end}' AND active FROM pg_replication_slots");
    wait_until(&sql, &kept).await;

    // Another receiver with the same slot, while this one has it and afterwards.
    let mut other = walsender(&cluster.admin()).await;
    assert_eq!(refused(&mut other, wanted.clone()).await, say::SLOT_ACTIVE);
    sender.close().await;
    let again = StartWal { start: position.segment_start(SIZE), ..wanted };
    let mut stream = other.start_wal(again).await.unwrap();
    let WalEvent::Data { .. } = stream.next().await.unwrap() else { panic!("no data") };
}

/// Why WAL cannot be had, be it at once or when the server gets there.
async fn refused(sender: &mut Walsender, wanted: StartWal) -> Code {
    let failure = match sender.start_wal(wanted).await {
        Err(failure) => failure,
        Ok(mut stream) => loop {
            match stream.next().await {
                Ok(WalEvent::Data { .. } | WalEvent::KeepAlive { .. }) => {}
                Ok(end) => panic!("{end:?}"),
                Err(failure) => break failure,
            }
        },
    };
    assert!(failure.mend.is_some(), "{failure:?}");
    sender.identify_system().await.unwrap();
    failure.what.code()
}

#[tokio::test]
async fn wal_that_cannot_be_had_says_why() {
    for major in MAJORS_FOR_TESTS {
        let settings = [
            ("min_wal_size", "32MB"),
            ("max_wal_size", "32MB"),
            ("wal_keep_size", "0"),
            ("max_slot_wal_keep_size", "1MB"),
        ];
        unavailable(&cluster(major, &settings).await).await;
    }
}

async fn unavailable(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    let mut sender = walsender(&cluster.admin()).await;
    sender.create_physical_slot("outrun", true, false).await.unwrap();
    let identity = sender.identify_system().await.unwrap();
    let (timeline, start) = (identity.timeline, identity.position.segment_start(SIZE));
    let end = write_wal(&sql, 4).await;
    sql.batch_execute("CHECKPOINT").await.unwrap();
    let wanted =
        |slot: Option<&str>, timeline, start| StartWal { slot: slot.map(Into::into), timeline, start };

    assert_eq!(refused(&mut sender, wanted(None, timeline, start)).await, say::WAL_REMOVED);
    // Before 18 the server does not look whether the slot still keeps what is asked for.
    let lost = if sender.version().at_least(18) { say::SLOT_LOST } else { say::WAL_REMOVED };
    assert_eq!(refused(&mut sender, wanted(Some("outrun"), timeline, start)).await, lost);
    assert_eq!(refused(&mut sender, wanted(Some("none"), timeline, end)).await, say::SLOT_MISSING);
    assert_eq!(refused(&mut sender, wanted(None, TimelineId(7), end)).await, say::NOT_IN_HISTORY);
    assert_eq!(refused(&mut sender, wanted(None, timeline, end + (1 << 30))).await, say::AHEAD);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_hung_up_on() {
    for major in MAJORS_FOR_TESTS {
        let cluster = cluster(major, &[("wal_sender_timeout", "600ms")]).await;
        let mut sender = walsender(&cluster.loopback()).await;
        let identity = sender.identify_system().await.unwrap();
        let wanted = StartWal { slot: None, timeline: identity.timeline, start: identity.position };
        let mut stream = sender.start_wal(wanted).await.unwrap();
        for _ in 0..3 {
            until_asked(&mut stream).await;
            stream.report(flushed(identity.position)).await.unwrap();
        }
        let failure = loop {
            match stream.next().await {
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.what.code(), say::RECEIVE_WAL);
        assert_eq!(failure.mend.unwrap().code(), postgres::MEND_SERVER_RESTART);
    }
}

async fn until_asked(stream: &mut WalStream<'_>) {
    while !matches!(stream.next().await.unwrap(), WalEvent::KeepAlive { reply_requested: true, .. }) {}
}
