//! Ready clusters for the integration tests of every room. They need nothing installed beforehand.

use std::env;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Quiet};
use tokio::sync::OnceCell;

use super::{Installation, Search, TemporaryCluster, TemporaryOptions};
use crate::Result;

/// The version that tests run on, unless they say otherwise.
const MAJOR: u32 = 16;

/// Every major version that is supported.
pub const MAJORS_FOR_TESTS: [u32; 5] = [14, 15, 16, 17, 18];

/// With TLS and, where there is room, in memory.
const FOR_TESTS: TemporaryOptions =
    TemporaryOptions { tls: true, settings: Vec::new(), hba: Vec::new(), in_memory: true };

/// A ready temporary PostgreSQL 16 with TLS and SCRAM.
///
/// # Panics
/// When it cannot be had: a test has nothing else to do.
pub async fn for_tests() -> TemporaryCluster {
    for_tests_with(&FOR_TESTS).await
}

/// The same with other options.
///
/// # Panics
/// When it cannot be had.
pub async fn for_tests_with(options: &TemporaryOptions) -> TemporaryCluster {
    let installation = or_panic(installation_for_tests().await);
    or_panic(TemporaryCluster::start_with(&installation, &cache_for_tests(), options).await)
}

/// The same of a major version, 14 to 18.
///
/// # Panics
/// When it cannot be had.
pub async fn for_tests_version(major: u32) -> TemporaryCluster {
    for_tests_version_with(major, &FOR_TESTS).await
}

/// The same of a major version with other options.
///
/// # Panics
/// When it cannot be had.
pub async fn for_tests_version_with(major: u32, options: &TemporaryOptions) -> TemporaryCluster {
    let installation = or_panic(installation_for_tests_version(major).await);
    or_panic(TemporaryCluster::start_with(&installation, &cache_for_tests(), options).await)
}

/// The PostgreSQL 16 that tests run on, found or fetched once in a process.
pub async fn installation_for_tests() -> Result<Installation> {
    static FOUND: OnceCell<Installation> = OnceCell::const_new();
    FOUND.get_or_try_init(|| find_or_fetch(MAJOR)).await.cloned()
}

/// The PostgreSQL of a major version that tests run on.
pub async fn installation_for_tests_version(major: u32) -> Result<Installation> {
    if major == MAJOR { installation_for_tests().await } else { find_or_fetch(major).await }
}

async fn find_or_fetch(major: u32) -> Result<Installation> {
    let search = Search { bin_dir: None, cache: cache_for_tests(), major };
    Installation::find_or_fetch(&search, &Quiet).await
}

/// `$OBYRA_DB_CACHE`, or a folder that all test programs of this checkout share.
pub fn cache_for_tests() -> PathBuf {
    match env::var_os("OBYRA_DB_CACHE").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => {
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            here.ancestors().nth(2).unwrap_or(here).join("target/obyra-db-cache")
        }
    }
}

fn or_panic<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|failure: Failure| {
        let mend = failure.mend.as_ref().map(|mend| format!("\n{mend}")).unwrap_or_default();
        panic!("{failure}{mend}")
    })
}
