//! Partitions, which share the exceptions of the table that they are part of.
//!
//! A line for one table holds for its partitions as well, unless one has a line of its own. A
//! partition whose privileges differ from its parent's needs such a line.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::exceptions::{ColumnGrants, sensitive_as_list, spoken};
use super::scope::{Place, Scope};
use super::shelf::{Alike, Bucket, Object, Shelf};
use super::universe::table_path;
use crate::acl::PUBLIC_OID;
use crate::observe::Oid;
use crate::pattern::{Pattern, Subject};
use crate::policy::{PUBLIC, Policy};

/// A table among its relatives.
type Found<'s, 'a> = (Place<'a>, &'s Alike<'a>, Object<'a>);

/// Adds the lines that partitions need. The answer names the partitions that cannot have one.
pub(super) fn write<'a>(
    scope: &Scope<'a>,
    shelves: &[Shelf<'a>],
    columns: &ColumnGrants<'a>,
    policy: &mut Policy,
) -> Vec<String> {
    let parents = &scope.observed.parents;
    if parents.is_empty() {
        return Vec::new();
    }
    let relatives: BTreeSet<Oid> = parents.iter().flat_map(|(child, parent)| [*child, *parent]).collect();
    let mut found: HashMap<Oid, Found<'_, 'a>> = HashMap::new();
    for shelf in shelves {
        for alike in shelf.groups.iter().filter(|group| group.bucket == Bucket::Tables) {
            let objects = alike.objects.iter().filter(|object| relatives.contains(&object.oid));
            found.extend(objects.map(|object| (object.oid, (shelf.place, alike, *object))));
        }
    }
    let mut unnamed = Vec::new();
    for child in parents_first(parents) {
        let Some((place, alike, object)) = found.get(&child) else { continue };
        let own = lines(*place, object.name, policy);
        let Some(inherited) = own.is_empty().then(|| inherited(child, parents, &found, policy)) else {
            continue;
        };
        let grants = columns.get(&child).map_or(&[][..], Vec::as_slice);
        let actual = |role: &String| match oid(scope, role) {
            Some(grantee) if grantee != alike.owner => Some(spoken(alike, grants, grantee)),
            _ => None,
        };
        let same = inherited.iter().all(|(role, list)| actual(role).is_none_or(|actual| actual == *list));
        if same {
            continue;
        }
        let pattern = table(*place, object.name);
        if pattern.is_exact() && Pattern::parse(&pattern.to_string()) == Some(pattern.clone()) {
            let line = inherited.keys().map(|role| (role.clone(), actual(role).unwrap_or_default()));
            policy.objects.insert(pattern.to_string(), line.collect());
        } else {
            unnamed.push(pattern.to_string());
        }
    }
    unnamed
}

fn oid(scope: &Scope<'_>, role: &str) -> Option<Oid> {
    if role == PUBLIC { Some(PUBLIC_OID) } else { scope.observed.role(role).map(|role| role.oid) }
}

fn table(place: Place<'_>, name: &str) -> Pattern {
    let (schema, name) = (place.logical.to_owned(), name.to_owned());
    Pattern { subject: Subject::Table, schema, name, arguments: None }
}

/// What the lines for exactly this table say, role by role.
fn lines(place: Place<'_>, name: &str, policy: &Policy) -> BTreeMap<String, Vec<String>> {
    let pattern = table(place, name);
    let exact = policy.objects.get(&pattern.to_string()).filter(|_| pattern.is_exact());
    let mut lines = exact.cloned().unwrap_or_default();
    let sensitive = table_path(place.logical, name).and_then(|path| policy.sensitive.get(&path));
    for (role, columns) in sensitive.into_iter().flatten() {
        lines.insert(role.clone(), sensitive_as_list(columns));
    }
    lines
}

/// What the nearest ancestor with a line says.
fn inherited(
    child: Oid,
    parents: &HashMap<Oid, Oid>,
    found: &HashMap<Oid, Found<'_, '_>>,
    policy: &Policy,
) -> BTreeMap<String, Vec<String>> {
    let mut next = parents.get(&child);
    while let Some((place, _, object)) = next.and_then(|parent| found.get(parent)) {
        let lines = lines(*place, object.name, policy);
        if !lines.is_empty() {
            return lines;
        }
        next = parents.get(&object.oid);
    }
    BTreeMap::new()
}

/// The children, each after its own parent.
fn parents_first(parents: &HashMap<Oid, Oid>) -> Vec<Oid> {
    let depth = |child: &Oid| {
        let mut depth = 0;
        let mut next = parents.get(child);
        while let Some(parent) = next {
            depth += 1;
            next = parents.get(parent);
        }
        depth
    };
    let mut children: Vec<(usize, Oid)> = parents.keys().map(|child| (depth(child), *child)).collect();
    children.sort_unstable();
    children.into_iter().map(|(_, child)| child).collect()
}
