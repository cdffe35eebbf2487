//! `migrate stamp`: has the version table say where a database stands, once its schema is proven to be what the
//! revisions up to there make.

use clap::Args;
use obyra_evidence::{Exit, Failure, Finding, Language, Outcome, text};
use obyra_migrations::Deployment;
use obyra_migrations::baseline::{Chain, compare};
use obyra_migrations::stamp::{Stamped, named, stamp};
use obyra_postgres::{ChangeLock, Session};
use obyra_strategy::Strategy;

use super::baseline::Parts;
use crate::cli::Consent;
use crate::commands::converge;
use crate::commands::gate::Prepared;
use crate::commands::migrate::{Application, Privileges};
use crate::confirm::confirm;
use crate::environment::{LOCK_WAIT, Opened, Told};
use crate::invocation::Invocation;

/// Arguments of `migrate stamp`.
#[derive(Args, Debug)]
pub struct Stamp {
    /// The environment, as the strategy names it
    pub environment: String,
    /// The revision: its identifier, an unambiguous beginning of it, or head
    pub revision: String,
    /// Stamp although the schema is not what the revisions make; the differences are recorded
    #[arg(long)]
    pub accept_differences: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// Runs the verb.
pub async fn run(invocation: &Invocation, strategy: &Strategy, arguments: &Stamp) -> Result<Exit, Failure> {
    let opened = Opened::new(invocation, strategy, &arguments.environment)?;
    let printer = invocation.printer;
    let application = Application::of(&opened).await?;
    let session = opened.session().await?;
    let (observed, _) = application.observe(&opened, &session).await?;
    let policy = &opened.environment.migrations;
    let revision = named(policy, &observed.graph, &arguments.revision)?;
    let current = observed.current();
    if current == [revision.as_str()] {
        printer
            .note(text::baseline::STAMP_SAME.with("environment", opened.name()).with("revision", &revision));
        return Ok(Exit::Done);
    }
    let current = if current.is_empty() { "base".to_owned() } else { current.join(" ") };
    let ask = text::baseline::STAMP_ASK
        .with("environment", opened.name())
        .with("revision", &revision)
        .with("current", current);
    confirm(&printer, arguments.consent, ask)?;
    opened.can_record()?;
    let lock = ChangeLock::acquire(&session, LOCK_WAIT).await?;
    let differences = differences(&opened, &revision).await?;
    if !differences.is_empty() && !arguments.accept_differences {
        return Err(refused(&opened, &revision, &differences));
    }
    let deployment = Deployment { work: application.workplace(&opened), admin: &session };
    let mut privileges = Privileges::of(&opened, session.version());
    let outcome = stamp(&deployment, &revision, &mut privileges).await;
    record(&opened, &session, &outcome, &differences)?;
    let stamped = outcome?;
    converge::settle_under_lock(&opened, &session).await?;
    lock.release(&session).await?;
    let from = if stamped.from.is_empty() { "base".to_owned() } else { stamped.from.join(" ") };
    printer.note(
        text::baseline::STAMPED
            .with("environment", opened.name())
            .with("from", from)
            .with("revision", &stamped.to),
    );
    if printer.json {
        printer.json(&serde_json::json!({
            "environment": opened.name(), "stamped": stamped, "differences": differences,
        }));
    }
    Ok(Exit::Done)
}

/// What is different in the environment from what the revisions make of an empty database.
async fn differences(opened: &Opened<'_>, revision: &str) -> Result<Vec<Finding>, Failure> {
    let parts = Parts::of(opened)?;
    let order = parts.order(opened);
    let mut site = Prepared::of(opened)?;
    let progress = opened.invocation.progress();
    compare(&order, Chain::Own(revision), &opened.admin().await?, &mut site, &progress).await
}

/// A difference in one line.
pub fn told(finding: &Finding, language: Language) -> String {
    format!("{}: {}", finding.subject, finding.message.say(language))
}

fn refused(opened: &Opened<'_>, revision: &str, differences: &[Finding]) -> Failure {
    use text::baseline as say;
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json(&serde_json::json!({
            "environment": opened.name(), "stamped": null, "differences": differences,
        }));
    }
    let first = differences.first().map(|finding| told(finding, printer.language)).unwrap_or_default();
    let what = say::STAMP_REFUSED
        .with("environment", opened.name())
        .with("revision", revision)
        .with("count", differences.len())
        .with("first", first);
    Failure::refused(what)
        .mended_by(say::MEND_STAMP_REFUSED.with("environment", opened.name()).with("revision", revision))
}

fn record(
    opened: &Opened<'_>,
    session: &Session,
    outcome: &Result<Stamped, Failure>,
    differences: &[Finding],
) -> Result<(), Failure> {
    let expected = "the version table names the revision whose schema this is";
    let (ended, record) = match outcome {
        Ok(stamped) => {
            let record = Told::new(expected, format!("{}, {} differences", stamped.to, differences.len()));
            let from = if stamped.from.is_empty() { "base".to_owned() } else { stamped.from.join(" ") };
            (Outcome::Changed, record.fact("head", &stamped.to).fact("from", from))
        }
        Err(failure) => (Outcome::Failed, Told::new(expected, failure)),
    };
    let record = record.figure("differences", differences.len() as f64).fact("server", session.version());
    let accepted = differences.iter().map(|finding| told(finding, Language::En)).enumerate();
    let record = accepted.fold(record, |record, (at, said)| record.fact(&format!("difference.{at}"), said));
    opened.record("migrations.stamp", ended, record)
}
