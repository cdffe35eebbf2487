//! By whom a function is called, as far as its decorators, its name and its class tell.

use ruff_python_ast::{self as ast, Expr};

use super::facts::Role;

/// Decorators by which a framework calls a function for a request.
const HANDLERS: [&str; 24] = [
    "route",
    "get",
    "post",
    "put",
    "delete",
    "patch",
    "websocket",
    "api_route",
    "before_request",
    "after_request",
    "teardown_request",
    "before_app_request",
    "after_app_request",
    "teardown_app_request",
    "errorhandler",
    "app_errorhandler",
    "exception_handler",
    "middleware",
    "context_processor",
    "app_context_processor",
    "user_loader",
    "request_loader",
    "task",
    "shared_task",
];
/// … once, when the application starts.
const STARTUPS: [&str; 4] =
    ["before_first_request", "before_app_first_request", "before_serving", "on_startup"];
const FACTORIES: [&str; 8] = [
    "create_app",
    "make_app",
    "build_app",
    "app_factory",
    "get_app",
    "create_application",
    "get_application",
    "make_application",
];
const VERBS: [&str; 8] = ["get", "post", "put", "delete", "patch", "head", "options", "dispatch_request"];
/// What makes a web application, a worker, or their like.
const APPLICATIONS: [&str; 10] = [
    "Flask",
    "FastAPI",
    "Quart",
    "Sanic",
    "Starlette",
    "Litestar",
    "APIFlask",
    "Celery",
    "FlaskApp",
    "Falcon",
];

/// The role of a function; in a class, that class's role says whether its verbs are handlers.
pub(super) fn of_function(function: &ast::StmtFunctionDef, in_class: Option<Role>) -> Role {
    let name = function.name.as_str();
    let decorated = function.decorator_list.iter().map(|decorator| of_decorator(&decorator.expression));
    let by_decorator =
        decorated.fold(Role::Plain, |role, next| if role == Role::Plain { next } else { role });
    if by_decorator != Role::Plain {
        return by_decorator;
    }
    if in_class == Some(Role::Handler) && VERBS.contains(&name) {
        return Role::Handler;
    }
    let starts = FACTORIES.contains(&name) || name.ends_with("lifespan");
    if in_class.is_none() && starts { Role::Startup } else { Role::Plain }
}

/// The role of the verbs in a class.
pub(super) fn of_class(class: &ast::StmtClassDef) -> Role {
    let is_view = |base: &Expr| {
        last_name(base).is_some_and(|name| name.ends_with("View") || name.ends_with("Resource"))
    };
    let handles = class.arguments.as_ref().is_some_and(|arguments| arguments.args.iter().any(is_view));
    if handles { Role::Handler } else { Role::Plain }
}

fn of_decorator(decorator: &Expr) -> Role {
    let (callee, arguments) = match decorator {
        Expr::Call(call) => (&*call.func, Some(&call.arguments)),
        other => (other, None),
    };
    let Some(name) = last_name(callee) else { return Role::Plain };
    if name == "command" || name == "group" {
        return Role::Command;
    }
    if STARTUPS.contains(&name) {
        return Role::Startup;
    }
    if name == "on_event" {
        let event = arguments.and_then(|arguments| arguments.args.first());
        let starts = matches!(event, Some(Expr::StringLiteral(event)) if event.value == *"startup");
        return if starts { Role::Startup } else { Role::Plain };
    }
    // `@get` alone is anybody's; `@app.get("/")` is a route.
    let qualified = callee.is_attribute_expr() || name == "route" || name == "shared_task";
    if qualified && HANDLERS.contains(&name) { Role::Handler } else { Role::Plain }
}

/// Whether a decorator hands the function to somebody: `@event.listens_for(…)`, `@scheduler.job(…)`.
pub(super) fn registers(decorator: &ast::Decorator) -> bool {
    let Expr::Call(call) = &decorator.expression else { return false };
    let Expr::Attribute(attribute) = &*call.func else { return false };
    let base = last_name(&attribute.value).unwrap_or_default();
    !["functools", "contextlib", "pytest", "abc", "typing", "dataclasses", "click", "mock"].contains(&base)
}

/// Whether calling this makes an application.
pub(super) fn makes_application(callee: &Expr) -> bool {
    last_name(callee).is_some_and(|name| APPLICATIONS.contains(&name))
}

/// The last name of `a.b.c`.
pub(crate) fn last_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Name(name) => Some(name.id.as_str()),
        Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
        Expr::Subscript(generic) => last_name(&generic.value),
        _ => None,
    }
}

/// Whether a value is a method that matters, or may be one that is only named by a string.
pub(super) fn is_method(value: &Expr) -> bool {
    match value {
        Expr::Attribute(attribute) => matches!(
            attribute.attr.as_str(),
            "create_all" | "drop_all" | "create" | "drop" | "execute" | "exec_driver_sql" | "executemany"
        ),
        Expr::Call(call) => matches!(last_name(&call.func), Some("getattr" | "partial")),
        _ => false,
    }
}

/// `self` or `cls`.
pub(crate) fn is_self(name: &str) -> bool {
    name == "self" || name == "cls"
}

/// `__name__ == "__main__"`.
pub(crate) fn is_main_guard(test: &Expr) -> bool {
    let Expr::Compare(compare) = test else { return false };
    let is_name = |side: &Expr| matches!(side, Expr::Name(name) if name.id.as_str() == "__name__");
    let is_main = |side: &Expr| matches!(side, Expr::StringLiteral(text) if text.value == *"__main__");
    match &*compare.comparators {
        [right] => is_name(&compare.left) && is_main(right) || is_main(&compare.left) && is_name(right),
        _ => false,
    }
}

/// `TYPE_CHECKING`.
pub(crate) fn is_type_checking(test: &Expr) -> bool {
    last_name(test) == Some("TYPE_CHECKING")
}

/// Whether a name is that of a database's password.
pub(super) fn names_a_password(name: &str) -> bool {
    // Asked of every name that is assigned: the last letters sort out nearly all of them.
    let ending = name.len().checked_sub(3).and_then(|start| name.get(start..)).unwrap_or_default();
    if name.len() < 6 || !["ord", "swd", "ass", "pwd"].iter().any(|end| end.eq_ignore_ascii_case(ending)) {
        return false;
    }
    let name = name.to_ascii_lowercase();
    let password = ["password", "passwd", "pass", "pwd"].into_iter().find(|word| name.ends_with(word));
    password.is_some_and(|word| {
        let before = name[..name.len() - word.len()].trim_end_matches('_');
        ["db", "database", "pg", "postgres", "postgresql", "sql", "rds"]
            .iter()
            .any(|database| before == *database || before.ends_with(&format!("_{database}")))
    })
}

/// Whether a name is that of a database's role.
pub(super) fn names_a_user(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("user") || name.ends_with("username") || name.ends_with("role")
}
