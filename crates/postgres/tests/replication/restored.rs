//! A server on a data directory that a test has put together.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use obyra_postgres::cluster::{Installation, TemporaryCluster};
use obyra_postgres::{Conninfo, Host, Limits, Session};
use rustix::process::{Pid, Signal, kill_process};

/// A running server; killed when dropped.
pub struct Restored {
    child: Child,
    target: Conninfo,
}

impl Restored {
    /// Starts one on a data directory, with the passwords of the cluster that it came from.
    pub async fn start(data: &Path, origin: &TemporaryCluster, settings: &[&str]) -> Restored {
        let socket = data.parent().unwrap().join("s");
        let owner = fs::metadata(data).unwrap();
        let _ = fs::create_dir(&socket);
        chown(&socket, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&socket, PermissionsExt::from_mode(0o700)).unwrap();
        let log = fs::File::options().create(true).append(true).open(data.parent().unwrap().join("log"));
        let mut command = program(origin.installation(), "postgres", (owner.uid(), owner.gid()));
        command.arg("-D").arg(data).stdout(Stdio::null()).stderr(log.unwrap());
        for setting in ["listen_addresses=", "port=5432", "ssl=off", "cluster_name=restored"] {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("unix_socket_directories={}", socket.display()));
        for setting in settings {
            command.args(["-c", setting]);
        }
        let child = command.spawn().unwrap();
        let admin = origin.admin();
        let target =
            Conninfo::new(vec![Host::new(socket.display().to_string(), 5432)], "postgres", "postgres")
                .with_password(admin.password().cloned());
        let mut restored = Restored { child, target };
        restored.wait_until_ready(data).await;
        restored
    }

    async fn wait_until_ready(&mut self, data: &Path) {
        for _ in 0..3_000 {
            if Session::connect(&self.target, Limits::default()).await.is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(data.parent().unwrap().join("log")).unwrap();
                panic!("{status}: {log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not get ready");
    }

    /// The superuser over its socket.
    pub fn admin(&self) -> Conninfo {
        self.target.clone()
    }

    /// Tells it to end in good order, without waiting for it.
    pub fn stop(&self) {
        self.signal(Signal::INT);
    }

    /// Ends it as if the machine had failed.
    pub fn crash(&self) {
        self.signal(Signal::QUIT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::QUIT);
        }
        let outcome = self.child.wait();
        assert!(thread::panicking() || outcome.is_ok());
    }
}

/// A program of an installation as a user, with its own libraries: `libpqwalreceiver` would find
/// the system's.
#[expect(clippy::disallowed_methods, reason = "a test that needs a server of its own")]
pub fn program(installation: &Installation, name: &str, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(installation.bin_dir.join(name));
    command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some(lib_dir) = &installation.lib_dir {
        command.env("LD_LIBRARY_PATH", lib_dir);
    }
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(gid);
    }
    command
}
