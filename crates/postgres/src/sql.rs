//! What the server says when it refuses a statement, in one shape.

use std::error::Error as _;
use std::fmt::{self, Write as _};

use obyra_evidence::{Code, Failure, Message, text};
use tokio_postgres::error::{DbError, SqlState};

/// The failure of a statement: what was attempted, the server's own words, and a mend where one is known.
///
/// The server's message is kept word for word: for `42501 insufficient_privilege` it names
/// the object, and no paraphrase of ours would be as exact.
pub fn sql_failure(what: Message, error: &tokio_postgres::Error) -> Failure {
    let Some(said) = error.as_db_error() else {
        let failure = Failure::new(what).because(chain(error));
        return if error.is_closed() {
            failure.mended_by(text::postgres::MEND_SERVER_RESTART)
        } else {
            failure
        };
    };
    server_failure(what, &said.into())
}

/// The same for what was already taken apart.
pub(crate) fn server_failure(what: Message, said: &ServerError) -> Failure {
    let failure = Failure::new(what).because(said);
    match mend(&said.code) {
        Some(code) => failure.mended_by(code),
        None => failure,
    }
}

/// What a server says when it refuses, whichever client heard it.
#[derive(Clone, Debug)]
pub(crate) struct ServerError {
    pub severity: String,
    pub code: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
    /// The function of the server that raised it: the same in every language, and finer than the code.
    pub routine: Option<String>,
}

impl From<&DbError> for ServerError {
    fn from(said: &DbError) -> Self {
        ServerError {
            severity: said.severity().to_owned(),
            code: said.code().clone(),
            message: said.message().to_owned(),
            detail: said.detail().map(str::to_owned),
            hint: said.hint().map(str::to_owned),
            context: said.where_().map(str::to_owned),
            routine: said.routine().map(str::to_owned),
        }
    }
}

/// `ERROR 42P01: relation "x" does not exist; DETAIL: …; HINT: …`
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code.code(), self.message)?;
        for (label, part) in [("DETAIL", &self.detail), ("HINT", &self.hint), ("CONTEXT", &self.context)] {
            if let Some(part) = part {
                write!(f, "; {label}: {part}")?;
            }
        }
        Ok(())
    }
}

/// An error with its causes, the outermost first.
pub(crate) fn chain(error: &tokio_postgres::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(words, ": {inner}");
        cause = inner.source();
    }
    words
}

fn mend(code: &SqlState) -> Option<Code> {
    use text::postgres as say;
    Some(match *code {
        SqlState::INSUFFICIENT_PRIVILEGE => say::MEND_PRIVILEGE,
        SqlState::LOCK_NOT_AVAILABLE => say::MEND_LOCK_TIMEOUT,
        SqlState::QUERY_CANCELED => say::MEND_STATEMENT_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION => say::MEND_READ_ONLY,
        SqlState::DISK_FULL => say::MEND_DISK_FULL,
        SqlState::OUT_OF_MEMORY => say::MEND_OUT_OF_MEMORY,
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            say::MEND_SERVER_RESTART
        }
        _ => return None,
    })
}
