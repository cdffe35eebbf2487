//! Servers that a test can kill, with clusters of their own: segments of any size, standbys, recovery.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use obyra_backup::repository::layout::ClusterId;
use obyra_postgres::cluster::{Installation, installation_for_tests_version, owner_of_files};
use obyra_postgres::{Conninfo, Host, Limits, Session};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What a cluster of a test is.
pub struct Setup<'a> {
    pub major: u32,
    pub segment_mib: u32,
    pub settings: &'a [&'a str],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup { major: 16, segment_mib: 1, settings: &[] }
    }
}

/// A cluster in a folder, and its server while it runs. Both are gone when it is dropped.
pub struct Server {
    room: TempDir,
    installation: Installation,
    owner: (u32, u32),
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A new cluster whose server runs.
    pub async fn start_new(setup: Setup<'_>) -> Server {
        let installation = installation_for_tests_version(setup.major).await.unwrap();
        let mut server = Server::empty(installation, setup.settings);
        let mut initdb = server.program("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        initdb.arg(format!("--wal-segsize={}", setup.segment_mib)).arg("-D").arg(server.data());
        run(initdb);
        server.start().await;
        server
    }

    fn empty(installation: Installation, settings: &[&str]) -> Server {
        let base =
            if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let room = tempfile::Builder::new().prefix("obyra-wal-").tempdir_in(base).unwrap();
        let us = fs::metadata(room.path()).unwrap();
        let owner = owner_of_files(&room.path().join("data")).unwrap().unwrap_or((us.uid(), us.gid()));
        fs::create_dir(room.path().join("socket")).unwrap();
        for folder in [room.path(), &room.path().join("socket")] {
            chown(folder, Some(owner.0), Some(owner.1)).unwrap();
        }
        // Whoever runs archive_command must reach it too.
        fs::set_permissions(room.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Server { room, installation, owner, settings, child: None }
    }

    /// A standby of a running server, streaming from it.
    pub async fn standby_of(primary: &Server, settings: &[&str]) -> Server {
        let mut standby = Server::copy_of(primary, settings);
        let conninfo = format!("primary_conninfo = 'host={} user=postgres'\n", primary.socket().display());
        standby.write("postgresql.auto.conf", &conninfo);
        standby.write("standby.signal", "");
        standby.start().await;
        standby
    }

    /// A base backup of a running server, with the WAL that it needs; its server is not started.
    pub fn copy_of(primary: &Server, settings: &[&str]) -> Server {
        let copy = Server::empty(primary.installation.clone(), settings);
        let mut backup = copy.program("pg_basebackup");
        backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--username=postgres"]);
        backup.arg("-h").arg(primary.socket()).arg("-D").arg(copy.data());
        run(backup);
        copy
    }

    /// Starts the server, and waits until it answers or says that it is going to recover first.
    pub async fn start(&mut self) {
        self.spawn();
        self.wait_until_ready().await;
    }

    /// Starts the server without waiting for it.
    pub fn spawn(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).stdout(Stdio::null()).stderr(log);
        let socket = format!("unix_socket_directories={}", self.socket().display());
        let usual = ["listen_addresses=", "port=5432", "fsync=off", "wal_keep_size=0", "max_wal_senders=10"];
        let quick = ["dynamic_shared_memory_type=mmap", "shared_buffers=32MB", "autovacuum=off"];
        let given = self.settings.iter().map(String::as_str);
        for setting in usual.into_iter().chain(quick).chain([socket.as_str()]).chain(given) {
            command.args(["-c", setting]);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until it answers.
    pub async fn wait_until_ready(&mut self) {
        for _ in 0..3_000 {
            if Session::connect(&self.admin(), Limits::default()).await.is_ok() {
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("{status}: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not get ready: {}", self.said());
    }

    /// Waits until it has ended by itself; returns whether it did so in good order.
    pub async fn wait_until_ended(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap().success()).await.unwrap()
    }

    /// Whether its server has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Kills it and all its processes, as a machine that fails does.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let number = child.id();
        let children =
            fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
        for number in [number.to_string()].iter().map(String::as_str).chain(children.split_whitespace()) {
            let pid = Pid::from_raw(number.parse().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
        child.wait().unwrap();
        // A child that is not ours to wait for may take a moment to be gone.
        for number in children.split_whitespace() {
            while fs::read_to_string(format!("/proc/{number}/cmdline"))
                .is_ok_and(|line| line.contains("postgres"))
            {
                std::thread::yield_now();
            }
        }
    }

    /// Ends it in good order.
    pub async fn stop(&mut self) {
        self.signal(Signal::INT);
        assert!(self.wait_until_ended().await, "{}", self.said());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.as_ref().unwrap().id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The superuser over the socket.
    pub fn admin(&self) -> Conninfo {
        Conninfo::new(vec![Host::new(self.socket().display().to_string(), 5432)], "postgres", "postgres")
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.admin(), Limits::default()).await.unwrap()
    }

    /// The system identifier, as pg_control has it.
    pub fn cluster(&self) -> ClusterId {
        let control = fs::read(self.data().join("global/pg_control")).unwrap();
        ClusterId(u64::from_le_bytes(control[..8].try_into().unwrap()))
    }

    pub fn data(&self) -> PathBuf {
        self.room.path().join("data")
    }

    pub fn room(&self) -> &Path {
        self.room.path()
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// What the server said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Writes a file of the cluster.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// A file of `pg_wal`.
    pub fn wal(&self, name: &str) -> PathBuf {
        self.data().join("pg_wal").join(name)
    }

    fn socket(&self) -> PathBuf {
        self.room.path().join("socket")
    }

    fn log(&self) -> PathBuf {
        self.room.path().join("log")
    }

    /// A program of the installation, as the server's user.
    #[expect(clippy::disallowed_methods, reason = "a test that needs servers of its own")]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.installation.bin_dir.join(name));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(lib_dir) = &self.installation.lib_dir {
            command.env("LD_LIBRARY_PATH", lib_dir);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

/// Runs a program to its end; returns what it wrote.
pub fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until there is something.
pub async fn eventually<T>(what: &str, mut there: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(value) = there().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come to be: {what}");
}
