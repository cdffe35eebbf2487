//! The databases of a backup, read from the backup itself: `pg_database` and the map that tells its file.
//!
//! Old versions of rows count too: a name may then have several oids, and whoever asks takes them all.

use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::layout::{BLOCK, ClusterId};

/// `RELMAPPER_FILEMAGIC`.
const MAP_MAGIC: u32 = 0x0059_2717;
/// `DatabaseRelationId`.
const PG_DATABASE: u32 = 1262;
/// `LP_NORMAL`, as it lies in the two bits of a line pointer.
const NORMAL: u32 = 1;
/// `NAMEDATALEN`.
const NAME: usize = 64;

/// The oids that a database of this name had, in any version of its row; `None` if the catalogue could not
/// be read.
pub(super) async fn of_database(
    repository: &Repository,
    cluster: ClusterId,
    manifest: &Manifest,
    name: &str,
) -> Result<Option<Vec<u32>>> {
    let read = async |path: &str| super::files::read(repository, cluster, manifest, path).await;
    let map = read("global/pg_filenode.map").await?;
    let Some(file) = map.as_deref().and_then(|map| mapped(map, PG_DATABASE)) else { return Ok(None) };
    let Some(table) = read(&format!("global/{file}")).await? else { return Ok(None) };
    Ok(Some(named(&table, name)))
}

/// The file of a mapped catalogue (`RelMapFile` of relmapper.c).
fn mapped(map: &[u8], relation: u32) -> Option<u32> {
    let number = |at: usize| map.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    if number(0)? != MAP_MAGIC {
        return None;
    }
    let count = number(4)? as usize;
    let found = (0..count).find(|nth| number(8 + nth * 8) == Some(relation))?;
    number(12 + found * 8)
}

/// The oids of the rows of `pg_database` with a name. Its first two columns are the oid and the name.
fn named(table: &[u8], name: &str) -> Vec<u32> {
    let mut oids = Vec::new();
    for page in table.chunks_exact(BLOCK) {
        let lower = usize::from(u16::from_le_bytes([page[12], page[13]])).min(BLOCK);
        for pointer in page.get(24..lower).unwrap_or_default().chunks_exact(4) {
            let pointer = u32::from_le_bytes([pointer[0], pointer[1], pointer[2], pointer[3]]);
            let (offset, flags) = ((pointer & 0x7FFF) as usize, pointer >> 15 & 3);
            let row = page.get(offset..).filter(|row| flags == NORMAL && row.len() > 23);
            let data = row.and_then(|row| row.get(usize::from(row[22])..));
            let Some(data) = data.filter(|data| data.len() >= 4 + NAME) else { continue };
            let found = data[4..4 + NAME].split(|byte| *byte == 0).next().unwrap_or_default();
            if found == name.as_bytes() {
                oids.push(u32::from_le_bytes([data[0], data[1], data[2], data[3]]));
            }
        }
    }
    oids.sort_unstable();
    oids.dedup();
    oids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_and_damage_is_no_panic() {
        let mut page = vec![0; BLOCK];
        page[12..14].copy_from_slice(&(24u16 + 8).to_le_bytes());
        let row = 8000usize;
        let pointer = row as u32 | NORMAL << 15 | 100 << 17;
        page[24..28].copy_from_slice(&pointer.to_le_bytes());
        // The second one is dead.
        page[28..32].copy_from_slice(&(row as u32 | 3 << 15).to_le_bytes());
        page[row + 22] = 24;
        page[row + 24..row + 28].copy_from_slice(&16_390u32.to_le_bytes());
        page[row + 28..row + 31].copy_from_slice(b"app");
        assert_eq!(named(&page, "app"), [16_390]);
        assert!(named(&page, "ap").is_empty());
        for at in 0..40 {
            let mut damaged = page.clone();
            damaged[at] = 0xFF;
            named(&damaged, "app");
        }
        assert_eq!(mapped(&[0; 512], PG_DATABASE), None);
        assert_eq!(mapped(&[0x17, 0x27, 0x59, 0, 0xFF, 0xFF, 0, 0], PG_DATABASE), None);
    }
}
