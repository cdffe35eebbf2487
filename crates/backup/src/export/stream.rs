//! The stream: pg_dump's output goes encrypted into the store and, at the same time, into pg_restore.

use std::io::{self, Write};
use std::process::Stdio;

use bytes::Bytes;
use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::{Conninfo, mark};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::sync::mpsc;

use super::seal::Recipients;
use super::{Source, prove};
use crate::repository::store::{Store, Upload};
use crate::{Result, child};

/// Bytes of a part of the upload: the least that S3 takes is 5 MiB.
const PART: usize = 8 << 20;
/// Bytes read from pg_dump at a time.
const CHUNK: usize = 256 << 10;

/// What was put into the store.
pub(super) struct Stored {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// What flows, and where to.
pub(super) struct Stream<'a> {
    pub(super) source: &'a Source<'a>,
    /// The exported snapshot that is dumped.
    pub(super) snapshot: &'a str,
    /// The database that the dump is restored into.
    pub(super) copy: &'a Conninfo,
    pub(super) recipients: &'a Recipients,
    pub(super) store: &'a Store,
    pub(super) object: &'a str,
}

impl Stream<'_> {
    /// Dumps the snapshot into the store and restores it into the copy.
    pub(super) async fn run(self, progress: &dyn Progress) -> Result<Stored> {
        let mut dump = self.dumping()?;
        let mut restore = prove::restoring(self.source.installation, self.copy)?;
        let (parts, received) = mpsc::channel(2);
        let mut sealed = self.recipients.encrypting(Parts { sender: parts, part: Vec::new() })?;
        let (Some(mut output), Some(mut input)) = (dump.stdout.take(), restore.stdin.take()) else {
            return Err(failure("pipes"));
        };
        let complaints = (child::complaint(&mut dump), child::complaint(&mut restore));
        let upload = upload(self.store, self.object, received);
        let pump = async {
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = output.read(&mut chunk).await.map_err(failure)?;
                if read == 0 {
                    break;
                }
                // A pg_restore that gave up says why when it is asked for its end.
                let _ = input.write_all(&chunk[..read]).await;
                tokio::task::block_in_place(|| sealed.write_all(&chunk[..read])).map_err(failure)?;
                progress.advance(read as u64);
            }
            drop(input);
            let finish = || sealed.finish().and_then(|mut parts| parts.flush());
            tokio::task::block_in_place(finish).map_err(failure)
        };
        let (stored, pumped, said, restored) = tokio::join!(upload, pump, complaints.0, complaints.1);
        child::ended(&mut dump, text::backup::PG_DUMP, said).await?;
        child::ended(&mut restore, text::backup::PG_RESTORE, restored).await.map_err(mark::explained)?;
        pumped?;
        stored
    }

    fn dumping(&self) -> Result<Child> {
        let mut command = self.source.installation.tool_on("pg_dump", self.source.database);
        command.args(["--format=custom", "--no-password", "--snapshot", self.snapshot]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        child::spawn(command, text::backup::PG_DUMP)
    }
}

/// Cuts what is written into parts and hands them over.
struct Parts {
    sender: mpsc::Sender<Bytes>,
    part: Vec<u8>,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.sender.blocking_send(part.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.send()?;
        }
        Ok(bytes.len())
    }

    /// Hands over what is left: to be called at the end only.
    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() { Ok(()) } else { self.send() }
    }
}

async fn upload(store: &Store, object: &str, mut parts: mpsc::Receiver<Bytes>) -> Result<Stored> {
    let mut hash = blake3::Hasher::new();
    let mut bytes = 0;
    let mut upload: Upload = store.upload(object).await?;
    while let Some(part) = parts.recv().await {
        hash.update(&part);
        bytes += part.len() as u64;
        if let Err(failure) = upload.put(part).await {
            upload.abort().await;
            return Err(failure);
        }
    }
    upload.finish().await?;
    Ok(Stored { bytes, blake3: hash.finalize().to_hex().to_string() })
}

/// Reads the object back: what was acknowledged must be what was sent.
pub(super) async fn read_back(store: &Store, object: &str, stored: &Stored) -> Result<()> {
    let mut hash = blake3::Hasher::new();
    let mut at = 0;
    while at < stored.bytes {
        let end = (at + PART as u64).min(stored.bytes);
        hash.update(&store.get_range(object, at..end).await?);
        at = end;
    }
    if hash.finalize().to_hex().as_str() != stored.blake3 {
        return Err(Failure::new(text::backup::OBJECT_DAMAGED.with("object", object)));
    }
    Ok(())
}

fn failure(why: impl std::fmt::Display) -> Failure {
    Failure::new(text::backup::EXPORT).because(why)
}
