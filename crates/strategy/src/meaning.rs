//! What a schema cannot say: values that contradict one another, names that nobody defines.

mod access;
mod backup;
mod notify;
mod reach;
mod times;

use std::collections::BTreeSet;

use obyra_evidence::{Message, Severity};

use crate::environment::{Declaration, Stage};
use crate::path::Path;
use crate::sections::Sections;

/// One environment as the checks see it.
pub(crate) struct Scene<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its own keys, if they could be read.
    pub(crate) own: Option<&'a Declaration>,
    /// Its sections, the common ones included.
    pub(crate) sections: &'a Sections,
    /// The names of the sections that the file holds for it.
    pub(crate) declared: &'a BTreeSet<String>,
    /// Where in the file it stands: of two that clash, the later one is told.
    pub(crate) position: usize,
    /// Whether all its schemas could be read; one that could not might have had any name.
    pub(crate) schemas_read: bool,
}

impl Scene<'_> {
    /// What the environment is for.
    pub(crate) fn stage(&self) -> Stage {
        let named = || Stage::named(self.name).unwrap_or(Stage::Production);
        self.own.map_or_else(named, |own| own.stage_of(self.name))
    }
}

/// Something that a check has to say about an environment.
pub(crate) struct Remark {
    /// How much it weighs.
    pub(crate) severity: Severity,
    /// Where, from the environment downwards: keys, and positions in lists.
    pub(crate) path: Vec<String>,
    /// What.
    pub(crate) message: Message,
    /// What mends it.
    pub(crate) mend: Option<Message>,
    /// The value whose absence is the complaint: it is not repeated when a fault took it out.
    pub(crate) absence: Option<Path>,
}

impl Remark {
    /// Something that is wrong.
    pub(crate) fn error<P: ToString>(path: &[P], message: impl Into<Message>) -> Self {
        Remark {
            severity: Severity::Error,
            path: path.iter().map(ToString::to_string).collect(),
            message: message.into(),
            mend: None,
            absence: None,
        }
    }

    /// Something that deserves a thought.
    pub(crate) fn warning<P: ToString>(path: &[P], message: impl Into<Message>) -> Self {
        Remark { severity: Severity::Warning, ..Remark::error(path, message) }
    }

    /// Adds what mends it.
    pub(crate) fn mended_by(mut self, mend: impl Into<Message>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Says that this is about something that is not there.
    pub(crate) fn of_absent(mut self, absent: Path) -> Self {
        self.absence = Some(absent);
        self
    }
}

/// Everything there is to remark on one environment among all of them.
pub(crate) fn remarks(scene: &Scene<'_>, all: &[Scene<'_>]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    reach::check(scene, all, &mut remarks);
    access::check(scene, all, &mut remarks);
    backup::check(scene, &mut remarks);
    notify::check(scene, all, &mut remarks);
    times::check(scene, &mut remarks);
    remarks
}
