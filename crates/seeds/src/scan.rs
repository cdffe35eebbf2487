//! Where the statements of a seed begin, and what in it could not run inside a transaction.
//!
//! This is PostgreSQL's lexical structure and no more: strings, quoted names, comments,
//! dollar quotes and the `BEGIN ATOMIC … END` of SQL functions. What a statement means is
//! the server's business.

use std::path::Path;

use obyra_evidence::{Code, Failure, Place, text};

/// How many words tell what a statement is.
const WORDS: usize = 4;

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The byte at which it begins.
    pub start: usize,
    words: Vec<String>,
    copies_inline: bool,
}

/// What was found that no seed may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub byte: usize,
    what: Code,
    mend: Code,
    words: String,
}

impl Refusal {
    pub(crate) fn failure(&self, file: &Path, text: &str) -> Failure {
        Failure::usage(self.what.with("statement", &self.words))
            .at(place(file, text, self.byte))
            .mended_by(self.mend)
    }
}

/// The place of a byte, its column counted in characters.
pub(crate) fn place(file: &Path, text: &str, byte: usize) -> Place {
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place {
        file: file.to_path_buf(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// The statements of a text.
pub(crate) fn statements(text: &str) -> Result<Vec<Statement>, Refusal> {
    let mut scanner = Scanner::new(text);
    let outcome = scanner.run();
    // Before what stopped the scan: the data of a `COPY … FROM stdin` ends in a meta-command.
    for statement in &scanner.done {
        if let Some((what, mend)) = statement.refused() {
            return Err(Refusal { byte: statement.start, what, mend, words: statement.shown() });
        }
    }
    outcome.map(|()| scanner.done)
}

impl Statement {
    fn refused(&self) -> Option<(Code, Code)> {
        use text::seeds::{COPIES_INLINE, MEND_COPIES_INLINE, MEND_TRANSACTION_CONTROL, TRANSACTION_CONTROL};
        if self.copies_inline {
            return Some((COPIES_INLINE, MEND_COPIES_INLINE));
        }
        let word = |nth: usize| self.words.get(nth).map_or("", String::as_str);
        let ends_or_begins = match word(0) {
            "begin" | "commit" | "end" | "abort" => true,
            "start" | "prepare" => word(1) == "transaction",
            // `ROLLBACK TO savepoint` stays inside.
            "rollback" => ![word(1), word(2)].contains(&"to"),
            _ => false,
        };
        ends_or_begins.then_some((TRANSACTION_CONTROL, MEND_TRANSACTION_CONTROL))
    }

    fn shown(&self) -> String {
        self.words.join(" ").to_uppercase()
    }

    /// Whether a `BEGIN` here opens the body of a function rather than a transaction.
    fn creates_routine(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..] | ["create", "or", "replace", "function" | "procedure"]
        )
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    current: Option<Statement>,
    /// Inside how many `BEGIN ATOMIC` and `CASE` of a routine's body.
    depth: usize,
    done: Vec<Statement>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Scanner { text, at: 0, current: None, depth: 0, done: Vec::new() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn run(&mut self) -> Result<(), Refusal> {
        while let Some(c) = self.rest().chars().next() {
            let rest = self.rest();
            if c.is_whitespace() {
                self.at += c.len_utf8();
            } else if rest.starts_with("--") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.at += comment_length(rest);
            } else if c == ';' && self.depth == 0 {
                self.at += 1;
                self.done.extend(self.current.take());
            } else {
                self.token(c)?;
            }
        }
        self.done.extend(self.current.take());
        Ok(())
    }

    /// Anything that belongs to a statement.
    fn token(&mut self, c: char) -> Result<(), Refusal> {
        let start = self.at;
        let rest = self.rest();
        self.current.get_or_insert_with(|| Statement { start, ..Statement::default() });
        match c {
            '\\' => {
                return Err(Refusal {
                    byte: start,
                    what: text::seeds::META_COMMAND,
                    mend: text::seeds::MEND_META_COMMAND,
                    words: rest.split_whitespace().next().unwrap_or("\\").to_owned(),
                });
            }
            '\'' => self.at += string_length(rest, false),
            '"' => self.at += quoted_length(rest, '"'),
            '$' => self.at += dollar_length(rest).unwrap_or(1),
            _ if is_word_start(c) => {
                let length = rest.find(|c| !is_word_part(c)).unwrap_or(rest.len());
                let word = rest[..length].to_lowercase();
                self.at += length;
                if word == "e" && self.rest().starts_with('\'') {
                    self.at += string_length(self.rest(), true);
                } else {
                    self.word(word);
                }
            }
            // A number takes its letters with it: `1e5` has no word `e5`.
            _ if c.is_ascii_digit() => {
                self.at += rest.find(|c| !is_word_part(c)).unwrap_or(rest.len());
            }
            _ => self.at += c.len_utf8(),
        }
        Ok(())
    }

    fn word(&mut self, word: String) {
        let Some(statement) = &mut self.current else { return };
        match word.as_str() {
            "begin" if self.depth > 0 || statement.creates_routine() => self.depth += 1,
            "case" if self.depth > 0 => self.depth += 1,
            "end" => self.depth = self.depth.saturating_sub(1),
            "stdin" | "stdout" if statement.words.first().is_some_and(|first| first == "copy") => {
                statement.copies_inline = true;
            }
            _ => {}
        }
        if statement.words.len() < WORDS {
            statement.words.push(word);
        }
    }
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word_part(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit() || c == '$'
}

/// `/* … /* … */ … */`: PostgreSQL's comments nest.
fn comment_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// Up to the closing quote; a doubled one is two strings side by side, which is as good.
fn quoted_length(rest: &str, quote: char) -> usize {
    rest[1..].find(quote).map_or(rest.len(), |at| at + 2)
}

fn string_length(rest: &str, backslash_escapes: bool) -> usize {
    if !backslash_escapes {
        return quoted_length(rest, '\'');
    }
    let mut at = 1;
    while let Some(found) = rest[at..].find(['\'', '\\']) {
        at += found;
        if rest[at..].starts_with('\\') {
            at += 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        } else if rest[at..].starts_with("''") {
            // Two strings side by side would lose the escapes of the second.
            at += 2;
        } else {
            return at + 1;
        }
    }
    rest.len()
}

/// `$$…$$` or `$tag$…$tag$`; `None` for a parameter such as `$1`.
fn dollar_length(rest: &str) -> Option<usize> {
    let close = rest[1..].find('$')? + 1;
    let tag = &rest[1..close];
    let is_tag = tag.chars().all(|c| is_word_start(c) || c.is_ascii_digit())
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let quote = &rest[..=close];
    Some(rest[quote.len()..].find(quote).map_or(rest.len(), |at| at + 2 * quote.len()))
}

#[cfg(test)]
mod tests;
