//! A script, restored into an empty database of the throw-away server, as far as it is about the strategy's schemas.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Place, text};
use obyra_postgres::tokio_postgres::Error;
use obyra_postgres::tokio_postgres::error::SqlState;
use obyra_postgres::{Conninfo, Limits, Result, Session, sql_failure};

use super::script::{self, Statement};
use crate::gate::start::RESTORER;

/// A script and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// The file; none if pg_dump has just written it.
    pub file: Option<PathBuf>,
    pub text: String,
    statements: Vec<Statement>,
}

/// What of a script was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Extensions that this machine's PostgreSQL cannot make, and why.
    pub extensions: Vec<(String, String)>,
    /// Objects outside of the schemas.
    pub outside: BTreeSet<String>,
}

impl Script {
    pub fn new(text: String, file: Option<&Path>) -> Result<Script> {
        let statements = script::statements(&text);
        let statements = statements.map_err(|unfit| unfit.failure(file.unwrap_or(Path::new("pg_dump"))))?;
        Ok(Script { file: file.map(Path::to_owned), text, statements })
    }

    /// Reads a file that pg_dump wrote, of this version at most.
    pub fn read(file: &Path, major: u32) -> Result<Script> {
        Script::new(script::read(file, major)?, Some(file))
    }

    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Runs it. One statement that the server refuses is the end, unless it is about an extension that nothing needs.
    pub async fn restore(&self, empty: &Conninfo, schemas: &[String]) -> Result<LeftOut> {
        let session = Session::connect(empty, Limits::patient()).await?;
        let create = format!(
            "DO $$ BEGIN CREATE ROLE {RESTORER} SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             SET role = {RESTORER}"
        );
        let set = session.batch_execute(&create).await;
        set.map_err(|e| sql_failure(text::baseline::RESTORING.message(), &e))?;
        let mut left = LeftOut::default();
        for statement in &self.statements {
            if statement.is_of_access() || elsewhere(statement, schemas, &mut left) {
                continue;
            }
            let Some(sql) = statement.to_run() else { continue };
            let Err(error) = session.batch_execute(&sql).await else { continue };
            let extension = statement.entry.as_deref().filter(|entry| entry.kind == "EXTENSION");
            match extension {
                _ if is_harmless(statement, &error) => {}
                Some(extension) => left.extensions.push((extension.name.clone(), words(&error))),
                None => return Err(self.refused(statement, &error, &left)),
            }
        }
        Ok(left)
    }

    fn refused(&self, statement: &Statement, error: &Error, left: &LeftOut) -> Failure {
        use text::baseline as say;
        let what = say::RESTORE_FAILED.with("object", statement.shown());
        let failure = sql_failure(what, error);
        let failure = match &self.file {
            Some(file) => failure.at(Place { file: file.clone(), line: statement.line, column: 1 }),
            None => failure,
        };
        match left.extensions.first() {
            Some((extension, why)) => {
                failure.mended_by(say::MEND_EXTENSION.with("extension", extension).with("why", why))
            }
            None => failure.mended_by(say::MEND_OUTSIDE),
        }
    }
}

/// What belongs to a schema that is not the strategy's, or to the database as a whole.
fn elsewhere(statement: &Statement, schemas: &[String], left: &mut LeftOut) -> bool {
    const OF_THE_DATABASE: [&str; 9] = [
        "EVENT TRIGGER",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
        "SUBSCRIPTION",
        "SERVER",
        "FOREIGN DATA WRAPPER",
        "USER MAPPING",
        "CAST",
    ];
    let Some(entry) = statement.entry.as_deref() else { return false };
    let ours = |schema: &str| schemas.iter().any(|own| own == schema);
    let outside = match (&entry.schema, entry.kind.as_str()) {
        (Some(schema), _) => !ours(schema),
        (None, "SCHEMA") => !ours(&entry.name),
        (None, "COMMENT") => entry.name.strip_prefix("SCHEMA ").is_some_and(|name| !ours(&unquoted(name))),
        (None, kind) => OF_THE_DATABASE.contains(&kind),
    };
    if outside && !["COMMENT", "SCHEMA", "ACL"].contains(&entry.kind.as_str()) && !statement.begins(&["SET"])
    {
        left.outside.insert(entry.to_string());
    }
    outside && !statement.begins(&["SET"])
}

fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// A schema that is there already; a setting of a newer pg_dump that this server does not know; the comment of an
/// extension that could not be made.
fn is_harmless(statement: &Statement, error: &Error) -> bool {
    let code = error.code();
    let made = statement.begins(&["CREATE", "SCHEMA"]) && code == Some(&SqlState::DUPLICATE_SCHEMA);
    let setting = statement.begins(&["SET"]) && code == Some(&SqlState::UNDEFINED_OBJECT);
    made || setting || statement.begins(&["COMMENT", "ON", "EXTENSION"])
}

fn words(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}
