//! What one file tells about itself, without its syntax tree.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::name::Name;
use ruff_text_size::{TextRange, TextSize};

use super::source::Source;
use super::sql::Statement;

/// A scope of a file: its body, its `if __name__ == "__main__"`, a function or a class.
pub(super) type ScopeId = u32;

/// The body of the file.
pub(super) const BODY: ScopeId = 0;

/// A scope.
#[derive(Debug)]
pub(super) struct Scope {
    pub kind: ScopeKind,
    pub name: Name,
    pub parent: ScopeId,
    pub role: Role,
    /// Whether a decorator hands the function to somebody who calls it later.
    pub registered: bool,
    /// A function's parameters, in order.
    pub parameters: Vec<TextRange>,
    /// Those that reach a database's `execute`.
    pub executes: BTreeSet<u16>,
    /// The statements that it returns or yields.
    pub returns: Texts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeKind {
    Body,
    Main,
    Function,
    Class,
}

/// By whom a function is called, as far as its own definition tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Whoever mentions it.
    Plain,
    /// The web server, when the application starts.
    Startup,
    /// The framework, for a request or a queued task.
    Handler,
    /// A person, on the command line.
    Command,
}

/// An import of one name.
#[derive(Debug)]
pub(super) struct Import {
    pub scope: ScopeId,
    pub symbol: Symbol,
    /// The name that it binds here; `*` binds everything.
    pub bound: Name,
    /// Whether it is for type checkers only.
    pub typing: bool,
}

/// A name in a module: `level` dots, the module, then perhaps a name in it and attributes of that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Symbol {
    pub level: u32,
    pub module: Name,
    /// Empty for a module itself.
    pub path: Vec<Name>,
}

/// Somewhere in `scope`, a name is read: `name`, or `base.name`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mention {
    pub scope: ScopeId,
    pub name: TextRange,
    pub base: Base,
    /// See [`mark`].
    pub mark: u16,
}

/// How many marks there are.
pub(super) const MARKS: usize = 4096;

/// A number made of a few letters of a name. It sorts out most names before any text is compared.
pub(super) fn mark(name: &str) -> u16 {
    let bytes = name.as_bytes();
    let at = |index: usize| usize::from(bytes.get(index).copied().unwrap_or(0));
    let sum = at(0) * 31 + at(bytes.len() / 2) * 17 + at(bytes.len().wrapping_sub(1)) * 7 + bytes.len();
    u16::try_from(sum % MARKS).unwrap_or(0)
}

/// What stands before the dot of a mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing: a plain name.
    Nothing,
    /// A plain name.
    Name(TextRange),
    /// Any other expression.
    Other,
}

/// The schema statements that an expression can stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub statements: Vec<Statement>,
    /// Names in other modules that hold, or return, further statements.
    pub symbols: BTreeSet<Symbol>,
    /// Functions of this file whose results are further statements.
    pub results: BTreeSet<ScopeId>,
    /// Parameters of the enclosing function.
    pub parameters: BTreeSet<u16>,
}

impl Texts {
    pub fn is_empty(&self) -> bool {
        *self == Texts::default()
    }
}

/// A place that may become a finding once all files are known.
#[derive(Debug)]
pub(super) struct Site {
    pub at: TextRange,
    pub scope: ScopeId,
    /// The call as written, without its arguments.
    pub call: String,
    pub act: Act,
    /// The handler that hides a failure.
    pub swallowed: Option<Swallow>,
}

/// What happens at a site.
#[derive(Debug)]
pub(super) enum Act {
    /// `create_all` or `drop_all`.
    Metadata { drops: bool, receiver: Receiver },
    /// `Table.create` or `Table.drop`.
    Table { drops: bool, receiver: Receiver },
    /// Statements reach a database.
    Execute { texts: Texts },
    /// Statements are handed to a function that may execute them.
    Pass { callee: Callee, arguments: Vec<(Argument, Texts)> },
    /// `DDL(…)`: an event of `create_all` executes it.
    Construct { texts: Texts },
    /// An operation of Alembic, of interest only where its failure is hidden.
    Operation,
    /// A secret; the kind, and whether it is nothing but a well-known default on this machine.
    Secret { kind: SecretKind, default: bool },
}

/// On what a method is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receiver {
    /// Certainly SQLAlchemy's.
    Sqlalchemy,
    /// Certainly something else.
    Other,
    /// What another module calls so.
    Imported(Symbol),
    /// Nothing is known of it.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretKind {
    ConnectionString,
    Password,
}

/// Who is called.
#[derive(Clone, Debug)]
pub(super) enum Callee {
    /// A function of this file.
    Here(ScopeId),
    /// A function of another one.
    Imported(Symbol),
    /// A method of an unknown object.
    Method(String),
}

/// Which parameter an argument fills.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    Position(u16),
    Keyword(String),
}

/// An `except` that hides what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Swallow {
    pub at: TextSize,
}

/// What a name of a module stands for, where another module may need it.
#[derive(Debug, Default)]
pub(super) struct Export {
    pub texts: Texts,
    pub sqlalchemy: bool,
}

/// A comment that allows a rule on its line, or on the next.
#[derive(Debug)]
pub(super) struct Allow {
    pub at: TextSize,
    /// The line of the comment, and whether it stands alone on it.
    pub line: usize,
    pub alone: bool,
    pub rules: Vec<String>,
    pub reason: String,
}

/// Something wrong with the file itself.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    Syntax { at: TextSize, said: String },
    Python2 { at: TextSize },
    Encoding { at: TextSize },
    TooDeep,
}

/// A scanned file.
#[derive(Debug)]
pub(super) struct Module {
    pub source: Source,
    pub scopes: Vec<Scope>,
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
    pub sites: Vec<Site>,
    pub exports: BTreeMap<String, Export>,
    pub allows: Vec<Allow>,
    pub troubles: Vec<Trouble>,
    /// Scopes that make the web application: `Flask(…)`.
    pub makes_app: BTreeSet<ScopeId>,
    /// Whether it declares itself a revision of Alembic.
    pub is_revision: bool,
    /// Whether SQLAlchemy, or a driver of PostgreSQL, is imported.
    pub speaks_postgres: bool,
    /// Whether a driver of another database is imported.
    pub speaks_other: bool,
}

impl Module {
    pub fn text(&self, range: TextRange) -> &str {
        self.source.text.get(usize::from(range.start())..usize::from(range.end())).unwrap_or_default()
    }

    /// The scope whose execution executes the code of this one: a class body runs with what holds it.
    pub fn runs_in(&self, mut scope: ScopeId) -> ScopeId {
        while self.scopes[scope as usize].kind == ScopeKind::Class {
            scope = self.scopes[scope as usize].parent;
        }
        scope
    }
}
