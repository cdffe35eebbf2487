//! Every page is verified on its way into the repository. One that is damaged is named and kept: the backup
//! loses nothing, and what is on the disk is what it says.

use std::thread::sleep;
use std::time::Duration;

use super::pipeline::{Part, Shared};
use super::worker::Again;
use crate::page::{Page, Verdict, judge};

/// How often a page is read again that may have been read while it was written.
const AGAIN_MAX: u32 = 3;
/// A write of 8 KiB takes microseconds, unless its process is interrupted in the middle.
const AGAIN_AFTER: Duration = Duration::from_millis(2);
/// With more damage than this, nobody waits for pages to become sound.
const PATIENCE: usize = 1_000;

/// Verifies a block of an extent, given with its number there. A page that was torn is read again, into the
/// same place.
pub(super) fn verify(shared: &Shared, part: &Part, (number, block): (usize, &mut [u8]), again: Again<'_>) {
    let Some(first) = part.first_page else { return };
    // The last block of a file that is not made of whole pages is not a page.
    let Ok(page) = <&mut Page>::try_from(block) else { return };
    let in_relation = first.wrapping_add(number as u32);
    let mut verdict = judge(page, in_relation);
    if verdict == Verdict::Sound {
        return;
    }
    let patient = shared.census.lock().damaged.len() < PATIENCE;
    for _ in 0..AGAIN_MAX {
        if !patient || !again(number, page) {
            break;
        }
        verdict = judge(page, in_relation);
        if verdict == Verdict::Sound {
            return;
        }
        sleep(AGAIN_AFTER);
    }
    let in_file = part.extent * crate::repository::layout::EXTENT_BLOCKS + number as u32;
    let mut census = shared.census.lock();
    match verdict {
        Verdict::Sound => {}
        // The WAL since the start holds a full image of every page that was changed since.
        Verdict::Wrong { lsn } if lsn >= shared.start => census.suspect(part.file, in_file, lsn),
        Verdict::Wrong { .. } | Verdict::HalfNew => census.damaged(part.file, in_file),
    }
}
