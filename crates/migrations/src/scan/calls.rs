//! What the calls of a file mean for the schema.

use std::collections::BTreeSet;

use ruff_python_ast::{self as ast, Expr};
use ruff_text_size::{Ranged as _, TextRange};

use super::facts::{Act, Argument, Callee, Receiver, ScopeId, ScopeKind, SecretKind, Site, Swallow, Texts};
use super::names::{Method, Names};
use super::read::Executes;
use super::roles::{is_self, last_name};
use super::walk::{Call, Origin};
use super::{roles, secrets, sql, texts};

/// Methods that send a text to a database.
pub(crate) const SENDS: [&str; 10] = [
    "execute",
    "exec_driver_sql",
    "executemany",
    "executescript",
    "execute_sql",
    "scalar",
    "scalars",
    "fetch",
    "fetchval",
    "fetchrow",
];
/// Operations of Alembic that change the schema.
pub(crate) const OPERATES: [&str; 16] = [
    "create_table",
    "drop_table",
    "add_column",
    "drop_column",
    "alter_column",
    "create_index",
    "drop_index",
    "execute",
    "create_foreign_key",
    "create_unique_constraint",
    "create_check_constraint",
    "create_primary_key",
    "drop_constraint",
    "rename_table",
    "batch_alter_table",
    "create_table_comment",
];
/// Keywords under which a text is sent.
pub(crate) const SENT_AS: [&str; 6] = ["statement", "sql", "query", "operation", "clause", "stmt"];
/// Calls that only look at a function.
const LOOKS: [&str; 4] = ["getattr", "hasattr", "callable", "print"];

/// Sorts the calls of a file.
pub(super) struct Calls<'n, 'w, 'a> {
    names: &'n Names<'w, 'a>,
    /// Whether the file can have an operation of Alembic at all.
    has_alembic: bool,
    sites: Vec<Site>,
    executes: Executes,
    makes_app: BTreeSet<ScopeId>,
}

impl<'n, 'w, 'a> Calls<'n, 'w, 'a> {
    pub fn new(names: &'n Names<'w, 'a>) -> Self {
        let mut imports = names.walk.imports.iter();
        let has_alembic = imports.any(|import| import.symbol.module.starts_with("alembic"));
        Calls { names, has_alembic, sites: Vec::new(), executes: Executes::new(), makes_app: BTreeSet::new() }
    }

    pub fn done(self) -> (Vec<Site>, Executes, BTreeSet<ScopeId>) {
        (self.sites, self.executes, self.makes_app)
    }

    /// Looks at one call.
    pub fn look_at(&mut self, call: &Call<'a>) {
        if roles::makes_application(&call.call.func) {
            self.makes_app.insert(call.scope);
        }
        if call.elsewhere {
            return;
        }
        self.look_at_references(call);
        // Most calls are of a plain function: only an alias makes one of them a method.
        let method = match &*call.call.func {
            Expr::Name(_) if !self.names.walk.has_aliases => None,
            callee => self.names.method(callee, call.scope),
        };
        if let Some(method) = method
            && self.look_at_method(call, method)
        {
            return;
        }
        if last_name(&call.call.func) == Some("DDL") {
            let texts = self.first_texts(call);
            return self.site(call.call.range(), call, "DDL".to_owned(), Act::Construct { texts });
        }
        self.look_at_arguments(call);
    }

    /// Whether the call is one of the methods that matter.
    fn look_at_method(&mut self, call: &Call<'a>, method: Method<'a>) -> bool {
        let act = match method.name {
            "create_all" | "drop_all" => {
                let receiver = self.names.metadata(method.receiver, call.scope);
                Act::Metadata { drops: method.name == "drop_all", receiver }
            }
            "create" | "drop" => match self.names.table(method.receiver, call.scope) {
                Receiver::Other | Receiver::Unknown => return false,
                receiver => Act::Table { drops: method.name == "drop", receiver },
            },
            name if self.has_alembic
                && OPERATES.contains(&name)
                && self.is_alembic(method.receiver, call.scope) =>
            {
                if call.swallowed.is_none() {
                    return true;
                }
                Act::Operation
            }
            name if SENDS.contains(&name) => {
                self.look_at_sending(call, method);
                return true;
            }
            _ => return false,
        };
        let what = format!("{}.{}", shown(method.receiver), method.name);
        self.site(call.call.range(), call, what, act);
        true
    }

    fn is_alembic(&self, receiver: &Expr, scope: ScopeId) -> bool {
        last_name(receiver) == Some("batch_op")
            || self.names.symbol(receiver, scope).is_some_and(|symbol| symbol.module.starts_with("alembic"))
    }

    fn look_at_sending(&mut self, call: &Call<'a>, method: Method<'a>) {
        let texts = self.first_texts(call);
        if texts.is_empty() || self.names.leads_elsewhere(method.receiver, call.scope) {
            return;
        }
        if let Some(function) = self.function_of(call.scope)
            && !texts.parameters.is_empty()
        {
            self.executes.entry(function).or_default().extend(&texts.parameters);
        }
        let what = format!("{}.{}", shown(method.receiver), method.name);
        self.site(call.call.range(), call, what, Act::Execute { texts });
    }

    /// The texts of the argument that is sent.
    fn first_texts(&self, call: &Call<'a>) -> Texts {
        let arguments = &call.call.arguments;
        let by_keyword = arguments.keywords.iter().find_map(|keyword| {
            let name = keyword.arg.as_ref()?.as_str();
            SENT_AS.contains(&name).then_some(&keyword.value)
        });
        let sent = arguments.args.first().or(by_keyword);
        sent.map(|sent| texts::of(self.names, sent, call.scope)).unwrap_or_default()
    }

    fn function_of(&self, mut scope: ScopeId) -> Option<ScopeId> {
        while self.names.walk.scopes[scope as usize].kind == ScopeKind::Class {
            scope = self.names.walk.scopes[scope as usize].parent;
        }
        (self.names.walk.scopes[scope as usize].kind == ScopeKind::Function).then_some(scope)
    }

    /// `run_sync(metadata.create_all)`: handed over to be called.
    fn look_at_references(&mut self, call: &Call<'a>) {
        let keywords = call.call.arguments.keywords.iter().map(|keyword| &keyword.value);
        for argument in call.call.arguments.args.iter().chain(keywords) {
            let Expr::Attribute(attribute) = argument else { continue };
            let name = attribute.attr.as_str();
            let looks = last_name(&call.call.func)
                .is_some_and(|callee| LOOKS.contains(&callee) || callee == "partial");
            if (name == "create_all" || name == "drop_all") && !looks {
                let receiver = self.names.metadata(&attribute.value, call.scope);
                let act = Act::Metadata { drops: name == "drop_all", receiver };
                let what = format!("{}.{name}", shown(&attribute.value));
                self.site(argument.range(), call, what, act);
            }
        }
    }

    /// Statements handed to a function that may execute them.
    fn look_at_arguments(&mut self, call: &Call<'a>) {
        let arguments = &call.call.arguments;
        let by_position = arguments
            .args
            .iter()
            .enumerate()
            .map(|(at, value)| (Argument::Position(u16::try_from(at).unwrap_or(u16::MAX)), value));
        let by_keyword = arguments.keywords.iter().filter_map(|keyword| {
            Some((Argument::Keyword(keyword.arg.as_ref()?.to_string()), &keyword.value))
        });
        let mut handed = Vec::new();
        for (argument, value) in by_position.chain(by_keyword) {
            if !self.may_hold_statements(value) {
                continue;
            }
            let texts = texts::of(self.names, value, call.scope);
            if !texts.is_empty() {
                handed.push((argument, texts));
            }
        }
        if handed.is_empty() {
            return;
        }
        if let Some(callee) = self.callee(&call.call.func, call.scope) {
            let act = Act::Pass { callee, arguments: handed };
            self.site(call.call.range(), call, shown(&call.call.func), act);
        }
    }

    /// A cheap question before the dear one: most arguments are no SQL.
    fn may_hold_statements(&self, value: &Expr) -> bool {
        let has_ddl = self.names.walk.has_ddl;
        match value {
            Expr::StringLiteral(literal) => has_ddl && sql::may_begin_ddl(literal.value.to_str()),
            Expr::FString(literal) => {
                let first = literal.value.elements().next().and_then(|element| element.as_literal());
                has_ddl && first.is_none_or(|text| sql::may_begin_ddl(&text.value))
            }
            Expr::List(ast::ExprList { elts, .. }) | Expr::Tuple(ast::ExprTuple { elts, .. }) => {
                has_ddl && elts.iter().any(|element| !element.is_number_literal_expr())
            }
            Expr::BinOp(sum) => has_ddl && !sum.left.is_number_literal_expr(),
            // `text("…")`, `"; ".join(…)`, `statements()`; but not every `session.query(…)`.
            Expr::Call(call) => has_ddl && (call.func.is_name_expr() || texts::hands_on(&call.func)),
            Expr::Name(name) => has_ddl || name.id.len() == 1 || speaks_of_sql(name.id.as_str()),
            // `constants.SQL`, but not `Status.ACTIVE`, of which an application is full.
            Expr::Attribute(attribute) => match &*attribute.value {
                Expr::Name(base) if base.id.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    speaks_of_sql(attribute.attr.as_str())
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn callee(&self, callee: &'a Expr, scope: ScopeId) -> Option<Callee> {
        match callee {
            Expr::Name(name) => match self.names.lookup(scope, name.id.as_str()).0.last() {
                Some(Origin::Scope(function)) => Some(Callee::Here(*function)),
                _ => self.names.symbol(callee, scope).map(Callee::Imported),
            },
            Expr::Attribute(attribute) => {
                if let Expr::Name(name) = &*attribute.value
                    && is_self(name.id.as_str())
                    && let Some(class) = self.names.class_of(scope)
                    && let Some(Origin::Scope(method)) =
                        self.names.in_scope(class, attribute.attr.as_str()).last()
                {
                    return Some(Callee::Here(*method));
                }
                let symbol = self.names.symbol(callee, scope).map(Callee::Imported);
                Some(symbol.unwrap_or_else(|| Callee::Method(attribute.attr.to_string())))
            }
            _ => None,
        }
    }

    /// Connection strings and passwords; their text goes no further than this.
    pub fn look_at_secrets(&mut self) {
        let walk = self.names.walk;
        for (scope, literal) in &walk.urls {
            if let Some(default) = secrets::connection_string(literal.value.to_str()) {
                let act = Act::Secret { kind: SecretKind::ConnectionString, default };
                self.push(literal.range(), *scope, (String::new(), None), act);
            }
        }
        let named = walk.passwords.iter().map(|(scope, _, value)| (*scope, *value));
        let passed = walk.calls.iter().filter_map(|call| Some((call.scope, passed_password(call.call)?)));
        let found: Vec<_> = named.chain(passed).collect();
        let users = if found.is_empty() { BTreeSet::new() } else { self.users() };
        for (scope, value) in found {
            if let Some((at, default)) = secrets::password(value) {
                // The role's own name is the first that anybody would try, and meant to be.
                let is_user =
                    value.as_string_literal_expr().is_some_and(|text| users.contains(text.value.to_str()));
                let act = Act::Secret { kind: SecretKind::Password, default: default || is_user };
                self.push(at, scope, (String::new(), None), act);
            }
        }
    }

    /// The names of roles that stand in the file beside passwords.
    fn users(&self) -> BTreeSet<&'a str> {
        let walk = self.names.walk;
        let bound = walk.bindings.iter().filter_map(|binding| match binding.origin {
            Origin::Value(Expr::StringLiteral(text)) if roles::names_a_user(binding.name) => Some(text),
            _ => None,
        });
        let read = walk.calls.iter().filter_map(|call| match &*call.call.arguments.args {
            [Expr::StringLiteral(name), Expr::StringLiteral(text)]
                if matches!(last_name(&call.call.func), Some("getenv" | "get"))
                    && roles::names_a_user(name.value.to_str()) =>
            {
                Some(text)
            }
            _ => None,
        });
        let passed = walk.calls.iter().flat_map(|call| &call.call.arguments.keywords);
        let passed = passed.filter_map(|keyword| match &keyword.value {
            Expr::StringLiteral(text)
                if keyword.arg.as_ref().is_some_and(|name| roles::names_a_user(name)) =>
            {
                Some(text)
            }
            _ => None,
        });
        bound.chain(read).chain(passed).map(|text| text.value.to_str()).collect()
    }

    fn site(&mut self, at: TextRange, call: &Call<'a>, what: String, act: Act) {
        self.push(at, call.scope, (what, call.swallowed), act);
    }

    fn push(
        &mut self,
        at: TextRange,
        scope: ScopeId,
        (call, swallowed): (String, Option<Swallow>),
        act: Act,
    ) {
        self.sites.push(Site { at, scope, call, act, swallowed });
    }
}

/// A password given to what connects, or the default of a variable that should hold one.
fn passed_password(call: &ast::ExprCall) -> Option<&Expr> {
    let callee = last_name(&call.func)?;
    if secrets::CONNECTS.contains(&callee) {
        let keyword = call.arguments.keywords.iter().find(|keyword| {
            keyword.arg.as_ref().is_some_and(|name| matches!(name.as_str(), "password" | "passwd"))
        });
        return keyword.map(|keyword| &keyword.value);
    }
    match (callee, &*call.arguments.args) {
        ("getenv" | "get", [Expr::StringLiteral(name), default]) => {
            roles::names_a_password(name.value.to_str()).then_some(default)
        }
        _ => None,
    }
}

fn speaks_of_sql(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_constant =
        || name.len() > 2 && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
    bytes.windows(3).any(|three| matches!(three, b"sql" | b"ddl" | b"stm"))
        || name.contains("statement")
        || is_constant()
}

/// A receiver as a person would name it, however it was written.
fn shown(expr: &Expr) -> String {
    let name = shown_within(expr, 0);
    if name.chars().count() > 60 { "…".to_owned() } else { name }
}

fn shown_within(expr: &Expr, depth: usize) -> String {
    match expr {
        _ if depth > 6 => "…".to_owned(),
        Expr::Name(name) => name.id.to_string(),
        Expr::Attribute(attribute) => {
            format!("{}.{}", shown_within(&attribute.value, depth + 1), attribute.attr)
        }
        Expr::Call(call) => format!("{}(…)", shown_within(&call.func, depth + 1)),
        Expr::Await(awaited) => shown_within(&awaited.value, depth + 1),
        Expr::Subscript(item) => format!("{}[…]", shown_within(&item.value, depth + 1)),
        _ => "…".to_owned(),
    }
}
