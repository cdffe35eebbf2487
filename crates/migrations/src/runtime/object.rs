//! What statements and guards speak of: objects of the catalogue, by name, and a reader of tokens that finds
//! them.

use std::fmt;

use obyra_postgres::quote;

use super::tokens::{Kind as TokenKind, Token};

/// A name, perhaps with its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub schema: Option<String>,
    pub name: String,
}

impl Name {
    /// A name without a schema.
    pub fn plain(name: impl Into<String>) -> Name {
        Name { schema: None, name: name.into() }
    }

    /// The name in a string: `app.users`, as `to_regclass` reads it.
    pub fn parse(text: &str) -> Option<Name> {
        let tokens = super::tokens::tokens(text);
        let mut reader = Reader::new(&tokens);
        let name = reader.name()?;
        reader.is_done().then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => f.write_str(&quote::qualified(schema, &self.name)),
            None => f.write_str(&quote::ident(&self.name)),
        }
    }
}

/// The kinds of objects. What shares a namespace shares a kind: tables, indexes, views and sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Relation,
    Column,
    Constraint,
    Type,
    /// A value of an enum.
    Label,
    Schema,
    Extension,
    Routine,
    Trigger,
    Policy,
    Role,
    /// The rows of a table.
    Rows,
    Other,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    pub kind: Kind,
    pub name: Name,
    /// The table of a column, a constraint, an index, a trigger or a policy; the type of a label.
    pub of: Option<Name>,
}

impl Object {
    pub fn new(kind: Kind, name: Name) -> Object {
        Object { kind, name, of: None }
    }

    /// A part of a table or a type.
    pub fn part(kind: Kind, name: impl Into<String>, of: Name) -> Object {
        Object { kind, name: Name::plain(name), of: Some(of) }
    }

    /// The relation that the object is, or belongs to.
    pub fn relation(&self) -> Option<&Name> {
        match self.kind {
            Kind::Relation => Some(self.of.as_ref().unwrap_or(&self.name)),
            Kind::Rows => Some(&self.name),
            Kind::Label => None,
            _ => self.of.as_ref(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.of, self.kind) {
            (Some(of), Kind::Column | Kind::Label) => write!(f, "{of}.{}", self.name),
            (Some(of), Kind::Constraint | Kind::Trigger | Kind::Policy) => write!(f, "{} on {of}", self.name),
            _ => self.name.fmt(f),
        }
    }
}

/// Reads tokens from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'t, 'a> Reader<'t, 'a> {
    pub fn new(tokens: &'t [Token<'a>]) -> Self {
        Reader { tokens, at: 0 }
    }

    pub fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    pub fn next(&mut self) -> Option<&'t Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    pub fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// What is left.
    pub fn rest(&self) -> &'t [Token<'a>] {
        &self.tokens[self.at.min(self.tokens.len())..]
    }

    /// Whether the next tokens are these words.
    pub fn sees(&self, words: &str) -> bool {
        let mut rest = self.rest().iter();
        words.split(' ').all(|word| rest.next().is_some_and(|token| token.is(word)))
    }

    /// Passes over these words, if they are next.
    pub fn eat(&mut self, words: &str) -> bool {
        let found = self.sees(words);
        if found {
            self.at += words.split(' ').count();
        }
        found
    }

    /// Passes over any of these words, as long as there are some.
    pub fn eat_any(&mut self, words: &[&str]) {
        while self.peek().is_some_and(|token| token.is_any(words)) {
            self.at += 1;
        }
    }

    /// A name, with its schema. A catalogue before the schema is left out, as PostgreSQL does.
    pub fn name(&mut self) -> Option<Name> {
        let mut parts = vec![self.part()?];
        while self.peek().is_some_and(|token| token.raw == ".") {
            self.at += 1;
            parts.push(self.part()?);
        }
        let name = parts.pop()?;
        Some(Name { schema: parts.pop(), name })
    }

    fn part(&mut self) -> Option<String> {
        let token = self.peek()?;
        let name = token.name()?;
        self.at += 1;
        Some(name)
    }

    /// Passes over a group in round brackets; returns its inside.
    pub fn group(&mut self) -> Option<&'t [Token<'a>]> {
        let rest = self.rest();
        let end = closing(rest)?;
        self.at += end + 1;
        Some(&rest[1..end])
    }
}

/// The index of the bracket that closes the one at the start.
pub(super) fn closing(tokens: &[Token<'_>]) -> Option<usize> {
    if tokens.first()?.raw != "(" {
        return None;
    }
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token.raw {
            "(" if token.kind == TokenKind::Sign => depth += 1,
            ")" if token.kind == TokenKind::Sign => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// Splits at a word or sign that stands outside of brackets.
pub(super) fn split_at<'t, 'a>(tokens: &'t [Token<'a>], separator: &str) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token.raw {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.is(separator) => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// Where a keyword stands outside of brackets.
pub(super) fn find(tokens: &[Token<'_>], word: &str) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token.raw {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is(word)
    })
}

/// The text of some tokens; `text` is the one that they were read from.
pub(super) fn text_of<'a>(text: &'a str, tokens: &[Token<'_>]) -> &'a str {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => text.get(first.at..last.end()).unwrap_or_default(),
        _ => "",
    }
}
