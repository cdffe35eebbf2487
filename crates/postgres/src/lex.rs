//! PostgreSQL's lexical structure and no more: where strings, quoted names, comments and words begin and end.
//!
//! What a statement means is the server's business. A text that ends inside of a string is no error here:
//! the server will say so. (PostgreSQL documentation, SQL Syntax, Lexical Structure.)

/// What a piece of SQL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// White space.
    Space,
    /// `-- …`, without the end of its line, or `/* … */`.
    Comment,
    /// A string, a dollar-quoted string or a quoted name, with its quotes.
    Quoted,
    /// A keyword or a name without quotes.
    Word,
    /// A number.
    Number,
    /// One character of anything else.
    Symbol,
}

/// The pieces of a text, in their order and without a gap.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// An iterator over the pieces of a text.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Kind, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest;
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            _ if first.is_whitespace() => (Kind::Space, until(rest, |c| !c.is_whitespace())),
            '-' if rest.starts_with("--") => (Kind::Comment, until(rest, |c| c == '\n')),
            '/' if rest.starts_with("/*") => (Kind::Comment, comment(rest)),
            '\'' => (Kind::Quoted, string(rest, false)),
            '"' => (Kind::Quoted, quoted(rest, '"')),
            'e' | 'E' if rest[1..].starts_with('\'') => (Kind::Quoted, 1 + string(&rest[1..], true)),
            '$' => match dollar(rest) {
                Some(length) => (Kind::Quoted, length),
                None => (Kind::Symbol, 1),
            },
            _ if begins_word(first) => (Kind::Word, until(rest, |c| !continues_word(c))),
            // A number takes its letters with it: `1e5` has no word `e5`.
            _ if first.is_ascii_digit() => (Kind::Number, until(rest, |c| !continues_word(c))),
            _ => (Kind::Symbol, first.len_utf8()),
        };
        let (token, rest) = rest.split_at(length);
        self.rest = rest;
        Some((kind, token))
    }
}

fn until(rest: &str, ends: impl Fn(char) -> bool) -> usize {
    rest.find(ends).unwrap_or(rest.len())
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_word(c: char) -> bool {
    (begins_word(c) && !c.is_whitespace()) || c.is_ascii_digit() || c == '$'
}

/// `/* … /* … */ … */`: PostgreSQL's comments nest.
fn comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    // Inside of a comment that does not end, no character is cut in two.
    if depth > 0 { rest.len() } else { at }
}

/// Up to the closing quote. A doubled one is part of the text.
fn quoted(rest: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(found) = rest[at..].find(quote) {
        at += found + 1;
        if !rest[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    rest.len()
}

fn string(rest: &str, backslash_escapes: bool) -> usize {
    if !backslash_escapes {
        return quoted(rest, '\'');
    }
    let mut at = 1;
    while let Some(found) = rest[at..].find(['\'', '\\']) {
        at += found;
        if rest[at..].starts_with('\\') {
            at += 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        } else if rest[at..].starts_with("''") {
            at += 2;
        } else {
            return at + 1;
        }
    }
    rest.len()
}

/// `$$…$$` or `$tag$…$tag$`; none for a parameter such as `$1`.
fn dollar(rest: &str) -> Option<usize> {
    let close = rest[1..].find('$')? + 1;
    let tag = &rest[1..close];
    let is_tag =
        tag.chars().all(|c| c != '$' && continues_word(c)) && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let quote = &rest[..=close];
    Some(rest[quote.len()..].find(quote).map_or(rest.len(), |at| at + 2 * quote.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(text: &str, kind: Kind) -> Vec<&str> {
        tokens(text).filter(|(each, _)| *each == kind).map(|(_, token)| token).collect()
    }

    #[test]
    fn the_pieces_make_up_the_text() {
        let text = "SELECT 'it''s', E'a\\'b', U&'x', \"A\"\"b\", $1, $x$ ; $$ $x$, 1e5, año -- end;\n/* a /* b */ c */;";
        assert_eq!(tokens(text).map(|(_, token)| token).collect::<String>(), text);
        let quoted = ["'it''s'", "E'a\\'b'", "'x'", "\"A\"\"b\"", "$x$ ; $$ $x$"];
        assert_eq!(of_kind(text, Kind::Quoted), quoted);
        assert_eq!(of_kind(text, Kind::Word), ["SELECT", "U", "año"]);
        assert_eq!(of_kind(text, Kind::Comment), ["-- end;", "/* a /* b */ c */"]);
        assert_eq!(of_kind(text, Kind::Symbol).iter().filter(|symbol| **symbol == ";").count(), 1);
    }

    #[test]
    fn what_does_not_end_ends_with_the_text() {
        for text in ["'é", "\"é", "$$é", "$a$é$a", "/* é /* */", "E'\\", "E'é\\", "$", "$é", "-- é"] {
            assert_eq!(tokens(text).map(|(_, token)| token).collect::<String>(), text);
        }
        assert_eq!(of_kind("a$b$ c", Kind::Quoted), [""; 0]);
    }
}
