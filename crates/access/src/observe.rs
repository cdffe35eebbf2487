//! What access there is: one query, one snapshot, everything that a plan may need.
//!
//! [`catalogue_query`] is the query, for whoever must run it through another connection;
//! [`Observed::from_json`] reads its answer; [`observe`] does both.

mod facts;
mod query;
mod raw;

use obyra_evidence::{Failure, text};
use obyra_postgres::tokio_postgres::Error;
use obyra_postgres::tokio_postgres::error::SqlState;
use obyra_postgres::{Session, lock_holder, sql_failure};

use crate::{Policy, Result, Target};

pub use facts::*;
pub use query::catalogue_query;

/// Observes a database.
pub async fn observe(session: &Session, policy: &Policy, target: &Target) -> Result<Observed> {
    let query = catalogue_query(session.version(), policy, target);
    let row = match session.query_one(&query, &[]).await {
        Ok(row) => row,
        Err(error) => return Err(unreadable(session, &error).await),
    };
    Observed::from_json(row.get(0))
}

/// Definitions of views and policies cannot be read while somebody alters their tables: that one is named.
async fn unreadable(session: &Session, error: &Error) -> Failure {
    let mut failure = sql_failure(text::access::CATALOGUE_UNREADABLE.message(), error);
    if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
        failure.mend = lock_holder(session).await.or(failure.mend);
    }
    failure
}

impl Observed {
    /// Reads the answer of [`catalogue_query`].
    pub fn from_json(json: &str) -> Result<Observed> {
        let raw: raw::Catalogue = serde_json::from_str(json)
            .map_err(|e| Failure::new(text::access::CATALOGUE_UNREADABLE).because(e))?;
        raw.into_observed().map_err(|list| Failure::new(text::access::ACL_UNREADABLE.with("text", list)))
    }
}
