//! Replication on real servers of every version: base backups, WAL, slots, and each refusal.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod access;
mod backup;
mod fake;
mod restored;
mod streams;
mod timelines;
mod wal;
mod written;

use std::time::Duration;

use obyra_postgres::cluster::{TemporaryCluster, TemporaryOptions, for_tests_version_with};
use obyra_postgres::replication::Walsender;
use obyra_postgres::{Conninfo, Limits, Session};

/// A cluster with TLS, in memory, and with these settings.
async fn cluster(major: u32, settings: &[(&str, &str)]) -> TemporaryCluster {
    let options = TemporaryOptions {
        tls: true,
        settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        hba: Vec::new(),
        in_memory: true,
    };
    for_tests_version_with(major, &options).await
}

async fn session(target: &Conninfo) -> Session {
    Session::connect(target, Limits::default()).await.unwrap()
}

async fn walsender(target: &Conninfo) -> Walsender {
    Walsender::connect(target).await.unwrap()
}

/// The one value that a query asks for, as text.
async fn ask(session: &Session, query: &str) -> String {
    session.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap().get(0)
}

/// Waits until a query says `true`.
async fn wait_until(session: &Session, condition: &str) {
    for _ in 0..1_000 {
        if ask(session, condition).await == "true" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come to be: {condition}");
}

/// Waits until no replication connection is left.
async fn wait_until_alone(session: &Session) {
    wait_until(session, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'walsender'").await;
}
