use std::fs;
use std::time::Duration;

use bytes::Bytes;
use obyra_backup::copy;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::Manifest;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::{BackupId, PackId};
use obyra_backup::repository::store::{Created, Options, Store};
use obyra_backup::verify::{self, Share, Verified};
use obyra_backup::wal::Archive;
use obyra_evidence::{Quiet, text};
use obyra_postgres::wal::{SegmentName, TimelineId};

use crate::proxy::{Fault, Proxy};
use crate::sample::{self, CLUSTER};
use crate::seaweed::{BUCKET, options, seaweed, store};

/// A store behind a proxy.
async fn behind(prefix: &str) -> (Proxy, Store) {
    let proxy = Proxy::start(seaweed().port).await;
    let store = Store::open(&format!("s3://{BUCKET}/{prefix}"), &options(proxy.port)).unwrap();
    (proxy, store)
}

/// The same for one with little patience.
fn impatient(proxy: &Proxy, prefix: &str) -> Store {
    let patience = Some(Duration::from_secs(1));
    Store::open(&format!("s3://{BUCKET}/{prefix}"), &Options { patience, ..options(proxy.port) }).unwrap()
}

async fn contents(repository: &Repository) -> Verified {
    verify::contents(repository, &Share::ALL, None, &Quiet).await.unwrap()
}

/// Each fault, twice in a row, at each kind of request.
#[tokio::test]
async fn what_passes_is_tried_again_and_done_once() {
    let each = Fault::PASSING.into_iter().enumerate().map(|(n, fault)| async move {
        let (proxy, store) = behind(&format!("passing-{n}")).await;
        let name = "objects/one";
        let bytes = Bytes::from(sample::bytes(n as u64, 300_000));
        proxy.next(2, "PUT", name, fault);
        assert_eq!(store.create(name, bytes.clone()).await.unwrap(), Created::New, "{fault:?}");
        proxy.next(2, "GET", name, fault);
        assert_eq!(store.get(name).await.unwrap().unwrap(), bytes, "{fault:?}");
        proxy.next(2, "GET", name, fault);
        assert_eq!(store.get_range(name, 7..200_000).await.unwrap(), bytes.slice(7..200_000), "{fault:?}");
        proxy.next(2, "HEAD", name, fault);
        assert_eq!(store.head(name).await.unwrap().unwrap().bytes, 300_000, "{fault:?}");
        proxy.next(2, "GET", "list-type", fault);
        assert_eq!(store.list("objects").await.unwrap().len(), 1, "{fault:?}");
        proxy.next(2, "DELETE", name, fault);
        store.delete(name).await.unwrap();
        proxy.next(0, "", "", fault);
        assert_eq!(store.get(name).await.unwrap(), None, "{fault:?}");
    });
    futures_util::future::join_all(each).await;
}

/// An upload in parts is right, or it fails clearly and nothing of it is seen.
#[tokio::test]
async fn an_upload_in_parts_is_whole_or_is_not() {
    let parts = [sample::bytes(1, 5 << 20), sample::bytes(2, 70_000)].map(Bytes::from);
    let each = Fault::PASSING.into_iter().enumerate().flat_map(|(n, fault)| {
        let requests = [("PUT", "partNumber"), ("POST", "uploads"), ("POST", "uploadId")];
        requests.map(|(method, part)| (n, fault, method, part))
    });
    let each = each.map(|(n, fault, method, part)| {
        let parts = parts.clone();
        async move {
            let (proxy, store) = behind(&format!("parts-{n}")).await;
            let name = format!("{method}-{part}");
            proxy.next(1, method, part, fault);
            let uploaded = async {
                let mut upload = store.upload(&name).await?;
                for part in &parts {
                    upload.put(part.clone()).await?;
                }
                upload.finish().await
            };
            let uploaded = uploaded.await;
            proxy.next(0, "", "", fault);
            let there = store.get(&name).await.unwrap();
            match uploaded {
                Ok(()) => assert_eq!(there.unwrap(), parts.concat(), "{fault:?} {name}"),
                Err(failure) => {
                    assert!(failure.to_string().contains(&name), "{fault:?}: {failure}");
                    assert!(failure.mend.is_some(), "{fault:?}: {failure}");
                    // The store may have made it all the same: then it is whole.
                    assert!(there.is_none_or(|there| there == parts.concat()), "{fault:?} {name}");
                }
            }
            proxy.counts().1
        }
    });
    let faults: u64 = futures_util::future::join_all(each).await.into_iter().sum();
    assert_eq!(faults, 3 * Fault::PASSING.len() as u64);
}

/// What does not pass ends within the patience, and names the object and a mend.
#[tokio::test]
async fn retries_end() {
    let proxy = Proxy::start(seaweed().port).await;
    let store = impatient(&proxy, "ending");
    store.create("there", Bytes::from_static(b"some bytes of it")).await.unwrap();
    for (fault, mend) in [
        (Fault::Refused(500), text::backup::STORE_BUSY_MEND),
        (Fault::Refused(503), text::backup::STORE_BUSY_MEND),
        (Fault::ResetBefore, text::backup::STORE_AWAY_MEND),
        (Fault::ResetAfter, text::backup::STORE_AWAY_MEND),
        (Fault::Truncated, text::backup::STORE_AWAY_MEND),
    ] {
        let before = proxy.counts().0;
        proxy.next(u64::MAX, "GET", "there", fault);
        let failure = store.get("there").await.unwrap_err();
        assert_eq!(failure.what.code(), text::backup::STORE_FAILED, "{fault:?}");
        assert!(failure.to_string().contains("there"), "{failure}");
        assert_eq!(
            failure.mend.as_ref().map(obyra_evidence::Message::code),
            Some(mend),
            "{fault:?}: {failure}"
        );
        let asked = proxy.counts().0 - before;
        assert!((2..60).contains(&asked), "{fault:?}: {asked} requests");
    }
    proxy.next(u64::MAX, "PUT", "new", Fault::CorruptedUpload);
    let failure = store.create("new", Bytes::from_static(b"some bytes")).await.unwrap_err();
    assert!(failure.to_string().contains("new"), "{failure}");
    proxy.next(0, "", "", Fault::Slow);
    assert_eq!(store.get("new").await.unwrap(), None, "the wrong bytes were not taken");
}

/// A request of every three meets a fault, by turns, while a repository is written, read, verified and copied.
#[tokio::test]
async fn a_repository_is_right_whatever_happens_on_the_way() {
    let (proxy, there) = behind("through").await;
    let every_third = |request: &crate::proxy::Request| {
        let turn = request.number as usize;
        turn.is_multiple_of(3).then(|| Fault::PASSING[turn / 3 % Fault::PASSING.len()])
    };
    proxy.choose(every_third);
    let unlock = Unlock::generate();
    let sample = sample::make(there, &unlock).await;
    assert_eq!(contents(&sample.repository).await.faults, []);
    let folder = tempfile::tempdir().unwrap();
    let copied = Store::folder(folder.path()).unwrap();
    assert!(copy::run(&sample.repository, &copied, sample::note(), &Quiet).await.unwrap().is_whole());
    let (requests, faults) = proxy.counts();
    assert!(requests > 150 && faults > 50, "{requests} {faults}");

    // Without the proxy, and in the copy, it is the same.
    let plain = Repository::open(store("through"), &unlock).await.unwrap();
    let copy = Repository::open(copied, &unlock).await.unwrap();
    for repository in [&plain, &copy] {
        assert_eq!(contents(repository).await.faults, []);
        for backup in [&sample.full, &sample.incremental] {
            let ours = Manifest::read(repository, CLUSTER, backup).await.unwrap();
            assert_eq!(ours, Manifest::read(&sample.repository, CLUSTER, backup).await.unwrap());
        }
    }
}

/// Bytes that are wrong on the way are never taken for right; what goes on being wrong is named.
#[tokio::test]
async fn wrong_bytes_are_never_accepted() {
    let (proxy, there) = behind("wrong-bytes").await;
    let sample = sample::make(there, &Unlock::generate()).await;
    let repository = &sample.repository;
    let segment = SegmentName { timeline: TimelineId(1), number: 5 };
    let part = CLUSTER.pack(&PackId { backup: sample.full.clone(), sequence: 1 });
    let manifest = CLUSTER.manifest(&sample.full);
    let wal = format!("{}/000000010000000000000005", CLUSTER.wal(1));
    for fault in [Fault::Corrupted, Fault::Shortened] {
        for object in [&part, &manifest] {
            proxy.next(u64::MAX, "GET", object, fault);
            let failure = Manifest::read(repository, CLUSTER, &sample.full).await.unwrap_err();
            assert!(failure.to_string().contains(object.as_str()), "{fault:?} {failure}");
            assert!(failure.mend.is_some(), "{failure}");
            let named = contents(repository).await;
            assert!(named.faults.iter().any(|fault| fault.finding.subject == **object), "{:?}", named.faults);
        }
        proxy.next(u64::MAX, "GET", &wal, fault);
        let failure =
            Archive::new(repository, CLUSTER).get_segment(segment, sample::size()).await.unwrap_err();
        assert!(failure.to_string().contains(&wal), "{fault:?} {failure}");

        // Once only: it is read again, told as a warning, and nothing is called damaged.
        for object in [&CLUSTER.pack(&PackId { backup: sample.full.clone(), sequence: 0 }), &wal] {
            proxy.next(1, "GET", object, fault);
            let once = contents(repository).await;
            let about: Vec<_> = once.faults.iter().map(|fault| fault.finding.message.code()).collect();
            assert_eq!(about, [text::backup::VERIFY_ONCE], "{fault:?} {object}: {:?}", once.faults);
        }
    }
    proxy.next(0, "", "", Fault::Slow);
    assert_eq!(contents(repository).await.faults, []);
}

/// What a restore writes, or why it does not.
async fn restored(repository: &Repository, backup: &BackupId) -> obyra_backup::Result<Vec<u8>> {
    let folder = sample::restored(repository, backup).await?;
    Ok(fs::read(folder.path().join("data/base/1/16384")).unwrap())
}

/// Wrong bytes that come once are no reason to lose a restore of hours; those that come again are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_reads_again_what_came_wrong_once() {
    let (proxy, there) = behind("restored-once").await;
    let sample = sample::make(there, &Unlock::generate()).await;
    let expected = &sample::files()["base/1/16384"];
    let manifest = CLUSTER.manifest(&sample.full);
    for fault in [Fault::Corrupted, Fault::Shortened] {
        for object in ["/packs/", &manifest, "/00000000"] {
            proxy.next(1, "GET", object, fault);
            let before = proxy.counts().1;
            let written = restored(&sample.repository, &sample.full).await;
            assert!(written.unwrap_or_else(|e| panic!("{fault:?} {object}: {e}")) == *expected, "{fault:?}");
            assert_eq!(proxy.counts().1, before + 1, "{fault:?} {object}");
            proxy.next(u64::MAX, "GET", object, fault);
            let failure = restored(&sample.repository, &sample.full).await.unwrap_err();
            assert!(failure.to_string().contains(object), "{fault:?} {object}: {failure}");
        }
    }
}
