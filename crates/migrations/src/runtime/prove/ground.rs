//! Which schema a statement means, and whether a guard asks about the same one.

use super::super::condition::{Asked, Scope};
use super::super::form::{Effect, Verb};
use super::super::object::Kind;

/// Where the statements run, as far as reading needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The schemas of the search path in their order, by their real names.
    pub search_path: Vec<String>,
}

impl Default for Ground {
    /// PostgreSQL's own: `"$user", public`, where no schema is named after a user.
    fn default() -> Self {
        Ground { search_path: vec!["public".to_owned()] }
    }
}

/// How a guard's schema stands to the statement's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Right,
    /// It looks into every schema.
    AnySchema,
    /// It does not say of which table.
    AnyTable,
    /// It looks into this one.
    Other(String),
    /// It looks along the search path, and what it finds may lie in a later schema.
    PathHides,
    /// The search path is not known.
    Unknown,
}

/// Where an effect takes place.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Global,
    One(String),
    /// The first schema of the path.
    Current,
    /// Where the search path finds the table.
    Lookup,
}

fn of(effect: &Effect) -> Target {
    let object = &effect.object;
    if matches!(object.kind, Kind::Schema | Kind::Extension | Kind::Role) {
        return Target::Global;
    }
    let named = object.of.as_ref().unwrap_or(&object.name);
    match &named.schema {
        Some(schema) => Target::One(schema.clone()),
        None if effect.verb == Verb::Makes && object.of.is_none() => Target::Current,
        None => Target::Lookup,
    }
}

/// The schema that an effect takes place in, for people.
pub(super) fn target(path: Option<&[String]>, effect: &Effect) -> String {
    match of(effect) {
        Target::One(schema) => schema,
        _ => path.and_then(|path| path.first()).cloned().unwrap_or_else(|| "search_path".to_owned()),
    }
}

/// How a question about the effect's object, or its table, stands to it.
pub(super) fn fit(path: Option<&[String]>, asked: &Asked, effect: &Effect) -> Fit {
    if asked.object.kind == Kind::Column && asked.object.of.is_none() {
        return Fit::AnyTable;
    }
    let target = of(effect);
    if target == Target::Global || asked.scope == Scope::Global {
        return Fit::Right;
    }
    let target_of_table = match target {
        // The question is about the table of something that is made in it.
        Target::Current if asked.object.kind != effect.object.kind => Target::Lookup,
        other => other,
    };
    match (&asked.scope, &target_of_table) {
        (Scope::Anywhere, _) => return Fit::AnySchema,
        (Scope::Schema(asked), Target::One(schema)) if asked == schema => return Fit::Right,
        (Scope::Schema(asked), Target::One(_)) => return Fit::Other(asked.clone()),
        (Scope::Path, Target::Lookup) | (Scope::Current, Target::Current) => return Fit::Right,
        _ => {}
    }
    let Some((first, others)) = path.and_then(|path| path.split_first()) else { return Fit::Unknown };
    let schema = match &target_of_table {
        Target::One(schema) => schema,
        Target::Global | Target::Current | Target::Lookup => first,
    };
    match &asked.scope {
        Scope::Schema(asked) if asked == schema => Fit::Right,
        Scope::Schema(asked) => Fit::Other(asked.clone()),
        Scope::Current if first == schema => Fit::Right,
        Scope::Current => Fit::Other(first.clone()),
        _ if first == schema && others.is_empty() => Fit::Right,
        _ if first == schema || others.contains(schema) => Fit::PathHides,
        _ => Fit::Other(path.unwrap_or_default().join(", ")),
    }
}
