//! `access import`: the [access] section that describes a database as it is.

use obyra_access::{Imported, Policy, Target, policy::Mode};
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
    let toml_of = |imported: &Imported| imported.toml_in(invocation.printer.language);
    let imported = obyra_access::import(&observed, &target, Mode::Authoritative);
    if invocation.printer.json {
        invocation.printer.json(&imported.policy);
    } else {
        invocation.printer.data(&toml_of(&imported));
    }
    for finding in &imported.findings {
        invocation.printer.note(finding.message.clone());
    }
    invocation.printer.note(text::cli::IMPORTED.with("lines", toml_of(&imported).lines().count()));
    Ok(Exit::Done)
}

async fn subject_of(invocation: &mut Invocation, subject: &Subject) -> Result<(Conninfo, Option<Target>), Failure> {
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
