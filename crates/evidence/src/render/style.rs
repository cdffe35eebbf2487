//! Words first, colour second: every mark is readable without colour.

use anstyle::{AnsiColor, Effects};

use crate::{Language, Message, Outcome, Severity, text};

/// How a terminal is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences colour the words.
    pub colour: bool,
}

/// What a piece of text wants to say by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// In order.
    Good,
    /// Failed.
    Bad,
    /// Unknown, or worth a look.
    Doubtful,
    /// Of secondary interest.
    Quiet,
    /// A heading.
    Strong,
}

impl Style {
    /// `text` in a tone; without colour, `text` itself.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().effects(Effects::BOLD),
            Tone::Doubtful => AnsiColor::Yellow.on_default(),
            Tone::Quiet => anstyle::Style::new().effects(Effects::DIMMED),
            Tone::Strong => anstyle::Style::new().effects(Effects::BOLD),
        };
        format!("{style}{text}{style:#}")
    }
}

/// The mark that stands before a checked line or a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// In order.
    Passed,
    /// Changed, and verified.
    Changed,
    /// Not in order.
    Failed,
    /// Not observed: never green.
    Unknown,
    /// Not in order or not observed, and excused until a date.
    Waived,
}

impl Mark {
    /// All marks.
    pub const ALL: [Mark; 5] = [Mark::Passed, Mark::Changed, Mark::Failed, Mark::Unknown, Mark::Waived];

    /// The word of this mark: `ok`, `FAIL`.
    pub fn word(self, language: Language) -> String {
        let code = match self {
            Mark::Passed => text::evidence::MARK_PASSED,
            Mark::Changed => text::evidence::MARK_CHANGED,
            Mark::Failed => text::evidence::MARK_FAILED,
            Mark::Unknown => text::evidence::MARK_UNKNOWN,
            Mark::Waived => text::evidence::MARK_WAIVED,
        };
        code.message().say(language)
    }

    /// The word, coloured, and padded to the longest mark so that columns align.
    pub fn column(self, language: Language, style: Style) -> String {
        let word = self.word(language);
        let padding = " ".repeat(Mark::width(language) - word.chars().count());
        style.paint(self.tone(), &word) + &padding
    }

    /// The width of that column in characters.
    pub fn width(language: Language) -> usize {
        Mark::ALL.iter().map(|mark| mark.word(language).chars().count()).max().unwrap_or(0)
    }

    fn tone(self) -> Tone {
        match self {
            Mark::Passed | Mark::Changed => Tone::Good,
            Mark::Failed => Tone::Bad,
            Mark::Unknown | Mark::Waived => Tone::Doubtful,
        }
    }
}

impl From<Outcome> for Mark {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => Mark::Passed,
            Outcome::Changed => Mark::Changed,
            Outcome::Failed => Mark::Failed,
            Outcome::Unknown => Mark::Unknown,
        }
    }
}

impl Severity {
    pub(super) fn word(self) -> Message {
        match self {
            Severity::Error => text::evidence::WORD_ERROR.message(),
            Severity::Warning => text::evidence::WORD_WARNING.message(),
            Severity::Note => text::evidence::WORD_NOTE.message(),
        }
    }

    pub(super) fn tone(self) -> Tone {
        match self {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Doubtful,
            Severity::Note => Tone::Quiet,
        }
    }
}
