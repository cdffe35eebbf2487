//! Twenty ways to die: whatever is killed and whenever, no commit that a client was told of is missing from
//! the archive. Commits wait for the archive, which is the synchronous standby.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};

use obyra_backup::wal::Archive;
use obyra_postgres::wal::{Lsn, TimelineId};
use tokio::task::JoinSet;

use super::receiver::{Receiver, SLOT};
use super::server::{Server, Setup};
use super::{Vault, eventually, export, lsn, mib};

/// The transactions whose commit was acknowledged.
type Acknowledged = Arc<Mutex<BTreeSet<u64>>>;

/// Commits until its connection breaks.
async fn commit(target: obyra_postgres::Conninfo, acknowledged: Acknowledged) {
    let Ok(session) = obyra_postgres::Session::connect(&target, obyra_postgres::Limits::patient()).await
    else {
        return;
    };
    let insert =
        "INSERT INTO t (words) VALUES (repeat('x', 200)) RETURNING pg_current_xact_id()::text::bigint";
    while let Ok(row) = session.query_one(insert, &[]).await {
        let transaction: i64 = row.get(0);
        acknowledged.lock().unwrap().insert(transaction.unsigned_abs());
    }
}

/// The transactions that the archive's WAL commits, from a position on, as PostgreSQL itself reads it.
async fn committed(archive: &Archive, server: &Server, from: Lsn) -> BTreeSet<u64> {
    let folder = tempfile::tempdir().unwrap();
    let names = export(archive, from, TimelineId::FIRST, mib(1), folder.path()).await;
    let mut waldump = waldump(server);
    waldump.arg("-p").arg(folder.path()).args(["--rmgr=Transaction", "--start", &from.to_string()]);
    waldump.args([names.first().unwrap(), names.last().unwrap()]);
    // It ends with a complaint about the end of the WAL, always.
    let said = String::from_utf8(waldump.output().unwrap().stdout).unwrap();
    let lines = said.lines().filter(|line| line.contains("desc: COMMIT"));
    lines.map(|line| number_after(line, "tx:")).collect()
}

fn number_after(line: &str, label: &str) -> u64 {
    let (_, rest) = line.split_once(label).unwrap();
    rest.trim_start().split(',').next().unwrap().parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test that lets PostgreSQL judge")]
fn waldump(server: &Server) -> Command {
    let mut command = Command::new(server.installation().bin_dir.join("pg_waldump"));
    if let Some(lib_dir) = &server.installation().lib_dir {
        command.env("LD_LIBRARY_PATH", lib_dir);
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_commit_is_lost_however_receiver_and_server_die() {
    let vault = Vault::new().await;
    let names = format!("synchronous_standby_names={SLOT}");
    let mut server = Server::start_new(Setup { settings: &[&names], ..Setup::default() }).await;
    let archive = vault.archive(&server);
    let mut receiver = Some(Receiver::start(&archive, &server.admin()));
    let from = {
        let session = server.session().await;
        session.batch_execute("CREATE TABLE t (id bigserial, words text)").await.unwrap();
        lsn(&session, "pg_current_wal_lsn()").await
    };
    let acknowledged = Acknowledged::default();
    for round in 0..20_usize {
        let receiver_now = receiver.take().unwrap_or_else(|| Receiver::start(&archive, &server.admin()));
        let before = acknowledged.lock().unwrap().len();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn(commit(server.admin(), acknowledged.clone()));
        }
        let wanted = before + 10 + round * 37 % 90;
        let enough = async || (acknowledged.lock().unwrap().len() >= wanted).then_some(());
        eventually("commits are acknowledged", enough).await;
        match round % 4 {
            0 => receiver_now.kill().await,
            1 => {
                server.kill();
                receiver_now.kill().await;
            }
            2 => {
                receiver_now.kill().await;
                server.kill();
            }
            _ => {
                server.kill();
                receiver = Some(receiver_now);
            }
        }
        clients.shutdown().await;
        let told = acknowledged.lock().unwrap().clone();
        let kept = committed(&archive, &server, from).await;
        let lost: Vec<_> = told.difference(&kept).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {} are lost", told.len());
        if round % 4 != 0 {
            server.start().await;
        }
    }
    assert!(acknowledged.lock().unwrap().len() > 20 * 10);
}
