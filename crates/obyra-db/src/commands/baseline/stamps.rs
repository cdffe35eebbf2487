//! Where each environment stands, whether its schema is the baseline's, and the command that tells its version table so.

use obyra_evidence::{Failure, Message, text};
use obyra_migrations::baseline::{Chain, Revision, compare};
use obyra_migrations::observe::version_tables;
use obyra_postgres::{Session, sql_failure};
use obyra_strategy::Strategy;
use serde::Serialize;

use super::super::stamp::told;
use super::Parts;
use crate::commands::gate::Prepared;
use crate::environment::Opened;
use crate::invocation::Invocation;

/// An environment beside a baseline.
#[derive(Debug, Serialize)]
pub struct Standing {
    environment: String,
    /// Where its version table says that it stands; none if it cannot be observed.
    current: Option<String>,
    schema: Schema,
    command: String,
}

/// An environment's schema beside the baseline's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Schema {
    /// The baseline was written from it.
    Source,
    /// Compared, and found equal.
    Equal,
    /// Compared, and found different: in so many objects, and how in the first.
    Differs { count: usize, first: String },
    /// It holds nothing yet: to be deployed, not stamped.
    Empty,
    /// Why it could not be compared.
    Unknown { why: String },
}

/// All environments of the strategy. What cannot be observed is unknown.
pub async fn standings(
    invocation: &Invocation,
    strategy: &Strategy,
    revision: &Revision,
    source: Option<&str>,
) -> Vec<Standing> {
    let mut standings = Vec::new();
    for environment in strategy.environments() {
        let name = environment.name.as_str();
        let observed = observed(invocation, strategy, name, (revision, source == Some(name))).await;
        let (current, schema) = match observed {
            Ok((current, schema)) => (Some(current), schema),
            Err(failure) => (None, Schema::Unknown { why: failure.to_string() }),
        };
        let command = format!("obyra-db migrate stamp {name} {}", revision.id);
        standings.push(Standing { environment: name.to_owned(), current, schema, command });
    }
    standings
}

/// Where an environment stands, and how its schema compares.
async fn observed(
    invocation: &Invocation,
    strategy: &Strategy,
    name: &str,
    (revision, is_source): (&Revision, bool),
) -> Result<(String, Schema), Failure> {
    let opened = Opened::new(invocation, strategy, name)?;
    let admin = opened.admin().await?;
    let session = Session::connect(&admin, obyra_postgres::Limits::default()).await?;
    let tables = version_tables(&opened.environment.migrations, &session).await?;
    let revisions: Vec<String> = tables.into_iter().flat_map(|table| table.revisions).collect();
    let current = if revisions.is_empty() { "base".to_owned() } else { revisions.join(" ") };
    if is_source {
        return Ok((current, Schema::Source));
    }
    let parts = Parts::of(&opened)?;
    let order = parts.order(&opened);
    if revisions.is_empty() && holds_nothing(&session, order.schemas, order.without).await? {
        return Ok((current, Schema::Empty));
    }
    let mut site = Prepared::of(&opened)?;
    let compared = compare(&order, Chain::Draft(revision), &admin, &mut site, &invocation.progress()).await;
    let schema = match compared {
        Ok(differences) => match differences.first() {
            None => Schema::Equal,
            Some(first) => {
                Schema::Differs { count: differences.len(), first: told(first, invocation.printer.language) }
            }
        },
        Err(failure) => Schema::Unknown { why: failure.to_string() },
    };
    Ok((current, schema))
}

/// Whether the schemas hold no table but obyra-db's own.
async fn holds_nothing(session: &Session, schemas: &[String], own: &[String]) -> Result<bool, Failure> {
    let sql = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY ($1::text[]) AND c.relname <> ALL ($2::text[]))";
    let row = session.query_one(sql, &[&schemas, &own]).await;
    let row = row.map_err(|e| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &e))?;
    Ok(row.get(0))
}

impl Standing {
    /// The line of the plan.
    pub fn message(&self) -> Message {
        use text::baseline as say;
        let current = self.current.as_deref().unwrap_or("?");
        let told = match &self.schema {
            _ if self.command.ends_with(&format!(" {current}")) => say::STAMP_DONE.message(),
            Schema::Source => say::STAMP_SOURCE.message(),
            Schema::Equal => say::STAMP_EQUAL.message(),
            Schema::Differs { count, first } => say::STAMP_DIFFERS.with("count", count).with("first", first),
            Schema::Empty => say::STAMP_EMPTY.message(),
            Schema::Unknown { why } => say::STAMP_UNKNOWN.with("why", why),
        };
        told.with("environment", &self.environment).with("current", current).with("command", &self.command)
    }
}
