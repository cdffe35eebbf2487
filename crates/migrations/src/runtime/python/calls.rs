//! Calls: what sends a statement, what asks the database, what Python makes of values, and the file's own
//! functions.

use ruff_python_ast::{self as ast, Expr};
use ruff_text_size::Ranged as _;

use super::super::condition::Condition;
use super::super::form::{self, Manner};
use super::super::question::{self, Reply};
use super::super::tokens::{HOLE, split, tokens};
use super::flow::Machine;
use super::value::{Shape, Value};
use super::{bind, inspector, texts};
use crate::scan::{OPERATES, SENDS, SENT_AS, is_other_database, last_name, sql};

/// Words that a statement begins with. Other texts are sent to something else than a database.
const VERBS: [&str; 41] = [
    "abort",
    "alter",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "grant",
    "import",
    "insert",
    "lock",
    "merge",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "show",
    "start",
    "truncate",
    "update",
    "vacuum",
    "with",
];
/// Methods that fetch of what was asked before.
const FETCHES: [&str; 13] = [
    "scalar",
    "scalar_one",
    "scalar_one_or_none",
    "fetchval",
    "first",
    "fetchone",
    "one",
    "one_or_none",
    "fetchall",
    "all",
    "scalars",
    "mappings",
    "fetchmany",
];
/// Calls that tell people of a statement.
const TELLS: [&str; 10] =
    ["info", "warning", "warn", "debug", "error", "exception", "critical", "print", "echo", "log"];
/// SQLAlchemy's own queries, which change nothing.
const QUERIES: [&str; 5] = ["select", "exists", "func", "query", "union"];

/// Whether a call sends a statement, by its name.
pub(super) fn sends(call: &ast::ExprCall) -> bool {
    let Expr::Attribute(method) = &*call.func else { return false };
    SENDS.contains(&method.attr.as_str()) && argument(call).is_some()
}

/// What is sent.
fn argument(call: &ast::ExprCall) -> Option<&Expr> {
    let arguments = &call.arguments;
    let by_keyword = || {
        arguments.keywords.iter().find_map(|keyword| {
            let name = keyword.arg.as_ref()?.as_str();
            SENT_AS.contains(&name).then_some(&keyword.value)
        })
    };
    arguments.args.first().or_else(by_keyword)
}

type Keywords<'a> = Vec<(&'a str, Value)>;

impl<'a> Machine<'a, '_> {
    /// What a call gives.
    pub fn evaluate_call(&mut self, call: &'a ast::ExprCall) -> Value {
        if sends(call) {
            self.seen.insert(call.range());
        }
        match &*call.func {
            Expr::Attribute(method) => self.method(call, method),
            Expr::Name(name) => self.named(call, name.id.as_str()),
            callee => {
                let callee = self.evaluate(callee);
                let (args, keywords) = self.arguments(call);
                self.called(callee, args, keywords)
            }
        }
    }

    fn arguments(&mut self, call: &'a ast::ExprCall) -> (Vec<Value>, Keywords<'a>) {
        let mut args = Vec::with_capacity(call.arguments.args.len());
        for arg in &call.arguments.args {
            match (arg, self.evaluate(arg)) {
                (Expr::Starred(_), Value::List(list)) => args.extend(list),
                (_, value) => args.push(value),
            }
        }
        let mut keywords = Vec::new();
        for keyword in &call.arguments.keywords {
            let value = self.evaluate(&keyword.value);
            if let Some(name) = &keyword.arg {
                keywords.push((name.as_str(), value));
            }
        }
        (args, keywords)
    }

    fn called(&mut self, callee: Value, args: Vec<Value>, keywords: Keywords<'a>) -> Value {
        match callee {
            Value::Function(index) => self.call(index, args, keywords),
            Value::Imported(module, _) if is_other_database(&module) => Value::Elsewhere,
            Value::Elsewhere => Value::Elsewhere,
            _ => Value::Unknown,
        }
    }

    /// A call of a plain name: a function of the file, or one that everybody knows.
    fn named(&mut self, call: &'a ast::ExprCall, name: &'a str) -> Value {
        let callee = self.lookup(name);
        let (args, keywords) = self.arguments(call);
        if matches!(callee, Value::Function(_) | Value::Elsewhere) {
            return self.called(callee, args, keywords);
        }
        let known = match &callee {
            Value::Imported(_, original) => original.clone(),
            _ => name.to_owned(),
        };
        if let Some(value) = self.builtin(&known, &args) {
            return value;
        }
        self.handed_on(call, &args);
        self.called(callee, args, keywords)
    }

    fn builtin(&mut self, name: &str, args: &[Value]) -> Option<Value> {
        let first = args.first();
        let value = match (name, first) {
            ("text" | "DDL" | "SQL" | "TextClause", Some(Value::Text(text))) => {
                Value::Text(text.replace("\\:", ":"))
            }
            ("dedent" | "cleandoc", Some(Value::Text(text))) => Value::Text(texts::dedented(text)),
            ("Identifier", Some(Value::Text(_))) => {
                let parts: Vec<String> = args.iter().map(quoted).collect();
                Value::Text(parts.join("."))
            }
            ("Literal", Some(value)) => Value::Text(bind::bound("%s", &Value::List(vec![value.clone()]))),
            ("inspect", Some(_)) => Value::Inspector,
            ("str", Some(value)) => Value::Text(value.rendered()),
            ("bool", Some(value)) => Value::Truth(value.truth("bool(…)")),
            ("len", Some(Value::List(list))) => Value::Number(i64::try_from(list.len()).unwrap_or(i64::MAX)),
            ("len", Some(Value::Fetched(reply @ Reply::Row(_), Shape::Rows))) => Value::Length(reply.clone()),
            ("list" | "set" | "tuple" | "frozenset" | "sorted" | "reversed" | "iter", Some(value)) => {
                listed(name, value)?
            }
            ("list" | "set" | "tuple" | "frozenset", None) => Value::List(Vec::new()),
            ("dict", None) => Value::Pairs(Vec::new()),
            ("enumerate", Some(Value::List(list))) => {
                let pair = |(at, value): (usize, &Value)| {
                    Value::List(vec![Value::Number(i64::try_from(at).unwrap_or(0)), value.clone()])
                };
                Value::List(list.iter().enumerate().map(pair).collect())
            }
            ("zip", Some(Value::List(one))) => match args.get(1) {
                Some(Value::List(other)) => {
                    let pairs = one.iter().zip(other);
                    Value::List(pairs.map(|(a, b)| Value::List(vec![a.clone(), b.clone()])).collect())
                }
                _ => return None,
            },
            ("any" | "all", Some(Value::List(list))) => {
                let truths = list.iter().map(|value| value.truth("any(…)")).collect();
                Value::Truth(if name == "any" { Condition::any(truths) } else { Condition::all(truths) })
            }
            _ => return None,
        };
        Some(value)
    }

    fn method(&mut self, call: &'a ast::ExprCall, method: &'a ast::ExprAttribute) -> Value {
        let name = method.attr.as_str();
        // `self.ensure()`, `Helper.ensure()`, `module.function()`.
        let callee = self.attribute_of(method);
        let receiver = match callee {
            Callee::Function(value) => {
                let (args, keywords) = self.arguments(call);
                return self.called(value, args, keywords);
            }
            Callee::Of(receiver) => receiver,
        };
        if sends(call) && receiver != Value::Elsewhere && !matches!(receiver, Value::Text(_) | Value::List(_))
        {
            return self.send(call, name);
        }
        let (args, keywords) = self.arguments(call);
        if receiver == Value::Elsewhere {
            return Value::Elsewhere;
        }
        if let Some(value) = self.of_receiver(&receiver, method, (&args, &keywords)) {
            return value;
        }
        if self.constructs(method, &receiver) {
            self.unread(call);
            return Value::Unknown;
        }
        if FETCHES.contains(&name) && args.is_empty() && matches!(receiver, Value::Unknown) {
            return self.last_query.clone().map_or(Value::Unknown, |reply| fetched(reply, name));
        }
        if let Value::Imported(module, _) | Value::Module(module) = &receiver
            && is_other_database(module)
        {
            return Value::Elsewhere;
        }
        if let Some(value) =
            self.builtin(name, &args).filter(|_| !matches!(name, "any" | "all" | "list" | "set"))
        {
            return value;
        }
        if name == "has_table"
            && let Some(value) = inspector::has_table(&args, &keywords)
        {
            return value;
        }
        self.handed_on(call, &args);
        Value::Unknown
    }

    /// A method of a value that is known.
    fn of_receiver(
        &mut self,
        receiver: &Value,
        method: &'a ast::ExprAttribute,
        (args, keywords): (&[Value], &[(&'a str, Value)]),
    ) -> Option<Value> {
        let name = method.attr.as_str();
        match receiver {
            Value::Text(text) => texts::method(text, name, args, keywords),
            Value::Inspector => inspector::method(name, args, keywords),
            Value::Result(reply) if FETCHES.contains(&name) => Some(fetched(reply.clone(), name)),
            Value::Fetched(reply, Shape::Rows) if FETCHES.contains(&name) => {
                Some(fetched(reply.clone(), name))
            }
            Value::List(list) => {
                let grown = match (name, args) {
                    ("append" | "add", [value]) => [list.clone(), vec![value.clone()]].concat(),
                    ("extend" | "update", [Value::List(more)]) => [list.clone(), more.clone()].concat(),
                    ("copy", []) => return Some(receiver.clone()),
                    ("append" | "add" | "extend" | "update" | "insert" | "remove" | "pop" | "clear", _) => {
                        self.assign(&method.value, Value::Unknown);
                        return Some(Value::Unknown);
                    }
                    _ => return None,
                };
                self.assign(&method.value, Value::List(grown));
                Some(Value::None)
            }
            Value::Pairs(pairs) => match name {
                "items" => {
                    let pair = |(key, value): &(Value, Value)| Value::List(vec![key.clone(), value.clone()]);
                    Some(Value::List(pairs.iter().map(pair).collect()))
                }
                "keys" => Some(Value::List(pairs.iter().map(|(key, _)| key.clone()).collect())),
                "values" => Some(Value::List(pairs.iter().map(|(_, value)| value.clone()).collect())),
                "get" => {
                    let found = pairs.iter().find(|(key, _)| Some(key) == args.first());
                    Some(
                        found.map_or_else(|| args.get(1).cloned().unwrap_or(Value::None), |(_, v)| v.clone()),
                    )
                }
                "copy" => Some(receiver.clone()),
                "update" | "pop" | "setdefault" | "clear" => {
                    self.assign(&method.value, Value::Unknown);
                    Some(Value::Unknown)
                }
                _ => None,
            },
            // `url.startswith("sqlite")`, of a URL that is known only at run time.
            Value::Unknown | Value::Imported(..) if name == "startswith" => {
                let prefix = args.first().and_then(Value::text)?;
                super::value::names_postgresql(prefix).map(Value::Bool)
            }
            _ => None,
        }
    }

    /// The function that a method's name stands for, or what the method is called on.
    fn attribute_of(&mut self, method: &'a ast::ExprAttribute) -> Callee {
        if let Expr::Name(_) = &*method.value
            && let value @ Value::Function(_) = self.attribute_value(method)
        {
            return Callee::Function(value);
        }
        Callee::Of(self.evaluate(&method.value))
    }

    /// Whether a method makes its statements of Python's objects.
    fn constructs(&self, method: &ast::ExprAttribute, receiver: &Value) -> bool {
        let name = method.attr.as_str();
        let on = last_name(&method.value);
        let of_alembic = matches!(receiver, Value::Imported(module, _) if module.starts_with("alembic"))
            || on.is_some_and(|on| on == "op" || on == "batch_op");
        matches!(name, "create_all" | "drop_all")
            || matches!(name, "create" | "drop") && on == Some("__table__")
            || OPERATES.contains(&name) && of_alembic
    }

    /// A statement that is handed to a function of another file: whoever it is, it sends it.
    fn handed_on(&mut self, call: &'a ast::ExprCall, args: &[Value]) {
        let callee = last_name(&call.func).unwrap_or_default();
        if TELLS.contains(&callee) {
            return;
        }
        for text in args.iter().filter_map(Value::text) {
            if sql::may_begin_ddl(text) {
                self.send_text(call, text);
            }
        }
    }

    /// `connection.execute(…)` and its sisters.
    fn send(&mut self, call: &'a ast::ExprCall, name: &str) -> Value {
        let Some(sent) = argument(call) else { return Value::Unknown };
        let first = self.evaluate(sent);
        let mut parameters = Value::None;
        let mut listed = Vec::new();
        for arg in call.arguments.args.iter().skip(1) {
            listed.push(self.evaluate(arg));
        }
        for keyword in &call.arguments.keywords {
            let value = self.evaluate(&keyword.value);
            if keyword
                .arg
                .as_ref()
                .is_some_and(|name| matches!(name.as_str(), "params" | "parameters" | "vars"))
            {
                listed.insert(0, value);
            }
        }
        match listed.as_slice() {
            [] => {}
            [one @ (Value::Pairs(_) | Value::List(_))] => parameters = one.clone(),
            // asyncpg is given them one by one.
            many => parameters = Value::List(many.to_vec()),
        }
        let Value::Text(text) = first else {
            if !builds_a_query(sent) {
                self.unread(call);
            }
            self.last_query = None;
            return Value::Unknown;
        };
        let text = bind::bound(&text, &parameters);
        let reply = self.send_text(call, &text);
        self.last_query.clone_from(&reply);
        match reply {
            None => Value::Unknown,
            Some(reply) if name == "execute" || name == "exec_driver_sql" => Value::Result(reply),
            Some(reply) => {
                let fetch = match name {
                    "fetchrow" => "first",
                    "fetch" => "all",
                    other => other,
                };
                fetched(reply, fetch)
            }
        }
    }

    /// Takes the statements of a text; the answer, if it is one query.
    fn send_text(&mut self, call: &'a ast::ExprCall, text: &str) -> Option<Reply> {
        let pieces = split(text);
        let first = pieces.first()?.tokens.first()?;
        if first.has_hole() {
            self.unread(call);
            return None;
        }
        if !first.is_any(&VERBS) {
            return None;
        }
        let mut reply = None;
        for piece in &pieces {
            let own: Vec<_> = tokens(piece.text);
            let form = form::of_tokens(piece.text, &own);
            match form.manner {
                Manner::Query => reply = question::of_query(piece.text, &own).filter(|_| pieces.len() == 1),
                Manner::TransactionControl => {}
                Manner::Session if form.search_path.is_none() => {}
                _ if piece.text.contains(HOLE) && form.search_path.is_none() => self.unread(call),
                _ => {
                    let written = self.written(&call.func);
                    self.sent(call.start(), piece.text, format!("{written}()"));
                }
            }
        }
        reply
    }
}

enum Callee {
    Function(Value),
    Of(Value),
}

/// Whether SQLAlchemy builds a query here that only reads.
fn builds_a_query(expr: &Expr) -> bool {
    match expr {
        Expr::Call(call) => match &*call.func {
            Expr::Attribute(method) => {
                QUERIES.contains(&method.attr.as_str()) || builds_a_query(&method.value)
            }
            callee => last_name(callee).is_some_and(|name| QUERIES.contains(&name)),
        },
        Expr::Attribute(attribute) => builds_a_query(&attribute.value),
        _ => false,
    }
}

fn fetched(reply: Reply, method: &str) -> Value {
    match method {
        "scalar" | "scalar_one" | "scalar_one_or_none" | "fetchval" => Value::Fetched(reply, Shape::Scalar),
        "first" | "fetchone" | "one" | "one_or_none" => Value::Fetched(reply, Shape::Row),
        "scalars" | "mappings" => Value::Result(reply),
        _ => Value::Fetched(reply, Shape::Rows),
    }
}

/// `list(…)` and its sisters: another container of the same.
fn listed(name: &str, value: &Value) -> Option<Value> {
    Some(match value {
        Value::List(list) if name == "reversed" => Value::List(list.iter().rev().cloned().collect()),
        // A sorted list of texts is in another order, which nobody's statements depend on.
        Value::List(_) | Value::Names(_) | Value::Listing(_) => value.clone(),
        Value::Pairs(pairs) => Value::List(pairs.iter().map(|(key, _)| key.clone()).collect()),
        Value::Result(Reply::Names(names)) | Value::Fetched(Reply::Names(names), Shape::Rows) => {
            Value::Names(names.clone())
        }
        Value::Result(reply) => Value::Fetched(reply.clone(), Shape::Rows),
        _ => return None,
    })
}

fn quoted(part: &Value) -> String {
    part.text().map_or_else(|| HOLE.to_string(), |name| format!("\"{}\"", name.replace('"', "\"\"")))
}
