//! A server of a test and a repository beside it: backups are taken of the one into the other, and brought
//! back as servers.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use obyra_backup::Result;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::{self, Manifest};
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::manifest::Header;
use obyra_backup::repository::store::Store;
use obyra_backup::restore::{
    Action, Instance, Into, Known, Place, Restore, Stage, Target, Wish, plan, survey,
};
use obyra_backup::take::{self, From, Options, Request, Taken};
use obyra_backup::wal::{Archive, Content};
use obyra_evidence::{Progress, Quiet};
use obyra_postgres::replication::Checkpoint;
use obyra_postgres::wal::{WalFileName, WalSegmentSize};
use obyra_postgres::{Limits, Session};
use tempfile::TempDir;

use super::server::{Server, Setup, run};

/// Where the files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Protocol,
    Local,
}

/// The size of segments that the tests' clusters have.
pub fn segment() -> WalSegmentSize {
    WalSegmentSize::new(1 << 20).unwrap()
}

pub struct Site {
    pub server: Server,
    pub repository: Repository,
    _folder: TempDir,
    /// Backups begin a minute apart, by the clock of these tests.
    minutes: AtomicI64,
}

impl Site {
    /// A cluster with checksums.
    pub async fn new(major: u32) -> Site {
        Site::with(major, &[]).await
    }

    pub async fn with(major: u32, settings: &[&str]) -> Site {
        let usual = ["wal_keep_size=2GB", "max_wal_size=2GB", "max_prepared_transactions=5"];
        let settings: Vec<&str> = usual.iter().chain(settings).copied().collect();
        let mut server = Server::start_new(Setup { major, settings: &settings, ..Setup::default() }).await;
        if ask(&server.session().await, "SHOW data_checksums").await == "off" {
            server.stop().await;
            let mut enable = server.program("pg_checksums");
            enable.args(["--enable", "--no-sync", "-D"]).arg(server.data());
            run(enable);
            server.start().await;
        }
        Site::around(server).await
    }

    pub async fn around(server: Server) -> Site {
        let folder = tempfile::Builder::new().prefix("obyra-take-").tempdir().unwrap();
        let store = Store::folder(&folder.path().join("repository")).unwrap();
        let repository = Repository::open_or_create(store, &Unlock::generate()).await.unwrap();
        Site { server, _folder: folder, repository, minutes: AtomicI64::new(0) }
    }

    /// The same repository with another server of the cluster; and the one that it was.
    pub fn of(self, server: Server) -> (Site, Server) {
        let Site { server: before, repository, _folder, minutes } = self;
        (Site { server, repository, _folder, minutes }, before)
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.server.admin(), Limits::patient()).await.unwrap()
    }

    pub async fn try_take(&self, way: Way, options: Options, progress: &dyn Progress) -> Result<Taken> {
        let target = self.server.admin();
        let from = match way {
            Way::Protocol => From::Protocol { target },
            Way::Local => From::Local { target, data_directory: None },
        };
        let options = Options { checkpoint: Checkpoint::Fast, threads: 2, ..options };
        take::run(&self.repository, &from, &self.request(options), progress).await
    }

    pub fn request(&self, options: Options) -> Request {
        let first: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        let minutes = SignedDuration::from_mins(self.minutes.fetch_add(1, Ordering::Relaxed));
        Request {
            environment: "test".to_owned(),
            host: "here".to_owned(),
            pid: 1,
            program: "test".to_owned(),
            now: first + minutes,
            options,
        }
    }

    /// From now on it is so many days later.
    pub fn days_pass(&self, days: i64) {
        self.minutes.fetch_add(days * 24 * 60, Ordering::Relaxed);
    }

    /// The files of a backup, as a restore writes them: in `data`, and tablespaces in `data.tablespaces`.
    pub async fn files(&self, header: &Header) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let manifest = self.manifest(header).await;
        let into = Into { data: folder.path().join("data"), ..Into::default() };
        let restore = Restore {
            repository: self.repository.clone(),
            cluster: self.server.cluster(),
            place: Place::look(&manifest, &into).unwrap(),
            manifest: manifest.into(),
            small: Vec::new(),
            threads: 2,
            databases: None,
        };
        restore.run(&Quiet).await.unwrap();
        folder
    }

    pub async fn headers(&self) -> Vec<Header> {
        let listed = catalogue::backups(&self.repository, self.server.cluster()).await.unwrap();
        listed.into_iter().map(|listed| listed.header.unwrap()).collect()
    }

    pub async fn manifest(&self, header: &Header) -> Manifest {
        Manifest::read(&self.repository, self.server.cluster(), &header.id).await.unwrap()
    }

    /// Puts all WAL so far into the archive, from the first backup on.
    pub async fn archive(&self) {
        let first = self.headers().await.first().map_or(0, |header| header.start.0 / segment().bytes());
        let switched = ask(&self.session().await, "SELECT pg_walfile_name(pg_switch_wal())").await;
        let archive = Archive::new(&self.repository, self.server.cluster());
        for entry in fs::read_dir(self.server.data().join("pg_wal")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap().to_owned();
            if let Some(WalFileName::Segment(number)) = WalFileName::parse(&name, segment())
                && name <= switched
                && number.number >= first
            {
                archive.put_segment(number, segment(), Content::File(entry.path())).await.unwrap();
            }
        }
    }

    /// Brings a backup back as a server.
    pub async fn raise(&self, header: &Header, target: Target) -> Instance {
        let cluster = self.server.cluster();
        let coverage = survey(&self.repository, cluster, segment()).await.unwrap();
        let backups = self.headers().await;
        let wish = Wish { from: Some(header.id.clone()), ..Wish::to(target) };
        let known = Known { backups: &backups, coverage: &coverage, rates: None, now: header.stopped };
        let plan = plan(&known, &wish).unwrap();
        let stage = Stage {
            repository: &self.repository,
            cluster,
            installation: self.server.installation(),
            scratch: None,
            superuser: "postgres",
            threads: 2,
            databases: None,
        };
        let manifest = self.manifest(header).await.into();
        stage.raise(&plan, &manifest, Action::Promote, &Quiet).await.unwrap()
    }
}

/// Checks a restored server with PostgreSQL's own programs, and ends it.
pub async fn prove_sound(site: &Site, instance: Instance) {
    let admin = instance.restored.admin("postgres").unwrap();
    let mut amcheck = instance.restored.installation().tool_on("pg_amcheck", &admin);
    amcheck.args(["--all", "--install-missing", "--no-password"]);
    let output = amcheck.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let scratch = instance.restored.stop().await.unwrap();
    let mut check = site.server.program("pg_checksums");
    check.arg("--check").arg("-D").arg(scratch.data());
    let said = run(check);
    assert!(said.contains("Bad checksums:  0"), "{said}");
}

/// Where a table is in the data directory; its blocks are on the disk.
pub async fn path_of(session: &Session, table: &str) -> String {
    session.batch_execute("CHECKPOINT").await.unwrap();
    ask(session, &format!("SELECT pg_relation_filepath('{table}')")).await
}

/// Damages a block of a file; the second time, mends it.
pub fn flip(file: &Path, block: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let (mut byte, at) = ([0], block * 8192 + 5000);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// The one value that a statement asks for, as text.
pub async fn ask(session: &Session, sql: &str) -> String {
    let sql =
        sql.strip_prefix("SHOW ").map_or(sql.to_owned(), |name| format!("SELECT current_setting('{name}')"));
    session.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
}

/// A hash of all that a database's tables hold.
pub async fn contents(session: &Session) -> Vec<(String, String)> {
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT IN ('pg_catalog', 'information_schema') \
                  ORDER BY 1";
    let mut found = Vec::new();
    for row in session.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let hash = format!("SELECT md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM {table} t");
        let hash: Option<String> = session.query_one(&hash, &[]).await.unwrap().get(0);
        found.push((table, hash.unwrap_or_default()));
    }
    found
}
