//! A base backup as a stream of events, the same for every version of the server.
//!
//! PostgreSQL 14 sends a copy for each tablespace and one for the manifest; later ones send a single
//! copy whose messages say what they are.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use obyra_evidence::text::replication as say;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};
use tokio_postgres::error::SqlState;

use super::BaseBackupOptions;
use super::message::BackupMessage;
use super::refusal::{Asked, Subject};
use super::walsender::{Row, Trouble, Walsender};
use super::wire::Incoming;
use crate::Result;
use crate::wal::{Lsn, TimelineId};

/// A tablespace of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID; `None` for the main data directory, which is always there and always last.
    pub oid: Option<u32>,
    /// Where it lies on the server; empty for the main data directory.
    pub location: String,
    /// Its size in bytes, if an estimate was asked for.
    pub size_estimate: Option<u64>,
}

/// What comes of a base backup, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupEvent {
    /// The checkpoint is written. WAL from here on belongs to the backup.
    Started {
        /// Where recovery will begin.
        lsn: Lsn,
        /// On which timeline.
        timeline: TimelineId,
    },
    /// What will be sent: an archive for each.
    Tablespaces(Vec<Tablespace>),
    /// An archive in tar format begins; the one before it is complete.
    ArchiveBegin {
        /// Its name: `base.tar` or `<oid>.tar`, with `.gz`, `.lz4` or `.zst` behind it if the server
        /// compresses.
        name: String,
        /// The OID of the tablespace; `None` for the main data directory.
        tablespace: Option<u32>,
    },
    /// A piece of the archive. It keeps a buffer of a quarter of a MiB alive.
    ArchiveData(Bytes),
    /// The manifest begins; all archives are complete.
    ManifestBegin,
    /// A piece of the manifest.
    ManifestData(Bytes),
    /// How many bytes of all archives the server has read (15 and later; about once a second).
    Progress(u64),
    /// All is here. Recovery needs WAL up to this position.
    Finished {
        /// Where recovery becomes consistent.
        lsn: Lsn,
        /// On which timeline.
        timeline: TimelineId,
        /// What the server says if pages failed their checksums: everything came, some of it damaged.
        corrupt: Option<String>,
        /// The server's warnings; they name the damaged files and blocks.
        warnings: Vec<String>,
    },
}

/// A base backup under way.
pub struct BaseBackup<'a> {
    walsender: &'a mut Walsender,
    one_copy: bool,
    /// How many tables of rows have come to their end.
    tables: usize,
    row: Option<Row>,
    tablespaces: Vec<Tablespace>,
    /// How many archives have begun.
    archives: usize,
    in_manifest: bool,
    end: Option<(Lsn, TimelineId)>,
    finished: bool,
}

impl Walsender {
    /// Begins a base backup. The first event comes when the server has written its checkpoint.
    pub async fn base_backup(&mut self, options: &BaseBackupOptions) -> Result<BaseBackup<'_>> {
        if options.compression.is_some() {
            self.needs("BASE_BACKUP COMPRESSION", 15)?;
        }
        if options.incremental {
            self.needs("BASE_BACKUP INCREMENTAL", 17)?;
        }
        self.take_notices();
        let what = say::BASE_BACKUP.with("server", &self.server);
        let command = options.command(self.version());
        self.begin(&command, Asked { what, subject: Subject::Other }).await?;
        let one_copy = self.version().at_least(15);
        Ok(BaseBackup {
            walsender: self,
            one_copy,
            tables: 0,
            row: None,
            tablespaces: Vec::new(),
            archives: 0,
            in_manifest: false,
            end: None,
            finished: false,
        })
    }

    /// Gives the server the manifest of an earlier backup, for an incremental one on this same
    /// connection (17 and later). A failure of the stream ends the upload.
    pub async fn upload_manifest(&mut self, manifest: impl Stream<Item = Result<Bytes>>) -> Result<()> {
        self.needs("UPLOAD_MANIFEST", 17)?;
        let what = say::UPLOAD_MANIFEST.with("server", &self.server);
        self.begin("UPLOAD_MANIFEST", Asked { what, subject: Subject::Other }).await?;
        match self.next_of_command().await? {
            Some(Incoming::Message(Message::CopyInResponse(_))) => {}
            _ => return Err(self.unexpected()),
        }
        let sent = self.send_all(manifest).await;
        match &sent {
            Ok(()) => frontend::copy_done(self.wire.outbox()),
            // Without words: they would only come back to us.
            Err(_) => drop(frontend::copy_fail("", self.wire.outbox())),
        }
        self.send().await?;
        let mut ended = Ok(());
        while ended.is_ok() {
            match self.next_of_command().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(failure) => ended = Err(failure),
            }
        }
        sent.and(ended)
    }

    async fn send_all(&mut self, manifest: impl Stream<Item = Result<Bytes>>) -> Result<()> {
        let mut manifest = std::pin::pin!(manifest);
        while let Some(piece) = manifest.next().await {
            match CopyData::new(piece?) {
                Ok(data) => data.write(self.wire.outbox()),
                Err(error) => return Err(self.failure(&Trouble::Broken(error.to_string()))),
            }
            self.send().await?;
        }
        Ok(())
    }
}

impl BaseBackup<'_> {
    /// The next event; `None` after [`BackupEvent::Finished`]. Cancelling it loses nothing.
    ///
    /// A failure ends the backup, and what came before it is not one.
    pub async fn next(&mut self) -> Result<Option<BackupEvent>> {
        while !self.finished {
            match self.walsender.step().await {
                Ok(Some(incoming)) => {
                    if let Some(event) = self.event(incoming)? {
                        return Ok(Some(event));
                    }
                }
                Ok(None) => return self.finish(None).map(Some),
                // The server sends everything, tells where it ended, and only then what it thinks of it.
                Err(Trouble::Refused(said))
                    if self.end.is_some() && said.code == SqlState::DATA_CORRUPTED =>
                {
                    return self.finish(Some(said.to_string())).map(Some);
                }
                Err(trouble) => return Err(self.walsender.failure(&trouble)),
            }
        }
        Ok(None)
    }

    fn finish(&mut self, corrupt: Option<String>) -> Result<BackupEvent> {
        let Some((lsn, timeline)) = self.end else { return Err(self.walsender.unexpected()) };
        self.finished = true;
        let warnings = self.walsender.take_notices();
        Ok(BackupEvent::Finished { lsn, timeline, corrupt, warnings })
    }

    fn event(&mut self, incoming: Incoming) -> Result<Option<BackupEvent>> {
        let Incoming::Message(message) = incoming else { return Err(self.walsender.unexpected()) };
        match message {
            Message::RowDescription(_) | Message::CopyDone => Ok(None),
            Message::DataRow(body) => {
                let row = Row::of(&body).map_err(|why| self.walsender.failure(&why))?;
                if self.tables == 1 {
                    let tablespace = tablespace(&row).ok_or_else(|| self.walsender.unexpected())?;
                    self.tablespaces.push(tablespace);
                }
                self.row = Some(row);
                Ok(None)
            }
            // After the tables comes one more of these, for the command as a whole.
            Message::CommandComplete(_) => match self.row.take() {
                Some(row) => self.table(&row),
                None => Ok(None),
            },
            Message::CopyOutResponse(_) if self.one_copy => Ok(None),
            Message::CopyOutResponse(_) => Ok(Some(self.next_copy())),
            Message::CopyData(body) if self.one_copy => self.data(body.into_bytes()),
            Message::CopyData(body) => Ok(Some(self.piece(body.into_bytes()))),
            _ => Err(self.walsender.unexpected()),
        }
    }

    /// A table has ended: the start, the tablespaces, the end.
    fn table(&mut self, last: &Row) -> Result<Option<BackupEvent>> {
        self.tables += 1;
        if self.tables == 2 {
            return Ok(Some(BackupEvent::Tablespaces(self.tablespaces.clone())));
        }
        let position = last.parse(0).zip(last.parse(1).map(TimelineId));
        let Some((lsn, timeline)) = position else { return Err(self.walsender.unexpected()) };
        match self.tables {
            1 => Ok(Some(BackupEvent::Started { lsn, timeline })),
            3 => {
                self.end = Some((lsn, timeline));
                Ok(None)
            }
            _ => Err(self.walsender.unexpected()),
        }
    }

    /// PostgreSQL 14: the archives in the order of the tablespaces, then the manifest.
    fn next_copy(&mut self) -> BackupEvent {
        let Some(tablespace) = self.tablespaces.get(self.archives) else {
            self.in_manifest = true;
            return BackupEvent::ManifestBegin;
        };
        self.archives += 1;
        let name = tablespace.oid.map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar"));
        BackupEvent::ArchiveBegin { name, tablespace: tablespace.oid }
    }

    /// PostgreSQL 15 and later: each piece of data says what it is.
    fn data(&mut self, body: Bytes) -> Result<Option<BackupEvent>> {
        let message = BackupMessage::decode(body)
            .map_err(|why| self.walsender.failure(&Trouble::Broken(why.to_string())))?;
        match message {
            BackupMessage::Archive { name, location } => {
                let tablespace = match location {
                    None => None,
                    // `16384.tar.zst`
                    Some(_) => match name.split('.').next().and_then(|oid| oid.parse().ok()) {
                        Some(oid) => Some(oid),
                        None => return Err(self.walsender.unexpected()),
                    },
                };
                self.archives += 1;
                Ok(Some(BackupEvent::ArchiveBegin { name, tablespace }))
            }
            BackupMessage::Manifest => {
                self.in_manifest = true;
                Ok(Some(BackupEvent::ManifestBegin))
            }
            BackupMessage::Data(bytes) => Ok(Some(self.piece(bytes))),
            BackupMessage::Progress(bytes) => Ok(Some(BackupEvent::Progress(bytes))),
        }
    }

    fn piece(&self, bytes: Bytes) -> BackupEvent {
        if self.in_manifest { BackupEvent::ManifestData(bytes) } else { BackupEvent::ArchiveData(bytes) }
    }
}

/// A row of the table of tablespaces.
fn tablespace(row: &Row) -> Option<Tablespace> {
    let oid = match row.bytes(0) {
        Some(_) => Some(row.parse(0)?),
        None => None,
    };
    let location = match row.bytes(1) {
        Some(_) => row.parse(1)?,
        None => String::new(),
    };
    Some(Tablespace {
        oid,
        location,
        size_estimate: row.parse::<u64>(2).map(|kilobytes| kilobytes.saturating_mul(1024)),
    })
}
