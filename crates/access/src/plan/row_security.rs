//! Row security of the tenants' tables. The policies themselves come from migrations.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::desired::Wishes;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::{Oid, Relation, TableDetail};
use crate::pattern::Pattern;
use crate::policy::Mode;
use crate::privilege::{Kind, Privileges};
use crate::quote;

/// Plans row security. With `only_of`, on the tables that this role owns and no others.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts, only_of: Option<Oid>) {
    if context.policy.tenancy.tables.is_empty() {
        return;
    }
    let observed = context.observed;
    let relations: BTreeMap<Oid, &Relation> = observed.relations.iter().map(|r| (r.oid, r)).collect();
    let details: BTreeMap<Oid, &TableDetail> = observed.details.iter().map(|d| (d.relation, d)).collect();
    let mut tenant = BTreeSet::new();
    let mut unbound: BTreeMap<Oid, Vec<String>> = BTreeMap::new();
    for table in &context.policy.tenancy.tables {
        let Some((name, found)) = find(context, table) else { continue };
        let Some(relation) = found else {
            let message = text::access::WAITS_FOR_TABLE.with("table", &name);
            drafts.find(Finding::new(Severity::Note, format!("table {name}"), message));
            continue;
        };
        if let Some(detail) = details.get(&relation.oid) {
            advise(context, relation, detail, &name, drafts);
            if !context.policy.tenancy.force {
                unbound.entry(relation.owner).or_default().push(name);
            }
        }
        tenant.insert(relation.oid);
    }
    unbound_owners(context, &unbound, drafts);
    let roots = tenant.clone();
    // Read by its own name, a partition knows nothing of its parent's policies.
    while let Some(child) =
        observed.parents.iter().find(|(child, parent)| tenant.contains(parent) && !tenant.contains(child))
    {
        tenant.insert(*child.0);
    }
    for relation in tenant.iter().filter_map(|oid| relations.get(oid)) {
        if only_of.is_none_or(|role| relation.owner == role) {
            let policies = details.get(&relation.oid).map_or(0, |d| d.policies.len());
            table(context, relation, roots.contains(&relation.oid) && policies == 0, drafts);
        }
    }
}

/// The table of a name in the strategy: its name in SQL and, if it exists, the table. `None` when
/// this environment has no such schema.
pub(crate) fn find<'a>(context: &Context<'a>, table: &str) -> Option<(String, Option<&'a Relation>)> {
    let pattern = Pattern::table(table)?;
    let managed = context.schema_named(&pattern.schema)?;
    let name = quote::qualified(managed.name, &pattern.name);
    let schema = managed.found.map(|s| s.oid);
    let fits = |r: &&Relation| Some(r.schema) == schema && r.name == pattern.name;
    Some((name, context.observed.relations.iter().find(fits)))
}

fn table(context: &Context<'_>, relation: &Relation, without_policy: bool, drafts: &mut Drafts) {
    let schema = context.schema_of(relation.schema).map_or("", |(_, s)| s.name);
    let name = quote::qualified(schema, &relation.name);
    let subject = format!("table {name}");
    if !relation.row_security && without_policy {
        let message = text::access::TENANT_WITHOUT_POLICY.with("table", &name);
        drafts.find(Finding::new(Severity::Error, subject, message));
        return;
    }
    let step = |words: &str, risk| {
        let reason = text::access::ROW_SECURITY_MISSING.with("table", &name).with("state", words);
        Step::new(Phase::RowSecurity, reason, &subject)
            .risk(risk)
            .acting_for(context.name(relation.owner))
            .sql(format!("ALTER TABLE {name} {words} ROW LEVEL SECURITY"))
    };
    if !relation.row_security {
        drafts.add(step("ENABLE", Risk::MayBreak));
    }
    if context.policy.tenancy.force && !relation.row_security_forced {
        drafts.add(step("FORCE", Risk::MayBreak));
    }
    if !context.policy.tenancy.force && relation.row_security_forced {
        drafts.remove(step("NO FORCE", Risk::MayBlock));
    }
}

/// What row security on a tenant's table does not do.
fn advise(context: &Context<'_>, relation: &Relation, detail: &TableDetail, name: &str, drafts: &mut Drafts) {
    let subject = format!("table {name}");
    for policy in &detail.policies {
        // The usual slip: no tenant set, or one that cannot be read, means every tenant.
        let lower = policy.expressions.to_lowercase();
        if lower.contains("current_setting") && (lower.contains("is null") || lower.contains("= ''")) {
            let message = text::access::POLICY_FAILS_OPEN.with("policy", &policy.name).with("table", name);
            drafts.find(Finding::new(Severity::Warning, &subject, message));
        }
        for routine in context.observed.routines.iter().filter(|r| policy.routines.contains(&r.oid)) {
            helper(context, relation, routine, name, drafts);
        }
    }
    for view in detail.views.iter().filter(|view| !view.security_invoker) {
        let view = quote::qualified(&view.schema, &view.name);
        let message = text::access::VIEW_BYPASSES.with("view", &view).with("table", name);
        drafts.find(Finding::new(Severity::Warning, format!("view {view}"), message));
    }
    newly_bound(context, relation, name, drafts);
}

/// Said once for each owner, however many tables there are.
fn unbound_owners(context: &Context<'_>, unbound: &BTreeMap<Oid, Vec<String>>, drafts: &mut Drafts) {
    for (owner, tables) in unbound {
        let owner = context.name(*owner);
        let message = text::access::OWNER_BYPASSES.with("owner", &owner).with("tables", tables.join(", "));
        drafts.find(Finding::new(Severity::Note, format!("role {owner}"), message));
    }
}

/// An application that worked as a superuser saw every row; as a role of its own it will not.
fn newly_bound(context: &Context<'_>, relation: &Relation, name: &str, drafts: &mut Drafts) {
    let Some((_, managed)) = context.schema_of(relation.schema) else { return };
    for role in managed.levels.keys().filter(|role| context.role(**role).is_none()) {
        if *role != crate::acl::PUBLIC_OID {
            let message = text::access::ROWS_BIND.with("role", context.name(*role)).with("table", name);
            drafts.find(Finding::new(Severity::Note, format!("table {name}"), message));
        }
    }
}

/// Whoever reads the table calls its policies' routines, and needs EXECUTE on them.
fn helper(
    context: &Context<'_>,
    relation: &Relation,
    routine: &crate::observe::Routine,
    table: &str,
    drafts: &mut Drafts,
) {
    let Some((_, tables)) = context.schema_of(relation.schema) else { return };
    let Some((at, routines)) = context.schema_of(routine.schema) else { return };
    let mut wishes = Wishes::new(context);
    let wish = wishes.routine(at, routine);
    let mut callers = wishes.get(wish).whole.clone();
    if context.mode() != Mode::Authoritative {
        let acl = context.acl(routine.acl, Kind::Routine, routine.owner);
        callers.extend(acl.iter().map(|item| (item.grantee, item.held)));
    }
    let may_call = |role: Oid| {
        role == routine.owner
            || callers.get(&role).is_some_and(|held| held.privileges.contains(Privileges::EXECUTE))
    };
    for (role, level) in &tables.levels {
        if !level.tables.is_empty() && !may_call(*role) && !may_call(crate::acl::PUBLIC_OID) {
            let call = format!("{}({})", quote::qualified(routines.name, &routine.name), routine.arguments);
            let role = context.name(*role);
            let message = text::access::HELPER_UNCALLABLE
                .with("role", &role)
                .with("routine", &call)
                .with("table", table);
            drafts.find(Finding::new(Severity::Warning, format!("function {call}"), message));
        }
    }
}
