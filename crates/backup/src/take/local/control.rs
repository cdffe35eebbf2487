//! `global/pg_control`, read whole although the server may write it at the same moment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::thread::sleep;
use std::time::Duration;

use crc_fast::{CrcAlgorithm, checksum};

/// Where it is in the data directory.
pub(super) const PATH: &str = "global/pg_control";

/// The file's length; what is in it is much shorter.
const BYTES: usize = 8192;
/// Where its checksum, the last of its fields, may be: it moved with versions.
const CHECKSUM_AT: std::ops::Range<usize> = 200..512;
/// The server writes it in one go: a second look is enough, unless its process is held in the middle.
const LOOKS: u32 = 200;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Reads it into a buffer of the file's length; false if it was never whole.
pub(super) fn read(file: &File, into: &mut [u8]) -> io::Result<bool> {
    for _ in 0..LOOKS {
        file.read_exact_at(into, 0)?;
        if is_whole(into) {
            return Ok(true);
        }
        sleep(LOOK_AGAIN);
    }
    Ok(false)
}

/// Whether its checksum is right: the CRC-32C of the fields before it. Behind it are zeros.
fn is_whole(control: &[u8]) -> bool {
    let filled = control.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let is_checksum = |at: &usize| {
        let stored = control[*at..*at + 4].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        checksum(CrcAlgorithm::Crc32Iscsi, &control[..*at]) == stored
    };
    let may_be_at = |at: &usize| CHECKSUM_AT.contains(at) && at + 4 >= filled;
    control.len() == BYTES && (0..filled).step_by(4).filter(may_be_at).any(|at| is_checksum(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_control_file_is_noticed() {
        let mut control = vec![0; BYTES];
        for (at, byte) in control[..292].iter_mut().enumerate() {
            *byte = at as u8 | 1;
        }
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &control[..292]) as u32;
        control[292..296].copy_from_slice(&sum.to_le_bytes());
        assert!(is_whole(&control));
        for at in (0..296).step_by(3) {
            control[at] ^= 8;
            assert!(!is_whole(&control), "byte {at}");
            control[at] ^= 8;
        }
        assert!(!is_whole(&control[..512]), "cut");
        assert!(!is_whole(&[0; BYTES]));
    }
}
