//! Somebody who can write to the store: whatever is exchanged, brought from elsewhere or brought back is named
//! by a verification, and is never taken for right by whoever reads it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use obyra_backup::Result;
use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::{Keyring, Unlock};
use obyra_backup::repository::layout::BackupId;
use obyra_backup::repository::pack::{Pack, PackWriter};
use obyra_backup::repository::store::Store;
use obyra_backup::verify::{self, Share, Verified};
use obyra_backup::wal::{Archive, WalObject};
use obyra_evidence::Quiet;
use secrecy::SecretString;

use crate::sample::{self, CLUSTER, Files, Sample};
use crate::verify::objects;

fn unlock() -> Unlock {
    Unlock::Passphrase(SecretString::from("correct horse battery staple".to_owned()))
}

async fn sampled(unlock: &Unlock) -> (tempfile::TempDir, Sample) {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(Store::folder(folder.path()).unwrap(), unlock).await;
    (folder, sample)
}

async fn verified(repository: &Repository) -> Verified {
    verify::contents(repository, &Share::ALL, None, &Quiet).await.unwrap()
}

/// What kind of object it is: the folder that says so, and the ending.
fn kind(name: &str) -> String {
    let folder = name.split('/').nth(2).filter(|_| name.starts_with("clusters/")).unwrap_or("keys");
    let ending =
        name.rsplit('/').next().and_then(|file| file.split_once('.')).map_or("", |(_, ending)| ending);
    format!("{folder} {}", ending.rsplit('.').next().filter(|_| folder != "expiring").unwrap_or_default())
}

/// A pack with the same frames, sealed under another name.
fn sealed_as(keys: &Keyring, name: &str, other: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let pack = Pack::open(keys, name, Bytes::copy_from_slice(bytes)).ok()?;
    let mut again = PackWriter::new(keys, other, 1).unwrap();
    for entry in &pack.directory {
        let (kind, raw) = pack.frame(entry.at).unwrap();
        again.push(kind, &raw, entry.about.clone()).unwrap();
    }
    Some(again.finish().unwrap().bytes.to_vec())
}

/// What a restore writes.
async fn restored(repository: &Repository, backup: &BackupId) -> Result<Files> {
    let folder = sample::restored(repository, backup).await?;
    let read = |path: String| (path.clone(), fs::read(folder.path().join("data").join(path)).unwrap());
    Ok(sample::files().into_keys().map(read).collect())
}

/// Everything that reads an object: it fails, or gives what was put.
async fn reads_right(sample: &Sample, name: &str, case: &str) {
    let repository = &sample.repository;
    if name.contains("/packs/") || name.contains("/backups/") {
        for (backup, files) in
            [(&sample.full, sample::files()), (&sample.incremental, sample::changed(sample::files()))]
        {
            if let Ok(found) = restored(repository, backup).await {
                assert!(found == files, "{case} {name}: {backup} was restored as something else");
            }
        }
    }
    if let Some(WalObject::File(file)) = WalObject::parse(CLUSTER, name, sample::size()) {
        let archive = Archive::new(repository, CLUSTER);
        let read = archive.get_file(file, sample::size()).await;
        assert!(read.is_err(), "{case} {name} was read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exchanged_or_comes_from_elsewhere_is_named() {
    let (folder, sample) = sampled(&unlock()).await;
    // The same secret, another repository: whoever has the one cannot pass its objects off in the other.
    let (elsewhere, _other) = sampled(&unlock()).await;
    let all: BTreeMap<String, Vec<u8>> = objects(folder.path())
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.path().join(&name)).unwrap()))
        .collect();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, whole) in &all {
        kinds.insert(kind(name));
        let of_kind = all.iter().find(|(other, bytes)| kind(other) == kind(name) && *bytes != whole);
        let of_another = all.iter().find(|(other, _)| kind(other) != kind(name) && other.contains("/packs/"));
        let foreign = name.replacen(&CLUSTER.to_string(), "1", 1);
        let keys = &sample.repository.keys;
        let cases: [(&str, Option<Vec<u8>>); 4] = [
            ("another of its kind", of_kind.map(|(_, bytes)| bytes.clone())),
            ("one of another kind", of_another.map(|(_, bytes)| bytes.clone())),
            ("of another repository", fs::read(elsewhere.path().join(name)).ok()),
            ("of another cluster", sealed_as(keys, name, &foreign, whole).filter(|_| foreign != *name)),
        ];
        for (case, bytes) in cases {
            let Some(bytes) = bytes.filter(|bytes| bytes != whole) else { continue };
            fs::write(folder.path().join(name), bytes).unwrap();
            let found = verified(&sample.repository).await;
            let named = found.faults.iter().any(|fault| fault.finding.subject == *name);
            assert!(named, "{case}: {name} is not among {:?}", found.faults);
            reads_right(&sample, name, case).await;
        }
        fs::write(folder.path().join(name), whole).unwrap();
    }
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    assert_eq!(verified(&sample.repository).await.faults, []);
}

/// Sealed under its own name with the right key, at another time: only the hashes in manifests can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_brought_back_from_earlier_is_named() {
    let (folder, sample) = sampled(&unlock()).await;
    for name in objects(folder.path()).into_iter().filter(|name| name.contains("/packs/")) {
        let path = folder.path().join(&name);
        let whole = fs::read(&path).unwrap();
        let earlier = sealed_as(&sample.repository.keys, &name, &name, &whole).unwrap();
        fs::write(&path, earlier).unwrap();
        let found = verified(&sample.repository).await;
        let about: Vec<_> = found.faults.iter().filter(|fault| fault.finding.subject == name).collect();
        assert!(!about.is_empty(), "{name}: {:?}", found.faults);
        assert!(about.iter().any(|fault| !fault.backups.is_empty()), "{name}: {about:?}");
        reads_right(&sample, &name, "earlier").await;
        fs::write(&path, whole).unwrap();
    }
}

/// A repository that is not encrypted, and one whose key was rotated.
#[tokio::test]
async fn keys_that_are_not_as_written_are_named() {
    for unlock in [Unlock::Open, Unlock::generate()] {
        let (folder, mut sample) = sampled(&unlock).await;
        let store = sample.repository.store.clone();
        let now = "2026-11-04T00:00:00Z".parse().unwrap();
        sample.repository.keys = sample.repository.keys.rotate(&store, &unlock, now).await.unwrap().keyring;
        let keys = objects(&folder.path().join("keys"));
        assert_eq!(keys.len(), 4, "{keys:?}");
        for key in keys {
            let path = folder.path().join("keys").join(&key);
            let whole = fs::read(&path).unwrap();
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                fs::write(&path, bytes).unwrap();
                let found = verified(&sample.repository).await;
                let name = format!("keys/{key}");
                assert!(found.faults.iter().any(|fault| fault.finding.subject == name), "{at} of {name}");
                let _ = open(folder.path(), &unlock).await;
            }
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(verified(&sample.repository).await.faults, []);
        open(folder.path(), &unlock).await.unwrap();
    }
}

async fn open(folder: &Path, unlock: &Unlock) -> Result<Repository> {
    Repository::open(Store::folder(folder)?, unlock).await
}
