//! A standby that is promoted, followed from one timeline to the next, and servers that go away.

use obyra_evidence::{text::postgres, text::replication as say};
use obyra_postgres::cluster::{MAJORS_FOR_TESTS, TemporaryCluster};
use obyra_postgres::replication::{
    BackupEvent, BaseBackupOptions, Checkpoint, StandbyStatus, StartWal, WalEvent, WalStream, Walsender,
};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::wal::{Lsn, TimelineId};
use obyra_postgres::{Conninfo, Reveal, Scheme};

use super::restored::Restored;
use super::streams::{Receiver, SIZE};
use super::{ask, cluster, session, wait_until, walsender, written};

#[tokio::test]
async fn a_promotion_is_followed() {
    for major in MAJORS_FOR_TESTS {
        // Without full pages in the WAL, a standby's backup would be of no use.
        let primary = cluster(major, &[("full_page_writes", "on")]).await;
        promoted(&primary).await;
    }
}

/// A standby of our own making.
async fn standby(primary: &TemporaryCluster, backup: &written::Written) -> Restored {
    let url = primary.admin().url(Scheme::Postgresql, Reveal::Password);
    backup.put("standby.signal", b"");
    let conninfo = format!("primary_conninfo = '{}'\n", url.expose_secret());
    backup.put("postgresql.auto.conf", conninfo.as_bytes());
    Restored::start(&backup.data(), primary, &[]).await
}

fn fast() -> BaseBackupOptions {
    BaseBackupOptions { checkpoint: Checkpoint::Fast, ..BaseBackupOptions::default() }
}

async fn promoted(primary: &TemporaryCluster) {
    let on_primary = session(&primary.admin()).await;
    on_primary.batch_execute("CREATE TABLE t AS SELECT 1 AS i").await.unwrap();
    let mut receiver = Receiver::start(&primary.admin()).await;
    let backup = written::write(primary, &mut walsender(&primary.admin()).await, &fast()).await;
    receiver.receive_until(backup.end.0).await;
    receiver.write(primary, &backup.data().join("pg_wal"));
    let standby = standby(primary, &backup).await;
    let on_standby = session(&standby.admin()).await;
    wait_until(&on_standby, "SELECT count(*) = 1 FROM pg_stat_wal_receiver").await;
    kinds(primary, &standby).await;

    let mut sender = walsender(&standby.admin()).await;
    let mut from_standby = sender.base_backup(&fast()).await.unwrap();
    let mut last = None;
    while let Some(event) = from_standby.next().await.unwrap() {
        last = Some(event);
    }
    assert!(matches!(last, Some(BackupEvent::Finished { corrupt: None, .. })), "{last:?}");

    let identity = sender.identify_system().await.unwrap();
    assert_eq!(identity.timeline, TimelineId::FIRST);
    let mut position = identity.position.segment_start(SIZE);
    let wanted = StartWal { slot: None, timeline: identity.timeline, start: position };
    let mut stream = sender.start_wal(wanted).await.unwrap();
    assert_eq!(ask(&on_standby, "SELECT pg_promote()").await, "true");
    let WalEvent::TimelineEnded { next_timeline, switch_point } = ended(&mut stream, &mut position).await
    else {
        panic!("no end of the timeline")
    };
    assert_eq!((next_timeline, position), (TimelineId(2), switch_point));
    assert!(matches!(stream.next().await.unwrap(), WalEvent::TimelineEnded { .. }), "it says so again");

    history(&mut sender, switch_point).await;
    let wanted = StartWal { slot: None, timeline: next_timeline, start: switch_point.segment_start(SIZE) };
    let mut stream = sender.start_wal(wanted.clone()).await.unwrap();
    position = wanted.start;
    while position <= switch_point {
        more(&mut stream, &mut position).await;
    }
    // It waits for us to have everything before it goes.
    standby.stop();
    assert_eq!(ended(&mut stream, &mut position).await, WalEvent::ShutDown);
    assert_eq!(stream.next().await.unwrap(), WalEvent::ShutDown);
}

/// Each kind of server is found among the two.
async fn kinds(primary: &TemporaryCluster, standby: &Restored) {
    let hosts = [primary.admin().hosts()[0].clone(), standby.admin().hosts()[0].clone()];
    let names = hosts.each_ref().map(|host| host.name.as_str()).join(",");
    let ports = hosts.each_ref().map(|host| host.port.to_string()).join(",");
    let password = primary.admin().password().unwrap().expose_secret().to_owned();
    for (attrs, in_recovery) in [
        ("any", false),
        ("primary", false),
        ("read-write", false),
        ("standby", true),
        ("prefer-standby", true),
    ] {
        let target = Conninfo::parse(&format!(
            "host={names} port={ports} user=postgres password={password} target_session_attrs={attrs}"
        ));
        assert_eq!(walsender(&target.unwrap()).await.in_recovery(), in_recovery, "{attrs}");
    }
}

/// What the promoted server says of the two timelines, and does not have.
async fn history(sender: &mut Walsender, switch_point: Lsn) {
    assert_eq!(sender.identify_system().await.unwrap().timeline, TimelineId(2));
    let file = sender.timeline_history(TimelineId(2)).await.unwrap();
    assert_eq!(file.name, "00000002.history");
    let history = file.parse().unwrap();
    assert_eq!(history.switch_point(TimelineId::FIRST), Some(switch_point));
    assert!(history.descends_from(TimelineId::FIRST, switch_point));

    // From the very end of the first timeline there is nothing but the next one.
    let wanted = StartWal { slot: None, timeline: TimelineId::FIRST, start: switch_point };
    let mut stream = sender.start_wal(wanted.clone()).await.unwrap();
    let ended = WalEvent::TimelineEnded { next_timeline: TimelineId(2), switch_point };
    assert_eq!(stream.next().await.unwrap(), ended);
    let beyond = StartWal { start: switch_point + 8, ..wanted };
    let failure = sender.start_wal(beyond).await.err().unwrap();
    assert_eq!(failure.what.code(), say::NOT_IN_HISTORY);
    assert!(failure.mend.is_some());
}

/// The next event, answered where it brought something: a server that has our answer to all it sent may go at
/// any moment.
async fn more(stream: &mut WalStream<'_>, position: &mut Lsn) -> WalEvent {
    let event = stream.next().await.unwrap();
    if let WalEvent::Data { start, bytes, .. } = &event {
        assert_eq!(start, position);
        *position += bytes.len() as u64;
        let status = StandbyStatus { written: *position, flushed: *position, applied: Lsn(0) };
        stream.report(status).await.unwrap();
    }
    event
}

/// The event that ends the stream.
async fn ended(stream: &mut WalStream<'_>, position: &mut Lsn) -> WalEvent {
    loop {
        match more(stream, position).await {
            WalEvent::Data { .. } | WalEvent::KeepAlive { .. } => {}
            end => return end,
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_down_is_no_end_of_wal() {
    for major in MAJORS_FOR_TESTS {
        let origin = cluster(major, &[]).await;
        let mut receiver = Receiver::start(&origin.admin()).await;
        let backup = written::write(&origin, &mut walsender(&origin.admin()).await, &fast()).await;
        receiver.receive_until(backup.end.0).await;
        receiver.write(&origin, &backup.data().join("pg_wal"));
        let server = Restored::start(&backup.data(), &origin, &[]).await;
        let mut sender = walsender(&server.admin()).await;
        let identity = sender.identify_system().await.unwrap();
        let wanted = StartWal { slot: None, timeline: identity.timeline, start: identity.position };
        let mut stream = sender.start_wal(wanted).await.unwrap();
        server.crash();
        let failure = loop {
            match stream.next().await {
                Ok(WalEvent::Data { .. } | WalEvent::KeepAlive { .. }) => {}
                Ok(end) => panic!("{end:?}"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.what.code(), say::RECEIVE_WAL);
        assert_eq!(failure.mend.unwrap().code(), postgres::MEND_SERVER_RESTART);
    }
}
