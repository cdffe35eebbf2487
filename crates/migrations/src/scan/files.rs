//! Which files of a tree are the application's Python: not its environments, its builds or its packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold other people's code, or copies of this one.
const SKIPPED: [&str; 8] =
    ["venv", "env", "node_modules", "__pycache__", "build", "dist", "site-packages", "bower_components"];

/// The Python files of a tree, in a stable order.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Its files, as the user would name them.
    pub files: Vec<PathBuf>,
    /// Alembic's script folders: `env.py` beside `versions/` or `script.py.mako`.
    pub script_folders: BTreeSet<PathBuf>,
    /// Folders that could not be read, with the operating system's words.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Walks a folder. Symbolic links are not followed: what they lead to is scanned where it is, or is not
/// part of the tree.
pub(super) fn walk(root: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        match fs::read_dir(&folder) {
            Ok(entries) => visit(&folder, entries, &mut tree, &mut pending),
            Err(error) => tree.unreadable.push((folder, error.to_string())),
        }
    }
    tree.files.sort_unstable();
    tree
}

fn visit(folder: &Path, entries: fs::ReadDir, tree: &mut Tree, pending: &mut Vec<PathBuf>) {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let (mut env, mut versions, mut foreign) = (false, false, false);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        // A name that is no UTF-8 cannot be imported, yet may be run.
        let text = name.to_string_lossy();
        if kind.is_dir() {
            versions |= text == "versions";
            if !text.starts_with('.') && !text.ends_with(".egg-info") && !SKIPPED.contains(&text.as_ref()) {
                folders.push(join(folder, Path::new(&name)));
            }
        } else if kind.is_file() {
            env |= text == "env.py";
            versions |= text == "script.py.mako";
            foreign |= text == "pyvenv.cfg";
            if text.ends_with(".py") {
                files.push(join(folder, Path::new(&name)));
            }
        }
    }
    if foreign {
        return;
    }
    if env && versions {
        tree.script_folders.insert(folder.to_owned());
    }
    tree.files.append(&mut files);
    pending.append(&mut folders);
}

/// `./app.py` is shown as `app.py`.
fn join(folder: &Path, name: &Path) -> PathBuf {
    if folder == Path::new(".") { name.to_owned() } else { folder.join(name) }
}
