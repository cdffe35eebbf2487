//! A running cluster whose backups and WAL go into a repository, by the shortest way there is.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use obyra_backup::Result;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::Manifest;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::ClusterId;
use obyra_backup::repository::manifest::{Header, Tablespace};
use obyra_backup::repository::store::Store;
use obyra_backup::restore::{
    Action, Coverage, Instance, Known, Plan, Stage, Target, Wish, find, plan, survey,
};
use obyra_backup::wal::{Archive, Content};
use obyra_evidence::Quiet;
use obyra_postgres::cluster::{TemporaryCluster, TemporaryOptions, for_tests_version_with};
use obyra_postgres::wal::{WalFileName, WalSegmentSize};
use obyra_postgres::{Limits, Session};

use super::cut;

pub const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

pub struct Live {
    pub cluster: TemporaryCluster,
    pub session: Session,
    pub repository: Repository,
    pub id: ClusterId,
    pub backups: Vec<Header>,
    pub folder: tempfile::TempDir,
    major: u32,
}

impl Live {
    pub async fn start(major: u32) -> Live {
        Live::start_with(major, &[]).await
    }

    pub async fn start_with(major: u32, settings: &[(&str, &str)]) -> Live {
        let kept = [("wal_keep_size", "1GB"), ("full_page_writes", "on"), ("checkpoint_timeout", "1h")];
        let settings = kept.iter().chain(settings).map(|(name, value)| (name.to_string(), value.to_string()));
        let options =
            TemporaryOptions { settings: settings.collect(), in_memory: true, ..Default::default() };
        let cluster = for_tests_version_with(major, &options).await;
        let session = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        let id = session.query_one("SELECT system_identifier FROM pg_control_system()", &[]).await.unwrap();
        let id = ClusterId(id.get::<_, i64>(0).cast_unsigned());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("repository")).unwrap();
        let repository = Repository::open_or_create(store, &Unlock::generate()).await.unwrap();
        Live { cluster, session, repository, id, backups: Vec::new(), folder, major }
    }

    pub async fn ask(&self, sql: &str) -> String {
        self.session.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
    }

    pub async fn run(&self, sql: &str) {
        self.session.batch_execute(sql).await.unwrap();
    }

    /// Commits one row, and tells when that was certainly done.
    pub async fn add(&self, what: &str) -> Timestamp {
        self.run(&format!("INSERT INTO ledger (what) VALUES ('{what}')")).await;
        self.now().await
    }

    /// The server's clock.
    pub async fn now(&self) -> Timestamp {
        let now = self
            .ask("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        now.await.parse().unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.cluster.dir().join("data")
    }

    /// An online backup, cut while the server runs.
    pub async fn backup(&mut self) -> Header {
        let (begin, end) = if self.major < 15 {
            ("pg_start_backup('test', true, false)", "pg_stop_backup(false, false)")
        } else {
            ("pg_backup_start('test', true)", "pg_backup_stop(false)")
        };
        self.run(&format!("SELECT {begin}")).await;
        let mut header = cut::header(self.id, self.backups.len() as u16 + 1);
        header.started = self.now().await;
        let spaces = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16383";
        for row in self.session.query(spaces, &[]).await.unwrap() {
            header.tablespaces.push(Tablespace { oid: row.get(0), location: row.get(1) });
        }
        let mut cutting = header.clone();
        let skip = |path: &str| {
            let unwanted = ["pg_wal/", "pg_replslot/", "pg_stat_tmp/", "postmaster.", "pg_dynshmem/"];
            unwanted.iter().any(|prefix| path.starts_with(prefix)) && path != "pg_wal/archive_status"
        };
        // The manifest is the last thing that a backup writes; here the files are cut into it at once, and the
        // header is completed before it is committed.
        let cutter = cut::begin(&self.repository, self.id, &cutting, &self.data(), &skip).await;
        let sql = format!("SELECT lsn::text, labelfile FROM {end}");
        let stopped = self.session.query_one(&sql, &[]).await.unwrap();
        cutting.stop = stopped.get::<_, String>(0).parse().unwrap();
        cutting.backup_label = stopped.get(1);
        let start = cutting.backup_label.split_once("START WAL LOCATION: ").unwrap().1;
        cutting.start = start.split_whitespace().next().unwrap().parse().unwrap();
        let timeline = cutting.backup_label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "));
        cutting.timeline = timeline.unwrap().parse().unwrap();
        cutting.stopped = self.now().await;
        let header = cutter.commit(cutting).await;
        self.backups.push(header.clone());
        header
    }

    /// Puts all WAL so far into the archive.
    pub async fn archive(&self) {
        let current = self.ask("pg_walfile_name(pg_switch_wal())").await;
        archive(&self.repository, self.id, &self.data(), &current).await;
    }

    pub async fn coverage(&self) -> Coverage {
        survey(&self.repository, self.id, SIZE).await.unwrap()
    }

    pub async fn plan(&self, mut wish: Wish) -> Result<Plan> {
        let coverage = self.coverage().await;
        wish.found = find(&self.repository, self.id, &coverage, &wish.target, &Quiet).await?;
        let now = self.now().await;
        plan(&Known { backups: &self.backups, coverage: &coverage, rates: None, now }, &wish)
    }

    pub fn stage(&self) -> Stage<'_> {
        Stage {
            repository: &self.repository,
            cluster: self.id,
            installation: self.cluster.installation(),
            scratch: None,
            superuser: "postgres",
            threads: 2,
            databases: None,
        }
    }

    pub async fn manifest(&self, plan: &Plan) -> std::sync::Arc<Manifest> {
        Manifest::read(&self.repository, self.id, &plan.backup.id).await.unwrap().into()
    }

    /// Plans, restores and recovers.
    pub async fn raise(&self, wish: Wish) -> Result<Instance> {
        let plan = self.plan(wish).await?;
        let manifest = self.manifest(&plan).await;
        self.stage().raise(&plan, &manifest, Action::Promote, &Quiet).await
    }

    /// The rows of the ledger after a restore.
    pub async fn ledger(&self, target: Target) -> String {
        let instance = self.raise(Wish::to(target)).await.unwrap();
        ledger(&instance).await
    }
}

/// Puts the complete segments before `current`, and it, and the history files of a cluster into the archive.
pub async fn archive(repository: &Repository, id: ClusterId, data: &Path, current: &str) {
    let archive = Archive::new(repository, id);
    for entry in fs::read_dir(data.join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        match WalFileName::parse(&name, SIZE) {
            Some(WalFileName::Segment(segment)) if *name <= *current => {
                let path = entry.path();
                archive.put_segment(segment, SIZE, Content::File(path)).await.unwrap();
            }
            Some(WalFileName::History(timeline)) => {
                archive.put_history(timeline, fs::read(entry.path()).unwrap().into()).await.unwrap();
            }
            _ => {}
        }
    }
}

pub async fn session(instance: &Instance) -> Session {
    let admin = instance.restored.admin("postgres").unwrap();
    Session::connect(&admin, Limits::default()).await.unwrap()
}

pub async fn ask(instance: &Instance, sql: &str) -> String {
    session(instance).await.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
}

pub async fn ledger(instance: &Instance) -> String {
    ask(instance, "SELECT coalesce(string_agg(what, ' ' ORDER BY id), '') FROM ledger").await
}
