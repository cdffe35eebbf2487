//! Proven statements as one Alembic revision, so that the helper can disappear. Its upgrade does nothing
//! where the helper has done it; its downgrade takes back what the upgrade did, and stops where rows would be
//! lost.

mod undo;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Message, Place, Result, text};
use serde::Serialize;

use super::check::Check;
use super::export::{proven, source};
use super::files::checksum;
use super::prove::Ground;
use super::trial::Pass;
use crate::Policy;
use crate::baseline::{execute, harmless, slug, versions};
use crate::graph::{self, Naming};

/// How many digits of the hash identify a revision: as many as Alembic's own.
const ID_DIGITS: usize = 12;
/// How far a statement is indented.
const INDENT: &str = "        ";

/// A revision that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// Its identifier: a hash of its statements.
    pub id: String,
    /// The revision that it follows.
    pub follows: Option<String>,
    /// Its file.
    pub file: PathBuf,
    /// The file's text.
    #[serde(skip)]
    pub source: String,
    /// How many statements it has.
    pub statements: usize,
    /// What its downgrade cannot take back.
    pub irreversible: Vec<String>,
    /// Statements that are not in it, and why.
    pub left_out: Vec<(Place, Message)>,
    /// The project has exactly this revision already.
    pub exists: bool,
}

/// Writes the revision of what a check has proven. `date` is as `20260801_0900`.
pub fn draft(
    check: &Check,
    ground: &Ground,
    (policy, project): (&Policy, &Path),
    (message, date): (&str, &str),
) -> Result<Draft> {
    if let Some(why) = &check.unreached {
        return Err(
            Failure::refused(text::runtime::UNRUN.with("why", why)).mended_by(text::runtime::MEND_UNRUN)
        );
    }
    let (proven, left_out) = proven(check, ground);
    if proven.is_empty() {
        return Err(
            Failure::usage(text::runtime::NOTHING_PROVEN).mended_by(text::runtime::MEND_NOTHING_PROVEN)
        );
    }
    let own = ground.search_path.first().map_or("public", String::as_str);
    let (mut upgrade, mut undo, mut irreversible) = (String::new(), undo::Undo::new(own), Vec::new());
    let mut ups = Vec::new();
    for (checked, guarded) in &proven {
        let _ = writeln!(upgrade, "    # {}", source(checked));
        upgrade += &execute(&guarded.written_at(INDENT));
        ups.push(guarded.written());
        match checked.twice.as_ref().map(|twice| &twice.first) {
            Some(Pass::Ran(ran)) => {
                if !undo.add(&ran.changes) || ran.rows + ran.updates > 0 {
                    irreversible.push(checked.title.clone());
                }
            }
            // What could not be run here left no trace to undo.
            Some(Pass::Skipped) => {}
            _ => irreversible.push(checked.title.clone()),
        }
    }
    let id = checksum(&ups.join("\0"))[..ID_DIGITS].to_owned();
    let revisions = graph::read(policy, project)?;
    let known: BTreeSet<&String> = revisions.iter().filter_map(|each| each.revision.known()).collect();
    let exists = known.contains(&id);
    let follows = head(&revisions)?;
    let name = match policy.gate.naming {
        Naming::RevisionFirst => format!("{id}_{}.py", slug(message)),
        Naming::DateFirst | Naming::Any => format!("{date}_{}.py", slug(message)),
    };
    let file = versions(policy, project)?.join(name);
    let source = written((&id, follows.as_deref()), message, &upgrade, &undo, &irreversible);
    Ok(Draft { id, follows, file, source, statements: proven.len(), irreversible, left_out, exists })
}

impl Draft {
    /// Writes the file. An existing one is never written over.
    pub fn write(&self) -> Result<()> {
        let written = File::create_new(&self.file).and_then(|mut file| {
            file.write_all(self.source.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| {
            Failure::new(text::runtime::CANNOT_WRITE.with("path", self.file.display())).because(error)
        })
    }
}

/// The one revision that nothing follows.
fn head(revisions: &[graph::RevisionFile]) -> Result<Option<String>> {
    let followed: BTreeSet<&String> =
        revisions.iter().filter_map(|each| each.down_revision.known()).flatten().collect();
    let heads: Vec<&String> = revisions
        .iter()
        .filter_map(|each| each.revision.known())
        .filter(|id| !followed.contains(id))
        .collect();
    match heads.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        several => {
            let heads: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
            Err(Failure::usage(text::runtime::SEVERAL_HEADS.with("heads", heads.join(", ")))
                .mended_by(text::runtime::MEND_SEVERAL_HEADS))
        }
    }
}

/// The file's text.
fn written(
    (id, follows): (&str, Option<&str>),
    message: &str,
    upgrade: &str,
    undo: &undo::Undo,
    irreversible: &[String],
) -> String {
    let message = harmless(message);
    let follows = follows.map_or_else(|| "None".to_owned(), |id| format!("\"{id}\""));
    let mut out = format!(
        "\"\"\"{}\n\nWritten by `obyra-db migrate runtime to-revision`. The upgrade does nothing \
         where the helper has done it.\n\
         Names without a schema belong to the first schema of the search path.\n\"\"\"\n\n\
         from alembic import op\n\nrevision = \"{id}\"\ndown_revision = {follows}\nbranch_labels = None\n\
         depends_on = None\n\n\ndef upgrade() -> None:\n{upgrade}\n\n",
        message.trim()
    );
    if irreversible.is_empty() {
        // The guard of the upgrade is the helper's; the downgrade has one of its own.
        out += "# obyra-db: allow[gate.guarded-upgrade] it stops where rows would be lost\n";
        out += "def downgrade() -> None:\n";
        let steps = undo.statements();
        steps.iter().for_each(|sql| out += &execute(sql));
        if steps.is_empty() {
            out += "    pass\n";
        }
        return out;
    }
    out += "def downgrade() -> None:\n";
    for title in irreversible {
        let _ = writeln!(out, "    # nothing takes this back: {}", harmless(title));
    }
    out += "    raise NotImplementedError(\"restore a backup\")  \
            # obyra-db: allow[gate.downgrade-failed] PostgreSQL cannot take all of it back\n";
    out
}
