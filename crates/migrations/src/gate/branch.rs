//! Which revisions a gate checks: those that the branch adds, the last ones, or all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::driver::{Graph, Revision};

/// Which revisions are checked one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those that the branch adds to `main`; without git, or on `main` itself, the last one.
    #[default]
    Branch,
    /// The last ones.
    Last(usize),
    /// All.
    All,
}

/// The revisions that are checked, and whether the branch chose them.
pub(super) fn checked(
    scope: Scope,
    graph: &Graph,
    added_files: Option<BTreeSet<PathBuf>>,
) -> (BTreeSet<String>, bool) {
    let last = |count: usize| {
        let skipped = graph.revisions.len().saturating_sub(count);
        graph.revisions.iter().skip(skipped).map(|revision| revision.id.clone()).collect()
    };
    match scope {
        Scope::All => (last(usize::MAX), false),
        Scope::Last(count) => (last(count), false),
        Scope::Branch => {
            let added = added(graph, &added_files.unwrap_or_default());
            if added.is_empty() { (last(1), false) } else { (added, true) }
        }
    }
}

fn added(graph: &Graph, files: &BTreeSet<PathBuf>) -> BTreeSet<String> {
    let is_added =
        |revision: &&Revision| revision.file.canonicalize().is_ok_and(|file| files.contains(&file));
    graph.revisions.iter().filter(is_added).map(|revision| revision.id.clone()).collect()
}

/// The files below the folders that the branch, or the work tree, adds to what `main` has, if the scope asks for them.
pub(super) async fn added_files(scope: Scope, folders: Vec<PathBuf>) -> Option<BTreeSet<PathBuf>> {
    if scope != Scope::Branch {
        return None;
    }
    let folders: Vec<PathBuf> = folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
    let folder = folders.first()?;
    let root = git(folder, &["rev-parse", "--show-toplevel"]).await?;
    let root = PathBuf::from(root.trim_end());
    // A package's folder may be elsewhere.
    let within =
        folders.iter().filter(|folder| folder.starts_with(&root)).filter_map(|folder| folder.to_str());
    let within: Vec<&str> = within.collect();
    let mut base = None;
    for main in ["origin/HEAD", "origin/main", "origin/master", "main", "master"] {
        base = git(folder, &["merge-base", "HEAD", main]).await;
        if base.is_some() {
            break;
        }
    }
    let base = base?;
    let changed = ["diff", "--name-only", "-z", "--diff-filter=AR", base.trim_end(), "--"];
    let untracked = ["ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--"];
    let mut files = BTreeSet::new();
    let (changed, untracked) = ([&changed[..], &within].concat(), [&untracked[..], &within].concat());
    for listed in [git(folder, &changed).await?, git(folder, &untracked).await?] {
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        files.extend(paths.filter_map(|path| root.join(path).canonicalize().ok()));
    }
    Some(files)
}

/// What git answers, if it is there and knows.
#[expect(clippy::disallowed_methods, reason = "the one place where git is asked")]
async fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
