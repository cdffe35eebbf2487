//! What the program says and what it can prove: messages in two languages, findings,
//! failures, evidence records, the ledger they are kept in, and their renderings.
//!
//! This room knows nothing of PostgreSQL or of the strategy. Everything that reaches a
//! person passes through a [`Message`], so that its code stays stable and its sentence
//! is made only where it is printed.

mod failure;
mod finding;
mod message;
mod progress;
mod record;

pub use failure::{Exit, Failure};
pub use finding::{Finding, Place, Severity};
pub use message::{Code, Language, Message, text};
pub use progress::{Progress, Quiet};
pub use record::{Outcome, Record};
