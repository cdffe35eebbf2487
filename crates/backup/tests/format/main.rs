//! The format as it is documented: a reader that was written from the document alone reads a repository.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod hostile;
#[path = "../packages/mod.rs"]
mod packages;
#[path = "../repository/sample.rs"]
#[allow(dead_code, reason = "the repository's tests use the rest")]
mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::store::Store;
use obyra_backup::wal::Archive;
use obyra_postgres::wal::{SegmentName, TimelineId, WalFileName};
use secrecy::{ExposeSecret as _, SecretString};

use sample::{CLUSTER, Sample};

const REQUIREMENTS: &str = "blake3==1.0.11\ncryptography==50.0.2\nzstandard==0.25.0\n";

/// Runs the reader; returns what it printed.
fn read(arguments: &[&Path]) -> String {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/read.py");
    #[expect(clippy::disallowed_methods, reason = "a reader that shares nothing with us")]
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages::installed("reader", REQUIREMENTS)).arg(reader).args(arguments);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A repository, and what `age -d` would print.
async fn sampled(place: &Path) -> (Sample, PathBuf) {
    let passphrase = SecretString::from("correct horse battery staple".to_owned());
    let folder = place.join("repository");
    let unlock = Unlock::Passphrase(passphrase.clone());
    let sample = sample::make(Store::folder(&folder).unwrap(), &unlock).await;
    let wrapped = fs::read(folder.join(format!("keys/{}/first.age", "0".repeat(32)))).unwrap();
    let identity = age::scrypt::Identity::new(SecretString::from(passphrase.expose_secret()));
    let master = place.join("master");
    fs::write(&master, age::decrypt(&identity, &wrapped).unwrap()).unwrap();
    (sample, master)
}

#[tokio::test]
async fn a_repository_is_read_by_its_document_alone() {
    let place = tempfile::tempdir().unwrap();
    let (sample, master) = sampled(place.path()).await;
    let folder = place.path().join("repository");
    let listed = read(&[&folder, &master, Path::new("list")]);
    let expected = [
        format!("{CLUSTER} {} 0/300028 0/400008\n", sample.full),
        format!("{CLUSTER} {} 0/600028 0/600384\n", sample.incremental),
    ];
    assert_eq!(listed, expected.concat());

    let cluster = CLUSTER.to_string();
    for (backup, files) in
        [(&sample.full, sample::files()), (&sample.incremental, sample::changed(sample::files()))]
    {
        let into = place.path().join(backup.as_str());
        read(&[&folder, &master, "restore".as_ref(), cluster.as_ref(), backup.as_str().as_ref(), &into]);
        for (path, content) in files {
            assert_eq!(fs::read(into.join(&path)).unwrap(), content, "{backup} {path}");
        }
        assert!(fs::read_to_string(into.join("backup_label")).unwrap().starts_with("START WAL LOCATION"));
    }

    let into = place.path().join("wal");
    read(&[&folder, &master, "wal".as_ref(), cluster.as_ref(), &into]);
    let archive = Archive::new(&sample.repository, CLUSTER);
    for (timeline, number) in [(1, 3), (1, 6), (2, 6), (2, 7)] {
        let segment = SegmentName { timeline: TimelineId(timeline), number };
        let kept = archive.get_segment(segment, sample::size()).await.unwrap().unwrap();
        let name = WalFileName::Segment(segment).file_name(sample::size());
        assert_eq!(fs::read(into.join(&name)).unwrap(), kept, "{name}");
    }
    let history = fs::read_to_string(into.join("00000002.history")).unwrap();
    assert!(history.starts_with("1\t0/6007D0"), "{history}");
    assert_eq!(fs::read(into.join("000000020000000000000008.00000000-00002000")).unwrap().len(), 8192);
}

#[tokio::test]
async fn the_numbers_of_the_document_are_right() {
    let place = tempfile::tempdir().unwrap();
    let (_, master) = sampled(place.path()).await;
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/repository-format.md");
    let document = fs::read_to_string(document).unwrap();
    let numbers = read(&[&place.path().join("repository"), &master, Path::new("numbers")]);
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    assert_eq!(numbers.len(), 3);
    for number in numbers {
        assert!(document.contains(number), "{number}");
    }
}
