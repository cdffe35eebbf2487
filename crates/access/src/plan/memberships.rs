//! Who is a member of what. An edge is a role, a member and a grantor; what counts is what all
//! grantors together give.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::{Membership, Oid};
use crate::policy::RoleKind;
use crate::target::is_protected;

/// The options of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) admin: bool,
    pub(crate) inherit: bool,
    pub(crate) set: bool,
}

/// The memberships that the policy declares, by role and member.
pub(crate) fn desired(context: &Context<'_>) -> BTreeMap<(Oid, Oid), Options> {
    let mut edges = BTreeMap::new();
    for (name, policy) in &context.policy.roles {
        let Some(member) = context.oid(name) else { continue };
        if let Some(owner) = policy.acts_as.as_deref().and_then(|o| context.oid(o)) {
            edges.insert((owner, member), Options { admin: false, inherit: false, set: true });
        }
        let provider = context.target.provider.admin_role().filter(|_| policy.kind == RoleKind::Admin);
        if let Some(role) = provider.and_then(|r| context.oid(r)) {
            edges.insert((role, member), Options { admin: false, inherit: true, set: true });
        }
        for m in &policy.member_of {
            if let Some(role) = context.oid(&m.role) {
                edges.insert((role, member), Options { admin: m.admin, inherit: m.inherit, set: m.set });
            }
        }
    }
    edges
}

/// Plans the memberships.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts) {
    let desired = desired(context);
    missing_provider_role(context, drafts);
    let mut rows: BTreeMap<(Oid, Oid), Vec<&Membership>> = BTreeMap::new();
    for row in &context.observed.memberships {
        rows.entry((row.role, row.member)).or_default().push(row);
    }
    for ((role, member), wanted) in &desired {
        let rows = rows.get(&(*role, *member)).map_or(&[][..], Vec::as_slice);
        edge(context, (*role, *member), *wanted, rows, drafts);
    }
    for ((role, member), rows) in &rows {
        if !desired.contains_key(&(*role, *member)) && concerns(context, *role, *member) {
            for row in rows {
                drafts.remove(revoke(context, row));
            }
        }
    }
}

/// Whether an undeclared membership is drift: a declared role gained a member or a role. The
/// connected role's own memberships, superusers' and the provider's are not.
fn concerns(context: &Context<'_>, role: Oid, member: Oid) -> bool {
    let named = |oid: Oid| context.role(oid).is_some_and(|r| is_protected(&r.name));
    let superuser = context.role(member).is_some_and(|r| r.superuser);
    (context.is_declared(role) || context.is_declared(member))
        && member != context.me()
        && !named(member)
        && (!superuser || context.is_declared(member))
        && !context.is_superuser_admin(member)
}

fn edge(
    context: &Context<'_>,
    (role, member): (Oid, Oid),
    wanted: Options,
    rows: &[&Membership],
    drafts: &mut Drafts,
) {
    let has_options = context.major() >= 16;
    if member == context.me() && !rows.is_empty() {
        return;
    }
    let all = rows.iter().fold(Options { admin: false, inherit: false, set: false }, |sum, row| Options {
        admin: sum.admin || row.admin,
        inherit: sum.inherit || row.inherit,
        set: sum.set || row.set,
    });
    let lacks = rows.is_empty()
        || (wanted.admin && !all.admin)
        || (has_options && ((wanted.inherit && !all.inherit) || (wanted.set && !all.set)));
    let (role_sql, member_sql) = (context.grantee(role), context.grantee(member));
    if lacks {
        let options = if has_options {
            format!(
                " WITH ADMIN {}, INHERIT {}, SET {}",
                boolean(wanted.admin),
                boolean(wanted.inherit),
                boolean(wanted.set)
            )
        } else {
            String::from(if wanted.admin { " WITH ADMIN OPTION" } else { "" })
        };
        let step = Step::new(
            Phase::Memberships,
            text::access::MEMBERSHIP_MISSING
                .with("member", context.name(member))
                .with("role", context.name(role))
                .with("options", described(wanted)),
            format!("role {}", context.name(member)),
        )
        .risk(Risk::AddsAccess)
        .sql(format!("GRANT {role_sql} TO {member_sql}{options}"));
        drafts.add(step);
    }
    for row in rows {
        exceeding(context, row, wanted, drafts);
    }
    if !has_options && !wanted.set {
        let message = text::access::SET_FALSE_UNKNOWN
            .with("member", context.name(member))
            .with("role", context.name(role));
        drafts.find(Finding::new(Severity::Warning, format!("role {}", context.name(member)), message));
    }
}

/// Takes the options of one grantor's edge back that are more than wanted.
fn exceeding(context: &Context<'_>, row: &Membership, wanted: Options, drafts: &mut Drafts) {
    let has_options = context.major() >= 16;
    let edge = format!("{} TO {}", context.grantee(row.role), context.grantee(row.member));
    let by = granted_by(context, row);
    let mut statements = Vec::new();
    if row.admin && !wanted.admin {
        let from = edge.replacen(" TO ", " FROM ", 1);
        statements.push(format!("REVOKE ADMIN OPTION FOR {from}{by} CASCADE"));
    }
    let mut options = Vec::new();
    if has_options && row.inherit && !wanted.inherit {
        options.push("INHERIT FALSE");
    }
    if has_options && row.set && !wanted.set {
        options.push("SET FALSE");
    }
    if !options.is_empty() {
        statements.push(format!("GRANT {edge} WITH {}{by}", options.join(", ")));
    }
    if statements.is_empty() {
        return;
    }
    let reason = text::access::MEMBERSHIP_EXCEEDS
        .with("member", context.name(row.member))
        .with("role", context.name(row.role))
        .with("options", described(wanted));
    let mut step = Step::new(Phase::Memberships, reason, format!("role {}", context.name(row.member)))
        .risk(Risk::RemovesAccess);
    step.sql = statements;
    drafts.remove(step);
}

fn revoke(context: &Context<'_>, row: &Membership) -> Step {
    let (role, member) = (context.name(row.role), context.name(row.member));
    let reason = text::access::MEMBERSHIP_UNDECLARED.with("member", &member).with("role", &role);
    Step::new(Phase::Memberships, reason, format!("role {member}")).risk(Risk::RemovesAccess).sql(format!(
        "REVOKE {} FROM {}{}{}",
        context.grantee(row.role),
        context.grantee(row.member),
        granted_by(context, row),
        if row.admin { " CASCADE" } else { "" }
    ))
}

/// Without the grantor's name PostgreSQL 16 would look for an edge of the connected role's own.
fn granted_by(context: &Context<'_>, row: &Membership) -> String {
    match context.role(row.grantor).filter(|_| context.major() >= 16) {
        Some(grantor) => format!(" GRANTED BY {}", context.grantee(grantor.oid)),
        None => String::new(),
    }
}

fn missing_provider_role(context: &Context<'_>, drafts: &mut Drafts) {
    let Some(role) = context.target.provider.admin_role() else { return };
    if context.oid(role).is_some() {
        return;
    }
    for (name, _) in context.policy.roles.iter().filter(|(_, r)| r.kind == RoleKind::Admin) {
        let message = text::access::PROVIDER_ROLE_MISSING.with("role", role).with("member", name);
        drafts.find(Finding::new(Severity::Error, format!("role {name}"), message));
    }
}

fn boolean(value: bool) -> &'static str {
    if value { "TRUE" } else { "FALSE" }
}

fn described(options: Options) -> String {
    format!(
        "ADMIN {}, INHERIT {}, SET {}",
        boolean(options.admin),
        boolean(options.inherit),
        boolean(options.set)
    )
}

/// What the connected role must grant itself before it can act for these roles: from
/// PostgreSQL 16 on, whoever creates a role may administer it, but not act as it.
pub(crate) fn self_grants(context: &Context<'_>, needed: &[String]) -> (Vec<Step>, Vec<Finding>) {
    let (mut steps, mut findings) = (Vec::new(), Vec::new());
    if context.is_superuser() {
        return (steps, findings);
    }
    let me = context.me();
    let my_name = context.name(me);
    // Nobody is made a member of pg_database_owner but by owning the database.
    let owner = context.name(context.observed.database.owner);
    let needed: BTreeSet<&String> =
        needed.iter().map(|name| if name == "pg_database_owner" { &owner } else { name }).collect();
    for name in needed {
        let Some(oid) = context.oid(name).filter(|oid| *oid != me && !acts_as(context, *oid)) else {
            continue;
        };
        let options = if context.major() >= 16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        let statement = format!("GRANT {} TO CURRENT_USER{options}", context.grantee(oid));
        let subject = format!("role {my_name}");
        if may_grant(context, oid) {
            let reason = text::access::SELF_GRANT.with("admin", &my_name).with("role", name);
            steps.push(Step::new(Phase::SelfGrants, reason, subject).risk(Risk::AddsAccess).sql(statement));
        } else {
            let message = text::access::GRANT_NEEDED.with("admin", &my_name).with("role", name);
            // Nobody is told to hand out a superuser.
            let mend = if context.role(oid).is_some_and(|role| role.superuser) {
                text::access::MEND_SUPERUSER_OWNS.with("role", name)
            } else {
                let sql = statement.replace("CURRENT_USER", &context.grantee(me));
                text::access::MEND_RUN_AS_ADMIN.with("sql", sql)
            };
            findings.push(Finding::new(Severity::Error, subject, message).mended_by(mend));
        }
    }
    (steps, findings)
}

/// Whether the connected role already has a role's privileges and may become it.
fn acts_as(context: &Context<'_>, role: Oid) -> bool {
    let me = context.me();
    let reach = |option: fn(&Membership) -> bool| {
        let mut open = vec![me];
        let mut seen = BTreeSet::new();
        while let Some(member) = open.pop() {
            for row in context.observed.memberships.iter().filter(|m| m.member == member && option(m)) {
                if seen.insert(row.role) {
                    open.push(row.role);
                }
            }
        }
        seen.contains(&role)
    };
    reach(|m| m.inherit) && reach(|m| m.set)
}

/// Whether the connected role can act for another, if need be after a grant to itself.
pub(crate) fn may_act_for(context: &Context<'_>, role: Oid) -> bool {
    let owner = context.observed.database.owner;
    let role = if context.name(role) == "pg_database_owner" { owner } else { role };
    context.is_superuser() || role == context.me() || acts_as(context, role) || may_grant(context, role)
}

/// Whether the connected role may grant a role to itself.
pub(crate) fn may_grant(context: &Context<'_>, role: Oid) -> bool {
    let me = context.me();
    let createrole = context.role(context.me()).is_some_and(|r| r.createrole);
    match context.role(role) {
        None => createrole,
        Some(found) if found.superuser => false,
        Some(_) if context.major() < 16 && createrole => true,
        Some(_) => context.observed.memberships.iter().any(|m| m.role == role && m.member == me && m.admin),
    }
}
