//! A backup and expiries on one store, in every order of their single operations: no manifest ever names a
//! pack that is gone. The real code runs; only the order and the clock are made.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use obyra_evidence::{Failure, Quiet};
use proptest::prelude::*;

use super::*;
use crate::repository::Marker;
use crate::repository::catalogue;
use crate::repository::catalogue::{Manifest, ManifestWriter};
use crate::repository::keys::Keyring;
use crate::repository::layout::REPOSITORY;
use crate::repository::manifest::{Line, PackEntry, sample_header};
use crate::repository::store::Store;

const CLUSTER: ClusterId = ClusterId(7);

/// Lets whoever polls by hand do something else before each operation, and has a clock of its own.
#[derive(Debug)]
struct Stepped {
    objects: Arc<InMemory>,
    minutes: AtomicU64,
    written: Arc<Mutex<HashMap<Path, u64>>>,
}

impl fmt::Display for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stepped")
    }
}

/// Pending once.
async fn step() {
    let mut first = true;
    std::future::poll_fn(move |context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

fn dated(written: &Mutex<HashMap<Path, u64>>, mut meta: ObjectMeta) -> ObjectMeta {
    let minutes = written.lock().unwrap().get(&meta.location).copied().unwrap_or_default();
    meta.last_modified = (UNIX_EPOCH + Duration::from_secs(60 * minutes)).into();
    meta
}

#[async_trait::async_trait]
impl ObjectStore for Stepped {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        step().await;
        let put = self.objects.put_opts(path, payload, options).await?;
        self.written.lock().unwrap().insert(path.clone(), self.minutes.load(Ordering::Relaxed));
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        step().await;
        let mut got = self.objects.get_opts(path, options).await?;
        got.meta = dated(&self.written, got.meta);
        Ok(got)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        step().await;
        self.objects.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let deleted = self.objects.delete_stream(paths);
        step().into_stream().filter_map(async |()| None).chain(deleted).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (objects, written, prefix) = (self.objects.clone(), self.written.clone(), prefix.cloned());
        // One operation, as on S3 for the few objects that there are.
        let listed = async move {
            step().await;
            let listed: Vec<_> = objects.list(prefix.as_ref()).collect().await;
            listed.into_iter().map(move |meta| meta.map(|meta| dated(&written, meta)))
        };
        listed.into_stream().flat_map(futures_util::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        step().await;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

fn id(day: u32) -> BackupId {
    format!("202611{day:02}T030000Z-00ab").parse().unwrap()
}

async fn put_pack(repository: &Repository, backup: &BackupId, sequence: u32) -> Result<PackEntry> {
    let id = PackId { backup: backup.clone(), sequence };
    let mut pack = PackWriter::new(&repository.keys, &CLUSTER.pack(&id), 1)?;
    pack.push(Kind::Blocks, b"block", Vec::new())?;
    let sealed = pack.finish()?;
    let entry = PackEntry::of(id, &sealed);
    repository.store.create_new(&sealed.name, sealed.bytes).await?;
    Ok(entry)
}

/// Takes a backup as a run does: the claim, the parent's manifest, a pack, the commit.
async fn backup(repository: Repository, day: u32, parents: Vec<u32>) -> Result<()> {
    let id = id(day);
    let note = Note {
        environment: "test".to_owned(),
        host: "host".to_owned(),
        pid: 1,
        program: "0".to_owned(),
        started: Timestamp::UNIX_EPOCH,
        uses: parents.into_iter().map(self::id).collect(),
        everything: false,
        ended: false,
        process: None,
    };
    let claim = Claim::begin(&repository, CLUSTER, &id, note).await?;
    let mut packs = Vec::new();
    for parent in claim.uses() {
        packs.extend(Manifest::read(&repository, CLUSTER, parent).await?.packs);
    }
    packs.push(put_pack(&repository, &id, 0).await?);
    let mut manifest = ManifestWriter::new(&repository, CLUSTER, &id, 1);
    for pack in packs {
        manifest.push(&Line::Pack(pack)).await?;
    }
    claim.commit(manifest, &sample_header(&id)).await.map(drop)
}

async fn expire(repository: Repository, days: Vec<u32>) -> Result<()> {
    let wanted: Vec<BackupId> = days.into_iter().map(id).collect();
    Expiry::begin(&repository, CLUSTER, &wanted).await?.run().await.map(drop)
}

/// A copy as it is made from another repository, whose backup 3 names packs of 1 and 2.
async fn copy(from: Repository, to: Repository) -> Result<()> {
    let note = Note {
        environment: "test".to_owned(),
        host: "host".to_owned(),
        pid: 1,
        program: "0".to_owned(),
        started: Timestamp::UNIX_EPOCH,
        uses: Vec::new(),
        everything: false,
        ended: false,
        process: None,
    };
    crate::copy::run(&from, &to.store, note, &Quiet).await.map(drop)
}

type Actor = Pin<Box<dyn Future<Output = Result<()>>>>;

struct Stage {
    store: Arc<Stepped>,
    repository: Repository,
    actors: Vec<Option<Actor>>,
    ended: Vec<Option<Failure>>,
}

impl Stage {
    /// Backups of the days 1 and 2, where 2 names a pack of 1.
    async fn new() -> Stage {
        let stage = Stage::around(InMemory::new());
        backup(stage.repository.clone(), 1, Vec::new()).await.unwrap();
        backup(stage.repository.clone(), 2, vec![1]).await.unwrap();
        stage
    }

    fn around(objects: InMemory) -> Stage {
        let store = Arc::new(Stepped {
            objects: Arc::new(objects),
            minutes: AtomicU64::new(0),
            written: Arc::default(),
        });
        let repository =
            Repository { store: Store::of(store.clone(), "", "memory:"), keys: Keyring::for_tests() };
        Stage { store, repository, actors: Vec::new(), ended: Vec::new() }
    }

    fn enter(&mut self, actor: impl Future<Output = Result<()>> + 'static) {
        self.actors.push(Some(Box::pin(actor)));
        self.ended.push(None);
    }

    /// Lets an actor do one operation; false once it is done.
    async fn let_act(&mut self, who: usize) -> bool {
        tokio::task::yield_now().await;
        let Some(actor) = &mut self.actors[who] else { return false };
        if let Poll::Ready(ended) = actor.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.ended[who] = ended.err();
            self.actors[who] = None;
        }
        true
    }

    async fn let_all_end(&mut self) {
        while self.actors.iter().any(Option::is_some) {
            for who in 0..self.actors.len() {
                self.let_act(who).await;
            }
        }
    }

    async fn all_that_is_named_is_there(&self) {
        for (backup, _) in catalogue::ids(&self.repository, CLUSTER).await.unwrap() {
            let manifest = Manifest::read(&self.repository, CLUSTER, &backup).await.unwrap();
            let missing = manifest.named().missing(&self.repository, CLUSTER).await.unwrap();
            assert_eq!(missing, [], "packs of {backup}");
        }
    }

    async fn days(&self) -> String {
        let ids = catalogue::ids(&self.repository, CLUSTER).await.unwrap();
        ids.iter().map(|(id, _)| &id.as_str()[7..8]).collect()
    }
}

/// Each order with at most two changes of who acts, from every operation to every operation.
#[tokio::test]
async fn a_backup_and_an_expiry_of_its_parent_never_meet() {
    let mut outcomes = BTreeSet::new();
    for first in 0..2 {
        for before in 0..40 {
            for between in (0..60).step_by(4) {
                let mut stage = Stage::new().await;
                stage.enter(backup(stage.repository.clone(), 3, vec![2]));
                stage.enter(expire(stage.repository.clone(), vec![1, 2]));
                for _ in 0..before {
                    stage.let_act(first).await;
                }
                for _ in 0..between {
                    stage.let_act(1 - first).await;
                }
                for _ in 0..150 {
                    stage.let_act(first).await;
                }
                stage.let_all_end().await;
                stage.all_that_is_named_is_there().await;
                assert!(stage.ended[0].is_none(), "{:?}", stage.ended);
                assert!(stage.ended[1].is_none(), "{:?}", stage.ended);
                outcomes.insert(stage.days().await);
            }
        }
    }
    // Either the expiry gave way, or the backup did.
    assert_eq!(outcomes, BTreeSet::from(["23".to_owned(), "3".to_owned()]));
}

/// The machine of the backup sleeps after some operation, for longer than a claim lives.
#[tokio::test]
async fn a_backup_that_was_taken_for_dead_never_commits_what_is_gone() {
    let mut outcomes = BTreeSet::new();
    for minutes in [20, 50 * 60] {
        for asleep_after in 0..40 {
            for meanwhile in (0..90).step_by(6) {
                let mut stage = Stage::new().await;
                stage.enter(backup(stage.repository.clone(), 3, vec![2]));
                for _ in 0..asleep_after {
                    stage.let_act(0).await;
                }
                stage.store.minutes.fetch_add(minutes, Ordering::Relaxed);
                stage.enter(expire(stage.repository.clone(), vec![1, 2]));
                for _ in 0..meanwhile {
                    stage.let_act(1).await;
                }
                stage.let_all_end().await;
                stage.all_that_is_named_is_there().await;
                assert!(stage.ended[1].is_none(), "{:?}", stage.ended);
                let lost = stage.ended[0].as_ref().map(|failure| failure.what.code().id());
                outcomes.insert(format!("{} {}", stage.days().await, lost.unwrap_or("kept")));
            }
        }
    }
    assert!(outcomes.contains("3 kept"), "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| outcome.ends_with("backup.claim-lost")), "{outcomes:?}");
}

/// A copy goes into a repository that has two of its backups while these are removed from there, awake and
/// asleep.
#[tokio::test]
async fn a_copy_and_an_expiry_never_meet() {
    let from = Stage::new().await;
    let there = from.store.objects.fork();
    let from = Repository { store: Store::of(from.store, "", "memory:from"), keys: from.repository.keys };
    backup(from.clone(), 3, vec![1, 2]).await.unwrap();
    from.store.create_new(REPOSITORY, Marker::current().unwrap().into()).await.unwrap();
    let mut outcomes = BTreeSet::new();
    for minutes in [0, 20, 50 * 60] {
        for before in (0..60).step_by(2) {
            for between in (0..60).step_by(4) {
                let mut stage = Stage::around(there.fork());
                stage.enter(copy(from.clone(), stage.repository.clone()));
                stage.enter(expire(stage.repository.clone(), vec![1, 2]));
                for _ in 0..before {
                    stage.let_act(0).await;
                }
                stage.store.minutes.fetch_add(minutes, Ordering::Relaxed);
                for _ in 0..between {
                    stage.let_act(1).await;
                }
                stage.let_all_end().await;
                stage.all_that_is_named_is_there().await;
                assert!(stage.ended[1].is_none(), "{:?}", stage.ended);
                let lost = stage.ended[0].as_ref().map(|failure| failure.what.code().id());
                assert!(minutes > 0 || lost.is_none(), "{:?}", stage.ended);
                outcomes.insert(format!("{} {}", stage.days().await, lost.unwrap_or("kept")));
            }
        }
    }
    // What the expiry had removed before, the copy brings back; what it uses stays.
    assert!(outcomes.contains("123 kept"), "{outcomes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two backups and two expiries in any order.
    #[test]
    fn nothing_that_is_named_is_ever_deleted(turns in prop::collection::vec(0..4usize, 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut stage = Stage::new().await;
            stage.enter(backup(stage.repository.clone(), 3, vec![2]));
            stage.enter(backup(stage.repository.clone(), 4, vec![1, 2]));
            stage.enter(expire(stage.repository.clone(), vec![1, 2]));
            stage.enter(expire(stage.repository.clone(), vec![2]));
            for who in turns {
                stage.let_act(who).await;
            }
            stage.let_all_end().await;
            stage.all_that_is_named_is_there().await;
            assert!(stage.ended.iter().all(Option::is_none), "{:?}", stage.ended);
            assert!(stage.days().await.ends_with("34"));
        });
    }
}
