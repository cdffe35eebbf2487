//! The folders and files of a tree as Python's packages and modules.

use std::collections::HashMap;

use super::facts::Symbol;

/// A folder or a module.
type Id = usize;

const ROOT: Id = 0;

/// Where the modules stand.
pub(super) struct Tree {
    folders: Vec<Folder>,
    /// The folder that each module's relative imports begin from.
    home: Vec<Id>,
}

#[derive(Default)]
struct Folder {
    parent: Id,
    children: HashMap<String, Id>,
    /// The module here, or the `__init__` of the package.
    module: Option<usize>,
}

impl Tree {
    pub fn new() -> Self {
        Tree { folders: vec![Folder::default()], home: Vec::new() }
    }

    /// Adds the next module; the last of its parts is its name.
    pub fn add(&mut self, parts: &[String]) {
        let module = self.home.len();
        let (name, folders) =
            parts.split_last().map_or(("", parts), |(name, folders)| (name.as_str(), folders));
        let home = folders.iter().fold(ROOT, |folder, part| self.child_or_new(folder, part));
        self.home.push(home);
        let place = if name == "__init__" { home } else { self.child_or_new(home, name) };
        // A package hides a module of the same name, as in Python.
        if name == "__init__" || self.folders[place].module.is_none() {
            self.folders[place].module = Some(module);
        }
    }

    fn child_or_new(&mut self, folder: Id, name: &str) -> Id {
        if let Some(child) = self.folders[folder].children.get(name) {
            return *child;
        }
        let child = self.folders.len();
        self.folders.push(Folder { parent: folder, ..Folder::default() });
        self.folders[folder].children.insert(name.to_owned(), child);
        child
    }

    /// The module that a name means in another one.
    pub fn module(&self, from: usize, level: u32, dotted: &str) -> Option<usize> {
        self.folders[self.find(from, level, dotted)?].module
    }

    /// Every module that an import executes: the module, its parents, and a name that is a module.
    pub fn executed_by(&self, from: usize, symbol: &Symbol, mut each: impl FnMut(usize)) {
        let Some(mut place) = self.find(from, symbol.level, &symbol.module) else { return };
        let name = symbol.path.first();
        if let Some(child) = name.and_then(|name| self.folders[place].children.get(name.as_str())) {
            place = *child;
        }
        while place != ROOT {
            if let Some(module) = self.folders[place].module {
                each(module);
            }
            place = self.folders[place].parent;
        }
    }

    fn find(&self, from: usize, level: u32, dotted: &str) -> Option<Id> {
        let home = self.home[from];
        if level > 0 {
            let base = (1..level)
                .try_fold(home, |folder, _| (folder != ROOT).then(|| self.folders[folder].parent))?;
            return self.below(base, dotted);
        }
        // Any folder above may be on the path: the project's own first, the nearest last.
        let source = self.folders[ROOT].children.get("src").copied();
        let near = || {
            let mut above = vec![home];
            while let Some(last) = above.last().filter(|last| **last != ROOT) {
                above.push(self.folders[*last].parent);
            }
            above.into_iter().rev().find_map(|folder| self.below(folder, dotted))
        };
        self.below(ROOT, dotted).or_else(|| self.below(source?, dotted)).or_else(near)
    }

    fn below(&self, folder: Id, dotted: &str) -> Option<Id> {
        if dotted.is_empty() {
            return Some(folder);
        }
        dotted.split('.').try_fold(folder, |folder, part| self.folders[folder].children.get(part).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_modules_as_python_does() {
        let mut tree = Tree::new();
        for path in
            ["app/__init__", "app/db", "app/api/users", "back/core/x", "back/core/y", "src/lib/z", "app"]
        {
            tree.add(&path.split('/').map(str::to_owned).collect::<Vec<_>>());
        }
        assert_eq!(tree.module(2, 0, "app"), Some(0));
        assert_eq!(tree.module(2, 0, "app.db"), Some(1));
        assert_eq!(tree.module(2, 2, "db"), Some(1));
        assert_eq!(tree.module(0, 1, "db"), Some(1));
        assert_eq!(tree.module(2, 9, "db"), None);
        assert_eq!(tree.module(3, 0, "core.y"), Some(4));
        assert_eq!(tree.module(0, 0, "core.y"), None);
        assert_eq!(tree.module(0, 0, "lib.z"), Some(5));
        assert_eq!(tree.module(0, 0, "os.path"), None);
        let symbol = Symbol { level: 0, module: "app".into(), path: vec!["db".into()] };
        let mut executed = Vec::new();
        tree.executed_by(2, &symbol, |module| executed.push(module));
        assert_eq!(executed, [1, 0]);
    }
}
