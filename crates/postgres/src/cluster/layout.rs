//! Where the files of one cluster lie, persistent or temporary.

use std::path::{Path, PathBuf};

use super::places::short_hash;

/// A cluster's folder. Everything but the data folder and the log belongs to this process's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: impl Into<PathBuf>) -> Layout {
        Layout { root: root.into() }
    }

    /// PostgreSQL's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The superuser's password.
    pub(super) fn password(&self) -> PathBuf {
        self.root.join("password")
    }

    /// The certificate that clients trust.
    pub(super) fn ca(&self) -> PathBuf {
        self.root.join("ca.crt")
    }

    /// The loopback port, once chosen.
    pub(super) fn port(&self) -> PathBuf {
        self.root.join("port")
    }

    /// What the server says.
    pub(super) fn log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// Held by whoever changes the cluster.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Where the socket lies if its path is short enough.
    pub(super) fn socket_dir(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// Whether initdb ended well here: its result is renamed into place.
    pub(super) fn is_made(&self) -> bool {
        self.data().is_dir()
    }

    /// PostgreSQL puts this name in the titles of its processes, by which orphans are known.
    pub(super) fn cluster_name(&self) -> String {
        cluster_name(&self.data())
    }
}

pub(super) fn cluster_name(data: &Path) -> String {
    format!("obyra-{}", short_hash(data))
}
