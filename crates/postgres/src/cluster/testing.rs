//! Ready clusters for the integration tests of every room. They need nothing installed beforehand.

use std::env;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Quiet};
use tokio::sync::OnceCell;

use super::{Installation, Search, TemporaryCluster, TemporaryOptions};
use crate::Result;

/// The version that tests run on, unless they say otherwise.
const MAJOR: u32 = 16;

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

/// The same of another major version, if a distribution installed one on this machine.
///
/// # Panics
/// When it is installed but does not start.
pub async fn for_tests_version(major: u32) -> Option<TemporaryCluster> {
    if major == MAJOR {
        return Some(for_tests_with(&FOR_TESTS).await);
    }
    let installation = Installation::installed(major).await?;
    Some(or_panic(TemporaryCluster::start_with(&installation, &cache_for_tests(), &FOR_TESTS).await))
}

/// The PostgreSQL 16 that tests run on, found or fetched once in a process.
pub async fn installation_for_tests() -> Result<Installation> {
    static FOUND: OnceCell<Installation> = OnceCell::const_new();
    let search = Search { bin_dir: None, cache: cache_for_tests(), major: MAJOR };
    FOUND.get_or_try_init(|| Installation::find_or_fetch(&search, &Quiet)).await.cloned()
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
