//! The revision: what pg_dump wrote of a schema as explicit SQL, in its order, and what takes it back.
//!
//! Pure: the same script gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use obyra_postgres::lex::{Kind, tokens};
use obyra_postgres::quote;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::literal::{execute, harmless};
use super::script::{Entry, Statement};

/// How many digits of the hash identify a revision: as many as Alembic's own.
const ID_DIGITS: usize = 12;

/// A revision that creates a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Its identifier: a hash of its statements.
    pub id: String,
    /// The file's text.
    pub source: String,
    /// How many objects it creates, comments apart.
    pub objects: usize,
}

/// What the script does not say itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wording<'a> {
    /// The first line of the docstring.
    pub message: &'a str,
    /// The schema whose name is left out, as the script calls it: whoever migrates finds it first.
    pub unnamed: Option<&'a str>,
    /// Extensions that the strategy gives.
    pub given: &'a BTreeSet<String>,
    /// The comments that the schemas have before, as literals.
    pub comments: &'a BTreeMap<String, String>,
}

/// Writes the revision of a script that was made with `pg_dump --clean`; none if there is nothing to create.
pub(super) fn write(script: &[Statement], wording: &Wording<'_>) -> Option<Revision> {
    let mut draft = Draft { wording, ups: Vec::new(), downs: Vec::new(), last: Vec::new(), objects: 0 };
    let attached = attached(script);
    for statement in script {
        match statement.entry.as_deref() {
            Some(entry) => draft.object(entry, &statement.sql),
            None => draft.drop(statement, &attached),
        }
    }
    if draft.ups.is_empty() {
        return None;
    }
    draft.refresh(script);
    draft.downs.append(&mut draft.last);
    Some(draft.finish())
}

struct Draft<'a> {
    wording: &'a Wording<'a>,
    /// What creates, each with the group that it belongs to.
    ups: Vec<(&'static str, String)>,
    downs: Vec<String>,
    /// What is undone last.
    last: Vec<String>,
    objects: usize,
}

impl Draft<'_> {
    fn object(&mut self, entry: &Entry, sql: &str) {
        match entry.kind.as_str() {
            _ if sql.starts_with("SET ") || sql.starts_with("SELECT ") => return,
            "SCHEMA" => return,
            "EXTENSION" if self.wording.given.contains(&entry.name) => return,
            // Every extension brings its own comment along.
            "COMMENT" if entry.name.starts_with("EXTENSION ") => return,
            "COMMENT" if entry.name.starts_with("SCHEMA ") => return self.schema_comment(sql),
            _ => {}
        }
        let group = group(&entry.kind).or_else(|| self.ups.last().map(|(group, _)| *group));
        let sql = match entry.kind.as_str() {
            "EXTENSION" => self.extension(sql),
            _ => self.unqualified(sql),
        };
        self.objects += usize::from(creates(&sql));
        self.ups.push((group.unwrap_or("objects"), sql));
    }

    /// `IF NOT EXISTS` would have the downgrade drop what somebody else made.
    fn extension(&self, sql: &str) -> String {
        let sql = sql.replacen("CREATE EXTENSION IF NOT EXISTS ", "CREATE EXTENSION ", 1);
        let unnamed = self.wording.unnamed.map(|schema| format!(" WITH SCHEMA {}", quote::ident(schema)));
        match unnamed.and_then(|tail| sql.strip_suffix(&tail).map(str::to_owned)) {
            Some(sql) => sql,
            None => sql,
        }
    }

    fn schema_comment(&mut self, sql: &str) {
        let Some((head, comment)) = sql.split_once(" IS ") else { return };
        let schema = names(head).pop().unwrap_or_default();
        let before = self.wording.comments.get(&schema).map_or("NULL", String::as_str);
        if comment == before {
            return;
        }
        let statement = |comment: &str| {
            if self.wording.unnamed == Some(schema.as_str()) {
                let format = format!("COMMENT ON SCHEMA %I IS {}", comment.replace('%', "%%"));
                let format = quote::literal(&format);
                block(&format!("BEGIN EXECUTE format({format}, current_schema()); END"))
            } else {
                format!("COMMENT ON SCHEMA {} IS {comment}", quote::ident(&schema))
            }
        };
        let (up, down) = (statement(comment), statement(before));
        self.ups.push(("schemas", up));
        self.last.push(down);
    }

    /// pg_dump's way to take an object back. What has no object above it is this, or a setting.
    fn drop(&mut self, statement: &Statement, attached: &BTreeSet<(String, String)>) {
        let names = names(&statement.sql);
        if !["DROP", "ALTER", "CREATE"].iter().any(|verb| statement.begins(&[verb]))
            || statement.begins(&["DROP", "SCHEMA"])
            || statement.begins(&["DROP", "EXTENSION"])
                && names.last().is_some_and(|n| self.wording.given.contains(n))
        {
            return;
        }
        // The index of a partition goes with its parent's, and cannot go before.
        if statement.begins(&["ALTER", "TABLE", "ONLY"])
            && let [_, _, _, schema, _, drop, constraint, name] = names.as_slice()
            && (drop.as_str(), constraint.as_str()) == ("DROP", "CONSTRAINT")
            && attached.contains(&(schema.clone(), name.clone()))
        {
            return;
        }
        self.downs.push(self.unqualified(&statement.sql));
    }

    /// A schema-only dump leaves materialized views unfilled, and nobody could read them.
    fn refresh(&mut self, script: &[Statement]) {
        for entry in script.iter().filter_map(|statement| statement.entry.as_deref()) {
            if entry.kind == "MATERIALIZED VIEW" {
                let schema = entry.schema.as_deref().filter(|schema| self.wording.unnamed != Some(*schema));
                let name = match schema {
                    Some(schema) => quote::qualified(schema, &entry.name),
                    None => quote::ident(&entry.name),
                };
                self.ups.push(("rows of materialized views", format!("REFRESH MATERIALIZED VIEW {name}")));
            }
        }
    }

    fn unqualified(&self, sql: &str) -> String {
        match self.wording.unnamed {
            Some(schema) => sql.replace(&format!("{}.", quote::ident(schema)), ""),
            None => sql.to_owned(),
        }
    }

    fn finish(self) -> Revision {
        let mut hash = Sha256::new();
        for (_, sql) in &self.ups {
            hash.update(sql);
            hash.update(b"\0");
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let id = digits[..ID_DIGITS].to_owned();
        Revision { source: self.source(&id), id, objects: self.objects }
    }

    fn source(&self, id: &str) -> String {
        let message = harmless(self.wording.message);
        let mut text = format!(
            "\"\"\"{}\n\nWritten by `obyra-db migrate baseline`: the schema as it was, in place of the revisions in archived/.\n",
            message.trim()
        );
        if self.wording.unnamed.is_some() {
            text += "Names without a schema belong to the first schema of the search path.\n";
        }
        let _ = write!(
            text,
            "\"\"\"\n\nfrom alembic import op\n\nrevision = \"{id}\"\ndown_revision = None\nbranch_labels = None\n\
             depends_on = None\n\n\ndef upgrade() -> None:\n"
        );
        let routines = self.ups.iter().any(|(group, _)| *group == ROUTINES);
        if routines {
            text += "    # A function may name what comes after it.\n";
            text += &execute("SET LOCAL check_function_bodies = off");
        }
        let mut heading = "";
        for (group, sql) in &self.ups {
            if *group != heading {
                let _ = write!(text, "\n    # -- {group}\n\n");
                heading = group;
            }
            text += &execute(sql);
        }
        if routines {
            text.push('\n');
            text += &execute("SET LOCAL check_function_bodies = DEFAULT");
        }
        text += "\n\ndef downgrade() -> None:\n";
        self.downs.iter().for_each(|sql| text += &execute(sql));
        if self.downs.is_empty() {
            text += "    pass\n";
        }
        text.replace("def upgrade() -> None:\n\n", "def upgrade() -> None:\n")
    }
}

/// A statement that runs a body of PL/pgSQL.
fn block(body: &str) -> String {
    let numbered = (0_u32..).map(|number| format!("$do{number}$"));
    let tag = std::iter::once("$do$".to_owned()).chain(numbered).find(|tag| !body.contains(tag.as_str()));
    let tag = tag.unwrap_or_default();
    format!("DO {tag} {body} {tag}")
}

const ROUTINES: &str = "routines";

/// The heading that a kind stands under; none for what follows its object.
fn group(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "COMMENT" => return None,
        "EXTENSION" => "extensions",
        "TYPE" | "SHELL TYPE" | "DOMAIN" | "DOMAIN CONSTRAINT" | "COLLATION" => "types",
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => ROUTINES,
        "TABLE" | "FOREIGN TABLE" | "SEQUENCE" | "SEQUENCE OWNED BY" | "DEFAULT" | "TABLE ATTACH" => {
            "tables and sequences"
        }
        "VIEW" | "MATERIALIZED VIEW" => "views",
        "CONSTRAINT" | "CHECK CONSTRAINT" => "constraints",
        "FK CONSTRAINT" => "foreign keys",
        "INDEX" | "INDEX ATTACH" | "STATISTICS" => "indexes",
        "TRIGGER" | "RULE" => "triggers and rules",
        "POLICY" | "ROW SECURITY" => "row-level security",
        kind if kind.starts_with("TEXT SEARCH") => "text search",
        kind if kind.starts_with("OPERATOR") => "operators",
        _ => "other objects",
    })
}

/// Whether a statement makes an object, and does not only change one.
fn creates(sql: &str) -> bool {
    sql.starts_with("CREATE ") || sql.contains("\n    ADD CONSTRAINT ")
}

/// The indexes of partitions that belong to an index of the whole: schema and name.
fn attached(script: &[Statement]) -> BTreeSet<(String, String)> {
    let entries = script.iter().filter_map(|statement| statement.entry.as_deref());
    let attached = entries.filter(|entry| entry.kind == "INDEX ATTACH");
    attached.map(|entry| (entry.schema.clone().unwrap_or_default(), entry.name.clone())).collect()
}

/// The words and names of a statement, the names as they are.
fn names(sql: &str) -> Vec<String> {
    let name = |(kind, token): (Kind, &str)| match kind {
        Kind::Word => Some(token.to_owned()),
        Kind::Quoted if token.starts_with('"') => {
            Some(token[1..token.len().max(2) - 1].replace("\"\"", "\""))
        }
        _ => None,
    };
    tokens(sql).filter_map(name).collect()
}
