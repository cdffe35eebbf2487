//! Backups for which the server sends only what changed, by its summaries of the WAL: they are what the
//! cluster is, byte for byte, and where the summaries do not reach, everything is read.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use obyra_backup::page::{self, Fork, RelationFile};
use obyra_backup::repository::manifest::{DamagedBlock, Header};
use obyra_backup::restore::Target;
use obyra_backup::take::{Options, Taken};
use obyra_postgres::Session;

use super::server::eventually;
use super::site::{Site, Way, ask, contents, flip, path_of, prove_sound};
use super::whole::{Begun, Load, disturb, furnish, in_database, restored};

const BLOCK: usize = 8192;

async fn summarizing(major: u32) -> Site {
    Site::with(major, &["summarize_wal=on", "autovacuum=off"]).await
}

/// A backup over the protocol, and what it said.
async fn take(site: &Site) -> (Taken, Vec<String>) {
    let begun = Begun::default();
    let taken = site.try_take(Way::Protocol, Options::default(), &begun).await.unwrap();
    (taken, begun.said.into_inner().unwrap())
}

/// A backup for which only changes were sent.
async fn take_changes(site: &Site) -> Header {
    let (taken, said) = take(site).await;
    assert!(said.is_empty(), "{said:?}");
    let sent = taken.header.changed_only.unwrap();
    assert!(sent.received < taken.header.totals.bytes, "{sent:?}");
    taken.header
}

/// The backup is of the server's files as they are now, since nothing was written meanwhile.
async fn is_what_the_server_has(site: &Site, header: &Header) {
    let folder = site.files(header).await;
    for file in site.manifest(header).await.files {
        if RelationFile::of(&file.path).is_none_or(|file| file.fork == Fork::FreeSpace) {
            continue;
        }
        let place = file.path.strip_prefix("pg_tblspc/").map_or_else(
            || folder.path().join("data").join(&file.path),
            |outside| folder.path().join("data.tablespaces").join(outside),
        );
        let kept = fs::read(place).unwrap();
        let there = fs::read(site.server.data().join(&file.path)).unwrap();
        let blocks = kept.chunks(BLOCK).zip(there.chunks(BLOCK)).enumerate();
        let differ: Vec<_> = blocks.filter(|(_, (a, b))| a != b).map(|(number, _)| number).collect();
        assert_eq!((kept.len(), differ), (there.len(), Vec::new()), "{}", file.path);
    }
}

async fn increments(major: u32) {
    let site = summarizing(major).await;
    furnish(&site).await;
    let (first, said) = take(&site).await;
    assert_eq!((first.header.changed_only, said), (None, Vec::new()));

    let load = Load::start(&site.server);
    let begun = Begun::default();
    let (second, ()) = tokio::join!(site.try_take(Way::Protocol, Options::default(), &begun), async {
        begun.reading.notified().await;
        disturb(&site, major).await;
    });
    assert!(begun.said.lock().unwrap().is_empty(), "{:?}", begun.said);
    let second = second.unwrap().header;
    assert!(second.changed_only.unwrap().received < second.totals.bytes / 2, "{:?}", second.changed_only);
    assert!(!second.backup_label.contains("INCREMENTAL"), "{}", second.backup_label);
    let session = in_database(&site, "bench").await;
    let changed = "CREATE INDEX ON spaced (t); UPDATE spaced SET t = 'new' WHERE id % 50 = 0; \
                   TRUNCATE empty; INSERT INTO empty SELECT generate_series(1, 50000); \
                   CREATE TABLE grown AS SELECT n, repeat('g', 300) AS t FROM generate_series(1, 40000) n";
    session.batch_execute(changed).await.unwrap();
    let third = take_changes(&site).await;
    drop(load);
    let rows = contents(&session).await;
    let fourth = take_changes(&site).await;
    assert_eq!(fourth.parent, Some(third.id.clone()));
    is_what_the_server_has(&site, &fourth).await;
    site.archive().await;

    for header in [&second, &fourth] {
        let instance = site.raise(header, Target::Latest).await;
        let copy = restored(&instance, "bench").await;
        assert_eq!(contents(&copy).await, rows);
        assert_eq!(ask(&copy, "SELECT count(*) FROM unlogged").await, "0");
        let made = restored(&instance, "made_1").await;
        assert_eq!(ask(&made, "SELECT count(*) FROM t").await, "3000");
        copy.batch_execute("COMMIT PREPARED 'later'").await.unwrap();
        drop((copy, made));
        prove_sound(&site, instance).await;
    }
    // And at its own end, without anything that came after.
    let instance = site.raise(&third, Target::Backup(third.id.clone())).await;
    prove_sound(&site, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17_sends_what_changed() {
    increments(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18_sends_what_changed() {
    increments(18).await;
}

/// PostgreSQL's own `pg_combinebackup` brings the deleted rows back.
async fn truncated_and_grown(major: u32) {
    let site = summarizing(major).await;
    let session = site.session().await;
    for table in ["t", "shrunk"] {
        let rows = "SELECT n, repeat('x', 100) AS w FROM generate_series(1, 60000) n";
        session.batch_execute(&format!("CREATE TABLE {table} AS {rows}")).await.unwrap();
        session.batch_execute(&format!("VACUUM {table}")).await.unwrap();
    }
    let full = take(&site).await.0.header;
    let path = site.server.data().join(ask(&session, "SELECT pg_relation_filepath('t')").await);
    let before = fs::metadata(&path).unwrap().len();
    for cut in
        ["DELETE FROM t WHERE n > 30000", "VACUUM t", "DELETE FROM shrunk WHERE n > 9", "VACUUM shrunk"]
    {
        session.batch_execute(cut).await.unwrap();
    }
    let rows = site.server.room().join("rows");
    fs::write(&rows, format!("5\t{}\n", "y".repeat(100)).repeat(1500)).unwrap();
    chown(&rows, Some(site.server.owner().0), Some(site.server.owner().1)).unwrap();
    // It grows by several blocks at a time, none of which is logged before there are rows in it.
    let zeros = loop {
        session.batch_execute(&format!("COPY t FROM '{}'", rows.display())).await.unwrap();
        session.batch_execute("CHECKPOINT").await.unwrap();
        let file = fs::read(&path).unwrap();
        assert!((file.len() as u64) < before, "it grew as far as it had been");
        let zeros = file.chunks(BLOCK).filter(|block| page::is_new((*block).try_into().unwrap())).count();
        if zeros > 0 {
            break zeros;
        }
    };
    let changed = take_changes(&site).await;
    assert_eq!(changed.parent, Some(full.id));
    is_what_the_server_has(&site, &changed).await;
    let instance = site.raise(&changed, Target::Backup(changed.id.clone())).await;
    let copy = restored(&instance, "postgres").await;
    assert_eq!(contents(&copy).await, contents(&session).await, "{zeros} blocks of zeros");
    drop(copy);
    prove_sound(&site, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_stays_away_when_the_relation_grows_again() {
    truncated_and_grown(17).await;
    truncated_and_grown(18).await;
}

fn summaries(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.server.data().join("pg_wal/summaries")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A checkpoint, up to which there is a summary then.
async fn summarized(site: &Site, session: &Session) {
    let before = summaries(site).len();
    session.batch_execute("CHECKPOINT").await.unwrap();
    eventually("it is summarized", async || (summaries(site).len() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_read_where_the_summaries_do_not_reach() {
    let site = summarizing(17).await;
    let session = site.session().await;
    session.batch_execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 50000) n").await.unwrap();
    take(&site).await;
    let change = async || session.batch_execute("UPDATE t SET n = -n WHERE n % 777 = 0").await.unwrap();
    // Three backups: each is of all that there is.
    let all_read = async |beginning: &str| {
        let (taken, said) = take(&site).await;
        assert_eq!(taken.header.changed_only, None);
        assert!(said.len() == 1 && said[0].starts_with(beginning), "{said:?}");
        is_what_the_server_has(&site, &taken.header).await;
    };
    change().await;
    take_changes(&site).await;
    // One that was needed is gone, in the middle: the server says it.
    change().await;
    summarized(&site, &session).await;
    fs::remove_file(summaries(&site).last().unwrap()).unwrap();
    change().await;
    all_read("everything is read: by its summaries of the WAL the server cannot send only what changed")
        .await;
    take_changes(&site).await;
    // Those of the time before are gone.
    for _ in 0..2 {
        change().await;
        summarized(&site, &session).await;
    }
    let paths = summaries(&site);
    paths[..paths.len() - 1].iter().for_each(|path| fs::remove_file(path).unwrap());
    all_read("everything is read: the server has no summary of its WAL from").await;
    // It is time.
    take_changes(&site).await;
    site.days_pass(5);
    take_changes(&site).await;
    site.days_pass(2);
    all_read("everything is read, as once a week").await;
    take_changes(&site).await;
    // There are none.
    let site = Site::new(17).await;
    take(&site).await;
    let (taken, said) = take(&site).await;
    assert_eq!((taken.header.changed_only, said), (None, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_damaged_block_or_a_lost_map_is_sent_whole() {
    let mut site = summarizing(18).await;
    let session = site.session().await;
    for table in ["t", "u"] {
        let filled = format!("CREATE TABLE {table} AS SELECT n FROM generate_series(1, 50000) n");
        session.batch_execute(&filled).await.unwrap();
    }
    let path = path_of(&session, "t").await;
    drop(session);
    site.server.stop().await;
    flip(&site.server.data().join(&path), 2);
    site.server.start().await;
    let damaged = vec![DamagedBlock { path: path.clone(), block: 2 }];
    let (full, _) = take(&site).await;
    assert_eq!(full.header.damaged, damaged);
    let (second, _) = take(&site).await;
    assert!(second.header.changed_only.is_some());
    assert_eq!(second.header.damaged, damaged, "it still is");
    flip(&site.server.data().join(&path), 2);
    let third = take_changes(&site).await;
    assert_eq!(third.damaged, [], "somebody mended it, and no log tells of it");
    is_what_the_server_has(&site, &third).await;

    // The maps of nearly everything are gone.
    for pack in site.repository.store.list(&site.server.cluster().packs(&full.header.id)).await.unwrap() {
        site.repository.store.delete(&pack.name).await.unwrap();
    }
    let (fourth, _) = take(&site).await;
    assert!(fourth.header.changed_only.is_some());
    assert!(fourth.header.totals.added > fourth.header.totals.bytes / 2);
    is_what_the_server_has(&site, &fourth.header).await;
    let instance = site.raise(&fourth.header, Target::Backup(fourth.header.id.clone())).await;
    prove_sound(&site, instance).await;
}
