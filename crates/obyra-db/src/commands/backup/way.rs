//! The way back: which backup and which WAL lead to what is wanted, shown before anything is done.

use std::sync::Arc;

use obyra_backup::drill;
use obyra_backup::holdings::Holdings;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::{self, Manifest};
use obyra_backup::repository::layout::{BackupId, ClusterId};
use obyra_backup::repository::manifest::Header;
use obyra_backup::restore::{self, Coverage, Known, Plan, Rates, Target, Wish};
use obyra_backup::wal::Index;
use obyra_evidence::{Failure, HumanBytes, HumanDuration, Message, text};
use obyra_postgres::cluster::{Installation, Search};
use obyra_postgres::wal::TimelineId;

use crate::environment::Opened;
use crate::repository;

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// `latest`, a time, a position, `name:…`, `backup:…`.
    pub to: &'a str,
    /// From this backup and no other.
    pub from: Option<&'a str>,
    /// Along this timeline.
    pub timeline: Option<u32>,
}

/// The way to what was asked for.
pub struct Way {
    /// The repository.
    pub repository: Repository,
    /// The cluster in it.
    pub cluster: ClusterId,
    /// What will be done.
    pub plan: Plan,
    /// The archive that it was planned with.
    pub coverage: Coverage,
}

impl Way {
    /// Finds it.
    pub async fn find(opened: &Opened<'_>, asked: &Asked<'_>) -> Result<Way, Failure> {
        let (repository, cluster) = newest_cluster(opened).await?;
        let holdings = Holdings::read(&repository, cluster).await?;
        let (plan, coverage) = plan(opened, &repository, &holdings, asked).await?;
        Ok(Way { repository, cluster, plan, coverage })
    }

    /// The files of the plan's backup. As many as the cluster has: read by who restores them.
    pub async fn manifest(&self) -> Result<Arc<Manifest>, Failure> {
        Manifest::read(&self.repository, self.cluster, &self.plan.backup.id).await.map(Arc::new)
    }

    /// The plan in sentences, without its notes.
    pub fn told(&self) -> Vec<Message> {
        let plan = &self.plan;
        let mut told = vec![
            text::backup::WAY_TARGET.with("target", &plan.target).with("timeline", plan.timeline),
            text::backup::WAY_BACKUP
                .with("backup", &plan.backup.id)
                .with("at", plan.backup.stopped.strftime("%Y-%m-%d %H:%M:%S UTC"))
                .with("bytes", HumanBytes(plan.backup.totals.bytes)),
            text::backup::WAY_WAL
                .with("from", plan.replay.from)
                .with("to", plan.replay.to)
                .with("count", plan.replay.segments)
                .with("bytes", HumanBytes(plan.replay.bytes)),
        ];
        if let Some(expected) = plan.expected {
            let expected = HumanDuration::from_seconds(expected.as_secs().max(1));
            told.push(text::backup::WAY_EXPECTED.with("duration", expected.short()));
        }
        told.extend(plan.passed_over.iter().map(|passed| {
            text::backup::WAY_PASSED_OVER.with("backup", &passed.backup).with("reason", &passed.reason)
        }));
        if plan.timelines.len() > 1 {
            told.extend(plan.timelines.iter().cloned());
        }
        told
    }
}

/// The repository, and in it the cluster that the environment is now.
pub async fn newest_cluster(opened: &Opened<'_>) -> Result<(Repository, ClusterId), Failure> {
    let repository = repository::required(opened).await?;
    let newest = repository::clusters_of(opened, &repository).await?.pop();
    let cluster = newest.ok_or_else(|| repository::none_yet(opened))?;
    Ok((repository, cluster))
}

/// What a temporary server for a cluster's backups needs to know: its major version, and a superuser of it.
pub async fn origin(repository: &Repository, cluster: ClusterId) -> Result<(u32, String), Failure> {
    let backups = catalogue::backups(repository, cluster).await?;
    let mut headers = backups.iter().rev().filter_map(|listed| listed.header.as_ref().ok());
    let newest = headers.next();
    let major = newest.map_or(0, |header| header.cluster.version / 10_000);
    // Figures are recorded with most backups, and know it; initdb's default is a good guess.
    let recorded = match newest {
        Some(header) => drill::load(repository, cluster, &header.id).await?,
        None => None,
    };
    Ok((major, recorded.map_or_else(|| "postgres".to_owned(), |recorded| recorded.superuser)))
}

/// The programs of a backup's own major version, which need not be that of the strategy any more.
pub async fn installation(opened: &Opened<'_>, major: u32) -> Result<Installation, Failure> {
    let search = opened.postgres_search()?;
    let bin_dir = search.bin_dir.clone().filter(|_| search.major == major);
    let search = Search { major, bin_dir, ..search };
    Installation::find_or_fetch(&search, &opened.invocation.progress()).await
}

/// How many threads restore.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

async fn plan(
    opened: &Opened<'_>,
    repository: &Repository,
    holdings: &Holdings,
    asked: &Asked<'_>,
) -> Result<(Plan, Coverage), Failure> {
    let target = Target::parse(asked.to)?;
    let from = asked.from.map(|id| {
        id.parse::<BackupId>().map_err(|_| Failure::usage(text::backup::NO_BACKUP.with("backup", id)))
    });
    let size = Index::size(&holdings.wal);
    let coverage = restore::survey(repository, holdings.cluster, size).await?;
    let progress = opened.invocation.progress();
    let found = restore::find(repository, holdings.cluster, &coverage, &target, &progress).await?;
    let wish = Wish { target, found, from: from.transpose()?, timeline: asked.timeline.map(TimelineId) };
    // One whose own WAL is missing cannot be restored at all.
    let whole = holdings.backups.iter().filter(|kept| kept.is_restorable());
    let backups: Vec<Header> = whole.map(|kept| kept.header.clone()).collect();
    let known = Known { backups: &backups, coverage: &coverage, rates: rates(opened)?, now: opened.now() };
    let plan = restore::plan(&known, &wish)?;
    Ok((plan, coverage))
}

/// How fast the last drill was, on this machine or another: the best guess there is.
fn rates(opened: &Opened<'_>) -> Result<Option<Rates>, Failure> {
    let Some(record) = opened.latest("backup.drill")? else { return Ok(None) };
    let rate = |bytes: &str, seconds: &str| {
        let figure = |name: &str| record.figures.get(name).copied().filter(|value| *value > 0.0);
        Some((figure(bytes)? / figure(seconds)?) as u64)
    };
    let restore = rate("restored_bytes", "restore_seconds");
    Ok(restore.map(|restore| Rates {
        restore,
        replay: rate("replayed_bytes", "replay_seconds").unwrap_or(restore / 4).max(1),
    }))
}
