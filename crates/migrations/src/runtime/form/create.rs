//! `CREATE`: what it makes, and what the server says where that exists already.

use obyra_evidence::text;

use super::super::errors::{self, State};
use super::super::object::{Kind, Name, Object, Reader, find};
use super::{Again, Effect, Form, Manner, other};

/// A kind of object, as `CREATE` and `DROP` name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub kind: Kind,
    /// What `CREATE` raises where it exists.
    exists: State,
    /// What `DROP` raises where it does not.
    pub missing: State,
    /// Whether it may be made and removed outside of transactions only.
    pub autonomous: bool,
    /// Whether it holds rows, or counts.
    keeps: bool,
    words: &'static str,
}

const fn named(words: &'static str, kind: Kind, exists: State, missing: State) -> Named {
    Named { kind, exists, missing, autonomous: false, keeps: false, words }
}

const fn relation(words: &'static str) -> Named {
    named(words, Kind::Relation, errors::DUPLICATE_TABLE, errors::UNDEFINED_TABLE)
}

const fn rows(words: &'static str) -> Named {
    Named { keeps: true, ..relation(words) }
}

const fn object(words: &'static str, kind: Kind) -> Named {
    named(words, kind, errors::DUPLICATE_OBJECT, errors::UNDEFINED_OBJECT)
}

/// Longer words before those that they begin with.
const KINDS: [Named; 36] = [
    rows("foreign table"),
    rows("table"),
    named("unique index", Kind::Relation, errors::DUPLICATE_TABLE, errors::UNDEFINED_OBJECT),
    named("index", Kind::Relation, errors::DUPLICATE_TABLE, errors::UNDEFINED_OBJECT),
    rows("materialized view"),
    relation("recursive view"),
    relation("view"),
    rows("sequence"),
    named("schema", Kind::Schema, errors::DUPLICATE_SCHEMA, errors::INVALID_SCHEMA_NAME),
    object("type", Kind::Type),
    object("domain", Kind::Type),
    object("extension", Kind::Extension),
    named("function", Kind::Routine, errors::DUPLICATE_FUNCTION, errors::UNDEFINED_FUNCTION),
    named("procedure", Kind::Routine, errors::DUPLICATE_FUNCTION, errors::UNDEFINED_FUNCTION),
    named("routine", Kind::Routine, errors::DUPLICATE_FUNCTION, errors::UNDEFINED_FUNCTION),
    named("aggregate", Kind::Routine, errors::DUPLICATE_FUNCTION, errors::UNDEFINED_FUNCTION),
    object("constraint trigger", Kind::Trigger),
    object("event trigger", Kind::Other),
    object("trigger", Kind::Trigger),
    object("policy", Kind::Policy),
    object("rule", Kind::Other),
    object("role", Kind::Role),
    object("user mapping", Kind::Other),
    object("user", Kind::Role),
    object("group", Kind::Role),
    object("collation", Kind::Other),
    object("statistics", Kind::Other),
    object("server", Kind::Other),
    object("publication", Kind::Other),
    object("cast", Kind::Other),
    object("language", Kind::Other),
    object("foreign data wrapper", Kind::Other),
    object("text search configuration", Kind::Other),
    Named { autonomous: true, ..object("database", Kind::Other) },
    Named { autonomous: true, ..object("tablespace", Kind::Other) },
    Named { autonomous: true, ..object("subscription", Kind::Other) },
];

/// The kind of object that the next words name.
pub(super) fn kind(reader: &mut Reader<'_, '_>) -> Option<Named> {
    KINDS.into_iter().find(|named| reader.eat(named.words))
}

/// Reads what follows `CREATE`.
pub(super) fn read(mut reader: Reader<'_, '_>, form: &mut Form) {
    let replaces = reader.eat("or replace");
    let fleeting = reader.rest().iter().take(2).any(|token| token.is_any(&["temp", "temporary"]));
    reader.eat_any(&["global", "local", "temp", "temporary", "unlogged"]);
    if fleeting {
        // It is gone with its session.
        form.manner = Manner::Session;
        return;
    }
    let Some(what) = kind(&mut reader) else {
        form.effects.push(Effect::unclear(other(), "CREATE"));
        return;
    };
    if what.autonomous || reader.eat("concurrently") {
        form.manner = Manner::Autonomous;
    }
    let guarded = reader.eat("if not exists");
    let raises = if guarded || replaces { Again::Nothing } else { Again::Raises(what.exists) };
    let effect = match what.words {
        "index" | "unique index" => index(reader, raises),
        "schema" => {
            // `CREATE SCHEMA AUTHORIZATION role` is named after the role.
            reader.eat("authorization");
            let name = reader.name();
            Effect::makes(Object::new(Kind::Schema, name.unwrap_or_else(|| Name::plain(""))), raises)
        }
        _ => {
            let Some(name) = reader.name() else {
                form.effects.push(Effect::unclear(other(), "CREATE"));
                return;
            };
            let mut object = Object::new(what.kind, name);
            if matches!(what.kind, Kind::Trigger | Kind::Policy)
                && let Some(at) = find(reader.rest(), "on")
            {
                object.of = Reader::new(&reader.rest()[at + 1..]).name();
            }
            Effect { keeps: what.keeps, ..Effect::makes(object, raises) }
        }
    };
    form.effects.push(effect);
}

/// An index without a name gets another one each time.
fn index(mut reader: Reader<'_, '_>, raises: Again) -> Effect {
    let name = if reader.sees("on") { None } else { reader.name() };
    reader.eat("on");
    reader.eat("only");
    let table = reader.name();
    match name {
        Some(name) => {
            // Its schema is the table's.
            let name = Name::plain(name.name);
            Effect::makes(Object { kind: Kind::Relation, name, of: table }, raises)
        }
        None => {
            let again = Again::Repeats(text::runtime::WHY_UNNAMED.with("what", "index"));
            Effect::makes(Object { kind: Kind::Relation, name: Name::plain(""), of: table }, again)
        }
    }
}
