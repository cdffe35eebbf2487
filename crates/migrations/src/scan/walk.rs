//! One pass over a syntax tree. It only collects; what the collected means is asked afterwards, and only
//! where there is something to ask.

use ruff_python_ast::name::Name;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_pattern, walk_stmt};
use ruff_python_ast::{self as ast, Expr, ExprContext, Pattern, Stmt};
use ruff_text_size::{Ranged, TextRange};

use super::facts::{
    BODY, Base, Import, Mention, Role, Scope, ScopeId, ScopeKind, Swallow, Symbol, Texts, mark,
};
use super::source::DEPTH_MAX;
use super::{dialect, roles, sql, swallow};

/// Where a name gets its value from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// `name = value`, or what is added to it later.
    Value(&'a Expr),
    /// `for name in value`; the position in an unpacked tuple.
    Element(&'a Expr, Option<usize>),
    /// An import, by its index.
    Import(usize),
    /// A function or class.
    Scope(ScopeId),
    /// A parameter of the function.
    Parameter(u16),
}

/// A name bound in a scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<'a> {
    pub scope: ScopeId,
    pub name: &'a str,
    pub origin: Origin<'a>,
}

/// A call and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub call: &'a ast::ExprCall,
    pub scope: ScopeId,
    pub swallowed: Option<Swallow>,
    /// Whether only another database than PostgreSQL comes here.
    pub elsewhere: bool,
}

/// What the pass collected.
#[derive(Default)]
pub(super) struct Walk<'a> {
    pub scopes: Vec<Scope>,
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
    pub bindings: Vec<Binding<'a>>,
    pub calls: Vec<Call<'a>>,
    pub returns: Vec<(ScopeId, &'a Expr)>,
    /// Strings that hold `://`.
    pub urls: Vec<(ScopeId, &'a ast::ExprStringLiteral)>,
    /// Assignments and items whose name speaks of a password.
    pub passwords: Vec<(ScopeId, &'a str, &'a Expr)>,
    /// Whether a name is given to a method that matters: `create = db.create_all`.
    pub has_aliases: bool,
    /// Whether a string begins like a statement that changes the schema.
    pub has_ddl: bool,
    pub too_deep: bool,
    scope: ScopeId,
    swallowed: Option<Swallow>,
    depth: usize,
    typing: bool,
    /// Within a branch that only another database takes.
    elsewhere: bool,
}

impl<'a> Walk<'a> {
    /// Walks a file.
    pub fn over(body: &'a [Stmt], bytes: usize) -> Self {
        // What a file of this size usually holds, so that nothing has to grow more than once.
        let mut walk = Walk {
            mentions: Vec::with_capacity(bytes / 32),
            bindings: Vec::with_capacity(bytes / 160),
            calls: Vec::with_capacity(bytes / 128),
            ..Walk::default()
        };
        walk.open(ScopeKind::Body, Name::empty(), Role::Plain, Vec::new());
        walk.visit_body(body);
        walk
    }

    fn open(&mut self, kind: ScopeKind, name: Name, role: Role, parameters: Vec<TextRange>) -> ScopeId {
        let id = ScopeId::try_from(self.scopes.len()).unwrap_or(ScopeId::MAX);
        let parent = self.scope;
        self.scopes.push(Scope {
            kind,
            name,
            parent,
            role,
            registered: false,
            parameters,
            executes: Default::default(),
            returns: Texts::default(),
        });
        id
    }

    /// Visits the inside of a scope.
    fn inside(&mut self, scope: ScopeId, visit: impl FnOnce(&mut Self)) {
        let (outer, swallowed) = (self.scope, self.swallowed);
        self.scope = scope;
        if self.scopes[scope as usize].kind == ScopeKind::Function {
            self.swallowed = None;
        }
        visit(self);
        self.scope = outer;
        self.swallowed = swallowed;
    }

    fn bind(&mut self, name: &'a str, origin: Origin<'a>) {
        self.bindings.push(Binding { scope: self.scope, name, origin });
    }

    fn function(&mut self, function: &'a ast::StmtFunctionDef) {
        let in_class = (self.scopes[self.scope as usize].kind == ScopeKind::Class)
            .then(|| self.scopes[self.scope as usize].role);
        let role = roles::of_function(function, in_class);
        let names = || function.parameters.iter_non_variadic_params().map(|p| &p.parameter.name);
        let ranges = names().map(|name| name.range()).collect();
        let scope = self.open(ScopeKind::Function, function.name.id.clone(), role, ranges);
        self.scopes[scope as usize].registered = function.decorator_list.iter().any(roles::registers);
        self.bind(function.name.as_str(), Origin::Scope(scope));
        for decorator in &function.decorator_list {
            self.visit_decorator(decorator);
        }
        if let Some(types) = &function.type_params {
            self.visit_type_params(types);
        }
        self.visit_parameters(&function.parameters);
        if let Some(returns) = &function.returns {
            self.visit_annotation(returns);
        }
        self.inside(scope, |walk| {
            for (index, name) in names().enumerate() {
                walk.bind(name.as_str(), Origin::Parameter(u16::try_from(index).unwrap_or(u16::MAX)));
            }
            walk.visit_body(&function.body);
        });
    }

    fn class(&mut self, class: &'a ast::StmtClassDef) {
        let role = roles::of_class(class);
        let scope = self.open(ScopeKind::Class, class.name.id.clone(), role, Vec::new());
        self.bind(class.name.as_str(), Origin::Scope(scope));
        for decorator in &class.decorator_list {
            self.visit_decorator(decorator);
        }
        if let Some(types) = &class.type_params {
            self.visit_type_params(types);
        }
        if let Some(arguments) = &class.arguments {
            self.visit_arguments(arguments);
        }
        self.inside(scope, |walk| walk.visit_body(&class.body));
    }

    fn import(&mut self, import: &'a ast::StmtImport) {
        for alias in &import.names {
            let module = alias.name.as_str();
            let bound = match &alias.asname {
                Some(name) => name.as_str(),
                None => module.split('.').next().unwrap_or(module),
            };
            // `import a.b` binds `a`; `import a.b as c` binds `a.b`.
            self.imported(bound, Symbol { level: 0, module: alias.name.id.clone(), path: Vec::new() });
        }
    }

    fn import_from(&mut self, import: &'a ast::StmtImportFrom) {
        let module = import.module.as_ref().map_or_else(Name::empty, |module| module.id.clone());
        for alias in &import.names {
            let bound = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
            let symbol =
                Symbol { level: import.level, module: module.clone(), path: vec![alias.name.id.clone()] };
            self.imported(bound, symbol);
        }
    }

    fn imported(&mut self, bound: &'a str, symbol: Symbol) {
        let index = self.imports.len();
        self.imports.push(Import { scope: self.scope, symbol, bound: Name::new(bound), typing: self.typing });
        self.bind(bound, Origin::Import(index));
    }

    /// Binds the names of an assignment's target.
    fn assign(&mut self, target: &'a Expr, value: &'a Expr) {
        match target {
            Expr::Name(name) => {
                self.password(name.id.as_str(), value);
                self.has_aliases |= roles::is_method(value);
                self.bind(name.id.as_str(), Origin::Value(value));
            }
            Expr::Attribute(attribute) => self.assign_attribute(attribute, value),
            Expr::Subscript(item) => {
                if let Expr::StringLiteral(key) = &*item.slice {
                    self.password(key.value.to_str(), value);
                }
                // Filling a dictionary or list adds to what its name holds.
                if let Expr::Name(name) = &*item.value {
                    self.bind(name.id.as_str(), Origin::Value(value));
                }
            }
            Expr::Tuple(ast::ExprTuple { elts, .. }) | Expr::List(ast::ExprList { elts, .. }) => {
                self.unpack(elts, value);
            }
            _ => {}
        }
    }

    /// `self.name = value`: the name belongs to the class.
    fn assign_attribute(&mut self, attribute: &'a ast::ExprAttribute, value: &'a Expr) {
        self.password(attribute.attr.as_str(), value);
        let function = &self.scopes[self.scope as usize];
        let on_self = matches!(&*attribute.value, Expr::Name(name) if roles::is_self(name.id.as_str()));
        if on_self && self.scopes[function.parent as usize].kind == ScopeKind::Class {
            let (scope, name) = (function.parent, attribute.attr.as_str());
            self.bindings.push(Binding { scope, name, origin: Origin::Value(value) });
        }
    }

    fn unpack(&mut self, targets: &'a [Expr], value: &'a Expr) {
        let values = match value {
            Expr::Tuple(tuple) => tuple.elts.as_slice(),
            Expr::List(list) => list.elts.as_slice(),
            _ => &[],
        };
        if values.len() == targets.len() {
            for (target, value) in targets.iter().zip(values) {
                self.assign(target, value);
            }
        } else {
            for (index, target) in targets.iter().enumerate() {
                if let Expr::Name(name) = target {
                    self.bind(name.id.as_str(), Origin::Element(value, Some(index)));
                }
            }
        }
    }

    /// Binds the names of a loop.
    fn iterate(&mut self, target: &'a Expr, iterable: &'a Expr) {
        match target {
            Expr::Name(name) => self.bind(name.id.as_str(), Origin::Element(iterable, None)),
            Expr::Tuple(tuple) => {
                for (index, target) in tuple.elts.iter().enumerate() {
                    self.iterate_part(target, iterable, index);
                }
            }
            _ => {}
        }
    }

    fn iterate_part(&mut self, target: &'a Expr, iterable: &'a Expr, index: usize) {
        match target {
            Expr::Name(name) => self.bind(name.id.as_str(), Origin::Element(iterable, Some(index))),
            // `for i, (name, sql) in enumerate(…)`: which part is which matters less than that it is seen.
            Expr::Tuple(tuple) => {
                for inner in &tuple.elts {
                    if let Expr::Name(name) = inner {
                        self.bind(name.id.as_str(), Origin::Element(iterable, None));
                    }
                }
            }
            _ => {}
        }
    }

    fn password(&mut self, name: &'a str, value: &'a Expr) {
        if roles::names_a_password(name) {
            self.passwords.push((self.scope, name, value));
        }
    }

    fn branch(&mut self, branch: &'a ast::StmtIf) {
        if self.scope == BODY && roles::is_main_guard(&branch.test) {
            let scope = self.open(ScopeKind::Main, Name::new("__main__"), Role::Plain, Vec::new());
            self.inside(scope, |walk| walk.visit_body(&branch.body));
        } else if roles::is_type_checking(&branch.test) {
            self.typing = true;
            self.visit_body(&branch.body);
            self.typing = false;
        } else {
            return self.alternatives(branch);
        }
        for clause in &branch.elif_else_clauses {
            self.visit_elif_else_clause(clause);
        }
    }

    /// A branch whose condition may ask for the database.
    fn alternatives(&mut self, branch: &'a ast::StmtIf) {
        let outer = self.elsewhere;
        let clauses = branch.elif_else_clauses.iter().map(|clause| (clause.test.as_ref(), &clause.body));
        let mut left = outer;
        for (test, body) in std::iter::once((Some(&*branch.test), &branch.body)).chain(clauses) {
            self.elsewhere = left;
            let asked = test.map(dialect::of_condition).unwrap_or_default();
            if let Some(test) = test {
                self.visit_expr(test);
            }
            self.elsewhere = left || asked.body;
            self.visit_body(body);
            left |= asked.otherwise;
        }
        self.elsewhere = outer;
    }

    fn try_(&mut self, attempt: &'a ast::StmtTry) {
        let outer = self.swallowed;
        self.swallowed = swallow::of_try(attempt).or(outer);
        self.visit_body(&attempt.body);
        self.swallowed = outer;
        for handler in &attempt.handlers {
            self.visit_except_handler(handler);
        }
        self.visit_body(&attempt.orelse);
        self.visit_body(&attempt.finalbody);
    }

    fn with(&mut self, with: &'a ast::StmtWith) {
        let outer = self.swallowed;
        for item in &with.items {
            if let Some(Expr::Name(name)) = item.optional_vars.as_deref() {
                self.bind(name.id.as_str(), Origin::Value(&item.context_expr));
            }
            self.visit_with_item(item);
            self.swallowed = swallow::of_context(&item.context_expr).or(self.swallowed);
        }
        self.visit_body(&with.body);
        self.swallowed = outer;
    }

    fn mention(&mut self, name: &str, range: TextRange, base: Base) {
        if !self.typing && !self.elsewhere {
            self.mentions.push(Mention { scope: self.scope, name: range, base, mark: mark(name) });
        }
    }

    fn statement(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(function) => return self.function(function),
            Stmt::ClassDef(class) => return self.class(class),
            Stmt::Import(import) => self.import(import),
            Stmt::ImportFrom(import) => self.import_from(import),
            Stmt::If(branch) => return self.branch(branch),
            Stmt::Try(attempt) => return self.try_(attempt),
            Stmt::With(with) => return self.with(with),
            // A docstring, or a string that nobody reads.
            Stmt::Expr(expression) if expression.value.is_string_literal_expr() => return,
            Stmt::Assign(assign) => {
                for target in &assign.targets {
                    self.assign(target, &assign.value);
                }
            }
            Stmt::AnnAssign(ast::StmtAnnAssign { target, value: Some(value), .. }) => {
                self.assign(target, value)
            }
            Stmt::AugAssign(assign) => {
                if let Expr::Name(name) = &*assign.target {
                    self.bind(name.id.as_str(), Origin::Value(&assign.value));
                }
            }
            Stmt::For(each) => self.iterate(&each.target, &each.iter),
            Stmt::Return(ast::StmtReturn { value: Some(value), .. }) => {
                self.returns.push((self.scope, value))
            }
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn expression(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if name.ctx == ExprContext::Load => {
                self.mention(name.id.as_str(), name.range, Base::Nothing)
            }
            Expr::Attribute(attribute) if attribute.ctx == ExprContext::Load => {
                let base = match &*attribute.value {
                    Expr::Name(name) => Base::Name(name.range),
                    _ => Base::Other,
                };
                self.mention(attribute.attr.as_str(), attribute.attr.range(), base);
            }
            Expr::Call(call) => self.call(call),
            Expr::StringLiteral(literal) => self.string(literal),
            Expr::FString(literal) => {
                let first = literal.value.elements().next();
                let first = first.and_then(|element| element.as_literal());
                self.has_ddl |= first.is_some_and(|text| sql::may_begin_ddl(&text.value));
            }
            Expr::Named(named) => {
                if let Expr::Name(name) = &*named.target {
                    self.bind(name.id.as_str(), Origin::Value(&named.value));
                }
            }
            Expr::Dict(dict) => {
                for item in &dict.items {
                    if let Some(Expr::StringLiteral(key)) = &item.key {
                        self.password(key.value.to_str(), &item.value);
                    }
                }
            }
            Expr::Yield(ast::ExprYield { value: Some(value), .. }) => self.returns.push((self.scope, value)),
            Expr::YieldFrom(from) => self.returns.push((self.scope, &from.value)),
            _ => {}
        }
        walk_expr(self, expr);
    }

    fn call(&mut self, call: &'a ast::ExprCall) {
        let (scope, swallowed, elsewhere) = (self.scope, self.swallowed, self.elsewhere);
        self.calls.push(Call { call, scope, swallowed, elsewhere });
        // `statements.append("ALTER …")` adds to what the name holds.
        if let Expr::Attribute(attribute) = &*call.func
            && let Expr::Name(name) = &*attribute.value
            && matches!(attribute.attr.as_str(), "append" | "extend" | "add" | "insert")
            && let Some(value) = call.arguments.args.last()
        {
            self.bind(name.id.as_str(), Origin::Value(value));
        }
    }

    fn string(&mut self, literal: &'a ast::ExprStringLiteral) {
        let text = literal.value.to_str();
        self.has_ddl |= sql::may_begin_ddl(text);
        if text.contains("://") {
            self.urls.push((self.scope, literal));
        }
    }

    /// Goes one level down, unless that is deeper than Python itself compiles.
    fn deeper(&mut self, visit: impl FnOnce(&mut Self)) {
        if self.depth >= DEPTH_MAX {
            self.too_deep = true;
            return;
        }
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }
}

impl<'a> Visitor<'a> for Walk<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.deeper(|walk| walk.statement(stmt));
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.deeper(|walk| walk.expression(expr));
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.deeper(|walk| walk_pattern(walk, pattern));
    }

    fn visit_annotation(&mut self, expr: &'a Expr) {
        let typing = std::mem::replace(&mut self.typing, true);
        self.visit_expr(expr);
        self.typing = typing;
    }

    fn visit_comprehension(&mut self, comprehension: &'a ast::Comprehension) {
        self.iterate(&comprehension.target, &comprehension.iter);
        ruff_python_ast::visitor::walk_comprehension(self, comprehension);
    }
}
