//! Which statements an expression can stand for: literals, f-strings, sums, lists, loops, constants of
//! this and other modules, results of functions.

use std::cell::Cell;
use std::collections::HashSet;

use ruff_python_ast::{self as ast, Expr, InterpolatedStringElement, Operator};

use super::facts::{ScopeId, ScopeKind, Texts};
use super::names::Names;
use super::roles::{is_self, last_name};
use super::sql::{HOLE, Statement, has_verb, statements};
use super::walk::Origin;

/// Deeper expressions and longer chains of assignments than anybody writes.
const DEPTH_MAX: usize = 12;
/// Steps of one evaluation. An expression that needs more was made to need more.
const FUEL: usize = 20_000;
/// Enough to name the first and count the others; a file may hold thousands.
const STATEMENTS_MAX: usize = 512;

/// Methods of a string or a list whose result holds the same statements.
const KEEPS: [&str; 16] = [
    "format",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "dedent",
    "upper",
    "lower",
    "splitlines",
    "split",
    "items",
    "values",
    "keys",
    "copy",
    "bindparams",
    "execution_options",
];
/// Functions that hand on the statements of their arguments.
const WRAPS: [&str; 18] = [
    "text",
    "DDL",
    "SQL",
    "Composed",
    "dedent",
    "cleandoc",
    "str",
    "list",
    "tuple",
    "set",
    "sorted",
    "reversed",
    "enumerate",
    "zip",
    "iter",
    "chain",
    "TextClause",
    "literal_column",
];

/// Evaluates expressions of one file.
pub(super) struct Reader<'n, 'w, 'a> {
    pub names: &'n Names<'w, 'a>,
    out: Texts,
    /// What was read already adds nothing.
    seen: HashSet<*const Expr>,
    fuel: Cell<usize>,
}

/// The statements that an expression can stand for where `scope` evaluates it.
pub(super) fn of<'a>(names: &Names<'_, 'a>, expr: &'a Expr, scope: ScopeId) -> Texts {
    let mut reader = Reader { names, out: Texts::default(), seen: HashSet::new(), fuel: Cell::new(FUEL) };
    reader.read(expr, scope, 0);
    reader.out
}

/// Whether a call hands on statements of its arguments or of what it is called on.
pub(super) fn hands_on(callee: &Expr) -> bool {
    last_name(callee).is_some_and(|name| {
        name == "join" || WRAPS.contains(&name) || KEEPS.contains(&name) || construct(name).is_some()
    })
}

impl<'a> Reader<'_, '_, 'a> {
    fn read(&mut self, expr: &'a Expr, scope: ScopeId, depth: usize) {
        let enough = depth > DEPTH_MAX || self.out.statements.len() > STATEMENTS_MAX || !self.step();
        if enough || recurs(expr) && !self.seen.insert(std::ptr::from_ref(expr)) {
            return;
        }
        match expr {
            Expr::StringLiteral(literal) if has_verb(literal.value.to_str()) => {
                self.out.statements.extend(statements(literal.value.to_str()));
            }
            Expr::StringLiteral(_) => {}
            Expr::FString(_) => self.rendered(expr, scope),
            Expr::BinOp(sum) if sum.op == Operator::Add => self.sum(expr, sum, scope, depth),
            Expr::BinOp(format) => self.read(&format.left, scope, depth + 1),
            Expr::Name(name) => self.name(name.id.as_str(), scope, depth),
            Expr::Attribute(attribute) => self.attribute(expr, attribute, scope, depth),
            Expr::Call(call) => self.call(call, scope, depth),
            Expr::List(ast::ExprList { elts, .. })
            | Expr::Tuple(ast::ExprTuple { elts, .. })
            | Expr::Set(ast::ExprSet { elts, .. }) => self.all(elts, scope, depth),
            Expr::Dict(dict) => {
                for item in &dict.items {
                    self.read(&item.value, scope, depth + 1);
                    item.key.iter().for_each(|key| self.read(key, scope, depth + 1));
                }
            }
            Expr::ListComp(ast::ExprListComp { elt, .. })
            | Expr::Generator(ast::ExprGenerator { elt, .. }) => {
                self.read(elt, scope, depth + 1);
            }
            Expr::Starred(ast::ExprStarred { value, .. })
            | Expr::Subscript(ast::ExprSubscript { value, .. })
            | Expr::Named(ast::ExprNamed { value, .. })
            | Expr::Await(ast::ExprAwait { value, .. }) => self.read(value, scope, depth + 1),
            Expr::If(choice) => {
                self.read(&choice.body, scope, depth + 1);
                self.read(&choice.orelse, scope, depth + 1);
            }
            Expr::BoolOp(choice) => self.all(&choice.values, scope, depth),
            _ => {}
        }
    }

    fn step(&self) -> bool {
        let left = self.fuel.get();
        self.fuel.set(left.saturating_sub(1));
        left > 0
    }

    fn all(&mut self, expressions: &'a [Expr], scope: ScopeId, depth: usize) {
        for expr in expressions {
            self.read(expr, scope, depth + 1);
        }
    }

    fn rendered(&mut self, expr: &'a Expr, scope: ScopeId) {
        let mut text = String::new();
        self.render(expr, scope, &mut text, 0);
        self.out.statements.extend(statements(&text));
    }

    /// A sum of texts is one text; a sum of lists is both lists.
    fn sum(&mut self, expr: &'a Expr, sum: &'a ast::ExprBinOp, scope: ScopeId, depth: usize) {
        let before = self.out.statements.len();
        self.rendered(expr, scope);
        if self.out.statements.len() == before {
            self.read(&sum.left, scope, depth + 1);
            if !is_text(&sum.left) {
                self.read(&sum.right, scope, depth + 1);
            }
        }
    }

    /// The text of an expression, with a hole for what only exists at run time.
    fn render(&self, expr: &'a Expr, scope: ScopeId, out: &mut String, depth: usize) {
        match expr {
            _ if !self.step() => out.push(HOLE),
            Expr::StringLiteral(literal) => out.push_str(literal.value.to_str()),
            Expr::FString(literal) if depth < DEPTH_MAX => {
                for part in &literal.value {
                    match part {
                        ast::FStringPart::Literal(text) => out.push_str(text),
                        ast::FStringPart::FString(inner) => {
                            for element in &inner.elements {
                                self.render_element(element, scope, out, depth);
                            }
                        }
                    }
                }
            }
            Expr::BinOp(sum) if sum.op == Operator::Add && depth < 200 => {
                self.render(&sum.left, scope, out, depth + 1);
                self.render(&sum.right, scope, out, depth + 1);
            }
            Expr::Name(name) if depth < DEPTH_MAX => match self.names.lookup(scope, name.id.as_str()) {
                ([Origin::Value(value @ (Expr::StringLiteral(_) | Expr::FString(_)))], bound_in) => {
                    self.render(value, bound_in, out, depth + 1);
                }
                _ => out.push(HOLE),
            },
            _ => out.push(HOLE),
        }
    }

    fn render_element(
        &self,
        element: &'a InterpolatedStringElement,
        scope: ScopeId,
        out: &mut String,
        depth: usize,
    ) {
        match element {
            InterpolatedStringElement::Literal(text) => out.push_str(&text.value),
            InterpolatedStringElement::Interpolation(hole) => {
                self.render(&hole.expression, scope, out, depth + 1);
            }
        }
    }

    fn name(&mut self, name: &str, scope: ScopeId, depth: usize) {
        let names = self.names;
        let (origins, bound_in) = names.lookup(scope, name);
        for origin in origins {
            self.origin(origin, (scope, bound_in), depth);
        }
    }

    fn origin(&mut self, origin: &Origin<'a>, (read_in, bound_in): (ScopeId, ScopeId), depth: usize) {
        match *origin {
            Origin::Value(value) => self.read(value, bound_in, depth + 1),
            Origin::Element(iterable, position) => self.element(iterable, position, bound_in, depth),
            Origin::Import(index) => {
                self.out.symbols.insert(self.names.walk.imports[index].symbol.clone());
            }
            Origin::Parameter(index) if read_in == bound_in => {
                self.out.parameters.insert(index);
            }
            Origin::Parameter(_) | Origin::Scope(_) => {}
        }
    }

    /// What a loop's variable takes from what it loops over.
    fn element(&mut self, iterable: &'a Expr, position: Option<usize>, scope: ScopeId, depth: usize) {
        let elements = match iterable {
            Expr::List(ast::ExprList { elts, .. }) | Expr::Tuple(ast::ExprTuple { elts, .. }) => elts,
            Expr::Name(name) if position.is_some() => {
                let names = self.names;
                if let ([Origin::Value(value)], bound_in) = names.lookup(scope, name.id.as_str())
                    && depth < DEPTH_MAX
                    && !std::ptr::eq(*value, iterable)
                {
                    return self.element(value, position, bound_in, depth + 1);
                }
                return self.read(iterable, scope, depth + 1);
            }
            other => return self.read(other, scope, depth + 1),
        };
        for element in elements {
            let part = match (element, position) {
                (Expr::Tuple(tuple), Some(position)) => tuple.elts.get(position),
                _ => None,
            };
            self.read(part.unwrap_or(element), scope, depth + 1);
        }
    }

    fn attribute(&mut self, expr: &'a Expr, attribute: &'a ast::ExprAttribute, scope: ScopeId, depth: usize) {
        let names = self.names;
        let class = match &*attribute.value {
            Expr::Name(name) if is_self(name.id.as_str()) => names.class_of(scope),
            Expr::Name(name) => match names.lookup(scope, name.id.as_str()).0.last() {
                Some(Origin::Scope(id)) if names.walk.scopes[*id as usize].kind == ScopeKind::Class => {
                    Some(*id)
                }
                _ => None,
            },
            _ => None,
        };
        match class {
            Some(class) => {
                for origin in names.in_scope(class, attribute.attr.as_str()) {
                    self.origin(origin, (class, class), depth);
                }
            }
            None => self.out.symbols.extend(names.symbol(expr, scope)),
        }
    }

    fn call(&mut self, call: &'a ast::ExprCall, scope: ScopeId, depth: usize) {
        let Some(name) = last_name(&call.func) else { return };
        if WRAPS.contains(&name) {
            return self.all(&call.arguments.args, scope, depth);
        }
        if let Some(verb) = construct(name) {
            return self.out.statements.push(Statement { verb, object: String::new(), in_do: false });
        }
        match &*call.func {
            Expr::Attribute(attribute) if name == "join" => {
                self.all(&call.arguments.args, scope, depth);
                self.read(&attribute.value, scope, depth + 1);
            }
            Expr::Attribute(attribute) if KEEPS.contains(&name) => {
                self.read(&attribute.value, scope, depth + 1)
            }
            callee => self.result(callee, scope),
        }
    }

    /// What a function returns.
    fn result(&mut self, callee: &'a Expr, scope: ScopeId) {
        let origins = match callee {
            Expr::Name(name) => self.names.lookup(scope, name.id.as_str()).0,
            Expr::Attribute(attribute) => match (&*attribute.value, self.names.class_of(scope)) {
                (Expr::Name(name), Some(class)) if is_self(name.id.as_str()) => {
                    self.names.in_scope(class, attribute.attr.as_str())
                }
                _ => &[],
            },
            _ => &[],
        };
        if let Some(Origin::Scope(function)) = origins.last() {
            self.out.results.insert(*function);
        } else {
            self.out.symbols.extend(self.names.symbol(callee, scope));
        }
    }
}

/// What is read again in a circle comes back through a name.
fn recurs(expr: &Expr) -> bool {
    expr.is_name_expr() || expr.is_attribute_expr()
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::StringLiteral(_) | Expr::FString(_))
}

/// SQLAlchemy's own constructs for statements.
fn construct(name: &str) -> Option<String> {
    let (verb, kind) = match name {
        "CreateTable" => ("CREATE", "TABLE"),
        "DropTable" => ("DROP", "TABLE"),
        "CreateSchema" => ("CREATE", "SCHEMA"),
        "DropSchema" => ("DROP", "SCHEMA"),
        "CreateIndex" => ("CREATE", "INDEX"),
        "DropIndex" => ("DROP", "INDEX"),
        "CreateSequence" => ("CREATE", "SEQUENCE"),
        "AddConstraint" | "DropConstraint" => ("ALTER", "TABLE"),
        _ => return None,
    };
    Some(format!("{verb} {kind}"))
}
