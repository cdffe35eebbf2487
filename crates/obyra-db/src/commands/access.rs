//! `access import`: the [access] section that describes a database as it is.

use obyra_access::{Policy, Target, policy::Mode};
use obyra_evidence::{Exit, Failure, text};
use obyra_postgres::{Conninfo, Limits, Session};

use crate::cli::{Access, Subject};
use crate::environment::{Opened, from_variable};
use crate::invocation::Invocation;

/// Runs the verb.
pub async fn access(invocation: &mut Invocation, verb: &Access) -> Result<Exit, Failure> {
    let Access::Import(subject) = verb;
    let (conninfo, target) = subject_of(invocation, subject).await?;
    let session = Session::connect(&conninfo, Limits::default()).await?;
    let everything = Policy::default();
    // Without a strategy, every schema of the database is meant, under its own name.
    let asked = target.clone().unwrap_or_default();
    let observed = obyra_access::observe(&session, &everything, &asked).await?;
    let target = target.unwrap_or_else(|| obyra_access::target_of(&observed));
    let imported = obyra_access::import(&observed, &target, Mode::Authoritative);
    let printer = invocation.printer;
    if printer.json {
        printer.json(&imported.policy);
    } else {
        printer.data(&imported.toml_in(printer.language));
    }
    for finding in &imported.findings {
        printer.warning(finding);
    }
    printer.note(text::cli::IMPORTED_SCHEMAS.with("schemas", schemas(&target)));
    Ok(if imported.proven { Exit::Done } else { Exit::Findings })
}

/// The line that an environment needs for the section to mean this database.
fn schemas(target: &Target) -> String {
    let pairs: Vec<String> =
        target.schemas.iter().map(|(logical, schema)| format!("{} = {schema:?}", key(logical))).collect();
    format!("schemas = {{ {} }}", pairs.join(", "))
}

/// A TOML key, quoted where it must be.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { format!("{name:?}") }
}

async fn subject_of(
    invocation: &mut Invocation,
    subject: &Subject,
) -> Result<(Conninfo, Option<Target>), Failure> {
    match (&subject.environment, &subject.url_env) {
        (_, Some(variable)) => Ok((from_variable(variable)?, None)),
        (Some(name), None) => {
            let strategy = invocation.strategy()?;
            let opened = Opened::new(invocation, &strategy, name)?;
            Ok((opened.admin().await?, Some(opened.target())))
        }
        (None, None) => Err(Failure::usage(text::cli::SUBJECT_MISSING)),
    }
}
