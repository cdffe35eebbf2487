//! An object that is too large to be held in memory: put in parts, visible only when it is whole.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _};

use super::Store;
use super::failure::Doing;
use crate::Result;

/// An object being put in parts.
pub struct Upload {
    store: Store,
    name: String,
    parts: Box<dyn MultipartUpload>,
}

impl Store {
    /// Begins an object that is put in parts of at least 5 MiB, all but the last.
    pub async fn upload(&self, name: &str) -> Result<Upload> {
        let parts = self
            .objects
            .put_multipart(&Path::from(name))
            .await
            .map_err(|e| self.failed(name, Doing::Write, &e))?;
        Ok(Upload { store: self.clone(), name: name.to_owned(), parts })
    }
}

impl Upload {
    /// Puts the next part.
    pub async fn put(&mut self, part: Bytes) -> Result<()> {
        self.store.pass(part.len()).await;
        self.parts.put_part(part.into()).await.map_err(|e| self.store.failed(&self.name, Doing::Write, &e))
    }

    /// Makes the object visible.
    pub async fn finish(mut self) -> Result<()> {
        self.parts.complete().await.map(drop).map_err(|e| self.store.failed(&self.name, Doing::Write, &e))
    }

    /// Gives up: nothing of it stays visible. A store that cannot be told now forgets it by its own rules.
    pub async fn abort(mut self) {
        let _ = self.parts.abort().await;
    }
}
