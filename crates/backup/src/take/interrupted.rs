//! What arrived of a backup that was interrupted: the maps in its packs, found by the packs' own
//! directories, without a manifest.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::parents::{Known, Layer};
use crate::Result;
use crate::repository::Repository;
use crate::repository::frames::FrameReader;
use crate::repository::layout::{BackupId, ClusterId};
use crate::repository::manifest::{PackEntry, PieceAt};
use crate::repository::map::Piece;
use crate::repository::pack::{Entry, Kind};

/// Packs whose directories are read at the same time.
const AT_ONCE: usize = 8;

/// The maps of an interrupted backup.
pub(super) async fn layer(repository: &Repository, cluster: ClusterId, backup: &BackupId) -> Result<Layer> {
    let objects = repository.store.list(&cluster.packs(backup)).await?;
    let reader = FrameReader::new(repository, cluster);
    let packs = objects.iter().filter_map(|object| Some((cluster.pack_of(&object.name)?, object.bytes)));
    let read = stream::iter(packs).map(|(id, bytes)| reader.directory(id, bytes));
    let mut read = read.buffered(AT_ONCE);
    let mut packs = Vec::new();
    let mut files: HashMap<String, Known> = HashMap::new();
    while let Some((pack, directory)) = read.try_next().await? {
        let number = packs.len() as u32;
        for map in directory.iter().filter(|entry| entry.kind == Kind::Map) {
            for (path, extent, at) in pieces(&reader, &pack, map).await? {
                files.entry(path).or_default().extents.push((extent, PieceAt { pack: number, ..at }));
            }
        }
        packs.push(pack);
    }
    for known in files.values_mut() {
        known.extents.sort_by_key(|(extent, _)| *extent);
    }
    Ok(Layer::found(packs, files))
}

/// The pieces of a map frame, in the order in which its directory names them.
async fn pieces(reader: &FrameReader, pack: &PackEntry, map: &Entry) -> Result<Vec<(String, u32, PieceAt)>> {
    let frame = reader.frame(Kind::Map, pack, map.at).await?;
    let mut found = Vec::with_capacity(map.about.len());
    let mut offset = 0;
    for about in &map.about {
        let piece = Piece::decode(frame.get(offset..).unwrap_or_default())?;
        let at = PieceAt { pack: 0, frame: map.at.offset, stored: map.at.stored, offset: offset as u32 };
        offset += piece.encoded_bytes();
        if let Some((path, extent)) = about.rsplit_once('#')
            && let Ok(extent) = extent.parse()
        {
            found.push((path.to_owned(), extent, at));
        }
    }
    Ok(found)
}
