//! Something that a person should know: a rule, a subject, a severity, and the mend.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::Message;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Should be mended.
    Warning,
    /// Must be mended: the command ends with exit code 2.
    Error,
}

/// A place in a file. Lines and columns count from 1; a column counts characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One finding. Its rule is the code of its message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// What it is about: `role obyra_app`, `table app.users`.
    pub subject: String,
    /// What was found.
    pub message: Message,
    /// Where, if in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<Message>,
}

impl Finding {
    /// A finding about a subject.
    pub fn new(severity: Severity, subject: impl fmt::Display, message: impl Into<Message>) -> Self {
        Finding { severity, subject: subject.to_string(), message: message.into(), place: None, mend: None }
    }

    /// Adds the place.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Adds what mends it.
    pub fn mended_by(mut self, mend: impl Into<Message>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}
