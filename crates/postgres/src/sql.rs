//! What the server says when it refuses a statement, in one shape.

use std::error::Error as _;
use std::fmt::Write as _;

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
    let failure = Failure::new(what).because(server_words(said));
    match mend(said.code()) {
        Some(code) => failure.mended_by(code),
        None => failure,
    }
}

/// `ERROR 42P01: relation "x" does not exist; DETAIL: …; HINT: …`
pub(crate) fn server_words(said: &DbError) -> String {
    let mut words = format!("{} {}: {}", said.severity(), said.code().code(), said.message());
    for (label, part) in [("DETAIL", said.detail()), ("HINT", said.hint()), ("CONTEXT", said.where_())] {
        if let Some(part) = part {
            let _ = write!(words, "; {label}: {part}");
        }
    }
    words
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
