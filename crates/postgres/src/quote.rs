//! Names and strings as PostgreSQL reads them back.

mod keywords;

/// An identifier, quoted where PostgreSQL's own `quote_ident` would quote it.
pub fn ident(name: &str) -> String {
    if is_plain(name) && !keywords::is_reserved(name) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A qualified name: `schema.name`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A string literal. A backslash makes it an `E''` literal, which means the same
/// whatever `standard_conforming_strings` is.
pub fn literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        return format!("E'{}'", doubled.replace('\\', "\\\\"));
    }
    format!("'{doubled}'")
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_a_name_only_where_it_must() {
        assert_eq!(ident("obyra_app"), "obyra_app");
        assert_eq!(ident("_x1"), "_x1");
        assert_eq!(ident("1x"), "\"1x\"");
        assert_eq!(ident("Obras"), "\"Obras\"");
        assert_eq!(ident("año"), "\"año\"");
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(ident(""), "\"\"");
        assert_eq!(ident("user"), "\"user\"");
        assert_eq!(ident("between"), "\"between\"");
        assert_eq!(ident("name"), "name");
        assert_eq!(qualified("app", "order"), "app.\"order\"");
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b'c"), r"E'a\\b''c'");
        assert_eq!(literal(""), "''");
    }
}
