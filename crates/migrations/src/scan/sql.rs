//! What a piece of SQL changes in the schema: enough of a lexer to find statements, and no more.

/// Stands in a text for a value that only exists at run time: `f"ALTER TABLE {name} …"`.
pub(crate) const HOLE: char = '\u{1}';

/// A statement that changes the schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Statement {
    /// `ALTER TABLE`.
    pub verb: String,
    /// Its object, as written; `…` where it is known only at run time. May be empty.
    pub object: String,
    /// Whether a DO block hides it.
    pub in_do: bool,
}

impl std::fmt::Display for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let object = if self.object.is_empty() { String::new() } else { format!(" {}", self.object) };
        if self.in_do {
            write!(f, "DO … {}{object}", self.verb)
        } else {
            write!(f, "{}{object}", self.verb)
        }
    }
}

/// Objects that migrations own. Databases and roles are none: they belong to provisioning.
const KINDS: [&str; 20] = [
    "TABLE",
    "INDEX",
    "VIEW",
    "TYPE",
    "SCHEMA",
    "SEQUENCE",
    "FUNCTION",
    "PROCEDURE",
    "TRIGGER",
    "EXTENSION",
    "POLICY",
    "DOMAIN",
    "RULE",
    "AGGREGATE",
    "COLLATION",
    "STATISTICS",
    "CAST",
    "OPERATOR",
    "CONVERSION",
    "TRANSFORM",
];
const MODIFIERS: [&str; 11] = [
    "OR",
    "REPLACE",
    "UNLOGGED",
    "UNIQUE",
    "MATERIALIZED",
    "RECURSIVE",
    "FOREIGN",
    "CONSTRAINT",
    "EVENT",
    "GLOBAL",
    "LOCAL",
];
const AFTER_KIND: [&str; 5] = ["IF", "NOT", "EXISTS", "CONCURRENTLY", "ONLY"];
const OBJECT_LENGTH_MAX: usize = 64;

/// Whether a text can begin with a statement that changes the schema; cheap, for every string of a file.
///
/// Texts for people begin so too: "Create a new order", "Do not …".
pub(crate) fn may_begin_ddl(text: &str) -> bool {
    let start = text.trim_start();
    let after = |word: &str| {
        let rest = start.get(word.len()..)?;
        start[..word.len()].eq_ignore_ascii_case(word).then_some(rest)
    };
    match start.as_bytes().first() {
        Some(b'c' | b'C') => after("CREATE").is_some_and(names_a_kind),
        Some(b'a' | b'A') => after("ALTER").is_some_and(names_a_kind),
        Some(b'd' | b'D') => {
            after("DROP").is_some_and(names_a_kind)
                || after("DO").is_some_and(|rest| rest.trim_start().starts_with(['$', '\'', 'L', 'l']))
        }
        // Another statement, or a comment, may stand before the one that matters.
        Some(b'-' | b'/') if start.starts_with("--") || start.starts_with("/*") => {
            !statements(text).is_empty()
        }
        Some(b'b' | b'B') if after("BEGIN").is_some() => !statements(text).is_empty(),
        Some(b's' | b'S') if after("SET").is_some() => !statements(text).is_empty(),
        _ => false,
    }
}

/// Whether what follows a verb begins with a kind of object, or says nothing yet.
fn names_a_kind(rest: &str) -> bool {
    rest.split_whitespace()
        .next()
        .is_none_or(|word| KINDS.iter().chain(&MODIFIERS).any(|known| word.eq_ignore_ascii_case(known)))
}

/// Whether a text holds a verb that changes the schema at all; most SQL of an application does not.
pub(crate) fn has_verb(text: &str) -> bool {
    text.as_bytes()
        .windows(4)
        .any(|four| [b"crea", b"alte", b"drop"].iter().any(|verb| four.eq_ignore_ascii_case(*verb)))
}

/// The statements of a text that change the schema.
pub(crate) fn statements(text: &str) -> Vec<Statement> {
    split(text).into_iter().filter_map(|words| statement(&words)).collect()
}

fn statement(words: &[Word<'_>]) -> Option<Statement> {
    match words.first()? {
        Word::Plain(word) if word.eq_ignore_ascii_case("DO") => {
            let body = words.iter().find_map(|word| match word {
                Word::Quoted(body) => Some(*body),
                Word::Plain(_) => None,
            })?;
            hidden(body).map(|statement| Statement { in_do: true, ..statement })
        }
        _ => ddl(words),
    }
}

/// The first change of the schema anywhere in the body of a block, in EXECUTE strings too.
fn hidden(body: &str) -> Option<Statement> {
    split(body).iter().find_map(|words| {
        (0..words.len()).find_map(|at| match words[at] {
            Word::Plain(_) => ddl(&words[at..]),
            Word::Quoted(inner) if may_begin_ddl(inner) => statements(inner).into_iter().next(),
            Word::Quoted(_) => None,
        })
    })
}

fn ddl(words: &[Word<'_>]) -> Option<Statement> {
    let verb = words.first()?.keyword()?;
    if !["CREATE", "ALTER", "DROP"].contains(&verb.as_str()) {
        return None;
    }
    let mut rest = words[1..].iter().take(24).skip_while(|word| word.is_one_of(&MODIFIERS));
    let kind = rest.next()?.keyword()?;
    if !KINDS.contains(&kind.as_str()) {
        return None;
    }
    let mut rest = rest.skip_while(|word| word.is_one_of(&AFTER_KIND));
    let object = rest.next().map(|word| name(word.text())).unwrap_or_default();
    let after: Vec<String> = rest.take(4).filter_map(Word::keyword).collect();
    let says = |word: &str| after.iter().any(|other| other == word);
    // Switching triggers off for a load, restarting a sequence, or giving something to another owner, changes no schema.
    let operational = verb == "ALTER"
        && (says("TRIGGER") && (says("DISABLE") || says("ENABLE"))
            || kind == "SEQUENCE" && says("RESTART")
            || after.windows(2).any(|pair| pair == ["OWNER", "TO"]) && !says("RENAME"));
    (!operational).then(|| Statement { verb: format!("{verb} {kind}"), object, in_do: false })
}

fn name(text: &str) -> String {
    let name = text.split(['(', ',']).next().unwrap_or_default().trim_matches(['(', ')']);
    let holes_folded: String = name.chars().map(|c| if c == HOLE { '…' } else { c }).collect();
    match holes_folded.char_indices().nth(OBJECT_LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &holes_folded[..end]),
        None => holes_folded,
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<'a> {
    Plain(&'a str),
    /// The inside of a string or of a dollar-quoted body.
    Quoted(&'a str),
}

impl<'a> Word<'a> {
    fn text(&self) -> &'a str {
        match self {
            Word::Plain(text) | Word::Quoted(text) => text,
        }
    }

    /// The word in capitals, if it may be a keyword.
    pub fn keyword(&self) -> Option<String> {
        match self {
            Word::Plain(text) if text.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Some(text.to_ascii_uppercase())
            }
            _ => None,
        }
    }

    /// Whether it is one of these, which are written in capitals.
    pub fn is_one_of(&self, keywords: &[&str]) -> bool {
        match self {
            Word::Plain(text) => keywords.iter().any(|keyword| text.eq_ignore_ascii_case(keyword)),
            Word::Quoted(_) => false,
        }
    }
}

/// The words of each statement. Comments are dropped; an unclosed quote ends with the text.
pub(crate) fn split(text: &str) -> Vec<Vec<Word<'_>>> {
    let mut statements = vec![Vec::new()];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            ';' => {
                statements.push(Vec::new());
                (None, 1)
            }
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (None, rest.find("*/").map_or(rest.len(), |end| end + 2)),
            '\'' => quoted(rest, "'"),
            '$' => match dollar_tag(rest) {
                Some(tag) => quoted(rest, tag),
                None => (None, 1),
            },
            c if c.is_alphanumeric() || "_\"(".contains(c) || c == HOLE => plain(rest),
            c => (None, c.len_utf8()),
        };
        if let (Some(word), Some(statement)) = (word, statements.last_mut()) {
            statement.push(word);
        }
        rest = &rest[length..];
    }
    statements.retain(|words| !words.is_empty());
    statements
}

fn quoted<'a>(rest: &'a str, quote: &str) -> (Option<Word<'a>>, usize) {
    let inner = &rest[quote.len()..];
    let end = inner.find(quote).unwrap_or(inner.len());
    (Some(Word::Quoted(&inner[..end])), (quote.len() + end + quote.len()).min(rest.len()))
}

/// `$$` or `$tag$` at the start of the text.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest[1..].find('$')? + 1;
    let tag = &rest[1..end];
    tag.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| &rest[..=end])
}

/// A word up to a blank; a quoted identifier may contain blanks. `users(id` is one word: its name is `users`.
fn plain(rest: &str) -> (Option<Word<'_>>, usize) {
    if rest.starts_with('(') {
        return (None, 1);
    }
    let mut inside = false;
    let end = rest.find(|c: char| {
        inside ^= c == '"';
        !(inside || c.is_alphanumeric() || "_\".".contains(c) || c == HOLE)
    });
    let end = end.unwrap_or(rest.len()).max(1);
    (Some(Word::Plain(&rest[..end])), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        statements(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn names_what_changes_the_schema() {
        for (text, expected) in [
            ("CREATE TABLE IF NOT EXISTS app.users (id int)", "CREATE TABLE app.users"),
            ("  create unique index concurrently if not exists i on t (a)", "CREATE INDEX i"),
            ("-- first\n/* second */ ALTER TABLE ONLY \"My Table\" ADD x int", "ALTER TABLE \"My Table\""),
            ("ALTER TABLE \u{1} ADD COLUMN x int", "ALTER TABLE …"),
            ("CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ CREATE TABLE x $$", "CREATE FUNCTION f"),
            ("BEGIN; DROP TABLE a; DROP VIEW b; COMMIT", "DROP TABLE a; DROP VIEW b"),
            ("DO $$ BEGIN ALTER TABLE t ADD x int; END $$", "DO … ALTER TABLE t"),
            ("ALTER TABLE t RENAME COLUMN owner TO holder", "ALTER TABLE t"),
            ("DO $x$ BEGIN EXECUTE 'CREATE INDEX i ON t (a)'; END $x$;", "DO … CREATE INDEX i"),
            ("SET search_path = app; CREATE TYPE mood AS ENUM ('a;b')", "CREATE TYPE mood"),
            ("CREATE MATERIALIZED VIEW m AS SELECT 1", "CREATE VIEW m"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn leaves_what_does_not() {
        for text in [
            "",
            "SELECT 1",
            "INSERT INTO t VALUES ('CREATE TABLE x')",
            "CREATE TEMP TABLE t (a int)",
            "CREATE DATABASE x",
            "CREATE ROLE r",
            "TRUNCATE t",
            "create a table for me",
            "ALTER ROLE r PASSWORD 'x'",
            "ALTER TABLE t DISABLE TRIGGER ALL",
            "ALTER SEQUENCE s RESTART WITH 1",
            "DO $$ BEGIN PERFORM 1; END $$",
            "ALTER TABLE app.t OWNER TO somebody",
            "DO $$ BEGIN EXECUTE format('ALTER TABLE public.%I OWNER TO x', t); END $$",
            "drop",
            "'",
            "$",
            "$$",
            "\"",
            "DO",
            "CREATE TABLESPACE x",
            "CREATE VIRTUAL TABLE x",
        ] {
            assert_eq!(shown(text), "", "{text}");
        }
    }
}
