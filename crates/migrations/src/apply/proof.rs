//! The proof of a deploy: a second connection sees what the migration saw from inside.

use obyra_evidence::{Failure, text};
use obyra_postgres::{Result, Session, sql_failure};
use serde::Serialize;

use super::attendant::Seen;
use super::{Deployment, at};
use crate::driver::Transaction;
use crate::explain;
use crate::observe::{Objects, VersionTable, revisions_in};

/// What the second connection saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// The version table, with the schema where it was found.
    pub version_table: String,
    /// The revisions that it names.
    pub revisions: Vec<String>,
    /// The process of the server that ran the migration; 0 if none ran.
    pub migrated_by_backend: i64,
    /// The process of the server that saw the result.
    pub seen_by_backend: i64,
}

/// What was proven.
#[derive(Debug)]
pub(super) struct Proven {
    pub committed: Committed,
    pub objects_created: usize,
    pub tables_created: usize,
}

/// Proves that the database stands at the head, and that all that the migration created is there.
pub(super) async fn prove(
    deployment: &Deployment<'_>,
    transaction: &Transaction,
    seen: &Seen,
    before: &Objects,
    head: &str,
) -> Result<Proven> {
    let admin = deployment.admin;
    let table = find(admin, seen.version_table).await?;
    let objects = Objects::seen_by(admin).await?;
    let revisions = table.as_ref().map_or(&[][..], |table| &table.revisions);
    let differing = objects.differs_from(&seen.objects, before);
    if let (Some(table), true, 0) = (&table, revisions == [head], differing) {
        let committed = Committed {
            version_table: table.qualified(),
            revisions: table.revisions.clone(),
            migrated_by_backend: seen.backend,
            seen_by_backend: backend(admin).await?,
        };
        let (objects_created, tables_created) = (objects.beyond(before), objects.tables_beyond(before));
        return Ok(Proven { committed, objects_created, tables_created });
    }
    if transaction.external && !transaction.committed {
        return Err(explain::silent_rollback(deployment.work.project, transaction.began_at.as_ref()));
    }
    Err(Failure::new(
        text::migrations::NOT_COMMITTED
            .with("head", head)
            .with("found", at(revisions))
            .with("count", differing),
    )
    .mended_by(text::migrations::MEND_NOT_COMMITTED))
}

/// What the database stands at, where there was nothing to do.
pub(super) async fn standing(admin: &Session, tables: &[VersionTable]) -> Result<Option<Committed>> {
    let Some(table) = tables.first() else {
        return Ok(None);
    };
    Ok(Some(Committed {
        version_table: table.qualified(),
        revisions: table.revisions.clone(),
        migrated_by_backend: 0,
        seen_by_backend: backend(admin).await?,
    }))
}

/// The table that the migration wrote its version in, if it is there for others too.
async fn find(admin: &Session, oid: Option<u32>) -> Result<Option<VersionTable>> {
    let Some(oid) = oid else {
        return Ok(None);
    };
    let sql = "SELECT n.nspname::text, c.relname::text
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = $1";
    let row = admin.query_opt(sql, &[&oid]).await.map_err(|error| unreadable(&error))?;
    let Some(row) = row else {
        return Ok(None);
    };
    let mut table = VersionTable { schema: row.get(0), name: row.get(1), revisions: Vec::new(), oid };
    table.revisions = revisions_in(admin, &table).await?;
    Ok(Some(table))
}

async fn backend(admin: &Session) -> Result<i64> {
    let row = admin.query_one("SELECT pg_catalog.pg_backend_pid()::bigint", &[]).await;
    Ok(row.map_err(|error| unreadable(&error))?.get(0))
}

fn unreadable(error: &obyra_postgres::tokio_postgres::Error) -> Failure {
    sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), error)
}
