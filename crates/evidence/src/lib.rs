//! What the program says and what it can prove: messages in two languages, findings,
//! failures, evidence records, the ledger they are kept in, and their renderings.
//!
//! This room knows nothing of PostgreSQL or of the strategy. Everything that reaches a
//! person passes through a [`Message`], so that its code stays stable and its sentence
//! is made only where it is printed.

mod bytes;
mod calendar;
mod duration;
mod failure;
mod finding;
mod ledger;
mod message;
mod progress;
mod record;
mod redact;
pub mod render;

pub use bytes::HumanBytes;
pub use calendar::{Clock, Every, NotAClock};
pub use duration::HumanDuration;
pub use failure::{Exit, Failure};
pub use finding::{Finding, Place, Severity};
pub use ledger::{Entry, Filter, GENESIS, Ledger, Verified};
pub use message::{Code, Language, Message, text};
pub use progress::{Progress, Quiet};
pub use record::{Outcome, Record};
pub use redact::{MASK, scrub, scrub_credentials};

/// What every room returns: a value, or the one shape of an error.
pub type Result<T> = std::result::Result<T, Failure>;
