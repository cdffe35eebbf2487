//! How a checklist looks: terminal, JSON, Markdown, JUnit. Pure functions; the caller prints.

mod json;
mod junit;
mod markdown;
mod terminal;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use obyra_evidence::{Language, Message, text::continuity};

use crate::Line;

pub use json::json;
pub use junit::junit;
pub use markdown::markdown;
pub use terminal::terminal;

/// What is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The environment.
    pub environment: &'a str,
    /// When it was observed.
    pub at: Timestamp,
    /// The lines, as `checklist` gave them.
    pub lines: &'a [Line],
}

impl Report<'_> {
    fn head(&self) -> Message {
        let at = self.at.strftime("%Y-%m-%d %H:%M UTC");
        continuity::CHECKLIST_HEAD.with("environment", self.environment).with("at", at)
    }

    /// The seven lines, and the others.
    fn parts(&self) -> (Vec<&Line>, Vec<&Line>) {
        self.lines.iter().partition(|line| line.id.is_checklist())
    }
}

/// The evidence of a line as sentences, with since when.
fn evidence(line: &Line, language: Language) -> Vec<String> {
    let since = line.since.map(|at| continuity::SINCE.with("at", at.strftime("%Y-%m-%d %H:%M UTC")));
    line.evidence.iter().chain(since.as_ref()).map(|message| message.say(language)).collect()
}
