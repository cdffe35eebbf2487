//! Reads an application's Python for what changes a database's schema behind Alembic's back, and for
//! secrets in code. Nothing of the application is imported or run; every file is parsed once.
//!
//! [`scan`] reads a tree; [`Report`] holds what was found. See docs/guide/scan.md for the rules.

mod allow;
mod allowed;
mod calls;
pub(crate) mod depth;
mod dialect;
mod facts;
mod files;
mod judge;
mod names;
mod project;
mod reach;
mod read;
mod roles;
mod roots;
mod secrets;
pub(crate) mod source;
pub(crate) mod sql;
mod swallow;
mod texts;
pub mod tickets;
mod tree;
mod walk;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use obyra_evidence::{Failure, Finding, Result, Severity, text};

pub use allowed::Allowed;
pub(crate) use calls::{OPERATES, SENDS, SENT_AS};
use facts::Module;
pub(crate) use facts::Trouble;
pub(crate) use judge::{trouble_message, unread_message};
pub(crate) use names::is_other_database;
use project::Project;
pub(crate) use read::troubles;
pub(crate) use roles::{is_main_guard, is_self, is_type_checking, last_name};
use source::{Source, Unread};
pub(crate) use swallow::{hides, suppression};

/// A tree is freed, and walked, by recursion; see [`source::DEPTH_MAX`].
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// What was found in a tree.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The findings, by place.
    pub findings: Vec<Finding>,
    /// Findings that a comment allows, with its reason.
    pub allowed: Vec<Allowed>,
    /// How many files were read.
    pub files: usize,
    /// Their size together.
    pub bytes: usize,
}

impl Report {
    /// Whether anything was found that must be mended.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Whether a finding points at a secret: its line must not be shown.
pub fn is_about_a_secret(finding: &Finding) -> bool {
    [text::scan::CONNECTION_STRING, text::scan::PASSWORD_IN_CODE, text::scan::DEFAULT_CREDENTIALS]
        .contains(&finding.message.code())
}

/// The Python files of a tree, in a stable order: not those of its environments, its builds or its packages.
pub(crate) fn python_files(root: &Path) -> Vec<PathBuf> {
    files::walk(root).files
}

/// Scans a folder, or one file.
pub fn scan(path: &Path) -> Result<Report> {
    let kind = std::fs::metadata(path).map_err(|error| {
        Failure::usage(text::scan::PATH_MISSING.with("path", path.display())).because(error)
    })?;
    let tree = if kind.is_dir() {
        files::walk(path)
    } else {
        files::Tree { files: vec![path.to_owned()], ..Default::default() }
    };
    let root = if kind.is_dir() { path } else { path.parent().unwrap_or(path) };
    let (modules, mut findings) = read_all(&tree.files, &|at| Source::read(&tree.files[at]))?;
    let unreadable = tree.unreadable.iter();
    findings
        .extend(unreadable.map(|(folder, said)| judge::unread(folder, &Unread::Unreadable(said.clone()))));
    let shown_root = if root == Path::new(".") { Path::new("") } else { root };
    let project = Project::new(shown_root, modules, &tree.script_folders);
    Ok(report(project, findings, &|name| roots::read(&root.join(name))))
}

/// Scans sources that are in memory: the path of each, and its bytes.
pub fn scan_sources(sources: &[(&str, &[u8])]) -> Result<Report> {
    let files: Vec<PathBuf> = sources.iter().map(|(file, _)| PathBuf::from(file)).collect();
    let (modules, findings) =
        read_all(&files, &|at| Source::decode(files[at].clone(), sources[at].1.to_vec()))?;
    let environments = files.iter().filter(|file| file.ends_with("env.py"));
    let script_folders = environments.filter_map(|file| Some(file.parent()?.to_owned())).collect();
    let project = Project::new(Path::new(""), modules, &script_folders);
    let beside = |name: &str| {
        let (_, bytes) = sources.iter().find(|(file, _)| *file == name)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    Ok(report(project, findings, &beside))
}

fn report(mut project: Project, mut findings: Vec<Finding>, beside: roots::Beside<'_>) -> Report {
    let roots = roots::of(&project, beside);
    findings.extend(judge::findings(&mut project, &roots));
    let allowed = allowed::apply(&project.modules, &mut findings);
    findings.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.cmp(b)));
    findings.dedup();
    Report {
        findings,
        allowed,
        files: project.modules.len(),
        bytes: project.modules.iter().map(|module| module.source.text.len()).sum(),
    }
}

type Load<'a> = &'a (dyn Fn(usize) -> std::result::Result<Source, Unread> + Sync);

/// Reads and parses all files on all processors. The order of the result is that of the files.
fn read_all(files: &[PathBuf], load: Load<'_>) -> Result<(Vec<Module>, Vec<Finding>)> {
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(files.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= files.len() {
                return done;
            }
            done.push((at, load(at).map(read::module)));
        }
    };
    let mut read = std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let threads = (0..workers).map(spawn).collect::<std::io::Result<Vec<_>>>();
        let threads = threads.map_err(|error| Failure::new(text::scan::NO_THREADS).because(error))?;
        let mut all = Vec::with_capacity(files.len());
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        Ok::<_, Failure>(all)
    })?;
    read.sort_by_key(|(at, _)| *at);
    let (mut modules, mut findings) = (Vec::with_capacity(read.len()), Vec::new());
    for (at, outcome) in read {
        match outcome {
            Ok(module) => modules.push(module),
            Err(why) => findings.push(judge::unread(&files[at], &why)),
        }
    }
    Ok((modules, findings))
}
