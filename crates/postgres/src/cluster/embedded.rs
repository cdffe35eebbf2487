//! skeleton
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Progress};

use super::Installation;
use crate::Conninfo;

/// What a persistent cluster should be.
#[derive(Clone, Debug)]
pub struct EmbeddedSpec {
    /// Its folder, usually `<state_dir>/clusters/<environment>`.
    pub dir: PathBuf,
    /// Server settings beyond the usual ones.
    pub settings: Vec<(String, String)>,
}

/// What a persistent cluster is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Absent,
    /// It exists and does not run.
    Stopped,
    /// It runs.
    Running {
        /// The postmaster's process.
        pid: u32,
        /// The loopback port.
        port: u16,
    },
}

/// A persistent cluster in a folder.
#[derive(Clone, Debug)]
pub struct Embedded {}

impl Embedded {
    /// Makes it if absent, starts it if stopped, leaves it alone if it runs.
    pub async fn up(
        spec: &EmbeddedSpec,
        installation: &Installation,
        progress: &dyn Progress,
    ) -> Result<Embedded, Failure> {
        let _ = (spec, installation, progress);
        unimplemented!()
    }

    /// The cluster in this folder, running or not, without touching it; `None` if there is none.
    pub fn open(dir: &Path) -> Result<Option<Embedded>, Failure> {
        let _ = dir;
        unimplemented!()
    }

    /// Stops it; says whether it ran.
    pub async fn down(dir: &Path) -> Result<bool, Failure> {
        let _ = dir;
        unimplemented!()
    }

    /// Stops it and removes its folder and everything in it.
    pub async fn destroy(dir: &Path) -> Result<(), Failure> {
        let _ = dir;
        unimplemented!()
    }

    /// What it is doing.
    pub async fn status(dir: &Path) -> Result<State, Failure> {
        let _ = dir;
        unimplemented!()
    }

    /// The superuser over the private socket.
    pub fn admin(&self) -> Conninfo {
        unimplemented!()
    }

    /// The superuser over loopback TLS, `verify-full` against the cluster's own CA.
    pub fn loopback(&self) -> Conninfo {
        unimplemented!()
    }
}
