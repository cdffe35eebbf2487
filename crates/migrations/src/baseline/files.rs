//! The files: the new revision takes the place of the old ones, which move to the archive as they are.
//!
//! Two renames of whole folders. What is killed before the first has changed nothing; what is killed between them
//! is finished by whoever comes next; and no file is ever written over.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, text};
use obyra_postgres::Result;
use serde::Serialize;

use super::revision::Revision;
use crate::graph::{Layout, Naming, RevisionFile};
use crate::{Policy, graph};

/// The folder that will take the place of the old one. Its name begins with a dot: nobody reads it.
const STAGED: &str = ".versions-baseline";
const ARCHIVED: &str = "archived";
const SLUG_CHARS: usize = 40;

/// A folder with one revision, outside of the project, gone when it is dropped.
pub(super) struct Staged(PathBuf);

impl Staged {
    pub fn new() -> Result<Staged> {
        let name = format!("obyra-db-baseline-{}-{}", std::process::id(), next_number());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(|error| cannot_write(&folder, &error))?;
        Ok(Staged(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn put(&self, revision: &Revision) -> Result<()> {
        let file = self.0.join(format!("{}.py", revision.id));
        fs::write(&file, &revision.source).map_err(|error| cannot_write(&file, &error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn next_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What will be written and moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The new revision's file; none if the project has exactly this revision already.
    pub file: Option<PathBuf>,
    /// The folder that Alembic reads.
    pub versions: PathBuf,
    /// Where the old revisions will be; none if there are none.
    pub archive: Option<PathBuf>,
    /// The old revisions, as they are named now.
    pub archived: Vec<PathBuf>,
}

impl Change {
    /// Plans the change. `date` is as `20260801_0900`.
    pub fn plan(
        policy: &Policy,
        project: &Path,
        revision: &Revision,
        message: &str,
        date: &str,
    ) -> Result<Change> {
        let versions = versions(policy, project)?;
        let old = match fs::symlink_metadata(&versions) {
            Ok(_) => graph::read(policy, project)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(cannot_write(&versions, &error)),
        };
        let old: Vec<RevisionFile> = old
            .into_iter()
            .filter(|each| each.revision != graph::Declared::Absent || each.trouble.is_some())
            .collect();
        let known = |each: &RevisionFile| each.revision.known() == Some(&revision.id);
        let head = old.iter().find(|each| known(each));
        if head.is_some_and(|base| base.down_revision.known().is_some_and(Vec::is_empty)) {
            return Ok(Change { file: None, versions, archive: None, archived: Vec::new() });
        }
        let slug = slug(message);
        let name = match policy.gate.naming {
            Naming::RevisionFirst => format!("{}_{slug}.py", revision.id),
            Naming::DateFirst | Naming::Any => format!("{date}_{slug}.py"),
        };
        let archive = (!old.is_empty()).then(|| {
            let day = date.split('_').next().unwrap_or(date);
            free(&versions.with_file_name(ARCHIVED), &format!("{day}-{}", ends(&old)))
        });
        let archived = old.into_iter().map(|each| each.file).collect();
        Ok(Change { file: Some(versions.join(name)), versions, archive, archived })
    }

    /// Makes the change.
    pub fn make(&self, revision: &Revision) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let staged = self.versions.with_file_name(STAGED);
        let failed = |error: io::Error| cannot_write(&staged, &error);
        match fs::remove_dir_all(&staged) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::create_dir_all(&staged).map_err(failed)?;
        if let Ok(found) = fs::metadata(&self.versions) {
            fs::set_permissions(&staged, found.permissions()).map_err(failed)?;
            others(&self.versions, &staged).map_err(failed)?;
        }
        let named = staged.join(file.file_name().unwrap_or_default());
        let written = File::create_new(&named).and_then(|mut out| {
            out.write_all(revision.source.as_bytes())?;
            out.sync_all()
        });
        written.and_then(|()| sync(&staged)).map_err(failed)?;
        if self.versions.exists() {
            // A folder without a revision is kept as well: it may hold what only its owner knows.
            let archive = self
                .archive
                .clone()
                .unwrap_or_else(|| free(&self.versions.with_file_name(ARCHIVED), "empty"));
            let parent = archive.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
            fs::rename(&self.versions, &archive).map_err(|error| cannot_write(&archive, &error))?;
        }
        fs::rename(&staged, &self.versions).map_err(failed)?;
        sync(self.versions.parent().unwrap_or(Path::new("."))).map_err(failed)
    }
}

/// A change that was killed between its two renames: finishes it, and tells the folder.
pub fn unfinished(policy: &Policy, project: &Path, finish: bool) -> Result<Option<PathBuf>> {
    let versions = versions(policy, project)?;
    let staged = versions.with_file_name(STAGED);
    if versions.exists() || !staged.is_dir() {
        return Ok(None);
    }
    if finish {
        fs::rename(&staged, &versions).map_err(|error| cannot_write(&versions, &error))?;
    }
    Ok(Some(versions))
}

/// The one folder of revisions.
pub(crate) fn versions(policy: &Policy, project: &Path) -> Result<PathBuf> {
    let layout = Layout::of(policy, project);
    match layout.folders.as_slice() {
        [one] => Ok(one.clone()),
        several => {
            let folders: Vec<String> = several.iter().map(|folder| folder.display().to_string()).collect();
            Err(Failure::usage(text::baseline::SEVERAL_FOLDERS.with("folders", folders.join(", ")))
                .mended_by(text::baseline::MEND_SEVERAL_FOLDERS))
        }
    }
}

/// Copies what is no revision and may be needed: `__init__.py`, a README.
fn others(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let wanted = shown == "__init__.py" || !(shown.ends_with(".py") || shown.ends_with(".pyc"));
        if wanted && entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// The identifiers of the revisions that nothing follows, as a name for a folder.
fn ends(old: &[RevisionFile]) -> String {
    let followed: Vec<&String> = old.iter().filter_map(|each| each.down_revision.known()).flatten().collect();
    let ids = old.iter().filter_map(|each| each.revision.known());
    let mut ends: Vec<&str> = ids.filter(|id| !followed.contains(id)).map(String::as_str).collect();
    ends.sort_unstable();
    match ends.as_slice() {
        [] => "unknown".to_owned(),
        [one] => slug(one),
        [first, others @ ..] => format!("{}-and-{}-more", slug(first), others.len()),
    }
}

/// A name in a folder that nothing has yet.
fn free(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(name);
    let numbered = (2_u32..).map(|number| folder.join(format!("{name}-{number}")));
    std::iter::once(plain)
        .chain(numbered)
        .find(|path| fs::symlink_metadata(path).is_err())
        .unwrap_or_default()
}

/// `The schema as production has it` is `the_schema_as_production_has_it`.
pub(crate) fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let mut slug: String = words.join("_").chars().take(SLUG_CHARS).collect();
    slug.truncate(slug.trim_end_matches('_').len());
    if slug.is_empty() { "baseline".to_owned() } else { slug }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(text::baseline::CANNOT_WRITE.with("path", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert_eq!(slug("The schema, as production has it!"), "the_schema_as_production_has_it");
        assert_eq!(slug("año"), "a_o");
        assert_eq!(slug("…"), "baseline");
        assert_eq!(slug(&"x ".repeat(80)).len(), 39);
    }
}
