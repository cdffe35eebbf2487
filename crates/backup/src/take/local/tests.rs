//! A data directory that is read while somebody writes in it: the real pipeline and the real directory, and a
//! writer that comes to its end between the first look at a page and the second.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use crc_fast::{CrcAlgorithm, checksum as crc};
use jiff::Timestamp;
use obyra_evidence::Quiet;
use obyra_postgres::wal::{Lsn, WalSegmentSize};

use super::super::Options;
use super::super::census::Counted;
use super::super::intake::Intake;
use super::super::parents::Parents;
use super::super::pipeline::{Contents, Part};
use super::super::server::Shape;
use super::super::stage::Stage;
use super::directory::DataDirectory;
use super::{Found, Walk, control, give};
use crate::Result;
use crate::page::{Page, checksum};
use crate::repository::Repository;
use crate::repository::frames::FrameReader;
use crate::repository::keys::Unlock;
use crate::repository::layout::{BLOCK, BackupId, ClusterId, EXTENT_BLOCKS};
use crate::repository::manifest::DamagedBlock;
use crate::repository::map::identity;
use crate::repository::store::Store;

/// Blocks of a segment of a relation, as servers are compiled.
const SEGMENT_BLOCKS: u32 = 131_072;
const START: Lsn = Lsn(0x500_0000);
const STOP: Lsn = Lsn(0x600_0000);
const BEFORE: Lsn = Lsn(0x4ff_ffff);
const DURING: Lsn = Lsn(0x500_0000);
const AFTER: Lsn = Lsn(0x600_0001);
/// What a server writes from a session of 5 into relation 16384, and its second gigabyte.
const FIRST: &str = "base/5/16384";
const SECOND: &str = "base/5/16384.1";
/// A file that takes long to be read.
const LINGERING: &str = "global/1262";

/// A page as the server writes it; `words` is what it holds.
fn page(lsn: Lsn, block: u32, words: u8) -> Page {
    let mut page = [words; BLOCK];
    page[..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn.0 as u32).to_le_bytes());
    page[8..24].fill(0);
    page[12..20].copy_from_slice(&[28, 0, 0, 32, 0, 32, 4, 32]);
    let sum = checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

/// The first half of one, the second of another.
fn torn(first: &Page, second: &Page) -> Page {
    let mut torn = *first;
    torn[BLOCK / 2..].copy_from_slice(&second[BLOCK / 2..]);
    torn
}

/// A directory whose writers end what they had begun once it was read.
struct Written {
    directory: DataDirectory,
    /// A file, a block of it, and what it is in the end.
    ends: Vec<(File, &'static str, u32, Page)>,
    again: AtomicUsize,
    /// What was read, in its order.
    read: Mutex<Vec<String>>,
}

impl Written {
    fn has_read(&self, path: &str) -> bool {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|read| read == path)
    }
}

impl Contents for Written {
    fn read(&self, part: &Part, into: &mut [u8]) -> Result<bool> {
        // Whoever were to read pg_control before everything else was read has time to do so.
        for _ in 0..300 {
            if *part.path != *LINGERING || self.has_read(control::PATH) {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        let read = self.directory.read(part, into);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).push(part.path.to_string());
        for (file, path, block, page) in &self.ends {
            if *part.path == **path && block / EXTENT_BLOCKS == part.extent {
                file.write_all_at(page, u64::from(*block) * BLOCK as u64).unwrap();
            }
        }
        read
    }

    fn again(&self, part: &Part, number: usize, into: &mut [u8]) -> bool {
        self.again.fetch_add(1, Ordering::Relaxed);
        self.directory.again(part, number, into)
    }
}

/// A relation on a disk.
struct Disk {
    folder: tempfile::TempDir,
    ends: Vec<(File, &'static str, u32, Page)>,
}

/// What was made of it: what the census says, whether it was read again, and each block's identity that a
/// test asks for.
struct Seen {
    damaged: Vec<DamagedBlock>,
    read_again: usize,
    /// The files, in the order in which they were read.
    read: Vec<String>,
    identities: Vec<(String, Vec<[u8; 16]>)>,
    key: [u8; 32],
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("base/5")).unwrap();
        Disk { folder, ends: Vec::new() }
    }

    fn file(&self, path: &str) -> File {
        let path = self.folder.path().join(path);
        File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap()
    }

    fn write(&self, path: &str, block: u32, page: &Page) {
        self.file(path).write_all_at(page, u64::from(block) * BLOCK as u64).unwrap();
    }

    /// There is `first`; once it was read, there is `then`.
    fn change(&mut self, path: &'static str, block: u32, first: &Page, then: &Page) {
        self.write(path, block, first);
        self.ends.push((self.file(path), path, block, *then));
    }

    /// Takes these files as they were when they were found, whatever becomes of them in between.
    async fn take(self, paths: &[&str], in_between: impl FnOnce(&Path)) -> Seen {
        let root = self.folder.path().to_owned();
        self.take_all(async |intake: &mut Intake<'_>| {
            let sizes = paths.iter().map(|path| fs::metadata(root.join(path)).unwrap().len());
            let sizes: Vec<u64> = sizes.collect();
            in_between(&root);
            for (path, size) in paths.iter().zip(sizes) {
                give(intake, &Found { path: (*path).to_owned(), mode: 0o600, size }).await?;
            }
            Ok(())
        })
        .await
    }

    async fn take_all(self, feed: impl AsyncFnOnce(&mut Intake<'_>) -> Result<()>) -> Seen {
        let place = tempfile::tempdir().unwrap();
        let store = Store::folder(place.path()).unwrap();
        let repository = Repository::open_or_create(store, &Unlock::generate()).await.unwrap();
        let directory = DataDirectory::new(self.folder.path(), 16);
        let (again, read) = (AtomicUsize::new(0), Mutex::default());
        let contents = Arc::new(Written { directory, ends: self.ends, again, read });
        let (cluster, now) = (ClusterId(7), "2026-11-24T03:00:00Z".parse::<Timestamp>().unwrap());
        let parents = Parents::new(&repository, cluster, Vec::new(), &Default::default());
        let stage = Stage {
            repository: &repository,
            cluster,
            backup: &BackupId::new(now, 1),
            shape: Shape {
                checksums: true,
                segment_blocks: SEGMENT_BLOCKS,
                wal_segment: WalSegmentSize::DEFAULT,
            },
            parents: &parents,
            parent: None,
            refreshable: 0,
            options: &Options { threads: 2, ..Options::default() },
            now,
            progress: &Quiet,
        };
        let (shared, ()) = stage.drive(START, Some(contents.clone()), feed).await.unwrap();
        let mut counted = shared.census.take();
        counted.judge_suspects(STOP);
        let identities = identities(&repository, cluster, &counted, &parents).await;
        Seen {
            damaged: counted.damaged,
            read_again: contents.again.load(Ordering::Relaxed),
            read: contents.read.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            identities,
            key: repository.keys.identity_key(),
        }
    }
}

/// What the repository has of each file.
async fn identities(
    repository: &Repository,
    cluster: ClusterId,
    counted: &Counted,
    parents: &Parents,
) -> Vec<(String, Vec<[u8; 16]>)> {
    let packs: Vec<_> = counted.packs.entries(parents).map(|pack| pack.unwrap().clone()).collect();
    let reader = FrameReader::new(repository, cluster);
    let mut all = Vec::new();
    for file in counted.files.iter().flatten() {
        let mut identities = Vec::new();
        for at in &file.extents {
            identities.extend(reader.piece(&packs, *at).await.unwrap().identities);
        }
        all.push((file.path.clone(), identities));
    }
    all
}

impl Seen {
    fn has(&self, path: &str, block: u32, page: &Page) -> bool {
        let (_, identities) = self.identities.iter().find(|(of, _)| of == path).unwrap();
        identities[block as usize] == identity(&self.key, page)
    }
}

fn damaged(path: &str, block: u32) -> DamagedBlock {
    DamagedBlock { path: path.to_owned(), block }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_torn_when_it_was_first_read_is_read_again_and_kept_whole() {
    let mut disk = Disk::new();
    // Their positions are of before the backup: nothing in its WAL would mend them.
    let (old, new) = (page(Lsn(9), 1025, 1), page(BEFORE, 1025, 2));
    disk.write(FIRST, 0, &page(BEFORE, 0, 1));
    disk.change(FIRST, 1025, &torn(&new, &old), &new);
    let (before, after) = (page(Lsn(9), SEGMENT_BLOCKS + 2, 1), page(BEFORE, SEGMENT_BLOCKS + 2, 2));
    disk.change(SECOND, 2, &torn(&before, &after), &after);
    // One that is written for the first time: its header comes last.
    let first = page(BEFORE, SEGMENT_BLOCKS + 3, 3);
    disk.change(SECOND, 3, &torn(&[0; BLOCK], &first), &first);
    let seen = disk.take(&[FIRST, SECOND], |_| ()).await;
    assert_eq!((seen.damaged.as_slice(), seen.read_again), (&[][..], 3));
    assert!(seen.has(FIRST, 1025, &new));
    assert!(seen.has(SECOND, 2, &after));
    assert!(seen.has(SECOND, 3, &first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_stays_torn_is_mended_by_the_log_only_if_that_reaches_it() {
    let disk = Disk::new();
    let other = page(Lsn(9), 0, 1);
    for (block, lsn) in [(0, BEFORE), (1, DURING), (2, STOP), (3, AFTER)] {
        disk.write(FIRST, block, &torn(&page(lsn, block, 2), &other));
    }
    let seen = disk.take(&[FIRST], |_| ()).await;
    assert_eq!(seen.damaged, [damaged(FIRST, 0), damaged(FIRST, 3)]);
    assert!(seen.has(FIRST, 0, &torn(&page(BEFORE, 0, 2), &other)), "what is on the disk is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_later_segment_is_verified_as_the_block_of_its_relation() {
    let disk = Disk::new();
    disk.write(SECOND, 0, &page(BEFORE, SEGMENT_BLOCKS, 1));
    // Blocks that were written into the wrong file.
    disk.write(SECOND, 1, &page(BEFORE, 1, 1));
    disk.write(FIRST, 0, &page(BEFORE, SEGMENT_BLOCKS, 1));
    let seen = disk.take(&[FIRST, SECOND], |_| ()).await;
    assert_eq!(seen.damaged, [damaged(FIRST, 0), damaged(SECOND, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_only_allocated_is_sound_and_half_of_one_is_not() {
    let disk = Disk::new();
    disk.write(FIRST, 0, &[0; BLOCK]);
    disk.write(FIRST, 1, &torn(&[0; BLOCK], &page(BEFORE, 1, 1)));
    disk.write(FIRST, 2, &[0; BLOCK]);
    let seen = disk.take(&[FIRST], |_| ()).await;
    assert_eq!(seen.damaged, [damaged(FIRST, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanished_is_left_out_and_one_that_shrank_ends_with_zeros() {
    let disk = Disk::new();
    let whole = page(BEFORE, 0, 1);
    for path in [FIRST, SECOND, "base/5/16385"] {
        disk.write(path, 0, &whole);
        disk.write(path, 1, &page(BEFORE, 1, 1));
    }
    let seen = disk.take(&[FIRST, SECOND, "base/5/16385"], |root| {
        fs::remove_file(root.join(SECOND)).unwrap();
        File::options().write(true).open(root.join(FIRST)).unwrap().set_len(BLOCK as u64).unwrap();
    });
    let seen = seen.await;
    let kept: Vec<&str> = seen.identities.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!((kept, seen.damaged.as_slice()), (vec![FIRST, "base/5/16385"], &[][..]));
    assert!(seen.has(FIRST, 0, &whole) && seen.has(FIRST, 1, &[0; BLOCK]));
}

/// It tells a standby how far it must replay for what is in the files: read before them, it might tell too
/// little.
#[tokio::test(flavor = "multi_thread")]
async fn pg_control_is_read_when_everything_else_was() {
    let disk = Disk::new();
    for folder in ["global", "pg_xact"] {
        fs::create_dir(disk.folder.path().join(folder)).unwrap();
    }
    let mut control = [0; BLOCK];
    control[..292].fill(1);
    let sum = crc(CrcAlgorithm::Crc32Iscsi, &control[..292]) as u32;
    control[292..296].copy_from_slice(&sum.to_le_bytes());
    disk.write(control::PATH, 0, &control);
    let others = [FIRST, LINGERING, "pg_xact/0000"];
    for path in others {
        // An extent each: several threads have something to read.
        disk.file(path).set_len(8 << 20).unwrap();
    }
    let walk = Walk(Arc::new(DataDirectory::new(disk.folder.path(), 16)));
    let seen = disk.take_all(async |intake| walk.give_all(intake).await.map(drop)).await;
    assert_eq!(seen.read.len(), others.len() + 1);
    assert_eq!(seen.read.iter().position(|path| path == control::PATH), Some(seen.read.len() - 1));
}
