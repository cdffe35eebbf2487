//! `archive_command` and `restore_command`, run by real servers: this test program is the command.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::store::Store;
use obyra_backup::wal::{Archive, Fetched, Put, cluster_of, fetch, fetch_exit_code, push};
use obyra_evidence::{Exit, text};
use obyra_postgres::secrecy::{ExposeSecret as _, SecretString};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalFileName};

use super::receiver::Receiver;
use super::server::{Server, Setup};
use super::streams::load;
use super::{Vault, ask, eventually, lsn, mib, wait_until};

/// Set in the command: the verb, the folder of the repository, and what the server put for `%f` and `%p`.
const VARIABLE: &str = "OBYRA_TEST_WAL";

/// Not a test but the command, when a server runs it.
#[test]
fn command() {
    let Ok(arguments) = env::var(VARIABLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let words: Vec<&str> = arguments.split(' ').collect();
    let open = async |folder: &str| {
        let identity = fs::read_to_string(Path::new(folder).with_extension("key")).unwrap();
        let store = Store::folder(Path::new(folder))?;
        let repository = Repository::open(store, &Unlock::read(SecretString::from(identity))).await?;
        Ok(Archive::new(&repository, cluster_of(Path::new("."))?))
    };
    let code = runtime.block_on(async {
        match words[..] {
            ["push", folder, path] => {
                let pushed = async { push(&open(folder).await?, Path::new(path)).await };
                u8::from(pushed.await.is_err())
            }
            ["fetch", folder, name, path] => {
                let fetched = async { fetch(&open(folder).await?, name, Path::new(path)).await };
                fetch_exit_code(&fetched.await, Path::new("."))
            }
            _ => 64,
        }
    });
    #[expect(clippy::exit, reason = "the exit code is what the server reads")]
    std::process::exit(code.into());
}

/// A vault in a server's room, where the server's user can write, and the program that is its command.
struct Desk {
    vault: Vault,
    program: PathBuf,
}

impl Desk {
    async fn new(server: &Server) -> Desk {
        let vault = Vault::new().await;
        let program = vault.folder().with_extension("program");
        fs::copy(env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(vault.folder().parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
        let Unlock::Identity(identity) = &vault.unlock else { panic!("an identity") };
        let key = vault.folder().with_extension("key");
        fs::write(&key, identity.expose_secret()).unwrap();
        let desk = Desk { vault, program };
        desk.give_to(server.owner());
        chown(&key, Some(server.owner().0), Some(server.owner().1)).unwrap();
        desk
    }

    /// All that is in the repository belongs to the server's user.
    fn give_to(&self, (uid, gid): (u32, u32)) {
        let mut folders = vec![self.vault.folder()];
        while let Some(folder) = folders.pop() {
            chown(&folder, Some(uid), Some(gid)).unwrap();
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                chown(&path, Some(uid), Some(gid)).unwrap();
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
    }

    fn command(&self, verb: &str, rest: &str) -> String {
        let folder = self.vault.folder();
        format!(
            "{VARIABLE}=\"{verb} {} {rest}\" {} --exact commands::command --nocapture",
            folder.display(),
            self.program.display()
        )
    }

    fn archive_command(&self) -> String {
        self.command("push", "%p")
    }

    fn restore_command(&self) -> String {
        self.command("fetch", "%f %p")
    }
}

/// A copy that recovers by this command.
fn recovering(copy: &Server, restore_command: &str) {
    copy.write("postgresql.auto.conf", &format!("restore_command = '{restore_command}'\n"));
    copy.write("recovery.signal", "");
    // The WAL that pg_basebackup brought along is not what this is about.
    for entry in fs::read_dir(copy.wal("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}

async fn rows(server: &Server) -> String {
    let rows = "SELECT count(*) || ' ' || sum(hashtext(words))::text FROM load";
    ask(&server.session().await, rows).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_archives_by_it_and_another_recovers_by_it() {
    let mut server = Server::start_new(Setup { settings: &["archive_mode=on"], ..Setup::default() }).await;
    let desk = Desk::new(&server).await;
    let archive = desk.vault.archive(&server);
    load(&server, 1).await;
    let session = server.session().await;
    let set = |command: &str| format!("ALTER SYSTEM SET archive_command = '{command}'");
    // A backlog first, so that it is archived in batches.
    session.batch_execute(&set("false")).await.unwrap();
    let mut copy = Server::copy_of(&server, &[]);
    load(&server, 40).await;
    session.batch_execute(&set(&desk.archive_command())).await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let last = ask(&session, "pg_walfile_name(pg_switch_wal())").await;
    wait_until(
        &session,
        &format!("SELECT coalesce(last_archived_wal, '') >= '{last}' FROM pg_stat_archiver"),
    )
    .await;
    assert!(
        super::compare(&archive, &server, TimelineId::FIRST, mib(1)).await >= 3,
        "of what is still there"
    );
    let backup = fs::read_dir(desk.vault.folder().join(server.cluster().wal(1))).unwrap();
    let backup =
        backup.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "backup"));
    assert_eq!(backup.count(), 1, "the file that tells of the base backup");
    let marks = server.wal("obyra-db");
    let left = fs::read_dir(marks).map_or(0, Iterator::count);
    assert!(left <= 32, "{left} marks are left");
    let written = rows(&server).await;
    server.stop().await;

    recovering(&copy, &desk.restore_command());
    copy.start().await;
    let on_copy = copy.session().await;
    wait_until(&on_copy, "SELECT NOT pg_is_in_recovery()").await;
    assert_eq!(rows(&copy).await, written);
    assert!(!copy.wal("obyra-db").exists() || fs::read_dir(copy.wal("obyra-db")).unwrap().count() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_takes_the_unfinished_segment_from_its_parts() {
    let server = Server::start_new(Setup::default()).await;
    let desk = Desk::new(&server).await;
    let archive = desk.vault.archive(&server);
    let receiver = Receiver::start(&archive, &server.admin());
    load(&server, 1).await;
    let mut copy = Server::copy_of(&server, &[]);
    load(&server, 5).await;
    let session = server.session().await;
    receiver.has(lsn(&session, "pg_current_wal_flush_lsn()").await).await;
    receiver.stop().await;
    desk.give_to(server.owner());
    recovering(&copy, &desk.restore_command());
    copy.start().await;
    wait_until(&copy.session().await, "SELECT NOT pg_is_in_recovery()").await;
    assert_eq!(rows(&copy).await, rows(&server).await);
}

/// Whether a copy of a server comes up, or gives up, when its `restore_command` is this.
async fn comes_up(origin: &Server, restore_command: &str) -> bool {
    // Enough WAL of its own that the backup is consistent without the archive.
    let mut copy = Server::copy_of(origin, &[]);
    copy.write("postgresql.auto.conf", &format!("restore_command = '{restore_command}'\n"));
    copy.write("recovery.signal", "");
    copy.spawn();
    let ended = eventually("it comes up or ends", async || {
        if copy.has_ended() {
            return Some(false);
        }
        let session =
            obyra_postgres::Session::connect(&copy.admin(), obyra_postgres::Limits::default()).await;
        let session = session.ok()?;
        (ask(&session, "NOT pg_is_in_recovery()").await == "true").then_some(true)
    });
    ended.await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_no_end_of_the_wal() {
    let server = Server::start_new(Setup::default()).await;
    // What PostgreSQL makes of exit codes: up to 125 is "there is no more", above it is "give up".
    for (command, up) in [
        ("exit 1", true),
        ("exit 125", true),
        ("exit 126", false),
        ("exit 255", false),
        ("kill -KILL $$", false),
    ] {
        assert_eq!(comes_up(&server, command).await, up, "{command}");
    }
    // The real command, with a repository and without it.
    let desk = Desk::new(&server).await;
    assert!(comes_up(&server, &desk.restore_command()).await, "absent is absent");
    let away = desk.vault.folder().with_extension("away");
    fs::rename(desk.vault.folder(), &away).unwrap();
    assert!(!comes_up(&server, &desk.restore_command()).await, "away is not absent");
    fs::rename(&away, desk.vault.folder()).unwrap();
    assert!(comes_up(&server, &desk.restore_command()).await);

    let failed = Err(obyra_evidence::Failure::new(text::backup::STORE_FAILED));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(fetch_exit_code(&failed, folder.path()), 255);
    fs::write(folder.path().join("standby.signal"), "").unwrap();
    assert_eq!(fetch_exit_code(&failed, folder.path()), 1, "a standby asks again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_archived_with_its_history_and_the_partial_segment() {
    let server = Server::start_new(Setup { settings: &["archive_mode=on"], ..Setup::default() }).await;
    let desk = Desk::new(&server).await;
    let archive = desk.vault.archive(&server);
    load(&server, 1).await;
    let standby = Server::standby_of(&server, &["archive_mode=on"]).await;
    let session = standby.session().await;
    // The backup ended with a switch of segments; the timeline is to be left in the middle of one.
    load(&server, 1).await;
    let flushed = lsn(&server.session().await, "pg_current_wal_flush_lsn()").await;
    wait_until(&session, &format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'")).await;
    let set = format!("ALTER SYSTEM SET archive_command = '{}'", desk.archive_command());
    session.batch_execute(&set).await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_until(&session, "SELECT pg_promote()").await;
    wait_until(&session, "SELECT coalesce(last_archived_wal, '') LIKE '%.partial' FROM pg_stat_archiver")
        .await;
    let partial = ask(&session, "SELECT last_archived_wal FROM pg_stat_archiver").await;
    let kept =
        archive.get_file(WalFileName::parse(&partial, mib(1)).unwrap(), mib(1)).await.unwrap().unwrap();
    assert_eq!(kept, fs::read(standby.wal(&partial)).unwrap());
    let history = archive.get_history(TimelineId(2)).await.unwrap().unwrap();
    assert_eq!(history.parent(), Some(TimelineId::FIRST));
    // It is nobody's complete segment.
    let whole = SegmentName::containing(history.begin(), TimelineId::FIRST, mib(1));
    assert_eq!(archive.get_segment(whole, mib(1)).await.unwrap(), None);
    let to = standby.room().join("fetched");
    assert_eq!(fetch(&archive, &whole.file_name(mib(1)), &to).await.unwrap(), Fetched::Absent);
    assert_eq!(fetch(&archive, "00000002.history", &to).await.unwrap(), Fetched::Written);
    assert_eq!(fs::read(&to).unwrap(), fs::read(standby.wal("00000002.history")).unwrap());
    assert_eq!(fetch(&archive, "00000003.history", &to).await.unwrap(), Fetched::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_this_clusters_wal_is_refused_and_named() {
    let vault = Vault::new().await;
    let (server, other) =
        (Server::start_new(Setup::default()).await, Server::start_new(Setup::default()).await);
    let archive = vault.archive(&server);
    assert_eq!(cluster_of(&server.data()).unwrap(), server.cluster());
    let session = server.session().await;
    let first = ask(&session, "pg_walfile_name(pg_switch_wal())").await;
    let theirs = ask(&other.session().await, "pg_walfile_name(pg_switch_wal())").await;
    let refused = push(&archive, &other.wal(&theirs)).await.unwrap_err();
    assert_eq!((refused.exit, refused.what.code()), (Exit::Refused, text::backup::WAL_OTHER_CLUSTER));
    assert_eq!(refused.what.fields()["file"], theirs);

    assert!(matches!(push(&archive, &server.wal(&first)).await.unwrap().put, Put::New(_)));
    assert_eq!(push(&archive, &server.wal(&first)).await.unwrap().put, Put::Existed, "again is fine");
    // The same name with another content.
    let folder = tempfile::tempdir().unwrap();
    let forged = folder.path().join(&first);
    let mut content = fs::read(server.wal(&first)).unwrap();
    content[100] ^= 1;
    fs::write(&forged, &content).unwrap();
    let refused = push(&archive, &forged).await.unwrap_err();
    assert_eq!((refused.exit, refused.what.code()), (Exit::Refused, text::backup::WAL_TWO_WRITERS));
    for (name, content) in [
        ("000000010000000000000099", content.clone()),
        ("nonsense", content.clone()),
        (&*first, content[..1000].to_vec()),
        ("00000002.history", b"nonsense".to_vec()),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        assert!(push(&archive, &path).await.is_err(), "{name}");
    }
    assert!(push(&archive, &server.wal("000000010000000000000088")).await.is_err(), "no such file");
}

/// A recovery along timeline 2 whose first segment is lost would be given timeline 1's, with what never
/// happened on 2: it gets it only up to where 2 branched off.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_not_given_beyond_a_branch_whose_own_segment_is_lost() {
    let (vault, size) = (Vault::new().await, mib(1));
    let server = Server::start_new(Setup::default()).await;
    let archive = vault.archive(&server);
    let receiver = Receiver::start(&archive, &server.admin());
    load(&server, 1).await;
    let end = lsn(&server.session().await, "pg_current_wal_flush_lsn()").await;
    receiver.has(end).await;
    receiver.stop().await;
    let segment = SegmentName::containing(end, TimelineId::FIRST, size);
    let parts = archive.get_parts(segment, size).await.unwrap();
    let to = server.room().join("fetched");
    let name = segment.file_name(size);
    assert_eq!(fetch(&archive, &name, &to).await.unwrap(), Fetched::Written);
    let given = fs::read(&to).unwrap();
    assert_eq!(given.len() as u64, size.bytes());
    assert!(given[..parts.len()] == parts && given[parts.len()..].iter().all(|byte| *byte == 0));

    let branch = Lsn(segment.start(size).0 + 8192 + 104);
    assert!(branch < end);
    let history = format!("1\t{branch}\tno recovery target specified\n");
    archive.put_history(TimelineId(2), history.into()).await.unwrap();
    assert_eq!(fetch(&archive, &name, &to).await.unwrap(), Fetched::Written);
    let given = fs::read(&to).unwrap();
    assert!(given[..8192 + 104] == parts[..8192 + 104] && given[8192 + 104..].iter().all(|byte| *byte == 0));

    // With the new timeline's segment in the archive, who asks for the old one's is on the old one.
    let part = obyra_backup::wal::Part {
        segment: SegmentName { timeline: TimelineId(2), ..segment },
        from: 0,
        to: 8192,
    };
    archive.put_part(part, size, Bytes::copy_from_slice(&parts[..8192])).await.unwrap();
    assert_eq!(fetch(&archive, &name, &to).await.unwrap(), Fetched::Written);
    assert!(fs::read(&to).unwrap()[..parts.len()] == parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_fetched_before_they_are_asked_for() {
    let (vault, size) = (Vault::new().await, mib(1));
    let server = Server::start_new(Setup { settings: &["wal_keep_size=1GB"], ..Setup::default() }).await;
    let archive = vault.archive(&server);
    load(&server, 6).await;
    let last = ask(&server.session().await, "pg_walfile_name(pg_switch_wal())").await;
    let last = SegmentName::parse(&last, size).unwrap();
    let first = fs::read_dir(server.wal("")).unwrap().filter_map(|entry| {
        SegmentName::parse(entry.unwrap().file_name().to_str().unwrap(), size).map(|segment| segment.number)
    });
    let first = first.min().unwrap();
    for number in first..=last.number {
        push(&archive, &server.wal(&SegmentName { number, ..last }.file_name(size))).await.unwrap();
    }
    let room = tempfile::tempdir().unwrap();
    let to = room.path().join("RECOVERYXLOG");
    let spool = room.path().join("obyra-db");
    for number in first..=last.number {
        let name = SegmentName { number, ..last }.file_name(size);
        let spooled = spool.join(&name).exists();
        assert_eq!(spooled, number > first, "{number}");
        assert_eq!(fetch(&archive, &name, &to).await.unwrap(), Fetched::Written);
        assert!(fs::read(&to).unwrap() == fs::read(server.wal(&name)).unwrap());
        // One that is kept is not asked of the archive again.
        if number == first + 1 {
            fs::remove_dir_all(vault.folder().join(server.cluster().folder())).unwrap();
        }
    }
    assert_eq!(fetch(&archive, &last.next().file_name(size), &to).await.unwrap(), Fetched::Absent);
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
    // What lies there of another cluster is not given.
    let other = Server::start_new(Setup::default()).await;
    let theirs = ask(&other.session().await, "pg_walfile_name(pg_switch_wal())").await;
    fs::copy(other.wal(&theirs), spool.join(&theirs)).unwrap();
    assert_eq!(fetch(&archive, &theirs, &to).await.unwrap(), Fetched::Absent);
}
