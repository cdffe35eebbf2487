//! The session that tells the server of the backup: the same one says when it begins and when it ends, and
//! a backup whose session is lost is none.

use obyra_evidence::{Failure, text};
use obyra_postgres::replication::Checkpoint;
use obyra_postgres::tokio_postgres::Row;
use obyra_postgres::tokio_postgres::types::ToSql;
use obyra_postgres::wal::{Lsn, TimelineId};
use obyra_postgres::{Conninfo, Limits, Session, sql_failure};

use crate::Result;

/// A session for a backup.
pub(super) struct BackupSession(Session);

/// What the server says at the end, word for word.
pub(super) struct Stopped {
    pub(super) stop: Lsn,
    pub(super) backup_label: String,
    pub(super) tablespace_map: Option<String>,
}

impl BackupSession {
    pub(super) async fn connect(target: &Conninfo) -> Result<BackupSession> {
        let session =
            Session::connect(target, Limits { lock_timeout: None, statement_timeout: None }).await?;
        // It says nothing for hours while files are read. And where we are gone, the server shall notice
        // even while it waits for the checkpoint.
        let patient = "SET idle_session_timeout = 0; SET client_connection_check_interval = '5s'";
        let what = || text::backup::TAKE_BEGIN.message();
        session.batch_execute(patient).await.map_err(|error| sql_failure(what(), &error))?;
        Ok(BackupSession(session))
    }

    pub(super) fn session(&self) -> &Session {
        &self.0
    }

    /// Where the server has its data.
    pub(super) async fn data_directory(&self) -> Result<String> {
        let row = self.0.query_one("SELECT current_setting('data_directory')", &[]).await;
        let what = || text::backup::TAKE_DATA_DIRECTORY.message();
        row.map(|row| row.get(0))
            .map_err(|error| sql_failure(what(), &error).mended_by(text::backup::TAKE_DATA_DIRECTORY_MEND))
    }

    /// Begins; returns when the checkpoint is written. WAL from the returned position of the returned timeline
    /// on belongs to the backup.
    pub(super) async fn begin(&self, label: &str, checkpoint: Checkpoint) -> Result<(Lsn, TimelineId)> {
        let fast = checkpoint == Checkpoint::Fast;
        let row = if self.0.version().at_least(15) {
            self.ask("SELECT pg_backup_start($1, $2)::text", &[&label, &fast]).await
        } else {
            self.ask("SELECT pg_start_backup($1, $2, false)::text", &[&label, &fast]).await
        };
        let start = row?.get::<_, String>(0).parse()?;
        let timeline = self.ask("SELECT timeline_id FROM pg_control_checkpoint()", &[]).await?;
        Ok((start, TimelineId(timeline.get::<_, i32>(0).cast_unsigned())))
    }

    /// Ends. It does not wait for an archive: that the WAL is kept is seen to elsewhere.
    pub(super) async fn end(&self) -> Result<Stopped> {
        let row = if self.0.version().at_least(15) {
            self.ask("SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)", &[]).await
        } else {
            self.ask("SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)", &[]).await
        }?;
        Ok(Stopped {
            stop: row.get::<_, String>(0).parse()?,
            backup_label: row.get(1),
            tablespace_map: Some(row.get::<_, String>(2)).filter(|map| !map.is_empty()),
        })
    }

    async fn ask(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        match self.0.query_one(statement, parameters).await {
            Ok(row) => Ok(row),
            Err(error) => {
                let failure = self.0.failure(text::backup::TAKE_BEGIN.message(), &error).await;
                Err(refusal(failure, &error))
            }
        }
    }
}

/// What a person can do about it.
fn refusal(failure: Failure, error: &obyra_postgres::tokio_postgres::Error) -> Failure {
    use obyra_postgres::tokio_postgres::error::SqlState;
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => failure.mended_by(text::backup::TAKE_PRIVILEGE_MEND),
        // "the standby was promoted during online backup"
        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => failure.mended_by(text::backup::TAKE_AGAIN_MEND),
        _ => failure,
    }
}
