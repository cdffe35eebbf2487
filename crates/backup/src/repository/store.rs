//! Where the objects are: a folder, S3, Google Cloud Storage or Azure, all by `object_store`.
//!
//! Objects are created once and never changed. "Absent" is a value; "cannot be reached" is a failure:
//! recovery would end too early if the two were confused.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use obyra_evidence::{Failure, text};

use super::layout::CLOCK;
mod upload;

use crate::Result;
pub use upload::Upload;

/// A place for objects. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    url: String,
}

/// What a listing tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name, relative to the repository.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there, durably.
    New,
    /// An object of that name was there already, and was left alone.
    Existed,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Store {
    /// A folder, made if it is absent. What is written there is flushed to the disk.
    pub fn folder(folder: &FilePath) -> Result<Store> {
        let failed = |error: &dyn fmt::Display| {
            Failure::new(text::backup::STORE_FOLDER.with("folder", folder.display())).because(error)
        };
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?.with_fsync(true);
        Ok(Store { objects: Arc::new(objects), url: format!("file://{}", folder.display()) })
    }

    /// A store of the `object_store` crate, below a prefix.
    pub fn of(objects: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Store {
        Store { objects: Arc::new(PrefixStore::new(objects, prefix)), url: url.to_owned() }
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an object; never replaces one.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&Path::from(name), bytes.into(), options).await {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Existed),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Creates an object whose name nobody else can have.
    pub async fn create_new(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.create(name, bytes).await? {
            Created::New => Ok(()),
            Created::Existed => Err(Failure::refused(
                text::backup::OBJECT_EXISTS.with("store", &self.url).with("object", name),
            )
            .mended_by(text::backup::OBJECT_EXISTS_MEND)),
        }
    }

    /// Writes an object whatever was there: for signs of life, never for data.
    pub async fn replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.objects.put(&Path::from(name), bytes.into()).await.map(drop).map_err(|e| self.failed(name, e))
    }

    /// The whole object; `None` if there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let got = match self.objects.get(&Path::from(name)).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// The whole of an object that must be there.
    pub async fn must_get(&self, name: &str) -> Result<Bytes> {
        self.get(name).await?.ok_or_else(|| {
            Failure::new(text::backup::OBJECT_MISSING.with("store", &self.url).with("object", name))
                .mended_by(text::backup::OBJECT_DAMAGED_MEND)
        })
    }

    /// A part of an object that must be there.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.objects.get_range(&Path::from(name), range).await.map_err(|e| self.failed(name, e))
    }

    /// The time, by the store's own clock: that of an object written now.
    pub async fn now(&self) -> Result<Timestamp> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Failure::new(text::backup::NO_RANDOMNESS).because(e))?;
        let name = format!("{CLOCK}/{}", super::hex::encode(&random));
        self.create_new(&name, Bytes::new()).await?;
        let written = self.head(&name).await?;
        self.delete(&name).await?;
        let missing =
            || Failure::new(text::backup::OBJECT_MISSING.with("store", &self.url).with("object", &name));
        written.map(|info| info.modified).ok_or_else(missing)
    }

    /// What a listing would tell of it.
    pub async fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        match self.objects.head(&Path::from(name)).await {
            Ok(meta) => Ok(Some(info(meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// All objects below a folder, sorted by name.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let listed = self.objects.list(Some(&Path::from(folder))).map_ok(info).try_collect::<Vec<_>>().await;
        let mut listed = listed.map_err(|e| self.failed(folder, e))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The objects below a folder whose names sort after one, sorted by name.
    pub async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<ObjectInfo>> {
        let listed = self.objects.list_with_offset(Some(&Path::from(folder)), &Path::from(after));
        let listed = listed.map_ok(info).try_collect::<Vec<_>>().await;
        let mut listed = listed.map_err(|e| self.failed(folder, e))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The names of the folders directly below a folder.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let path = Path::from(folder);
        let listed =
            self.objects.list_with_delimiter(Some(&path)).await.map_err(|e| self.failed(folder, e))?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        Ok(names.collect())
    }

    /// Deletes an object; one that is gone already is no failure.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.objects.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    fn failed(&self, name: &str, error: object_store::Error) -> Failure {
        Failure::new(text::backup::STORE_FAILED.with("store", &self.url).with("object", name)).because(error)
    }
}

fn info(meta: object_store::ObjectMeta) -> ObjectInfo {
    let modified = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default();
    ObjectInfo { name: meta.location.to_string(), bytes: meta.size, modified }
}
