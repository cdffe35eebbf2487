//! Objects and patterns as the strategy names them: `table app.users`, `sequence app.*`,
//! `function app.total(integer)`.

use std::fmt;

use crate::observe::{Relation, RelationKind};
use crate::privilege::Kind;
use crate::quote;

/// The word that a pattern begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Tables, views, materialised views, foreign tables, partitions.
    Table,
    /// Views and materialised views only.
    View,
    /// Sequences.
    Sequence,
    /// Functions, procedures and aggregates.
    Routine,
    /// Types.
    Type,
}

impl Subject {
    /// The kind of object whose privileges it carries.
    pub fn kind(self) -> Kind {
        match self {
            Subject::Table | Subject::View => Kind::Table,
            Subject::Sequence => Kind::Sequence,
            Subject::Routine => Kind::Routine,
            Subject::Type => Kind::Type,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Subject::Table => "table",
            Subject::View => "view",
            Subject::Sequence => "sequence",
            Subject::Routine => "function",
            Subject::Type => "type",
        }
    }
}

/// One object or a pattern of objects, in the strategy's names of schemas.
///
/// `*` stands for any text, also for the whole schema. A routine without brackets means all
/// routines of that name; with brackets, the one with these argument types.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// The kind of object.
    pub subject: Subject,
    /// The strategy's name of the schema, or `*`.
    pub schema: String,
    /// The object's name, with `*` for any text.
    pub name: String,
    /// A routine's argument types, each as [`crate::observe::Routine`] writes them.
    pub arguments: Option<String>,
}

impl Pattern {
    /// Reads a pattern that begins with its kind.
    pub fn parse(text: &str) -> Option<Pattern> {
        let (word, rest) = text.trim().split_once(char::is_whitespace)?;
        let subject = match word.to_ascii_lowercase().as_str() {
            "table" => Subject::Table,
            "view" => Subject::View,
            "sequence" => Subject::Sequence,
            "function" | "procedure" | "routine" | "aggregate" => Subject::Routine,
            "type" | "domain" => Subject::Type,
            _ => return None,
        };
        let (path, arguments) = match (subject, rest.split_once('(')) {
            (Subject::Routine, Some((path, arguments))) => {
                (path, Some(normal_arguments(arguments.trim_end().strip_suffix(')')?)))
            }
            _ => (rest, None),
        };
        let mut pattern = Pattern::table(path)?;
        pattern.subject = subject;
        pattern.arguments = arguments;
        Some(pattern)
    }

    /// Reads `schema.name` as a table, as `sensitive` and `tenancy` write it.
    pub fn table(text: &str) -> Option<Pattern> {
        let parts = quote::split_path(text)?;
        let [schema, name] = <[String; 2]>::try_from(parts).ok()?;
        Some(Pattern { subject: Subject::Table, schema, name, arguments: None })
    }

    /// Whether it names one object and no more.
    pub fn is_exact(&self) -> bool {
        !self.schema.contains('*')
            && !self.name.contains('*')
            && (self.subject != Subject::Routine || self.arguments.is_some())
    }

    /// How much it says: of two patterns that match, the one with more text decides.
    pub fn weight(&self) -> (bool, usize) {
        let arguments = self.arguments.as_ref().map_or(0, |a| a.len() + 2);
        (self.is_exact(), self.schema.len() + self.name.len() + arguments)
    }

    /// Whether it matches a relation of a schema.
    pub fn matches_relation(&self, logical: &str, relation: &Relation) -> bool {
        let kind = match self.subject {
            Subject::Table => relation.kind != RelationKind::Sequence,
            Subject::View => relation.kind.is_view(),
            Subject::Sequence => relation.kind == RelationKind::Sequence,
            Subject::Routine | Subject::Type => false,
        };
        kind && self.matches_name(logical, &relation.name)
    }

    /// Whether it matches a name in a schema, whatever the kind.
    pub fn matches_name(&self, logical: &str, name: &str) -> bool {
        glob(&self.schema, logical) && glob(&self.name, name)
    }

    /// Whether its argument types, if it has any, are these.
    pub fn matches_arguments(&self, arguments: &str) -> bool {
        self.arguments.as_deref().is_none_or(|wanted| wanted == arguments)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str| {
            let text = name.replace('*', "");
            let plain = name.contains('*') && (text.is_empty() || quote::written(&text) == text);
            if plain { name.to_owned() } else { quote::written(name) }
        };
        write!(f, "{} {}.{}", self.subject.word(), part(&self.schema), part(&self.name))?;
        self.arguments.as_ref().map_or(Ok(()), |arguments| write!(f, "({arguments})"))
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.len() >= part.len() && left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Argument types in one spelling: `int, varchar[]` becomes `integer, character varying[]`.
pub(crate) fn normal_arguments(text: &str) -> String {
    let types: Vec<String> =
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(normal_type).collect();
    types.join(", ")
}

fn normal_type(text: &str) -> String {
    let (base, array) = match text.strip_suffix("[]") {
        Some(base) => (base.trim_end(), "[]"),
        None => (text, ""),
    };
    let folded = base.split_whitespace().collect::<Vec<_>>().join(" ");
    let lower = folded.to_ascii_lowercase();
    let lower = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    let name = match lower {
        "character" | "char" => "character",
        "character varying"
        | "timestamp with time zone"
        | "time with time zone"
        | "bit varying"
        | "double precision"
        | "timestamp without time zone"
        | "time without time zone" => lower,
        internal => sql_type_name(internal).unwrap_or(match internal {
            "int" => "integer",
            "decimal" => "numeric",
            "dec" => "numeric",
            "timestamp" => "timestamp without time zone",
            "time" => "time without time zone",
            _ if lower.len() != folded.len() => internal,
            _ => &folded,
        }),
    };
    format!("{name}{array}")
}

/// SQL's spelling of a type of `pg_catalog` whose internal name differs from it.
pub(crate) fn sql_type_name(internal: &str) -> Option<&'static str> {
    Some(match internal {
        "int2" | "smallint" => "smallint",
        "int4" | "integer" => "integer",
        "int8" | "bigint" => "bigint",
        "float4" | "real" => "real",
        "float8" => "double precision",
        "bool" | "boolean" => "boolean",
        "varchar" => "character varying",
        "bpchar" => "character",
        "timestamptz" => "timestamp with time zone",
        "timetz" => "time with time zone",
        "varbit" => "bit varying",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(glob("*", "anything"));
        assert!(glob("t*", "t1") && !glob("t*", "x1"));
        assert!(glob("*_log", "a_log") && !glob("*_log", "a_logs"));
        assert!(glob("a*b*c", "a12b3c") && !glob("a*b*c", "a12c"));
        assert!(!glob("ab*b", "ab"));
        assert!(glob("users", "users") && !glob("users", "users2"));
    }

    #[test]
    fn patterns_are_read_and_written() {
        let pattern = Pattern::parse("function app.total(int, varchar[])").unwrap();
        assert_eq!(pattern.to_string(), "function app.total(integer, character varying[])");
        assert!(pattern.is_exact());
        assert!(!Pattern::parse("function app.total").unwrap().is_exact());
        assert_eq!(Pattern::parse("table app.\"Odd.One\"").unwrap().name, "Odd.One");
        assert_eq!(Pattern::parse("sequence app.*").unwrap().to_string(), "sequence app.*");
        let quoted = Pattern::parse("table app.\"Odd. *\"").unwrap();
        assert_eq!((quoted.name.as_str(), quoted.to_string().as_str()), ("Odd. *", "table app.\"Odd. *\""));
        assert!(Pattern::parse("index app.x").is_none());
        assert!(Pattern::parse("table users").is_none());
    }
}
