//! What the tracking table says was applied.

use obyra_evidence::{Message, text};
use obyra_postgres::{Session, quote};
use serde::Serialize;

use crate::{Policy, Result};

/// The tracking table in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tracking {
    /// The schema as this database calls it.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl Tracking {
    /// The policy's table in the schema that stands for the policy's logical one.
    pub fn new(policy: &Policy, schema: impl Into<String>) -> Self {
        Tracking { schema: schema.into(), table: policy.table.clone() }
    }

    /// The qualified name for SQL.
    pub fn sql(&self) -> String {
        quote::qualified(&self.schema, &self.table)
    }

    pub(crate) fn unreadable(&self) -> Message {
        text::seeds::TRACKING_UNREADABLE.with("table", self.sql())
    }
}

/// A row of the tracking table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recorded {
    /// The seed's number.
    pub number: u32,
    /// Its name then.
    pub name: String,
    /// Its checksum then.
    pub checksum: String,
    /// When, in UTC as RFC 3339.
    pub applied_at: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// The role that applied it.
    pub applied_by: String,
}

/// What is known of a database's seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// There is no tracking table: nothing was ever applied here.
    Absent,
    /// What was applied, by number.
    Recorded(Vec<Recorded>),
}

impl Observed {
    /// The rows, none if there is no table.
    pub fn recorded(&self) -> &[Recorded] {
        match self {
            Observed::Absent => &[],
            Observed::Recorded(rows) => rows,
        }
    }
}

/// Reads the tracking table.
pub async fn observe(session: &Session, tracking: &Tracking) -> Result<Observed> {
    let name = tracking.sql();
    // `to_regclass` would need USAGE on the schema, and say "absent" where it is only hidden.
    let exists = "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
    let rows = format!(
        "SELECT number, name, checksum, applied_by, duration_seconds,
                pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
           FROM {name} ORDER BY number"
    );
    let found = match session.query_opt(exists, &[&tracking.schema, &tracking.table]).await {
        Ok(Some(_)) => session.query(&rows, &[]).await,
        Ok(None) => return Ok(Observed::Absent),
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Err(session.failure(tracking.unreadable(), &error).await),
    };
    let read = |row: &tokio_postgres::Row| -> std::result::Result<Recorded, tokio_postgres::Error> {
        Ok(Recorded {
            number: row.try_get::<_, i32>(0)?.unsigned_abs(),
            name: row.try_get(1)?,
            checksum: row.try_get(2)?,
            applied_by: row.try_get(3)?,
            duration_seconds: row.try_get(4)?,
            applied_at: row.try_get(5)?,
        })
    };
    let recorded: std::result::Result<Vec<_>, _> = found.iter().map(read).collect();
    // A table of that name that is not ours has other columns.
    recorded.map(Observed::Recorded).map_err(|e| obyra_postgres::sql_failure(tracking.unreadable(), &e))
}
