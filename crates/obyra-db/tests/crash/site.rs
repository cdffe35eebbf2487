//! The cluster, its repository, and the programs that work on both.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use obyra_evidence::Quiet;
use obyra_postgres::cluster::{Embedded, EmbeddedSpec, Installation, State, installation_for_tests};
use obyra_postgres::secrecy::ExposeSecret as _;
use obyra_postgres::wal::Lsn;
use obyra_postgres::{Conninfo, Limits, Reveal, Scheme, Session};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::dice::Dice;
use crate::load::Load;
use crate::project::Project;
use crate::store::Disk;

/// What is left of a backup goes soon, so that expiry runs among the others.
const STRATEGY: &str = "
state_dir = '.obyra-db'
[environments.production]
runs_on = 'self-hosted'
url_env = 'ADMIN_URL'
database = 'postgres'
[backup]
source = 'SOURCE'
repository = 'file://FOLDER'
retention = '1m'
keep = { last = 4 }
[backup.pitr]
enabled = true
window = '1m'
lag_max = '4s'
";

/// A process may take so long before something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(120);

/// All that lives through the rounds.
pub struct Site {
    // In the order of their end.
    receiver: Option<Running>,
    pub load: Load,
    pub store: Disk,
    spec: EmbeddedSpec,
    installation: Installation,
    admin: Conninfo,
    /// The newest backup that ended well.
    newest: Option<String>,
    /// How long one takes here, in milliseconds.
    pub usual: usize,
    project: Project,
}

impl Site {
    pub async fn open() -> Site {
        let mut project = Project::empty();
        let repository = project.path().join("repository");
        let strategy = STRATEGY.replace("FOLDER", &repository.display().to_string());
        project.write("obyra-db.toml", &strategy.replace("SOURCE", "protocol"));
        project.write("local.toml", &strategy.replace("SOURCE", "local"));
        let settings = [("fsync", "off"), ("checkpoint_timeout", "30s"), ("shared_buffers", "16MB")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let spec = EmbeddedSpec { dir: project.path().join("cluster"), settings };
        let installation = installation_for_tests().await.unwrap();
        let cluster = Embedded::up(&spec, &installation, &Quiet).await.unwrap();
        let admin = cluster.admin();
        project.set("ADMIN_URL", admin.url(Scheme::Postgresql, Reveal::Password).expose_secret());
        let store = Disk::mount(&repository);
        let load = Load::begin(&admin).await;
        let mut site =
            Site { receiver: None, load, store, spec, installation, admin, newest: None, usual: 0, project };
        site.receive();
        for _ in 0..2 {
            // The second is an incremental one, as all that follow.
            let begun = Instant::now();
            let mut backup = site.run_backup(false);
            assert!(backup.ended().await, "{}", backup.said());
            site.remember(&backup.said());
            site.usual = usize::try_from(begun.elapsed().as_millis()).unwrap();
        }
        site
    }

    fn start(&self, name: &str, words: &[&str]) -> Running {
        let log = self.project.path().join(name);
        let out = fs::File::create(&log).unwrap();
        let mut process = self.project.process(words);
        process.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Running { child: Some(process.spawn().unwrap()), log }
    }

    /// Makes sure that somebody receives WAL.
    pub fn receive(&mut self) {
        if self.receiver.as_mut().is_none_or(|receiver| !receiver.runs()) {
            self.receiver = Some(self.start("receiver.log", &["backup", "wal", "production"]));
        }
    }

    pub fn receiver(&mut self) -> &mut Running {
        self.receiver.as_mut().unwrap()
    }

    /// Begins a backup, from the files or over the protocol.
    pub fn run_backup(&self, local: bool) -> Running {
        let config = if local { "local.toml" } else { "obyra-db.toml" };
        self.start("backup.log", &["--config", config, "backup", "run", "production", "--json"])
    }

    /// A backup said that it ended well: it must be there from now on.
    pub fn remember(&mut self, said: &str) {
        let id = said.split("\"id\": \"").nth(1).and_then(|rest| rest.split('"').next());
        self.newest = Some(id.unwrap_or_else(|| panic!("{said}")).to_owned());
    }

    /// Kills the server and its processes, or tells it to stop at once; waits until it is gone.
    pub async fn kill_server(&self, signal: Signal) {
        let Some(server) = self.server().await else { return };
        let children = if signal == Signal::KILL { children_of(server) } else { Vec::new() };
        for process in [server].into_iter().chain(children) {
            let _ = kill_process(process, signal);
        }
        while self.server().await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills one of the server's processes.
    pub async fn kill_backend(&self, dice: &mut Dice) {
        let Some(server) = self.server().await else { return };
        let children = children_of(server);
        let _ = kill_process(children[dice.below(children.len())], Signal::KILL);
    }

    async fn server(&self) -> Option<Pid> {
        match Embedded::status(&self.spec.dir).await.unwrap() {
            State::Running { pid, .. } => Pid::from_raw(pid.try_into().unwrap()),
            State::Absent | State::Stopped => None,
        }
    }

    /// Cuts every replication connection.
    pub async fn cut_connections(&self) {
        if let Ok(session) = Session::connect(&self.admin, Limits::default()).await {
            let _ = session.batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
        }
    }

    /// Starts the server if it does not run, and waits until it answers.
    pub async fn start_server(&self) {
        let cluster = Embedded::up(&self.spec, &self.installation, &Quiet).await.unwrap();
        // Its port may be another now; whoever knew it finds it under the old one.
        let socket = |admin: &Conninfo| {
            let host = &admin.hosts()[0];
            Path::new(&host.name).join(format!(".s.PGSQL.{}", host.port))
        };
        let (now, known) = (socket(&cluster.admin()), socket(&self.admin));
        if now != known {
            let _ = fs::remove_file(&known);
            symlink(now, known).unwrap();
        }
        // One whose process died runs, and recovers.
        let begun = Instant::now();
        while Session::connect(&self.admin, Limits::default()).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the server does not get ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What was committed until now is acknowledged by the archive before long, and what it acknowledged it has,
    /// without a hole, and every backup that it lists can be restored.
    pub async fn acknowledged_is_archived(&mut self) {
        let committed = self.load.committed();
        let begun = Instant::now();
        while self.load.acknowledged() < committed {
            self.load.is_well();
            let receiver = self.receiver();
            assert!(
                receiver.runs() && begun.elapsed() < PATIENCE,
                "the archive stays behind: {}",
                receiver.said()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let acknowledged = self.load.acknowledged();
        let (code, list) = self.json("obyra-db.toml", "list");
        let cluster = &list["clusters"][0];
        let stretch = cluster["wal"][0]["stretches"].as_array().unwrap().last().unwrap();
        let end: Lsn = stretch["to"].as_str().unwrap().parse().unwrap();
        assert!(end >= acknowledged, "{acknowledged} was acknowledged, and the archive ends at {end}");
        assert_eq!(cluster["holes"].as_array().unwrap().len(), 0, "{list:#}");
        assert_eq!(cluster["unreadable"].as_array().unwrap().len(), 0, "{list:#}");
        let backups = cluster["backups"].as_array().unwrap();
        assert!(backups.iter().all(|backup| backup["restorable"] == true), "{list:#}");
        let newest = self.newest.as_deref();
        assert!(
            backups.iter().any(|backup| backup["backup"]["id"].as_str() == newest),
            "{newest:?}: {list:#}"
        );
        assert_eq!(code, 0);
    }

    /// Everything is read again, and the newest backup is restored and has every row that was acknowledged.
    pub async fn prove(&mut self) {
        let (code, verified) = self.json("obyra-db.toml", "verify");
        assert_eq!(code, 0, "{verified:#}");
        let (query, rows) = self.load.query();
        let strategy = fs::read_to_string(self.project.path().join("obyra-db.toml")).unwrap();
        let drill =
            format!("{strategy}[backup.drill]\nqueries = [{{ sql = \"{query}\", expect = '{rows}' }}]\n");
        self.project.write("drill.toml", &drill);
        let (code, drilled) = self.json("drill.toml", "drill");
        assert_eq!(code, 0, "{drilled:#}");
        assert!(drilled.to_string().contains(&rows), "the query ran: {drilled:#}");
    }

    /// Something is damaged or missing, which is said with its name; then it is put back.
    pub async fn damage_is_told(&mut self, dice: &mut Dice) {
        let (_, list) = self.json("obyra-db.toml", "list");
        let cluster = &list["clusters"][0];
        let root = self.project.path().join("repository");
        let home = root.join("clusters").join(cluster["cluster"].as_str().unwrap());
        let newest = cluster["backups"].as_array().unwrap().last().unwrap();
        let id = newest["backup"]["id"].as_str().unwrap();
        let kind = ["packs", "backups", "wal"][dice.below(3)];
        let mut objects = files(&home.join(kind));
        // Parts go when their segment is complete, and packs of others are nobody's after an interruption.
        objects.retain(|path| {
            path.extension().is_none() && (kind == "wal" || path.display().to_string().contains(id))
        });
        let Some(object) = (!objects.is_empty()).then(|| objects[dice.below(objects.len())].clone()) else {
            return;
        };
        let whole = fs::read(&object).unwrap();
        let name = object.strip_prefix(&root).unwrap().display().to_string();
        let removed = kind == "packs" && dice.below(2) == 0;
        if removed {
            fs::remove_file(&object).unwrap();
        } else {
            let mut flipped = whole.clone();
            flipped[dice.below(whole.len())] ^= 1 << dice.below(8);
            fs::write(&object, flipped).unwrap();
        }
        let (code, verified) = self.json("obyra-db.toml", "verify");
        fs::write(&object, whole).unwrap();
        let what = if removed { "removed" } else { "flipped" };
        assert_eq!(code, 2, "{name} was {what}: {verified:#}");
        assert!(verified["faults"].to_string().contains(&name), "{name} was {what}: {verified:#}");
    }

    fn json(&self, config: &str, verb: &str) -> (i32, Value) {
        let run = self.project.run(&["--config", config, "backup", verb, "production", "--json"]);
        let read = serde_json::from_str(&run.stdout);
        (run.code, read.unwrap_or_else(|e| panic!("{verb}: {e}\n{}\n{}", run.stdout, run.stderr)))
    }

    /// The receiver ends in good order, the ledger is whole, the cluster is removed.
    pub async fn close(mut self) {
        self.load.end();
        let _ = kill_process(self.receiver().pid().unwrap(), Signal::INT);
        let ended = self.receiver().ended().await;
        assert!(ended, "{}", self.receiver().said());
        self.project.run(&["evidence", "verify"]).ends(0);
        Embedded::destroy(&self.spec.dir).await.unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Where a round failed: nothing runs on.
        self.load.end();
        if let (Ok(Some(_)), Ok(text)) =
            (Embedded::open(&self.spec.dir), fs::read_to_string(self.spec.dir.join("data/postmaster.pid")))
            && let Some(server) = text.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)
        {
            let _ = kill_process(server, Signal::QUIT);
        }
    }
}

/// A process of the program.
pub struct Running {
    child: Option<Child>,
    log: PathBuf,
}

impl Running {
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Waits until it has; whether it ended well.
    pub async fn ended(&mut self) -> bool {
        let begun = Instant::now();
        while self.runs() {
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child.as_mut().unwrap().wait().unwrap().success()
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn children_of(process: Pid) -> Vec<Pid> {
    let number = process.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
