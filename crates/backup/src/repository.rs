//! The repository: a folder or bucket that holds the backups and the WAL of one or more clusters.
//!
//! Everything in it is a *pack*: frames, each compressed and sealed, under a key of the pack's own.
//! Objects are created and deleted, never changed. A backup exists from the moment its manifest does.

pub mod catalogue;
pub mod claims;
pub mod frames;
pub(crate) mod hex;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod map;
pub mod pack;
pub mod store;

use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use crate::Result;
use keys::{Keyring, Unlock};
use layout::{ClusterId, REPOSITORY};
use store::Store;

/// The version of the format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// An opened repository. Clones share the store and the keys.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Where the objects are.
    pub store: Store,
    /// What opens and seals them.
    pub keys: Keyring,
}

/// The only object that is neither a pack nor sealed: what this folder is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    what: String,
}

impl Marker {
    fn of(format: u32) -> Marker {
        Marker { format, what: "obyra-db backup repository".to_owned() }
    }

    /// What this program writes.
    pub(crate) fn current() -> Result<Vec<u8>> {
        Marker::of(FORMAT).bytes()
    }

    /// Reads it; fails if this program is too old for the repository.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Marker> {
        let marker: Marker = serde_json::from_slice(bytes).map_err(unreadable_marker)?;
        if marker.format > FORMAT {
            return Err(Failure::refused(text::backup::NEWER_FORMAT.with("format", marker.format))
                .mended_by(text::backup::NEWER_FORMAT_MEND));
        }
        Ok(marker)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(unreadable_marker)
    }

    /// Whether these are the bytes that this program writes, or an older one of the same format.
    pub(crate) fn is_as_written(bytes: &[u8]) -> bool {
        (1..=FORMAT).any(|format| Marker::of(format).bytes().is_ok_and(|written| written == bytes))
    }
}

impl Repository {
    /// Opens the repository of a store; makes one where the store has none.
    pub async fn open_or_create(store: Store, unlock: &Unlock) -> Result<Repository> {
        if store.get(REPOSITORY).await?.is_none() {
            // The key first: a repository that exists can always be opened by whoever made it.
            if Keyring::is_absent(&store).await? {
                Keyring::create(&store, unlock).await?;
            }
            store.create(REPOSITORY, Marker::current()?.into()).await?;
        }
        Self::open(store, unlock).await
    }

    /// Opens the repository of a store.
    pub async fn open(store: Store, unlock: &Unlock) -> Result<Repository> {
        let Some(marker) = store.get(REPOSITORY).await? else {
            return Err(Failure::new(text::backup::NO_REPOSITORY.with("store", store.url()))
                .mended_by(text::backup::NO_REPOSITORY_MEND));
        };
        Marker::parse(&marker)?;
        let keys = Keyring::open(&store, unlock).await?;
        Ok(Repository { store, keys })
    }

    /// The clusters that have a backup or WAL here.
    pub async fn clusters(&self) -> Result<Vec<ClusterId>> {
        let folders = self.store.folders(layout::CLUSTERS).await?;
        Ok(folders.iter().filter_map(|name| name.parse().ok().map(ClusterId)).collect())
    }
}

fn unreadable_marker(error: serde_json::Error) -> Failure {
    Failure::new(text::backup::OBJECT_UNREADABLE.with("object", REPOSITORY)).because(error)
}
