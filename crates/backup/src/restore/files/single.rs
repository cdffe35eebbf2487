//! One file of a backup, read without restoring anything: configuration, `pg_control`.

use super::window::wrong;
use crate::Result;
use crate::repository::Repository;
use crate::repository::catalogue::Manifest;
use crate::repository::frames::FrameReader;
use crate::repository::layout::{BLOCK, ClusterId};
use crate::repository::map::{ZEROS, identity};
use crate::repository::pack::Kind;

/// The bytes of a file of a backup; `None` if it has none of that name.
pub async fn read(
    repository: &Repository,
    cluster: ClusterId,
    manifest: &Manifest,
    path: &str,
) -> Result<Option<Vec<u8>>> {
    let Some(file) = manifest.files.iter().find(|file| file.path == path) else { return Ok(None) };
    let reader = FrameReader::new(repository, cluster);
    let key = repository.keys.identity_key();
    let mut bytes = Vec::new();
    for at in &file.extents {
        let piece = reader.piece(&manifest.packs, *at).await?;
        let mut identities = piece.identities.iter();
        for run in &piece.runs {
            for (nth, wanted) in identities.by_ref().take(usize::from(run.blocks)).enumerate() {
                let length = BLOCK.min(file.size as usize - bytes.len());
                let wrong = || wrong(path, bytes.len() / BLOCK);
                let Some(kept) = run.kept else {
                    bytes.resize(bytes.len() + length, 0);
                    continue;
                };
                let id = &piece.packs[usize::from(kept.pack)];
                let pack = manifest.packs.iter().find(|pack| pack.id == *id).ok_or_else(wrong)?;
                let raw = reader.frame(Kind::Blocks, pack, kept.frame).await?;
                let from = kept.offset as usize + nth * BLOCK;
                let found = raw.get(from..from + length);
                let found = found.filter(|block| *wanted != ZEROS && identity(&key, block) == *wanted);
                bytes.extend_from_slice(found.ok_or_else(wrong)?);
            }
        }
    }
    Ok(Some(bytes))
}
