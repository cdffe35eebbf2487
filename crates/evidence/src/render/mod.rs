//! How findings, failures and evidence look: for people on a terminal, for machines as JSON,
//! for a pull request as Markdown, for a CI server as JUnit. Pure functions; the caller prints.

mod excerpt;
pub mod json;
pub mod junit;
pub mod markdown;
mod style;
pub mod terminal;

pub use excerpt::{Sources, from_disk};
pub use style::{Mark, Style, Tone};
