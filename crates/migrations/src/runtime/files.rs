//! The files of runtime alterations: Python and SQL, which they are, and what identifies their content.

use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Finding, Place, Result, Severity, text};
use sha2::{Digest as _, Sha256};

use super::tokens::split;
use super::{Reading, Statement, python};
use crate::Policy;
use crate::scan::source::{Source, Unread};
use crate::scan::{self, unread_message};

/// The name that a helper goes by where the strategy does not say where it is.
const HELPER: &str = "migrations_runtime.py";
/// The folder of the exported files, in Alembic's.
const FOLDER: &str = "runtime";
/// A tree is freed, and walked, by recursion.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The files of a helper, as they are on disk.
#[derive(Debug)]
pub struct Helper {
    files: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    source: std::result::Result<Source, Unread>,
}

impl Helper {
    /// Reads files and folders. A folder stands for the Python and SQL in it and below.
    pub fn open(paths: &[PathBuf]) -> Result<Helper> {
        let mut files = Vec::new();
        for path in paths {
            let kind = fs::metadata(path).map_err(|error| {
                Failure::usage(text::scan::PATH_MISSING.with("path", path.display())).because(error)
            })?;
            if kind.is_dir() {
                let before = files.len();
                walk(path, &mut files)?;
                if files.len() == before {
                    return Err(Failure::usage(text::runtime::NOTHING_THERE.with("path", path.display()))
                        .mended_by(text::runtime::MEND_NOTHING_THERE));
                }
            } else if is_ours(path) {
                files.push(path.clone());
            } else {
                return Err(Failure::usage(text::runtime::NEITHER.with("path", path.display()))
                    .mended_by(text::runtime::MEND_NOTHING_THERE));
            }
        }
        files.dedup();
        let entry = |path: PathBuf| Entry { source: Source::read(&path), path };
        Ok(Helper { files: files.into_iter().map(entry).collect() })
    }

    /// What identifies the content, wherever the files lie: a hash over the hash of each.
    pub fn digest(&self) -> String {
        let mut all = Sha256::new();
        for entry in &self.files {
            all.update(entry.checksum());
        }
        hex(&all.finalize())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The paths, as the user named them.
    pub fn paths(&self) -> Vec<&Path> {
        self.files.iter().map(|entry| entry.path.as_path()).collect()
    }

    pub(super) fn files(&self) -> &[Entry] {
        &self.files
    }
}

impl Entry {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_sql(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "sql")
    }

    pub(super) fn source(&self) -> std::result::Result<&Source, &Unread> {
        self.source.as_ref()
    }

    /// SHA-256 of the text with line endings as `\n`, so that a checkout on Windows does not change it.
    pub(super) fn checksum(&self) -> String {
        let text = self.source.as_ref().map(|source| source.text.as_str()).unwrap_or_default();
        checksum(text)
    }
}

/// What identifies a text.
pub(super) fn checksum(text: &str) -> String {
    hex(&Sha256::digest(text.replace("\r\n", "\n").as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files and folders of a project's runtime alterations: what the policy names, else those that go by the
/// usual names.
pub fn found(policy: &Policy, project: &Path) -> Vec<PathBuf> {
    if let Some(path) = &policy.runtime {
        return vec![project.join(path)];
    }
    let tree = scan::python_files(project);
    let mut found: Vec<PathBuf> = tree.into_iter().filter(|file| file.ends_with(HELPER)).collect();
    let folder = folder(policy, project);
    let mut files = Vec::new();
    if folder.is_dir() && walk(&folder, &mut files).is_ok() && !files.is_empty() {
        found.push(folder);
    }
    found
}

/// Where exported files go, and where they are applied from.
pub fn folder(policy: &Policy, project: &Path) -> PathBuf {
    match &policy.runtime {
        Some(path) if path.extension().is_none() => project.join(path),
        _ => policy.directory_in(project).join(FOLDER),
    }
}

fn is_ours(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py" || extension == "sql")
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        Failure::new(text::runtime::UNREADABLE.with("path", folder.display())).because(error)
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !name.starts_with('.') && name != "__pycache__" {
            walk(&path, files)?;
        } else if kind.is_file() && is_ours(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the statements of a file.
pub(super) fn read(entry: &Entry) -> Reading {
    let error = |place: Place, message, mend| {
        let finding = Finding::new(Severity::Error, entry.path.display(), message).at(place).mended_by(mend);
        Reading { findings: vec![finding], ..Reading::default() }
    };
    let source = match &entry.source {
        Ok(source) => source,
        Err(why) => {
            let (message, mend) = unread_message(why);
            return error(Place { file: entry.path.clone(), line: 1, column: 1 }, message, mend);
        }
    };
    if !entry.is_sql() {
        return python::read(source);
    }
    if let Some(at) = source.foreign_byte {
        let place = source.place(u32::try_from(at).unwrap_or(u32::MAX).into());
        return error(place, text::runtime::SQL_NOT_UTF8.message(), text::scan::MEND_NOT_UTF8);
    }
    Reading { statements: statements(source), ..Reading::default() }
}

fn statements(source: &Source) -> Vec<Statement> {
    let pieces = split(&source.text).into_iter();
    let statement = |piece: super::tokens::Piece<'_>| Statement {
        place: source.place(u32::try_from(piece.at).unwrap_or(u32::MAX).into()),
        sql: piece.text.to_owned(),
        call: None,
        when: Vec::new(),
        caught: Vec::new(),
    };
    pieces.map(statement).collect()
}

/// Runs what recurses.
pub(super) fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Failure::new(text::scan::NO_THREADS).because(error))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_files_in_order_and_a_digest_is_of_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("002_b.sql", "SELECT 2;\n");
        write("001_a.sql", "SELECT 1;\n");
        write("__pycache__/x.py", "x");
        write("README.md", "about");
        let helper = Helper::open(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = helper.paths().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["001_a.sql", "002_b.sql"]);
        let before = helper.digest();
        write("001_a.sql", "SELECT 1;\r\n");
        assert_eq!(Helper::open(&[folder.path().to_owned()]).unwrap().digest(), before);
        write("001_a.sql", "SELECT 3;\n");
        assert_ne!(Helper::open(&[folder.path().to_owned()]).unwrap().digest(), before);
    }

    #[test]
    fn what_is_no_helper_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let code = |path: &Path| Helper::open(&[path.to_owned()]).unwrap_err().what.code();
        assert_eq!(code(folder.path()), text::runtime::NOTHING_THERE);
        assert_eq!(code(&folder.path().join("none.py")), text::scan::PATH_MISSING);
        let other = folder.path().join("x.txt");
        fs::write(&other, "").unwrap();
        assert_eq!(code(&other), text::runtime::NEITHER);
    }
}
