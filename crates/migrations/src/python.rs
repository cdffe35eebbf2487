//! Which Python runs the application and its migrations.
//!
//! The application's own environment where there is one; else one that is made in the
//! program's cache from its pinned requirements, once, and used offline ever after.

mod make;
mod requirements;

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::Result;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::Policy;

pub use make::Maker;

/// Where to look for an interpreter, and where to make an environment if need be.
#[derive(Clone, Debug)]
pub struct PythonSearch {
    /// The folder of the strategy file, where the application's `.venv` would be.
    pub project: PathBuf,
    /// The folder in which environments are made and kept.
    pub cache: PathBuf,
    /// The interpreter that the strategy names.
    pub configured: Option<PathBuf>,
    /// The environment that the user has activated (`$VIRTUAL_ENV`).
    pub activated: Option<PathBuf>,
    /// The packages of an environment that is made.
    pub requirements: PathBuf,
}

impl PythonSearch {
    /// The search that the policy describes, in this process's environment.
    pub fn new(policy: &Policy, project: &Path, cache: &Path) -> PythonSearch {
        PythonSearch {
            project: project.to_owned(),
            cache: cache.to_owned(),
            configured: policy.python.as_ref().map(|python| in_project(project, python)),
            activated: std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
            requirements: project.join(&policy.requirements),
        }
    }
}

/// An interpreter that has the application's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonEnvironment {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// The folder with the packages, where they are not the interpreter's own.
    pub path: Option<PathBuf>,
    /// How it was found.
    pub origin: Origin,
}

/// How an environment was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The strategy names it.
    Configured,
    /// It is the application's own, beside the strategy file.
    Application,
    /// The user has activated it.
    Activated,
    /// It was made from the requirements and is kept in the cache.
    Cached,
    /// It is the system's `python3`; there are no requirements to make one from.
    System,
}

impl PythonEnvironment {
    /// A command that runs this interpreter with these packages. It writes no bytecode beside the sources.
    #[expect(
        clippy::disallowed_methods,
        reason = "the application's interpreter is started here and nowhere else"
    )]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(path) = &self.path {
            let mut folders = vec![path.clone()];
            if let Some(others) = std::env::var_os("PYTHONPATH") {
                folders
                    .extend(std::env::split_paths(&others).filter(|folder| !folder.as_os_str().is_empty()));
            }
            if let Ok(joined) = std::env::join_paths(folders) {
                command.env("PYTHONPATH", joined);
            }
        }
        command
    }
}

/// Finds the application's Python, or makes one.
pub async fn find_or_make(search: &PythonSearch, progress: &dyn Progress) -> Result<PythonEnvironment> {
    if let Some(interpreter) = &search.configured {
        if !interpreter.is_file() {
            return Err(Failure::usage(
                text::migrations::PYTHON_NOT_FOUND.with("python", interpreter.display()),
            )
            .mended_by(text::migrations::MEND_PYTHON));
        }
        return Ok(found(interpreter.clone(), Origin::Configured));
    }
    let own = [".venv", "venv"].map(|name| (search.project.join(name), Origin::Application));
    let activated = search.activated.clone().map(|folder| (folder, Origin::Activated));
    for (folder, origin) in own.into_iter().chain(activated) {
        let interpreter = folder.join("bin/python");
        if interpreter.is_file() {
            return Ok(found(interpreter, origin));
        }
    }
    let Some(system) = on_path("python3").or_else(|| on_path("python")) else {
        return Err(Failure::new(text::migrations::PYTHON_NOT_FOUND.with("python", "python3"))
            .mended_by(text::migrations::MEND_PYTHON));
    };
    if !search.requirements.is_file() {
        return Ok(found(system, Origin::System));
    }
    make::cached(search, &system, progress).await
}

fn found(interpreter: PathBuf, origin: Origin) -> PythonEnvironment {
    // The driver runs in the application's folder: a relative path would lead elsewhere from there.
    // Not canonical: a virtual environment is known by the link, not by what it points to.
    let interpreter = std::path::absolute(&interpreter).unwrap_or(interpreter);
    PythonEnvironment { interpreter, path: None, origin }
}

/// A configured interpreter: a path in the project, or a bare name that PATH knows.
fn in_project(project: &Path, python: &Path) -> PathBuf {
    let bare = python.components().count() == 1;
    let known = bare.then(|| on_path(&python.to_string_lossy())).flatten();
    known.unwrap_or_else(|| project.join(python))
}

pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}
