//! `ALTER`: each of its actions, and what the server says of it the second time.

use obyra_evidence::text;

use super::super::errors;
use super::super::object::{Kind, Name, Object, Reader, find, split_at};
use super::super::question::without_brackets;
use super::super::tokens::Token;
use super::{Again, Effect, Form, Manner, Verb, has, other};

/// Reads what follows `ALTER`.
pub(super) fn read(mut reader: Reader<'_, '_>, form: &mut Form) {
    if reader.eat("table") || reader.eat("foreign table") {
        return table(reader, form);
    }
    if reader.eat("type") {
        form.effects.push(of_type(reader));
        return;
    }
    if reader.eat("domain") {
        form.effects.push(domain(reader));
        return;
    }
    if reader.eat("system") {
        form.manner = Manner::Autonomous;
    }
    let rest = reader.rest();
    // What is renamed is no longer there the second time.
    if let Some(at) = rest.iter().position(|token| token.is("rename")) {
        let missing = match rest.first() {
            Some(kind) if kind.is_any(&["view", "sequence", "materialized", "index"]) => {
                errors::UNDEFINED_TABLE
            }
            Some(kind) if kind.is_any(&["function", "procedure", "routine", "aggregate"]) => {
                errors::UNDEFINED_FUNCTION
            }
            Some(kind) if kind.is("schema") => errors::INVALID_SCHEMA_NAME,
            _ => errors::UNDEFINED_OBJECT,
        };
        let guarded = rest[..at].windows(2).any(|two| two[0].is("if") && two[1].is("exists"));
        let again = if guarded { Again::Nothing } else { Again::Raises(missing) };
        form.effects.push(Effect::removes(other(), again));
    } else if reader.eat("sequence") {
        reader.eat("if exists");
        let name = reader.name().unwrap_or_else(|| Name::plain(""));
        let mut effect = Effect::sets(Object::new(Kind::Relation, name));
        if has(reader.rest(), "restart") {
            effect.again = Again::Loses(text::runtime::WHY_RESTART.with("sequence", &effect.object));
        }
        form.effects.push(effect);
    } else if has(rest, "attach") {
        form.effects.push(Effect::unclear(other(), "ATTACH PARTITION"));
    } else {
        form.effects.push(Effect::sets(other()));
    }
}

fn table(mut reader: Reader<'_, '_>, form: &mut Form) {
    let guarded = reader.eat("if exists");
    reader.eat("only");
    let Some(table) = reader.name() else {
        form.effects.push(Effect::unclear(other(), "ALTER TABLE"));
        return;
    };
    reader.eat("*");
    if reader.sees("rename") {
        form.effects.push(renamed(reader, &table, guarded));
        return;
    }
    for action in split_at(reader.rest(), ",") {
        let mut reader = Reader::new(action);
        let words =
            || action.iter().take(3).map(|token| token.raw.to_uppercase()).collect::<Vec<_>>().join(" ");
        let effect = if reader.eat("add") {
            addition(reader, &table)
        } else if reader.eat("drop") {
            Some(removal(reader, &table))
        } else if reader.eat("alter") {
            column(reader, &table)
        } else if reader.eat("inherit") {
            Some(inheritance(&table, errors::DUPLICATE_TABLE))
        } else if reader.eat("no inherit") {
            Some(inheritance(&table, errors::UNDEFINED_TABLE))
        } else if reader.sees("attach") || reader.sees("detach") || reader.sees("set schema") {
            None
        } else {
            // A setting, an owner, a switch: it is so already.
            Some(Effect::sets(Object::new(Kind::Relation, table.clone())))
        };
        let unclear = || Effect::unclear(Object::new(Kind::Relation, table.clone()), &words());
        form.effects.push(effect.unwrap_or_else(unclear));
    }
}

fn inheritance(table: &Name, raises: errors::State) -> Effect {
    Effect::new(Verb::Sets, Object::new(Kind::Relation, table.clone()), Again::Raises(raises))
}

fn renamed(mut reader: Reader<'_, '_>, table: &Name, guarded: bool) -> Effect {
    reader.eat("rename");
    let (object, missing) = if reader.eat("to") {
        let missing = if guarded { None } else { Some(errors::UNDEFINED_TABLE) };
        (Object::new(Kind::Relation, table.clone()), missing)
    } else if reader.eat("constraint") {
        let name = reader.name().map(|name| name.name).unwrap_or_default();
        (Object::part(Kind::Constraint, name, table.clone()), Some(errors::UNDEFINED_OBJECT))
    } else {
        reader.eat("column");
        let name = reader.name().map(|name| name.name).unwrap_or_default();
        (Object::part(Kind::Column, name, table.clone()), Some(errors::UNDEFINED_COLUMN))
    };
    Effect::removes(object, missing.map_or(Again::Nothing, Again::Raises))
}

/// What follows `ADD`.
fn addition(mut reader: Reader<'_, '_>, table: &Name) -> Option<Effect> {
    let part = |kind, name: String| Object::part(kind, name, table.clone());
    if reader.eat("constraint") {
        let name = reader.name()?.name;
        let raises = if reader.sees("primary") {
            errors::INVALID_TABLE_DEFINITION
        } else if has(reader.rest(), "using") && has(reader.rest(), "index") && !reader.sees("exclude") {
            errors::UNDEFINED_OBJECT
        } else if reader.sees("unique") || reader.sees("exclude") {
            // Its index is a relation of the same name.
            errors::DUPLICATE_TABLE
        } else {
            errors::DUPLICATE_OBJECT
        };
        return Some(Effect::makes(part(Kind::Constraint, name), Again::Raises(raises)));
    }
    if reader.sees("primary key") {
        let again = Again::Raises(errors::INVALID_TABLE_DEFINITION);
        return Some(Effect::makes(part(Kind::Constraint, String::new()), again));
    }
    for unnamed in ["check", "unique", "foreign", "exclude"] {
        // `ADD unique integer` would be a column of that name; nobody's is.
        if reader.sees(unnamed) {
            let again = Again::Repeats(text::runtime::WHY_UNNAMED.with("what", "constraint"));
            return Some(Effect::makes(part(Kind::Constraint, String::new()), again));
        }
    }
    reader.eat("column");
    let guarded = reader.eat("if not exists");
    let name = reader.name()?.name;
    let again = if guarded { Again::Nothing } else { Again::Raises(errors::DUPLICATE_COLUMN) };
    Some(Effect::makes(part(Kind::Column, name), again))
}

/// What follows `DROP`.
fn removal(mut reader: Reader<'_, '_>, table: &Name) -> Effect {
    let constraint = reader.eat("constraint");
    if !constraint {
        reader.eat("column");
    }
    let guarded = reader.eat("if exists");
    let name = reader.name().map(|name| name.name).unwrap_or_default();
    let (kind, missing) = if constraint {
        (Kind::Constraint, errors::UNDEFINED_OBJECT)
    } else {
        (Kind::Column, errors::UNDEFINED_COLUMN)
    };
    let again = if guarded { Again::Nothing } else { Again::Raises(missing) };
    Effect::removes(Object::part(kind, name, table.clone()), again)
}

/// What follows `ALTER`: a column, or a constraint.
fn column(mut reader: Reader<'_, '_>, table: &Name) -> Option<Effect> {
    if reader.eat("constraint") {
        let name = reader.name()?.name;
        return Some(Effect::sets(Object::part(Kind::Constraint, name, table.clone())));
    }
    reader.eat("column");
    let name = reader.name()?.name;
    let mut effect = Effect::sets(Object::part(Kind::Column, name, table.clone()));
    let typed = reader.sees("type") || reader.sees("set data type");
    if typed && !is_cast(reader.rest(), &effect.object.name.name) {
        // The expression is computed from what it gave the first time.
        effect.again = Again::Unseen(text::runtime::WHY_USING.message());
    } else if reader.sees("add generated")
        || ["drop identity", "drop expression"].iter().any(|words| reader.sees(words))
            && !has(reader.rest(), "exists")
    {
        effect.again = Again::Raises(errors::NOT_IN_PREREQUISITE_STATE);
    } else if has(reader.rest(), "restart") {
        effect.again = Again::Loses(text::runtime::WHY_RESTART.with("sequence", &effect.object));
    }
    Some(effect)
}

/// Whether a change of type has no `USING`, or only casts the column.
fn is_cast(typed: &[Token<'_>], column: &str) -> bool {
    let Some(using) = find(typed, "using") else { return true };
    let own = |token: &Token<'_>| token.name().is_some_and(|name| name == column);
    match without_brackets(&typed[using + 1..]) {
        [one] => own(one),
        [one, cast, ..] if cast.raw == "::" => own(one) && find(typed, "||").is_none(),
        [cast, open, one, as_, ..] if cast.is("cast") && open.raw == "(" && as_.is("as") => own(one),
        _ => false,
    }
}

fn of_type(mut reader: Reader<'_, '_>) -> Effect {
    let Some(name) = reader.name() else { return Effect::unclear(other(), "ALTER TYPE") };
    if reader.eat("add value") {
        let guarded = reader.eat("if not exists");
        let label = reader.next().and_then(|token| token.literal()).unwrap_or_default();
        let again = if guarded { Again::Nothing } else { Again::Raises(errors::DUPLICATE_OBJECT) };
        return Effect::makes(Object::part(Kind::Label, label, name), again);
    }
    let object = Object::new(Kind::Type, name);
    let removes = |again| Effect::removes(object.clone(), again);
    if reader.eat("rename value") {
        removes(Again::Raises(errors::INVALID_PARAMETER_VALUE))
    } else if reader.eat("rename attribute") {
        removes(Again::Raises(errors::UNDEFINED_COLUMN))
    } else if reader.eat("rename to") {
        removes(Again::Raises(errors::UNDEFINED_OBJECT))
    } else if reader.eat("add attribute") {
        Effect::makes(object, Again::Raises(errors::DUPLICATE_COLUMN))
    } else if reader.eat("drop attribute") {
        let again =
            if reader.sees("if exists") { Again::Nothing } else { Again::Raises(errors::UNDEFINED_COLUMN) };
        removes(again)
    } else if reader.sees("set schema") {
        Effect::unclear(object, "SET SCHEMA")
    } else {
        Effect::sets(object)
    }
}

fn domain(mut reader: Reader<'_, '_>) -> Effect {
    let Some(name) = reader.name() else { return Effect::unclear(other(), "ALTER DOMAIN") };
    let object = Object::new(Kind::Type, name);
    if reader.eat("add constraint") {
        Effect::makes(object, Again::Raises(errors::DUPLICATE_OBJECT))
    } else if reader.eat("add") {
        let again = Again::Repeats(text::runtime::WHY_UNNAMED.with("what", "constraint"));
        Effect::makes(object, again)
    } else if reader.sees("rename") || reader.sees("drop constraint") && !has(reader.rest(), "exists") {
        Effect::removes(object, Again::Raises(errors::UNDEFINED_OBJECT))
    } else {
        Effect::sets(object)
    }
}
