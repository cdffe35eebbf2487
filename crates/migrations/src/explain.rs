//! What the driver complains of, said so that a person knows where to look and what to do.

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Message, Place, text};

use crate::driver::{Complaint, Line, Said, Stage, Workplace, absolute};

/// How much of a statement a failure quotes.
const STATEMENT_CHARS_SHOWN: usize = 120;

/// The failure that an exception in the driver amounts to.
pub(crate) fn complaint(work: &Workplace<'_>, complaint: &Complaint) -> Failure {
    use text::migrations as say;
    let what = match complaint.stage {
        Stage::Alembic => say::ALEMBIC_MISSING.with("python", work.python.interpreter.display()),
        Stage::Graph => {
            say::GRAPH_UNREADABLE.with("folder", work.policy.directory_in(work.project).display())
        }
        Stage::Application => say::APP_FAILED.with("app", work.policy.app.as_deref().unwrap_or("")),
        Stage::Environment => say::ENV_FAILED.message(),
        Stage::Revision => {
            say::REVISION_FAILED.with("revision", complaint.revision.as_deref().unwrap_or("?"))
        }
        Stage::Aborted => say::ABORTED.message(),
    };
    let failure = Failure::new(what).because(words(&complaint.kind, &complaint.said));
    let failure = match &complaint.place {
        Some(line) => failure.at(place(work.project, line)),
        None => failure,
    };
    match mend(work, complaint) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    }
}

/// Whether what the application printed belongs to the explanation: not where the database has
/// said what is wrong.
pub(crate) fn needs_output(complaint: &Complaint) -> bool {
    let exited = complaint.kind == "SystemExit";
    let loading = matches!(complaint.stage, Stage::Application | Stage::Environment);
    exited || (loading && complaint.said.sqlstate.is_none())
}

/// A statement of ours that the database refused within the migration's transaction.
pub(crate) fn statement(sql: &str, said: &Said) -> Failure {
    let shown: String = sql.trim().chars().take(STATEMENT_CHARS_SHOWN).collect();
    let failure = Failure::new(text::migrations::INSIDE_STATEMENT_FAILED.with("statement", shown));
    let failure = failure.because(words("", said));
    match database_mend(said) {
        Some(mend) => failure.mended_by(mend),
        None => failure,
    }
}

/// The transaction that `env.py` opened and nobody committed: where, why, and what to write instead.
pub(crate) fn silent_rollback(project: &Path, began_at: Option<&Line>) -> Failure {
    let failure = Failure::new(text::migrations::SILENT_ROLLBACK)
        .because(text::migrations::SILENT_ROLLBACK_CAUSE.message())
        .mended_by(text::migrations::MEND_SILENT_ROLLBACK);
    match began_at {
        Some(line) => failure.at(place(project, line)),
        None => failure,
    }
}

/// A place as the user would name it: below the project's folder as that was given.
pub(crate) fn place(project: &Path, line: &Line) -> Place {
    Place { file: file(project, &line.file), line: line.line, column: 1 }
}

/// A file of the project as the user would name it.
pub(crate) fn file(project: &Path, absolute_file: &Path) -> PathBuf {
    let inside =
        absolute(project).ok().and_then(|root| Some(project.join(absolute_file.strip_prefix(root).ok()?)));
    inside.unwrap_or_else(|| absolute_file.to_owned())
}

pub(crate) fn words(kind: &str, said: &Said) -> String {
    let mut words = match (&said.sqlstate, kind) {
        (Some(state), _) => format!("ERROR {state}: {}", said.message),
        (None, "" | "SystemExit") => said.message.clone(),
        (None, kind) if said.message.is_empty() => kind.to_owned(),
        (None, kind) => format!("{kind}: {}", said.message),
    };
    for (label, part) in [("DETAIL", &said.detail), ("HINT", &said.hint)] {
        if let Some(part) = part {
            words.push_str(&format!("; {label}: {part}"));
        }
    }
    words
}

fn mend(work: &Workplace<'_>, complaint: &Complaint) -> Option<Message> {
    use text::migrations as say;
    let missing = matches!(complaint.kind.as_str(), "ModuleNotFoundError" | "ImportError");
    match complaint.stage {
        Stage::Alembic => {
            Some(say::MEND_ALEMBIC_MISSING.with("requirements", work.policy.requirements.display()))
        }
        Stage::Application | Stage::Environment if missing => Some(
            say::MEND_MODULE_MISSING
                .with("python", work.python.interpreter.display())
                .with("requirements", work.policy.requirements.display()),
        ),
        Stage::Application => Some(say::MEND_APP.message()),
        Stage::Revision if complaint.kind == "SystemExit" => Some(say::MEND_SYSTEM_EXIT.message()),
        _ => database_mend(&complaint.said),
    }
}

fn database_mend(said: &Said) -> Option<Message> {
    use text::migrations as say;
    if said.disconnected {
        return Some(say::MEND_DISCONNECTED.message());
    }
    Some(match said.sqlstate.as_deref()? {
        "55P03" => say::MEND_LOCK_TIMEOUT.message(),
        "42501" => text::postgres::MEND_PRIVILEGE.message(),
        "57P01" | "57P02" | "57P03" => say::MEND_DISCONNECTED.message(),
        "53100" => text::postgres::MEND_DISK_FULL.message(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_quoted_with_its_code_and_its_hint() {
        let said = Said {
            message: "relation \"x\" does not exist".into(),
            hint: Some("Perhaps y.".into()),
            sqlstate: Some("42P01".into()),
            ..Said::default()
        };
        assert_eq!(
            words("UndefinedTable", &said),
            "ERROR 42P01: relation \"x\" does not exist; HINT: Perhaps y."
        );
    }

    #[test]
    fn an_exception_without_a_message_is_named_by_its_class() {
        assert_eq!(words("AssertionError", &Said::default()), "AssertionError");
        let said = Said { message: "sys.exit(3)".into(), ..Said::default() };
        assert_eq!(words("SystemExit", &said), "sys.exit(3)");
    }

    #[test]
    fn a_place_is_named_as_the_project_was() {
        let project = Path::new("..").canonicalize().expect("the folder of the crates");
        let line = Line { file: project.join("migrations/src/driver.py"), line: 3 };
        let place = place(Path::new(".."), &line);
        assert_eq!(place.to_string(), "../migrations/src/driver.py:3:1");
    }
}
