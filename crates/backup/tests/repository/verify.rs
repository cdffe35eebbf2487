use std::fs;
use std::path::Path;

use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::{BackupId, PackId};
use obyra_backup::repository::store::Store;
use obyra_backup::verify::{self, Share, Verified};
use obyra_evidence::{Quiet, Severity};
use secrecy::SecretString;

use crate::sample::{self, CLUSTER, Sample};

async fn sampled() -> (tempfile::TempDir, Sample) {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(Store::folder(folder.path()).unwrap(), &Unlock::generate()).await;
    (folder, sample)
}

async fn verified(repository: &Repository) -> Verified {
    verify::contents(repository, &Share::ALL, None, &Quiet).await.unwrap()
}

async fn without_key(folder: &Path) -> Verified {
    verify::objects(&Store::folder(folder).unwrap(), &Share::ALL, &Quiet).await.unwrap()
}

/// What was found about an object: the rules, and the backups that it concerns.
fn found(verified: &Verified, object: &str) -> (Vec<&'static str>, Vec<BackupId>) {
    let about = verified.faults.iter().filter(|fault| fault.finding.subject == object);
    let mut backups: Vec<BackupId> = about.clone().flat_map(|fault| fault.backups.clone()).collect();
    backups.sort();
    backups.dedup();
    (about.map(|fault| fault.finding.message.code().id()).collect(), backups)
}

pub fn objects(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, root, out);
            } else {
                out.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, folder, &mut out);
    out.sort();
    out
}

#[tokio::test]
async fn a_repository_that_is_whole_is_found_whole() {
    let (folder, sample) = sampled().await;
    let whole = verified(&sample.repository).await;
    assert_eq!(whole.faults, []);
    assert_eq!((whole.objects, whole.backups), (objects(folder.path()).len() as u64, 2));
    assert!(whole.blocks > 70 + 40, "{}", whole.blocks);
    let outside = without_key(folder.path()).await;
    assert_eq!((outside.faults.len(), outside.objects), (0, whole.objects));
}

/// One byte of each object, in its header, its middle, and its end; and half of it.
#[tokio::test]
async fn every_object_that_is_not_as_written_is_named() {
    let (folder, sample) = sampled().await;
    let kinds = [
        "repository.json",
        "first.age",
        "first.way",
        "/backups/",
        "/packs/",
        "/wal/",
        ".history",
        ".00000000-",
        ".partial",
        ".backup",
        "/figures/",
        "/claims/",
        "/expiring/",
    ];
    let objects = objects(folder.path());
    for kind in kinds {
        assert!(objects.iter().any(|object| object.contains(kind)), "{kind}");
    }
    for object in &objects {
        let path = folder.path().join(object);
        let whole = fs::read(&path).unwrap();
        let mut broken: Vec<Vec<u8>> = Vec::new();
        for at in [0, 9, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            broken.push(bytes);
        }
        broken.extend([whole[..whole.len() / 2].to_vec(), Vec::new(), [whole.as_slice(), b"x"].concat()]);
        for (n, bytes) in broken.into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let (rules, backups) = found(&verified(&sample.repository).await, object);
            assert!(!rules.is_empty(), "change {n} of {object} was not seen");
            if object.contains(sample.full.as_str())
                && !["/expiring/", "/figures/"].iter().any(|folder| object.contains(folder))
            {
                assert!(backups.contains(&sample.full), "{object}: {backups:?}");
            }
            // Opening again fails clearly or works; it never panics.
            let _ = Repository::open(sample.repository.store.clone(), &Unlock::generate()).await;
        }
        // Without the key, each change of a pack is seen as well.
        if !object.starts_with("keys/") {
            let mut bytes = whole.clone();
            bytes[whole.len() / 2] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(!found(&without_key(folder.path()).await, object).0.is_empty(), "{object}");
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(verified(&sample.repository).await.faults, [], "all is as it was");
}

#[tokio::test]
async fn every_object_that_is_missing_is_named() {
    let (folder, sample) = sampled().await;
    let window = "2026-11-01T05:00:00Z".parse().unwrap();
    for object in objects(folder.path()) {
        // A backup, a claim or a mark that is gone was expired, as far as anybody can tell.
        let alone = ["/backups/", "/claims/", "/expiring/", "/figures/", "repository.json", ".way"];
        if alone.iter().any(|kind| object.contains(kind)) {
            continue;
        }
        let path = folder.path().join(&object);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let verified = verify::contents(&sample.repository, &Share::ALL, Some(window), &Quiet).await.unwrap();
        // What follows the last WAL that there is cannot be missed, nor what recovery does not ask for.
        let needless = [".00000000-00002000", ".partial", ".backup"];
        let needed = !needless.iter().any(|ending| object.ends_with(ending));
        assert_eq!(verified.faults.is_empty(), !needed, "{object}: {:?}", verified.faults);
        let named = |fault: &verify::Fault| fault.finding.message.to_string().contains(&object);
        if object.contains("/packs/") {
            assert!(verified.faults.iter().any(named), "{object}: {:?}", verified.faults);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[tokio::test]
async fn objects_that_were_exchanged_or_put_back_are_named() {
    let (folder, sample) = sampled().await;
    let pack = |backup: &BackupId, sequence| CLUSTER.pack(&PackId { backup: backup.clone(), sequence });
    let segment = |name: &str| format!("{}/{name}", CLUSTER.wal(1));
    let pairs = [
        (pack(&sample.full, 0), pack(&sample.incremental, 0), "backup.verify-seal"),
        (CLUSTER.manifest(&sample.full), CLUSTER.manifest(&sample.incremental), "backup.verify-seal"),
        (segment("000000010000000000000003"), segment("000000010000000000000004"), "backup.verify-seal"),
    ];
    for (one, other, rule) in pairs {
        let (a, b) = (folder.path().join(&one), folder.path().join(&other));
        let (first, second) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
        fs::write(&a, &second).unwrap();
        fs::write(&b, &first).unwrap();
        let exchanged = verified(&sample.repository).await;
        for object in [&one, &other] {
            let rules = found(&exchanged, object).0;
            assert!(rules.contains(&rule), "{object}: {rules:?}");
        }
        assert_eq!(without_key(folder.path()).await.faults, [], "whole, as their hashes tell");
        fs::write(&a, first).unwrap();
        fs::write(&b, second).unwrap();
    }
    // A pack of the same name from another repository with the same secret, whole in itself.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    let unlock = Unlock::Passphrase(SecretString::from("correct horse battery staple".to_owned()));
    sample::make(Store::folder(&copy).unwrap(), &unlock).await;
    let name = pack(&sample.full, 0);
    fs::copy(copy.join(&name), folder.path().join(&name)).unwrap();
    let (rules, backups) = found(&verified(&sample.repository).await, &name);
    assert!(!rules.is_empty());
    assert_eq!(backups, [sample.full.clone(), sample.incremental.clone()], "both need it");
}

/// An older pack of the very same name and key: whole, sealed, and not the one that the manifests name.
#[tokio::test]
async fn an_older_object_that_was_put_back_is_named() {
    let (folder, sample) = sampled().await;
    let name = CLUSTER.pack(&PackId { backup: sample.full.clone(), sequence: 0 });
    let mut older =
        obyra_backup::repository::pack::PackWriter::new(&sample.repository.keys, &name, 1).unwrap();
    older.push(obyra_backup::repository::pack::Kind::Blocks, &[1; 8192], Vec::new()).unwrap();
    fs::write(folder.path().join(&name), older.finish().unwrap().bytes).unwrap();
    let (rules, backups) = found(&verified(&sample.repository).await, &name);
    assert_eq!(rules, ["backup.verify-other"]);
    assert_eq!(backups, [sample.full.clone(), sample.incremental.clone()]);
}

#[tokio::test]
async fn strangers_are_told_and_a_share_is_taken_in_turn() {
    let (folder, sample) = sampled().await;
    let strange = format!("{}/notes.txt", CLUSTER.folder());
    fs::write(folder.path().join(&strange), b"x").unwrap();
    let with = verified(&sample.repository).await;
    assert_eq!(found(&with, &strange).0, ["backup.verify-stranger"]);
    assert!(with.faults.iter().all(|fault| fault.finding.severity == Severity::Warning));
    fs::remove_file(folder.path().join(&strange)).unwrap();

    let mut seen = 0;
    for round in 0..4 {
        let share = Share { percent: 25, round, after: None };
        seen += verify::objects(&sample.repository.store, &share, &Quiet).await.unwrap().objects;
    }
    let all = objects(folder.path());
    assert_eq!(seen, all.len() as u64, "each object in one round of four");
    let half = Share { after: Some(all[all.len() / 2].clone()), ..Share::ALL };
    let rest = verify::objects(&sample.repository.store, &half, &Quiet).await.unwrap();
    assert_eq!(rest.objects, (all.len() - all.len() / 2 - 1) as u64);
}

#[tokio::test]
async fn wal_that_is_missing_is_told_by_position_and_time() {
    let (folder, sample) = sampled().await;
    let window = "2026-11-01T05:00:00Z".parse().unwrap();
    let look =
        async || verify::contents(&sample.repository, &Share::ALL, Some(window), &Quiet).await.unwrap();
    assert_eq!(look().await.faults, [], "from the full backup to the end of the second timeline");
    let segment = folder.path().join(format!("{}/000000010000000000000005", CLUSTER.wal(1)));
    let whole = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    let gap = look().await;
    let (rules, backups) = found(&gap, &CLUSTER.wal(1));
    assert_eq!((rules, backups.len()), (vec!["backup.verify-gap"], 0), "between the two backups");
    let fields = gap.faults[0].finding.message.fields();
    assert_eq!((fields["from"].as_str(), fields["to"].as_str()), ("0/500000", "0/600000"));
    assert_eq!(fields["until"], "2026-11-02T04:00:00Z", "the end of the second backup");
    fs::write(&segment, whole).unwrap();

    // A segment that a backup needs itself: that backup cannot be restored.
    let needed = folder.path().join(format!("{}/000000010000000000000004", CLUSTER.wal(1)));
    fs::remove_file(&needed).unwrap();
    let (rules, backups) = found(&look().await, &CLUSTER.manifest(&sample.full));
    assert_eq!((rules, backups), (vec!["backup.verify-no-wal"], vec![sample.full.clone()]));
    fs::remove_file(folder.path().join(format!("{}/wal/00000002.history", CLUSTER.folder()))).unwrap();
    assert!(!look().await.faults.is_empty());
}
