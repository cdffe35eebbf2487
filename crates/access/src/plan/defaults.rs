//! Default privileges: what roles receive on objects that are yet to be created.
//!
//! A list for the whole database replaces PostgreSQL's own default; a list for a schema comes on
//! top of it. Taking EXECUTE from PUBLIC therefore works for the whole database only.

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Finding, Severity, text};

use super::context::{Context, Level, held};
use super::diff::{Actual, Desired, Difference};
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::acl::AclId;
use crate::observe::Oid;
use crate::policy::{DefaultKind, Mode};
use crate::privilege::{Held, Kind, Privileges};
use crate::quote::ident;

/// Whose new objects, in which schema, of which kind.
type Scope<'a> = (Oid, Option<&'a str>, DefaultKind);

/// Plans the default privileges.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts) {
    unknown_creators(context, drafts);
    let desired = desired(context);
    let stored = stored(context);
    let scopes: BTreeSet<Scope<'_>> = desired.keys().chain(stored.keys()).copied().collect();
    let nothing = Desired::new();
    for scope in scopes {
        let wanted = desired.get(&scope).unwrap_or(&nothing);
        let (creator, schema, kind) = scope;
        let acl = match stored.get(&scope) {
            Some(id) => context.observed.acl(*id).unwrap_or_default().to_vec(),
            None if schema.is_none() => super::context::default_acl(object_kind(kind), creator),
            None => Vec::new(),
        };
        let public_untouched = match (schema, kind) {
            (None, DefaultKind::Types) => Privileges::USAGE,
            _ => Privileges::NONE,
        };
        let actual = Actual { acl: &acl, owner: creator, public_untouched, of_table: None };
        steps(context, scope, context.difference(wanted, &actual), drafts);
    }
}

/// A creator need not be declared, but it must exist.
fn unknown_creators(context: &Context<'_>, drafts: &mut Drafts) {
    let creators: BTreeSet<&String> =
        context.policy.default_privileges.iter().flat_map(|entry| &entry.creators).collect();
    for creator in creators.into_iter().filter(|creator| context.oid(creator).is_none()) {
        let message = text::access::CREATOR_UNKNOWN.with("creator", creator);
        drafts.find(Finding::new(Severity::Error, format!("role {creator}"), message));
    }
}

pub(crate) fn object_kind(kind: DefaultKind) -> Kind {
    match kind {
        DefaultKind::Tables => Kind::Table,
        DefaultKind::Sequences => Kind::Sequence,
        DefaultKind::Routines => Kind::Routine,
        DefaultKind::Types => Kind::Type,
        DefaultKind::Schemas => Kind::Schema,
    }
}

/// What the policy wants: the levels for objects to come, and the entries that follow from none.
fn desired<'a>(context: &Context<'a>) -> BTreeMap<Scope<'a>, Desired> {
    let mut desired: BTreeMap<Scope<'a>, Desired> = BTreeMap::new();
    // PUBLIC may call no new routine of an owner, unless an entry below gives it back.
    for owner in &context.owners {
        desired.entry((*owner, None, DefaultKind::Routines)).or_default();
    }
    let mut want = |scope, role: Oid, held: Held| {
        if !held.is_empty() {
            let sum = desired.entry(scope).or_default().entry(role).or_default();
            *sum = sum.union(held);
        }
    };
    for (at, managed) in context.schemas.iter().enumerate() {
        for (role, level) in managed.future.iter().filter(|(role, _)| !stays_closed(context, at, **role)) {
            for (kind, held) in kinds(level) {
                want((managed.owner, Some(managed.name), kind), *role, held);
            }
        }
    }
    for entry in &context.policy.default_privileges {
        let held = held(&entry.privileges, object_kind(entry.on));
        let schemas: Vec<Option<&'a str>> = match entry.schemas.is_empty() {
            true => vec![None],
            false => entry.schemas.iter().filter_map(|s| Some(Some(context.schema_named(s)?.name))).collect(),
        };
        for creator in entry.creators.iter().filter_map(|c| context.oid(c)) {
            for schema in &schemas {
                for role in entry.to.iter().filter_map(|r| context.oid(r)) {
                    want((creator, *schema, entry.on), role, held);
                }
            }
        }
    }
    desired
}

fn kinds(level: &Level) -> [(DefaultKind, Held); 4] {
    [
        (DefaultKind::Tables, level.tables),
        (DefaultKind::Sequences, level.sequences),
        (DefaultKind::Routines, level.routines),
        (DefaultKind::Types, level.types),
    ]
}

/// Where nothing is ever revoked, a sensitive table that is dropped and created again would stay
/// open to whom default privileges open it. Such roles get theirs from the next apply instead.
fn stays_closed(context: &Context<'_>, schema: usize, role: Oid) -> bool {
    if context.mode() == Mode::Authoritative {
        return false;
    }
    let logical = &context.schemas[schema].logical;
    context.policy.sensitive.iter().any(|(table, roles)| {
        let here = crate::pattern::Pattern::table(table).is_some_and(|p| logical.contains(&&*p.schema));
        here && roles.keys().any(|name| context.oid(name) == Some(role))
    })
}

/// The stored lists that the policy has a say in: those of declared creators, and anybody's for
/// the managed schemas.
fn stored<'a>(context: &Context<'a>) -> BTreeMap<Scope<'a>, AclId> {
    let observed = context.observed;
    let mut stored = BTreeMap::new();
    for entry in &observed.defaults {
        if context.role(entry.creator).is_none() {
            continue;
        }
        let schema = match entry.schema {
            None if context.is_declared(entry.creator) => None,
            None => continue,
            Some(oid) => match context.schema_of(oid) {
                Some((_, managed)) => Some(managed.name),
                None => continue,
            },
        };
        stored.insert((entry.creator, schema, entry.kind), entry.acl);
    }
    stored
}

fn steps(context: &Context<'_>, scope: Scope<'_>, difference: Difference, drafts: &mut Drafts) {
    let (creator, schema, kind) = scope;
    let word = match kind {
        DefaultKind::Tables => "TABLES",
        DefaultKind::Sequences => "SEQUENCES",
        DefaultKind::Routines => "ROUTINES",
        DefaultKind::Types => "TYPES",
        DefaultKind::Schemas => "SCHEMAS",
    };
    let place = schema.map_or(String::new(), |schema| format!(" IN SCHEMA {}", ident(schema)));
    let alter = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{place}", context.grantee(creator));
    let subject = format!("default privileges {}", schema.unwrap_or("*"));
    let draft = |code: obyra_evidence::Code, role: Oid, privileges: String| {
        let reason = code
            .with("roles", context.name(role))
            .with("privileges", privileges)
            .with("kind", word)
            .with("creator", context.name(creator))
            .with("schema", schema.unwrap_or("*"));
        Step::new(Phase::Defaults, reason, &subject).acting_for(context.name(creator))
    };
    for excess in &difference.revokes {
        let from = context.grantee(excess.grantee);
        for (what, option) in excess.held.revokes() {
            let step = draft(text::access::DEFAULT_UNDECLARED, excess.grantee, what.to_string())
                .risk(Risk::RemovesAccess)
                .sql(format!("{alter} REVOKE {option}{what} ON {word} FROM {from}"));
            drafts.remove(step);
        }
    }
    for (grantee, held) in &difference.grants {
        let to = context.grantee(*grantee);
        for (what, option) in held.grants() {
            let step = draft(text::access::DEFAULT_MISSING, *grantee, what.to_string())
                .risk(Risk::AddsAccess)
                .sql(format!("{alter} GRANT {what} ON {word} TO {to}{option}"));
            drafts.add(step);
        }
    }
}
