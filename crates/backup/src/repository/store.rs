//! Where the objects are: a folder, S3, Google Cloud Storage or Azure, all by `object_store`.
//!
//! Objects are created once and never changed. "Absent" is a value; "cannot be reached" is a failure:
//! recovery would end too early if the two were confused.

mod failure;
mod folder;
mod open;
mod pace;
mod upload;

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use obyra_evidence::{Code, Failure, Message, text};
use secrecy::SecretString;
use tokio::time::Instant;

use self::failure::{Doing, Refusal};
use self::folder::Folder;
use self::pace::Pace;
use super::keys::random;
use super::layout::CLOCK;
use crate::Result;

pub use self::open::{Options, ServerSide, Variables};
pub use self::upload::Upload;

/// How long a request that fails for a passing reason is tried again.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same where nobody answers: the address may be wrong.
const PATIENCE_AWAY: Duration = Duration::from_secs(15);
/// The first pause; each is twice the one before, and none is longer than the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));

/// No object of ours that is read whole is larger: a segment of WAL of 1 GiB that does not compress.
const OBJECT_MAX: u64 = (1 << 30) + (64 << 20);

/// A place for objects. Clones share its connections and its bandwidth.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    folder: Option<Arc<Folder>>,
    url: String,
    pace: Option<Arc<Pace>>,
    patience: Duration,
    secrets: Arc<Vec<SecretString>>,
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
    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an object; never replaces one. One that holds the same bytes already is as good as new: an
    /// attempt may have succeeded whose answer was lost.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.pass(bytes.len()).await;
        if let Some(folder) = &self.folder {
            let (folder, file) = (folder.clone(), name.to_owned());
            return self.on_disk(name, Doing::Write, move || folder.create(&file, &bytes)).await;
        }
        // A store may say "exists" of an object that somebody else was about to create and did not.
        for _ in 0..3 {
            let put = self.persist(|| {
                let options = PutOptions::from(PutMode::Create);
                let (path, bytes) = (Path::from(name), bytes.clone());
                async move { self.objects.put_opts(&path, bytes.into(), options).await }
            });
            match put.await {
                Ok(_) => return Ok(Created::New),
                Err(Error::AlreadyExists { .. }) => match self.get(name).await? {
                    Some(there) if there == bytes => return Ok(Created::New),
                    Some(_) => return Ok(Created::Existed),
                    None => {}
                },
                Err(error) => return Err(self.failed(name, Doing::Write, &error)),
            }
        }
        Err(Failure::new(self.about(text::backup::STORE_FAILED, name))
            .mended_by(text::backup::STORE_BUSY_MEND))
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
        self.pass(bytes.len()).await;
        if let Some(folder) = &self.folder {
            let (folder, file) = (folder.clone(), name.to_owned());
            return self.on_disk(name, Doing::Write, move || folder.replace(&file, &bytes)).await;
        }
        let put = self.persist(|| {
            let (path, bytes) = (Path::from(name), bytes.clone());
            async move { self.objects.put(&path, bytes.into()).await }
        });
        put.await.map(drop).map_err(|e| self.failed(name, Doing::Write, &e))
    }

    /// The whole object; `None` if there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let got = self.persist(|| {
            let path = Path::from(name);
            async move {
                let got = self.objects.get(&path).await?;
                if got.meta.size > OBJECT_MAX { Ok(None) } else { got.bytes().await.map(Some) }
            }
        });
        let got = match self.unless_absent(name, Doing::Read, got.await)? {
            Some(None) => return Err(super::pack::damaged(name)),
            got => got.flatten(),
        };
        self.pass(got.as_ref().map_or(0, Bytes::len)).await;
        Ok(got)
    }

    /// The whole of an object that must be there.
    pub async fn must_get(&self, name: &str) -> Result<Bytes> {
        self.get(name).await?.ok_or_else(|| self.missing(name))
    }

    /// A part of an object that must be there.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.pass((range.end - range.start) as usize).await;
        let got = self.persist(|| {
            let (path, range) = (Path::from(name), range.clone());
            async move { self.objects.get_range(&path, range).await }
        });
        match self.unless_absent(name, Doing::Read, got.await)? {
            Some(bytes) => Ok(bytes),
            None => Err(self.missing(name)),
        }
    }

    /// The time, by the store's own clock: that of an object written now.
    pub async fn now(&self) -> Result<Timestamp> {
        let name = format!("{CLOCK}/{}", super::hex::encode(&random::<8>()?));
        self.create_new(&name, Bytes::new()).await?;
        let written = self.head(&name).await?;
        self.let_go(&name).await?;
        written.map(|info| info.modified).ok_or_else(|| self.missing(&name))
    }

    /// What a listing would tell of it.
    pub async fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        let head = self.persist(|| {
            let path = Path::from(name);
            async move { self.objects.head(&path).await }
        });
        Ok(self.unless_absent(name, Doing::Read, head.await)?.map(info))
    }

    /// All objects below a folder, sorted by name.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let listed = self.persist(|| {
            let path = Path::from(folder);
            async move { self.objects.list(Some(&path)).map_ok(info).try_collect::<Vec<_>>().await }
        });
        self.sorted(folder, listed.await)
    }

    /// The objects below a folder whose names sort after one, sorted by name.
    pub async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<ObjectInfo>> {
        let listed = self.persist(|| {
            let (path, after) = (Path::from(folder), Path::from(after));
            async move { self.objects.list_with_offset(Some(&path), &after).map_ok(info).try_collect().await }
        });
        self.sorted(folder, listed.await)
    }

    fn sorted(&self, folder: &str, listed: object_store::Result<Vec<ObjectInfo>>) -> Result<Vec<ObjectInfo>> {
        let mut listed = listed.map_err(|e| self.failed(folder, Doing::List, &e))?;
        self.is_there(folder)?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The names of the folders directly below a folder.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.persist(|| {
            let path = Path::from(folder);
            async move { self.objects.list_with_delimiter(Some(&path)).await }
        });
        let listed = listed.await.map_err(|e| self.failed(folder, Doing::List, &e))?;
        self.is_there(folder)?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        Ok(names.collect())
    }

    /// Deletes an object that nobody needs any more; says whether it is gone. That a store keeps it, by its
    /// retention or since these credentials may only add, is no failure.
    pub async fn let_go(&self, name: &str) -> Result<bool> {
        match self.delete(name).await {
            Ok(()) => Ok(true),
            Err(failure) if is_kept(&failure) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes an object; one that is gone already is no failure. One that the store keeps is a failure that
    /// [`is_kept`] knows.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let deleted = self.persist(|| {
            let path = Path::from(name);
            async move { self.objects.delete(&path).await }
        });
        self.unless_absent(name, Doing::Delete, deleted.await).map(drop)
    }

    /// Makes sure that what was deleted in a folder stays deleted, whatever happens to the machine.
    pub async fn flush(&self, folder: &str) -> Result<()> {
        let Some(on_disk) = self.folder.clone() else { return Ok(()) };
        let name = folder.to_owned();
        self.on_disk(folder, Doing::Delete, move || on_disk.flush(&name)).await
    }

    /// Tries again what fails for a passing reason, with longer and longer pauses.
    async fn persist<T, F>(&self, attempt: impl Fn() -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let error = match attempt().await {
                Err(error) if self.folder.is_none() => error,
                done => return done,
            };
            let refusal = Refusal::of(&error);
            let patience = if refusal.is_away() { self.patience.min(PATIENCE_AWAY) } else { self.patience };
            if !refusal.is_transient() || begun.elapsed() + pause > patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        name: &str,
        doing: Doing,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        done.map_err(|error| self.failed(name, doing, &system(name, error)))
    }

    async fn pass(&self, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.pass(bytes as u64).await;
        }
    }

    /// Tells an absent object from a bucket or a disk that is absent.
    fn unless_absent<T>(&self, name: &str, doing: Doing, got: object_store::Result<T>) -> Result<Option<T>> {
        match got {
            Ok(got) => Ok(Some(got)),
            Err(error @ Error::NotFound { .. }) if Refusal::of(&error).no_bucket() => {
                Err(self.failed(name, doing, &error))
            }
            Err(Error::NotFound { .. }) => self.is_there(name).map(|()| None),
            Err(error) => Err(self.failed(name, doing, &error)),
        }
    }

    fn is_there(&self, name: &str) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.is_there().map_err(|error| {
            let what = self.about(text::backup::STORE_FAILED, name);
            Failure::new(what).because(error).mended_by(text::backup::STORE_GONE_MEND)
        })
    }

    fn missing(&self, name: &str) -> Failure {
        Failure::new(self.about(text::backup::OBJECT_MISSING, name))
            .mended_by(text::backup::OBJECT_DAMAGED_MEND)
    }

    fn about(&self, code: Code, name: &str) -> Message {
        code.with("store", &self.url).with("object", name)
    }

    fn failed(&self, name: &str, doing: Doing, error: &Error) -> Failure {
        let refusal = Refusal::of(error);
        if doing == Doing::Delete && refusal.is_locked() {
            let what = text::backup::OBJECT_LOCKED.with("object", name);
            return Failure::refused(what).because(refusal.why(&self.secrets));
        }
        if doing == Doing::Delete && refusal.is_denied() {
            let what = text::backup::OBJECT_KEPT.with("object", name);
            return refusal.failure(what, doing, &self.url, &self.secrets);
        }
        refusal.failure(self.about(text::backup::STORE_FAILED, name), doing, &self.url, &self.secrets)
    }
}

/// Whether a deletion failed since the store keeps the object: by its retention, or since these credentials
/// may not delete.
pub fn is_kept(failure: &Failure) -> bool {
    [text::backup::OBJECT_LOCKED, text::backup::OBJECT_KEPT].contains(&failure.what.code())
}

/// An error of the operating system, as the others are.
fn system(path: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::NotFound { path: path.to_owned(), source: Box::new(error) };
    }
    Error::Generic { store: "folder", source: Box::new(error) }
}

fn info(meta: object_store::ObjectMeta) -> ObjectInfo {
    let modified = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default();
    ObjectInfo { name: meta.location.to_string(), bytes: meta.size, modified }
}
