//! What a backup makes of what is there already: of blocks that changed and of those that did not, of blocks
//! that are damaged, and of a backup that was interrupted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use obyra_backup::page;
use obyra_backup::repository::frames::FrameReader;
use obyra_backup::repository::layout::FRAME_BLOCKS;
use obyra_backup::repository::manifest::{DamagedBlock, Header};
use obyra_backup::restore::Target;
use obyra_backup::take::{self, From, Options};
use obyra_evidence::{Message, Progress, Quiet};
use obyra_postgres::replication::Checkpoint;

use super::server::{Server, Setup, eventually};
use super::site::{Site, Way, ask, flip, path_of, prove_sound};

const BLOCK: usize = 8192;

/// A file of a backup.
async fn kept(site: &Site, header: &Header, path: &str) -> Vec<u8> {
    let folder = site.files(header).await;
    fs::read(folder.path().join("data").join(path)).unwrap()
}

fn positions(file: &[u8]) -> Vec<obyra_postgres::wal::Lsn> {
    file.chunks(BLOCK).map(|block| page::lsn(block.try_into().unwrap())).collect()
}

async fn changes(way: Way) {
    // Without checksums, hints are written without a trace in the log.
    let site = Site::around(Server::start_new(Setup::default()).await).await;
    let session = site.session().await;
    let filled = "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS w FROM generate_series(1, 20000) n";
    session.batch_execute(filled).await.unwrap();
    let path = path_of(&session, "t").await;
    let file = site.server.data().join(&path);
    let first = site.try_take(way, Options::default(), &Quiet).await.unwrap().header;
    let before = fs::read(&file).unwrap();
    assert_eq!(first.parent, None);

    // What is committed is written into each row when it is first read.
    assert_eq!(ask(&session, "SELECT count(*) FROM t").await, "20000");
    session.batch_execute("CHECKPOINT").await.unwrap();
    let after = fs::read(&file).unwrap();
    assert!(before != after && positions(&before) == positions(&after), "no position tells of it");
    let second = site.try_take(way, Options::default(), &Quiet).await.unwrap().header;
    assert_eq!(second.parent, Some(first.id.clone()));
    assert!(kept(&site, &second, &path).await == after);
    assert!(kept(&site, &first, &path).await == before, "and the one before is what it was");
    let size = after.len() as u64;
    assert!((size / 2..size * 2).contains(&second.totals.added), "{} of {size}", second.totals.added);

    session.batch_execute("UPDATE t SET n = -n WHERE n % 5000 = 0").await.unwrap();
    session.batch_execute("CHECKPOINT").await.unwrap();
    let after = fs::read(&file).unwrap();
    let third = site.try_take(way, Options::default(), &Quiet).await.unwrap().header;
    assert!(kept(&site, &third, &path).await == after);
    assert!(third.totals.added < size / 4, "{} of {size}", third.totals.added);
    let full = Options { full: true, ..Options::default() };
    let fourth = site.try_take(way, full, &Quiet).await.unwrap().header;
    assert!(fourth.parent.is_none() && fourth.totals.added > fourth.totals.bytes / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_stored_and_no_position_is_trusted() {
    changes(Way::Protocol).await;
    changes(Way::Local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_sort_as_the_backups_follow_each_other() {
    let site = Site::around(Server::start_new(Setup::default()).await).await;
    let first = site.try_take(Way::Local, Options::default(), &Quiet).await.unwrap().header;
    // The clock of another host.
    site.days_pass(-1);
    let second = site.try_take(Way::Local, Options::default(), &Quiet).await.unwrap().header;
    assert_eq!(second.parent, Some(first.id.clone()));
    assert!(second.started < first.started && second.id > first.id, "{} {}", first.id, second.id);
    let names: Vec<_> = site.headers().await.into_iter().map(|header| header.id).collect();
    assert_eq!(names, [first.id, second.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_named_and_nothing_is_lost() {
    let mut site = Site::new(16).await;
    let session = site.session().await;
    let filled = "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS w FROM generate_series(1, 2000) n";
    session.batch_execute(filled).await.unwrap();
    let path = path_of(&session, "t").await;
    drop(session);
    site.server.stop().await;
    let file = site.server.data().join(&path);
    flip(&file, 2);
    // A position that no WAL reaches mends nothing.
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.write_all_at(&[0xff; 6], 3 * BLOCK as u64).unwrap();
    site.server.start().await;
    let on_disk = fs::read(file).unwrap();
    for way in [Way::Protocol, Way::Local] {
        let taken = site.try_take(way, Options::default(), &Quiet).await.unwrap();
        assert!(taken.wal.received, "the first one's WAL is not mistaken for somebody who delivers");
        let block = |block| DamagedBlock { path: path.clone(), block };
        assert_eq!(taken.header.damaged, [block(2), block(3)]);
        // The server says it at the very end, as an error.
        let complaint = taken.header.server_complaint.as_deref();
        assert_eq!(complaint.is_some_and(|said| said.contains("checksum")), way == Way::Protocol);
        assert!(kept(&site, &taken.header, &path).await == on_disk);
    }
}

/// Counts what was read.
#[derive(Default)]
struct Read(AtomicU64);

impl Progress for Read {
    fn begin(&self, _: Message, _: Option<u64>) {}
    fn advance(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
    fn done(&self) {}
    fn note(&self, _: Message) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_of_an_interrupted_backup_is_not_stored_again() {
    let mut site = Site::new(16).await;
    let filled = "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS w FROM generate_series(1, 60000) n";
    site.session().await.batch_execute(filled).await.unwrap();
    let from = From::Protocol { target: site.server.admin() };
    let options =
        Options { rate_max: Some(16 << 20), checkpoint: Checkpoint::Fast, threads: 2, ..Options::default() };
    let request = site.request(options);
    let read = Read::default();
    let (interrupted, ()) = tokio::join!(take::run(&site.repository, &from, &request, &read), async {
        eventually("it reads", async || (read.0.load(Ordering::Relaxed) > 24 << 20).then_some(())).await;
        site.server.kill();
    });
    assert!(interrupted.is_err());
    site.server.start().await;
    assert_eq!(site.headers().await, []);
    let taken = site.try_take(Way::Protocol, Options::default(), &Quiet).await.unwrap();
    assert_eq!((taken.resumed.len(), taken.lost_maps, taken.header.parent), (1, 0, None));
    let totals = taken.header.totals;
    assert!(totals.added + (20 << 20) < totals.bytes, "{totals:?}");
    let header = site.headers().await.remove(0);
    let instance = site.raise(&header, Target::Backup(header.id.clone())).await;
    prove_sound(&site, instance).await;
}

/// What `archive_command` says is not what the archive has.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_its_wal_although_the_server_believes_it_archived() {
    let settings = ["archive_mode=on", "archive_command=/bin/true", "wal_keep_size=0"];
    let site = Site::with(16, &settings).await;
    let taken = site.try_take(Way::Local, Options::default(), &Quiet).await.unwrap();
    assert!(taken.wal.received && taken.wal.segments > 0, "{:?}", taken.wal);
    let instance = site.raise(&taken.header, Target::Backup(taken.header.id.clone())).await;
    prove_sound(&site, instance).await;
}

/// How many frames hold the blocks of a table, by its file's map; and how many blocks there are.
async fn spread(site: &Site, header: &Header, path: &str) -> (usize, usize) {
    let manifest = site.manifest(header).await;
    let file = manifest.files.iter().find(|file| file.path == path).unwrap();
    let reader = FrameReader::new(&site.repository, site.server.cluster());
    let (mut frames, mut blocks) = (BTreeSet::new(), 0);
    for at in &file.extents {
        let piece = reader.piece(&manifest.packs, *at).await.unwrap();
        blocks += piece.identities.len();
        let kept = piece.runs.iter().filter_map(|run| run.kept);
        frames.extend(kept.map(|kept| (piece.packs[usize::from(kept.pack)].clone(), kept.frame.offset)));
    }
    (frames.len(), blocks)
}

/// A restore after many increments reads no more than three times the frames that one of a full one reads.
#[tokio::test(flavor = "multi_thread")]
async fn what_many_backups_have_scattered_is_stored_together_again() {
    let site = Site::new(16).await;
    let session = site.session().await;
    // A row in each block, with room for another version of it.
    let filled = "CREATE TABLE t WITH (fillfactor = 30) AS
        SELECT n, repeat(md5(n::text), 59) AS w FROM generate_series(1, 60) n";
    session.batch_execute(filled).await.unwrap();
    let path = path_of(&session, "t").await;
    let mut most = 0;
    for round in 0..12 {
        // A page here and there, in every backup others.
        let changed = format!("UPDATE t SET n = -n WHERE n % 12 = {round}; CHECKPOINT");
        session.batch_execute(&changed).await.unwrap();
        let header = site.try_take(Way::Local, Options::default(), &Quiet).await.unwrap().header;
        let (frames, blocks) = spread(&site, &header, &path).await;
        let ideal = blocks.div_ceil(FRAME_BLOCKS);
        assert!(frames <= 3 * ideal, "{frames} frames for {blocks} blocks in backup {round}");
        most = most.max(frames);
    }
    assert!(most > 1);
}
