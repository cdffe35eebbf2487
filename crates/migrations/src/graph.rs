//! Alembic's revisions as a graph, read from their files without running any of them.
//!
//! [`read`] parses the files of a script folder; [`check`] is a pure function from them to findings.

mod applied;
mod bodies;
mod check;
mod checksum;
mod file;
mod layout;
mod lineage;

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Place, Result, text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use applied::{Applied, edited};
pub use check::check;
pub use layout::Layout;

use crate::Policy;

/// A tree is freed, and walked, by recursion.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// How the files of revisions are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// As they like.
    #[default]
    Any,
    /// With the date first: `20260801_0900_create_users.py`. A folder then reads as a history.
    DateFirst,
    /// With the revision's identifier first, as Alembic does it: `3f2a91c0_create_users.py`.
    RevisionFirst,
}

/// What is agreed on for revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Convention {
    /// The names of their files.
    pub naming: Naming,
}

/// A value that a revision declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declared<T> {
    /// Not at all.
    Absent,
    /// As a constant.
    Known {
        /// The value.
        value: T,
        /// Where.
        place: Place,
    },
    /// Computed when the file is run.
    Dynamic {
        /// Where.
        place: Place,
    },
}

impl<T> Declared<T> {
    /// The value, if it is a constant.
    pub fn known(&self) -> Option<&T> {
        match self {
            Declared::Known { value, .. } => Some(value),
            Declared::Absent | Declared::Dynamic { .. } => None,
        }
    }

    /// Where it is declared.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Declared::Known { place, .. } | Declared::Dynamic { place } => Some(place),
            Declared::Absent => None,
        }
    }
}

/// What `upgrade` or `downgrade` does, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Where it is defined.
    pub place: Place,
    /// Its kind.
    pub kind: BodyKind,
}

/// The kinds of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// `pass`, `...` or a docstring.
    Empty,
    /// It raises at once: declared to be irreversible.
    Raises,
    /// It does something.
    Acts,
}

/// A table that a revision creates or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Its name, without a schema.
    pub table: String,
    /// Where.
    pub place: Place,
}

/// The file of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionFile {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// Its identifier.
    pub revision: Declared<String>,
    /// Its parents; none for a base.
    pub down_revision: Declared<Vec<String>>,
    /// Revisions or labels that must be applied before it.
    pub depends_on: Declared<Vec<String>>,
    /// The names of the branch that begins with it.
    pub branch_labels: Declared<Vec<String>>,
    /// `upgrade`, if it is defined.
    pub upgrade: Option<Body>,
    /// `downgrade`, if it is defined.
    pub downgrade: Option<Body>,
    /// Tables that `upgrade` creates.
    pub creates: Vec<Touch>,
    /// Tables that `upgrade` expects to exist.
    pub expects: Vec<Touch>,
    /// Whether `upgrade` does something whose tables the text does not tell.
    pub opaque: bool,
    /// The checksum of what it does; none where it is no Python.
    pub checksum: Option<String>,
    /// Whether Alembic reads this file at all.
    pub read_by_alembic: bool,
    /// Why the file could not be understood.
    pub trouble: Option<obyra_evidence::Finding>,
}

impl RevisionFile {
    /// A file's first line, where nothing more precise is known.
    pub fn first_line(&self) -> Place {
        Place { file: self.file.clone(), line: 1, column: 1 }
    }

    /// Where its identifier stands.
    pub fn place(&self) -> Place {
        self.revision.place().cloned().unwrap_or_else(|| self.first_line())
    }

    /// Whether it joins branches.
    pub fn is_merge(&self) -> bool {
        self.down_revision.known().is_some_and(|parents| parents.len() > 1)
    }
}

/// Reads the revisions of a project.
pub fn read(policy: &Policy, project: &Path) -> Result<Vec<RevisionFile>> {
    let layout = Layout::of(policy, project);
    let files = layout.files()?;
    on_a_large_stack(|| files.iter().map(|(file, read)| file::read(file, *read)).collect())
}

/// Reads revisions that are in memory: the path of each, and its text.
pub fn read_sources(sources: &[(&str, &str)]) -> Result<Vec<RevisionFile>> {
    let parse = |(file, text): &(&str, &str)| file::parse(Path::new(file), text.as_bytes().to_vec(), true);
    on_a_large_stack(|| sources.iter().map(parse).collect())
}

/// The checksum of what a revision's file does, as the ledger keeps it; none where it cannot be read.
pub fn checksum(file: &Path) -> Result<Option<String>> {
    on_a_large_stack(|| file::read(file, true).checksum)
}

fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Failure::new(text::scan::NO_THREADS).because(error))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
