//! What a name or an expression of a file stands for, followed through assignments, imports and aliases.

use std::cell::OnceCell;

use ruff_python_ast::name::Name;
use ruff_python_ast::{self as ast, Expr};

use super::facts::{BODY, Receiver, ScopeId, ScopeKind, Symbol};
use super::roles::{is_self, last_name};
use super::walk::{Binding, Origin, Walk};

/// How many assignments in a row are followed.
const HOPS_MAX: usize = 8;
/// What a database's metadata is called everywhere.
const METADATA: [&str; 8] = ["db", "metadata", "meta", "database", "Base", "SQLModel", "sqla", "Model"];
/// Constructors whose result has SQLAlchemy's `create_all`.
const MAKES_METADATA: [&str; 5] =
    ["SQLAlchemy", "MetaData", "declarative_base", "registry", "SQLAlchemyBase"];
/// Constructors whose result has SQLAlchemy's `create(bind)`.
const MAKES_TABLE: [&str; 5] = ["Table", "Index", "Sequence", "Enum", "ENUM"];
/// Libraries of other databases.
const OTHER_DATABASES: [&str; 8] = [
    "sqlite3",
    "aiosqlite",
    "duckdb",
    "pymysql",
    "MySQLdb",
    "clickhouse_connect",
    "clickhouse_driver",
    "cassandra",
];

/// The names of a file.
pub(super) struct Names<'w, 'a> {
    pub walk: &'w Walk<'a>,
    /// Made when the first name is looked up: in most files none is.
    index: OnceCell<Index<'a>>,
}

/// The bindings, sorted; the origins of equal keys stay in the order of the file.
struct Index<'a> {
    keys: Vec<(ScopeId, &'a str)>,
    origins: Vec<Origin<'a>>,
}

impl<'a> Index<'a> {
    fn of(bindings: &[Binding<'a>]) -> Self {
        let mut sorted: Vec<_> = bindings.iter().collect();
        sorted.sort_by_key(|binding| (binding.scope, binding.name));
        let keys = sorted.iter().map(|binding| (binding.scope, binding.name)).collect();
        let origins = sorted.iter().map(|binding| binding.origin).collect();
        Index { keys, origins }
    }
}

/// A method of something: `receiver.name`.
#[derive(Clone, Copy)]
pub(super) struct Method<'a> {
    pub receiver: &'a Expr,
    pub name: &'a str,
}

impl<'w, 'a> Names<'w, 'a> {
    pub fn of(walk: &'w Walk<'a>) -> Self {
        Names { walk, index: OnceCell::new() }
    }

    /// What is bound to a name in a scope itself.
    pub fn in_scope(&self, scope: ScopeId, name: &str) -> &[Origin<'a>] {
        let Index { keys, origins } = self.index.get_or_init(|| Index::of(&self.walk.bindings));
        let start = keys.partition_point(|key| *key < (scope, name));
        let length = keys[start..].iter().take_while(|key| **key == (scope, name)).count();
        &origins[start..start + length]
    }

    /// What a name stands for where `scope` reads it, and the scope that binds it.
    pub fn lookup(&self, mut scope: ScopeId, name: &str) -> (&[Origin<'a>], ScopeId) {
        let mut first = true;
        loop {
            let kind = self.walk.scopes[scope as usize].kind;
            // A class's names are not visible in its methods.
            if first || kind != ScopeKind::Class {
                let found = self.in_scope(scope, name);
                if !found.is_empty() || scope == BODY {
                    return (found, scope);
                }
            }
            first = false;
            scope = self.walk.scopes[scope as usize].parent;
        }
    }

    /// The class around a method.
    pub fn class_of(&self, scope: ScopeId) -> Option<ScopeId> {
        let mut scope = scope;
        while scope != BODY {
            scope = self.walk.scopes[scope as usize].parent;
            if self.walk.scopes[scope as usize].kind == ScopeKind::Class {
                return Some(scope);
            }
        }
        None
    }

    /// The name in another module that an expression stands for: `ext.db`, after `import app.ext as ext`.
    pub fn symbol(&self, expr: &Expr, scope: ScopeId) -> Option<Symbol> {
        self.symbol_in(expr, scope, 0)
    }

    fn symbol_in(&self, expr: &Expr, scope: ScopeId, hops: usize) -> Option<Symbol> {
        match expr {
            _ if hops > HOPS_MAX => None,
            Expr::Name(name) => self.symbol_of_name(name.id.as_str(), scope, hops),
            Expr::Attribute(attribute) => {
                let mut symbol = self.symbol_in(&attribute.value, scope, hops + 1)?;
                symbol.path.push(attribute.attr.id.clone());
                Some(symbol)
            }
            _ => None,
        }
    }

    fn symbol_of_name(&self, name: &str, scope: ScopeId, hops: usize) -> Option<Symbol> {
        let (origins, bound_in) = self.lookup(scope, name);
        match origins.last()? {
            Origin::Import(index) => {
                let import = &self.walk.imports[*index];
                let mut symbol = import.symbol.clone();
                // `import a.b.c` binds `a`.
                if symbol.path.is_empty() && !symbol.module.is_empty() && import.bound != symbol.module {
                    let first = symbol.module.split('.').next().unwrap_or_default();
                    if import.bound == first {
                        symbol.module = Name::new(first);
                    }
                }
                Some(symbol)
            }
            Origin::Value(value @ (Expr::Name(_) | Expr::Attribute(_))) => {
                self.symbol_in(value, bound_in, hops + 1)
            }
            _ => None,
        }
    }

    /// The method that a callee is: `db.create_all`, `getattr(db, "create_all")`, or a name for one of them.
    pub fn method(&self, callee: &'a Expr, scope: ScopeId) -> Option<Method<'a>> {
        let (mut expr, mut scope) = (callee, scope);
        for _ in 0..HOPS_MAX {
            match expr {
                Expr::Attribute(attribute) => {
                    return Some(Method { receiver: &attribute.value, name: attribute.attr.as_str() });
                }
                Expr::Call(call) => match (last_name(&call.func), &*call.arguments.args) {
                    (Some("getattr"), [receiver, Expr::StringLiteral(name), ..]) => {
                        return Some(Method { receiver, name: name.value.to_str() });
                    }
                    (Some("partial"), [first, ..]) => expr = first,
                    _ => return None,
                },
                Expr::Name(name) => {
                    let (origins, bound_in) = self.lookup(scope, name.id.as_str());
                    match origins.last() {
                        Some(Origin::Value(value)) if !std::ptr::eq(*value, expr) => {
                            (expr, scope) = (value, bound_in);
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        None
    }

    /// A cheap question before [`Names::metadata`] and [`Names::table`]: most values are neither.
    pub fn may_be_metadata(value: &Expr) -> bool {
        match value {
            Expr::Call(call) => last_name(&call.func)
                .is_some_and(|name| MAKES_METADATA.contains(&name) || MAKES_TABLE.contains(&name)),
            Expr::Attribute(attribute) => {
                METADATA.contains(&attribute.attr.as_str()) || attribute.attr.as_str() == "__table__"
            }
            _ => false,
        }
    }

    /// Whether something has SQLAlchemy's `create_all`.
    pub fn metadata(&self, expr: &Expr, scope: ScopeId) -> Receiver {
        self.metadata_in(expr, scope, 0)
    }

    fn metadata_in(&self, expr: &Expr, scope: ScopeId, hops: usize) -> Receiver {
        if hops > HOPS_MAX {
            return Receiver::Unknown;
        }
        match expr {
            Expr::Attribute(attribute) if METADATA.contains(&attribute.attr.as_str()) => Receiver::Sqlalchemy,
            Expr::Name(name) if is_self(name.id.as_str()) => Receiver::Other,
            Expr::Call(call) => match last_name(&call.func) {
                Some(name) if MAKES_METADATA.contains(&name) => Receiver::Sqlalchemy,
                _ => Receiver::Unknown,
            },
            Expr::Name(name) => {
                let (origins, bound_in) = self.lookup(scope, name.id.as_str());
                match origins.last() {
                    Some(Origin::Value(value)) => match self.metadata_in(value, bound_in, hops + 1) {
                        Receiver::Unknown => by_name(name.id.as_str(), None),
                        known => known,
                    },
                    _ => by_name(name.id.as_str(), self.symbol(expr, scope)),
                }
            }
            _ => self.symbol(expr, scope).map_or(Receiver::Unknown, Receiver::Imported),
        }
    }

    /// Whether something is a table of SQLAlchemy, or another object with `create(bind)`.
    pub fn table(&self, expr: &Expr, scope: ScopeId) -> Receiver {
        self.table_in(expr, scope, 0)
    }

    fn table_in(&self, expr: &Expr, scope: ScopeId, hops: usize) -> Receiver {
        if hops > HOPS_MAX {
            return Receiver::Other;
        }
        match expr {
            Expr::Attribute(attribute) if attribute.attr.as_str() == "__table__" => Receiver::Sqlalchemy,
            Expr::Subscript(item) if last_name(&item.value) == Some("tables") => Receiver::Sqlalchemy,
            Expr::Call(call) => match (last_name(&call.func), &*call.arguments.args) {
                (Some("getattr"), [_, Expr::StringLiteral(name), ..]) if name.value == *"__table__" => {
                    Receiver::Sqlalchemy
                }
                (Some(name), _)
                    if MAKES_TABLE.contains(&name) && self.is_of_sqlalchemy(&call.func, scope) =>
                {
                    Receiver::Sqlalchemy
                }
                _ => Receiver::Other,
            },
            Expr::Name(name) => {
                let (origins, bound_in) = self.lookup(scope, name.id.as_str());
                match origins.last() {
                    Some(Origin::Value(value)) => self.table_in(value, bound_in, hops + 1),
                    Some(Origin::Element(tables, None)) if iterates_tables(tables) => Receiver::Sqlalchemy,
                    Some(Origin::Import(_)) => {
                        self.symbol(expr, scope).map_or(Receiver::Other, Receiver::Imported)
                    }
                    _ => Receiver::Other,
                }
            }
            _ => self.symbol(expr, scope).map_or(Receiver::Other, Receiver::Imported),
        }
    }

    fn is_of_sqlalchemy(&self, callee: &Expr, scope: ScopeId) -> bool {
        // `db.Table` of Flask-SQLAlchemy, `Table` and `sa.Table` of SQLAlchemy.
        let base = match callee {
            Expr::Attribute(attribute) => last_name(&attribute.value),
            _ => None,
        };
        base.is_some_and(|base| METADATA.contains(&base) || base == "sa")
            || self.symbol(callee, scope).is_some_and(|symbol| is_sqlalchemy(&symbol.module))
    }

    /// Whether a connection or cursor certainly leads to another database than PostgreSQL.
    pub fn leads_elsewhere(&self, expr: &Expr, scope: ScopeId) -> bool {
        self.leads_elsewhere_in(expr, scope, 0)
    }

    fn leads_elsewhere_in(&self, expr: &Expr, scope: ScopeId, hops: usize) -> bool {
        if hops > HOPS_MAX {
            return false;
        }
        match expr {
            Expr::Await(awaited) => self.leads_elsewhere_in(&awaited.value, scope, hops),
            Expr::Call(call) => {
                let symbol = self.symbol(&call.func, scope);
                let other = symbol.is_some_and(|symbol| is_other_database(&symbol.module));
                other || self.leads_elsewhere_in(&call.func, scope, hops + 1)
            }
            Expr::Attribute(attribute) => match &*attribute.value {
                Expr::Name(name) if is_self(name.id.as_str()) => {
                    let class = self.class_of(scope);
                    let origins = class.map(|class| self.in_scope(class, attribute.attr.as_str()));
                    self.origins_elsewhere(origins.unwrap_or_default(), scope, hops)
                }
                value => self.leads_elsewhere_in(value, scope, hops + 1),
            },
            Expr::Name(name) => {
                let (origins, bound_in) = self.lookup(scope, name.id.as_str());
                self.origins_elsewhere(origins, bound_in, hops)
            }
            _ => false,
        }
    }

    /// The last value counts; `connection = None` before or after it is none.
    fn origins_elsewhere(&self, origins: &[Origin<'a>], scope: ScopeId, hops: usize) -> bool {
        let last = origins.iter().rev().find(|origin| !matches!(origin, Origin::Value(Expr::NoneLiteral(_))));
        match last {
            Some(Origin::Value(value)) => self.leads_elsewhere_in(value, scope, hops + 1),
            Some(Origin::Import(index)) => is_other_database(&self.walk.imports[*index].symbol.module),
            _ => false,
        }
    }
}

fn by_name(name: &str, symbol: Option<Symbol>) -> Receiver {
    // `from extensions import db as database` is known by what it was called there.
    let original = symbol.as_ref().and_then(|symbol| symbol.path.last());
    if METADATA.contains(&name) || original.is_some_and(|name| METADATA.contains(&name.as_str())) {
        return Receiver::Sqlalchemy;
    }
    symbol.map_or(Receiver::Unknown, Receiver::Imported)
}

/// `metadata.sorted_tables`, `reversed(metadata.sorted_tables)`, `metadata.tables.values()`.
fn iterates_tables(expr: &Expr) -> bool {
    match expr {
        Expr::Attribute(attribute) => {
            matches!(attribute.attr.as_str(), "sorted_tables" | "tables") || iterates_tables(&attribute.value)
        }
        Expr::Call(ast::ExprCall { func, arguments, .. }) => {
            iterates_tables(func) || arguments.args.iter().any(iterates_tables)
        }
        _ => false,
    }
}

/// Whether a module is SQLAlchemy or one of its faces.
pub(super) fn is_sqlalchemy(module: &str) -> bool {
    matches!(
        root(module),
        "sqlalchemy" | "flask_sqlalchemy" | "sqlmodel" | "flask_migrate" | "advanced_alchemy"
    )
}

/// Whether a module speaks to PostgreSQL.
pub(super) fn speaks_postgres(module: &str) -> bool {
    is_sqlalchemy(module)
        || matches!(
            root(module),
            "psycopg" | "psycopg2" | "psycopg_pool" | "asyncpg" | "pg8000" | "databases"
        )
}

/// Whether a module speaks to another database.
pub(crate) fn is_other_database(module: &str) -> bool {
    // The application's own module for one of them is mostly called like it.
    let last = module.rsplit('.').next().unwrap_or(module);
    OTHER_DATABASES.contains(&root(module)) || OTHER_DATABASES.contains(&last)
}

fn root(module: &str) -> &str {
    module.split('.').next().unwrap_or(module)
}
