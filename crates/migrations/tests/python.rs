//! The application's Python: found where it is, else made once and used offline ever after.

use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Exit, Failure, Quiet};
use obyra_migrations::python::Origin;
use obyra_migrations::{PythonEnvironment, PythonSearch, find_or_make};
use tempfile::TempDir;

/// A project whose only requirement is a wheel beside it, so that no network is needed.
struct Project(TempDir);

impl Project {
    fn new() -> Project {
        let project = Project(tempfile::tempdir().expect("a folder"));
        fs::create_dir(project.path("project")).expect("a folder");
        make_wheel(&project.path("project"));
        project.require("./tiny-1.0-py3-none-any.whl\n");
        project
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn require(&self, requirements: &str) {
        let text = format!("--no-index\n{requirements}");
        fs::write(self.path("project/requirements.txt"), text).expect("requirements");
    }

    fn search(&self) -> PythonSearch {
        PythonSearch {
            project: self.path("project"),
            cache: self.path("cache"),
            configured: None,
            activated: None,
            requirements: self.path("project/requirements.txt"),
        }
    }

    async fn python(&self) -> Result<PythonEnvironment, Failure> {
        find_or_make(&self.search(), &Quiet).await
    }

    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache/python")).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }
}

/// Writes the wheel into a folder.
fn make_wheel(folder: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the test makes its own package")]
    let mut python = std::process::Command::new("python3");
    let made = python.args(["-c", include_str!("support/wheel.py")]).current_dir(folder).status();
    assert!(made.expect("python3").success());
}

async fn answer(python: &PythonEnvironment) -> String {
    let output =
        python.command().args(["-c", "import tiny; print(tiny.ANSWER)"]).output().await.expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn an_environment_is_made_once_and_then_works_offline() {
    let project = Project::new();
    let (one, two) = tokio::join!(project.python(), project.python());
    let (made, same) = (one.unwrap(), two.unwrap());
    assert_eq!((made.origin, &made), (Origin::Cached, &same));
    assert_eq!(answer(&made).await, "42");
    assert_eq!(project.kept().len(), 1, "{:?}", project.kept());

    // Without the package nothing could be installed: what is there is used.
    fs::remove_file(project.path("project/tiny-1.0-py3-none-any.whl")).unwrap();
    assert_eq!(project.python().await.unwrap(), made);

    // Other requirements are another environment, which cannot be made now.
    project.require("./tiny-1.0-py3-none-any.whl\n# changed\n");
    let failure = project.python().await.unwrap_err();
    assert_eq!(failure.what.code().id(), "migrations.python-not-made");
    assert_eq!(project.kept().len(), 1, "{:?}", project.kept());
}

#[tokio::test]
async fn an_environment_that_was_not_finished_is_made_again() {
    let project = Project::new();
    let made = project.python().await.unwrap();
    let place = project.path("cache/python").join(&project.kept()[0]);
    fs::rename(&place, place.with_extension("building")).unwrap();
    assert_eq!(project.python().await.unwrap(), made);
    assert_eq!(answer(&made).await, "42");
    assert_eq!(project.kept().len(), 1, "{:?}", project.kept());
}

#[tokio::test]
async fn what_cannot_be_installed_is_told_with_the_installer_s_words() {
    let project = Project::new();
    project.require("nowhere==1.0\n");
    let failure = project.python().await.unwrap_err();
    assert_eq!(failure.what.code().id(), "migrations.python-not-made");
    assert!(failure.to_string().contains("nowhere"), "{failure}");
    assert_eq!(failure.mend.unwrap().code().id(), "migrations.mend-python-not-made");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let project = Project::new();
    fs::write(project.path("cache"), "a file").unwrap();
    let failure = project.python().await.unwrap_err();
    assert_eq!(failure.what.code().id(), "migrations.python-cache-unwritable");
}

fn touch(file: &Path) {
    fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
    fs::write(file, "").expect("a file");
}

#[tokio::test]
async fn what_is_nearer_wins() {
    let project = Project::new();
    fs::remove_file(project.path("project/requirements.txt")).unwrap();
    assert_eq!(project.python().await.unwrap().origin, Origin::System);

    touch(&project.path("activated/bin/python"));
    let mut search = PythonSearch { activated: Some(project.path("activated")), ..project.search() };
    assert_eq!(find_or_make(&search, &Quiet).await.unwrap().origin, Origin::Activated);
    touch(&project.path("project/venv/bin/python"));
    let own = find_or_make(&search, &Quiet).await.unwrap();
    assert_eq!((own.origin, own.interpreter), (Origin::Application, project.path("project/venv/bin/python")));

    search.configured = Some(project.path("nowhere"));
    let failure = find_or_make(&search, &Quiet).await.unwrap_err();
    assert_eq!((failure.what.code().id(), failure.exit), ("migrations.python-not-found", Exit::Usage));
    touch(&project.path("nowhere"));
    assert_eq!(find_or_make(&search, &Quiet).await.unwrap().origin, Origin::Configured);
}
