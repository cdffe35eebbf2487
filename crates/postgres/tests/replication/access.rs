//! Who is let in, how, and what the short commands say.

use obyra_evidence::{Code, text::postgres, text::replication as say};
use obyra_postgres::cluster::{MAJORS_FOR_TESTS, TemporaryCluster, TemporaryOptions, for_tests_version_with};
use obyra_postgres::replication::{SlotReading, Walsender};
use obyra_postgres::wal::{Lsn, TimelineId, WalSegmentSize};
use obyra_postgres::{ChannelBinding, Conninfo};

use super::{ask, cluster, session, wait_until_alone, walsender};

#[tokio::test]
async fn every_version_is_spoken_to_over_socket_and_tls() {
    for major in MAJORS_FOR_TESTS {
        speaks(&cluster(major, &[]).await).await;
    }
}

async fn speaks(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    let bound = cluster.loopback().with_channel_binding(ChannelBinding::Require);
    let unbound = cluster.loopback().with_channel_binding(ChannelBinding::Disable);
    for (target, encrypted) in [(cluster.admin(), false), (bound, true), (unbound, true)] {
        let mut walsender = walsender(&target).await;
        assert_eq!(walsender.encrypted(), encrypted);
        assert_eq!(walsender.version(), sql.version());
        assert!(!walsender.in_recovery());
        let seen =
            "SELECT string_agg(application_name, ',') FROM pg_stat_activity WHERE backend_type = 'walsender'";
        assert_eq!(ask(&sql, seen).await, "obyra-db");

        let identity = walsender.identify_system().await.unwrap();
        let system = ask(&sql, "SELECT system_identifier FROM pg_control_system()").await;
        assert_eq!(identity.system_identifier.to_string(), system);
        assert_eq!(identity.timeline, TimelineId::FIRST);
        let end: Lsn = ask(&sql, "SELECT pg_current_wal_flush_lsn()").await.parse().unwrap();
        assert!(Lsn(0) < identity.position && identity.position <= end);

        assert_eq!(walsender.show("wal_segment_size").await.unwrap(), "16MB");
        assert_eq!(walsender.show("pg_stat_statements.max").await.unwrap(), "5000");
        // A refusal leaves the connection as it was.
        let failure = walsender.show("no such").await.unwrap_err();
        assert!(failure.why.as_ref().unwrap().contains("4270"), "{failure}");
        assert_eq!(walsender.show("nul\0").await.unwrap_err().what.code(), say::SHOW);
        let failure = walsender.timeline_history(TimelineId::FIRST).await.unwrap_err();
        assert_eq!(failure.what.code(), say::HISTORY);
        walsender.identify_system().await.unwrap();
        walsender.close().await;
        wait_until_alone(&sql).await;
    }
    let size = ask(&sql, "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'").await;
    assert_eq!(WalSegmentSize::new(size.parse().unwrap()).unwrap(), WalSegmentSize::DEFAULT);
}

async fn refused(target: &Conninfo) -> Code {
    let failure = Walsender::connect(target).await.expect_err("a refusal");
    assert!(failure.mend.is_some(), "{failure:?}");
    assert!(!format!("{failure} {failure:?}").contains("secret"), "{failure:?}");
    failure.what.code()
}

#[tokio::test]
async fn who_is_not_let_in_learns_why() {
    for major in MAJORS_FOR_TESTS {
        let options = TemporaryOptions {
            tls: true,
            settings: Vec::new(),
            hba: vec![
                "local    replication stranger              reject".into(),
                "hostssl  replication stranger 127.0.0.1/32 reject".into(),
                "local    replication plain                 password".into(),
                "local    replication hashed                md5".into(),
            ],
            in_memory: true,
        };
        let_in(&for_tests_version_with(major, &options).await).await;
    }
}

async fn let_in(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    sql.batch_execute(
        "CREATE ROLE stranger LOGIN REPLICATION PASSWORD 'secret'; CREATE ROLE \"No-Repl\" LOGIN PASSWORD 'secret';
         CREATE ROLE plain LOGIN REPLICATION PASSWORD 'secret'; SET password_encryption = 'md5';
         CREATE ROLE hashed LOGIN REPLICATION PASSWORD 'secret'",
    )
    .await
    .unwrap();
    let as_role = |target: Conninfo, role: &str| target.with_role(role, Some("secret".into()));
    let (socket, tls) = (cluster.admin(), cluster.loopback());

    let failure = Walsender::connect(&as_role(socket.clone(), "stranger")).await.unwrap_err();
    assert_eq!(failure.what.code(), say::NO_HBA_ENTRY);
    let mend = failure.mend.unwrap().to_string();
    assert!(mend.ends_with("local replication stranger scram-sha-256"), "{mend}");
    assert_eq!(refused(&as_role(tls.clone(), "stranger")).await, say::NO_HBA_ENTRY);

    for target in [&socket, &tls] {
        let failure = Walsender::connect(&as_role(target.clone(), "No-Repl")).await.unwrap_err();
        assert_eq!(failure.what.code(), say::NO_REPLICATION_ROLE);
        assert_eq!(failure.mend.unwrap().to_string(), "ALTER ROLE \"No-Repl\" REPLICATION");
        assert_eq!(
            refused(&target.with_password(Some("secret wrong".into()))).await,
            postgres::WRONG_PASSWORD
        );
        assert_eq!(refused(&target.with_password(None)).await, postgres::PASSWORD_MISSING);
    }

    // Older ways to give a password, unless it must be bound to the channel.
    for role in ["plain", "hashed"] {
        let target = as_role(socket.clone(), role);
        walsender(&target).await.close().await;
        let bound = target.with_channel_binding(ChannelBinding::Require);
        assert_eq!(refused(&bound).await, postgres::NO_CHANNEL_BINDING);
    }
}

#[tokio::test]
async fn a_server_without_a_connection_to_spare_says_so() {
    for major in MAJORS_FOR_TESTS {
        let cluster = cluster(major, &[("max_wal_senders", "1")]).await;
        let sql = session(&cluster.admin()).await;
        let only = walsender(&cluster.loopback()).await;
        for target in [cluster.admin(), cluster.loopback()] {
            assert_eq!(refused(&target).await, say::TOO_MANY_WALSENDERS);
        }
        only.close().await;
        wait_until_alone(&sql).await;
        walsender(&cluster.admin()).await;
    }
}

#[tokio::test]
async fn a_server_without_replication_is_told_how_to_get_it() {
    for major in MAJORS_FOR_TESTS {
        let cluster = cluster(major, &[("wal_level", "minimal"), ("max_wal_senders", "0")]).await;
        assert_eq!(refused(&cluster.admin()).await, say::REPLICATION_OFF);
    }
}

#[tokio::test]
async fn the_life_of_a_slot() {
    for major in MAJORS_FOR_TESTS {
        slots(&cluster(major, &[("max_replication_slots", "2")]).await).await;
    }
}

async fn slots(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    let mut first = walsender(&cluster.admin()).await;
    let mut second = walsender(&cluster.loopback()).await;
    let can_read = first.version().at_least(15);
    let absent = if can_read { SlotReading::Absent } else { SlotReading::Unsupported };
    assert_eq!(first.read_slot("lasting").await.unwrap(), absent);

    first.create_physical_slot("lasting", true, false).await.unwrap();
    let restart = ask(&sql, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'lasting'").await;
    let expected = match can_read {
        true => SlotReading::Physical { restart: restart.parse().ok(), timeline: Some(TimelineId::FIRST) },
        false => SlotReading::Unsupported,
    };
    assert_eq!(first.read_slot("lasting").await.unwrap(), expected);

    first.create_physical_slot("passing", false, true).await.unwrap();
    let kinds = "SELECT string_agg(slot_name || temporary || (restart_lsn IS NULL), ' ' ORDER BY slot_name)
                 FROM pg_replication_slots";
    assert_eq!(ask(&sql, kinds).await, "lastingfalsefalse passingtruetrue");

    let code = |outcome: obyra_postgres::Result<()>| {
        let failure = outcome.unwrap_err();
        assert!(failure.mend.is_some(), "{failure:?}");
        failure.what.code()
    };
    assert_eq!(code(second.create_physical_slot("lasting", true, false).await), say::SLOT_EXISTS);
    assert_eq!(code(second.create_physical_slot("third", true, false).await), say::SLOTS_FULL);
    assert_eq!(code(second.drop_slot("passing").await), say::SLOT_ACTIVE);
    assert_eq!(code(second.drop_slot("no such slot").await), say::SLOT_MISSING);
    let failure = second.create_physical_slot("It's bad", true, false).await.unwrap_err();
    assert_eq!(failure.what.code(), say::CREATE_SLOT);
    assert!(failure.why.unwrap().contains("42602"), "the server's own words");

    // A temporary one goes with its connection, and is gone when the goodbye is over.
    first.close().await;
    assert_eq!(ask(&sql, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots").await, "lasting");
    second.drop_slot("lasting").await.unwrap();
    assert_eq!(ask(&sql, "SELECT count(*) FROM pg_replication_slots").await, "0");
}
