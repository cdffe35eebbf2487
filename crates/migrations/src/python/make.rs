//! An environment made from the application's requirements, kept in the cache under their digest.
//!
//! It is built beside its place and renamed into it, so that what is there is complete. Nothing
//! is written outside of the cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::Result;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{Origin, PythonEnvironment, PythonSearch, on_path};

/// How many of the installer's last lines a failure shows.
const LINES_SHOWN: usize = 8;

/// What an interpreter can do, asked of itself.
const PROBE: &str = "import sys, json, importlib.util as u; print(json.dumps({
  'version': sys.version + sys.platform, 'short': '%d.%d.%d' % sys.version_info[:3],
  'ensurepip': u.find_spec('ensurepip') is not None, 'pip': u.find_spec('pip') is not None}))";

/// The tool that makes an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// `uv venv` and `uv pip install`.
    Uv,
    /// `python -m venv` and its pip.
    Venv,
    /// `pip install --target`, where Python comes without ensurepip, as Debian's does.
    Target,
}

#[derive(Debug, Deserialize)]
struct Interpreter {
    version: String,
    short: String,
    ensurepip: bool,
    pip: bool,
}

/// The environment in the cache; made if it is not there yet.
pub(super) async fn cached(
    search: &PythonSearch,
    system: &Path,
    progress: &dyn Progress,
) -> Result<PythonEnvironment> {
    let interpreter = probe(system).await?;
    let requirements = Requirements::read(&search.requirements)?;
    let key = requirements.key(&interpreter.version);
    let place = search.cache.join("python").join(&key);
    if let Some(ready) = ready(&place, system) {
        return Ok(ready);
    }
    let _lock = lock(search.cache.join("python"), &key).await?;
    if let Some(ready) = ready(&place, system) {
        return Ok(ready);
    }
    for name in &requirements.unpinned {
        progress.note(text::migrations::REQUIREMENT_NOT_PINNED.with("requirement", name));
    }
    progress.begin(text::migrations::MAKING_PYTHON.with("python", &interpreter.short), None);
    let made = make(search, system, &interpreter, &requirements, &place).await;
    progress.done();
    made?;
    ready(&place, system).ok_or_else(|| cannot_write(&place, "incomplete"))
}

/// The environment in a place, if a complete one is there.
fn ready(place: &Path, system: &Path) -> Option<PythonEnvironment> {
    let own = place.join("bin/python");
    let packages = place.join("packages");
    let (interpreter, path) = if own.is_file() {
        (own, None)
    } else if packages.is_dir() {
        (system.to_owned(), Some(packages))
    } else {
        return None;
    };
    let interpreter = std::path::absolute(&interpreter).unwrap_or(interpreter);
    let path = path.map(|path| std::path::absolute(&path).unwrap_or(path));
    Some(PythonEnvironment { interpreter, path, origin: Origin::Cached })
}

async fn make(
    search: &PythonSearch,
    system: &Path,
    interpreter: &Interpreter,
    requirements: &Requirements,
    place: &Path,
) -> Result<()> {
    // A build that was killed leaves its folder; whoever holds the lock may remove it.
    let build = place.with_extension("building");
    let scratch = place.with_extension("scratch");
    let clean = || [&build, &scratch].map(|folder| fs::remove_dir_all(folder));
    let _ = clean();
    fs::create_dir_all(&scratch).map_err(|error| cannot_write(&scratch, error))?;
    let site = Site { project: &search.project, build: &build, scratch: &scratch };
    let result = install(&site, system, interpreter, requirements).await;
    let result = result.and_then(|()| fs::rename(&build, place).map_err(|error| cannot_write(place, error)));
    let _ = clean();
    result
}

/// Where an environment is built.
struct Site<'a> {
    project: &'a Path,
    build: &'a Path,
    scratch: &'a Path,
}

async fn install(
    site: &Site<'_>,
    system: &Path,
    interpreter: &Interpreter,
    wanted: &Requirements,
) -> Result<()> {
    for maker in makers(on_path("uv").is_some(), interpreter)? {
        let prepared = match maker {
            Maker::Uv => {
                site.run("uv", |c| c.args(["venv", "--no-project", "--python"]).arg(system).arg(site.build))
                    .await
            }
            Maker::Venv => site.run(system, |c| c.args(["-m", "venv"]).arg(site.build)).await,
            Maker::Target => Ok(()),
        };
        // Some distributions ship an ensurepip that refuses to work; another maker may do.
        if prepared.is_err() && maker != Maker::Target {
            let _ = fs::remove_dir_all(site.build);
            continue;
        }
        let own = site.build.join("bin/python");
        let packages = site.build.join("packages");
        return match maker {
            Maker::Uv => {
                let uv = |c: &mut Command| {
                    c.args(["pip", "install", "--quiet", "--compile-bytecode", "--python"]).arg(&own);
                    wanted.arguments(c);
                };
                site.run("uv", |c| {
                    uv(c);
                    c
                })
                .await
            }
            Maker::Venv => {
                site.run(&own, |c| wanted.arguments(c.args(["-m", "pip", "install", "--quiet"]))).await
            }
            Maker::Target => {
                site.run(system, |c| {
                    wanted.arguments(c.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&packages))
                })
                .await
            }
        };
    }
    Err(no_installer(system))
}

/// The makers to try, the best first.
fn makers(uv: bool, interpreter: &Interpreter) -> Result<Vec<Maker>> {
    let mut makers = Vec::new();
    makers.extend(uv.then_some(Maker::Uv));
    makers.extend(interpreter.ensurepip.then_some(Maker::Venv));
    makers.extend(interpreter.pip.then_some(Maker::Target));
    if makers.is_empty() { Err(no_installer(Path::new("python3"))) } else { Ok(makers) }
}

impl Site<'_> {
    /// Runs an installer, which may write in this site only.
    #[expect(clippy::disallowed_methods, reason = "pip and uv are started here and nowhere else")]
    async fn run(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<()> {
        let mut command = Command::new(program);
        arguments(&mut command);
        command
            .current_dir(self.project_folder())
            .env_remove("PYTHONPATH")
            .env("TMPDIR", self.scratch)
            .env("UV_CACHE_DIR", self.scratch.join("uv"))
            .env("UV_PYTHON_DOWNLOADS", "never")
            .env("PIP_NO_CACHE_DIR", "1")
            .env("PIP_NO_INPUT", "1")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.map_err(|error| installer_failed(&error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(installer_failed(&String::from_utf8_lossy(&said)))
    }

    /// Requirements may name files relative to their own folder.
    fn project_folder(&self) -> &Path {
        if self.project.as_os_str().is_empty() { Path::new(".") } else { self.project }
    }
}

/// The requirements file with those that it includes.
#[derive(Debug, Default)]
struct Requirements {
    file: PathBuf,
    text: String,
    unpinned: BTreeSet<String>,
    hashed: bool,
}

impl Requirements {
    fn read(file: &Path) -> Result<Requirements> {
        let file = crate::driver::absolute(file)?;
        let mut requirements = Requirements { file: file.clone(), ..Requirements::default() };
        requirements.include(&file, &mut BTreeSet::new())?;
        Ok(requirements)
    }

    fn include(&mut self, file: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
        if !seen.insert(file.to_owned()) {
            return Ok(());
        }
        let text = fs::read_to_string(file).map_err(|error| {
            Failure::usage(text::migrations::PATH_UNREADABLE.with("path", file.display())).because(error)
        })?;
        self.text.push_str(&text);
        for line in text.lines().map(str::trim) {
            match included(line) {
                Some(name) => self.include(&file.with_file_name("").join(name), seen)?,
                None => self.note(line),
            }
        }
        Ok(())
    }

    fn note(&mut self, line: &str) {
        self.hashed |= line.contains("--hash=");
        let requirement = line.split(" #").next().unwrap_or("").trim_end_matches('\\').trim();
        let named = requirement.starts_with(|c: char| c.is_ascii_alphanumeric());
        if named && !["==", " @ ", "://"].iter().any(|exact| requirement.contains(exact)) {
            self.unpinned.insert(requirement.to_owned());
        }
    }

    /// The name of the environment: what goes into it, and for which interpreter.
    fn key(&self, version: &str) -> String {
        let digest =
            Sha256::new().chain_update(version).chain_update([0]).chain_update(&self.text).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn arguments<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.hashed {
            command.arg("--require-hashes");
        }
        command.arg("-r").arg(&self.file)
    }
}

/// The file that a line includes: `-r base.txt`, `--requirement=base.txt`, `-c constraints.txt`.
fn included(line: &str) -> Option<&str> {
    let (option, rest) = line.split_once([' ', '='])?;
    let name = rest.split(" #").next()?.trim();
    let includes = ["-r", "--requirement", "-c", "--constraint"].contains(&option);
    (includes && !name.is_empty() && !name.contains("://")).then_some(name)
}

#[expect(clippy::disallowed_methods, reason = "the interpreter says what it is")]
async fn probe(system: &Path) -> Result<Interpreter> {
    let output = Command::new(system).args(["-I", "-c", PROBE]).kill_on_drop(true).output().await;
    let output = output.map_err(|error| error.to_string()).and_then(|output| {
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    });
    output.map_err(|why| {
        Failure::new(text::migrations::PYTHON_NOT_STARTED.with("python", system.display()))
            .because(why)
            .mended_by(text::migrations::MEND_PYTHON)
    })
}

/// Keeps two programs from making the same environment at once. The lock ends with the file.
async fn lock(folder: PathBuf, key: &str) -> Result<File> {
    let path = folder.join(format!("{key}.lock"));
    let locked = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&folder)?;
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        file.flush()?;
        Ok::<_, std::io::Error>(file)
    });
    match locked.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(cannot_write(Path::new(key), error)),
        Err(error) => Err(cannot_write(Path::new(key), error)),
    }
}

fn cannot_write(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(text::migrations::PYTHON_CACHE_UNWRITABLE.with("path", path.display()))
        .because(why)
        .mended_by(text::migrations::MEND_PYTHON_CACHE)
}

fn no_installer(system: &Path) -> Failure {
    Failure::new(text::migrations::PYTHON_WITHOUT_PIP.with("python", system.display()))
        .mended_by(text::migrations::MEND_PYTHON_WITHOUT_PIP)
}

fn installer_failed(said: &str) -> Failure {
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    Failure::new(text::migrations::PYTHON_NOT_MADE)
        .because(last)
        .mended_by(text::migrations::MEND_PYTHON_NOT_MADE)
}
