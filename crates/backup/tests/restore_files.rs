//! Files back from a repository: whole, only what differs, after interruptions, and never over something
//! that somebody needs.

#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "restore/cut.rs"]
mod cut;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use obyra_backup::Result;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::Manifest;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::layout::{BackupId, ClusterId};
use obyra_backup::repository::manifest::{FileEntry, Header, Tablespace};
use obyra_backup::repository::store::Store;
use obyra_backup::restore::{Into, Place, Restore, SmallFile, State, Written};
use obyra_evidence::{Exit, Message, Progress, Quiet};

const CLUSTER: ClusterId = ClusterId(7_000_000_000_000_000_001);
const MARKER: &str = "obyra-db.restoring";
const BLOCK: u64 = 8192;

/// A repository with one backup of a made-up cluster, and room for restores.
struct Scene {
    folder: tempfile::TempDir,
    repository: Repository,
    header: Header,
}

impl Scene {
    async fn set() -> Scene {
        Scene::set_with(|_| {}).await
    }

    async fn set_with(change: impl FnOnce(&mut Scene)) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        // The server's user has to reach what is restored.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::folder(&folder.path().join("repository")).unwrap();
        let repository = Repository::open_or_create(store, &Unlock::generate()).await.unwrap();
        make_up(&folder.path().join("source"));
        let mut scene = Scene { folder, repository, header: cut::header(CLUSTER, 1) };
        change(&mut scene);
        let (header, source) = (scene.header.clone(), scene.source());
        let cut = cut::begin(&scene.repository, CLUSTER, &header, &source, &|_| false).await;
        scene.header = cut.commit(header).await;
        scene
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    async fn manifest(&self) -> Manifest {
        Manifest::read(&self.repository, CLUSTER, &self.header.id).await.unwrap()
    }

    async fn look(&self, into: &Into) -> Result<Place> {
        Place::look(&self.manifest().await, into)
    }

    async fn restore(&self, into: &Into) -> Result<Written> {
        let place = self.look(into).await?;
        self.restore_at(place, &Quiet).await
    }

    async fn restore_at(&self, place: Place, progress: &dyn Progress) -> Result<Written> {
        let restore = Restore {
            repository: self.repository.clone(),
            cluster: CLUSTER,
            manifest: Arc::new(self.manifest().await),
            place,
            small: vec![SmallFile { path: "backup_label".to_owned(), contents: "START\n".to_owned() }],
            threads: 2,
            databases: None,
        };
        restore.run(progress).await
    }

    /// Flips a byte in the middle of the largest pack.
    fn damage_a_pack(&self) -> PathBuf {
        let packs = files_below(&self.folder.path().join("repository/clusters"));
        let packs = packs.into_iter().filter(|path| path.to_str().unwrap().contains("/packs/"));
        let largest = packs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        flip(&largest, fs::metadata(&largest).unwrap().len() / 3);
        largest
    }
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn into(data: PathBuf) -> Into {
    Into { data, ..Into::default() }
}

/// A data directory as far as a restore looks at it: sizes of all kinds, zeros, and no structure in them.
fn make_up(source: &Path) {
    let dirs = ["base/5", "base/16384", "global", "pg_wal/archive_status", "pg_replslot", "pg_tblspc"];
    dirs.iter().for_each(|dir| fs::create_dir_all(source.join(dir)).unwrap());
    let mut random = 1u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes);
        while out.len() < bytes {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.extend_from_slice(&(random >> 20).to_le_bytes());
        }
        out.truncate(bytes);
        out
    };
    fs::write(source.join("PG_VERSION"), "16\n").unwrap();
    let mut control = noise(8192);
    control[..8].copy_from_slice(&CLUSTER.0.to_le_bytes());
    control[8..12].copy_from_slice(&1300u32.to_le_bytes());
    control[208..216].copy_from_slice(&1_234_567f64.to_le_bytes());
    fs::write(source.join("global/pg_control"), control).unwrap();
    fs::write(source.join("base/5/empty"), "").unwrap();
    fs::write(source.join("base/5/one"), "x").unwrap();
    fs::write(source.join("base/5/odd"), noise(8193)).unwrap();
    for table in 0..40 {
        fs::write(source.join(format!("base/16384/{table}")), noise(8192 * (1 + table % 5))).unwrap();
    }
    fs::write(source.join("base/16384/large"), noise(21 << 20)).unwrap();
    // Half of it zeros, in the middle and at the end.
    let mut gaps = noise(1 << 20);
    gaps.extend(vec![0; 8 << 20]);
    gaps.extend(noise(3 * 8192));
    gaps.extend(vec![0; 3 << 20]);
    fs::write(source.join("base/16384/gaps"), gaps).unwrap();
    fs::write(source.join("base/16384/zeros"), vec![0; 40 * 8192]).unwrap();
    fs::set_permissions(source.join("base/5/odd"), fs::Permissions::from_mode(0o640)).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() || path.is_file() { out.push(path) } else { out.extend(files_below(&path)) }
    }
    out
}

/// Every file with its contents and mode.
fn contents(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let below = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    let files = files_below(folder).into_iter().filter(|path| !path.is_symlink());
    files.map(|path| (below(&path), (mode(&path), fs::read(&path).unwrap()))).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// The target holds what the source held, and the small file, and nothing else.
fn assert_restored(scene: &Scene, target: &Path) {
    let (mut there, mut wanted) = (contents(target), contents(&scene.source()));
    assert_eq!(there.remove("backup_label").unwrap().1, b"START\n");
    // Written last, for its owner alone.
    there.get_mut("global/pg_control").unwrap().0 = 0;
    wanted.get_mut("global/pg_control").unwrap().0 = 0;
    assert_eq!(there.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (path, content) in &wanted {
        assert!(there[path] == *content, "{path} differs");
    }
}

#[tokio::test]
async fn into_an_empty_folder() {
    let scene = Scene::set().await;
    let target = scene.target();
    let place = scene.look(&into(target.clone())).await.unwrap();
    assert_eq!((place.state, place.removed.len()), (State::Empty, 0));
    let written = scene.restore_at(place, &Quiet).await.unwrap();
    assert_restored(&scene, &target);
    let total = scene.header.totals.bytes;
    assert_eq!(written.bytes + written.kept + 8192, total, "pg_control is not counted");
    assert!(written.kept > 11 << 20, "zeros are not written");
    let gaps = fs::metadata(target.join("base/16384/gaps")).unwrap();
    assert!(gaps.blocks() * 512 < 4 << 20, "zeros take no room: {} of {}", gaps.blocks() * 512, gaps.len());
    // Directories that backups leave out, and those that they only name.
    for dir in ["pg_wal/archive_status", "pg_replslot", "pg_notify", "pg_logical/snapshots", "pg_tblspc"] {
        assert!(target.join(dir).is_dir(), "{dir}");
    }
    assert_eq!(mode(&target), 0o700);
}

#[tokio::test]
async fn as_root_everything_belongs_to_the_servers_user() {
    let scene = Scene::set().await;
    let target = scene.target();
    scene.restore(&into(target.clone())).await.unwrap();
    let owner = obyra_postgres::cluster::owner_of_files(&target).unwrap();
    let Some((uid, gid)) = owner else { return };
    assert_ne!(uid, 0);
    for path in files_below(&target).into_iter().chain([target.clone(), target.join("base/5")]) {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (uid, gid), "{}", path.display());
    }
}

#[tokio::test]
async fn over_a_cluster_only_what_differs_is_written_and_strangers_go() {
    let scene = Scene::set().await;
    let target = scene.target();
    scene.restore(&into(target.clone())).await.unwrap();
    flip(&target.join("base/16384/large"), 5 * BLOCK + 17);
    flip(&target.join("base/16384/large"), 1500 * BLOCK);
    flip(&target.join("base/16384/gaps"), (2 << 20) + 1);
    flip(&target.join("base/5/odd"), 8192);
    fs::OpenOptions::new().write(true).open(target.join("base/16384/4")).unwrap().set_len(100).unwrap();
    fs::OpenOptions::new().write(true).open(target.join("base/16384/9")).unwrap().set_len(1 << 20).unwrap();
    fs::remove_file(target.join("base/16384/3")).unwrap();
    fs::set_permissions(target.join("base/16384/5"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(target.join("base/16384/99999"), "a table of later").unwrap();
    fs::write(target.join("pg_wal/000000010000000000000009"), "WAL of later").unwrap();
    fs::create_dir_all(target.join("base/20000/deep")).unwrap();
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::write(&elsewhere, "not ours").unwrap();
    symlink(&elsewhere, target.join("base/5/link")).unwrap();
    fs::remove_file(target.join("base/16384/6")).unwrap();
    symlink(&elsewhere, target.join("base/16384/6")).unwrap();

    let place = scene.look(&into(target.clone())).await.unwrap();
    assert_eq!(place.state, State::Cluster);
    let removed: Vec<&str> =
        place.removed.iter().map(|path| path.strip_prefix(&target).unwrap().to_str().unwrap()).collect();
    let strangers = [
        "backup_label",
        "base/16384/6",
        "base/16384/99999",
        "base/20000",
        "base/5/link",
        "pg_wal/000000010000000000000009",
    ];
    assert_eq!(removed, strangers);
    let written = scene.restore_at(place, &Quiet).await.unwrap();
    assert_restored(&scene, &target);
    // Three whole blocks, the last byte of the odd file, and the files that were cut or gone: 5, 4 and 2 blocks.
    assert_eq!(written.bytes, 3 * BLOCK + 1 + (5 + 4 + 2) * BLOCK);
    assert_eq!(fs::read(&elsewhere).unwrap(), b"not ours");
    let again = scene.restore(&into(target.clone())).await.unwrap();
    assert_eq!(again.bytes, 0);
}

#[tokio::test]
async fn pg_wal_on_a_disk_of_its_own_stays_there() {
    let scene = Scene::set().await;
    let (target, disk) = (scene.target(), scene.folder.path().join("disk"));
    scene.restore(&into(target.clone())).await.unwrap();
    fs::rename(target.join("pg_wal"), &disk).unwrap();
    symlink(&disk, target.join("pg_wal")).unwrap();
    fs::write(disk.join("000000010000000000000009"), "WAL of later").unwrap();
    scene.restore(&into(target.clone())).await.unwrap();
    assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), disk);
    assert!(disk.join("archive_status").is_dir());
    assert!(!disk.join("000000010000000000000009").exists());
}

#[tokio::test]
async fn a_damaged_object_is_named_with_the_block_that_needs_it_and_no_server_starts() {
    let scene = Scene::set().await;
    let target = scene.target();
    let pack = scene.damage_a_pack();
    let failure = scene.restore(&into(target.clone())).await.unwrap_err();
    let said = failure.to_string();
    let name = pack.to_str().unwrap().rsplit_once("repository/").unwrap().1;
    assert!(said.contains(name), "{said}");
    assert!(said.contains("needed for base/16384/large block"), "{said}");
    assert!(!target.join("global/pg_control").exists());
    assert!(target.join(MARKER).exists());
}

/// Fails the restore from within once so many bytes are done.
struct Dies {
    after: u64,
    done: AtomicU64,
}

impl Progress for Dies {
    fn begin(&self, _: Message, _: Option<u64>) {}
    fn advance(&self, by: u64) {
        if self.done.fetch_add(by, Ordering::Relaxed) + by > self.after {
            std::panic::panic_any("killed");
        }
    }
    fn done(&self) {}
    fn note(&self, _: Message) {}
}

/// A restore that ends in its middle: whatever was there before, no server starts there now.
async fn dies(scene: &Arc<Scene>) {
    let target = scene.target();
    let place = scene.look(&into(target.clone())).await.unwrap();
    let dying = scene.clone();
    let ended = tokio::spawn(async move {
        let dies = Dies { after: 4 << 20, done: AtomicU64::new(0) };
        dying.restore_at(place, &dies).await
    });
    assert!(ended.await.unwrap_err().is_panic());
    assert!(!target.join("global/pg_control").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_goes_on_and_no_server_starts_in_between() {
    let scene = Arc::new(Scene::set().await);
    let target = scene.target();
    dies(&scene).await;
    let place = loop {
        // The threads of the first one may be writing their last block still; its lock tells when they have.
        let place = scene.look(&into(target.clone())).await.unwrap();
        assert_eq!(place.state, State::Interrupted);
        match scene.restore_at(place, &Quiet).await {
            Ok(written) => break written,
            Err(failure) => assert_eq!(failure.what.code().id(), "backup.restore-runs-already"),
        }
    };
    assert_restored(&scene, &target);
    assert!(place.kept > 12 << 20, "what was there is not written again: {place:?}");
    // It is the same over what is a cluster already.
    fs::remove_file(target.join("base/16384/large")).unwrap();
    dies(&scene).await;
}

#[tokio::test]
async fn what_somebody_needs_is_not_overwritten() {
    let scene = Scene::set().await;
    let target = scene.target();
    let refused = |failure: obyra_evidence::Failure| {
        assert_eq!(failure.exit, Exit::Refused);
        failure.what.code().id()
    };
    // Something that is no cluster.
    fs::create_dir(&target).unwrap();
    fs::write(target.join("thesis.odt"), "years of work").unwrap();
    let failure = scene.look(&into(target.clone())).await.unwrap_err();
    assert_eq!(refused(failure), "backup.restore-folder-in-use");
    fs::remove_file(target.join("thesis.odt")).unwrap();
    // A folder that a file system brings along counts as empty.
    fs::create_dir(target.join("lost+found")).unwrap();
    scene.restore(&into(target.clone())).await.unwrap();
    assert!(target.join("lost+found").exists());
    // Another cluster.
    let control = fs::OpenOptions::new().write(true).open(target.join("global/pg_control")).unwrap();
    control.write_all_at(&[1, 2, 3], 0).unwrap();
    let failure = scene.look(&into(target.clone())).await.unwrap_err();
    assert_eq!(refused(failure), "backup.restore-other-cluster");
    let forced = Into { other_cluster: true, ..into(target.clone()) };
    scene.restore(&forced).await.unwrap();
    assert_restored_but(&scene, &target, "lost+found");
}

fn assert_restored_but(scene: &Scene, target: &Path, folder: &str) {
    fs::remove_dir_all(target.join(folder)).unwrap();
    assert_restored(scene, target);
}

#[tokio::test]
async fn a_restore_that_does_not_fit_is_refused_before_it_begins() {
    let scene = Scene::set().await;
    let mut manifest = scene.manifest().await;
    let huge = FileEntry { path: "base/5/huge".to_owned(), mode: 0o600, size: 1 << 60, extents: Vec::new() };
    manifest.files.push(huge);
    let failure = Place::look(&manifest, &into(scene.target())).unwrap_err();
    assert_eq!(failure.what.code().id(), "backup.restore-no-room");
    assert!(failure.what.to_string().contains("the restore needs 1153 PB"), "{failure}");
    assert!(!scene.target().exists());
}

#[tokio::test]
async fn tablespaces_go_where_they_are_told_and_never_where_they_were() {
    let scene = Scene::set_with(|scene| {
        for oid in [16500, 16501] {
            let location = scene.folder.path().join(format!("space-{oid}"));
            fs::create_dir_all(location.join("PG_16_202307071/5")).unwrap();
            fs::write(location.join("PG_16_202307071/5/16600"), vec![oid as u8; 20_000]).unwrap();
            let location = location.to_str().unwrap().to_owned();
            scene.header.tablespaces.push(Tablespace { oid, location });
        }
    })
    .await;
    let (target, chosen) = (scene.target(), scene.folder.path().join("chosen"));
    let table = "PG_16_202307071/5/16600";
    let mut wish = into(target.clone());
    wish.tablespaces.insert(16501, chosen.clone());
    scene.restore(&wish).await.unwrap();
    let by_default = scene.folder.path().join("target.tablespaces/16500");
    assert_eq!(fs::read_link(target.join("pg_tblspc/16500")).unwrap(), by_default);
    assert_eq!(fs::read_link(target.join("pg_tblspc/16501")).unwrap(), chosen);
    for (folder, oid) in [(&by_default, 16500u32), (&chosen, 16501)] {
        assert_eq!(fs::read(folder.join(table)).unwrap(), vec![oid as u8; 20_000]);
    }
    // A second time they stay where they are now, and what differs there is mended.
    flip(&chosen.join(table), 9000);
    fs::write(chosen.join("PG_16_202307071/5/16601"), "a table of later").unwrap();
    let written = scene.restore(&into(target.clone())).await.unwrap();
    assert_eq!((written.bytes, written.removed), (BLOCK, 2), "with backup_label");
    assert_eq!(fs::read(chosen.join(table)).unwrap(), vec![16501u32 as u8; 20_000]);
    // In use: the place of production, a place in the data directory, one that another has.
    let other = scene.folder.path().join("other");
    for taken in [scene.folder.path().join("space-16500"), other.join("inside"), chosen.clone()] {
        let mut wish = into(other.clone());
        wish.tablespaces.insert(16500, taken.clone());
        let failure = scene.look(&wish).await.unwrap_err();
        assert_eq!(failure.what.code().id(), "backup.restore-tablespace-in-use", "{}", taken.display());
    }
    let mut wish = into(other);
    wish.tablespaces.insert(1, chosen);
    assert_eq!(scene.look(&wish).await.unwrap_err().exit, Exit::Usage);
}

#[tokio::test]
async fn a_manifest_that_lies_about_its_packs_harms_nothing() {
    let scene = Scene::set().await;
    let mut manifest = scene.manifest().await;
    // A pack under another's name: its frames do not open there.
    let other: BackupId = "20261123T030000Z-0001".parse().unwrap();
    manifest.packs[0].id.backup = other;
    let place = Place::look(&manifest, &into(scene.target())).unwrap();
    let restore = Restore {
        repository: scene.repository.clone(),
        cluster: CLUSTER,
        manifest: Arc::new(manifest),
        place,
        small: Vec::new(),
        threads: 2,
        databases: None,
    };
    assert!(restore.run(&Quiet).await.is_err());
    assert!(!scene.target().join("global/pg_control").exists());
}
