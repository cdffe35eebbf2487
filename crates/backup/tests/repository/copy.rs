use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use obyra_backup::copy::{self, Copied, Repaired};
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue;
use obyra_backup::repository::keys::{Lock, Unlock};
use obyra_backup::repository::layout::PackId;
use obyra_backup::repository::pack::{Kind, PackWriter};
use obyra_backup::repository::store::Store;
use obyra_backup::verify::{self, Share, Verified};
use obyra_evidence::{Quiet, text};
use secrecy::SecretString;
use tempfile::TempDir;

use crate::faulty::{Faulty, Mood};
use crate::sample::{self, CLUSTER, Sample, note};
use crate::verify::objects;

/// A repository, an empty folder for its copy, and what opens both.
struct Two {
    folder: TempDir,
    copy: TempDir,
    sample: Sample,
    unlock: Unlock,
}

impl Two {
    async fn new() -> Two {
        let (folder, copy, unlock) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Unlock::generate());
        let sample = sample::make(Store::folder(folder.path()).unwrap(), &unlock).await;
        Two { folder, copy, sample, unlock }
    }

    /// One whose copy is made.
    async fn copied() -> Two {
        let two = Two::new().await;
        assert!(two.copy().await.is_whole());
        two
    }

    fn store(&self) -> Store {
        Store::folder(self.copy.path()).unwrap()
    }

    async fn copy(&self) -> Copied {
        copy::run(&self.sample.repository, &self.store(), note(), &Quiet).await.unwrap()
    }

    async fn verify_copy(&self) -> Verified {
        contents(&Repository::open(self.store(), &self.unlock).await.unwrap()).await
    }

    async fn repair(&self) -> (Verified, Repaired) {
        let verified = contents(&self.sample.repository).await;
        let repaired = copy::repair(&self.sample.repository, &self.store(), &verified, &Quiet).await.unwrap();
        (verified, repaired)
    }
}

async fn contents(repository: &Repository) -> Verified {
    let window = "2026-11-01T05:00:00Z".parse().unwrap();
    verify::contents(repository, &Share::ALL, Some(window), &Quiet).await.unwrap()
}

/// The objects that a copy has as well, with their bytes: all but those that tell who is at work.
fn lasting(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let passing = |name: &str| ["/claims/", "/expiring/"].iter().any(|part| name.contains(part));
    let names = objects(folder).into_iter().filter(|name| !passing(name));
    names.map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

#[tokio::test]
async fn a_copy_holds_the_same_and_is_made_once() {
    let two = Two::new().await;
    let copied = two.copy().await;
    assert_eq!(copied.backups, [two.sample.full.clone(), two.sample.incremental.clone()]);
    assert!(copied.is_whole() && copied.mended.is_empty());
    let lasting_here = lasting(two.folder.path());
    assert_eq!(lasting(two.copy.path()), lasting_here);
    assert!(!objects(two.copy.path()).iter().any(|name| name.contains("/claims/")), "the claim is gone");
    assert_eq!(two.verify_copy().await.faults, []);
    // The keys and the mark of the repository are not counted.
    assert_eq!(copied.objects as usize, lasting_here.len() - 3);

    let again = two.copy().await;
    assert_eq!((again.objects, again.backups.len(), again.mended.len()), (0, 0, 0));
    assert_eq!(again.present, copied.objects - 4, "the packs of backups that are there are not looked at");
}

/// Wherever it stops, what is there is whole; and what has arrived is not sent again.
#[tokio::test]
async fn a_copy_that_was_interrupted_goes_on() {
    let two = Two::new().await;
    let total = lasting(two.folder.path()).len();
    let mut stops = 0;
    loop {
        // Three of them for the mark, which is tried, and the claim, which is written and renewed.
        let store = Faulty::new(two.copy.path(), Mood::Takes(4)).store();
        let run = copy::run(&two.sample.repository, &store, note(), &Quiet).await;
        if let Ok(copied) = run {
            assert!(copied.is_whole());
            break;
        }
        stops += 1;
        assert!(stops <= total, "each run brings something");
        let Ok(there) = Repository::open(two.store(), &two.unlock).await else { continue };
        for listed in catalogue::backups(&there, CLUSTER).await.unwrap() {
            let manifest = catalogue::Manifest::read(&there, CLUSTER, &listed.id).await.unwrap();
            assert_eq!(manifest.named().missing(&there, CLUSTER).await.unwrap(), []);
        }
    }
    assert!(stops > 3, "{stops}");
    assert_eq!(lasting(two.copy.path()), lasting(two.folder.path()));
    let verified = two.verify_copy().await;
    assert_eq!(verified.faults, []);
}

#[tokio::test]
async fn what_is_damaged_is_not_copied_and_told() {
    let two = Two::new().await;
    let pack = CLUSTER.pack(&PackId { backup: two.sample.incremental.clone(), sequence: 0 });
    let segment = format!("{}/000000010000000000000005", CLUSTER.wal(1));
    let mut good = Vec::new();
    for name in [&pack, &segment] {
        let path = two.folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        good.push((path.clone(), bytes.clone()));
        bytes[200] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let copied = two.copy().await;
    assert_eq!(copied.damaged, [segment.clone(), pack.clone()]);
    assert_eq!(copied.left_out, std::slice::from_ref(&two.sample.incremental));
    assert_eq!(copied.backups, std::slice::from_ref(&two.sample.full));
    // The other backup is whole there.
    let there = two.verify_copy().await;
    assert!(there.faults.iter().all(|fault| fault.backups.is_empty()), "{:?}", there.faults);

    // A manifest that cannot be read, and a part of one that is missing.
    let manifest = CLUSTER.manifest(&two.sample.incremental);
    for (name, bytes) in [(&manifest, Some(b"x".as_slice())), (&manifest, None)] {
        let path = two.folder.path().join(name);
        let part = two.folder.path().join(format!("{}/00000001", CLUSTER.packs(&two.sample.incremental)));
        let (kept, kept_part) = (fs::read(&path).unwrap(), fs::read(&part).unwrap());
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&part).unwrap(),
        }
        assert_eq!(two.copy().await.left_out, std::slice::from_ref(&two.sample.incremental));
        fs::write(&path, kept).unwrap();
        fs::write(&part, kept_part).unwrap();
    }
    for (path, bytes) in good {
        fs::write(path, bytes).unwrap();
    }
    assert!(two.copy().await.is_whole());
    assert_eq!(two.verify_copy().await.faults, []);
}

#[tokio::test]
async fn a_copy_goes_nowhere_else() {
    let two = Two::new().await;
    let itself = Store::folder(two.folder.path()).unwrap();
    let failure = copy::run(&two.sample.repository, &itself, note(), &Quiet).await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::COPY_ITSELF);

    sample::make(two.store(), &Unlock::generate()).await;
    let before = lasting(two.copy.path());
    let failure = copy::run(&two.sample.repository, &two.store(), note(), &Quiet).await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::COPY_ANOTHER);
    assert_eq!(lasting(two.copy.path()), before, "nothing was touched");
}

#[tokio::test]
async fn a_copy_opens_as_the_repository_does() {
    let two = Two::copied().await;
    let (store, keys) = (&two.sample.repository.store, &two.sample.repository.keys);
    let passphrase = SecretString::from("correct horse battery staple".to_owned());
    keys.add(store, "people", &Lock::Passphrase(passphrase.clone())).await.unwrap();
    two.copy().await;
    Repository::open(two.store(), &Unlock::Passphrase(passphrase.clone())).await.unwrap();

    // A key that is damaged here leaves the good one there alone.
    let name = objects(two.folder.path()).into_iter().find(|name| name.ends_with("first.age")).unwrap();
    let path = two.folder.path().join(&name);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..100]).unwrap();
    let copied = two.copy().await;
    assert_eq!(copied.damaged, std::slice::from_ref(&name));
    fs::remove_file(&path).unwrap();
    assert_eq!(two.copy().await.ways_removed, [""; 0], "lost, not removed: its note is there");
    Repository::open(two.store(), &two.unlock).await.unwrap();
    let (_, repaired) = two.repair().await;
    assert_eq!(repaired.mended, [name]);
    assert_eq!(fs::read(&path).unwrap(), good);

    keys.remove(store, "people").await.unwrap();
    assert_eq!(two.copy().await.ways_removed, ["people"]);
    let refused = Repository::open(two.store(), &Unlock::Passphrase(passphrase)).await.unwrap_err();
    assert_eq!(refused.what.code(), text::backup::WRONG_KEY);

    // Whoever opens a part of the keys only cannot make a copy that is whole.
    let rotated = keys.rotate(store, &two.unlock, "2026-11-04T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(rotated.left_out, [""; 0]);
    let failure = copy::run(&two.sample.repository, &two.store(), note(), &Quiet).await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::KEY_MISSING, "{failure}");
}

/// Each object that lasts, changed, cut, emptied, missing.
#[tokio::test]
async fn what_is_damaged_comes_back_from_the_copy() {
    let two = Two::copied().await;
    let whole = lasting(two.folder.path());
    for (name, good) in &whole {
        let path = two.folder.path().join(name);
        let mut changed = good.clone();
        let middle = good.len() / 2;
        changed[middle] ^= 1;
        for broken in [Some(changed), Some(good[..middle].to_vec()), Some(Vec::new()), None] {
            match &broken {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None if missed_by_nobody(name) => continue,
                None => fs::remove_file(&path).unwrap(),
            }
            let (verified, repaired) = two.repair().await;
            assert_eq!(fs::read(&path).ok().as_ref(), Some(good), "{name} {:?}", verified.faults);
            assert_eq!(repaired.mended, std::slice::from_ref(name), "{:?}", verified.faults);
            assert_eq!(repaired.left, [""; 0], "{name}: {:?}", verified.faults);
        }
    }
    assert_eq!(contents(&two.sample.repository).await.faults, []);
}

/// Objects that may have expired, or that recovery does not ask for; and the mark, without which it is no
/// repository.
fn missed_by_nobody(name: &str) -> bool {
    let parts = ["/backups/", "/figures/", ".way", ".partial", ".backup"];
    !name.contains('/') || parts.iter().any(|part| name.contains(part))
}

#[tokio::test]
async fn what_the_copy_has_not_either_is_told() {
    let two = Two::copied().await;
    let (full, other) = (&two.sample.full, &two.sample.incremental);
    let pack = |backup: &obyra_backup::repository::layout::BackupId, sequence| {
        CLUSTER.pack(&PackId { backup: backup.clone(), sequence })
    };
    // An older object of that name lies in the repository and in the copy: no manifest names it.
    let replayed = pack(full, 0);
    let mut older = PackWriter::new(&two.sample.repository.keys, &replayed, 1).unwrap();
    older.push(Kind::Blocks, &[1; 8192], Vec::new()).unwrap();
    let older = older.finish().unwrap().bytes;
    fs::write(two.folder.path().join(&replayed), &older).unwrap();
    fs::write(two.copy.path().join(&replayed), &older).unwrap();
    // Others are gone from both, exchanged in the copy, cut in the copy.
    let gone = pack(other, 1);
    fs::remove_file(two.folder.path().join(&gone)).unwrap();
    fs::remove_file(two.copy.path().join(&gone)).unwrap();
    let segments = [3, 4].map(|number| format!("{}/00000001000000000000000{number}", CLUSTER.wal(1)));
    fs::copy(two.copy.path().join(&segments[0]), two.copy.path().join(&segments[1])).unwrap();
    fs::write(two.folder.path().join(&segments[1]), b"").unwrap();
    let manifest = CLUSTER.manifest(full);
    fs::write(two.folder.path().join(&manifest), b"").unwrap();
    fs::write(two.copy.path().join(&manifest), b"").unwrap();

    let (_, repaired) = two.repair().await;
    assert_eq!(repaired.mended, [""; 0]);
    for name in [&manifest, &gone, &segments[1], &CLUSTER.manifest(other)] {
        assert!(repaired.left.contains(name), "{name}: {:?}", repaired.left);
    }
    assert_eq!(fs::read(two.folder.path().join(&replayed)).unwrap(), older, "it stays as it was");
}
