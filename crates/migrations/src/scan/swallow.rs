//! Handlers that hide a failure. After one, the program goes on as if the schema were what it is not.

use ruff_python_ast::{self as ast, ExceptHandler, Expr, Stmt};
use ruff_text_size::Ranged as _;

use super::facts::Swallow;
use super::roles::last_name;

/// Exceptions that a failing statement raises.
const RAISED: [&str; 16] = [
    "Exception",
    "BaseException",
    "SQLAlchemyError",
    "DBAPIError",
    "DatabaseError",
    "OperationalError",
    "ProgrammingError",
    "InternalError",
    "IntegrityError",
    "Error",
    "PostgresError",
    "DuplicateTable",
    "DuplicateColumn",
    "DuplicateObject",
    "DuplicateTableError",
    "DuplicateObjectError",
];
/// Calls that end the program, the request or the test, or that keep the failure for later.
const ENDINGS: [&str; 11] =
    ["exit", "_exit", "abort", "fail", "quit", "Exit", "die", "append", "add", "extend", "set_exception"];

/// The handler of a `try` that hides a failed statement of its body.
pub(super) fn of_try(attempt: &ast::StmtTry) -> Option<Swallow> {
    attempt.handlers.iter().find_map(|ExceptHandler::ExceptHandler(handler)| {
        let catches = handler.type_.as_deref().is_none_or(catches);
        (catches && hides(&handler.body)).then(|| Swallow { at: handler.start() })
    })
}

/// `with suppress(Exception)`.
pub(super) fn of_context(context: &Expr) -> Option<Swallow> {
    let call = suppression(context)?;
    call.arguments.args.iter().any(catches).then(|| Swallow { at: call.start() })
}

/// `suppress(…)`, whatever it suppresses.
pub(crate) fn suppression(context: &Expr) -> Option<&ast::ExprCall> {
    match context {
        Expr::Call(call) if last_name(&call.func) == Some("suppress") => Some(call),
        _ => None,
    }
}

fn catches(kind: &Expr) -> bool {
    match kind {
        Expr::Tuple(tuple) => tuple.elts.iter().any(catches),
        other => last_name(other).is_some_and(|name| RAISED.contains(&name)),
    }
}

/// Whether a handler does nothing that anybody would notice but write a log.
pub(crate) fn hides(body: &[Stmt]) -> bool {
    body.iter().all(|stmt| match stmt {
        Stmt::Pass(_) | Stmt::Continue(_) | Stmt::Break(_) => true,
        // `message = str(e)` is for the log; `ok = False` and `failed += 1` are for somebody.
        Stmt::Assign(assign) => !assign.value.is_literal_expr(),
        Stmt::Expr(expression) => !ends(&expression.value),
        // `return False` tells the caller; `return` and `return None` tell nobody.
        Stmt::Return(stmt) => stmt.value.as_deref().is_none_or(Expr::is_none_literal_expr),
        Stmt::If(branch) => {
            hides(&branch.body) && branch.elif_else_clauses.iter().all(|clause| hides(&clause.body))
        }
        Stmt::Try(attempt) => hides(&attempt.body),
        Stmt::With(with) => hides(&with.body),
        Stmt::For(each) => hides(&each.body),
        Stmt::Import(_) | Stmt::ImportFrom(_) => true,
        _ => false,
    })
}

fn ends(expr: &Expr) -> bool {
    match expr {
        Expr::Call(call) => last_name(&call.func).is_some_and(|name| ENDINGS.contains(&name)),
        Expr::Await(awaited) => ends(&awaited.value),
        _ => false,
    }
}
