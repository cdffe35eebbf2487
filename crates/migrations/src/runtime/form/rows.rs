//! `INSERT`, `UPDATE` and `DELETE`: whether the rows that they leave behind are the same after a second time.

use obyra_evidence::text;

use super::super::object::{Kind, Name, Object, Reader, find, split_at};
use super::super::tokens::{Kind as TokenKind, Token};
use super::{Again, Effect, Verb, has, unclear};

fn effect(table: Name, again: Again) -> Effect {
    Effect::new(Verb::Sets, Object::new(Kind::Rows, table), again)
}

/// Reads what follows `INSERT`.
pub(super) fn insert(mut reader: Reader<'_, '_>) -> Option<Effect> {
    reader.eat("into");
    let table = reader.name()?;
    let rest = reader.rest();
    let Some(conflict) = find(rest, "conflict").filter(|at| *at > 0 && rest[at - 1].is("on")) else {
        let asks = has(rest, "exists") || has(rest, "except") || has(rest, "left");
        let again = if asks {
            unclear("INSERT … WHERE NOT EXISTS")
        } else {
            Again::Repeats(text::runtime::WHY_INSERT.with("table", &table))
        };
        return Some(effect(table, again));
    };
    let mut reader = Reader::new(&rest[conflict + 1..]);
    let key = reader.group();
    let named = key.is_some() || reader.eat("on constraint") && reader.name().is_some();
    let columns = Reader::new(rest).group();
    if let (Some(key), Some(columns)) = (key, columns)
        && !is_given(key, columns)
    {
        // A key that the server fills in is never met.
        return Some(effect(table, unclear("INSERT … ON CONFLICT")));
    }
    if rest.iter().any(is_clock) {
        return Some(effect(table, unclear("INSERT … ON CONFLICT")));
    }
    let again = match find(reader.rest(), "set") {
        Some(set) => overwritten(&reader.rest()[set + 1..], &table),
        None if named => Again::Nothing,
        // Without a key that it could meet, it inserts each time.
        None => unclear("INSERT … ON CONFLICT DO NOTHING"),
    };
    let writes_again = find(reader.rest(), "set").is_some();
    Some(Effect { writes_again, ..effect(table, again) })
}

/// Whether each column of a key is given a value. An expression is asked of no column.
fn is_given(key: &[Token<'_>], columns: &[Token<'_>]) -> bool {
    let names: Vec<Option<String>> = split_at(columns, ",").iter().map(|part| part.first()?.name()).collect();
    split_at(key, ",").iter().all(|part| match part {
        [column, ..] if column.name().is_some() => names.contains(&column.name()),
        _ => true,
    })
}

/// `DO UPDATE SET`: the same values as the first time, unless they are computed from the row that is there.
fn overwritten(set: &[Token<'_>], table: &Name) -> Again {
    let end = find(set, "where").or_else(|| find(set, "returning")).unwrap_or(set.len());
    for (column, value) in assignments(&set[..end]) {
        if mentions_own(value, &column, table) {
            return Again::Repeats(text::runtime::WHY_COUNTS.with("column", column));
        }
    }
    if has(&set[..end], "select") {
        return unclear("INSERT … ON CONFLICT DO UPDATE");
    }
    Again::Nothing
}

/// Reads what follows `UPDATE`.
pub(super) fn update(mut reader: Reader<'_, '_>) -> Option<Effect> {
    reader.eat("only");
    let table = reader.name()?;
    let rest = reader.rest();
    let set = find(rest, "set")?;
    let alias = rest[..set].iter().rev().find_map(Token::name).unwrap_or_else(|| table.name.clone());
    let body = &rest[set + 1..];
    let end = ["from", "where", "returning"].iter().filter_map(|word| find(body, word)).min();
    let end = end.unwrap_or(body.len());
    let assigned = assignments(&body[..end]);
    let condition = find(body, "where").map(|at| &body[at + 1..]);
    let condition = condition.map(|tokens| &tokens[..find(tokens, "returning").unwrap_or(tokens.len())]);
    let again = match condition {
        Some(condition) if assigned.iter().any(|(column, value)| ends(condition, column, value)) => {
            Again::Nothing
        }
        _ if has(&body[..end], "select") || has(body, "from") => unclear("UPDATE … FROM"),
        _ => match assigned.iter().find(|(column, value)| mentions(value, column, &alias)) {
            Some((column, _)) if condition.is_none() => {
                Again::Repeats(text::runtime::WHY_COUNTS.with("column", column))
            }
            None if condition.is_none() => Again::Repeats(text::runtime::WHY_UPDATE.with("table", &table)),
            _ => unclear("UPDATE"),
        },
    };
    Some(effect(table, again))
}

/// Reads what follows `DELETE`.
pub(super) fn delete(mut reader: Reader<'_, '_>) -> Option<Effect> {
    reader.eat("from");
    reader.eat("only");
    let table = reader.name()?;
    let again = if find(reader.rest(), "where").is_some() {
        unclear("DELETE")
    } else {
        Again::Loses(text::runtime::WHY_DELETE.with("table", &table))
    };
    Some(effect(table, again))
}

/// `column = value`, each.
fn assignments<'t, 'a>(set: &'t [Token<'a>]) -> Vec<(String, &'t [Token<'a>])> {
    let parts = split_at(set, ",").into_iter();
    parts
        .filter_map(|part| match part {
            [column, equals, value @ ..] if equals.raw == "=" => Some((column.name()?, value)),
            _ => None,
        })
        .collect()
}

/// Whether a value is computed from the column as it is: `n + 1`, `t.n + 1`.
fn mentions(value: &[Token<'_>], column: &str, alias: &str) -> bool {
    (0..value.len()).any(|at| {
        let own = value[at].name().is_some_and(|name| name == column);
        let qualifier =
            at.checked_sub(2).filter(|_| value[at - 1].raw == ".").and_then(|at| value[at].name());
        own && qualifier.is_none_or(|name| name == alias)
    })
}

/// In `DO UPDATE` the row that is there goes by the table's name; `excluded` is the one that was to come.
fn mentions_own(value: &[Token<'_>], column: &str, table: &Name) -> bool {
    mentions(value, column, &table.name)
}

/// Whether a condition no longer holds for a row once the column has its new value.
fn ends(condition: &[Token<'_>], column: &str, value: &[Token<'_>]) -> bool {
    let constant = matches!(value, [one] if is_constant(one));
    split_at(condition, "and").iter().any(|part| {
        let at = part.iter().position(|token| token.name().is_some_and(|name| name == column));
        let Some(at) = at.filter(|at| *at == 0 || *at == 2 && part[1].raw == ".") else { return false };
        let rest = &part[at + 1..];
        match rest {
            [is, null] if is.is("is") && null.is("null") => !value.iter().any(|token| token.is("null")),
            [is, distinct, from, same @ ..] if is.is("is") && distinct.is("distinct") && from.is("from") => {
                same_tokens(same, value)
            }
            [sign, same @ ..] if sign.is("<>") || sign.is("!=") => constant && same_tokens(same, value),
            [sign, other] if sign.is("=") => constant && is_constant(other) && other.raw != value[0].raw,
            _ => false,
        }
    })
}

fn is_constant(token: &Token<'_>) -> bool {
    matches!(token.kind, TokenKind::Text | TokenKind::Number | TokenKind::Dollar)
        || token.is("true")
        || token.is("false")
}

fn same_tokens(one: &[Token<'_>], other: &[Token<'_>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.raw.eq_ignore_ascii_case(b.raw))
}

/// What gives another value each time.
fn is_clock(token: &Token<'_>) -> bool {
    token.is_any(&["now", "clock_timestamp", "current_timestamp", "random", "gen_random_uuid", "nextval"])
}
