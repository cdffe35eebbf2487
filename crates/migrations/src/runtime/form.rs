//! What a statement does, and what it does when it runs again, as far as its form tells. The table of errors
//! is the server's: a test asks it.

mod alter;
mod create;
mod rows;

use obyra_evidence::{Message, scrub_credentials, text};

use super::errors::{self, State};
use super::object::{Kind, Name, Object, Reader};
use super::tokens::{Kind as TokenKind, Token, tokens};

/// How many characters of a statement a title shows.
const TITLE_CHARS: usize = 72;

/// A statement.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// Its beginning, in one line.
    pub title: String,
    pub effects: Vec<Effect>,
    pub manner: Manner,
    /// What `SET search_path` sets: schemas, or nothing that could be read.
    pub search_path: Option<Option<Vec<String>>>,
}

/// How a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// In a transaction, as most do.
    Transactional,
    /// Outside of any transaction only.
    Autonomous,
    /// It reads.
    Query,
    /// It concerns the session: `SET`, `BEGIN`.
    Session,
    /// It ends or begins a transaction.
    TransactionControl,
    /// It needs data from its client: `COPY … FROM stdin`.
    Fed,
    /// A block whose own statements are read one by one.
    Block,
}

/// One thing that a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub verb: Verb,
    pub object: Object,
    pub again: Again,
    /// The object holds rows, or counts: making it anew loses them.
    pub keeps: bool,
    /// It may write the same values over themselves.
    pub writes_again: bool,
}

/// What becomes of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Makes,
    Removes,
    /// It is given a state that it may have already.
    Sets,
}

/// What happens the second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing: all is as it was.
    Nothing,
    /// The server refuses.
    Raises(State),
    /// The same once more, without an error.
    Repeats(Message),
    /// What came since is lost.
    Loses(Message),
    /// The form does not tell.
    Unclear(Message),
    /// The form does not tell, and rows that the throw-away server does not have would be needed to see it.
    Unseen(Message),
}

impl Effect {
    fn new(verb: Verb, object: Object, again: Again) -> Effect {
        let keeps = object.kind == Kind::Column;
        Effect { verb, object, again, keeps, writes_again: false }
    }

    fn makes(object: Object, again: Again) -> Effect {
        Effect::new(Verb::Makes, object, again)
    }

    fn removes(object: Object, again: Again) -> Effect {
        Effect::new(Verb::Removes, object, again)
    }

    fn sets(object: Object) -> Effect {
        Effect::new(Verb::Sets, object, Again::Nothing)
    }

    fn unclear(object: Object, words: &str) -> Effect {
        Effect::new(Verb::Sets, object, unclear(words))
    }
}

/// What cannot be said of a statement by its form.
fn unclear(words: &str) -> Again {
    Again::Unclear(text::runtime::WHY_FORM.with("statement", words))
}

fn other() -> Object {
    Object::new(Kind::Other, Name::plain(""))
}

/// Reads a statement.
pub(super) fn of(text: &str) -> Form {
    of_tokens(text, &tokens(text))
}

/// Reads a statement from its tokens; `text` is the one that they were read from.
pub(super) fn of_tokens(text: &str, tokens: &[Token<'_>]) -> Form {
    let mut form = Form {
        title: title(text, tokens),
        effects: Vec::new(),
        manner: Manner::Transactional,
        search_path: None,
    };
    let mut reader = Reader::new(tokens);
    let Some(first) = reader.next() else { return form };
    match first.raw.to_ascii_lowercase().as_str() {
        "create" => create::read(reader, &mut form),
        "alter" => alter::read(reader, &mut form),
        "drop" => removal(reader, &mut form),
        "insert" => form.effects.extend(rows::insert(reader)),
        "update" => form.effects.extend(rows::update(reader)),
        "delete" => form.effects.extend(rows::delete(reader)),
        "truncate" => {
            reader.eat_any(&["table", "only"]);
            let table = reader.name().unwrap_or_else(|| Name::plain(""));
            let again = Again::Loses(text::runtime::WHY_TRUNCATE.with("table", &table));
            form.effects.push(Effect::new(Verb::Sets, Object::new(Kind::Rows, table), again));
        }
        "do" => form.manner = Manner::Block,
        "with" => with(tokens, &mut form),
        "select" | "values" | "table" | "show" | "explain" | "(" => query(tokens, &mut form),
        "set" | "reset" => settings(reader, &mut form),
        "lock" | "discard" | "listen" | "unlisten" | "notify" | "deallocate" | "declare" | "fetch"
        | "close" | "move" | "load" | "checkpoint" => form.manner = Manner::Session,
        "savepoint" | "release" => form.manner = Manner::TransactionControl,
        "begin" | "commit" | "end" | "abort" | "start" => form.manner = Manner::TransactionControl,
        "rollback" => form.manner = Manner::TransactionControl,
        "prepare" if reader.sees("transaction") => form.manner = Manner::TransactionControl,
        "vacuum" => form.manner = Manner::Autonomous,
        "copy" => copy(tokens, &mut form),
        // What they set is set already the second time.
        "comment" | "grant" | "revoke" | "security" | "analyze" | "analyse" | "reassign" => {
            form.effects.push(Effect::sets(other()));
        }
        "refresh" | "reindex" | "cluster" => {
            form.manner = if has(tokens, "concurrently") && first.is("reindex") {
                Manner::Autonomous
            } else {
                form.manner
            };
            form.effects.push(Effect::sets(other()));
        }
        _ => form.effects.push(Effect::unclear(other(), &first.raw.to_uppercase())),
    }
    form
}

/// The beginning of a statement in one line, without a password that it may hold.
pub(super) fn title(text: &str, tokens: &[Token<'_>]) -> String {
    let whole = scrub_credentials(super::object::text_of(text, tokens));
    let mut line = String::new();
    for word in whole.split_whitespace() {
        if line.chars().count() + word.chars().count() >= TITLE_CHARS {
            return format!("{line}…").replace(super::tokens::HOLE, "…");
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.replace(super::tokens::HOLE, "…")
}

fn has(tokens: &[Token<'_>], word: &str) -> bool {
    tokens.iter().any(|token| token.kind == TokenKind::Word && token.is(word))
}

/// Functions that a query calls for what they do.
const ACTS: [&str; 5] = ["setval", "nextval", "lo_create", "lo_import", "lo_unlink"];
/// What only reads, beside all that begins with `pg_`, `to_`, `has_` and `current_`.
const READS: [&str; 19] = [
    "select",
    "exists",
    "not",
    "and",
    "or",
    "in",
    "any",
    "all",
    "from",
    "where",
    "values",
    "as",
    "count",
    "coalesce",
    "version",
    "now",
    "set_config",
    "format",
    "obj_description",
];

/// The function that a query is sent for: one of its own, called without a table.
fn called<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    let of_a_table = super::object::find(tokens, "from").is_some_and(|at| {
        !tokens[at + 1..].windows(2).any(|two| two[0].name().is_some() && two[1].raw == "(")
    });
    let reads = |name: &str| {
        let lower = name.to_ascii_lowercase();
        READS.contains(&lower.as_str())
            || ["pg_", "to_", "has_", "current_"].iter().any(|prefix| lower.starts_with(prefix))
    };
    let mut calls = tokens.windows(2).filter(|two| two[1].raw == "(" && two[0].kind == TokenKind::Word);
    calls.find(|two| !of_a_table && !reads(two[0].raw)).map(|two| two[0].raw)
}

fn query(tokens: &[Token<'_>], form: &mut Form) {
    form.manner = Manner::Query;
    let act = tokens.iter().find(|token| token.is_any(&ACTS)).map(|token| token.raw);
    if let Some(act) = act.or_else(|| called(tokens)) {
        form.manner = Manner::Transactional;
        form.effects.push(Effect::unclear(other(), &format!("{act}()")));
    } else if tokens[0].is("select")
        && let Some(at) = super::object::find(tokens, "into")
    {
        form.manner = Manner::Transactional;
        let mut reader = Reader::new(&tokens[at + 1..]);
        reader.eat_any(&["table", "unlogged", "temp", "temporary"]);
        let table = reader.name().unwrap_or_else(|| Name::plain(""));
        let object = Object::new(Kind::Relation, table);
        form.effects.push(Effect::makes(object, Again::Raises(errors::DUPLICATE_TABLE)));
    }
}

/// `WITH … INSERT`: what the parts do to each other's rows, no form tells.
fn with(tokens: &[Token<'_>], form: &mut Form) {
    match ["insert", "update", "delete", "merge"].into_iter().find(|verb| has(tokens, verb)) {
        Some(verb) => {
            form.effects.push(Effect::unclear(other(), &format!("WITH … {}", verb.to_uppercase())));
        }
        None => query(tokens, form),
    }
}

fn settings(mut reader: Reader<'_, '_>, form: &mut Form) {
    form.manner = if reader.sees("transaction") { Manner::TransactionControl } else { Manner::Session };
    reader.eat_any(&["session", "local"]);
    if reader.eat("search_path") {
        reader.eat_any(&["to", "="]);
        let each = super::object::split_at(reader.rest(), ",");
        let schema = |part: &&[Token<'_>]| match part {
            [one] if !one.has_hole() && !one.is("default") => one.name().or_else(|| one.literal()),
            _ => None,
        };
        form.search_path = Some(each.iter().map(schema).collect());
    }
}

fn copy(tokens: &[Token<'_>], form: &mut Form) {
    if has(tokens, "stdin") {
        form.manner = Manner::Fed;
    } else if has(tokens, "to") && !has(tokens, "from") {
        form.manner = Manner::Query;
    } else {
        form.effects.push(Effect::unclear(other(), "COPY"));
    }
}

/// `DROP`, with or without `IF EXISTS`.
fn removal(mut reader: Reader<'_, '_>, form: &mut Form) {
    let Some(what) = create::kind(&mut reader) else {
        form.effects.push(Effect::unclear(other(), "DROP"));
        return;
    };
    if reader.eat("concurrently") || what.autonomous {
        form.manner = Manner::Autonomous;
    }
    let guarded = reader.eat("if exists");
    for part in super::object::split_at(reader.rest(), ",") {
        let mut reader = Reader::new(part);
        let Some(name) = reader.name() else { continue };
        let mut object = Object::new(what.kind, name);
        // Only the name of a routine counts: overloads are rare in what runs at every start.
        reader.group();
        if reader.eat("on") {
            object.of = reader.name();
        }
        let again = if guarded { Again::Nothing } else { Again::Raises(what.missing) };
        form.effects.push(Effect::removes(object, again));
    }
}

#[cfg(test)]
mod tests;
