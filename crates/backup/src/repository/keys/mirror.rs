//! The keys of a copy: the same ways open it that open the repository.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use obyra_evidence::{Failure, text};

use super::{FOLDER, parse};
use crate::Result;
use crate::repository::Repository;
use crate::repository::store::Store;

/// What became of the keys.
#[derive(Debug, Default)]
pub(crate) struct Mirrored {
    /// The ways that were removed from the copy, as they were from the repository.
    pub(crate) removed: Vec<String>,
    /// Keys of the repository that are not as they were written: those of the copy are left alone.
    pub(crate) damaged: Vec<String>,
}

/// Brings the keys of a copy to those of the repository. A store that holds another repository is refused
/// before anything is written, and so is one of which this keyring opens a part only.
pub(crate) async fn mirror(from: &Repository, to: &Store) -> Result<Mirrored> {
    let (ours, theirs) = (objects(&from.store).await?, objects(to).await?);
    if !theirs.is_empty() && !ours.iter().any(|(name, bytes)| theirs.get(name) == Some(bytes)) {
        return Err(Failure::refused(text::backup::COPY_ANOTHER.with("store", to.url()))
            .mended_by(text::backup::COPY_ANOTHER_MEND));
    }
    for name in ours.keys() {
        if let Some((key, ..)) = parse(name) {
            from.keys.master(key, name)?;
        }
    }
    let known = from.keys.wrapped(&from.store).await?;
    let mut mirrored = Mirrored::default();
    for (name, bytes) in &ours {
        let there = theirs.get(name);
        let good = match known.get(name) {
            Some(hash) => blake3::hash(bytes).as_bytes() == hash,
            // A note speaks for itself; a key without one is only ever added.
            None if name.ends_with(".way") => from.keys.note(&from.store, name).await.is_ok(),
            None => there.is_none(),
        };
        match there {
            Some(there) if there == bytes => {}
            None if good => to.create_new(name, bytes.clone()).await?,
            Some(_) if good => to.replace(name, bytes.clone()).await?,
            _ => mirrored.damaged.push(name.clone()),
        }
    }
    // A way of which nothing is left was removed; one of which an object is missing has lost it.
    let ways: BTreeSet<String> = ours.keys().filter_map(|name| way(name)).collect();
    let mut removed = BTreeSet::new();
    for name in theirs.keys() {
        if let Some(way) = way(name).filter(|way| !ways.contains(way))
            && to.let_go(name).await?
        {
            removed.insert(way);
        }
    }
    mirrored.removed = removed.into_iter().collect();
    Ok(mirrored)
}

async fn objects(store: &Store) -> Result<BTreeMap<String, Bytes>> {
    let mut objects = BTreeMap::new();
    for info in store.list(FOLDER).await? {
        if let Some(bytes) = store.get(&info.name).await? {
            objects.insert(info.name, bytes);
        }
    }
    Ok(objects)
}

fn way(name: &str) -> Option<String> {
    parse(name).map(|(_, way, _)| way)
}
