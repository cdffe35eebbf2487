//! Default privileges: where they follow from a level, the level says so; the others are listed.
//!
//! A level speaks of what the owner of its schema creates. What others create there, and what
//! holds in the whole database, has no level.

use std::collections::{BTreeMap, BTreeSet};

use super::content::Content;
use super::held::{held, words};
use super::levels::{Contents, Levels};
use super::scope::Scope;
use super::shelf::{Bucket, Shelf};
use crate::acl::PUBLIC_OID;
use crate::observe::{DefaultAcl, Oid};
use crate::policy::{DefaultKind, DefaultPrivilege, Future, PUBLIC, Policy};
use crate::privilege::{Held, Kind, Privileges};

/// The kinds of object that default privileges and levels both know.
const OF_LEVELS: [Bucket; 4] = [Bucket::Tables, Bucket::Sequences, Bucket::Routines, Bucket::Types];

/// What a grantee will hold on the new objects of a schema's owner, schema by schema.
pub(super) type Futures = Vec<BTreeMap<Oid, Content>>;

/// What the default privileges of the schemas' owners give, in the order of the shelves.
pub(super) fn futures(scope: &Scope<'_>, shelves: &[Shelf<'_>]) -> Futures {
    let mut futures: Futures = vec![BTreeMap::new(); shelves.len()];
    for default in &scope.observed.defaults {
        let Some(at) = followed(shelves, default) else { continue };
        for (grantee, held) in held_by(scope, default) {
            let content = futures[at].entry(grantee).or_insert_with(closed);
            if let Some(bucket) = bucket(default.kind) {
                content.set(bucket, held);
            }
        }
    }
    futures
}

/// Nothing on anything new.
fn closed() -> Content {
    let mut content = Content::default();
    for bucket in OF_LEVELS {
        content.set(bucket, Held::default());
    }
    content
}

/// Where a schema has no object of a kind, what the next one will give decides.
pub(super) fn fill(contents: &mut [Contents], futures: &Futures) {
    for (contents, futures) in contents.iter_mut().zip(futures) {
        for (grantee, future) in futures {
            let Some(content) = contents.get_mut(grantee) else { continue };
            for bucket in OF_LEVELS {
                if content.get(bucket).is_none() {
                    content.set(bucket, future.sure(bucket));
                }
            }
        }
    }
}

/// Writes for each grantee of a level whether it holds for objects to come.
pub(super) fn write_futures(
    scope: &Scope<'_>,
    shelves: &[Shelf<'_>],
    (contents, futures): (&[Contents], &Futures),
    levels: &mut Levels,
    policy: &mut Policy,
) {
    let mut grantees: BTreeSet<Oid> = contents.iter().flat_map(|c| c.keys().copied()).collect();
    grantees.extend(futures.iter().flat_map(|f| f.keys().copied()));
    for grantee in grantees {
        let Some(name) = scope.grantee(grantee) else { continue };
        let mut all_follow = true;
        let mut by_schema = BTreeMap::new();
        for (at, shelf) in shelves.iter().enumerate() {
            let future = futures[at].get(&grantee).copied().unwrap_or_else(closed);
            let level = contents[at].get(&grantee).and_then(|content| levels.level(content)).cloned();
            let follows = level.as_ref().is_some_and(|(_, level)| same_future(level, &future));
            all_follow &= follows || (level.is_none() && future.is_empty());
            if !future.is_empty() {
                let level = match level.filter(|_| follows) {
                    Some((level, _)) => level,
                    None => levels.for_future(&future, policy),
                };
                by_schema.insert(shelf.place.logical.to_owned(), level);
            }
        }
        if !all_follow {
            let role = policy.roles.entry(name.to_owned()).or_default();
            role.future = if by_schema.is_empty() { Future::Deny } else { Future::Levels(by_schema) };
        }
    }
}

/// Whether a level gives exactly this on new objects.
pub(super) fn same_future(level: &Content, future: &Content) -> bool {
    OF_LEVELS.into_iter().all(|bucket| level.sure(bucket) == future.sure(bucket))
}

/// Privileges that a creator gives to some roles in one schema or everywhere.
type Given<'a> = (&'a str, Option<&'a str>, DefaultKind, Vec<String>);

/// Lists the default privileges that follow from no level.
pub(super) fn write_others(scope: &Scope<'_>, shelves: &[Shelf<'_>], policy: &mut Policy) {
    let mut given: BTreeMap<Given<'_>, BTreeSet<&str>> = BTreeMap::new();
    let owners: BTreeSet<&str> = policy.declared_owners().collect();
    let mut stored: BTreeSet<&str> = BTreeSet::new();
    for default in &scope.observed.defaults {
        let schema = match default.schema.map(|schema| scope.place(schema)) {
            None => None,
            Some(Some(place)) => Some(place.logical),
            Some(None) => continue,
        };
        let Some(creator) = creator(scope, default, schema) else { continue };
        if schema.is_none() && default.kind == DefaultKind::Routines {
            stored.insert(creator);
        }
        if followed(shelves, default).is_some() {
            continue;
        }
        for (grantee, held) in held_by(scope, default) {
            let untouched = schema.is_none() && default.kind == DefaultKind::Types && grantee == PUBLIC_OID;
            if let Some(grantee) = scope.grantee(grantee).filter(|_| !untouched) {
                let key = (creator, schema, default.kind, words(held, kind(default.kind)));
                given.entry(key).or_default().insert(grantee);
            }
        }
    }
    // An owner's new routines are closed to PUBLIC unless the strategy says that they are not.
    for owner in owners.into_iter().filter(|owner| !stored.contains(owner)) {
        let execute = words(Held::plain(Privileges::EXECUTE), Kind::Routine);
        given.entry((owner, None, DefaultKind::Routines, execute)).or_default().insert(PUBLIC);
    }
    let given =
        given.into_iter().map(|((c, s, k, w), to)| (c.to_owned(), s.map(str::to_owned), k, w, own(&to)));
    policy.default_privileges = joined(given.collect());
}

fn own(names: &BTreeSet<&str>) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The name of a creator that a list may speak of. In a schema, anybody's list is compared; one
/// for the whole database, only a declared role's.
fn creator<'a>(scope: &Scope<'a>, default: &DefaultAcl, schema: Option<&str>) -> Option<&'a str> {
    match schema {
        None => scope.role(default.creator),
        Some(_) => scope.any_role(default.creator),
    }
}

type Row = (String, Option<String>, DefaultKind, Vec<String>, Vec<String>);

/// Rows that differ in the schema only become one entry; entries that differ in the creator only, too.
fn joined(rows: Vec<Row>) -> Vec<DefaultPrivilege> {
    let mut by_schemas: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (creator, schema, on, privileges, to) in rows {
        let key = (on, privileges, to, creator, schema.is_some());
        by_schemas.entry(key).or_default().extend(schema);
    }
    let mut by_creators: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for ((on, privileges, to, creator, _), schemas) in by_schemas {
        by_creators.entry((on, schemas, privileges, to)).or_default().push(creator);
    }
    let entry = |((on, schemas, privileges, to), creators)| DefaultPrivilege {
        creators,
        schemas: BTreeSet::into_iter(schemas).collect(),
        on,
        to,
        privileges,
    };
    by_creators.into_iter().map(entry).collect()
}

/// The shelf of a list that levels follow: one of the schema's owner.
fn followed(shelves: &[Shelf<'_>], default: &DefaultAcl) -> Option<usize> {
    let schema = default.schema?;
    shelves.iter().position(|s| s.place.schema.oid == schema && s.place.schema.owner == default.creator)
}

/// What a list gives to others than its creator.
fn held_by(scope: &Scope<'_>, default: &DefaultAcl) -> Vec<(Oid, Held)> {
    held(scope.observed, default.acl, kind(default.kind), default.creator)
}

fn bucket(kind: DefaultKind) -> Option<Bucket> {
    Some(match kind {
        DefaultKind::Tables => Bucket::Tables,
        DefaultKind::Sequences => Bucket::Sequences,
        DefaultKind::Routines => Bucket::Routines,
        DefaultKind::Types => Bucket::Types,
        DefaultKind::Schemas => return None,
    })
}

fn kind(kind: DefaultKind) -> Kind {
    bucket(kind).map_or(Kind::Schema, Bucket::kind)
}
