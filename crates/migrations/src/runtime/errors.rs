//! The errors that a statement raises when it finds what it was to make, by the names under which PL/pgSQL
//! and Python's drivers catch them.
//!
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html>

/// A SQLSTATE.
pub(super) type State = &'static str;

pub(super) const DUPLICATE_COLUMN: State = "42701";
pub(super) const DUPLICATE_FUNCTION: State = "42723";
pub(super) const DUPLICATE_OBJECT: State = "42710";
pub(super) const DUPLICATE_SCHEMA: State = "42P06";
pub(super) const DUPLICATE_TABLE: State = "42P07";
pub(super) const INVALID_PARAMETER_VALUE: State = "22023";
pub(super) const INVALID_SCHEMA_NAME: State = "3F000";
pub(super) const INVALID_TABLE_DEFINITION: State = "42P16";
pub(super) const NOT_IN_PREREQUISITE_STATE: State = "55000";
pub(super) const SYNTAX_ERROR: State = "42601";
pub(super) const UNDEFINED_COLUMN: State = "42703";
pub(super) const UNDEFINED_FUNCTION: State = "42883";
pub(super) const UNDEFINED_OBJECT: State = "42704";
pub(super) const UNDEFINED_TABLE: State = "42P01";

/// Names as PL/pgSQL knows them. Those that end in `000` stand for their whole class.
const NAMES: [(&str, &str); 36] = [
    ("ambiguous_column", "42702"),
    ("cannot_coerce", "42846"),
    ("check_violation", "23514"),
    ("datatype_mismatch", "42804"),
    ("dependent_objects_still_exist", "2BP01"),
    ("duplicate_alias", "42712"),
    ("duplicate_column", DUPLICATE_COLUMN),
    ("duplicate_cursor", "42P03"),
    ("duplicate_database", "42P04"),
    ("duplicate_function", DUPLICATE_FUNCTION),
    ("duplicate_object", DUPLICATE_OBJECT),
    ("duplicate_prepared_statement", "42P05"),
    ("duplicate_schema", DUPLICATE_SCHEMA),
    ("duplicate_table", DUPLICATE_TABLE),
    ("feature_not_supported", "0A000"),
    ("foreign_key_violation", "23503"),
    ("insufficient_privilege", "42501"),
    ("integrity_constraint_violation", "23000"),
    ("invalid_object_definition", "42P17"),
    ("invalid_parameter_value", INVALID_PARAMETER_VALUE),
    ("invalid_schema_name", INVALID_SCHEMA_NAME),
    ("invalid_table_definition", INVALID_TABLE_DEFINITION),
    ("lock_not_available", "55P03"),
    ("not_null_violation", "23502"),
    ("object_in_use", "55006"),
    ("object_not_in_prerequisite_state", NOT_IN_PREREQUISITE_STATE),
    ("raise_exception", "P0001"),
    ("syntax_error", SYNTAX_ERROR),
    ("syntax_error_or_access_rule_violation", "42000"),
    ("undefined_column", UNDEFINED_COLUMN),
    ("undefined_function", UNDEFINED_FUNCTION),
    ("undefined_object", UNDEFINED_OBJECT),
    ("undefined_parameter", "42P02"),
    ("undefined_table", UNDEFINED_TABLE),
    ("unique_violation", "23505"),
    ("wrong_object_type", "42809"),
];

/// What a handler catches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caught {
    /// Single errors, by the names that the handler gives them.
    pub named: Vec<(String, String)>,
    /// Classes of errors, by their two first characters: everything like them is hidden too.
    pub classes: Vec<&'static str>,
    /// Every error.
    pub all: bool,
}

/// How a handler stands to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Catch {
    /// It names it.
    Exactly,
    /// It catches it with everything else.
    Broadly,
    /// It lets it pass.
    No,
}

impl Caught {
    /// Whether it hides more than the errors that it names.
    pub fn hides_more(&self) -> bool {
        self.all || !self.classes.is_empty()
    }

    /// A condition of `EXCEPTION WHEN`: a name, or a SQLSTATE in quotes.
    pub fn add_condition(&mut self, condition: &str) {
        let lower = condition.to_lowercase();
        if lower == "others" {
            self.all = true;
            return;
        }
        let state = NAMES.iter().find(|(name, _)| *name == lower).map_or(condition, |(_, state)| state);
        self.add(condition, state);
    }

    /// A class of exceptions of a driver: psycopg's `DuplicateTable`, asyncpg's `DuplicateTableError`, or
    /// what these and SQLAlchemy derive them from.
    pub fn add_class(&mut self, class: &str) {
        match class {
            "Exception" | "BaseException" | "SQLAlchemyError" | "DBAPIError" | "DatabaseError" | "Error"
            | "PostgresError" => self.all = true,
            "ProgrammingError" => self.classes.extend(["42", "3F"]),
            "IntegrityError" => self.classes.push("23"),
            "DataError" => self.classes.push("22"),
            "OperationalError" => self.classes.extend(["08", "53", "55", "57"]),
            "InternalError" => self.classes.extend(["25", "40", "XX"]),
            "NotSupportedError" => self.classes.push("0A"),
            _ => {
                let bare = class.strip_suffix("Error").unwrap_or(class);
                let known = NAMES.iter().find(|(name, _)| camel(name) == bare || camel(name) == class);
                if let Some((_, state)) = known {
                    self.add(class, state);
                }
            }
        }
    }

    fn add(&mut self, name: &str, state: &str) {
        match state.strip_suffix("000") {
            Some("42") => self.classes.push("42"),
            Some("23") => self.classes.push("23"),
            _ => self.named.push((name.to_owned(), state.to_owned())),
        }
    }

    /// How it stands to an error.
    pub fn catches(&self, state: &str) -> Catch {
        if self.named.iter().any(|(_, named)| named == state) {
            Catch::Exactly
        } else if self.all || self.classes.iter().any(|class| state.starts_with(class)) {
            Catch::Broadly
        } else {
            Catch::No
        }
    }

    /// What it catches, as it says it.
    pub fn shown(&self) -> String {
        self.named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The name of an error that this room knows of, else its SQLSTATE.
pub(super) fn name(state: &str) -> &str {
    NAMES.iter().find(|(_, known)| *known == state).map_or(state, |(name, _)| name)
}

/// `duplicate_table` as `DuplicateTable`.
fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    name.split('_').map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_catches_what_it_names_and_no_sister_of_it() {
        let mut caught = Caught::default();
        caught.add_condition("duplicate_object");
        assert_eq!(caught.catches(DUPLICATE_OBJECT), Catch::Exactly);
        assert_eq!(caught.catches(DUPLICATE_TABLE), Catch::No);
        caught.add_condition("42P07");
        assert_eq!(caught.catches(DUPLICATE_TABLE), Catch::Exactly);
        caught.add_condition("OTHERS");
        assert_eq!(caught.catches("40P01"), Catch::Broadly);
    }

    #[test]
    fn drivers_name_the_same_errors_in_their_own_way() {
        for class in ["DuplicateTable", "DuplicateTableError"] {
            let mut caught = Caught::default();
            caught.add_class(class);
            assert_eq!(caught.catches(DUPLICATE_TABLE), Catch::Exactly, "{class}");
        }
        let mut caught = Caught::default();
        caught.add_class("ProgrammingError");
        assert_eq!((caught.catches(DUPLICATE_TABLE), caught.catches("23505")), (Catch::Broadly, Catch::No));
        caught.add_class("KeyError");
        assert_eq!(caught.catches("08006"), Catch::No);
    }
}
