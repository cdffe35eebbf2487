//! A receiver of WAL as a test needs it: it keeps everything in memory.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::Path;

use obyra_postgres::Conninfo;
use obyra_postgres::cluster::TemporaryCluster;
use obyra_postgres::replication::{StandbyStatus, StartWal, WalEvent, Walsender};
use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};

use super::walsender;

/// Of every temporary cluster.
pub const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

const SLOT: &str = "receiver";

/// WAL from the beginning of the segment in which the server is, kept by a slot until it is received.
pub struct Receiver {
    walsender: Walsender,
    timeline: TimelineId,
    start: Lsn,
    pub bytes: Vec<u8>,
}

impl Receiver {
    pub async fn start(target: &Conninfo) -> Receiver {
        let mut walsender = walsender(target).await;
        walsender.create_physical_slot(SLOT, true, true).await.unwrap();
        let identity = walsender.identify_system().await.unwrap();
        let start = identity.position.segment_start(SIZE);
        Receiver { walsender, timeline: identity.timeline, start, bytes: Vec::new() }
    }

    /// Receives up to a position.
    pub async fn receive_until(&mut self, end: Lsn) {
        let (timeline, start) = (self.timeline, self.start);
        let wanted = StartWal { slot: Some(SLOT.to_owned()), timeline, start };
        let mut stream = self.walsender.start_wal(wanted).await.unwrap();
        let mut position = start;
        while position < end {
            match stream.next().await.unwrap() {
                WalEvent::Data { start, bytes, .. } => {
                    assert_eq!(start, position);
                    position += bytes.len() as u64;
                    self.bytes.extend_from_slice(&bytes);
                }
                WalEvent::KeepAlive { .. } => {
                    let status = StandbyStatus { written: position, flushed: position, applied: Lsn(0) };
                    stream.report(status).await.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Writes the segments, the last one filled up with zeros, for the server's user.
    pub fn write(&self, cluster: &TemporaryCluster, dir: &Path) {
        let owner = fs::metadata(cluster.dir().join("data")).unwrap();
        let mut segment = SegmentName::containing(self.start, self.timeline, SIZE);
        let bytes = usize::try_from(SIZE.bytes()).unwrap();
        for contents in self.bytes.chunks(bytes) {
            let mut contents = contents.to_vec();
            contents.resize(bytes, 0);
            let path = dir.join(segment.file_name(SIZE));
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
            segment = segment.next();
        }
    }
}
