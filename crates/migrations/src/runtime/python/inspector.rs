//! SQLAlchemy's inspector as the questions that it asks the catalogue.

use obyra_postgres::quote;

use super::super::condition::{Asked, By, Scope};
use super::super::object::{Kind, Name, Object};
use super::super::question::Names;
use super::value::Value;

/// A method of the inspector; none where it is not known.
pub(super) fn method(name: &str, args: &[Value], keywords: &[(&str, Value)]) -> Option<Value> {
    let argument = |position: usize, keyword: &str| {
        let by_name = || keywords.iter().find(|(name, _)| *name == keyword).map(|(_, value)| value);
        args.get(position).or_else(by_name)
    };
    let text = |position: usize, keyword: &str| argument(position, keyword).and_then(Value::text);
    let schema = |position: usize| match argument(position, "schema") {
        None | Some(Value::None) => Some(None),
        Some(Value::Text(schema)) => Some(Some(schema.as_str())),
        Some(_) => None,
    };
    let value = match name {
        "has_table" => {
            let tables = relations("'r', 'p', 'v', 'm', 'f'", schema(1)?);
            return Some(Value::Truth(tables.has(text(0, "table_name")?)));
        }
        "has_schema" => return Some(Value::Truth(schemas().has(text(0, "schema_name")?))),
        "has_index" => {
            let of = part("index", text(0, "table_name")?, schema(2)?);
            return Some(Value::Truth(of.has(text(1, "index_name")?)));
        }
        "get_table_names" => Value::Names(relations("'r', 'p'", schema(0)?)),
        "get_view_names" => Value::Names(relations("'v'", schema(0)?)),
        "get_sequence_names" => Value::Names(relations("'S'", schema(0)?)),
        "get_schema_names" => Value::Names(schemas()),
        "get_columns" => Value::Listing(part("column", text(0, "table_name")?, schema(1)?)),
        "get_indexes" => Value::Listing(part("index", text(0, "table_name")?, schema(1)?)),
        "get_unique_constraints" | "get_check_constraints" | "get_foreign_keys" => {
            Value::Listing(part("constraint", text(0, "table_name")?, schema(1)?))
        }
        _ => return None,
    };
    Some(value)
}

/// What has a table by itself: `engine.dialect.has_table(connection, "users")`.
pub(super) fn has_table(args: &[Value], keywords: &[(&str, Value)]) -> Option<Value> {
    let first = args.iter().position(|value| value.text().is_some())?;
    method("has_table", &args[first..], keywords)
}

fn scope(schema: Option<&str>) -> Scope {
    schema.map_or(Scope::Path, |schema| Scope::Schema(schema.to_owned()))
}

fn relations(kinds: &str, schema: Option<&str>) -> Names {
    let place = match schema {
        Some(schema) => format!(
            "c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})",
            quote::literal(schema)
        ),
        None => "pg_catalog.pg_table_is_visible(c.oid)".to_owned(),
    };
    let sql = format!("SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relkind IN ({kinds}) AND {place}");
    let object = Object::new(Kind::Relation, Name::plain(""));
    Names { sql, asked: Some(Asked { object, scope: scope(schema), by: By::Inspector }) }
}

fn schemas() -> Names {
    let object = Object::new(Kind::Schema, Name::plain(""));
    let asked = Asked { object, scope: Scope::Global, by: By::Inspector };
    Names { sql: "SELECT nspname FROM pg_catalog.pg_namespace".to_owned(), asked: Some(asked) }
}

/// The parts of a table.
fn part(what: &str, table: &str, schema: Option<&str>) -> Names {
    // The inspector takes names as they are, and folds none.
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let name = schema.map_or_else(|| quoted(table), |schema| format!("{}.{}", quoted(schema), quoted(table)));
    let oid = format!("pg_catalog.to_regclass({})", quote::literal(&name));
    let (sql, kind) = match what {
        "column" => (
            format!(
                "SELECT attname FROM pg_catalog.pg_attribute \
                 WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped"
            ),
            Kind::Column,
        ),
        "index" => (
            format!(
                "SELECT c.relname FROM pg_catalog.pg_index i \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {oid}"
            ),
            Kind::Relation,
        ),
        _ => {
            (format!("SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = {oid}"), Kind::Constraint)
        }
    };
    let object = Object::part(kind, "", Name::plain(table));
    Names { sql, asked: Some(Asked { object, scope: scope(schema), by: By::Inspector }) }
}
