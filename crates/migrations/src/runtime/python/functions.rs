//! Names and functions: what a name stands for where it is read, and what a call of the file's own function
//! gives.

use ruff_python_ast::{self as ast, Expr};

use super::super::condition::Condition;
use super::Function;
use super::flow::{Exit, Frame, Machine};
use super::value::Value;
use crate::scan::{is_self, last_name};

/// Functions that call functions.
const CALLS_MAX: usize = 16;

impl<'a> Machine<'a, '_> {
    /// What a name stands for: here, in the functions around, or in the module.
    pub fn lookup(&self, name: &str) -> Value {
        let here = self.frames.last().and_then(|frame| frame.names.get(name));
        let mut around = self.frames.last().and_then(|frame| frame.function);
        let mut found = here;
        while let Some(function) = around.filter(|_| found.is_none()) {
            around = self.survey.functions[function].parent;
            let frame =
                self.frames.iter().rev().find(|frame| frame.function.is_some() && frame.function == around);
            found = frame.and_then(|frame| frame.names.get(name));
        }
        found.or_else(|| self.frames[0].names.get(name)).cloned().unwrap_or(Value::Unknown)
    }

    pub fn bind(&mut self, name: &'a str, value: Value) {
        let last = self.frames.len() - 1;
        let global = self.frames[last].globals.contains(name);
        self.frames[if global { 0 } else { last }].names.insert(name, value);
    }

    /// Binds the names of a target.
    pub fn assign(&mut self, target: &'a Expr, value: Value) {
        match target {
            Expr::Name(name) => self.bind(name.id.as_str(), value),
            Expr::Tuple(ast::ExprTuple { elts, .. }) | Expr::List(ast::ExprList { elts, .. }) => {
                let parts = match value {
                    Value::List(list) if list.len() == elts.len() => list,
                    // `for (name,) in rows`.
                    Value::Listed(names) if elts.len() == 1 => vec![Value::NameOf(names)],
                    _ => vec![Value::Unknown; elts.len()],
                };
                for (target, value) in elts.iter().zip(parts) {
                    self.assign(target, value);
                }
            }
            // An item that is set changes what the name holds.
            Expr::Subscript(item) => {
                if let Expr::Name(name) = &*item.value {
                    let changed = match (self.lookup(name.id.as_str()), self.evaluate(&item.slice)) {
                        (Value::Pairs(mut pairs), key @ Value::Text(_)) => {
                            pairs.retain(|(known, _)| *known != key);
                            pairs.push((key, value));
                            Value::Pairs(pairs)
                        }
                        _ => Value::Unknown,
                    };
                    self.bind(name.id.as_str(), changed);
                }
            }
            Expr::Starred(starred) => self.assign(&starred.value, Value::Unknown),
            // `self.statements = […]`: the name belongs to the class.
            Expr::Attribute(attribute) => {
                let on_self = matches!(&*attribute.value, Expr::Name(name) if is_self(name.id.as_str()));
                let class = self.frames.iter().rev().find_map(|frame| frame.class);
                if let Some(class) = class.filter(|_| on_self) {
                    self.classes.entry(class).or_default().insert(attribute.attr.as_str(), value);
                }
            }
            _ => {}
        }
    }

    /// The parameters of a function that somebody else calls, whose defaults are switches: how they are set is
    /// not known.
    pub fn switches(&self, index: usize) -> Vec<(&'a str, Value)> {
        let parameters = self.survey.functions[index].def.parameters.iter_non_variadic_params();
        let switches = parameters.filter(|parameter| {
            parameter.default.as_deref().is_some_and(|value| {
                value.is_boolean_literal_expr()
                    || value.is_none_literal_expr()
                    || value.is_number_literal_expr()
            })
        });
        switches.map(|parameter| (parameter.parameter.name.as_str(), Value::Unknown)).collect()
    }

    /// Follows a call of the file's own function, and says what it returns.
    pub fn call(&mut self, index: usize, args: Vec<Value>, keywords: Vec<(&str, Value)>) -> Value {
        let Function { def, class, .. } = self.survey.functions[index];
        let recurs = self.frames.iter().any(|frame| frame.function == Some(index));
        if recurs || self.frames.len() > CALLS_MAX || !self.step() {
            return Value::Unknown;
        }
        self.followed.insert(index);
        let mut frame = Frame::new(Some(index), class, self.when.len());
        let is_method = class.is_some() && !def.decorator_list.iter().any(is_static);
        let parameters = def.parameters.iter_non_variadic_params().skip(usize::from(is_method));
        for (position, parameter) in parameters.enumerate() {
            let name = parameter.parameter.name.as_str();
            let by_keyword =
                keywords.iter().find(|(keyword, _)| *keyword == name).map(|(_, value)| value.clone());
            let value = match args.get(position).cloned().or(by_keyword) {
                Some(value) => value,
                None => parameter.default.as_deref().map_or(Value::Unknown, |value| self.evaluate(value)),
            };
            frame.names.insert(name, value);
        }
        self.frames.push(frame);
        // A handler around the call is around all that the function sends; one in the function is not around
        // its caller.
        let (when, handlers) = (self.when.len(), self.handlers.len());
        let in_handler = std::mem::take(&mut self.in_handler);
        let exit = self.block(&def.body);
        self.in_handler = in_handler;
        self.when.truncate(when);
        self.handlers.truncate(handlers);
        match self.frames.pop() {
            Some(frame) if !frame.yields.is_empty() => Value::List(frame.yields),
            Some(mut frame) => {
                if exit == Exit::No {
                    frame.returns.push((Condition::Known(true), Value::None));
                }
                folded(frame.returns)
            }
            None => Value::Unknown,
        }
    }
}

fn is_static(decorator: &ast::Decorator) -> bool {
    last_name(&decorator.expression) == Some("staticmethod")
}

/// What a function with several returns gives: one value, or a yes under the conditions of its yeses.
fn folded(returns: Vec<(Condition, Value)>) -> Value {
    match returns.as_slice() {
        [] => Value::Unknown,
        [(Condition::Known(true), value)] => value.clone(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, value)| value == first) => first.clone(),
        _ => {
            let yes = returns.into_iter().map(|(condition, value)| {
                let truth = match value {
                    Value::Bool(_) | Value::None | Value::Truth(_) | Value::Fetched(..) => {
                        value.truth("return")
                    }
                    _ => Condition::Opaque("return".to_owned()),
                };
                Condition::all(vec![condition, truth])
            });
            Value::Truth(Condition::any(yes.collect()))
        }
    }
}
