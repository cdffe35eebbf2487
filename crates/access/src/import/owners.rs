//! Who owns the schemas and their objects, in as few lines as possible.

use std::collections::{BTreeMap, HashSet};

use super::scope::Scope;
use super::shelf::{Bucket, Object, Shelf};
use super::universe::Universe;
use crate::observe::Oid;
use crate::policy::{Policy, SchemaPolicy};
use crate::privilege::Kind;

/// Writes the owners. The answer names the objects of which no pattern speaks.
///
/// The owner of a schema is declared only where the strategy can also say whose everything in it is:
/// an object of the bootstrap superuser among those of a declared owner would have to change hands.
pub(super) fn write(scope: &Scope<'_>, shelves: &[Shelf<'_>], policy: &mut Policy) -> Vec<String> {
    let follow = followers(scope);
    let mut unnamed = Vec::new();
    let mut by_schema: BTreeMap<&str, &str> = BTreeMap::new();
    for shelf in shelves {
        let declared = scope
            .role(shelf.place.schema.owner)
            .filter(|_| shelf.groups.iter().all(|group| scope.role(group.owner).is_some()));
        by_schema.extend(declared.map(|owner| (shelf.place.logical, owner)));
        let known = declared.map(|_| shelf.place.schema.owner);
        unnamed.extend(objects(scope, shelf, (known, &follow), policy));
    }
    let most = most_frequent(by_schema.values().copied());
    if by_schema.len() == shelves.len() {
        policy.owner = most.map(str::to_owned);
    }
    for (schema, owner) in by_schema {
        if policy.owner.as_deref() != Some(owner) {
            policy.schemas.insert(schema.to_owned(), SchemaPolicy { owner: Some(owner.to_owned()) });
        }
    }
    unnamed
}

/// Writes the objects whose owner is not the declared one of their schema.
fn objects<'a>(
    scope: &Scope<'a>,
    shelf: &Shelf<'a>,
    (declared, follow): (Option<Oid>, &HashSet<Oid>),
    policy: &mut Policy,
) -> Vec<String> {
    let mut by_owner: BTreeMap<(Kind, &str), Vec<(Bucket, Object<'a>)>> = BTreeMap::new();
    for group in shelf.groups.iter().filter(|group| Some(group.owner) != declared) {
        let Some(owner) = scope.role(group.owner) else { continue };
        let objects = group.objects.iter().filter(|object| !follow.contains(&object.oid));
        let members = by_owner.entry((group.bucket.kind(), owner)).or_default();
        members.extend(objects.map(|object| (group.bucket, *object)));
    }
    let mut universe = Universe::new(shelf);
    let mut unnamed = Vec::new();
    for ((_, owner), members) in by_owner.into_iter().filter(|(_, members)| !members.is_empty()) {
        let spoken = universe.name(&members);
        policy.owners.extend(spoken.patterns.into_iter().map(|pattern| (pattern, owner.to_owned())));
        unnamed.extend(spoken.unnamed);
    }
    unnamed
}

/// The sequences of columns, which belong to whom their table belongs.
fn followers(scope: &Scope<'_>) -> HashSet<Oid> {
    scope.observed.relations.iter().filter(|r| r.column_of.is_some()).map(|r| r.oid).collect()
}

fn most_frequent<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name)
}
