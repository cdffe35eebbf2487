//! The WAL archive on real servers: received, pushed and fetched, through crashes, failovers and gaps.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]
#![allow(clippy::print_stderr, reason = "what a server said when a test fails")]

mod backups;
mod commands;
mod faults;
mod faulty;
mod gaps;
mod losses;
mod receiver;
mod server;
mod streams;
mod timelines;

use std::fs;
use std::path::{Path, PathBuf};

use obyra_backup::repository::Repository;
use obyra_backup::repository::keys::Unlock;
use obyra_backup::repository::store::Store;
use obyra_backup::wal::Archive;
use obyra_postgres::Session;
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use server::{Server, eventually};
use tempfile::TempDir;

/// A repository in a folder.
struct Vault {
    folder: TempDir,
    repository: Repository,
    unlock: Unlock,
}

impl Vault {
    async fn new() -> Vault {
        let folder = tempfile::Builder::new().prefix("obyra-wal-").tempdir().unwrap();
        let store = Store::folder(&folder.path().join("repository")).unwrap();
        let unlock = Unlock::generate();
        let repository = Repository::open_or_create(store, &unlock).await.unwrap();
        Vault { folder, repository, unlock }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn archive(&self, server: &Server) -> Archive {
        Archive::new(&self.repository, server.cluster())
    }
}

fn mib(count: u64) -> WalSegmentSize {
    WalSegmentSize::new(count << 20).unwrap()
}

/// The one value that a query asks for, as text.
async fn ask(session: &Session, query: &str) -> String {
    session.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap().get(0)
}

async fn lsn(session: &Session, query: &str) -> Lsn {
    ask(session, query).await.parse().unwrap()
}

/// Waits until a query says `true`.
async fn wait_until(session: &Session, condition: &str) {
    eventually(condition, async || (ask(session, condition).await == "true").then_some(())).await;
}

/// Writes the WAL that an archive has of a timeline, from a position on, as files into a folder: what is there
/// in parts with zeros behind it. Returns the names.
async fn export(
    archive: &Archive,
    from: Lsn,
    timeline: TimelineId,
    size: WalSegmentSize,
    to: &Path,
) -> Vec<String> {
    let mut names = Vec::new();
    let mut segment = SegmentName::containing(from, timeline, size);
    loop {
        let content = match archive.get_segment(segment, size).await.unwrap() {
            Some(content) => content,
            None => archive.get_parts(segment, size).await.unwrap(),
        };
        if content.is_empty() {
            return names;
        }
        let mut content = content.to_vec();
        content.resize(usize::try_from(size.bytes()).unwrap(), 0);
        let name = segment.file_name(size);
        fs::write(to.join(&name), content).unwrap();
        names.push(name);
        segment = segment.next();
    }
}

/// Every complete segment that both have is the same in the archive and in a server's `pg_wal`; returns how
/// many those are.
async fn compare(archive: &Archive, server: &Server, timeline: TimelineId, size: WalSegmentSize) -> usize {
    let index = archive.index(size).await.unwrap();
    let mut compared = 0;
    for stretch in &index.timelines()[&timeline].stretches {
        let mut segment = SegmentName::containing(stretch.from, timeline, size);
        while segment.end(size) <= stretch.to {
            let archived = archive.get_segment(segment, size).await.unwrap();
            let written = fs::read(server.wal(&segment.file_name(size))).ok();
            if let (Some(archived), Some(written)) = (archived, written) {
                assert!(archived == written, "{} differs", segment.file_name(size));
                compared += 1;
            }
            segment = segment.next();
        }
    }
    compared
}
