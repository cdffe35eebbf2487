//! Whether what Alembic reports is so: a second connection, the version table, the budgets.

use obyra_evidence::{Finding, Place, Severity, text};
use obyra_postgres::{Conninfo, Limits, Result, Session, quote, sql_failure};

use super::places::Places;
use super::watch::Seen;
use crate::Policy;
use crate::driver::{Graph, Transaction};
use crate::observe::{Objects, VersionTable, version_tables};

/// What there is to prove.
pub(super) struct Claim<'a> {
    pub places: &'a Places<'a>,
    pub policy: &'a Policy,
    pub graph: &'a Graph,
    pub transaction: &'a Transaction,
    pub seen: &'a Seen,
    pub before: &'a Objects,
}

/// What the second connection sees otherwise; nothing, if all is as it was reported.
pub(super) async fn committed(admin: &Session, claim: &Claim<'_>) -> Result<Vec<Finding>> {
    use text::gate as say;
    let Some(planned) = &claim.seen.planned else { return Ok(Vec::new()) };
    let named = Policy {
        version_table: planned.version_table.clone(),
        version_table_schema: None,
        ..claim.policy.clone()
    };
    let tables = version_tables(&named, admin).await?;
    let used = |table: &&VersionTable| claim.seen.version_table == Some(i64::from(table.oid));
    let table = tables.iter().find(used);
    let mut heads = claim.graph.heads.clone();
    heads.sort();
    let mut found = table.map(|table| table.revisions.clone()).unwrap_or_default();
    found.sort();
    let differing = Objects::seen_by(admin).await?.differs_from(&claim.seen.objects, claim.before);
    if found == heads && differing == 0 {
        return Ok(Vec::new());
    }
    let transaction = claim.transaction;
    if transaction.external && !transaction.committed {
        let at = transaction.began_at.as_ref().map(|line| claim.places.line(line));
        let finding = claim.places.finding(Severity::Error, "env.py", say::SILENT_ROLLBACK.message(), at);
        return Ok(vec![finding.mended_by(text::migrations::MEND_SILENT_ROLLBACK)]);
    }
    let found = if found.is_empty() { "base".to_owned() } else { found.join(" ") };
    let told = say::NOT_COMMITTED.with("found", found).with("head", heads.join(" ")).with("count", differing);
    let finding = claim.places.finding(Severity::Error, "env.py", told, configured(claim.places, claim.seen));
    Ok(vec![finding.mended_by(text::migrations::MEND_NOT_COMMITTED)])
}

/// Where `env.py` calls `context.configure()`.
fn configured(places: &Places<'_>, seen: &Seen) -> Option<Place> {
    let line = seen.models.as_ref().and_then(|models| models.place.as_ref());
    line.map(|line| places.line(line))
}

/// A version table elsewhere than where the role that migrates, and whoever asks as it does, looks for it.
/// What the migration saw counts, committed or not.
pub(super) async fn misplaced(
    places: &Places<'_>,
    policy: &Policy,
    runner: &Conninfo,
    seen: &Seen,
) -> Result<Option<Finding>> {
    let (Some(planned), Some(schema)) = (&seen.planned, &seen.version_schema) else { return Ok(None) };
    let wanted = match &policy.version_table_schema {
        Some(wanted) => Some(wanted.clone()),
        None => {
            let session = Session::connect(runner, Limits::default()).await?;
            let row = session.query_one("SELECT pg_catalog.current_schema()::text", &[]).await;
            row.map_err(|e| sql_failure(text::migrations::CATALOGUE_UNREADABLE.message(), &e))?.get(0)
        }
    };
    let Some(wanted) = wanted.filter(|wanted| wanted != schema) else { return Ok(None) };
    let table = quote::qualified(schema, &planned.version_table);
    let told = text::gate::VERSION_TABLE_SCHEMA.with("table", &table).with("schema", wanted);
    let finding = places.finding(Severity::Error, &format!("table {table}"), told, configured(places, seen));
    Ok(Some(finding.mended_by(text::gate::MEND_VERSION_TABLE_SCHEMA)))
}

/// Revisions over their budget, calls of the network, a hidden command group, migrations that run at boot.
pub(super) fn conduct(places: &Places<'_>, policy: &Policy, seen: &Seen) -> Vec<Finding> {
    use text::gate as say;
    let budget = policy.gate.revision_budget.seconds() as f64;
    let slow = seen.applied.iter().filter(|(_, seconds)| **seconds > budget).map(|(revision, seconds)| {
        let told = say::SLOW_REVISION
            .with("revision", revision)
            .with("seconds", format!("{seconds:.1}"))
            .with("budget", budget);
        let at = places.function(revision, "upgrade");
        let finding = places.finding(Severity::Error, &format!("revision {revision}"), told, at);
        finding.mended_by(say::MEND_SLOW_REVISION)
    });
    let network = seen.network.iter().map(|network| {
        let revision = network.revision.as_deref().unwrap_or("?");
        let told = say::NETWORK.with("revision", revision).with("address", &network.address);
        let at = network.place.as_ref().map(|line| places.line(line));
        let at = at.or_else(|| places.function(revision, "upgrade"));
        let finding = places.finding(Severity::Error, &format!("revision {revision}"), told, at);
        finding.mended_by(say::MEND_NETWORK)
    });
    let hidden = seen.hidden_group.iter().map(|place| {
        let at = place.as_ref().map(|line| places.line(line));
        let told = say::HIDDEN_DB_GROUP.message();
        places.finding(Severity::Error, "application", told, at).mended_by(say::MEND_HIDDEN_DB_GROUP)
    });
    let booted = seen.boot_upgrade.iter().map(|place| {
        let at = place.as_ref().map(|line| places.line(line));
        let told = say::BOOT_UPGRADE.message();
        places.finding(Severity::Warning, "application", told, at).mended_by(say::MEND_BOOT_UPGRADE)
    });
    slow.chain(network).chain(hidden).chain(booted).collect()
}
