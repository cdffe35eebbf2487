//! skeleton
use std::path::Path;

use obyra_evidence::Failure;

use super::Installation;
use crate::Conninfo;

/// What a temporary cluster has beyond a private socket.
#[derive(Clone, Debug, Default)]
pub struct TemporaryOptions {
    /// Loopback port with TLS, as an embedded cluster has it.
    pub tls: bool,
    /// Server settings beyond the usual ones.
    pub settings: Vec<(String, String)>,
}

/// A cluster that is gone when this value is dropped.
#[derive(Debug)]
pub struct TemporaryCluster {}

impl TemporaryCluster {
    /// Starts one from the cached initdb, reachable over its private socket only.
    pub async fn start(installation: &Installation, cache: &Path) -> Result<TemporaryCluster, Failure> {
        Self::start_with(installation, cache, &TemporaryOptions::default()).await
    }

    /// Starts one with options.
    pub async fn start_with(
        installation: &Installation,
        cache: &Path,
        options: &TemporaryOptions,
    ) -> Result<TemporaryCluster, Failure> {
        let _ = (installation, cache, options);
        unimplemented!()
    }

    /// The superuser over the private socket.
    pub fn admin(&self) -> Conninfo {
        unimplemented!()
    }

    /// The superuser over loopback TLS, `verify-full` against the cluster's own CA; the socket's if without TLS.
    pub fn loopback(&self) -> Conninfo {
        unimplemented!()
    }

    /// Its programs.
    pub fn installation(&self) -> &Installation {
        unimplemented!()
    }
}
