use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use obyra_backup::repository::store::{Created, Options, Store};
use obyra_evidence::{Code, Failure, text};

use crate::seaweed::{BUCKET, as_whom, options, seaweed, store};

#[tokio::test]
async fn an_object_is_created_once_whoever_else_tries() {
    let store = store("create");
    assert_eq!(store.create("a/b", Bytes::from_static(b"one")).await.unwrap(), Created::New);
    assert_eq!(
        store.create("a/b", Bytes::from_static(b"one")).await.unwrap(),
        Created::New,
        "the same bytes"
    );
    assert_eq!(store.create("a/b", Bytes::from_static(b"two")).await.unwrap(), Created::Existed);
    assert_eq!(store.get("a/b").await.unwrap().unwrap(), "one");
    let claims =
        (0..8).map(|n| {
            let store = store.clone();
            async move {
                store.create("contended", Bytes::from(format!("writer {n}"))).await.map(|done| (n, done))
            }
        });
    let claims: Vec<_> = futures_util::future::try_join_all(claims).await.unwrap();
    let won: Vec<_> = claims.iter().filter(|(_, done)| *done == Created::New).collect();
    let there = store.get("contended").await.unwrap().unwrap();
    assert_eq!(won.len(), 1, "{claims:?}");
    assert_eq!(there, format!("writer {}", won[0].0));

    assert_eq!(store.get("absent").await.unwrap(), None);
    assert_eq!(store.head("absent").await.unwrap(), None);
    store.delete("absent").await.unwrap();
    let before = store.now().await.unwrap();
    store.replace("a/b", Bytes::from_static(b"three")).await.unwrap();
    let head = store.head("a/b").await.unwrap().unwrap();
    assert_eq!(head.bytes, 5);
    assert!(head.modified >= before, "{} {before}", head.modified);
    assert_eq!(store.get_range("a/b", 1..4).await.unwrap(), "hre");
    store.delete("a/b").await.unwrap();
    assert_eq!(store.get("a/b").await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_goes_over_more_than_one_page() {
    let store = store("list");
    let name = |n: usize| format!("clusters/7/wal/00000001/{n:024X}");
    let puts = stream::iter(0..1100).map(|n| {
        let store = store.clone();
        async move { store.create(&name(n), Bytes::from_static(b"x")).await }
    });
    puts.buffer_unordered(24).try_collect::<Vec<_>>().await.unwrap();
    store.create("clusters/8/claims/x", Bytes::new()).await.unwrap();
    let listed = store.list("clusters/7").await.unwrap();
    let expected: Vec<String> = (0..1100).map(name).collect();
    assert_eq!(listed.iter().map(|info| info.name.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(listed.iter().map(|info| info.bytes).sum::<u64>(), 1100);
    let after = store.list_after("clusters/7/wal/00000001", &name(40)).await.unwrap();
    assert_eq!((after.len(), after[0].name.as_str()), (1059, name(41).as_str()));
    let folders: BTreeSet<String> = store.folders("clusters").await.unwrap().into_iter().collect();
    assert_eq!(folders, BTreeSet::from(["7".to_owned(), "8".to_owned()]));
}

#[tokio::test]
async fn a_large_object_is_there_when_it_is_whole() {
    let store = store("parts");
    let parts: Vec<Bytes> =
        [5 << 20, 6 << 20, 100].into_iter().zip(1..).map(|(bytes, seed)| vec![seed; bytes].into()).collect();
    let mut upload = store.upload("large").await.unwrap();
    for part in &parts {
        assert_eq!(store.head("large").await.unwrap(), None, "not before it is whole");
        upload.put(part.clone()).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert_eq!(store.get("large").await.unwrap().unwrap(), parts.concat());
    let across = (5 << 20) - 3..(5 << 20) + 3;
    assert_eq!(store.get_range("large", across).await.unwrap(), [1, 1, 1, 2, 2, 2][..]);

    let mut upload = store.upload("given-up").await.unwrap();
    upload.put(parts[0].clone()).await.unwrap();
    upload.abort().await;
    assert_eq!(store.head("given-up").await.unwrap(), None);
}

fn mend(failure: &Failure) -> Code {
    failure.mend.as_ref().unwrap_or_else(|| panic!("no mend: {failure}")).code()
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_told_with_its_mend() {
    let port = seaweed().port;
    let bytes = || Bytes::from_static(b"x");
    let open =
        |bucket: &str, options: &Options| Store::open(&format!("s3://{bucket}/wrong"), options).unwrap();
    store("wrong").create("there", bytes()).await.unwrap();

    for (key, secret) in [("BACKUPKEY", "not-the-secret-of-it"), ("NOBODY", "backup-secret-0123456789")] {
        let stranger = open(BUCKET, &as_whom(port, key, secret));
        for failure in [
            stranger.get("there").await.unwrap_err(),
            stranger.get("absent").await.unwrap_err(),
            stranger.create("new", bytes()).await.unwrap_err(),
            stranger.list("").await.unwrap_err(),
            stranger.delete("there").await.unwrap_err(),
        ] {
            assert_eq!(mend(&failure), text::backup::STORE_KEYS_MEND, "{failure}");
            assert!(!failure.to_string().contains(secret), "{failure}");
        }
    }
    let reader = open(BUCKET, &as_whom(port, "READERKEY", "reader-secret-0123456789"));
    assert_eq!(reader.get("there").await.unwrap().unwrap(), "x");
    let failure = reader.create("new", bytes()).await.unwrap_err();
    assert_eq!(mend(&failure), text::backup::STORE_DENIED_MEND, "{failure}");
    assert_eq!(failure.mend.unwrap().fields()["permission"], "s3:PutObject");

    // "Absent" is never said of a bucket that is not there.
    let nowhere = open("no-such-bucket", &options(port));
    for failure in [
        nowhere.get("there").await.unwrap_err(),
        nowhere.create("new", bytes()).await.unwrap_err(),
        nowhere.list("clusters").await.unwrap_err(),
    ] {
        assert_eq!(mend(&failure), text::backup::STORE_NO_BUCKET_MEND, "{failure}");
    }

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let patience = Some(std::time::Duration::from_millis(300));
    let away = open(BUCKET, &Options { patience, ..options(closed) });
    let failure = away.get("there").await.unwrap_err();
    assert_eq!(mend(&failure), text::backup::STORE_AWAY_MEND, "{failure}");
    assert!(failure.to_string().contains("there"), "{failure}");
}
