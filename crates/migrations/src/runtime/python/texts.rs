//! Python's ways to make a text of a text: methods, `format`, `%`.

use super::super::tokens::HOLE;
use super::value::Value;

/// A method of a text; none where it is not known.
pub(super) fn method(text: &str, name: &str, args: &[Value], keywords: &[(&str, Value)]) -> Option<Value> {
    let first = args.first().and_then(Value::text);
    let made = match name {
        "strip" if first.is_none() => text.trim().to_owned(),
        "lstrip" if first.is_none() => text.trim_start().to_owned(),
        "rstrip" if first.is_none() => text.trim_end().to_owned(),
        "rstrip" => text.trim_end_matches(|c| first.is_some_and(|set| set.contains(c))).to_owned(),
        "strip" => text.trim_matches(|c| first.is_some_and(|set| set.contains(c))).to_owned(),
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "replace" => match (first, args.get(1).and_then(Value::text)) {
            (Some(from), Some(to)) if !from.is_empty() => text.replace(from, to),
            _ => return None,
        },
        "format" => format(text, args, keywords),
        "join" => joined(text, args.first()?)?,
        "startswith" | "endswith" => return tested(text, name, first?),
        "split" | "splitlines" => return split(text, name, first),
        "encode" | "decode" | "bindparams" | "execution_options" | "as_string" => text.to_owned(),
        _ => return None,
    };
    Some(Value::Text(made))
}

fn tested(text: &str, name: &str, part: &str) -> Option<Value> {
    if text.contains(HOLE) {
        return None;
    }
    Some(Value::Bool(if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) }))
}

fn split(text: &str, name: &str, separator: Option<&str>) -> Option<Value> {
    let part = |part: &str| Value::Text(part.to_owned());
    let list = match (name, separator) {
        ("splitlines", _) => text.lines().map(part).collect(),
        (_, None) => text.split_whitespace().map(part).collect(),
        (_, Some("")) => return None,
        (_, Some(separator)) => text.split(separator).map(part).collect(),
    };
    Some(Value::List(list))
}

fn joined(separator: &str, list: &Value) -> Option<String> {
    match list {
        Value::List(list) => Some(list.iter().map(Value::rendered).collect::<Vec<_>>().join(separator)),
        _ => None,
    }
}

/// `"ALTER TABLE {} ADD {name} {kind}".format(…)`.
fn format(text: &str, args: &[Value], keywords: &[(&str, Value)]) -> String {
    let (mut out, mut next) = (String::new(), 0);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..];
        if brace.starts_with("{{") || brace.starts_with("}}") {
            out.push_str(&brace[..1]);
            rest = &brace[2..];
            continue;
        }
        let Some(end) = brace.find('}').filter(|_| brace.starts_with('{')) else {
            out.push_str(&brace[..1]);
            rest = &brace[1..];
            continue;
        };
        let field = &brace[1..end];
        let name = field.split([':', '!', '.', '[']).next().unwrap_or_default();
        let value = match name.parse::<usize>() {
            Ok(index) => args.get(index),
            Err(_) if name.is_empty() => {
                next += 1;
                args.get(next - 1)
            }
            Err(_) => keywords.iter().find(|(keyword, _)| *keyword == name).map(|(_, value)| value),
        };
        match value.filter(|_| name.len() == field.len()) {
            Some(value) => out.push_str(&value.rendered()),
            None => out.push(HOLE),
        }
        rest = &brace[end + 1..];
    }
    out + rest
}

/// `"ALTER TABLE %s ADD %(name)s" % …`.
pub(super) fn percent(text: &str, values: &Value) -> String {
    let (mut out, mut next) = (String::new(), 0);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (value, after) = if let Some(named) = after.strip_prefix('(') {
            let Some((name, after)) = named.split_once(')') else { return out + "%" + after };
            let value = match values {
                Value::Pairs(pairs) => pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, v)| v),
                _ => None,
            };
            (value, after)
        } else {
            let value = match values {
                Value::List(list) => list.get(next),
                one => Some(one).filter(|_| next == 0),
            };
            (value, after)
        };
        match after.chars().next() {
            Some('%') => out.push('%'),
            Some('s' | 'd') => {
                next += 1;
                out.push_str(&value.map_or_else(|| HOLE.to_string(), Value::rendered));
            }
            _ => out.push(HOLE),
        }
        rest = after.get(1..).unwrap_or_default();
    }
    out + rest
}

/// `textwrap.dedent`: for SQL, blanks at the start of a line mean nothing.
pub(super) fn dedented(text: &str) -> String {
    let margin = text.lines().filter(|line| !line.trim().is_empty());
    let margin =
        margin.map(|line| line.len() - line.trim_start_matches([' ', '\t']).len()).min().unwrap_or(0);
    text.lines().map(|line| line.get(margin..).unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    #[test]
    fn texts_are_filled_as_python_fills_them() {
        let named = [("name", text("phone"))];
        assert_eq!(
            format("{} {1} {name} {{x}} {y}", &[text("a"), text("b")], &named),
            "a b phone {x} \u{e000}"
        );
        assert_eq!(format("{name:>10} }", &[], &named), "\u{e000} }");
        assert_eq!(percent("%s %d %% %s", &Value::List(vec![text("a"), Value::Number(1)])), "a 1 % \u{e000}");
        assert_eq!(percent("%(x)s", &Value::Pairs(vec![(text("x"), text("y"))])), "y");
        assert_eq!(percent("%s", &text("t")), "t");
        assert_eq!(percent("50% of", &Value::Unknown), "50\u{e000}of");
        let joined = method(", ", "join", &[Value::List(vec![text("a"), text("b")])], &[]);
        assert_eq!(joined, Some(text("a, b")));
        assert_eq!(dedented("  a\n    b\n\n  c"), "a\n  b\n\nc");
    }
}
