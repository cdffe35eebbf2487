//! PostgreSQL's pages: their header, their checksum, and the files that are made of them.
//!
//! Pure: bytes and names in, facts out. The layout is that of
//! <https://www.postgresql.org/docs/current/storage-page-layout.html>, the same from 14 to 18.

use obyra_postgres::wal::Lsn;

use crate::repository::layout::BLOCK;

/// A page as it lies in a file.
pub type Page = [u8; BLOCK];

/// Where `pd_checksum` is in the header.
const CHECKSUM_AT: usize = 8;
/// Where `pd_upper` is.
const UPPER_AT: usize = 14;

/// Sums that run beside each other in a page's checksum.
const LANES: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
/// Where each sum begins (`checksumBaseOffsets` of `storage/checksum_impl.h`).
#[rustfmt::skip]
const BASES: [u32; LANES] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

/// What a page's own checksum says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum is right, or the page is all zeros, as one that was only allocated.
    Sound,
    /// The header is that of an allocated page, yet there are bytes behind it: half of a page that was
    /// being written for the first time, or damage.
    HalfNew,
    /// The checksum is wrong: damage, or a page that was read while it was written.
    Wrong {
        /// What the page says of its last change. Full-page images of the WAL mend pages that were
        /// changed since a backup began.
        lsn: Lsn,
    },
}

/// Judges a page by its checksum; `block` is its number in the relation, over all segments.
pub fn judge(page: &Page, block: u32) -> Verdict {
    if is_new(page) {
        return if page.iter().all(|byte| *byte == 0) { Verdict::Sound } else { Verdict::HalfNew };
    }
    if stored_checksum(page) == checksum(page, block) {
        Verdict::Sound
    } else {
        Verdict::Wrong { lsn: lsn(page) }
    }
}

/// The position after the WAL record of the page's last logged change (`pd_lsn`).
pub fn lsn(page: &Page) -> Lsn {
    // Two halves of four bytes each in the machine's order, the high one first.
    let half =
        |at: usize| u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    Lsn(half(0) << 32 | half(4))
}

/// Whether the page was allocated and never written (`pd_upper` is zero, as `PageIsNew` has it).
pub fn is_new(page: &Page) -> bool {
    page[UPPER_AT..UPPER_AT + 2] == [0, 0]
}

/// The checksum that the page carries.
pub fn stored_checksum(page: &Page) -> u16 {
    u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]])
}

/// The checksum that the page should carry (`pg_checksum_page`): never zero.
pub fn checksum(page: &Page, block: u32) -> u16 {
    const ROW: usize = 4 * LANES;
    let (rows, _) = page.as_chunks::<ROW>();
    let mut sums = BASES;
    // The checksum's own place counts as zero.
    let mut first = rows[0];
    first[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    add_row(&mut sums, &first);
    rows[1..].iter().for_each(|row| add_row(&mut sums, row));
    add_row(&mut sums, &[0; ROW]);
    add_row(&mut sums, &[0; ROW]);
    let sum = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Without the bias, one of 65,536 pages would seem to have none.
    (sum % 65_535) as u16 + 1
}

/// One step of FNV-1a with a shift mixed in, in every lane: the compiler makes vector instructions of it.
#[inline(always)]
fn add_row(sums: &mut [u32; LANES], row: &[u8; 4 * LANES]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

/// Which of a relation's files one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fork {
    /// The rows or index entries.
    Main,
    /// The free space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation is reset to.
    Init,
}

/// A file that is made of pages: a segment of a fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationFile<'a> {
    /// The relation's file number, with the backend that owns it if it is temporary: `16384`, `t3_16384`.
    pub number: &'a str,
    /// Whether it is a temporary table's.
    pub temporary: bool,
    /// Which fork.
    pub fork: Fork,
    /// Which segment, from 0.
    pub segment: u32,
}

impl<'a> RelationFile<'a> {
    /// What a path relative to the data directory names; `None` if that is no relation's file.
    /// Tablespaces are `pg_tblspc/<oid>/PG_<version>/<database>/<file>`.
    pub fn of(path: &'a str) -> Option<RelationFile<'a>> {
        let (folder, name) = path.rsplit_once('/')?;
        let mut folders = folder.split('/');
        let fits = match (folders.next()?, folders.next(), folders.next(), folders.next()) {
            ("global", None, ..) => true,
            ("base", Some(database), None, _) => is_number(database),
            ("pg_tblspc", Some(oid), Some(version), Some(database)) => {
                is_number(oid)
                    && version.starts_with("PG_")
                    && is_number(database)
                    && folders.next().is_none()
            }
            _ => false,
        };
        if fits { Self::named(name) } else { None }
    }

    /// What a file name in a database's folder names.
    pub fn named(name: &'a str) -> Option<RelationFile<'a>> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) if is_number(segment) => (stem, segment.parse().ok()?),
            Some(_) => return None,
            None => (name, 0),
        };
        let (number, fork) = match stem.rsplit_once('_') {
            Some((number, "fsm")) => (number, Fork::FreeSpace),
            Some((number, "vm")) => (number, Fork::Visibility),
            Some((number, "init")) => (number, Fork::Init),
            _ => (stem, Fork::Main),
        };
        let (temporary, digits) = match number.strip_prefix('t').and_then(|rest| rest.split_once('_')) {
            Some((backend, digits)) if is_number(backend) => (true, digits),
            _ => (false, number),
        };
        is_number(digits).then_some(RelationFile { number, temporary, fork, segment })
    }

    /// The number in the relation of the file's first block; `segment_blocks` is how many a segment has
    /// (131,072 unless the server was compiled otherwise).
    pub fn first_block(self, segment_blocks: u32) -> u32 {
        self.segment.wrapping_mul(segment_blocks)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with a header as the server writes it, and rows that are not.
    fn page(block: u32) -> Page {
        let mut page = [0; BLOCK];
        for (at, byte) in page.iter_mut().enumerate().skip(24) {
            *byte = (at * 7 + at / 251) as u8;
        }
        page[..8].copy_from_slice(&[1, 0, 0, 0, 0x28, 0, 0, 0x16]);
        page[12..16].copy_from_slice(&[28, 0, 0, 32]);
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn any_changed_byte_is_noticed_and_so_is_another_place() {
        let sound = page(131_073);
        assert_eq!(judge(&sound, 131_073), Verdict::Sound);
        assert_eq!(lsn(&sound), Lsn(0x1_1600_0028));
        assert_eq!(judge(&sound, 1), Verdict::Wrong { lsn: Lsn(0x1_1600_0028) });
        for at in (0..BLOCK).step_by(13) {
            let mut changed = sound;
            changed[at] ^= 0x40;
            assert_ne!(judge(&changed, 131_073), Verdict::Sound, "byte {at}");
        }
    }

    #[test]
    fn a_new_page_is_all_zeros() {
        let mut new = [0; BLOCK];
        assert_eq!(judge(&new, 7), Verdict::Sound);
        new[BLOCK - 1] = 1;
        assert_eq!(judge(&new, 7), Verdict::HalfNew);
    }

    #[test]
    fn relations_are_told_from_other_files() {
        let fork = |path| RelationFile::of(path).map(|file| (file.number, file.fork, file.segment));
        assert_eq!(fork("base/5/16384"), Some(("16384", Fork::Main, 0)));
        assert_eq!(fork("base/5/16384.12"), Some(("16384", Fork::Main, 12)));
        assert_eq!(fork("base/5/16384_fsm.1"), Some(("16384", Fork::FreeSpace, 1)));
        assert_eq!(fork("global/1262_vm"), Some(("1262", Fork::Visibility, 0)));
        assert_eq!(fork("pg_tblspc/9/PG_16_202307071/5/1_init"), Some(("1", Fork::Init, 0)));
        assert!(RelationFile::of("base/5/t3_16384_fsm").unwrap().temporary);
        assert_eq!(RelationFile::of("base/5/16384.2").unwrap().first_block(131_072), 262_144);
        for other in [
            "PG_VERSION",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/16384.x",
            "base/5/16384.",
            "base/5/16384_xyz",
            "base/5/t_16384",
            "base/pgsql_tmp/16384",
            "base/5/6/16384",
            "global/pg_control",
            "pg_xact/0000",
            "pg_tblspc/9/16384",
        ] {
            assert_eq!(RelationFile::of(other), None, "{other}");
        }
    }
}
