//! Why a server did not let us in, and what mends it.

use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use obyra_evidence::{Failure, Message, text};
use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::Attempt;
use crate::ServerVersion;
use crate::sql::{ServerError, chain};
use text::postgres as say;

/// A failed attempt, with what it means for the next one.
pub(crate) struct Refusal {
    pub failure: Failure,
    /// The other way (plain after TLS, TLS after plain) may succeed.
    pub is_about_encryption: bool,
    /// No other host will be asked.
    pub is_final: bool,
}

impl Refusal {
    pub(crate) fn other(failure: Failure) -> Self {
        Refusal { failure, is_about_encryption: false, is_final: false }
    }

    pub(crate) fn about_encryption(failure: Failure) -> Self {
        Refusal { is_about_encryption: true, ..Refusal::other(failure) }
    }

    pub(crate) fn last(failure: Failure) -> Self {
        Refusal { is_final: true, ..Refusal::other(failure) }
    }
}

/// The server took longer than `connect_timeout`.
pub(crate) fn too_slow(attempt: &Attempt<'_>, limit: Duration) -> Refusal {
    Refusal::other(
        Failure::new(say::NO_ANSWER.with("server", attempt.host).with("seconds", limit.as_secs()))
            .mended_by(say::MEND_NO_ANSWER),
    )
}

/// The server is older than what the program knows.
pub(crate) fn too_old(attempt: &Attempt<'_>, version: ServerVersion) -> Failure {
    Failure::new(
        say::TOO_OLD
            .with("server", attempt.host)
            .with("version", version)
            .with("oldest", ServerVersion::OLDEST),
    )
    .mended_by(say::MEND_TOO_OLD)
}

/// What an error of the driver means.
pub(crate) fn of_driver(attempt: &Attempt<'_>, encrypted: bool, error: &tokio_postgres::Error) -> Refusal {
    if let Some(said) = error.as_db_error() {
        return by_server(attempt, encrypted, &said.into());
    }
    if let Some(io) = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        return by_io(attempt, io);
    }
    by_handshake(attempt, error)
}

/// What an error of the network or of TLS means.
pub(crate) fn by_io(attempt: &Attempt<'_>, error: &std::io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => Refusal::about_encryption(by_tls(attempt, tls)),
        None => by_network(attempt, error),
    }
}

fn by_network(attempt: &Attempt<'_>, error: &std::io::Error) -> Refusal {
    let server = attempt.host;
    let failure = match error.kind() {
        ErrorKind::ConnectionRefused => {
            Failure::new(say::REFUSED.with("server", server)).mended_by(say::MEND_REFUSED)
        }
        ErrorKind::NotFound => {
            Failure::new(say::NO_SOCKET.with("server", server)).mended_by(say::MEND_REFUSED)
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Failure::new(say::UNREACHABLE.with("server", server)).mended_by(say::MEND_NO_ANSWER)
        }
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
            Failure::new(say::HUNG_UP.with("server", server)).mended_by(say::MEND_SERVER_RESTART)
        }
        // The driver cannot read the answer as a message of the protocol.
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Other => {
            Failure::new(say::NOT_POSTGRESQL.with("server", server)).mended_by(say::MEND_NOT_POSTGRESQL)
        }
        _ => Failure::new(say::UNREACHABLE.with("server", server)),
    };
    Refusal::other(failure.because(error))
}

fn by_tls(attempt: &Attempt<'_>, error: &rustls::Error) -> Failure {
    let (what, mend): (Message, _) = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (say::WRONG_NAME.with("host", &attempt.host.name), say::MEND_WRONG_NAME),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (say::CERTIFICATE_EXPIRED.with("server", attempt.host), say::MEND_CERTIFICATE_EXPIRED),
        rustls::Error::InvalidCertificate(_) => {
            (say::NOT_TRUSTED.with("server", attempt.host), say::MEND_NOT_TRUSTED)
        }
        _ => (say::TLS_FAILED.with("server", attempt.host), say::MEND_TLS_FAILED),
    };
    Failure::new(what).because(error).mended_by(mend)
}

/// What the driver itself finds before or during authentication; it has only words for it.
fn by_handshake(attempt: &Attempt<'_>, error: &tokio_postgres::Error) -> Refusal {
    let words = chain(error);
    if words.contains("server does not support TLS") {
        return tls_refused(attempt);
    }
    if words.contains("channel binding") {
        return no_channel_binding(attempt, &words);
    }
    if words.contains("password missing") {
        return password_missing(attempt);
    }
    if error.is_closed() {
        return hung_up(attempt, &words);
    }
    handshake(attempt, &words)
}

/// The server does not offer TLS.
pub(crate) fn tls_refused(attempt: &Attempt<'_>) -> Refusal {
    let what = say::TLS_REFUSED.with("server", attempt.host).with("mode", attempt.target.ssl_mode());
    Refusal::about_encryption(Failure::new(what).mended_by(say::MEND_TLS_REFUSED))
}

/// The exchange cannot be bound to the channel, and must be.
pub(crate) fn no_channel_binding(attempt: &Attempt<'_>, words: &str) -> Refusal {
    let what = say::NO_CHANNEL_BINDING.with("server", attempt.host);
    Refusal::last(Failure::new(what).because(words).mended_by(say::MEND_CHANNEL_BINDING))
}

/// The server wants a password, and there is none.
pub(crate) fn password_missing(attempt: &Attempt<'_>) -> Refusal {
    let what = say::PASSWORD_MISSING.with("server", attempt.host).with("role", attempt.target.user());
    Refusal::last(Failure::new(what).mended_by(say::MEND_PASSWORD_MISSING))
}

/// The server went away in the middle.
pub(crate) fn hung_up(attempt: &Attempt<'_>, words: &str) -> Refusal {
    let what = say::HUNG_UP.with("server", attempt.host);
    Refusal::other(Failure::new(what).because(words).mended_by(say::MEND_SERVER_RESTART))
}

/// Any other trouble on the way in.
pub(crate) fn handshake(attempt: &Attempt<'_>, words: impl fmt::Display) -> Refusal {
    Refusal::other(Failure::new(say::HANDSHAKE.with("server", attempt.host)).because(words))
}

/// What the server's own words mean.
pub(crate) fn by_server(attempt: &Attempt<'_>, encrypted: bool, said: &ServerError) -> Refusal {
    let target = attempt.target;
    let about = |what: Message, mend: Message| Failure::new(what).because(said).mended_by(mend);
    let server = attempt.host;
    match said.code {
        SqlState::INVALID_PASSWORD => Refusal::last(about(
            say::WRONG_PASSWORD.with("role", target.user()).with("server", server),
            say::MEND_WRONG_PASSWORD.with("role", target.user()),
        )),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            // One code for two things; the function names the routine that raised it in any language.
            if said.routine.as_deref() == Some("ClientAuthentication") {
                return Refusal::about_encryption(about(
                    say::NO_HBA_ENTRY
                        .with("server", server)
                        .with("role", target.user())
                        .with("database", target.database())
                        .with("encryption", if encrypted { "TLS" } else { "no TLS" }),
                    say::MEND_NO_HBA_ENTRY.message(),
                ));
            }
            if said.routine.as_deref() == Some("auth_failed") {
                return Refusal::last(about(
                    say::NOT_RECOGNISED.with("role", target.user()).with("server", server),
                    say::MEND_NOT_RECOGNISED.message(),
                ));
            }
            Refusal::last(about(
                say::NO_ROLE.with("role", target.user()).with("server", server),
                say::MEND_NO_ROLE.with("role", target.user()),
            ))
        }
        SqlState::INVALID_CATALOG_NAME => Refusal::last(about(
            say::NO_DATABASE.with("database", target.database()).with("server", server),
            say::MEND_NO_DATABASE.with("database", target.database()),
        )),
        SqlState::INSUFFICIENT_PRIVILEGE => Refusal::last(about(
            say::NO_CONNECT.with("role", target.user()).with("database", target.database()),
            say::MEND_NO_CONNECT.with("role", target.user()).with("database", target.database()),
        )),
        SqlState::TOO_MANY_CONNECTIONS => Refusal::other(about(
            say::TOO_MANY_CONNECTIONS.with("server", server),
            say::MEND_TOO_MANY_CONNECTIONS.message(),
        )),
        SqlState::CANNOT_CONNECT_NOW => {
            Refusal::other(about(say::NOT_READY.with("server", server), say::MEND_SERVER_RESTART.message()))
        }
        _ => handshake(attempt, said),
    }
}
