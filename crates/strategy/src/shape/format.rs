//! Texts with a form of their own, by the name that the schema's `format` gives it.

use obyra_evidence::{Clock, HumanDuration, Message, text};

use crate::values::Network;

/// What is wrong with a text, and what it may have meant.
pub(super) struct Complaint {
    pub(super) message: Message,
    pub(super) mend: Option<Message>,
}

/// The complaint about a text that does not have this form. A form that is unknown here is
/// left to the type that reads it.
pub(super) fn check(format: &str, written: &str) -> Option<Complaint> {
    match format {
        "human-duration" if written.parse::<HumanDuration>().is_err() => {
            Some(plain(text::strategy::NOT_A_DURATION.message()))
        }
        "network" if written.parse::<Network>().is_err() => Some(Complaint {
            message: text::strategy::NOT_A_NETWORK.message(),
            mend: Network::meant_by(written)
                .map(|network| text::strategy::DID_YOU_MEAN.with("name", format!("\"{network}\""))),
        }),
        "clock" if written.parse::<Clock>().is_err() => Some(plain(text::strategy::NOT_A_CLOCK.message())),
        "identifier" if !is_identifier(written) => Some(plain(text::strategy::NOT_AN_IDENTIFIER.message())),
        "store" if !is_store(written) => Some(plain(text::strategy::NOT_A_STORE.message())),
        "name" if !is_name(written) => Some(plain(text::strategy::NOT_A_NAME.message())),
        "date" if written.parse::<jiff::civil::Date>().is_err() => {
            Some(plain(text::strategy::NOT_A_DATE.message()))
        }
        _ => None,
    }
}

fn plain(message: Message) -> Complaint {
    Complaint { message, mend: None }
}

/// What PostgreSQL can name without cutting it short.
fn is_identifier(written: &str) -> bool {
    !written.is_empty() && written.len() <= 63 && !written.chars().any(char::is_control)
}

/// What can also be the name of a folder and of a variable.
fn is_name(written: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    written.starts_with(|c: char| c.is_ascii_alphanumeric())
        && written.len() <= 63
        && written.chars().all(plain)
}

fn is_store(written: &str) -> bool {
    ["file://", "s3://", "gs://", "az://"]
        .iter()
        .any(|scheme| written.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}
