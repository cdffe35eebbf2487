//! How findings, failures and evidence look: for people on a terminal, for machines as JSON,
//! for a pull request as Markdown, for a CI server as JUnit,
//! SARIF or annotations. Pure functions; the caller prints.

mod excerpt;
pub mod github;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod sarif;
mod style;
pub mod terminal;

pub use excerpt::{Sources, from_disk};
pub use style::{Mark, Style, Tone};
