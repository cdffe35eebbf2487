//! Base backups: proven by PostgreSQL's own verification and by a server that starts from them.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};
use obyra_evidence::{Failure, text::replication as say};
use obyra_postgres::cluster::{MAJORS_FOR_TESTS, TemporaryCluster};
use obyra_postgres::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, Checkpoint, CompressionMethod, ServerCompression, TarEntries,
    TarEvent, Walsender,
};
use obyra_postgres::{ChannelBinding, Session};

use super::restored::{Restored, program};
use super::streams::Receiver;
use super::{ask, cluster, session, wait_until, wait_until_alone, walsender, written};

fn fast() -> BaseBackupOptions {
    BaseBackupOptions { checkpoint: Checkpoint::Fast, ..BaseBackupOptions::default() }
}

/// A folder for a tablespace.
fn folder(cluster: &TemporaryCluster, name: &str) -> PathBuf {
    let dir = cluster.dir().join(name);
    fs::create_dir(&dir).unwrap();
    let owner = fs::metadata(cluster.dir().join("data")).unwrap();
    chown(&dir, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    dir
}

/// Tables in three tablespaces, of more than one block of every archive.
async fn fill(cluster: &TemporaryCluster, sql: &Session) {
    for name in ["one", "two"] {
        let place = folder(cluster, name);
        sql.batch_execute(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display())).await.unwrap();
        sql.batch_execute(&format!(
            "CREATE TABLE t_{name} TABLESPACE {name} AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i"
        ))
        .await
        .unwrap();
    }
    sql.batch_execute(
        "CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 50000) i;
         CREATE TABLE t_from (v int) TABLESPACE one; CREATE TABLE t_to (v int);
         INSERT INTO t_from VALUES (0);
         CREATE VIEW transfers AS SELECT v FROM t_from UNION ALL SELECT v FROM t_to",
    )
    .await
    .unwrap();
}

const CONTENT: &str = "SELECT md5(string_agg(m, '' ORDER BY i)) FROM
    (SELECT i, md5 AS m FROM t_one UNION ALL SELECT i + 100000, md5 FROM t_two UNION ALL SELECT i + 200000, m FROM t) r";

#[tokio::test]
async fn a_backup_is_verified_and_starts_as_a_server() {
    for major in MAJORS_FOR_TESTS {
        let cluster = cluster(major, &[]).await;
        // In a task of its own, as a backup beside other work is.
        tokio::spawn(async move { verified(&cluster).await }).await.unwrap();
    }
}

async fn verified(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    fill(cluster, &sql).await;
    // Of the versions that speak the new protocol some go this way, some the other.
    let tls = cluster.installation().major.is_multiple_of(2);
    let bound = cluster.loopback().with_channel_binding(ChannelBinding::Require);
    let target = if tls { bound } else { cluster.admin() };
    let transfers = tokio::spawn(transfer(session(&cluster.admin()).await));
    let mut receiver = Receiver::start(&cluster.admin()).await;
    let mut sender = walsender(&target).await;
    let options = BaseBackupOptions { estimate_sizes: true, label: "it's \\ one".into(), ..fast() };
    let backup = written::write(cluster, &mut sender, &options).await;
    // The connection is ready for the next command.
    let identity = sender.identify_system().await.unwrap();
    assert_eq!((backup.start.1, backup.end.1), (identity.timeline, identity.timeline));
    assert!(backup.start.0 < backup.end.0 && backup.end.0 <= identity.position);
    assert_eq!((backup.corrupt.as_ref(), &backup.warnings[..]), (None, &[][..]));
    let label = fs::read_to_string(backup.data().join("backup_label")).unwrap();
    assert!(label.contains("LABEL: it's \\ one"), "{label}");

    let [one, two, base] = &backup.tablespaces[..] else { panic!("{:?}", backup.tablespaces) };
    assert_eq!((base.oid, base.location.as_str()), (None, ""));
    let mut places = [one, two].map(|t| Path::new(&t.location).file_name().unwrap());
    places.sort();
    assert_eq!(places, ["one", "two"]);
    assert!(one.size_estimate.unwrap() > 1 << 20 && base.size_estimate.unwrap() > 1 << 24);

    transfers.abort();
    receiver.receive_until(backup.end.0).await;
    receiver.write(cluster, &backup.data().join("pg_wal"));
    backup.link();
    verify(cluster, &backup.data());
    backup.remap();
    let expected = ask(&sql, CONTENT).await;
    let restored = Restored::start(&backup.data(), cluster, &[]).await;
    let restored = session(&restored.admin()).await;
    assert_eq!(ask(&restored, CONTENT).await, expected);
    assert_eq!(ask(&restored, "SELECT count(*) > 0 AND sum(v) = 0 FROM transfers").await, "true");
}

/// Moves amounts between tables in different tablespaces: in every consistent state they add up to zero.
async fn transfer(sql: Session) {
    loop {
        sql.batch_execute("BEGIN; INSERT INTO t_from VALUES (-1); INSERT INTO t_to VALUES (1); COMMIT")
            .await
            .unwrap();
    }
}

/// PostgreSQL's own verdict, with the WAL that recovery needs.
fn verify(cluster: &TemporaryCluster, data: &Path) {
    let owner = fs::metadata(data).unwrap();
    let mut command = program(cluster.installation(), "pg_verifybackup", (owner.uid(), owner.gid()));
    command.env("PATH", &cluster.installation().bin_dir);
    let output = command.arg("--exit-on-error").arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn damaged_pages_do_not_lose_the_backup() {
    for major in MAJORS_FOR_TESTS {
        damaged(&cluster(major, &[]).await).await;
    }
}

async fn damaged(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    sql.batch_execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 5000) i; CHECKPOINT")
        .await
        .unwrap();
    let relation = ask(&sql, "SELECT pg_relation_filepath('t')").await;
    let file = fs::File::options().write(true).open(cluster.dir().join("data").join(&relation)).unwrap();
    file.write_all_at(b"damage", 8192 + 5000).unwrap();
    let mut sender = walsender(&cluster.admin()).await;
    let backup = written::write(cluster, &mut sender, &fast()).await;
    let corrupt = backup.corrupt.as_ref().unwrap();
    assert!(corrupt.contains("XX001"), "{corrupt}");
    assert!(backup.warnings.iter().any(|words| words.contains(&relation)), "{:?}", backup.warnings);
    assert!(backup.end.0 > backup.start.0);
    assert!(backup.data().join(&relation).exists() && backup.data().join("backup_manifest").exists());

    let unchecked = BaseBackupOptions { verify_checksums: false, manifest: false, ..fast() };
    let backup = written::write(cluster, &mut sender, &unchecked).await;
    assert_eq!((backup.corrupt.as_ref(), backup.warnings.len()), (None, 0));
    sender.identify_system().await.unwrap();
}

#[tokio::test]
async fn a_backup_that_is_given_up_leaves_nothing_on_the_server() {
    for major in MAJORS_FOR_TESTS {
        given_up(&cluster(major, &[("checkpoint_timeout", "1h")]).await).await;
    }
}

async fn given_up(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    for target in [cluster.admin(), cluster.loopback()] {
        // Dropped in the middle of the data.
        let mut sender = walsender(&target).await;
        let mut backup = sender.base_backup(&fast()).await.unwrap();
        while !matches!(backup.next().await.unwrap().unwrap(), BackupEvent::ArchiveData(_)) {}
        drop(backup);
        let failure = sender.identify_system().await.unwrap_err();
        assert_eq!(failure.what.code(), say::BUSY);
        drop(sender);
        wait_until_alone(&sql).await;

        // Cancelled in the middle of the data: the connection is ready again.
        let mut sender = walsender(&target).await;
        let token = sender.cancel_token();
        let slow = BaseBackupOptions { max_rate_kb: Some(32), ..fast() };
        let mut backup = sender.base_backup(&slow).await.unwrap();
        while !matches!(backup.next().await.unwrap().unwrap(), BackupEvent::ArchiveData(_)) {}
        token.cancel().await.unwrap();
        assert!(failure_of(&mut backup).await.why.unwrap().contains("57014"));
        sender.identify_system().await.unwrap();

        // Cancelled while its checkpoint is spread over an hour.
        let dirt = "DROP TABLE IF EXISTS dirt; CREATE TABLE dirt AS SELECT generate_series(1, 300000)";
        sql.batch_execute(dirt).await.unwrap();
        let mut backup = sender.base_backup(&BaseBackupOptions::default()).await.unwrap();
        wait_until(
            &sql,
            "SELECT count(*) = 1 FROM pg_stat_activity
                   WHERE backend_type = 'walsender' AND wait_event LIKE 'Checkpoint%'",
        )
        .await;
        token.cancel().await.unwrap();
        assert!(failure_of(&mut backup).await.why.unwrap().contains("57014"));
        sender.close().await;
        wait_until_alone(&sql).await;
    }
}

/// Reads what is left until the failure comes.
async fn failure_of(backup: &mut BaseBackup<'_>) -> Failure {
    loop {
        match backup.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(failure) => return failure,
        }
    }
}

#[tokio::test]
async fn the_server_compresses_from_15_on() {
    for major in MAJORS_FOR_TESTS {
        compresses(&cluster(major, &[]).await).await;
    }
}

async fn compresses(cluster: &TemporaryCluster) {
    let mut sender = walsender(&cluster.admin()).await;
    for (method, name, magic) in [
        (CompressionMethod::Gzip, "base.tar.gz", &[0x1F, 0x8B][..]),
        (CompressionMethod::Lz4, "base.tar.lz4", &[0x04, 0x22, 0x4D, 0x18]),
        (CompressionMethod::Zstd, "base.tar.zst", &[0x28, 0xB5, 0x2F, 0xFD]),
    ] {
        let workers = (method == CompressionMethod::Zstd).then_some(2);
        let compression = Some(ServerCompression { method, level: Some(1), workers });
        let options = BaseBackupOptions { compression, ..fast() };
        if !sender.version().at_least(15) {
            let failure = sender.base_backup(&options).await.err().unwrap();
            assert_eq!(failure.what.code(), say::NEEDS_VERSION);
            continue;
        }
        let archives = archives(&mut sender, &options).await;
        let [(found, bytes)] = &archives[..] else { panic!("{} archives", archives.len()) };
        assert_eq!((found.as_str(), &bytes[..magic.len()]), (name, magic));
        if method == CompressionMethod::Gzip {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            assert!(names(plain).contains(&"global/pg_control".to_owned()));
        }
    }
    sender.identify_system().await.unwrap();
}

/// The archives of a backup, by name.
async fn archives(sender: &mut Walsender, options: &BaseBackupOptions) -> Vec<(String, Vec<u8>)> {
    let mut archives = Vec::new();
    let mut backup = sender.base_backup(options).await.unwrap();
    while let Some(event) = backup.next().await.unwrap() {
        match event {
            BackupEvent::ArchiveBegin { name, .. } => archives.push((name, Vec::new())),
            BackupEvent::ArchiveData(bytes) => archives.last_mut().unwrap().1.extend_from_slice(&bytes),
            _ => {}
        }
    }
    archives
}

/// The paths in an archive.
fn names(archive: Vec<u8>) -> Vec<String> {
    let mut entries = TarEntries::new();
    let mut names = Vec::new();
    entries.feed(archive.into());
    while let Some(event) = entries.next().unwrap() {
        if let TarEvent::Entry(entry) = event {
            names.push(entry.path.to_str().unwrap().to_owned());
        }
    }
    entries.finish().unwrap();
    names
}

#[tokio::test]
async fn increments_from_17_on() {
    for major in MAJORS_FOR_TESTS {
        let settings: &[(&str, &str)] = if major < 17 { &[] } else { &[("summarize_wal", "on")] };
        increments(&cluster(major, settings).await).await;
    }
}

async fn increments(cluster: &TemporaryCluster) {
    let sql = session(&cluster.admin()).await;
    let mut sender = walsender(&cluster.loopback()).await;
    let incremental = BaseBackupOptions { incremental: true, ..fast() };
    if !sender.version().at_least(17) {
        let failure = sender.base_backup(&incremental).await.err().unwrap();
        assert_eq!(failure.what.code(), say::NEEDS_VERSION);
        let failure = sender.upload_manifest(stream::empty()).await.unwrap_err();
        assert_eq!(failure.what.code(), say::NEEDS_VERSION);
        return;
    }
    sql.batch_execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 100000) i").await.unwrap();
    // Hint bits that are set later would be logged, as changes of every page.
    sql.batch_execute("CHECKPOINT").await.unwrap();
    sql.batch_execute("VACUUM t").await.unwrap();
    let full = written::write(cluster, &mut sender, &fast()).await;
    let manifest = fs::read(full.data().join("backup_manifest")).unwrap();
    sql.batch_execute("UPDATE t SET i = 0 WHERE i = 1").await.unwrap();

    // Nothing was uploaded yet; then half of it; then ours fails; then something else.
    let failure = sender.base_backup(&incremental).await.unwrap().next().await.unwrap_err();
    assert_eq!(failure.what.code(), say::BASE_BACKUP);
    let pieces =
        |bytes: &[u8]| stream::iter(bytes.chunks(1000).map(|c| Ok(c.to_vec().into())).collect::<Vec<_>>());
    let failure = sender.upload_manifest(pieces(&manifest[..manifest.len() / 2])).await.unwrap_err();
    assert_eq!(failure.what.code(), say::UPLOAD_MANIFEST);
    let broken =
        pieces(&manifest[..5000]).chain(stream::iter([Err(Failure::new(say::CANCEL.with("server", "x")))]));
    let failure = sender.upload_manifest(broken).await.unwrap_err();
    assert_eq!(failure.what.code(), say::CANCEL, "the stream's own failure");
    let failure = sender.upload_manifest(pieces(b"no manifest")).await.unwrap_err();
    assert_eq!(failure.what.code(), say::UPLOAD_MANIFEST);

    sender.upload_manifest(pieces(&manifest)).await.unwrap();
    let archives = archives(&mut sender, &incremental).await;
    let names = names(archives.into_iter().next().unwrap().1);
    let relation = ask(&sql, "SELECT pg_relation_filepath('t')").await;
    let changed = relation.replace("base/5/", "base/5/INCREMENTAL.");
    assert!(names.contains(&changed), "{changed}");
    assert!(!names.contains(&relation));
}
