//! What a person should know that no statement mends.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::draft::Drafts;
use super::row_security::find;
use crate::observe::{Oid, TableDetail};
use crate::privilege::{Kind, Privileges, Wanted};
use crate::quote;

/// Adds the findings that concern sensitive tables, routines that run as their owner, and privileges
/// that the server does not know.
pub(crate) fn advise(context: &Context<'_>, drafts: &mut Drafts) {
    sensitive(context, drafts);
    if context.major() < 17 && wants_maintain(context) {
        drafts.find(Finding::new(Severity::Note, "server", text::access::MAINTAIN_UNKNOWN));
    }
    for routine in context.observed.routines.iter().filter(|r| r.security_definer && !r.search_path_fixed) {
        let Some((_, managed)) = context.schema_of(routine.schema) else { continue };
        let call = format!("{}({})", quote::qualified(managed.name, &routine.name), routine.arguments);
        let message = text::access::DEFINER_SEARCH_PATH.with("routine", &call);
        drafts.find(Finding::new(Severity::Warning, format!("function {call}"), message));
    }
}

fn wants_maintain(context: &Context<'_>) -> bool {
    let policy = context.policy;
    let profiles = policy.profiles.values().flat_map(|p| p.tables.iter().chain(p.views.iter().flatten()));
    let defaults = policy.default_privileges.iter().flat_map(|entry| &entry.privileges);
    let objects = policy.objects.values().flat_map(|roles| roles.values().flatten());
    profiles.chain(defaults).chain(objects).any(|entry| {
        Wanted::parse(entry, Kind::Table).is_some_and(|w| w.held.privileges.contains(Privileges::MAINTAIN))
    })
}

fn sensitive(context: &Context<'_>, drafts: &mut Drafts) {
    let details: BTreeMap<Oid, &TableDetail> =
        context.observed.details.iter().map(|d| (d.relation, d)).collect();
    for (table, roles) in &context.policy.sensitive {
        let Some((name, found)) = find(context, table) else { continue };
        let Some(relation) = found else {
            let message = text::access::WAITS_FOR_TABLE.with("table", &name);
            drafts.find(Finding::new(Severity::Note, format!("table {name}"), message));
            continue;
        };
        for (role, allowed) in roles {
            let Some(oid) = context.oid(role) else { continue };
            if let Some(detail) = details.get(&relation.oid) {
                views(context, detail, (oid, allowed), &name, drafts);
            }
            let through = reached(context, role).into_iter().find(|other| {
                !roles.contains_key(*other) && reads_all(context, other, table, relation.owner)
            });
            if let Some(other) = through {
                let message = text::access::SENSITIVE_THROUGH
                    .with("role", role)
                    .with("table", &name)
                    .with("through", other);
                drafts.find(Finding::new(Severity::Warning, format!("table {name}"), message));
            }
        }
    }
}

/// A view shows what its owner may read, to everybody who may read the view.
fn views(
    context: &Context<'_>,
    detail: &TableDetail,
    (role, allowed): (Oid, &[String]),
    table: &str,
    drafts: &mut Drafts,
) {
    for view in detail.views.iter().filter(|v| !v.security_invoker) {
        let secret: Vec<&str> =
            view.columns.iter().filter(|c| !allowed.contains(c)).map(String::as_str).collect();
        let Some(relation) = context.observed.relations.iter().find(|r| r.oid == view.oid) else { continue };
        let acl = context.acl(relation.acl, Kind::Table, relation.owner);
        let reads = acl.iter().any(|item| {
            (item.grantee == role || item.grantee == crate::acl::PUBLIC_OID)
                && item.held.privileges.contains(Privileges::SELECT)
        });
        if reads && !secret.is_empty() {
            let view = quote::qualified(&view.schema, &view.name);
            let message = text::access::VIEW_SHOWS
                .with("view", &view)
                .with("columns", secret.join(", "))
                .with("table", table)
                .with("role", context.name(role));
            drafts.find(Finding::new(Severity::Warning, format!("view {view}"), message));
        }
    }
}

/// The declared roles that a role reaches through declared memberships, itself not included.
pub(crate) fn reached<'a>(context: &Context<'a>, role: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![role];
    while let Some(name) = open.pop() {
        let Some(policy) = context.policy.roles.get(name) else { continue };
        let above = policy.member_of.iter().map(|m| m.role.as_str()).chain(policy.acts_as.as_deref());
        open.extend(above.filter(|name| seen.insert(*name)));
    }
    seen.remove(role);
    seen
}

fn reads_all(context: &Context<'_>, role: &str, table: &str, owner: Oid) -> bool {
    let Some(oid) = context.oid(role) else { return false };
    let level = crate::pattern::Pattern::table(table)
        .and_then(|p| context.schema_named(&p.schema))
        .and_then(|managed| managed.levels.get(&oid));
    oid == owner || level.is_some_and(|l| l.tables.privileges.contains(Privileges::SELECT))
}
