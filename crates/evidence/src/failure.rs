//! The one shape of an error that reaches a person: what, where, why, and the command that mends it.

use std::fmt;

use crate::{Message, Place};

/// The program's exit codes (docs/exit-codes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or everything is in order.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// There is drift, or there are findings.
    Findings = 2,
    /// Refused for safety.
    Refused = 3,
    /// The command line or the strategy file is wrong.
    Usage = 64,
}

/// What went wrong, where, why, and what mends it.
///
/// Every room returns this, so that no error loses its hint or its exit code on the way up.
/// It never holds a secret.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit code that the program ends with.
    pub exit: Exit,
    /// What failed.
    pub what: Message,
    /// The place in a file, if a file is at fault.
    pub at: Option<Place>,
    /// What the server, the tool or the operating system said, in its own words.
    pub why: Option<String>,
    /// The command or change that mends it.
    pub mend: Option<Message>,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(what: impl Into<Message>) -> Self {
        Failure { exit: Exit::Failed, what: what.into(), at: None, why: None, mend: None }
    }

    /// Refused for safety: exit code 3.
    pub fn refused(what: impl Into<Message>) -> Self {
        Failure { exit: Exit::Refused, ..Failure::new(what) }
    }

    /// Wrong usage: exit code 64.
    pub fn usage(what: impl Into<Message>) -> Self {
        Failure { exit: Exit::Usage, ..Failure::new(what) }
    }

    /// Adds the reason in the words of whoever gave it.
    pub fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// Adds what mends it.
    pub fn mended_by(mut self, mend: impl Into<Message>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Adds the place.
    pub fn at(mut self, place: Place) -> Self {
        self.at = Some(place);
        self
    }
}

/// The short form, for logs: the place, what, why. Rendering for people is `render::failure`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.at {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.what)?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
