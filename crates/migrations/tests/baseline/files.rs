//! What is written and moved, and what becomes of it when the program is killed in the middle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use obyra_migrations::baseline::{Change, Revision, unfinished};
use obyra_migrations::graph::Naming;

use crate::support::{Project, code};

fn revision() -> Revision {
    let source =
        "revision = \"abc123\"\ndown_revision = None\n\n\ndef upgrade():\n    op.execute('SELECT 1')\n";
    Revision { id: "abc123".into(), source: source.into(), objects: 1 }
}

fn history() -> Project {
    let project = Project::new().revision("one", &[], "pass").revision("two", &["one"], "pass").revision(
        "three",
        &["one"],
        "pass",
    );
    fs::write(project.path().join("migrations/versions/__init__.py"), "").expect("a file");
    fs::write(project.path().join("migrations/versions/README"), "by hand").expect("a file");
    fs::create_dir(project.path().join("migrations/versions/__pycache__")).expect("a folder");
    project
}

fn change(project: &Project) -> Change {
    Change::plan(&project.policy, project.path(), &revision(), "The schema of 2026", "20260801_0900")
        .expect("a plan")
}

/// Every file below a folder, with its text.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, fs::read_to_string(entry.path()).expect("a text"));
            }
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    tree(folder).keys().map(|name| name.display().to_string()).collect()
}

#[test]
fn the_old_chain_moves_as_it_is() {
    let project = history();
    let before = tree(&project.path().join("migrations/versions"));
    let change = change(&project);
    assert_eq!(change.archived.len(), 3);
    change.make(&revision()).expect("files");
    let archive = project.path().join("migrations/archived/20260801-three-and-1-more");
    assert_eq!(tree(&archive), before);
    let versions = project.path().join("migrations/versions");
    assert_eq!(names(&versions), ["20260801_0900_the_schema_of_2026.py", "README", "__init__.py"]);
    assert_eq!(names(&project.path().join("migrations")).len(), 3 + 5 + 1, "and env.py");
    // A second run finds it done.
    let again = crate::files::change(&project);
    assert_eq!((again.file, again.archive), (None, None));
}

#[test]
fn names_follow_the_convention() {
    let mut project = history();
    project.policy.gate.naming = Naming::RevisionFirst;
    assert!(change(&project).file.expect("a file").ends_with("abc123_the_schema_of_2026.py"));
    // A second baseline of one day finds a name for its archive.
    let taken = project.path().join("migrations/archived/20260801-three-and-1-more");
    fs::create_dir_all(taken).expect("a folder");
    let archive = change(&project).archive.expect("an archive");
    assert!(archive.ends_with("20260801-three-and-1-more-2"), "{}", archive.display());
}

#[test]
fn what_was_killed_before_the_first_rename_has_changed_nothing() {
    let project = history();
    let before = tree(&project.path().join("migrations/versions"));
    let staged = project.path().join("migrations/.versions-baseline");
    fs::create_dir(&staged).expect("a folder");
    fs::write(staged.join("half.py"), "revision = ").expect("a file");
    assert_eq!(unfinished(&project.policy, project.path(), true).expect("a look"), None);
    assert_eq!(tree(&project.path().join("migrations/versions")), before);
    change(&project).make(&revision()).expect("files");
    assert!(!staged.exists() && !project.path().join("migrations/versions/half.py").exists());
}

#[test]
fn what_was_killed_between_the_renames_is_finished() {
    let project = history();
    let versions = project.path().join("migrations/versions");
    let before = tree(&versions);
    let archive = change(&project).archive.expect("an archive");
    let staged = project.path().join("migrations/.versions-baseline");
    fs::create_dir(&staged).expect("a folder");
    fs::write(staged.join("new.py"), revision().source).expect("a file");
    fs::create_dir_all(archive.parent().expect("a folder")).expect("a folder");
    fs::rename(&versions, &archive).expect("a rename");

    // Looking changes nothing.
    assert_eq!(unfinished(&project.policy, project.path(), false).expect("a look"), Some(versions.clone()));
    assert!(!versions.exists());
    assert_eq!(unfinished(&project.policy, project.path(), true).expect("a rename"), Some(versions.clone()));
    assert_eq!((names(&versions), tree(&archive)), (vec!["new.py".to_owned()], before));
    assert_eq!(change(&project).file, None);
    assert_eq!(unfinished(&project.policy, project.path(), true).expect("a look"), None);
}

#[test]
fn a_folder_that_cannot_be_written_stays_as_it_is() {
    let project = history();
    let before = tree(project.path());
    // Where the archive would be, there is a file.
    fs::write(project.path().join("migrations/archived"), "in the way").expect("a file");
    let failure = change(&project).make(&revision()).expect_err("no room");
    assert_eq!(code(&failure), "baseline.cannot-write");
    let mut after = tree(project.path());
    after.retain(|name, _| !name.starts_with("migrations/.versions-baseline") && !name.ends_with("archived"));
    assert_eq!(after, before);
}

#[test]
fn several_folders_of_revisions_are_refused() {
    let project = history();
    let ini = "[alembic]\nscript_location = migrations\nversion_locations = %(here)s/a %(here)s/b\n";
    fs::write(project.path().join("alembic.ini"), ini).expect("a file");
    let failure = Change::plan(&project.policy, project.path(), &revision(), "x", "20260801_0900");
    assert_eq!(code(&failure.expect_err("two folders")), "baseline.several-folders");
}

#[test]
fn a_project_without_revisions_gets_its_first() {
    let project = Project::new();
    let change = change(&project);
    assert_eq!((change.archive.as_ref(), change.archived.len()), (None, 0));
    change.make(&revision()).expect("files");
    assert_eq!(names(&project.path().join("migrations/versions")).len(), 1);
}
