//! A persistent cluster in a folder: what `up dev` starts and `down dev` stops. Its server survives
//! the program, and whatever kills either of them.

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Progress, text};

use super::install::Installation;
use super::layout::Layout;
use super::lock::FileLock;
use super::places::{Purpose, reachable_dir, refuge};
use super::restored::Scratch;
use super::server::{self, Stop};
use super::start::{self, Lifetime, STATISTICS, Starting};
use super::user::ServerUser;
use super::{endpoint, files, initdb, tls_files};
use crate::{Conninfo, Result};

/// What a persistent cluster should be.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedSpec {
    /// Its folder, usually `<state_dir>/clusters/<environment>`; see [`Embedded::dir`].
    pub dir: PathBuf,
    /// Server settings beyond the usual ones.
    pub settings: Vec<(String, String)>,
}

/// What a persistent cluster is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct Embedded {
    layout: Layout,
    port: u16,
    admin: Conninfo,
    loopback: Conninfo,
}

impl Embedded {
    /// Makes it if absent, starts it if stopped, and leaves it alone if it runs as it should.
    pub async fn up(
        spec: &EmbeddedSpec,
        installation: &Installation,
        progress: &dyn Progress,
    ) -> Result<Embedded> {
        let user = ServerUser::choose()?;
        let layout = place(&spec.dir)?;
        files::make_dir(&layout.root, 0o755)?;
        let _lock = FileLock::acquire(&layout.lock()).await?;
        make(&layout, installation, &user, progress).await?;
        let starting = Starting {
            layout: &layout,
            user: &user,
            installation,
            hba: &[],
            settings: &spec.settings,
            loopback: true,
        };
        ensure_running(&starting, progress).await?;
        describe(layout, &user)
    }

    /// The cluster that is wanted in this folder, running or not; `None` if there is none.
    pub fn open(dir: &Path) -> Result<Option<Embedded>> {
        let layout = place(dir)?;
        if !layout.is_made() {
            return Ok(None);
        }
        describe(layout, &ServerUser::choose()?).map(Some)
    }

    /// Stops it; says whether it ran.
    pub async fn down(dir: &Path) -> Result<bool> {
        let layout = place(dir)?;
        if !layout.root.is_dir() {
            return Ok(false);
        }
        let _lock = FileLock::acquire(&layout.lock()).await?;
        server::stop(&layout, &ServerUser::choose()?, Stop::Fast).await
    }

    /// Stops it and removes it with its data.
    pub async fn destroy(dir: &Path) -> Result<()> {
        let layout = place(dir)?;
        if !layout.root.is_dir() {
            return Ok(());
        }
        let user = ServerUser::choose()?;
        let _lock = FileLock::acquire(&layout.lock()).await?;
        server::stop(&layout, &user, Stop::Immediate).await?;
        server::clear_remains(&layout, &user).await?;
        let socket_dir = start::socket_dir(&layout, &user)?;
        files::remove_tree(&socket_dir)?;
        if !socket_dir.starts_with(&layout.root) {
            // It was in the folder of temporary files, which goes if nothing else is there.
            let _ = socket_dir.parent().map(std::fs::remove_dir);
        }
        files::remove_tree(&layout.root)
    }

    /// Puts a restored cluster in the place of this one, which is stopped and stays beside it, as
    /// `data.before-<label>`: where that is. Both are on the same disk.
    pub async fn replace_data(dir: &Path, restored: Scratch, label: &str) -> Result<PathBuf> {
        let layout = place(dir)?;
        files::make_dir(&layout.root, 0o755)?;
        let user = ServerUser::choose()?;
        let _lock = FileLock::acquire(&layout.lock()).await?;
        server::stop(&layout, &user, Stop::Fast).await?;
        server::clear_remains(&layout, &user).await?;
        // It recovered without waiting for the disk.
        files::sync_all(&restored.data())?;
        let before = layout.root.join(format!("data.before-{label}"));
        if layout.is_made() {
            // At no moment is there no data folder: the next `up` would make an empty one.
            files::exchange(&restored.data(), &layout.data())?;
            files::rename(&restored.data(), &before)?;
        } else {
            files::rename(&restored.data(), &layout.data())?;
        }
        Ok(before)
    }

    /// What it is doing.
    pub async fn status(dir: &Path) -> Result<State> {
        let layout = place(dir)?;
        if !layout.is_made() {
            return Ok(State::Absent);
        }
        Ok(match server::running(&layout, &ServerUser::choose()?)? {
            Some(file) => State::Running { pid: file.pid, port: file.port },
            None => State::Stopped,
        })
    }

    /// The superuser over the private socket.
    pub fn admin(&self) -> Conninfo {
        self.admin.clone()
    }

    /// The superuser over loopback TLS, verified against the cluster's own authority: the form that
    /// applications' connection strings take.
    pub fn loopback(&self) -> Conninfo {
        self.loopback.clone()
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the cluster's own authority.
    pub fn ca_file(&self) -> PathBuf {
        self.layout.ca()
    }

    /// What the server says.
    pub fn log_file(&self) -> PathBuf {
        self.layout.log()
    }

    /// The folder that it really has: another than the wanted one if the server's user cannot reach
    /// that.
    pub fn dir(&self) -> &Path {
        &self.layout.root
    }
}

/// Where the cluster wanted in a folder is, or would be made. One that exists stays where it is,
/// even if the wanted folder has become reachable since.
fn place(wanted: &Path) -> Result<Layout> {
    let chosen = Layout::new(reachable_dir(wanted, Purpose::Cluster)?);
    let wanted = std::path::absolute(wanted).map_err(|e| files::failed(wanted, &e))?;
    let refuge = Layout::new(refuge(&wanted));
    Ok(if !chosen.is_made() && refuge.is_made() { refuge } else { chosen })
}

/// Makes the data folder and its certificates, each if absent, and refuses another version's.
async fn make(
    layout: &Layout,
    installation: &Installation,
    user: &ServerUser,
    progress: &dyn Progress,
) -> Result<()> {
    if !layout.is_made() {
        let what = text::cluster::MAKING.with("version", &installation.version);
        progress.begin(what.with("path", layout.root.display()), None);
        let made = initdb::ensure(layout, installation, user).await;
        progress.done();
        made?;
    }
    check_major(layout, installation)?;
    if layout.ca().exists() {
        return Ok(());
    }
    tls_files::install(layout, user)?;
    // What a power failure must not take from a cluster that survives it.
    let key = layout.data().join(tls_files::KEY);
    let certificate = layout.data().join(tls_files::CERTIFICATE);
    [layout.password(), key, certificate, layout.ca()].iter().try_for_each(|path| files::sync(path))
}

fn check_major(layout: &Layout, installation: &Installation) -> Result<()> {
    let root = layout.root.display();
    let Some(found) = files::read(&layout.data().join("PG_VERSION"))? else {
        return Err(Failure::refused(text::cluster::NOT_A_CLUSTER.with("path", layout.data().display()))
            .mended_by(text::cluster::NOT_A_CLUSTER_MEND));
    };
    let (found, wanted) = (found.trim(), installation.major);
    if found == wanted.to_string() {
        return Ok(());
    }
    let what = text::cluster::MAJOR_DIFFERS.with("path", root).with("found", found).with("major", wanted);
    Err(Failure::refused(what).mended_by(text::cluster::MAJOR_DIFFERS_MEND.with("found", found)))
}

/// Starts the server unless it runs with the configuration that is wanted.
async fn ensure_running(starting: &Starting<'_>, progress: &dyn Progress) -> Result<()> {
    let Starting { layout, user, installation, .. } = *starting;
    let mut preferred = saved_port(layout)?;
    if server::running(layout, user)?.is_some() {
        let file = start::wait_for_other(layout, user).await?;
        if !starting.configure(file.port)? {
            return save_port(layout, file.port);
        }
        progress.note(text::cluster::RESTARTING.message());
        server::stop(layout, user, Stop::Fast).await?;
        preferred = Some(file.port);
    }
    server::clear_remains(layout, user).await?;
    if !installation.has_module(STATISTICS) {
        progress.note(text::cluster::WITHOUT_STATISTICS.with("path", installation.bin_dir.display()));
    }
    progress.begin(text::cluster::STARTING.with("version", &installation.version), None);
    let started = starting.start(preferred, Lifetime::Daemon).await;
    progress.done();
    save_port(layout, started?.port)
}

fn describe(layout: Layout, user: &ServerUser) -> Result<Embedded> {
    let password = files::read_secret(&layout.password())?.ok_or_else(|| {
        Failure::new(text::cluster::PASSWORD_MISSING.with("path", layout.root.display()))
            .mended_by(text::cluster::PASSWORD_MISSING_MEND.with("file", layout.password().display()))
    })?;
    let (socket_dir, port) = match server::running(&layout, user)? {
        Some(file) => (file.socket_dir, file.port),
        None => (start::socket_dir(&layout, user)?, saved_port(&layout)?.unwrap_or(5432)),
    };
    let admin = endpoint::socket(&socket_dir, port, &password)?;
    let loopback = endpoint::loopback(&layout.ca(), port, &password)?;
    Ok(Embedded { layout, port, admin, loopback })
}

fn saved_port(layout: &Layout) -> Result<Option<u16>> {
    Ok(files::read(&layout.port())?.and_then(|text| text.trim().parse().ok()))
}

fn save_port(layout: &Layout, port: u16) -> Result<()> {
    if saved_port(layout)? == Some(port) {
        return Ok(());
    }
    files::write(&layout.port(), &format!("{port}\n"), 0o644)
}
