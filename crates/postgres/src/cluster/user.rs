//! skeleton
use std::path::{Path, PathBuf};

use obyra_evidence::Failure;

/// What a folder is for; decides where it goes when the wanted place cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Fetched programs and cached initdb results.
    Cache,
    /// A persistent cluster.
    Cluster,
}

/// The folder that is used for `wanted`: itself, or a place that the server's user can reach.
pub fn reachable_dir(wanted: &Path, purpose: Purpose) -> Result<PathBuf, Failure> {
    let _ = purpose;
    Ok(wanted.to_path_buf())
}
