//! skeleton
use super::{TemporaryCluster, TemporaryOptions};

/// A ready temporary PostgreSQL 16 with TLS and SCRAM, for integration tests of every room.
///
/// # Panics
/// When none can be started: a test has nothing else to do.
pub async fn for_tests() -> TemporaryCluster {
    for_tests_with(&TemporaryOptions { tls: true, ..TemporaryOptions::default() }).await
}

/// The same with other options.
///
/// # Panics
/// When none can be started.
pub async fn for_tests_with(options: &TemporaryOptions) -> TemporaryCluster {
    let _ = options;
    unimplemented!()
}

/// The same of another major version, where a distribution has installed one.
pub async fn for_tests_version(major: u32) -> Option<TemporaryCluster> {
    let _ = major;
    unimplemented!()
}
