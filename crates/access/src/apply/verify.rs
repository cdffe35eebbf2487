//! Effective access: what the server says each role may do, by itself, by inheritance and by
//! `SET ROLE`, against what the policy implies.
//!
//! Objects with the same owner and the same privileges answer alike, so one of each kind is asked.

use std::collections::{BTreeSet, HashSet};

use obyra_evidence::{Failure, text};
use obyra_postgres::{Session, sql_failure};

use super::Order;
use crate::Result;
use crate::observe::{Observed, Oid};
use crate::plan::implied::{Expectation, Implied, Question};
use crate::policy::Mode;

/// Asks the server; every answer must be as the policy implies. Returns how many were asked.
pub(super) async fn effective(session: &Session, order: Order<'_>, after: &Observed) -> Result<usize> {
    let questions = Implied::new(order.policy, order.target, after).questions();
    // Where undeclared access is left alone, more than the policy implies is no surprise.
    let strict = order.policy.mode == Mode::Authoritative;
    let asked: Vec<&Question> = questions
        .iter()
        .filter(|q| q.expected == Expectation::Must || (strict && q.expected == Expectation::MustNot))
        .collect();
    if asked.is_empty() {
        return Ok(0);
    }
    let roles: Vec<Oid> = asked.iter().map(|q| q.role).collect();
    let kinds: Vec<&str> = asked.iter().map(|q| q.kind).collect();
    let objects: Vec<Oid> = asked.iter().map(|q| q.object).collect();
    let columns: Vec<&str> = asked.iter().map(|q| q.column.as_str()).collect();
    let privileges: Vec<&str> = asked.iter().map(|q| q.privilege).collect();
    let wanted: Vec<bool> = asked.iter().map(|q| q.expected == Expectation::Must).collect();
    let rows = session
        .query(&question_sql(after), &[&roles, &kinds, &objects, &columns, &privileges, &wanted])
        .await
        .map_err(|e| sql_failure(text::access::VERIFY_FAILED.message(), &e))?;
    match rows.first() {
        None => Ok(asked.len()),
        Some(row) => {
            let at = usize::try_from(row.get::<_, i64>(0)).unwrap_or(1).saturating_sub(1);
            Err(mismatch(asked[at], row.get(1), after))
        }
    }
}

/// For each role, the roles whose rights it can reach: its own with what it inherits, and those
/// that it may become by `SET ROLE`.
fn question_sql(after: &Observed) -> String {
    let set = if after.server.version.at_least(16) { "SET" } else { "MEMBER" };
    format!(
        "WITH RECURSIVE asked AS (
  SELECT * FROM unnest($1::oid[], $2::text[], $3::oid[], $4::text[], $5::text[], $6::bool[])
    WITH ORDINALITY AS a(role, kind, object, col, privilege, wanted, at)
), above AS (
  SELECT DISTINCT role, role AS through FROM asked
  UNION SELECT above.role, m.roleid FROM above JOIN pg_catalog.pg_auth_members m ON m.member = above.through
), reach AS MATERIALIZED (
  SELECT role, through FROM above WHERE role = through OR pg_has_role(role, through, '{set}')
)
SELECT a.at, r.through FROM asked a
LEFT JOIN LATERAL (
  SELECT through FROM reach WHERE reach.role = a.role AND CASE a.kind
    WHEN 'schema' THEN has_schema_privilege(through, a.object, a.privilege)
    WHEN 'table' THEN has_table_privilege(through, a.object, a.privilege)
    WHEN 'sequence' THEN has_sequence_privilege(through, a.object, a.privilege)
    WHEN 'routine' THEN has_function_privilege(through, a.object, a.privilege)
    WHEN 'column' THEN has_column_privilege(through, a.object, a.col, a.privilege)
  END ORDER BY through <> a.role LIMIT 1) r ON true
WHERE (r.through IS NOT NULL) <> a.wanted ORDER BY a.at LIMIT 1"
    )
}

fn mismatch(question: &Question, through: Option<Oid>, after: &Observed) -> Failure {
    let role = after.role_name(question.role);
    let object = match question.column.as_str() {
        "" => question.name.clone(),
        column => format!("{} ({column})", question.name),
    };
    match through {
        None => Failure::new(
            text::access::EFFECTIVE_LACKS
                .with("role", role)
                .with("privilege", question.privilege)
                .with("object", object),
        ),
        Some(through) => Failure::new(
            text::access::EFFECTIVE_EXCEEDS
                .with("role", role)
                .with("privilege", question.privilege)
                .with("object", object)
                .with("path", path(after, question.role, through)),
        ),
    }
}

/// The memberships that lead from a role to the one whose rights it reached.
fn path(after: &Observed, from: Oid, through: Oid) -> String {
    let mut open = vec![vec![from]];
    let mut seen = HashSet::from([from]);
    while let Some(path) = (!open.is_empty()).then(|| open.remove(0)) {
        let last = path.last().copied().unwrap_or(from);
        if last == through {
            return path.iter().map(|oid| after.role_name(*oid)).collect::<Vec<_>>().join(" → ");
        }
        let next: BTreeSet<Oid> =
            after.memberships.iter().filter(|m| m.member == last).map(|m| m.role).collect();
        open.extend(next.into_iter().filter(|oid| seen.insert(*oid)).map(|oid| {
            let mut longer = path.clone();
            longer.push(oid);
            longer
        }));
    }
    after.role_name(through)
}
