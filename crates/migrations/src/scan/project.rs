//! All files together: what an import means, and what a name of one file is in another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::facts::{Argument, BODY, Callee, Export, Module, ScopeId, ScopeKind, Symbol, Texts};

/// Re-exports of re-exports that are followed.
const HOPS_MAX: usize = 8;

/// A scope of a file.
pub(super) type Node = (usize, ScopeId);

/// What a file is for, by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Application,
    Script,
    Test,
    Migration,
}

/// The files of a tree.
pub(super) struct Project {
    pub modules: Vec<Module>,
    pub purposes: Vec<Purpose>,
    /// Whether anything in it speaks to PostgreSQL.
    pub speaks_postgres: bool,
    index: HashMap<String, usize>,
    /// The folder of each file, relative to the root, as its parts.
    folders: Vec<Vec<String>>,
    /// The first parts that an import of this tree can have.
    tops: HashSet<String>,
}

/// A name in a file of the project: the file, and the names within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub module: usize,
    pub path: Vec<String>,
}

impl Project {
    pub fn new(root: &Path, modules: Vec<Module>, script_folders: &BTreeSet<PathBuf>) -> Self {
        let mut project = Project {
            purposes: Vec::with_capacity(modules.len()),
            speaks_postgres: modules.iter().any(|module| module.speaks_postgres),
            index: HashMap::new(),
            folders: Vec::with_capacity(modules.len()),
            tops: HashSet::new(),
            modules,
        };
        for at in 0..project.modules.len() {
            let module = &project.modules[at];
            let parts = parts(root, &module.source.file);
            project.purposes.push(purpose(module, &parts, script_folders));
            let mut key = parts.clone();
            if key.last().is_some_and(|last| last == "__init__") {
                key.pop();
            }
            project.tops.extend(key.iter().cloned());
            project.index.insert(key.join("/"), at);
            project.folders.push(parts[..parts.len().saturating_sub(1)].to_vec());
        }
        project
    }

    /// The file that `import` means in another one.
    pub fn module(&self, from: usize, level: u32, dotted: &str) -> Option<usize> {
        let folder = &self.folders[from];
        let path = dotted.replace('.', "/");
        if level > 0 {
            let up = usize::try_from(level).ok()?.checked_sub(1)?;
            let base = &folder[..folder.len().checked_sub(up)?];
            return self.at(base, &path);
        }
        if !self.tops.contains(dotted.split('.').next().unwrap_or_default()) {
            return None;
        }
        // Any folder above may be on the path: the project's own first.
        let source = ["src".to_owned()];
        self.at(&[], &path)
            .or_else(|| self.at(&source, &path))
            .or_else(|| (1..=folder.len()).find_map(|depth| self.at(&folder[..depth], &path)))
    }

    fn at(&self, folder: &[String], path: &str) -> Option<usize> {
        let base = folder.join("/");
        let key = match (base.as_str(), path) {
            ("", path) => path.to_owned(),
            (base, "") => base.to_owned(),
            (base, path) => format!("{base}/{path}"),
        };
        self.index.get(&key).copied()
    }

    /// Every file that an import executes: the module, its parents, and the names that are modules.
    pub fn executed_by(&self, from: usize, symbol: &Symbol) -> Vec<usize> {
        let mut executed = Vec::new();
        let mut prefix = String::new();
        for part in symbol.module.split('.').chain(symbol.path.first().map(String::as_str)) {
            if !prefix.is_empty() {
                prefix.push('.');
            }
            prefix.push_str(part);
            executed.extend(self.module(from, symbol.level, &prefix));
        }
        executed
    }

    /// What a symbol is in the project, through re-exports.
    pub fn target(&self, from: usize, symbol: &Symbol) -> Option<Target> {
        self.target_within(from, symbol, 0)
    }

    fn target_within(&self, from: usize, symbol: &Symbol, hops: usize) -> Option<Target> {
        if hops > HOPS_MAX {
            return None;
        }
        let mut dotted = symbol.module.clone();
        let mut path = symbol.path.as_slice();
        let mut module = self.module(from, symbol.level, &dotted);
        // `from app import extensions` and `app.extensions.db` name modules too.
        while let Some(name) = path.first() {
            if module.is_some_and(|module| self.defines(module, name)) {
                break;
            }
            let longer = if dotted.is_empty() { name.clone() } else { format!("{dotted}.{name}") };
            match self.module(from, symbol.level, &longer) {
                Some(submodule) => module = Some(submodule),
                None if module.is_some() => break,
                None => {}
            }
            dotted = longer;
            path = &path[1..];
        }
        let module = module?;
        let Some(name) = path.first() else { return Some(Target { module, path: Vec::new() }) };
        let here = Target { module, path: path.to_vec() };
        if self.defined(module, name) {
            return Some(here);
        }
        self.re_exported(module, name, &path[1..], hops).or(Some(here))
    }

    fn re_exported(&self, module: usize, name: &str, rest: &[String], hops: usize) -> Option<Target> {
        let imports = &self.modules[module].imports;
        imports.iter().filter(|import| import.scope == BODY).find_map(|import| {
            let star = import.bound == "*";
            if !star && import.bound != name {
                return None;
            }
            let mut symbol = import.symbol.clone();
            if star {
                symbol.path = vec![name.to_owned()];
            }
            symbol.path.extend_from_slice(rest);
            let target = self.target_within(module, &symbol, hops + 1)?;
            let found = !star || target.path.first().is_none_or(|name| self.defined(target.module, name));
            found.then_some(target)
        })
    }

    fn defines(&self, module: usize, name: &str) -> bool {
        self.defined(module, name)
            || self.modules[module].imports.iter().any(|import| import.scope == BODY && import.bound == name)
    }

    fn defined(&self, module: usize, name: &str) -> bool {
        let module = &self.modules[module];
        module.exports.contains_key(name)
            || module.scopes.iter().any(|scope| scope.parent == BODY && scope.name == name)
    }

    /// The function that a path names in a file: `["run"]`, `["Store", "run"]`.
    pub fn function(&self, target: &Target) -> Option<Node> {
        let scopes = &self.modules[target.module].scopes;
        let mut parent = BODY;
        let mut found = None;
        for name in &target.path {
            let at = scopes.iter().enumerate().skip(1).position(|(_, scope)| {
                scope.parent == parent && scope.name == *name && scope.kind != ScopeKind::Main
            })? + 1;
            parent = ScopeId::try_from(at).ok()?;
            found = Some((target.module, parent));
        }
        found
    }

    /// What a symbol exports.
    pub fn export(&self, from: usize, symbol: &Symbol) -> Option<(usize, &Export)> {
        let target = self.target(from, symbol)?;
        let export = self.modules[target.module].exports.get(&target.path.join("."))?;
        Some((target.module, export))
    }

    /// The functions that a callee may be.
    pub fn callees(&self, from: usize, callee: &Callee) -> Vec<Node> {
        match callee {
            Callee::Here(scope) => vec![(from, *scope)],
            Callee::Imported(symbol) => {
                let target = self.target(from, symbol);
                target.and_then(|target| self.function(&target)).into_iter().collect()
            }
            Callee::Method(name) => self.executing_methods(name),
        }
    }

    fn executing_methods(&self, name: &str) -> Vec<Node> {
        let mut found = Vec::new();
        for (at, module) in self.modules.iter().enumerate() {
            for (scope, function) in module.scopes.iter().enumerate() {
                let is_method = module.scopes[function.parent as usize].kind == ScopeKind::Class;
                if !function.executes.is_empty() && is_method && function.name == name {
                    found.extend(ScopeId::try_from(scope).map(|scope| (at, scope)));
                }
            }
        }
        found
    }

    /// Whether a function executes what an argument brings.
    pub fn executes(&self, (module, scope): Node, argument: &Argument) -> bool {
        let function = &self.modules[module].scopes[scope as usize];
        let index = match argument {
            Argument::Position(at) => {
                let bound = function.parameters.first().is_some_and(|name| super::roles::is_self(name));
                at + u16::from(bound)
            }
            Argument::Keyword(name) => {
                let at = function.parameters.iter().position(|parameter| parameter == name);
                match at.and_then(|at| u16::try_from(at).ok()) {
                    Some(at) => at,
                    None => return false,
                }
            }
        };
        function.executes.contains(&index)
    }

    /// All statements that a text can stand for, wherever they are written.
    pub fn statements(&self, from: usize, texts: &Texts) -> Vec<super::sql::Statement> {
        let mut out = Vec::new();
        self.gather(from, texts, &mut HashSet::new(), &mut out);
        out
    }

    fn gather<'p>(
        &'p self,
        from: usize,
        texts: &'p Texts,
        seen: &mut HashSet<*const Texts>,
        out: &mut Vec<super::sql::Statement>,
    ) {
        if !seen.insert(std::ptr::from_ref(texts)) {
            return;
        }
        out.extend_from_slice(&texts.statements);
        for result in &texts.results {
            self.gather(from, &self.modules[from].scopes[*result as usize].returns, seen, out);
        }
        for symbol in &texts.symbols {
            if let Some((module, export)) = self.export(from, symbol) {
                self.gather(module, &export.texts, seen, out);
            } else if let Some((module, scope)) =
                self.target(from, symbol).and_then(|target| self.function(&target))
            {
                self.gather(module, &self.modules[module].scopes[scope as usize].returns, seen, out);
            }
        }
    }

    /// Whether some function of the project has a name.
    pub fn has_function(&self, name: &str) -> bool {
        self.modules.iter().any(|module| {
            module.scopes.iter().any(|scope| scope.kind == ScopeKind::Function && scope.name == name)
        })
    }
}

/// The parts of a path below the root, the last without `.py`.
fn parts(root: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(root).unwrap_or(file);
    let relative = if relative.as_os_str().is_empty() { Path::new(file.file_name().unwrap_or_default()) } else { relative };
    relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

fn purpose(module: &Module, parts: &[String], script_folders: &BTreeSet<PathBuf>) -> Purpose {
    let file = &module.source.file;
    let (name, folders) = parts.split_last().map_or(("", parts), |(name, folders)| (name.as_str(), folders));
    let within = |names: &[&str]| folders.iter().any(|folder| names.contains(&folder.as_str()));
    let django = module.imports.iter().any(|import| import.symbol.module.starts_with("django.db.migrations"))
        || module.imports.iter().any(|import| {
            import.symbol.module == "django.db" && import.symbol.path == ["migrations"]
        });
    let in_script_folder = file.ancestors().skip(1).any(|folder| script_folders.contains(folder));
    if in_script_folder || module.is_revision || django && within(&["migrations"]) {
        Purpose::Migration
    } else if within(&["tests", "test", "testing", "fixtures"])
        || name.starts_with("test_")
        || name.ends_with("_test")
        || matches!(name, "conftest" | "tests")
    {
        Purpose::Test
    } else if within(&["scripts", "script", "bin", "tools", "examples", "docs", "benchmarks"]) {
        Purpose::Script
    } else {
        Purpose::Application
    }
}
