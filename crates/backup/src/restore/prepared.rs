//! Prepared transactions that a backup holds although they were prepared after it began. Their WAL brings them
//! back, and PostgreSQL 17 and 18 lose them where their file is there as well: they warn "removing future
//! two-phase state file", leave it, and then take the record in the WAL for one that was restored already.
//!
//! Recovery counts a file as future by the next transaction of the checkpoint that it begins with
//! (src/backend/access/transam/twophase.c); so is it done here, before a server sees the file.

use obyra_postgres::wal::{Lsn, SegmentName, TimelineId, WalSegmentSize};

use super::moments::{PAGE, RECORD_HEADER, SHORT_HEADER};
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::layout::ClusterId;
use crate::wal::Archive;

const FOLDER: &str = "pg_twophase/";
/// From 17 on the names are numbers with their epoch. Before, the server sees to it.
const DIGITS: usize = 16;

/// Where `CheckPoint.nextXid` is in the record, behind the header and the two bytes of a short length; the same
/// from PostgreSQL 14 to 18.
const NEXT_XID: usize = RECORD_HEADER + 2 + 24;

/// The files that recovery is better off without; their paths.
pub(super) async fn surplus(
    repository: &Repository,
    cluster: ClusterId,
    manifest: &Manifest,
) -> Result<Vec<String>> {
    let files: Vec<(u64, &str)> = manifest.files.iter().filter_map(|file| prepared(&file.path)).collect();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let header = &manifest.header;
    let size = WalSegmentSize::new(header.cluster.wal_segment_bytes)?;
    let Some(checkpoint) = checkpoint(&header.backup_label) else { return Ok(Vec::new()) };
    let segment = SegmentName::containing(checkpoint, TimelineId(header.timeline), size);
    let Some(bytes) = Archive::new(repository, cluster).get_segment(segment, size).await? else {
        // Recovery will say what is missing.
        return Ok(Vec::new());
    };
    let at = usize::try_from(checkpoint.segment_offset(size)).unwrap_or(usize::MAX);
    let Some(next) = next_xid(&bytes, at) else { return Ok(Vec::new()) };
    Ok(files.into_iter().filter(|(xid, _)| *xid >= next).map(|(_, path)| path.to_owned()).collect())
}

/// The transaction that a file is of.
fn prepared(path: &str) -> Option<(u64, &str)> {
    let name = path.strip_prefix(FOLDER).filter(|name| name.len() == DIGITS)?;
    Some((u64::from_str_radix(name, 16).ok()?, path))
}

fn checkpoint(label: &str) -> Option<Lsn> {
    let line = label.lines().find_map(|line| line.strip_prefix("CHECKPOINT LOCATION: "))?;
    line.trim().parse().ok()
}

/// Of the checkpoint record at that offset of a segment.
fn next_xid(segment: &[u8], at: usize) -> Option<u64> {
    let head = record(segment, at, NEXT_XID + 8)?;
    let (info, manager) = (head[16] & 0xF0, head[17]);
    // XLOG_CHECKPOINT_SHUTDOWN or XLOG_CHECKPOINT_ONLINE, of RM_XLOG_ID, with data of a short length.
    let is_checkpoint = manager == 0 && matches!(info, 0x00 | 0x10) && head[RECORD_HEADER] == 255;
    let next = head.get(NEXT_XID..)?.first_chunk::<8>()?;
    is_checkpoint.then(|| u64::from_le_bytes(*next))
}

/// So many bytes of a record, which may go on in the next page of its segment.
fn record(segment: &[u8], at: usize, length: usize) -> Option<Vec<u8>> {
    let here = length.min(PAGE - at % PAGE);
    let mut bytes = segment.get(at..at.checked_add(here)?)?.to_vec();
    if here < length {
        let next = at + here + SHORT_HEADER;
        bytes.extend_from_slice(segment.get(next..next + length - here)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn online(next: u64) -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER];
        record[16] = 0x10;
        record.extend([255, 88]);
        record.extend([7; 24]);
        record.extend(next.to_le_bytes());
        record
    }

    #[test]
    fn the_next_transaction_of_a_checkpoint_wherever_it_lies() {
        for at in [SHORT_HEADER, PAGE - 8, PAGE - 40, PAGE - 56, PAGE - 58] {
            let record = online(0x1_0000_0375);
            let here = record.len().min(PAGE - at);
            let mut segment = vec![0; 2 * PAGE];
            segment[at..at + here].copy_from_slice(&record[..here]);
            let rest = &record[here..];
            segment[PAGE + SHORT_HEADER..PAGE + SHORT_HEADER + rest.len()].copy_from_slice(rest);
            assert_eq!(next_xid(&segment, at), Some(0x1_0000_0375), "at {at}");
            segment[at + 17.min(here - 1)] = 9;
            assert!(here <= 17 || next_xid(&segment, at).is_none(), "another record at {at}");
        }
        assert_eq!(next_xid(&[0; 100], 90), None);
        assert_eq!(next_xid(&[], usize::MAX), None);
    }

    #[test]
    fn names_of_17_and_later_only() {
        let file = "pg_twophase/0000000000000375";
        assert_eq!(prepared(file), Some((0x375, file)));
        assert_eq!(prepared("pg_twophase/00000375"), None);
        assert_eq!(prepared("base/0000000000000375"), None);
        let label =
            "START WAL LOCATION: 0/4C00160 (file 00000001000000000000004C)\nCHECKPOINT LOCATION: 0/4D0E360\n";
        assert_eq!(checkpoint(label), Some(Lsn(0x4D0_E360)));
    }
}
