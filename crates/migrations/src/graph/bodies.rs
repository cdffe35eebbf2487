//! What `upgrade` and `downgrade` do: nothing, refuse, or touch tables.

use std::collections::BTreeSet;

use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{self as ast, Expr, Stmt};
use ruff_text_size::{Ranged as _, TextSize};

use super::{Body, BodyKind, Touch};
use crate::scan::source::Source;
use crate::scan::sql::{self, HOLE};

/// Operations whose first argument is a table that must exist.
const FIRST_IS_TABLE: [&str; 8] = [
    "add_column",
    "drop_column",
    "alter_column",
    "batch_alter_table",
    "drop_table",
    "create_table_comment",
    "drop_table_comment",
    "bulk_insert",
];
/// … whose second is.
const SECOND_IS_TABLE: [&str; 6] = [
    "create_index",
    "create_foreign_key",
    "create_unique_constraint",
    "create_check_constraint",
    "create_primary_key",
    "drop_constraint",
];

/// The tables of an `upgrade`.
#[derive(Default)]
pub(super) struct Tables {
    pub creates: Vec<Touch>,
    pub expects: Vec<Touch>,
    /// Whether something may touch tables that the text does not name.
    pub opaque: bool,
}

/// The kind of a function's body.
pub(super) fn body(source: &Source, function: &ast::StmtFunctionDef) -> Body {
    let acting: Vec<&Stmt> = function.body.iter().filter(|stmt| !does_nothing(stmt)).collect();
    let kind = match acting.as_slice() {
        [] => BodyKind::Empty,
        [Stmt::Raise(_), ..] => BodyKind::Raises,
        _ => BodyKind::Acts,
    };
    Body { place: source.place(function.name.start()), kind }
}

fn does_nothing(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Pass(_) => true,
        Stmt::Expr(expression) => expression.value.is_literal_expr(),
        Stmt::Return(stmt) => stmt.value.is_none(),
        _ => false,
    }
}

/// The tables that `upgrade` creates and expects, through the functions of the same file that it calls.
pub(super) fn tables(source: &Source, module: &[Stmt], upgrade: &ast::StmtFunctionDef) -> Tables {
    let mut reader = Reader { source, tables: Tables::default(), called: BTreeSet::new() };
    let mut done = BTreeSet::new();
    reader.visit_body(&upgrade.body);
    while let Some(name) = reader.called.difference(&done).next().cloned() {
        done.insert(name.clone());
        for stmt in module {
            if let Stmt::FunctionDef(function) = stmt
                && function.name.as_str() == name
                && name != "downgrade"
            {
                reader.visit_body(&function.body);
            }
        }
    }
    reader.tables
}

struct Reader<'s> {
    source: &'s Source,
    tables: Tables,
    called: BTreeSet<String>,
}

impl Reader<'_> {
    fn call(&mut self, call: &ast::ExprCall) {
        let name = match &*call.func {
            Expr::Name(name) => {
                self.called.insert(name.id.to_string());
                return;
            }
            Expr::Attribute(attribute) => attribute.attr.as_str(),
            _ => return,
        };
        let at = call.start();
        match name {
            "create_table" => self.touch(true, argument(call, 0, "table_name"), at),
            "rename_table" => {
                self.touch(false, argument(call, 0, "old_table_name"), at);
                self.touch(true, argument(call, 1, "new_table_name"), at);
            }
            name if FIRST_IS_TABLE.contains(&name) => self.touch(false, argument(call, 0, "table_name"), at),
            name if SECOND_IS_TABLE.contains(&name) => self.touch(false, argument(call, 1, "table_name"), at),
            "execute" | "exec_driver_sql" | "text" | "DDL" => self.sql(argument(call, 0, "sqltext"), at),
            "create_all" | "create" | "read" | "read_text" => self.tables.opaque = true,
            _ => {}
        }
    }

    fn touch(&mut self, creates: bool, table: Option<&Expr>, at: TextSize) {
        match table {
            Some(Expr::StringLiteral(literal)) => self.named(creates, literal.value.to_str(), at),
            // `batch_op.add_column(sa.Column(…))`: the batch has named its table.
            Some(Expr::Call(_)) | None => {}
            Some(_) => self.tables.opaque |= creates,
        }
    }

    fn named(&mut self, creates: bool, table: &str, at: TextSize) {
        let bare = table.rsplit('.').next().unwrap_or(table).trim_matches('"').to_owned();
        let touch = Touch { table: bare, place: self.source.place(at) };
        if creates { self.tables.creates.push(touch) } else { self.tables.expects.push(touch) }
    }

    fn sql(&mut self, text: Option<&Expr>, at: TextSize) {
        let rendered = match text {
            Some(Expr::StringLiteral(literal)) => literal.value.to_str().to_owned(),
            // Its own call is looked at.
            Some(Expr::Call(_)) | None => return,
            Some(_) => {
                self.tables.opaque = true;
                return;
            }
        };
        for statement in sql::statements(&rendered) {
            if statement.object.is_empty() || statement.object.contains([HOLE, '…']) || statement.in_do {
                self.tables.opaque = true;
            } else if statement.verb == "CREATE TABLE" {
                self.named(true, &statement.object, at);
            } else if statement.verb == "ALTER TABLE" {
                self.named(false, &statement.object, at);
            }
        }
    }
}

fn argument<'a>(call: &'a ast::ExprCall, position: usize, keyword: &str) -> Option<&'a Expr> {
    let by_keyword =
        || call.arguments.keywords.iter().find(|k| k.arg.as_ref().is_some_and(|arg| arg.as_str() == keyword));
    call.arguments.args.get(position).or_else(|| by_keyword().map(|keyword| &keyword.value))
}

impl<'a> Visitor<'a> for Reader<'_> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Call(call) = expr {
            self.call(call);
        }
        walk_expr(self, expr);
    }
}
