use bytes::Bytes;
use obyra_backup::copy;
use obyra_backup::repository::catalogue::ManifestWriter;
use obyra_backup::repository::claims::{Claim, Expiry, claims};
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::PackId;
use obyra_backup::repository::manifest::Header;
use obyra_backup::repository::store::Store;
use obyra_backup::repository::{Repository, catalogue};
use obyra_backup::verify::{self, Share};
use obyra_evidence::{Quiet, text};

use crate::proxy::{Fault, Proxy};
use crate::sample::{self, CLUSTER, id, note};
use crate::seaweed::{BUCKET, LOCKED, options, seaweed};

async fn ids(repository: &Repository) -> Vec<String> {
    let ids = catalogue::ids(repository, CLUSTER).await.unwrap();
    ids.into_iter().map(|(id, _)| id.to_string()).collect()
}

async fn faults(repository: &Repository) -> Vec<verify::Fault> {
    verify::contents(repository, &Share::ALL, None, &Quiet).await.unwrap().faults
}

/// Object lock keeps versions: a deletion hides, and the repository is as one that is not locked.
#[tokio::test]
async fn a_bucket_with_object_lock_is_a_repository_as_any_other() {
    let there = Store::open(&format!("s3://{LOCKED}/whole"), &options(seaweed().port)).unwrap();
    let sample = sample::make(there, &Unlock::generate()).await;
    assert_eq!(faults(&sample.repository).await, []);
    let expiry = Expiry::begin(&sample.repository, CLUSTER, &[sample.full]).await.unwrap();
    let removed = expiry.run().await.unwrap();
    assert_eq!((removed.backups.len(), removed.locked.len()), (1, 0));
    assert_eq!(ids(&sample.repository).await, [sample.incremental.to_string()]);
    assert_eq!(faults(&sample.repository).await, []);
}

/// What the store keeps is told, object by object; what it lets go goes.
#[tokio::test]
async fn an_expiry_tells_what_the_store_keeps() {
    let proxy = Proxy::start(seaweed().port).await;
    let there = Store::open(&format!("s3://{BUCKET}/kept"), &options(proxy.port)).unwrap();
    let sample = sample::make(there, &Unlock::generate()).await;
    let (repository, incremental) = (&sample.repository, &sample.incremental);
    let wanted = std::slice::from_ref(incremental);

    // The manifest stays: then nothing that it needs goes.
    proxy.next(u64::MAX, "DELETE", "/backups/", Fault::Refused(403));
    let removed = Expiry::begin(repository, CLUSTER, wanted).await.unwrap().run().await.unwrap();
    assert_eq!((removed.backups.len(), removed.packs), (0, 0));
    assert_eq!(removed.locked.len(), 1);
    assert_eq!(removed.locked[0].object, CLUSTER.manifest(incremental));
    assert!(removed.locked[0].why.contains("AccessDenied"), "{}", removed.locked[0].why);
    assert_eq!(faults(repository).await, []);

    // A pack stays: the backup is gone all the same, and the next expiry tries again.
    let pack = CLUSTER.pack(&PackId { backup: incremental.clone(), sequence: 0 });
    proxy.next(u64::MAX, "DELETE", &pack, Fault::Refused(403));
    let removed = Expiry::begin(repository, CLUSTER, wanted).await.unwrap().run().await.unwrap();
    assert_eq!(removed.backups, wanted);
    assert_eq!(removed.locked.iter().map(|locked| &locked.object).collect::<Vec<_>>(), [&pack]);
    proxy.next(0, "", "", Fault::Slow);
    let again = Expiry::begin(repository, CLUSTER, &[]).await.unwrap().run().await.unwrap();
    assert_eq!((again.packs, again.locked.len()), (1, 0));
    assert_eq!(repository.store.head(&pack).await.unwrap(), None);
    assert_eq!(ids(repository).await, [sample.full.to_string()]);
    assert_eq!(faults(repository).await, []);
}

/// Credentials that may add and not delete: backups run, copies are made, expiry removes nothing and says so.
#[tokio::test]
async fn whoever_may_only_add_can_back_up() {
    let proxy = Proxy::start(seaweed().port).await;
    let open = |prefix: &str| Store::open(&format!("s3://{BUCKET}/{prefix}"), &options(proxy.port)).unwrap();
    proxy.next(u64::MAX, "DELETE", "", Fault::Refused(403));
    let sample = sample::make(open("adding"), &Unlock::generate()).await;
    let (repository, full) = (&sample.repository, &sample.full);
    assert_eq!(claims(repository, CLUSTER).await.unwrap().len(), 1);
    // The claim of a backup that has ended stays where it is.
    let ended = id("20261104T030000Z-00aa");
    let claim = Claim::begin(repository, CLUSTER, &ended, note()).await.unwrap();
    let manifest = ManifestWriter::new(repository, CLUSTER, &ended, 0);
    let header = catalogue::header(repository, CLUSTER, full).await.unwrap();
    claim.commit(manifest, &Header { id: ended.clone(), ..header }).await.unwrap();
    assert_eq!(claims(repository, CLUSTER).await.unwrap().len(), 2);
    assert!(copy::run(repository, &open("adding-copy"), note(), &Quiet).await.unwrap().is_whole());
    let expiry = Expiry::begin(repository, CLUSTER, std::slice::from_ref(full)).await.unwrap();
    let held = expiry.held().len();
    let removed = expiry.run().await.unwrap();
    assert_eq!((removed.backups.len(), removed.packs), (0, 0));
    assert!(held == 1 || removed.locked.iter().any(|locked| locked.object == CLUSTER.manifest(full)));
    let failure = repository.store.delete(&CLUSTER.manifest(full)).await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::OBJECT_KEPT);
    assert_eq!(failure.mend.unwrap().fields()["permission"], "s3:DeleteObject");
    repository.store.create("x/y", Bytes::from_static(b"x")).await.unwrap();
    assert!(!repository.store.let_go("x/y").await.unwrap());
    assert_eq!(faults(repository).await, []);
}

/// A retention of the whole bucket, which forbids to replace as well: no place for backups, but for copies.
#[tokio::test]
async fn a_store_that_replaces_nothing_holds_copies() {
    let proxy = Proxy::start(seaweed().port).await;
    let open = |prefix: &str| Store::open(&format!("s3://{BUCKET}/{prefix}"), &options(proxy.port)).unwrap();
    let unlock = Unlock::generate();
    let sample = sample::make(open("replacing"), &unlock).await;
    proxy.choose(|request| {
        let puts = request.method == "PUT" && !request.creates;
        (puts || request.method == "DELETE").then_some(Fault::Retained)
    });
    for _ in 0..2 {
        let copied = copy::run(&sample.repository, &open("retained"), note(), &Quiet).await.unwrap();
        assert!(copied.is_whole() && copied.mended.is_empty(), "{copied:?}");
    }
    let copy = Repository::open(open("retained"), &unlock).await.unwrap();
    assert_eq!(faults(&copy).await, []);

    let Err(failure) = Claim::begin(&copy, CLUSTER, &id("20261104T030000Z-00aa"), note()).await else {
        panic!("a backup began that could not end");
    };
    assert_eq!(failure.mend.unwrap().code(), text::backup::STORE_RETENTION_MEND);

    // What may go goes, and the rest is told with its date.
    let manifest = CLUSTER.manifest(&sample.full);
    let expiry =
        Expiry::begin(&sample.repository, CLUSTER, std::slice::from_ref(&sample.full)).await.unwrap();
    let removed = expiry.run().await.unwrap();
    assert_eq!(removed.backups, []);
    let kept = removed.locked.iter().find(|locked| locked.object == manifest).unwrap();
    assert_eq!(kept.until, Some("2027-01-02T11:04:05.678Z".parse().unwrap()));
    proxy.choose(|request| {
        let puts = request.method == "PUT" && !request.creates;
        (puts || request.target.contains("/expiring/") && request.method == "DELETE")
            .then_some(Fault::Retained)
    });
    let wanted = [sample.full, sample.incremental];
    let removed = Expiry::begin(&sample.repository, CLUSTER, &wanted).await.unwrap().run().await.unwrap();
    assert_eq!((removed.backups.len(), removed.packs, removed.locked.len()), (2, 4, 0));
    assert_eq!(
        sample.repository.store.list(&CLUSTER.figures_folder()).await.unwrap(),
        [],
        "gone with their backup"
    );
}
