//! What an expression of Python stands for, as far as reading can tell, and when it is true.

use super::super::condition::Condition;
use super::super::question::{Names, Reply, count_is};
use super::super::tokens::HOLE;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Known only at run time.
    Unknown,
    None,
    Bool(bool),
    Number(i64),
    /// A text; what is known only at run time is a hole in it.
    Text(String),
    /// A list, a tuple or a set.
    List(Vec<Value>),
    Pairs(Vec<(Value, Value)>),
    /// Yes or no, as the database says.
    Truth(Condition),
    /// The result of a query, before anything is fetched of it.
    Result(Reply),
    Fetched(Reply, Shape),
    /// How many rows were fetched.
    Length(Reply),
    /// A set of names.
    Names(Names),
    /// A list of descriptions, each with its name.
    Listing(Names),
    /// One of a list, of which the name is asked for.
    Listed(Names),
    /// Its name.
    NameOf(Names),
    /// SQLAlchemy's inspector.
    Inspector,
    Module(String),
    /// A name of a module.
    Imported(String, String),
    Function(usize),
    /// A connection to another database than PostgreSQL.
    Elsewhere,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The first value of the first row.
    Scalar,
    /// The first row.
    Row,
    Rows,
}

/// Names of databases, as engines and dialects call them.
const POSTGRESQL: [&str; 4] = ["postgresql", "postgres", "psycopg", "psycopg2"];
const OTHERS: [&str; 7] = ["sqlite", "mysql", "mariadb", "oracle", "mssql", "duckdb", "sqlite3"];

/// Whether a text names PostgreSQL, or another database; none if it names neither.
pub(super) fn names_postgresql(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    if POSTGRESQL.iter().any(|name| lower.starts_with(name)) {
        Some(true)
    } else {
        OTHERS.iter().any(|name| lower.starts_with(name)).then_some(false)
    }
}

impl Value {
    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text that it becomes within another one.
    pub fn rendered(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::None => "None".to_owned(),
            _ => HOLE.to_string(),
        }
    }

    /// When it is true; `written` is how the code says it.
    pub fn truth(&self, written: &str) -> Condition {
        let opaque = || Condition::Opaque(written.to_owned());
        match self {
            Value::None => Condition::Known(false),
            Value::Bool(known) => Condition::Known(*known),
            Value::Number(number) => Condition::Known(*number != 0),
            Value::Text(text) if text.contains(HOLE) => opaque(),
            Value::Text(text) => Condition::Known(!text.is_empty()),
            Value::List(list) => Condition::Known(!list.is_empty()),
            Value::Pairs(pairs) => Condition::Known(!pairs.is_empty()),
            Value::Truth(condition) => condition.clone(),
            Value::Fetched(reply, shape) => match (reply, shape) {
                // A row of one NULL is a row.
                (Reply::Row(question), _) => Condition::Has(question.clone()),
                (Reply::Count(_) | Reply::Value(_) | Reply::Truth(_), Shape::Row | Shape::Rows) => {
                    Condition::Known(true)
                }
                (Reply::Count(question) | Reply::Value(question), Shape::Scalar) => {
                    Condition::Has(question.clone())
                }
                (Reply::Truth(condition), Shape::Scalar) => condition.clone(),
                (Reply::Names(_), _) => opaque(),
            },
            Value::Length(Reply::Row(question)) => Condition::Has(question.clone()),
            Value::Result(_) | Value::Inspector | Value::Module(_) | Value::Function(_) => {
                Condition::Known(true)
            }
            _ => opaque(),
        }
    }

    /// When it is None.
    pub fn is_none(&self, written: &str) -> Condition {
        match self {
            Value::Unknown | Value::Imported(..) => Condition::Opaque(written.to_owned()),
            Value::None => Condition::Known(true),
            Value::Fetched(Reply::Row(question), Shape::Scalar | Shape::Row)
            | Value::Fetched(Reply::Value(question), Shape::Scalar) => Condition::Has(question.clone()).not(),
            Value::Fetched(Reply::Names(_), _) => Condition::Opaque(written.to_owned()),
            _ => Condition::Known(false),
        }
    }

    /// When two values are equal; `other` is the one on the right.
    pub fn equals(&self, other: &Value, written: &str) -> Condition {
        let opaque = || Condition::Opaque(written.to_owned());
        match (self, other) {
            (Value::Text(a), Value::Text(b)) if !a.contains(HOLE) && !b.contains(HOLE) => {
                Condition::Known(a == b)
            }
            (Value::Number(a), Value::Number(b)) => Condition::Known(a == b),
            (Value::Bool(a), Value::Bool(b)) => Condition::Known(a == b),
            (Value::Unknown | Value::Imported(..), Value::Text(name)) => {
                names_postgresql(name).map_or_else(opaque, Condition::Known)
            }
            (Value::NameOf(names), Value::Text(name)) => names.has(name),
            (Value::Text(name), Value::NameOf(names)) => names.has(name),
            (value, Value::None) => value.is_none(written),
            (value, Value::Bool(known)) => {
                let truth = value.truth(written);
                if *known { truth } else { truth.not() }
            }
            _ => self.compares("==", other).unwrap_or_else(opaque),
        }
    }

    /// A count, or a length, beside a number.
    pub fn compares(&self, sign: &str, other: &Value) -> Option<Condition> {
        let Value::Number(number) = other else { return None };
        let found = match self {
            Value::Fetched(Reply::Count(question), Shape::Scalar) | Value::Length(Reply::Row(question)) => {
                Condition::Has(question.clone())
            }
            Value::Number(own) => {
                let known = match sign {
                    "==" => own == number,
                    ">" => own > number,
                    ">=" => own >= number,
                    "<" => own < number,
                    "<=" => own <= number,
                    _ => return None,
                };
                return Some(Condition::Known(known));
            }
            _ => return None,
        };
        count_is(found, sign, &number.to_string())
    }

    /// When it is among the elements of another one.
    pub fn is_in(&self, container: &Value, written: &str) -> Condition {
        let opaque = || Condition::Opaque(written.to_owned());
        match (self, container) {
            (Value::Text(name), Value::Names(names)) if !name.contains(HOLE) => names.has(name),
            (Value::Text(part), Value::Text(whole)) if !part.contains(HOLE) && !whole.contains(HOLE) => {
                Condition::Known(whole.contains(part.as_str()))
            }
            (Value::Text(name), Value::Unknown | Value::Imported(..)) => {
                names_postgresql(name).map_or_else(opaque, Condition::Known)
            }
            (value, Value::List(list)) => {
                Condition::any(list.iter().map(|each| value.equals(each, written)).collect())
            }
            (value, Value::Pairs(pairs)) => {
                Condition::any(pairs.iter().map(|(key, _)| value.equals(key, written)).collect())
            }
            _ => opaque(),
        }
    }

    /// What a loop goes through; none where that is known only at run time.
    pub fn elements(&self) -> Option<Vec<Value>> {
        match self {
            Value::List(list) => Some(list.clone()),
            Value::Pairs(pairs) => Some(pairs.iter().map(|(key, _)| key.clone()).collect()),
            _ => None,
        }
    }

    /// What a loop through what was fetched goes through: descriptions, or rows, of which the name is asked
    /// for.
    pub fn described(&self) -> Option<Value> {
        match self {
            Value::Listing(names) => Some(Value::Listed(names.clone())),
            Value::Names(names) => Some(Value::NameOf(names.clone())),
            Value::Result(Reply::Names(names)) | Value::Fetched(Reply::Names(names), Shape::Rows) => {
                Some(Value::Listed(names.clone()))
            }
            _ => None,
        }
    }
}
