//! When an extent is stored whole again although most of it is in the repository: so that restores stay
//! as fast as those of a full backup, and no byte has to last for ever.
//!
//! Pure. It costs the database nothing: a backup reads every block anyway.

use jiff::{SignedDuration, Timestamp};

use crate::repository::layout::{BLOCK, BackupId, FRAME_BLOCKS};
use crate::repository::map::Piece;

/// What is stored again, and how much of it at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Repacking {
    /// How many times the frames that an extent would need if it were stored whole it may be spread over.
    pub spread_max: u32,
    /// How old a stored block may become.
    pub age_max: SignedDuration,
    /// The most that one backup stores again for its age alone: so many of a thousand bytes.
    pub refreshed_per_mille: u32,
}

impl Default for Repacking {
    fn default() -> Self {
        Repacking { spread_max: 3, age_max: SignedDuration::from_hours(90 * 24), refreshed_per_mille: 20 }
    }
}

/// What is known of an extent before it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Blocks that are not all zeros.
    pub blocks: usize,
    /// Those that are new and will be stored now.
    pub changed: usize,
    /// The frames that hold the others.
    pub frames: usize,
    /// When the oldest pack that holds one of them was begun.
    pub oldest: Option<Timestamp>,
}

/// Why an extent is stored whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Reading it back would open too many frames for the little that is still wanted of each.
    Scattered,
    /// Some of it has been lying in the store for too long.
    Old,
}

/// Decides; `refreshable` is how many bytes this backup may still store again for their age alone.
pub fn repack(spread: &Spread, policy: &Repacking, now: Timestamp, refreshable: u64) -> Option<Reason> {
    if spread.frames == 0 {
        return None;
    }
    let ideal = spread.blocks.div_ceil(FRAME_BLOCKS);
    let frames = spread.frames + spread.changed.div_ceil(FRAME_BLOCKS);
    if frames > ideal.saturating_mul(policy.spread_max as usize) {
        return Some(Reason::Scattered);
    }
    let too_old = spread.oldest.is_some_and(|oldest| now.duration_since(oldest) > policy.age_max);
    let again = (spread.blocks - spread.changed) * BLOCK;
    (too_old && again as u64 <= refreshable).then_some(Reason::Old)
}

/// How an extent is spread over its parent's frames; `stays` tells which of its blocks are as they were.
/// `frames` is used again and again.
pub(super) fn spread(
    parent: &Piece,
    stays: impl Fn(usize) -> bool,
    frames: &mut Vec<(u16, u32)>,
) -> (usize, Option<Timestamp>) {
    frames.clear();
    let mut block = 0;
    for run in &parent.runs {
        let blocks = block..block + usize::from(run.blocks);
        block = blocks.end;
        if let Some(kept) = run.kept
            && blocks.into_iter().any(&stays)
        {
            frames.push((kept.pack, kept.frame.offset));
        }
    }
    frames.sort_unstable();
    frames.dedup();
    let packs = frames.iter().filter_map(|(pack, _)| parent.packs.get(usize::from(*pack)));
    // The names of backups sort by time.
    let oldest = packs.map(|pack| &pack.backup).min().and_then(BackupId::begun);
    (frames.len(), oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::PackId;
    use crate::repository::map::Kept;
    use crate::repository::pack::FrameAt;

    const POLICY: Repacking =
        Repacking { spread_max: 3, age_max: SignedDuration::from_hours(24), refreshed_per_mille: 20 };

    fn decide(blocks: usize, changed: usize, frames: usize, age_hours: i64) -> Option<Reason> {
        let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        let oldest = Some(now - SignedDuration::from_hours(age_hours));
        repack(&Spread { blocks, changed, frames, oldest }, &POLICY, now, 8 << 20)
    }

    #[test]
    fn what_is_compact_and_young_is_left_alone() {
        assert_eq!(decide(1024, 10, 32, 1), None);
        assert_eq!(decide(1024, 10, 95, 1), None);
        assert_eq!(decide(1024, 1024, 0, 0), None, "all of it is stored anyway");
        assert_eq!(decide(0, 0, 0, 0), None, "zeros");
        assert_eq!(decide(1, 0, 1, 1), None);
    }

    #[test]
    fn what_is_scattered_is_stored_whole() {
        assert_eq!(decide(1024, 10, 96, 1), Some(Reason::Scattered));
        assert_eq!(decide(40, 0, 7, 1), Some(Reason::Scattered));
    }

    #[test]
    fn what_is_old_is_stored_again_while_there_is_room_for_it() {
        assert_eq!(decide(1024, 10, 32, 25), Some(Reason::Old));
        let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        let oldest = Some(now - SignedDuration::from_hours(25));
        let spread = Spread { blocks: 1024, changed: 0, frames: 32, oldest };
        assert_eq!(repack(&spread, &POLICY, now, (8 << 20) - 1), None);
    }

    #[test]
    fn frames_are_counted_once_and_only_while_something_in_them_is_wanted() {
        let mut parent = Piece::default();
        let pack = |name: &str| PackId { backup: name.parse().unwrap(), sequence: 0 };
        let old = parent.pack(&pack("20261001T030000Z-00ab")).unwrap();
        let new = parent.pack(&pack("20261101T030000Z-00ab")).unwrap();
        let frame = FrameAt { offset: 56, stored: 9 };
        for (block, pack) in [old, new, new, old].into_iter().enumerate() {
            let offset = u32::try_from(block * 2 * BLOCK).unwrap();
            parent.push([1; 16], Some(Kept { pack, frame, offset }), 8192);
        }
        parent.push([0; 16], None, 8192);
        let begun = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let mut frames = Vec::new();
        assert_eq!(spread(&parent, |_| true, &mut frames), (2, begun("2026-10-01T03:00:00Z")));
        assert_eq!(spread(&parent, |n| n == 2, &mut frames), (1, begun("2026-11-01T03:00:00Z")));
        assert_eq!(spread(&parent, |n| n == 4, &mut frames), (0, None));
    }
}
