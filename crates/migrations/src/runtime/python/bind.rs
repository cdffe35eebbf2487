//! Parameters of a statement, put into its text as the driver would: `:name`, `%s`, `%(name)s`, `$1`.

use obyra_postgres::{lex, quote};

use super::super::tokens::HOLE;
use super::value::Value;

/// A statement with its parameters in it.
pub(super) fn bound(sql: &str, parameters: &Value) -> String {
    if matches!(parameters, Value::None) {
        return sql.to_owned();
    }
    let mut out = String::with_capacity(sql.len());
    let mut next = 0;
    let pieces: Vec<(lex::Kind, &str)> = lex::tokens(sql).collect();
    let mut at = 0;
    while let Some((kind, raw)) = pieces.get(at).copied() {
        let following = |offset: usize| pieces.get(at + offset).map_or("", |(_, raw)| *raw);
        let before = at.checked_sub(1).map_or("", |at| pieces[at].1);
        let is_word = pieces.get(at + 1).is_some_and(|(kind, _)| *kind == lex::Kind::Word);
        let (value, length) = match raw {
            ":" if is_word && before != ":" && following(1) != ":" => (named(parameters, following(1)), 2),
            "%" if following(1) == "s" && kind == lex::Kind::Symbol => {
                next += 1;
                (positional(parameters, next - 1), 2)
            }
            "%" if following(1) == "(" && following(3) == ")" && following(4) == "s" => {
                (named(parameters, following(2)), 5)
            }
            "$" if pieces.get(at + 1).is_some_and(|(kind, _)| *kind == lex::Kind::Number) => {
                let number: usize = following(1).parse().unwrap_or(0);
                (positional(parameters, number.saturating_sub(1)), 2)
            }
            _ => {
                out.push_str(raw);
                at += 1;
                continue;
            }
        };
        out.push_str(&literal(value.as_ref()));
        at += length;
    }
    out
}

fn named(parameters: &Value, name: &str) -> Option<Value> {
    match parameters {
        Value::Pairs(pairs) => {
            pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value.clone())
        }
        _ => None,
    }
}

fn positional(parameters: &Value, index: usize) -> Option<Value> {
    match parameters {
        Value::List(list) => list.get(index).cloned(),
        _ => None,
    }
}

fn literal(value: Option<&Value>) -> String {
    match value {
        Some(Value::Text(text)) if !text.contains(HOLE) => quote::literal(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(known)) => known.to_string(),
        Some(Value::None) => "NULL".to_owned(),
        _ => HOLE.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_where_the_driver_puts_them() {
        let text = |value: &str| Value::Text(value.to_owned());
        let named = Value::Pairs(vec![(text("t"), text("it's")), (text("n"), Value::Number(3))]);
        assert_eq!(bound("SELECT :t::text, ':t', :n, :x", &named), "SELECT 'it''s'::text, ':t', 3, \u{e000}");
        assert_eq!(bound("SELECT %(t)s", &named), "SELECT 'it''s'");
        let listed = Value::List(vec![text("a"), Value::None]);
        assert_eq!(bound("SELECT %s, %s, '%s'", &listed), "SELECT 'a', NULL, '%s'");
        assert_eq!(bound("SELECT $2, $1", &listed), "SELECT NULL, 'a'");
    }
}
