//! All files together: what an import means, and what a name of one file is in another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ruff_python_ast::name::Name;

use super::facts::{Argument, BODY, Callee, Export, Module, ScopeId, ScopeKind, Symbol, Texts};
use super::roles::is_self;
use super::sql::Statement;
use super::tree::Tree;

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
    /// Methods that execute an argument, by name.
    executing: HashMap<Name, Vec<Node>>,
    /// The names of all functions that do.
    executing_names: HashSet<Name>,
    /// What an import means.
    pub tree: Tree,
}

/// A name in a file of the project: the file, and the names within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub module: usize,
    pub path: Vec<Name>,
}

impl Project {
    pub fn new(root: &Path, modules: Vec<Module>, script_folders: &BTreeSet<PathBuf>) -> Self {
        let mut project = Project {
            purposes: Vec::with_capacity(modules.len()),
            speaks_postgres: modules.iter().any(|module| module.speaks_postgres),
            executing: HashMap::new(),
            executing_names: HashSet::new(),
            tree: Tree::new(),
            modules,
        };
        for at in 0..project.modules.len() {
            let module = &project.modules[at];
            let parts = parts(root, &module.source.file);
            project.purposes.push(purpose(module, &parts, script_folders));
            project.tree.add(&parts);
        }
        project
    }

    /// What a symbol is in the project, through re-exports.
    pub fn target(&self, from: usize, symbol: &Symbol) -> Option<Target> {
        self.target_within(from, symbol, 0)
    }

    fn target_within(&self, from: usize, symbol: &Symbol, hops: usize) -> Option<Target> {
        if hops > HOPS_MAX {
            return None;
        }
        let mut dotted = symbol.module.to_string();
        let mut path = symbol.path.as_slice();
        let mut module = self.tree.module(from, symbol.level, &dotted);
        // `from app import extensions` and `app.extensions.db` name modules too.
        while let Some(name) = path.first() {
            if module.is_some_and(|module| self.defines(module, name)) {
                break;
            }
            let longer = if dotted.is_empty() { name.to_string() } else { format!("{dotted}.{name}") };
            match self.tree.module(from, symbol.level, &longer) {
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

    fn re_exported(&self, module: usize, name: &str, rest: &[Name], hops: usize) -> Option<Target> {
        let imports = &self.modules[module].imports;
        imports.iter().filter(|import| import.scope == BODY).find_map(|import| {
            let star = import.bound == "*";
            if !star && import.bound != name {
                return None;
            }
            let mut symbol = import.symbol.clone();
            if star {
                symbol.path = vec![Name::new(name)];
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
            Callee::Method(name) => self.executing.get(name.as_str()).cloned().unwrap_or_default(),
        }
    }

    /// Whether a callee can be a function that executes an argument: a cheap question before the dear one.
    pub fn may_execute(&self, from: usize, callee: &Callee) -> bool {
        match callee {
            Callee::Here(scope) => !self.modules[from].scopes[*scope as usize].executes.is_empty(),
            Callee::Imported(symbol) => {
                symbol.path.last().is_some_and(|name| self.executing_names.contains(name))
            }
            Callee::Method(name) => self.executing.contains_key(name.as_str()),
        }
    }

    /// Notes which functions execute an argument, after something was learned about them.
    pub fn note_executing(&mut self) {
        self.executing.clear();
        self.executing_names.clear();
        for (at, module) in self.modules.iter().enumerate() {
            for (scope, function) in module.scopes.iter().enumerate().filter(|(_, f)| !f.executes.is_empty())
            {
                self.executing_names.insert(function.name.clone());
                if module.scopes[function.parent as usize].kind == ScopeKind::Class {
                    let scope = ScopeId::try_from(scope).unwrap_or(ScopeId::MAX);
                    self.executing.entry(function.name.clone()).or_default().push((at, scope));
                }
            }
        }
        // `from store import run as go`, which others import as `go`.
        let imports = self.modules.iter().flat_map(|module| &module.imports);
        let renamed = imports.filter(|import| {
            import
                .symbol
                .path
                .last()
                .is_some_and(|name| *name != import.bound && self.executing_names.contains(name))
        });
        let renamed: Vec<Name> = renamed.map(|import| import.bound.clone()).collect();
        self.executing_names.extend(renamed);
    }

    /// Whether a function executes what an argument brings.
    pub fn executes(&self, (module, scope): Node, argument: &Argument) -> bool {
        let module = &self.modules[module];
        let function = &module.scopes[scope as usize];
        let index = match argument {
            Argument::Position(at) => {
                let first = function.parameters.first();
                at.saturating_add(u16::from(first.is_some_and(|name| is_self(module.text(*name)))))
            }
            Argument::Keyword(name) => {
                let at = function.parameters.iter().position(|parameter| module.text(*parameter) == name);
                match at.and_then(|at| u16::try_from(at).ok()) {
                    Some(at) => at,
                    None => return false,
                }
            }
        };
        function.executes.contains(&index)
    }

    /// All statements that a text can stand for, wherever they are written.
    pub fn statements(&self, from: usize, texts: &Texts) -> Vec<Statement> {
        let mut out = Vec::new();
        self.gather(from, texts, &mut HashSet::new(), &mut out);
        out
    }

    fn gather<'p>(
        &'p self,
        from: usize,
        texts: &'p Texts,
        seen: &mut HashSet<*const Texts>,
        out: &mut Vec<Statement>,
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
    let relative = if relative.as_os_str().is_empty() {
        Path::new(file.file_name().unwrap_or_default())
    } else {
        relative
    };
    relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

fn purpose(module: &Module, parts: &[String], script_folders: &BTreeSet<PathBuf>) -> Purpose {
    let file = &module.source.file;
    let (name, folders) = parts.split_last().map_or(("", parts), |(name, folders)| (name.as_str(), folders));
    let within = |names: &[&str]| folders.iter().any(|folder| names.contains(&folder.as_str()));
    let django = module.imports.iter().any(|import| import.symbol.module.starts_with("django.db.migrations"))
        || module
            .imports
            .iter()
            .any(|import| import.symbol.module == "django.db" && import.symbol.path == ["migrations"]);
    let named_test =
        name.starts_with("test_") || name.ends_with("_test") || matches!(name, "conftest" | "tests");
    // Tests of migrations may lie beside them.
    let in_script_folder =
        !named_test && file.ancestors().skip(1).any(|folder| script_folders.contains(folder));
    if in_script_folder || module.is_revision || django && within(&["migrations"]) {
        Purpose::Migration
    } else if named_test || within(&["tests", "test", "testing", "fixtures"]) {
        Purpose::Test
    } else if within(&["scripts", "script", "bin", "tools", "examples", "docs", "benchmarks"]) {
        Purpose::Script
    } else {
        Purpose::Application
    }
}
