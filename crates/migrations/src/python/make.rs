//! An environment made from the application's requirements, kept in the cache under their digest.
//!
//! It is built beside its place and renamed into it, so that what is there is complete. Nothing
//! is written outside of the cache.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Progress, text};
use obyra_postgres::Result;
use serde::Deserialize;
use tokio::process::Command;

use super::requirements::Requirements;
use super::{Origin, PythonEnvironment, PythonSearch, on_path};

/// How many of the installer's last lines a failure shows.
const LINES_SHOWN: usize = 8;

/// Where a virtual environment has its interpreter, and where `pip install --target` puts the packages.
const OWN_INTERPRETER: &str = "bin/python";
const PACKAGES: &str = "packages";

/// What an interpreter can do, asked of itself.
const PROBE: &str = "import sys, json, importlib.util as u; print(json.dumps({
  'version': sys.version + sys.platform, 'short': '%d.%d.%d' % sys.version_info[:3],
  'ensurepip': u.find_spec('ensurepip') is not None,
  'pip': [int(n) for n in __import__('pip').__version__.split('.')[:2]] if u.find_spec('pip') else None}))";

/// The pip that can install into another interpreter's environment (`pip --python`).
const PIP_FOR_OTHERS: (u32, u32) = (22, 3);

/// The tool that makes an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// `uv venv` and `uv pip install`.
    Uv,
    /// `python -m venv` without a pip of its own: the interpreter's pip installs into it. Ten seconds less.
    Venv,
    /// `python -m venv` with a pip of its own, where the interpreter's is missing or old.
    VenvWithPip,
    /// `pip install --target`, where Python comes without ensurepip, as Debian's does.
    Target,
}

#[derive(Debug, Deserialize)]
struct Interpreter {
    version: String,
    short: String,
    ensurepip: bool,
    pip: Option<(u32, u32)>,
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
    for name in requirements.unpinned() {
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
    let own = place.join(OWN_INTERPRETER);
    let packages = place.join(PACKAGES);
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
    let clean = || [&build, &scratch].map(fs::remove_dir_all);
    let _ = clean();
    fs::create_dir_all(&scratch).map_err(|error| cannot_write(&scratch, error))?;
    let site = Site { project: &search.project, system, build: &build, scratch: &scratch };
    let makers = makers(on_path("uv").is_some(), interpreter);
    let result = install(&site, &makers, requirements).await;
    let result = result.and_then(|()| fs::rename(&build, place).map_err(|error| cannot_write(place, error)));
    let _ = clean();
    result
}

/// Where an environment is built.
struct Site<'a> {
    project: &'a Path,
    system: &'a Path,
    build: &'a Path,
    scratch: &'a Path,
}

async fn install(site: &Site<'_>, makers: &[Maker], wanted: &Requirements) -> Result<()> {
    for maker in makers {
        match maker.prepare(site).await {
            Ok(()) => return maker.install(site, wanted).await,
            // Some distributions ship an ensurepip that refuses to work; another maker may do.
            Err(_) => drop(fs::remove_dir_all(site.build)),
        }
    }
    Err(no_installer(site.system))
}

impl Maker {
    /// Makes the empty environment.
    async fn prepare(self, site: &Site<'_>) -> Result<()> {
        match self {
            Maker::Uv => {
                let venv = ["venv", "--quiet", "--no-project", "--python"];
                site.run(Path::new("uv"), |c| c.args(venv).arg(site.system).arg(site.build)).await
            }
            Maker::Venv => {
                site.run(site.system, |c| c.args(["-m", "venv", "--without-pip"]).arg(site.build)).await
            }
            Maker::VenvWithPip => site.run(site.system, |c| c.args(["-m", "venv"]).arg(site.build)).await,
            Maker::Target => Ok(()),
        }
    }

    /// Installs the packages into it.
    async fn install(self, site: &Site<'_>, wanted: &Requirements) -> Result<()> {
        let own = site.build.join(OWN_INTERPRETER);
        let install = ["install", "--quiet"];
        let pip = ["-m", "pip", "install", "--quiet"];
        match self {
            Maker::Uv => {
                let into = ["--compile-bytecode", "--python"];
                site.run(Path::new("uv"), |c| {
                    wanted.arguments(c.arg("pip").args(install).args(into).arg(&own))
                })
                .await
            }
            Maker::Venv => {
                let borrow = ["-m", "pip", "--python"];
                site.run(site.system, |c| wanted.arguments(c.args(borrow).arg(&own).args(install))).await
            }
            Maker::VenvWithPip => site.run(&own, |c| wanted.arguments(c.args(pip))).await,
            Maker::Target => {
                let packages = site.build.join(PACKAGES);
                site.run(site.system, |c| wanted.arguments(c.args(pip).arg("--target").arg(&packages))).await
            }
        }
    }
}

/// The makers to try, the best first.
fn makers(uv: bool, interpreter: &Interpreter) -> Vec<Maker> {
    let mut makers = Vec::new();
    makers.extend(uv.then_some(Maker::Uv));
    makers.extend(interpreter.pip.filter(|pip| *pip >= PIP_FOR_OTHERS).map(|_| Maker::Venv));
    makers.extend(interpreter.ensurepip.then_some(Maker::VenvWithPip));
    makers.extend(interpreter.pip.map(|_| Maker::Target));
    makers
}

impl Site<'_> {
    /// Runs an installer, which may write in this site only.
    #[expect(clippy::disallowed_methods, reason = "pip and uv are started here and nowhere else")]
    async fn run(&self, program: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
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
    let place = folder.join(key);
    let locked = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&folder)?;
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        file.flush()?;
        Ok::<_, std::io::Error>(file)
    });
    match locked.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(cannot_write(&place, error)),
        Err(error) => Err(cannot_write(&place, error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn able(ensurepip: bool, pip: Option<(u32, u32)>) -> Interpreter {
        Interpreter { version: String::new(), short: String::new(), ensurepip, pip }
    }

    #[test]
    fn the_best_maker_comes_first_and_the_others_stand_by() {
        use Maker::{Target, Uv, Venv, VenvWithPip};
        assert_eq!(makers(true, &able(true, Some((23, 0)))), [Uv, Venv, VenvWithPip, Target]);
        assert_eq!(makers(false, &able(true, Some((20, 3)))), [VenvWithPip, Target]);
        assert_eq!(makers(false, &able(true, None)), [VenvWithPip]);
        assert_eq!(makers(false, &able(false, Some((20, 3)))), [Target]);
        assert_eq!(makers(false, &able(false, None)), []);
    }

    /// Each maker that this machine has makes an environment that works.
    #[tokio::test]
    async fn every_maker_works() {
        let system = on_path("python3").expect("python3");
        let interpreter = probe(&system).await.expect("a working Python");
        let wheel = include_str!("../../tests/support/wheel.py");
        for maker in makers(on_path("uv").is_some(), &interpreter) {
            let folder = tempfile::tempdir().expect("a folder");
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("scratch")).expect("a folder");
            let build = at("build");
            let site =
                Site { project: folder.path(), system: &system, build: &build, scratch: &at("scratch") };
            site.run(&system, |c| c.args(["-c", wheel])).await.expect("a wheel");
            fs::write(at("requirements.txt"), "--no-index\n./tiny-1.0-py3-none-any.whl\n").expect("a file");
            let wanted = Requirements::read(&at("requirements.txt")).expect("requirements");
            install(&site, &[maker], &wanted).await.unwrap_or_else(|failure| panic!("{maker:?}: {failure}"));
            let python = ready(&build, &system).expect("an environment");
            assert_eq!(python.path.is_some(), maker == Maker::Target);
            let output = python.command().args(["-c", "import tiny; print(tiny.ANSWER)"]).output().await;
            assert_eq!(output.expect("it runs").stdout, b"42\n", "{maker:?}");
        }
    }
}
