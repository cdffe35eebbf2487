//! One revision's file: its constants, and what its two functions do.

use std::collections::HashMap;
use std::path::Path;

use obyra_evidence::{Finding, Message, Place, Severity, text};
use ruff_python_ast::{self as ast, Expr, Mod, ModModule, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::Ranged as _;

use super::bodies::{self, Tables};
use super::{Declared, RevisionFile, checksum};
use crate::scan::depth;
use crate::scan::source::{Source, Unread};
use crate::scan::{Trouble, trouble_message, troubles, unread_message};

/// Reads a file.
pub(super) fn read(file: &Path, read_by_alembic: bool) -> RevisionFile {
    match Source::read(file) {
        Ok(source) => understand(&source, read_by_alembic),
        Err(why) => troubled(file, &why, read_by_alembic),
    }
}

/// Parses a file's bytes.
pub(super) fn parse(file: &Path, bytes: Vec<u8>, read_by_alembic: bool) -> RevisionFile {
    match Source::decode(file.to_owned(), bytes) {
        Ok(source) => understand(&source, read_by_alembic),
        Err(why) => troubled(file, &why, read_by_alembic),
    }
}

fn blank(file: &Path, read_by_alembic: bool) -> RevisionFile {
    RevisionFile {
        file: file.to_owned(),
        revision: Declared::Absent,
        down_revision: Declared::Absent,
        depends_on: Declared::Absent,
        branch_labels: Declared::Absent,
        upgrade: None,
        downgrade: None,
        creates: Vec::new(),
        expects: Vec::new(),
        opaque: false,
        checksum: None,
        read_by_alembic,
        trouble: None,
    }
}

fn troubled(file: &Path, why: &Unread, read_by_alembic: bool) -> RevisionFile {
    let mut revision = blank(file, read_by_alembic);
    let (message, mend) = unread_message(why);
    revision.trouble = Some(trouble(&revision.first_line(), message, mend));
    revision
}

fn trouble(place: &Place, message: Message, mend: impl Into<Message>) -> Finding {
    Finding::new(Severity::Error, place.file.display(), message).at(place.clone()).mended_by(mend)
}

fn understand(source: &Source, read_by_alembic: bool) -> RevisionFile {
    let mut revision = blank(&source.file, read_by_alembic);
    let parsed = parse_unchecked(&source.text, ParseOptions::from(Mode::Module));
    let body: &[Stmt] = match parsed.syntax() {
        Mod::Module(ModModule { body, .. }) => body,
        Mod::Expression(_) => &[],
    };
    if depth::exceeds(body) {
        revision.trouble =
            Some(trouble(&revision.first_line(), text::scan::TOO_DEEP.into(), text::scan::MEND_TOO_LARGE));
        // Freeing a tree that is too deep would overflow the stack.
        std::mem::forget(parsed);
        return revision;
    }
    // A byte that is no UTF-8 does not keep the rest from being read.
    let unparsed =
        troubles(source, parsed.errors()).into_iter().find(|each| !matches!(each, Trouble::Encoding { .. }));
    if let Some(unparsed) = unparsed {
        let (at, message, mend) = trouble_message(&unparsed);
        revision.trouble = Some(trouble(&source.place(at), message, mend));
    } else {
        revision.checksum = Some(checksum::of(&source.text, body));
    }
    Constants { source, strings: HashMap::new() }.read(body, &mut revision);
    for stmt in body {
        let Stmt::FunctionDef(function) = stmt else { continue };
        match function.name.as_str() {
            "upgrade" => {
                revision.upgrade = Some(bodies::body(source, function));
                let Tables { creates, expects, opaque } = bodies::tables(source, body, function);
                (revision.creates, revision.expects, revision.opaque) = (creates, expects, opaque);
            }
            "downgrade" => revision.downgrade = Some(bodies::body(source, function)),
            _ => {}
        }
    }
    revision
}

/// The constants at the top of a file.
struct Constants<'s, 'a> {
    source: &'s Source,
    strings: HashMap<&'a str, &'a str>,
}

impl<'a> Constants<'_, 'a> {
    fn read(&mut self, body: &'a [Stmt], revision: &mut RevisionFile) {
        for stmt in body {
            match stmt {
                Stmt::Assign(assign) => {
                    for target in &assign.targets {
                        self.declared(target, &assign.value, revision);
                    }
                }
                Stmt::AnnAssign(ast::StmtAnnAssign { target, value: Some(value), .. }) => {
                    self.declared(target, value, revision);
                }
                _ => {}
            }
        }
    }

    fn declared(&mut self, target: &'a Expr, value: &'a Expr, revision: &mut RevisionFile) {
        let Expr::Name(name) = target else { return };
        match name.id.as_str() {
            "revision" => {
                revision.revision = self.declaration(target, self.string(value).map(str::to_owned));
            }
            "down_revision" => revision.down_revision = self.declaration(target, self.list(value)),
            "depends_on" => revision.depends_on = self.declaration(target, self.list(value)),
            "branch_labels" => revision.branch_labels = self.declaration(target, self.list(value)),
            other => {
                if let Some(text) = self.string(value) {
                    self.strings.insert(other, text);
                }
            }
        }
    }

    fn declaration<T>(&self, target: &Expr, value: Option<T>) -> Declared<T> {
        let place = self.source.place(target.start());
        match value {
            Some(value) => Declared::Known { value, place },
            None => Declared::Dynamic { place },
        }
    }

    fn string(&self, value: &'a Expr) -> Option<&'a str> {
        match value {
            Expr::StringLiteral(literal) => Some(literal.value.to_str()),
            Expr::Name(name) => self.strings.get(name.id.as_str()).copied(),
            _ => None,
        }
    }

    fn list(&self, value: &'a Expr) -> Option<Vec<String>> {
        let elements = match value {
            Expr::NoneLiteral(_) => return Some(Vec::new()),
            Expr::Tuple(tuple) => &tuple.elts,
            Expr::List(list) => &list.elts,
            Expr::Set(set) => &set.elts,
            other => return Some(vec![self.string(other)?.to_owned()]),
        };
        elements.iter().map(|element| self.string(element).map(str::to_owned)).collect()
    }
}
