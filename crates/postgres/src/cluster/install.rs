//! skeleton
use std::path::PathBuf;

use obyra_evidence::{Failure, Progress};

/// Where to look for PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Search {
    /// The configured folder, if any: then nothing else is looked at.
    pub bin_dir: Option<PathBuf>,
    /// Where fetched programs are kept.
    pub cache: PathBuf,
    /// The wanted major version.
    pub major: u32,
}

/// PostgreSQL's programs in a folder.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The folder of `postgres`, `initdb`, `pg_ctl`, `pg_dump`, ...
    pub bin_dir: PathBuf,
    /// Its own libraries, for a fetched installation.
    pub lib_dir: Option<PathBuf>,
    /// The major version.
    pub major: u32,
    /// The full version, for example `16.15`.
    pub version: String,
}

impl Installation {
    /// Finds an installation of the wanted major version, or downloads one.
    pub async fn find_or_fetch(search: &Search, progress: &dyn Progress) -> Result<Installation, Failure> {
        let _ = (search, progress);
        unimplemented!()
    }

    /// One of its programs, in a clean environment; the caller adds arguments.
    pub fn tool(&self, name: &str) -> tokio::process::Command {
        let _ = name;
        unimplemented!()
    }
}
