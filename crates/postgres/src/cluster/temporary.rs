//! Temporary clusters, for tests and gates: ready in a fraction of a second, gone when dropped, and
//! swept by the next one if the program was killed.

use std::path::{Path, PathBuf};

use super::install::Installation;
use super::room::Room;
use super::start::{self, Lifetime, Running, Starting};
use super::user::ServerUser;
use super::{endpoint, settings, template, tls_files};
use crate::{Conninfo, Result};

/// What a temporary cluster has beyond a private socket.
#[derive(Clone, Debug, Default)]
pub struct TemporaryOptions {
    /// A loopback port with TLS, as an embedded cluster has it.
    pub tls: bool,
    /// Server settings beyond the usual ones; `fsync`, `full_page_writes` and `synchronous_commit`
    /// are off unless given here.
    pub settings: Vec<(String, String)>,
    /// Lines of `pg_hba.conf` that come before the usual ones.
    pub hba: Vec<String>,
    /// In memory rather than on a disk, if there is plenty of it: for little data.
    pub in_memory: bool,
}

/// A cluster that is gone when this value is dropped.
///
/// All of one installation share a system identifier: they are copies of one initdb.
#[derive(Debug)]
pub struct TemporaryCluster {
    // In the order of their end: the server before its folder.
    _server: Running,
    room: Room,
    installation: Installation,
    admin: Conninfo,
    loopback: Conninfo,
}

impl TemporaryCluster {
    /// Starts one that is reached over its private socket only.
    pub async fn start(installation: &Installation, cache: &Path) -> Result<TemporaryCluster> {
        Self::start_with(installation, cache, &TemporaryOptions::default()).await
    }

    /// Starts one with options.
    pub async fn start_with(
        installation: &Installation,
        cache: &Path,
        options: &TemporaryOptions,
    ) -> Result<TemporaryCluster> {
        let user = ServerUser::choose()?;
        let room = Room::claim(&user, options.in_memory).await?;
        let layout = &room.layout;
        let password = template::copy_to(&layout.data(), installation, cache, &user).await?;
        if options.tls {
            tls_files::install(layout, &user)?;
        }
        let settings = [settings::temporary(), options.settings.clone()].concat();
        let starting = Starting {
            layout,
            user: &user,
            installation,
            hba: &options.hba,
            settings: &settings,
            loopback: options.tls,
        };
        // Without loopback the port only names the socket in a folder of its own.
        let preferred = if options.tls { None } else { Some(5432) };
        let server = starting.start(preferred, Lifetime::Ours).await?;
        let port = server.port;
        let admin = endpoint::socket(&start::socket_dir(layout, &user)?, port, &password)?;
        let loopback =
            if options.tls { endpoint::loopback(&layout.ca(), port, &password)? } else { admin.clone() };
        Ok(TemporaryCluster { _server: server, room, installation: installation.clone(), admin, loopback })
    }

    /// The superuser over the private socket.
    pub fn admin(&self) -> Conninfo {
        self.admin.clone()
    }

    /// The superuser over loopback TLS, verified against the cluster's own authority; over the
    /// socket if it was started without TLS.
    pub fn loopback(&self) -> Conninfo {
        self.loopback.clone()
    }

    /// Its programs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The folder of all that it has.
    pub fn dir(&self) -> &Path {
        &self.room.layout.root
    }

    /// The certificate of the cluster's own authority, if it has TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.room.layout.ca()
    }

    /// What the server says.
    pub fn log_file(&self) -> PathBuf {
        self.room.layout.log()
    }
}
