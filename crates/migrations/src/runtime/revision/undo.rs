//! What takes a change of the catalogue back. Objects that hold rows go only where they hold none.

use std::collections::BTreeSet;

use obyra_postgres::quote;

use crate::gate::catalogue::{Change, belongs_to_another};
use crate::runtime::tokens::tokens;

/// What goes first, and what last.
const ORDER: [&str; 17] = [
    "altered",
    "policy",
    "trigger",
    "rule",
    "view",
    "materialized view",
    "constraint",
    "index",
    "column",
    "table",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "enum",
    "domain",
    "type",
];

/// Statements that undo, collected.
pub(super) struct Undo {
    /// The schema whose name is left out: whoever migrates finds it first.
    own: String,
    changes: Vec<Change>,
    altered: Vec<String>,
}

impl Undo {
    pub fn new(own: &str) -> Undo {
        Undo { own: own.to_owned(), changes: Vec::new(), altered: Vec::new() }
    }

    /// Adds changes. Says whether all of them can be taken back.
    pub fn add(&mut self, changes: &[Change]) -> bool {
        let mut all = true;
        for change in changes {
            match (&change.before, &change.now) {
                (None, Some(_)) => {
                    let known = ORDER.iter().any(|kind| kind_of(change).0 == *kind)
                        || matches!(kind_of(change).0, "schema" | "extension");
                    all &= known;
                    self.changes.push(change.clone());
                }
                (Some(before), Some(now)) => match self.altered(change, before, now) {
                    Some(sql) => self.altered.push(sql),
                    None => all = false,
                },
                _ => all = false,
            }
        }
        all
    }

    /// The statements, in the order in which they undo.
    pub fn statements(&self) -> Vec<String> {
        let mut statements: Vec<String> = self.altered.iter().rev().cloned().collect();
        let mut last = Vec::new();
        let owned = self.owned();
        for kind in ORDER {
            for change in self.changes.iter().rev().filter(|change| kind_of(change).0 == kind) {
                // A part goes with its table, and a sequence with its column.
                if !belongs_to_another(change, &self.changes) && !owned.contains(change.name.as_str()) {
                    statements.push(self.removal(change));
                }
            }
        }
        for change in self.changes.iter().rev() {
            if matches!(kind_of(change).0, "schema" | "extension") {
                last.push(self.removal(change));
            }
        }
        statements.append(&mut last);
        statements
    }

    /// Sequences that go with a column that goes.
    fn owned(&self) -> BTreeSet<&str> {
        let made: Vec<&str> = self.changes.iter().map(|change| kind_of(change).1).collect();
        let owned = self.changes.iter().filter(|change| {
            let definition = change.now.as_deref().unwrap_or_default();
            let owner = definition.split_once("owned by ").map(|(_, owner)| owner);
            kind_of(change).0 == "sequence"
                && owner.is_some_and(|owner| made.iter().any(|name| owner.split(' ').next() == Some(*name)))
        });
        owned.map(|change| change.name.as_str()).collect()
    }

    /// Without the name of the schema that everybody finds first.
    fn shown(&self, name: &str) -> String {
        name.strip_prefix(&format!("{}.", quote::ident(&self.own))).unwrap_or(name).to_owned()
    }

    fn removal(&self, change: &Change) -> String {
        let (kind, name) = kind_of(change);
        let named = self.shown(name);
        let part = name.split_once(" on ").map(|(part, table)| (part, self.shown(table)));
        match (kind, part) {
            ("table", _) => guarded(&named, None, &format!("DROP TABLE {named}")),
            ("column", _) => {
                let (table, column) = column(name);
                let table = self.shown(&table);
                let value = match default(change.now.as_deref().unwrap_or_default()) {
                    Some(default) => format!("{column} IS DISTINCT FROM ({})", self.unqualified(default)),
                    None => format!("{column} IS NOT NULL"),
                };
                guarded(&table, Some((&column, &value)), &format!("ALTER TABLE {table} DROP COLUMN {column}"))
            }
            ("constraint", Some((part, table))) => {
                format!("ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS {part}")
            }
            ("trigger" | "policy" | "rule", Some((part, table))) => {
                format!("DROP {} IF EXISTS {part} ON {table}", kind.to_uppercase())
            }
            ("index", Some((part, table))) => {
                let schema = table.rsplit_once('.').map(|(schema, _)| format!("{schema}."));
                format!("DROP INDEX IF EXISTS {}{part}", schema.unwrap_or_default())
            }
            ("enum" | "type", _) => format!("DROP TYPE IF EXISTS {named}"),
            ("function" | "procedure" | "aggregate", _) => {
                format!("DROP {} IF EXISTS {}", kind.to_uppercase(), self.unqualified(name))
            }
            (kind, _) => format!("DROP {} IF EXISTS {named}", kind.to_uppercase()),
        }
    }

    /// The names of the schema's own objects without it, wherever they stand.
    fn unqualified(&self, sql: &str) -> String {
        let schema = quote::ident(&self.own);
        let all = tokens(sql);
        let (mut out, mut end) = (String::new(), 0);
        for (at, token) in all.iter().enumerate() {
            let starts = token.raw == schema && all.get(at + 1).is_some_and(|dot| dot.raw == ".");
            let ends = token.raw == "." && at > 0 && all[at - 1].raw == schema;
            if starts || ends {
                out.push_str(&sql[end..token.at]);
                end = token.end();
            }
        }
        out + &sql[end..]
    }

    /// What gives an object its earlier definition again.
    fn altered(&self, change: &Change, before: &str, now: &str) -> Option<String> {
        let (kind, name) = kind_of(change);
        match kind {
            "column" => {
                let (table, column) = column(name);
                let alter = format!("ALTER TABLE {} ALTER COLUMN {column}", self.shown(&table));
                let (was, is) = (Column::of(before), Column::of(now));
                let (mut nullable, mut defaulted) = (is.clone(), is);
                nullable.not_null = was.not_null;
                defaulted.default.clone_from(&was.default);
                if nullable == was {
                    return Some(format!("{alter} {} NOT NULL", if was.not_null { "SET" } else { "DROP" }));
                }
                if defaulted == was {
                    return Some(match &was.default {
                        Some(default) => format!("{alter} SET DEFAULT {}", self.unqualified(default)),
                        None => format!("{alter} DROP DEFAULT"),
                    });
                }
                None
            }
            "table" => {
                let (was, is) = (words(before), words(now));
                let table = self.shown(name);
                let switch = |word: &str| is.replacen(word, "", 1).trim() == was.trim() && is.contains(word);
                if switch("row level security") {
                    Some(format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"))
                } else if switch("forced") {
                    Some(format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"))
                } else {
                    None
                }
            }
            "function" | "procedure" if !before.contains(" comment '") && !now.contains(" comment '") => {
                Some(self.unqualified(before.trim()))
            }
            _ => None,
        }
    }
}

/// The kind of an object, and its name.
fn kind_of(change: &Change) -> (&str, &str) {
    match change.name.strip_prefix("materialized view ") {
        Some(name) => ("materialized view", name),
        None => change.name.split_once(' ').unwrap_or((&change.name, "")),
    }
}

/// `app.users.phone` is `app.users` and `phone`.
fn column(name: &str) -> (String, String) {
    let all = tokens(name);
    let last = all.iter().rposition(|token| token.raw == ".").unwrap_or(0);
    let table = name[..all.get(last).map_or(0, |dot| dot.at)].to_owned();
    (table, all.last().map(|token| token.raw.to_owned()).unwrap_or_default())
}

/// The default of a column's definition.
fn default(definition: &str) -> Option<&str> {
    Column::split(definition).1
}

fn words(definition: &str) -> String {
    definition.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A column's definition, as the gate's snapshot writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    kind: String,
    not_null: bool,
    default: Option<String>,
}

impl Column {
    fn of(definition: &str) -> Column {
        let (head, default) = Column::split(definition);
        let (kind, not_null) = match head.strip_suffix(" not null") {
            Some(kind) => (kind, true),
            None => (head, false),
        };
        Column { kind: kind.to_owned(), not_null, default: default.map(str::to_owned) }
    }

    fn split(definition: &str) -> (&str, Option<&str>) {
        match definition.split_once(" default ") {
            Some((head, default)) => (head.trim(), Some(default)),
            None => (definition.trim(), None),
        }
    }
}

/// A removal that stops where rows would be lost.
fn guarded(table: &str, value: Option<(&str, &str)>, removal: &str) -> String {
    let (condition, told, there) = match value {
        Some((column, condition)) => (
            format!(" WHERE {condition}"),
            format!("{table}.{column} holds values"),
            format!(
                "EXISTS (SELECT FROM pg_attribute \
                 WHERE attrelid = to_regclass({}) AND attname = {} AND NOT attisdropped)",
                quote::literal(table),
                quote::literal(&name_of(column))
            ),
        ),
        None => (
            String::new(),
            format!("{table} holds rows"),
            format!("to_regclass({}) IS NOT NULL", quote::literal(table)),
        ),
    };
    let message = quote::literal(&format!("{told}: remove them first").replace('%', "%%"));
    let lines = [
        "DO $undo$",
        "BEGIN",
        &format!("    IF {there} THEN"),
        &format!("        IF EXISTS (SELECT FROM {table}{condition}) THEN"),
        &format!("            RAISE EXCEPTION {message};"),
        "        END IF;",
        &format!("        {removal};"),
        "    END IF;",
        "END",
        "$undo$",
    ];
    lines.join(&format!("\n{}", super::INDENT))
}

fn name_of(quoted: &str) -> String {
    tokens(quoted).first().and_then(super::super::tokens::Token::name).unwrap_or_else(|| quoted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, definition: &str) -> Change {
        Change { name: name.to_owned(), before: None, now: Some(definition.to_owned()) }
    }

    fn undone(changes: &[Change]) -> Vec<String> {
        let mut undo = Undo::new("app");
        assert!(undo.add(changes), "{changes:?}");
        undo.statements()
    }

    #[test]
    fn what_holds_rows_is_removed_only_where_it_holds_none() {
        let table = undone(&[
            made("sequence app.a_id_seq", "as integer owned by app.a.id"),
            made("table app.a", ""),
            made("column app.a.id", "integer not null"),
            made("index i on app.a", "…"),
        ]);
        assert_eq!(table.len(), 1, "{table:?}");
        assert!(table[0].contains("IF EXISTS (SELECT FROM a) THEN") && table[0].contains("DROP TABLE a;"));
        let column = undone(&[made("column app.users.\"Phone\"", "text not null default 'x'::text")]);
        assert!(column[0].contains("\"Phone\" IS DISTINCT FROM ('x'::text)"), "{column:?}");
        assert!(column[0].contains("attname = 'Phone'"), "{column:?}");
    }

    #[test]
    fn parts_go_before_what_they_belong_to_and_the_own_schema_is_not_named() {
        let all = undone(&[
            made("enum app.mood", "'a'"),
            made("function app.f(app.mood)", "…"),
            made("index i on app.users", "…"),
            made("constraint c on audit.log", "…"),
            made("schema audit", ""),
        ]);
        assert_eq!(
            all,
            [
                "ALTER TABLE IF EXISTS audit.log DROP CONSTRAINT IF EXISTS c",
                "DROP INDEX IF EXISTS i",
                "DROP FUNCTION IF EXISTS f(mood)",
                "DROP TYPE IF EXISTS mood",
                "DROP SCHEMA IF EXISTS audit",
            ]
        );
    }

    #[test]
    fn what_was_altered_is_altered_back_or_declared_to_be_final() {
        let mut undo = Undo::new("app");
        let altered = |name: &str, before: &str, now: &str| Change {
            name: name.to_owned(),
            before: Some(before.to_owned()),
            now: Some(now.to_owned()),
        };
        assert!(undo.add(&[
            altered("column app.u.a", "text", "text not null"),
            altered("column app.u.b", "text default 'x'::text", "text"),
            altered("table app.u", "with ", "with  row level security"),
        ]));
        let back = [
            "ALTER TABLE u DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE u ALTER COLUMN b SET DEFAULT 'x'::text",
            "ALTER TABLE u ALTER COLUMN a DROP NOT NULL",
        ];
        assert_eq!(undo.statements(), back);
        assert!(!undo.add(&[altered("enum app.mood", "'a'", "'a', 'b'")]));
        assert!(!undo.add(&[altered("column app.u.a", "integer", "bigint")]));
    }

    #[tokio::test]
    async fn rows_stop_a_removal() {
        use obyra_postgres::cluster::for_tests;
        use obyra_postgres::{Limits, Session};
        let cluster = for_tests().await;
        let session = Session::connect(&cluster.admin(), Limits::default()).await.unwrap();
        let setup = "CREATE SCHEMA app; SET search_path TO app; CREATE TABLE a (id int);
            CREATE TABLE b (id int, \"Phone\" text DEFAULT 'x'); INSERT INTO b (id) VALUES (1)";
        session.batch_execute(setup).await.unwrap();
        let changes = [made("table app.a", ""), made("column app.b.\"Phone\"", "text default 'x'::text")];
        let steps = undone(&changes);
        let fill = "INSERT INTO a VALUES (1); UPDATE b SET \"Phone\" = 'y'";
        let empty = "DELETE FROM a; UPDATE b SET \"Phone\" = 'x'";
        session.batch_execute(fill).await.unwrap();
        for step in &steps {
            let error = session.batch_execute(step).await.unwrap_err();
            assert_eq!(error.code().map(|code| code.code()), Some("P0001"), "{step}: {error:?}");
        }
        session.batch_execute(empty).await.unwrap();
        // Once more, there is nothing left to remove.
        for step in steps.iter().chain(&steps) {
            session.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        }
        let left = session.query_one(
            "SELECT to_regclass('a') IS NULL AND NOT EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = 'b'::regclass AND attname = 'Phone')",
            &[],
        );
        assert!(left.await.unwrap().get::<_, bool>(0));
    }
}
