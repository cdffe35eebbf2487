//! A folder as a store that fails when a test wants it to.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use obyra_backup::repository::store::Store;

/// What the store does with what is put.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Well,
    /// Takes so many objects, and then no more.
    #[allow(dead_code, reason = "the repository's tests use it")]
    Takes(u64),
    /// Fails.
    Failing,
    /// Fails, is slow, or fails after it has done the work, by turns.
    Moody,
}

#[derive(Debug)]
pub struct Faulty {
    objects: LocalFileSystem,
    mood: Mutex<Mood>,
    puts: AtomicU64,
    failed: AtomicU64,
}

impl Faulty {
    /// The store of a folder.
    pub fn new(folder: &FilePath, mood: Mood) -> Arc<Faulty> {
        let objects = LocalFileSystem::new_with_prefix(folder).unwrap();
        let (puts, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Faulty { objects, mood: Mutex::new(mood), puts, failed })
    }

    pub fn store(self: &Arc<Faulty>) -> Store {
        Store::of(self.clone(), "", "faulty://")
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// How often it has failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn fail(&self) -> object_store::Error {
        self.failed.fetch_add(1, Ordering::SeqCst);
        object_store::Error::Generic { store: "faulty", source: "500 Internal Server Error".into() }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let nth = self.puts.fetch_add(1, Ordering::SeqCst);
        match self.mood() {
            Mood::Well => {}
            Mood::Takes(most) if nth < most => {}
            Mood::Takes(_) | Mood::Failing => return Err(self.fail()),
            Mood::Moody => match nth % 5 {
                0 => return Err(self.fail()),
                1 => tokio::time::sleep(Duration::from_millis(30)).await,
                2 => {
                    self.objects.put_opts(path, payload, options).await?;
                    return Err(self.fail());
                }
                _ => {}
            },
        }
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.objects.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.objects.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // What nobody needs any more may stay: nothing depends on its going.
        if matches!(self.mood(), Mood::Well | Mood::Takes(_)) {
            return self.objects.delete_stream(paths);
        }
        let failure = self.fail();
        futures_util::stream::once(async move { Err(failure) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
