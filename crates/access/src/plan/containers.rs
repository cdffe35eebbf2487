//! The database and its schemas: what contains the objects.

use std::collections::BTreeMap;

use obyra_evidence::{Finding, Severity, text};

use super::bulk::{as_grantor, cascading};
use super::context::{Context, Managed, held};
use super::diff::{Actual, Desired, Difference, with_owner};
use super::draft::Drafts;
use super::memberships::may_act_for;
use super::{Phase, Risk, Step};
use crate::acl::{AclItem, PUBLIC_OID};
use crate::observe::Oid;
use crate::policy::{Mode, PUBLIC};
use crate::privilege::{Held, Kind, Privileges};
use crate::quote::ident;

/// A container whose privileges are compared.
struct Container<'n> {
    phases: (Phase, Phase),
    /// `DATABASE x` or `SCHEMA x`.
    on: String,
    subject: String,
    owner: Oid,
    owner_name: &'n str,
}

/// Plans the privileges on the database.
pub(crate) fn database(context: &Context<'_>, drafts: &mut Drafts) {
    let database = &context.observed.database;
    let acl = context.acl(database.acl, Kind::Database, database.owner);
    let desired = database_wish(context, &acl);
    let actual =
        Actual { acl: &acl, owner: database.owner, public_untouched: Privileges::NONE, of_table: None };
    let difference = context.difference(&desired, &actual);
    locked_out(context, &difference, &desired, drafts);
    let container = Container {
        phases: (Phase::Database, Phase::Database),
        on: format!("DATABASE {}", ident(&database.name)),
        subject: format!("database {}", database.name),
        owner: database.owner,
        owner_name: &context.name(database.owner),
    };
    steps(context, &container, difference, drafts);
}

fn database_wish(context: &Context<'_>, acl: &[AclItem]) -> Desired {
    let mut desired = Desired::new();
    for (name, policy) in &context.policy.roles {
        let Some(oid) = context.oid(name) else { continue };
        let wanted = match &policy.database {
            Some(list) => held(list, Kind::Database),
            None if name == PUBLIC || context.is_superuser_admin(oid) => Held::default(),
            None if context.policy.may_login(name) => Held::plain(Privileges::CONNECT),
            None => Held::default(),
        };
        if !wanted.is_empty() {
            desired.insert(oid, wanted);
        }
    }
    // Whoever administers through PUBLIC's CONNECT must not lock itself out.
    let me = context.me();
    let public = desired.get(&PUBLIC_OID).copied().unwrap_or_default().privileges;
    let mine = acl.iter().any(|i| i.grantee == me && i.held.privileges.contains(Privileges::CONNECT));
    if !context.is_superuser() && !public.contains(Privileges::CONNECT) && !mine {
        let own = desired.entry(me).or_default();
        *own = own.union(Held::plain(Privileges::CONNECT));
    }
    desired
}

/// Names the roles that can only connect because everybody can.
fn locked_out(context: &Context<'_>, difference: &Difference, desired: &Desired, drafts: &mut Drafts) {
    let connect = |held: &Held| held.privileges.contains(Privileges::CONNECT);
    if !difference.revokes.iter().any(|e| e.grantee == PUBLIC_OID && connect(&e.held)) {
        return;
    }
    let loses = |oid: Oid, name: &str| {
        !context.is_exempt(oid) && !context.is_declared(oid) && !desired.get(&oid).is_some_and(connect) && {
            !crate::target::is_protected(name)
        }
    };
    let names: Vec<&str> = context
        .observed
        .roles
        .iter()
        .filter(|r| r.login && !r.superuser && loses(r.oid, &r.name))
        .map(|r| r.name.as_str())
        .collect();
    if !names.is_empty() {
        let message = text::access::LOCKED_OUT.with("roles", names.join(", "));
        let subject = format!("database {}", context.observed.database.name);
        drafts.find(Finding::new(Severity::Warning, subject, message));
    }
}

/// Plans the schemas: that they exist, whose they are, who may use them.
pub(crate) fn schemas(context: &Context<'_>, drafts: &mut Drafts) {
    for managed in &context.schemas {
        let owner = existence(context, managed, drafts);
        let acl = managed.found.map_or_else(Vec::new, |schema| {
            with_owner(&context.acl(schema.acl, Kind::Schema, schema.owner), schema.owner, owner)
        });
        let desired: Desired = managed
            .levels
            .iter()
            .filter(|(_, level)| !level.schema.is_empty())
            .map(|(role, level)| (*role, level.schema))
            .collect();
        // That everybody may look into `public` is how PostgreSQL is shipped; it gives nothing by itself.
        let public_untouched = if managed.name == "public" { Privileges::USAGE } else { Privileges::NONE };
        let difference =
            context.difference(&desired, &Actual { acl: &acl, owner, public_untouched, of_table: None });
        schema_steps(context, managed.name, owner, difference, drafts);
    }
    close_public(context, drafts);
}

/// Makes sure that a schema exists and belongs to whom it should. Returns its owner from then on.
fn existence(context: &Context<'_>, managed: &Managed<'_>, drafts: &mut Drafts) -> Oid {
    let owner = context.name(managed.owner);
    let subject = format!("schema {}", managed.name);
    let name = ident(managed.name);
    let Some(schema) = managed.found else {
        let reason = text::access::SCHEMA_MISSING.with("schema", managed.name);
        let step = Step::new(Phase::Schemas, reason, subject)
            .acting_for(&owner)
            .sql(format!("CREATE SCHEMA {name} AUTHORIZATION {}", ident(&owner)));
        drafts.add(step);
        return managed.owner;
    };
    if schema.of_extension || schema.owner == managed.owner {
        return schema.owner;
    }
    let old = context.name(schema.owner);
    let reason = text::access::OWNER_WRONG.with("objects", &subject).with("old", &old).with("new", &owner);
    let step = Step::new(Phase::Schemas, reason, subject)
        .risk(Risk::MayBlock)
        .acting_for(&old)
        .acting_for(&owner)
        .sql(format!("ALTER SCHEMA {name} OWNER TO {}", ident(&owner)));
    drafts.add(step);
    managed.owner
}

/// Nobody but its owner creates in `public`, whether the strategy uses the schema or not:
/// clusters from before PostgreSQL 15 leave it open to everybody.
fn close_public(context: &Context<'_>, drafts: &mut Drafts) {
    let Some(schema) = context.observed.schema("public") else { return };
    if context.schemas.iter().any(|managed| managed.name == "public") {
        return;
    }
    let acl = context.acl(schema.acl, Kind::Schema, schema.owner);
    let open: Vec<AclItem> = acl
        .into_iter()
        .filter(|item| item.grantee == PUBLIC_OID && item.held.privileges.contains(Privileges::CREATE))
        .collect();
    let actual =
        Actual { acl: &open, owner: schema.owner, public_untouched: Privileges::USAGE, of_table: None };
    let difference = context.difference(&BTreeMap::new(), &actual);
    if difference.revokes.is_empty() {
        return;
    }
    // Before PostgreSQL 15 it belongs to a superuser, even in a database that belongs to another:
    // an administrator who is none cannot close it, and everything else is worth doing all the same.
    if context.policy.mode == Mode::Authoritative && !may_act_for(context, schema.owner) {
        let message = text::access::PUBLIC_OPEN
            .with("admin", context.name(context.me()))
            .with("owner", context.name(schema.owner));
        let mend = text::access::MEND_RUN_AS_ADMIN.with("sql", "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        drafts.find(Finding::new(Severity::Error, "schema public", message).mended_by(mend));
        return;
    }
    schema_steps(context, "public", schema.owner, difference, drafts);
}

fn schema_steps(context: &Context<'_>, name: &str, owner: Oid, difference: Difference, drafts: &mut Drafts) {
    let container = Container {
        phases: (Phase::Revokes, Phase::Grants),
        on: format!("SCHEMA {}", ident(name)),
        subject: format!("schema {name}"),
        owner,
        owner_name: &context.name(owner),
    };
    steps(context, &container, difference, drafts);
}

fn steps(context: &Context<'_>, container: &Container<'_>, difference: Difference, drafts: &mut Drafts) {
    let Container { on, subject, .. } = container;
    let step = |phase, code: obyra_evidence::Code, role: Oid, what: String| {
        let reason = code.with("roles", context.name(role)).with("privileges", what).with("objects", subject);
        Step::new(phase, reason, subject).acting_for(container.owner_name)
    };
    let as_owner = difference.as_owner.then_some(container.owner);
    for excess in difference.revokes {
        let from = context.grantee(excess.grantee);
        for (what, option) in excess.held.revokes() {
            let statement = format!("REVOKE {option}{what} ON {on} FROM {from}{}", cascading(excess.cascade));
            let grantor = (excess.grantor != container.owner).then_some(excess.grantor).or(as_owner);
            let risk = if what.contains(Privileges::CONNECT) { Risk::MayBreak } else { Risk::RemovesAccess };
            let step =
                step(container.phases.0, text::access::REVOKE_OBJECTS, excess.grantee, what.to_string());
            drafts.remove(as_grantor(context, step.risk(risk), grantor, statement));
        }
    }
    for (grantee, held) in difference.grants {
        let to = context.grantee(grantee);
        for (what, option) in held.grants() {
            let step = step(container.phases.1, text::access::GRANT_OBJECTS, grantee, what.to_string());
            let statement = format!("GRANT {what} ON {on} TO {to}{option}");
            drafts.add(as_grantor(context, step.risk(Risk::AddsAccess), as_owner, statement));
        }
    }
}
