//! A relation of more than one file: beyond a gigabyte PostgreSQL begins the next one, and the blocks in it
//! are numbered on.

use std::fs;

use obyra_backup::restore::Target;
use obyra_backup::take::Options;
use obyra_evidence::Quiet;
use obyra_postgres::{Limits, Session};

use super::site::{Site, Way, ask, prove_sound};
use super::whole::Begun;

/// Blocks of the first file.
const SEGMENT_BLOCKS: usize = 131_072;

/// One row fills a block, and compresses to nothing. It writes a gigabyte twice, reads it four times, and
/// restores it: half a minute, since no smaller relation has a second file.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_of_more_than_a_gigabyte() {
    let site = Site::with(16, &["wal_keep_size=64MB", "max_wal_size=256MB", "shared_buffers=128MB"]).await;
    let session = site.session().await;
    let rows = SEGMENT_BLOCKS + 3000;
    let filled = format!(
        "CREATE TABLE large (id int, words text);
         ALTER TABLE large ALTER words SET STORAGE PLAIN;
         INSERT INTO large SELECT n, rpad(md5(n::text), 7900, 'x') FROM generate_series(1, {rows}) n;
         CREATE UNIQUE INDEX ON large (id)"
    );
    session.batch_execute(&filled).await.unwrap();
    // What is committed is written into each row now, and no more while the second backup runs.
    session.batch_execute("VACUUM large").await.unwrap();
    session.batch_execute("CHECKPOINT").await.unwrap();
    let path = ask(&session, "SELECT pg_relation_filepath('large')").await;
    let second = site.server.data().join(format!("{path}.1"));
    assert!(fs::metadata(&second).unwrap().len() >= 3000 * 8192);

    let first = site.try_take(Way::Protocol, Options::default(), &Quiet).await.unwrap().header;
    assert_eq!((first.damaged.as_slice(), &first.server_complaint), (&[][..], &None));
    let begun = Begun::default();
    let slowly = Options { rate_max: Some(512 << 20), ..Options::default() };
    let (taken, ()) = tokio::join!(site.try_take(Way::Local, slowly, &begun), async {
        begun.reading.notified().await;
        let changed = format!(
            "UPDATE large SET words = upper(words) WHERE id > {SEGMENT_BLOCKS} AND id % 10 = 0;
             DELETE FROM large WHERE id % 9000 = 7; CHECKPOINT"
        );
        session.batch_execute(&changed).await.unwrap();
    });
    let header = taken.unwrap().header;
    assert_eq!(header.damaged, []);
    assert!(header.totals.added < 64 << 20, "only what changed: {}", header.totals.added);
    let contents = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(hashtext(words)::bigint) FROM large";
    let expected = ask(&session, contents).await;
    site.archive().await;
    let instance = site.raise(&header, Target::Latest).await;
    let admin = instance.restored.admin("postgres").unwrap();
    let copy = Session::connect(&admin, Limits::patient()).await.unwrap();
    assert_eq!(ask(&copy, contents).await, expected);
    drop(copy);
    prove_sound(&site, instance).await;
}
