//! The SQLite file of the ledger: opening it, its append-only table, and what its errors mean.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::{GENESIS, Link, chain};
use crate::{Code, Failure, Result, text};

/// How long a process waits for another one's append. An append takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The table refuses everything but an INSERT that continues the chain. A REPLACE would delete
/// without firing the DELETE trigger; the INSERT trigger therefore refuses a number that exists.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS ledger (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        previous TEXT NOT NULL,
        record   TEXT NOT NULL,
        hash     TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TRIGGER IF NOT EXISTS ledger_refuses_update BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the evidence ledger is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS ledger_refuses_delete BEFORE DELETE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the evidence ledger is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS ledger_refuses_replace BEFORE INSERT ON ledger
        WHEN NEW.sequence <= (SELECT max(sequence) FROM ledger)
        BEGIN SELECT RAISE(ABORT, 'the evidence ledger is append-only'); END;
";
const SCHEMA_OBJECTS: i64 = 4;

const EVERY_LINK: &str = "SELECT sequence, previous, record, hash FROM ledger ORDER BY sequence";

/// The open file. The lock makes it shareable; between processes SQLite's own locks serve.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Mutex<Connection>,
    file: PathBuf,
}

impl Store {
    pub(super) fn create(file: &Path) -> Result<Store> {
        make_private(file).map_err(|e| io_failure(file, &e))?;
        let store = Store::connect(file)?;
        store.prepare().map_err(|e| store.failure(&e))?;
        Ok(store)
    }

    pub(super) fn open_readonly(file: &Path) -> Result<Store> {
        let absent =
            || said(text::evidence::LEDGER_ABSENT, file).mended_by(text::evidence::MEND_LEDGER_BEGIN);
        if !file.try_exists().map_err(|e| io_failure(file, &e))? {
            return Err(absent());
        }
        let store = Store::connect(file)?;
        let known = store.query_only().map_err(|e| store.failure(&e))?;
        if known { Ok(store) } else { Err(absent()) }
    }

    /// Opens for writing even where only reading is wanted: after a crash the reader has to roll the
    /// journal back. SQLite falls back to reading where the file may not be written.
    fn connect(file: &Path) -> Result<Store> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).map_err(|e| sql_failure(file, &e))?;
        let store = Store { connection: Mutex::new(connection), file: file.to_owned() };
        store.lock().busy_timeout(BUSY_TIMEOUT).map_err(|e| store.failure(&e))?;
        Ok(store)
    }

    /// The rollback journal (SQLite's default) leaves one file that can be copied and read from a
    /// read-only folder; EXTRA makes an append durable as soon as it returns.
    fn prepare(&self) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        if schema_objects(&connection)? < SCHEMA_OBJECTS {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(SCHEMA)?;
            transaction.commit()?;
        }
        Ok(())
    }

    fn query_only(&self) -> rusqlite::Result<bool> {
        let connection = self.lock();
        connection.pragma_update(None, "query_only", true)?;
        Ok(schema_objects(&connection)? > 0)
    }

    /// Appends a record.
    pub(super) fn append(&self, record: &str) -> Result<Link> {
        self.append_with(|transaction| append(transaction, record))
    }

    /// Appends records in one transaction.
    pub(super) fn append_all(&self, records: &[String]) -> Result<()> {
        self.append_with(|transaction| records.iter().try_for_each(|one| append(transaction, one).map(drop)))
    }

    /// Takes the write lock before the head is read, so that two processes continue one chain.
    fn append_with<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let done = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })();
        done.map_err(|e| self.failure(&e))
    }

    /// Shows the links to `visit`, until it breaks.
    pub(super) fn each(&self, order: Order, mut visit: impl FnMut(Link) -> Visit) -> Result<()> {
        let connection = self.lock();
        let failure = |e: rusqlite::Error| self.failure(&e);
        let direction = if order == Order::NewestFirst { " DESC" } else { "" };
        let mut statement = connection.prepare(&format!("{EVERY_LINK}{direction}")).map_err(failure)?;
        let mut rows = statement.query([]).map_err(failure)?;
        while let Some(row) = rows.next().map_err(failure)? {
            if visit(link(row).map_err(failure)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The highest number that SQLite remembers having given, which outlives a DELETE.
    pub(super) fn highest_ever(&self) -> Result<i64> {
        highest_ever(&self.lock()).map_err(|e| self.failure(&e))
    }

    /// Asks SQLite whether the pages of the file are whole.
    pub(super) fn check_pages(&self) -> Result<()> {
        let said_by_sqlite: String = self
            .lock()
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|e| self.failure(&e))?;
        if said_by_sqlite == "ok" { Ok(()) } else { Err(damaged(&self.file).because(said_by_sqlite)) }
    }

    /// A failure about this file.
    pub(super) fn said(&self, code: Code) -> Failure {
        said(code, &self.file)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, error: &rusqlite::Error) -> Failure {
        sql_failure(&self.file, error)
    }
}

/// From which end to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// What a visitor answers: go on, enough, or a failure.
pub(super) type Visit = Result<ControlFlow<()>>;

fn append(transaction: &Transaction<'_>, record: &str) -> rusqlite::Result<Link> {
    let sequence = highest_ever(transaction)? + 1;
    let last = "SELECT hash FROM ledger ORDER BY sequence DESC LIMIT 1";
    let previous = transaction
        .query_row(last, [], |row| row.get::<_, String>(0))
        .optional()?
        .unwrap_or_else(|| GENESIS.to_owned());
    let hash = chain::hash(&previous, sequence, record);
    transaction.execute(
        "INSERT INTO ledger (sequence, previous, record, hash) VALUES (?1, ?2, ?3, ?4)",
        params![sequence, previous, record, hash],
    )?;
    Ok(Link { sequence, previous, record: record.to_owned(), hash })
}

fn highest_ever(connection: &Connection) -> rusqlite::Result<i64> {
    let highest = "SELECT max(coalesce((SELECT max(sequence) FROM ledger), 0),
                              coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'ledger'), 0))";
    connection.query_row(highest, [], |row| row.get(0))
}

fn schema_objects(connection: &Connection) -> rusqlite::Result<i64> {
    let count =
        "SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'ledger' AND type IN ('table', 'trigger')";
    connection.query_row(count, [], |row| row.get(0))
}

fn link(row: &rusqlite::Row<'_>) -> rusqlite::Result<Link> {
    Ok(Link { sequence: row.get(0)?, previous: row.get(1)?, record: row.get(2)?, hash: row.get(3)? })
}

/// Makes the folder, and the file with mode 0600 before SQLite would make it with the umask's.
fn make_private(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn said(code: Code, file: &Path) -> Failure {
    Failure::new(code.with("file", file.display()))
}

fn damaged(file: &Path) -> Failure {
    said(text::evidence::LEDGER_DAMAGED, file).mended_by(text::evidence::MEND_LEDGER_KEEP)
}

fn full(file: &Path) -> Failure {
    said(text::evidence::LEDGER_FULL, file).mended_by(text::evidence::MEND_LEDGER_ROOM)
}

fn forbidden(file: &Path) -> Failure {
    said(text::evidence::LEDGER_FORBIDDEN, file).mended_by(text::evidence::MEND_LEDGER_RIGHTS)
}

fn io_failure(file: &Path, error: &io::Error) -> Failure {
    let failure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(file),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => forbidden(file),
        _ => said(text::evidence::LEDGER_FAILED, file).mended_by(text::evidence::MEND_LEDGER_RIGHTS),
    };
    failure.because(error)
}

fn sql_failure(file: &Path, error: &rusqlite::Error) -> Failure {
    let failure = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(file),
        Some(ErrorCode::DiskFull) => full(file),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => forbidden(file),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            said(text::evidence::LEDGER_BUSY, file).mended_by(text::evidence::MEND_LEDGER_WAIT)
        }
        _ => said(text::evidence::LEDGER_FAILED, file),
    };
    failure.because(error)
}
