//! The tokens of SQL that mean something, and where one statement ends and the next begins. What they mean is
//! asked elsewhere; whether they are right, of the server.

use obyra_postgres::lex;

/// Stands in a text for a value that only exists at run time: `f"ALTER TABLE {name} …"`. To PostgreSQL's
/// lexical structure it is a letter, so that a name with a hole is still a name.
pub(super) const HOLE: char = '\u{e000}';

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string, with its quotes.
    Text,
    /// A dollar-quoted string, with its tags.
    Dollar,
    Number,
    /// An operator or a bracket; of two characters where they are in [`PAIRS`].
    Sign,
}

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    /// As written.
    pub raw: &'a str,
    /// The byte at which it begins.
    pub at: usize,
}

impl<'a> Token<'a> {
    /// Whether it is this keyword, or this sign.
    pub fn is(&self, word: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && self.raw.eq_ignore_ascii_case(word)
    }

    /// Whether it is one of these keywords.
    pub fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    /// The name that it stands for: folded to lower case unless quoted.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.raw.to_lowercase()),
            Kind::Quoted => {
                let start = self.raw.find('"')? + 1;
                let inner = self.raw[start..].strip_suffix('"').unwrap_or(&self.raw[start..]);
                Some(inner.replace("\"\"", "\""))
            }
            _ => None,
        }
    }

    /// The text that a string holds.
    pub fn literal(&self) -> Option<String> {
        match self.kind {
            Kind::Text => Some(unquoted(self.raw)),
            Kind::Dollar => Some(self.inside()?.0.to_owned()),
            _ => None,
        }
    }

    /// The inside of a dollar-quoted string, or of a string without escapes, and the byte where it begins.
    pub fn inside(&self) -> Option<(&'a str, usize)> {
        match self.kind {
            Kind::Dollar => {
                let tag = self.raw[1..].find('$')? + 2;
                let end = self.raw.len().checked_sub(tag).filter(|end| *end >= tag)?;
                Some((&self.raw[tag..end], self.at + tag))
            }
            Kind::Text if self.raw.starts_with('\'') && self.raw.len() >= 2 => {
                let inner = &self.raw[1..self.raw.len() - 1];
                (!inner.contains("''")).then_some((inner, self.at + 1))
            }
            _ => None,
        }
    }

    /// Where it ends.
    pub fn end(&self) -> usize {
        self.at + self.raw.len()
    }

    /// Whether part of it is known only at run time.
    pub fn has_hole(&self) -> bool {
        self.raw.contains(HOLE)
    }
}

/// A string without its quotes and escapes.
fn unquoted(raw: &str) -> String {
    let escaped = raw.starts_with(['e', 'E']);
    let start = raw.find('\'').map_or(0, |at| at + 1);
    let inner = raw[start..].strip_suffix('\'').unwrap_or(&raw[start..]).replace("''", "'");
    if !escaped || !inner.contains('\\') {
        return inner;
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

/// The tokens of a text, without blanks and comments. An unclosed quote ends with the text.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut at = 0;
    for (kind, raw) in lex::tokens(text) {
        let kind = match kind {
            lex::Kind::Space | lex::Kind::Comment => None,
            lex::Kind::Word => Some(Kind::Word),
            lex::Kind::Number => Some(Kind::Number),
            lex::Kind::Symbol => Some(Kind::Sign),
            lex::Kind::Quoted => Some(match raw.as_bytes().first() {
                Some(b'"') => Kind::Quoted,
                Some(b'$') => Kind::Dollar,
                _ => Kind::Text,
            }),
        };
        let pair = tokens.last().filter(|last| kind == Some(Kind::Sign) && last.end() == at).map(|last| {
            let both = &text[last.at..at + raw.len()];
            PAIRS.contains(&both).then_some((last.at, both))
        });
        match (pair.flatten(), kind) {
            (Some((at, raw)), _) => {
                tokens.pop();
                tokens.push(Token { kind: Kind::Sign, raw, at });
            }
            (None, Some(kind)) => tokens.push(Token { kind, raw, at }),
            (None, None) => {}
        }
        at += raw.len();
    }
    tokens
}

/// Signs of two characters.
const PAIRS: [&str; 8] = ["::", ":=", "||", "<>", "!=", ">=", "<=", "=>"];

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub tokens: Vec<Token<'a>>,
    /// From its first token to its last, without the semicolon.
    pub text: &'a str,
    /// The byte at which it begins.
    pub at: usize,
}

/// The statements of a text. Brackets, and the body of a routine after `BEGIN ATOMIC`, hold semicolons of
/// their own.
pub(super) fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut current: Vec<Token<'_>> = Vec::new();
    let (mut brackets, mut blocks) = (0_usize, 0_usize);
    for token in tokens(text) {
        match token.raw {
            "(" => brackets += 1,
            ")" => brackets = brackets.saturating_sub(1),
            ";" if brackets == 0 && blocks == 0 => {
                push(text, &mut pieces, &mut current);
                continue;
            }
            _ if token.kind != Kind::Word => {}
            _ if token.is("atomic") && current.last().is_some_and(|last| last.is("begin")) => {
                blocks += usize::from(creates_routine(&current));
            }
            _ if blocks > 0 && token.is("case") => blocks += 1,
            _ if blocks > 0 && token.is("end") => blocks -= 1,
            _ => {}
        }
        current.push(token);
    }
    push(text, &mut pieces, &mut current);
    pieces
}

fn push<'a>(text: &'a str, pieces: &mut Vec<Piece<'a>>, current: &mut Vec<Token<'a>>) {
    if let (Some(first), Some(last)) = (current.first(), current.last()) {
        let (at, end) = (first.at, last.end());
        pieces.push(Piece { tokens: std::mem::take(current), text: &text[at..end], at });
    }
}

fn creates_routine(tokens: &[Token<'_>]) -> bool {
    tokens.first().is_some_and(|first| first.is("create"))
        && tokens.iter().take(4).any(|token| token.is_any(&["function", "procedure"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raws(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.raw).collect()
    }

    fn texts(text: &str) -> Vec<&str> {
        split(text).iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn signs_of_two_characters_are_one_token() {
        assert_eq!(raws("a.\"B\"::text||'it''s'"), ["a", ".", "\"B\"", "::", "text", "||", "'it''s'"]);
        assert_eq!(raws("x := y <> z /* c */ ; -- d"), ["x", ":=", "y", "<>", "z", ";"]);
        assert_eq!(raws(": : a\u{e000}b"), [":", ":", "a\u{e000}b"]);
    }

    #[test]
    fn names_fold_and_strings_lose_their_quotes() {
        let all = tokens("Users \"Users\" 'it''s' E'a\\n\\'b' $q$ x $q$");
        assert_eq!(all[0].name().as_deref(), Some("users"));
        assert_eq!(all[1].name().as_deref(), Some("Users"));
        assert_eq!(all[2].literal().as_deref(), Some("it's"));
        assert_eq!(all[3].literal().as_deref(), Some("a\n'b"));
        assert_eq!(all[4].literal().as_deref(), Some(" x "));
        assert_eq!(all[4].inside().map(|(text, at)| (text, at - all[4].at)), Some((" x ", 3)));
        assert_eq!(tokens("$$").first().and_then(Token::literal), None);
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        assert_eq!(texts("a; b ;; -- c;\n d"), ["a", "b", "d"]);
        assert_eq!(texts("DO $$ BEGIN x; END $$; y"), ["DO $$ BEGIN x; END $$", "y"]);
        assert_eq!(texts("CREATE RULE r AS ON INSERT TO t DO (a; b); c").len(), 2);
        let routine = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END";
        assert_eq!(texts(&format!("{routine}; x")), [routine, "x"]);
        assert_eq!(texts("BEGIN; x; END; y"), ["BEGIN", "x", "END", "y"]);
        assert_eq!(texts(" ; -- nothing"), [""; 0]);
    }
}
