//! The stream: pg_dump's output goes encrypted into the store and, at the same time, into pg_restore.

use std::io::{self, Write};
use std::process::Stdio;

use bytes::Bytes;
use obyra_evidence::{Failure, Message, Progress, text};
use obyra_postgres::Conninfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::seal::Recipients;
use super::{Source, prove};
use crate::Result;
use crate::repository::store::{Store, Upload};

/// Bytes of a part of the upload: the least that S3 takes is 5 MiB.
const PART: usize = 8 << 20;
/// Bytes read from pg_dump at a time.
const CHUNK: usize = 256 << 10;

/// What was put into the store.
pub(super) struct Stored {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// Dumps the snapshot into the store and restores it into the copy.
pub(super) async fn run(
    source: &Source<'_>,
    snapshot: &str,
    copy: &Conninfo,
    recipients: &Recipients,
    (store, object): (&Store, &str),
    progress: &dyn Progress,
) -> Result<Stored> {
    let mut dump = dumping(source, snapshot)?;
    let mut restore = prove::restoring(source.installation, copy)?;
    let (parts, received) = mpsc::channel(2);
    let mut sealed = recipients.encrypting(Parts { sender: parts, part: Vec::new() })?;
    let (Some(mut output), Some(mut input)) = (dump.stdout.take(), restore.stdin.take()) else {
        return Err(failure("pipes"));
    };
    let complaints = (complaint(&mut dump), complaint(&mut restore));
    let upload = upload(store, object, received);
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
        tokio::task::block_in_place(|| sealed.finish().and_then(|mut parts| parts.flush())).map_err(failure)
    };
    let (stored, pumped, said, restored) = tokio::join!(upload, pump, complaints.0, complaints.1);
    ended(&mut dump, text::backup::PG_DUMP.message(), said).await?;
    ended(&mut restore, text::backup::PG_RESTORE.message(), restored).await?;
    pumped?;
    stored
}

fn dumping(source: &Source<'_>, snapshot: &str) -> Result<Child> {
    let mut command = source.installation.tool("pg_dump");
    command.args(["--format=custom", "--no-password", "--snapshot", snapshot]);
    connect(&mut command, source.database);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    spawn(command, text::backup::PG_DUMP.message())
}

/// The connection goes by environment: an argument would show the password.
pub(super) fn connect(command: &mut Command, database: &Conninfo) {
    use obyra_postgres::secrecy::ExposeSecret as _;
    for (name, value) in database.env() {
        command.env(name, value.expose_secret());
    }
}

pub(super) fn spawn(mut command: Command, what: Message) -> Result<Child> {
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|e| Failure::new(what).because(e))
}

/// What a program complains of, read as it comes so that it never waits for us.
fn complaint(child: &mut Child) -> impl Future<Output = String> + use<> {
    let stderr = child.stderr.take();
    async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // A pipe that breaks ends the complaint; the exit code still tells.
            let _ = stderr.read_to_end(&mut said).await;
        }
        String::from_utf8_lossy(&said).trim().to_owned()
    }
}

async fn ended(child: &mut Child, what: Message, said: String) -> Result<()> {
    let status = child.wait().await.map_err(failure)?;
    if status.success() {
        return Ok(());
    }
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Failure::new(what).because(if last.is_empty() { status.to_string() } else { last.join("\n") }))
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
