//! A relation of more than one file: beyond a gigabyte PostgreSQL begins the next one, and the blocks in it
//! are numbered on.

use std::fs::{self, File};

use obyra_backup::restore::Target;
use obyra_backup::take::Options;
use obyra_evidence::Quiet;
use obyra_postgres::{Limits, Session};

use super::site::{Site, Way, ask, path_of, prove_sound};
use super::whole::Begun;

/// Bytes of a relation's first file.
const SEGMENT: u64 = 1 << 30;

/// No smaller relation has a second file. What a crash leaves of a relation that was being extended makes up for
/// what nobody has to write: pages that were only allocated, which take no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_of_more_than_a_gigabyte() {
    let mut site = Site::with(16, &["autovacuum=off", "shared_buffers=128MB"]).await;
    let session = site.session().await;
    // One row fills a block, and compresses to nothing.
    let rows = "INSERT INTO large SELECT n, rpad(md5(n::text), 7900, 'x') FROM generate_series";
    let begun = format!(
        "CREATE TABLE large (id int PRIMARY KEY, words text);
         ALTER TABLE large ALTER words SET STORAGE PLAIN;
         {rows}(1, 100) n"
    );
    session.batch_execute(&begun).await.unwrap();
    let path = path_of(&session, "large").await;
    drop(session);
    site.server.stop().await;
    let first = site.server.data().join(&path);
    File::options().write(true).open(&first).unwrap().set_len(SEGMENT).unwrap();
    site.server.start().await;
    let session = site.session().await;
    session.batch_execute(&format!("{rows}(101, 3000) n")).await.unwrap();
    // What is committed is written into each row now, and no more while the second backup runs.
    let contents = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(hashtext(words)::bigint) FROM large";
    ask(&session, contents).await;
    session.batch_execute("CHECKPOINT").await.unwrap();
    assert!(fs::metadata(first.with_extension("1")).unwrap().len() >= 2800 * 8192);

    let full = site.try_take(Way::Protocol, Options::default(), &Quiet).await.unwrap().header;
    assert_eq!((full.damaged.as_slice(), &full.server_complaint), (&[][..], &None));
    let begun = Begun::default();
    let slowly = Options { rate_max: Some(512 << 20), ..Options::default() };
    let (taken, ()) = tokio::join!(site.try_take(Way::Local, slowly, &begun), async {
        begun.reading.notified().await;
        let changed = "UPDATE large SET words = upper(words) WHERE id % 10 = 0;
             DELETE FROM large WHERE id % 900 = 7; CHECKPOINT";
        session.batch_execute(changed).await.unwrap();
    });
    let header = taken.unwrap().header;
    assert_eq!(header.damaged, []);
    assert!(header.totals.added < 12 << 20, "only what changed: {}", header.totals.added);
    let expected = ask(&session, contents).await;
    site.archive().await;
    let instance = site.raise(&header, Target::Latest).await;
    let admin = instance.restored.admin("postgres").unwrap();
    let copy = Session::connect(&admin, Limits::patient()).await.unwrap();
    assert_eq!(ask(&copy, contents).await, expected);
    drop(copy);
    prove_sound(&site, instance).await;
}
