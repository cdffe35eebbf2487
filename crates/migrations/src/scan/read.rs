//! From the bytes of a file to what it tells: parse, walk once, ask what the calls mean, let the tree go.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::{Mod, ModModule, Stmt};
use ruff_python_parser::{Mode, ParseError, ParseOptions, Parsed, parse_unchecked};

use super::calls::Calls;
use super::facts::{BODY, Export, Module, Receiver, ScopeKind, Texts, Trouble};
use super::names::{self, Names};
use super::source::Source;
use super::walk::{Origin, Walk};
use super::{allow, texts};

/// Reads one file.
pub(super) fn module(source: Source) -> Module {
    let parsed = parse_unchecked(&source.text, ParseOptions::from(Mode::Module));
    let mut troubles = troubles(&source, parsed.errors());
    let allows = allow::comments(&source.text, parsed.tokens());
    let body: &[Stmt] = match parsed.syntax() {
        Mod::Module(ModModule { body, .. }) => body,
        Mod::Expression(_) => &[],
    };
    let walk = Walk::over(body, source.text.len());
    let too_deep = walk.too_deep;
    if too_deep {
        troubles.push(Trouble::TooDeep);
    }
    let mut module = understand(walk);
    module.source = source;
    module.allows = allows;
    module.troubles.extend(troubles);
    release(parsed, too_deep);
    module
}

/// Frees a tree. Freeing one that is too deep would overflow the stack: it is left to the process's end.
fn release(parsed: Parsed<Mod>, too_deep: bool) {
    if too_deep {
        std::mem::forget(parsed);
    }
}

fn understand(walk: Walk<'_>) -> Module {
    let names = Names::of(&walk);
    let mut calls = Calls::new(&names);
    for call in &walk.calls {
        calls.look_at(call);
    }
    calls.look_at_secrets();
    let (sites, executes, makes_app) = calls.done();
    let exports = if walk.has_ddl { exports(&names) } else { metadata_exports(&names) };
    let returns = if walk.has_ddl { returns(&names) } else { Vec::new() };
    let modules = || walk.imports.iter().map(|import| import.symbol.module.as_str());
    let speaks_postgres = modules().any(names::speaks_postgres);
    let speaks_other = modules().any(names::is_other_database);
    let is_bound = |name| walk.bindings.iter().any(|binding| binding.scope == BODY && binding.name == name);
    let is_revision = is_bound("revision") && is_bound("down_revision");
    drop(names);

    let mut scopes = walk.scopes;
    for (scope, parameters) in executes {
        scopes[scope as usize].executes = parameters;
    }
    for (scope, texts) in returns {
        scopes[scope as usize].returns = texts;
    }
    Module {
        source: Source { file: Default::default(), text: String::new(), foreign_byte: None },
        scopes,
        imports: walk.imports,
        mentions: walk.mentions,
        sites,
        exports,
        allows: Vec::new(),
        troubles: Vec::new(),
        makes_app,
        is_revision,
        speaks_postgres,
        speaks_other,
    }
}

/// What the names of the module, and of its classes, hold for others.
fn exports(names: &Names<'_, '_>) -> BTreeMap<String, Export> {
    let mut exports = metadata_exports(names);
    for binding in &names.walk.bindings {
        let scope = &names.walk.scopes[binding.scope as usize];
        let prefix = match scope.kind {
            ScopeKind::Body => String::new(),
            ScopeKind::Class if scope.parent == BODY => format!("{}.", scope.name),
            _ => continue,
        };
        let texts = match binding.origin {
            Origin::Value(value) => texts::of(names, value, binding.scope),
            Origin::Scope(_) | Origin::Element(..) | Origin::Import(_) | Origin::Parameter(_) => continue,
        };
        if !texts.is_empty() {
            let export = exports.entry(prefix + binding.name).or_default();
            merge(&mut export.texts, &texts);
        }
    }
    exports
}

/// Which names of the module are SQLAlchemy's metadata or tables.
fn metadata_exports(names: &Names<'_, '_>) -> BTreeMap<String, Export> {
    let in_body = names.walk.bindings.iter().filter(|binding| binding.scope == BODY);
    let found = in_body.filter_map(|binding| match binding.origin {
        Origin::Value(value) if Names::may_be_metadata(value) => {
            let known = names.metadata(value, BODY) == Receiver::Sqlalchemy
                || names.table(value, BODY) == Receiver::Sqlalchemy;
            known.then(|| (binding.name.to_owned(), Export { texts: Texts::default(), sqlalchemy: true }))
        }
        _ => None,
    });
    found.collect()
}

fn returns(names: &Names<'_, '_>) -> Vec<(u32, Texts)> {
    let mut returns: BTreeMap<u32, Texts> = BTreeMap::new();
    for (scope, value) in &names.walk.returns {
        merge(returns.entry(*scope).or_default(), &texts::of(names, value, *scope));
    }
    returns.into_iter().filter(|(_, texts)| !texts.is_empty()).collect()
}

/// Adds one to the other.
pub(super) fn merge(into: &mut Texts, from: &Texts) {
    into.statements.extend_from_slice(&from.statements);
    into.symbols.extend(from.symbols.iter().cloned());
    into.results.extend(&from.results);
    into.parameters.extend(&from.parameters);
}

/// The first error says what is wrong; those that follow are mostly its echo.
pub(crate) fn troubles(source: &Source, errors: &[ParseError]) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if let Some(at) = source.foreign_byte {
        let at = u32::try_from(at).unwrap_or(u32::MAX).into();
        troubles.push(Trouble::Encoding { at });
    }
    if let Some(error) = errors.first() {
        let at = error.location.start();
        let python2 = errors.iter().any(|error| {
            let start = usize::from(error.location.start()).min(source.text.len());
            is_python2(line_around(&source.text, start))
        });
        troubles.push(if python2 {
            Trouble::Python2 { at }
        } else {
            Trouble::Syntax { at, said: error.error.to_string() }
        });
    }
    troubles
}

fn line_around(text: &str, mut at: usize) -> &str {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    text[start..end].trim()
}

/// Whether a line is Python 2: `print x`, `raise E, "x"`, `exec "x"`.
fn is_python2(line: &str) -> bool {
    let argument = |word: &str| {
        let rest = line.strip_prefix(word).filter(|rest| rest.starts_with([' ', '\t']));
        rest.and_then(|rest| rest.trim_start().chars().next())
    };
    let begins_a_value = |c: char| c.is_alphanumeric() || "_\"'>%`".contains(c);
    argument("print").is_some_and(begins_a_value)
        || argument("exec").is_some_and(|c| "\"'".contains(c) || c.is_alphabetic())
        || line.starts_with("raise ") && line.contains(", ") && !line.contains('(')
}

/// The parameters of each function that reach a database.
pub(super) type Executes = BTreeMap<u32, BTreeSet<u16>>;
