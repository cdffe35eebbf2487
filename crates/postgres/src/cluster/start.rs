//! Starting a server: its configuration, a free port, and the wait until it is ready.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use obyra_evidence::{Failure, text};
use tokio::time::{Instant, sleep};

use super::install::Installation;
use super::layout::Layout;
use super::places::{SOCKET_DIR_BYTES_MAX, private_root, short_hash};
use super::server::{self, LOOK_AGAIN, PidFile};
use super::settings::{self, Listening};
use super::user::ServerUser;
use super::{files, tools};
use crate::Result;

/// Recovery after a crash may take a while.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// How often a port that someone else took in the meantime is chosen anew.
const PORT_ATTEMPTS: usize = 5;

/// A log is put aside at a start when it is larger.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// The contributed module that every environment of a strategy preloads.
pub(super) const STATISTICS: &str = "pg_stat_statements";

/// How long a server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// It survives this program and the Ctrl-C that ends it.
    Daemon,
    /// It shares this program's terminal, and thus its Ctrl-C.
    Ours,
}

/// A cluster about to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starting<'a> {
    pub(super) layout: &'a Layout,
    pub(super) user: &'a ServerUser,
    pub(super) installation: &'a Installation,
    /// Who may connect, beyond the usual lines.
    pub(super) hba: &'a [String],
    pub(super) settings: &'a [(String, String)],
    pub(super) loopback: bool,
}

impl Starting<'_> {
    /// Writes the configuration for a port; says whether it differs from what was there.
    pub(super) fn configure(&self, port: u16) -> Result<bool> {
        let socket_dir = socket_dir(self.layout, self.user)?;
        let listening = Listening { socket_dir: &socket_dir, port, loopback: self.loopback };
        let statistics = self.installation.has_module(STATISTICS);
        let mut all = settings::base(&self.layout.cluster_name(), listening, statistics);
        all.extend_from_slice(self.settings);
        let data = self.layout.data();
        let settings = self.replace(&data.join(settings::FILE), &settings::render(&all))?;
        let hba = self.replace(&data.join("pg_hba.conf"), &settings::hba(self.loopback, self.hba))?;
        Ok(settings || hba)
    }

    fn replace(&self, path: &Path, contents: &str) -> Result<bool> {
        if files::read(path)?.as_deref() == Some(contents) {
            return Ok(false);
        }
        files::write_for(path, contents, 0o600, self.user.owner())?;
        Ok(true)
    }

    /// Starts the server on the preferred port, or on another if someone took that one.
    pub(super) async fn start(&self, preferred: Option<u16>, lifetime: Lifetime) -> Result<Running> {
        let mut preferred = preferred.filter(|port| is_free(*port));
        let mut attempts = PORT_ATTEMPTS;
        loop {
            let port = match preferred.take() {
                Some(port) => port,
                None => free_port()?,
            };
            self.configure(port)?;
            attempts -= 1;
            match self.launch(port, lifetime).await {
                Err(failure) if attempts > 0 && is_port_conflict(&failure) => {}
                outcome => return outcome,
            }
        }
    }

    async fn launch(&self, port: u16, lifetime: Lifetime) -> Result<Running> {
        let socket_dir = socket_dir(self.layout, self.user)?;
        // The lock file of a killed server's socket may name a process that is someone else by now.
        files::remove_tree(&socket_dir)?;
        files::make_dir(&socket_dir, 0o700)?;
        self.user.own(&socket_dir)?;
        let log = self.layout.log();
        if files::size(&log) > LOG_BYTES_MAX {
            files::rename(&log, &log.with_extension("log.1"))?;
        }
        let said_before = files::size(&log);
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let output = opened.map_err(|e| files::failed(&log, &e))?;
        let errors = output.try_clone().map_err(|e| files::failed(&log, &e))?;

        let mut command = self.installation.server_tool("postgres", self.user);
        command.arg("-D").arg(self.layout.data()).stdout(output).stderr(errors);
        if lifetime == Lifetime::Daemon {
            // Out of the terminal's foreground: neither Ctrl-C nor a hangup reaches it.
            command.process_group(0);
        }
        let program = self.installation.bin_dir.join("postgres");
        let child = command.spawn().map_err(|e| tools::cannot_run(&program, self.user, &e))?;
        let mut running = Running { port, child, lifetime };
        self.wait_until_ready(&mut running.child, said_before).await?;
        Ok(running)
    }

    async fn wait_until_ready(&self, child: &mut Child, said_before: u64) -> Result<()> {
        let begun = Instant::now();
        let (data, log) = (self.layout.data(), self.layout.log());
        loop {
            if let Some(file) = PidFile::read(&data)?
                && file.ready
                && file.pid == child.id()
            {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = files::log_since(&log, said_before, 15);
                let said = if said.is_empty() { status.to_string() } else { said };
                return Err(self.explain(said));
            }
            if begun.elapsed() > READY_LIMIT {
                return Err(not_ready(self.layout));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What a server that ended at once said, and what mends it.
    fn explain(&self, said: String) -> Failure {
        let root = self.layout.root.display();
        let failure = Failure::new(text::cluster::START_FAILED.with("path", root.to_string()));
        let mend = if said.contains("No space left on device") {
            text::cluster::DISK_FULL_MEND.with("path", root)
        } else if said.contains("Permission denied") {
            text::cluster::PERMISSION_MEND.with("path", root)
        } else {
            text::cluster::STOP_TIMEOUT_MEND.with("log", self.layout.log().display())
        };
        failure.because(said).mended_by(mend)
    }
}

/// A server that was started here. Unless it is a daemon, it ends with this value.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) port: u16,
    child: Child,
    lifetime: Lifetime,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Daemon {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It is our child and nobody has waited for it: the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.child.wait();
    }
}

/// Waits for a server that another process is starting.
pub(super) async fn wait_for_other(layout: &Layout, user: &ServerUser) -> Result<PidFile> {
    let begun = Instant::now();
    while let Some(file) = server::running(layout, user)? {
        if file.ready {
            return Ok(file);
        }
        if begun.elapsed() > READY_LIMIT {
            return Err(not_ready(layout));
        }
        sleep(LOOK_AGAIN).await;
    }
    Err(Failure::new(text::cluster::START_FAILED.with("path", layout.root.display()))
        .because(files::log_since(&layout.log(), 0, 15)))
}

fn not_ready(layout: &Layout) -> Failure {
    let what = text::cluster::START_TIMEOUT
        .with("path", layout.root.display())
        .with("seconds", READY_LIMIT.as_secs());
    Failure::new(what)
        .because(files::log_since(&layout.log(), 0, 15))
        .mended_by(text::cluster::STOP_TIMEOUT_MEND.with("log", layout.log().display()))
}

fn is_port_conflict(failure: &Failure) -> bool {
    failure.why.as_deref().is_some_and(|why| why.contains("Address already in use"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    bound.map(|address| address.port()).map_err(|e| Failure::new(text::cluster::NO_PORT).because(e))
}

/// The folder of the socket: the cluster's own, or a short one if that is too deep for a socket's
/// path, or has a comma, which separates hosts in connection strings.
pub(super) fn socket_dir(layout: &Layout, user: &ServerUser) -> Result<PathBuf> {
    let own = layout.socket_dir();
    let bytes = own.as_os_str().as_encoded_bytes();
    if bytes.len() <= SOCKET_DIR_BYTES_MAX && !bytes.contains(&b',') {
        return Ok(own);
    }
    Ok(private_root(user)?.join(format!("s-{}", short_hash(&layout.root))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_folder_gets_a_short_socket() {
        let user = ServerUser::choose().unwrap();
        let shallow = Layout::new("/srv/obyra");
        assert_eq!(socket_dir(&shallow, &user).unwrap(), Path::new("/srv/obyra/socket"));
        for root in [format!("/srv/{}", "deep/".repeat(20)), "/srv/a,b".to_owned()] {
            let dir = socket_dir(&Layout::new(root), &user).unwrap();
            assert!(dir.as_os_str().len() <= SOCKET_DIR_BYTES_MAX, "{}", dir.display());
            assert!(!dir.to_string_lossy().contains(','));
        }
    }
}
