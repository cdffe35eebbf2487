//! Where the statements of a seed begin, and what in it could not run inside a transaction.
//!
//! PostgreSQL's lexical structure and the `BEGIN ATOMIC … END` of SQL functions, no more. What a statement
//! means is the server's business.

use std::path::Path;

use obyra_evidence::{Code, Failure, Place, text};
use obyra_postgres::lex::{Kind, tokens};

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
    let mut scanner = Scanner::default();
    let outcome = scanner.run(text);
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

#[derive(Default)]
struct Scanner {
    current: Option<Statement>,
    /// Inside how many `BEGIN ATOMIC` and `CASE` of a routine's body.
    depth: usize,
    done: Vec<Statement>,
}

impl Scanner {
    fn run(&mut self, text: &str) -> Result<(), Refusal> {
        let mut at = 0;
        for (kind, token) in tokens(text) {
            match kind {
                Kind::Space | Kind::Comment => {}
                Kind::Symbol if token == ";" && self.depth == 0 => self.done.extend(self.current.take()),
                _ => self.token(kind, token, at, text)?,
            }
            at += token.len();
        }
        self.done.extend(self.current.take());
        Ok(())
    }

    /// Anything that belongs to a statement.
    fn token(&mut self, kind: Kind, token: &str, start: usize, text: &str) -> Result<(), Refusal> {
        self.current.get_or_insert_with(|| Statement { start, ..Statement::default() });
        if token == "\\" {
            return Err(Refusal {
                byte: start,
                what: text::seeds::META_COMMAND,
                mend: text::seeds::MEND_META_COMMAND,
                words: text[start..].split_whitespace().next().unwrap_or("\\").to_owned(),
            });
        }
        if kind == Kind::Word {
            self.word(token.to_lowercase());
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

#[cfg(test)]
mod tests;
