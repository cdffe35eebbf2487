//! A SQL statement as a Python string for `op.execute`, exactly.
//!
//! SQLAlchemy takes a word after a single colon for a parameter, unless a backslash stands before the colon
//! (SQLAlchemy documentation, `text()`). Percent signs it doubles itself where a driver needs that.

use obyra_postgres::lex::{Kind, tokens};

/// How far a statement is indented.
const INDENT: &str = "        ";

/// A call of `op.execute`, indented as the body of a function.
pub(crate) fn execute(sql: &str) -> String {
    let sql = escape(sql);
    if !sql.contains('\n') {
        return format!("    op.execute({})\n", on_one_line(&sql));
    }
    let body = indented(&sql);
    // Python reads every end of a line as `\n`, and only a raw string shows a backslash as it is.
    let (prefix, body) = if body.contains('\r') || body.contains("\"\"\"") {
        let body = body.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"").replace('\r', "\\r");
        ("", body)
    } else {
        (if body.contains('\\') { "r" } else { "" }, body)
    };
    format!("    op.execute({prefix}\"\"\"\n{body}\n    \"\"\")\n")
}

/// A text as a docstring or a comment holds it: it ends neither early nor with a backslash.
pub(crate) fn harmless(text: &str) -> String {
    let harmless = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(harmless).collect()
}

fn on_one_line(sql: &str) -> String {
    let escaped = sql.replace('\\', "\\\\").replace('\r', "\\r");
    if sql.contains('"') && !sql.contains('\'') {
        return format!("'{escaped}'");
    }
    format!("\"{}\"", escaped.replace('"', "\\\""))
}

/// Indents what is not inside of quotes.
fn indented(sql: &str) -> String {
    let mut text = INDENT.to_owned();
    for (kind, token) in tokens(sql) {
        match kind {
            Kind::Space => text.push_str(&token.replace('\n', &format!("\n{INDENT}")).replace('\t', "    ")),
            _ => text.push_str(token),
        }
    }
    text
}

/// Puts a backslash before each colon that SQLAlchemy would read otherwise.
fn escape(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut before = ' ';
    for (at, c) in sql.char_indices() {
        if c == ':' {
            let rest = &sql[at + 1..];
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let then = rest[word..].chars().next();
            let parameter = word > 0 && before != ':' && before != '\\' && !is_name(before);
            // A backslash that stands there already would be taken away.
            let unescaped = before == '\\' && then != Some(':');
            if (parameter && then != Some(':')) || unescaped {
                text.push('\\');
            }
        }
        text.push(c);
        before = c;
    }
    text
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(c: char) -> bool {
    is_name(c) || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_are_escaped_where_sqlalchemy_would_read_a_parameter() {
        for untouched in ["a::text", "x := 1", "'12:30'", "a[1:2]", ": b", ":b:", "\\::x", "f(a=>1)"] {
            assert_eq!(escape(untouched), untouched);
        }
        assert_eq!(escape(r#"'{"a":1}' :b ':c'"#), r#"'{"a"\:1}' \:b '\:c'"#);
        assert_eq!(escape(r"'\:foo' '\: '"), r"'\\:foo' '\\: '");
        assert_eq!(escape("a[:n]"), "a[\\:n]");
    }

    #[test]
    fn one_line_is_quoted_as_it_suits() {
        assert_eq!(execute("DROP TABLE a"), "    op.execute(\"DROP TABLE a\")\n");
        assert_eq!(execute("DROP TABLE \"a\""), "    op.execute('DROP TABLE \"a\"')\n");
        assert_eq!(execute("SELECT '\\', \"a\""), "    op.execute(\"SELECT '\\\\', \\\"a\\\"\")\n");
    }

    #[test]
    fn lines_are_indented_outside_of_quotes_only() {
        let call = execute("CREATE TABLE a (\n\tb text DEFAULT 'x\ny',\n    c int\n)");
        assert_eq!(
            call,
            "    op.execute(\"\"\"\n        CREATE TABLE a (\n            b text DEFAULT 'x\ny',\n            c int\n        )\n    \"\"\")\n"
        );
        assert!(execute("SELECT\n'\\d'").contains("(r\"\"\"\n        SELECT\n        '\\d'\n"));
        let call = execute("AS $$\r\n\\d \"\"\" $$\n");
        assert!(call.contains("        AS $$\\r\n\\\\d \\\"\\\"\\\" $$\n"), "{call}");
    }
}
