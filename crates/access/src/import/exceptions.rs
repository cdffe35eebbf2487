//! Where single objects differ from the rule of their schema: the sections `objects` and `sensitive`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::content::is_left_alone;
use super::held::{held, words};
use super::levels::Contents;
use super::scope::Scope;
use super::shelf::{Alike, Bucket, Object, Shelf};
use super::universe::{Universe, table_path};
use crate::observe::Oid;
use crate::policy::Policy;
use crate::privilege::{Held, Kind, Privileges};
use crate::quote::written;

/// More tables than this with the same columns are written as patterns under `objects`.
const SENSITIVE_TABLES_ALIKE_MAX: usize = 8;

/// One privilege on some columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct OnColumns<'a> {
    privilege: Privileges,
    grantable: bool,
    columns: Vec<&'a str>,
}

/// What one grantee holds on an object, where it is not the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Exception<'a> {
    held: Held,
    on_columns: Vec<OnColumns<'a>>,
}

/// All exceptions of one object. Objects with equal ones share a line where their names allow it.
type Signature<'a> = Vec<(&'a str, Exception<'a>)>;

/// The objects with one signature.
type Members<'a> = Vec<(Bucket, Object<'a>)>;

/// Writes the exceptions of a schema into the policy. The answer names the objects of which no
/// pattern speaks.
pub(super) fn write<'a>(
    scope: &Scope<'a>,
    shelf: &Shelf<'a>,
    contents: &Contents,
    columns: &ColumnGrants<'a>,
    policy: &mut Policy,
) -> Vec<String> {
    let mut groups: BTreeMap<(Kind, Signature<'_>), Members<'_>> = BTreeMap::new();
    for alike in &shelf.groups {
        let plain = deviations(scope, alike, contents);
        for object in &alike.objects {
            let signature = match columns.get(&object.oid) {
                Some(grants) => with_columns(scope, alike, contents, &plain, grants),
                None => plain.clone(),
            };
            if !signature.is_empty() {
                let members = groups.entry((alike.bucket.kind(), signature)).or_default();
                members.push((alike.bucket, *object));
            }
        }
    }
    let groups = take_sensitive(shelf, groups, policy);
    let mut universe = Universe::new(shelf);
    let mut unnamed = Vec::new();
    for ((kind, signature), members) in &groups {
        let entry = entry(signature, *kind);
        let named = universe.name(members);
        policy.objects.extend(named.patterns.into_iter().map(|pattern| (pattern, entry.clone())));
        unnamed.extend(named.unnamed);
    }
    unnamed
}

/// What grantees hold on these objects that is not the rule of the schema.
fn deviations<'a>(scope: &Scope<'a>, alike: &Alike<'a>, contents: &Contents) -> Signature<'a> {
    let held: HashMap<Oid, Held> = alike.held.iter().copied().collect();
    let grantees: BTreeSet<Oid> = contents.keys().chain(held.keys()).copied().collect();
    let mut signature: Signature<'a> = grantees
        .into_iter()
        .filter(|grantee| *grantee != alike.owner && !is_left_alone(alike.bucket, *grantee))
        .filter_map(|grantee| {
            let here = held.get(&grantee).copied().unwrap_or_default();
            let rule = contents.get(&grantee).map(|c| c.sure(alike.bucket)).unwrap_or_default();
            let name = scope.grantee(grantee)?;
            (here != rule).then(|| (name, Exception { held: here, on_columns: Vec::new() }))
        })
        .collect();
    signature.sort_unstable();
    signature
}

/// What one grantee holds on one column.
pub(super) type OnColumn<'a> = (Oid, Held, &'a str);

/// What is granted on columns, by relation.
pub(super) type ColumnGrants<'a> = HashMap<Oid, Vec<OnColumn<'a>>>;

/// The columns of each relation on which something is granted.
pub(super) fn column_grants<'a>(scope: &Scope<'a>) -> ColumnGrants<'a> {
    let mut grants = ColumnGrants::new();
    for column in &scope.observed.columns {
        // Whose the table is, is seen later.
        for (grantee, held) in held(scope.observed, column.acl, Kind::Column, Oid::MAX) {
            grants.entry(column.relation).or_default().push((grantee, held, &column.name));
        }
    }
    grants
}

/// The exceptions of an object that also has grants on columns.
fn with_columns<'a>(
    scope: &Scope<'a>,
    alike: &Alike<'a>,
    contents: &Contents,
    plain: &Signature<'a>,
    grants: &[OnColumn<'a>],
) -> Signature<'a> {
    let mut exceptions: BTreeMap<&'a str, Exception<'a>> = plain.iter().cloned().collect();
    let grantees: BTreeSet<Oid> = grants.iter().map(|grant| grant.0).filter(|g| *g != alike.owner).collect();
    for grantee in grantees {
        let Some(name) = scope.grantee(grantee) else { continue };
        let rule = contents.get(&grantee).map(|c| c.sure(alike.bucket)).unwrap_or_default();
        let exception =
            exceptions.entry(name).or_insert_with(|| Exception { held: rule, on_columns: Vec::new() });
        exception.on_columns = on_columns(grants, grantee);
    }
    exceptions.into_iter().collect()
}

/// What a grantee holds on columns, privilege by privilege.
fn on_columns<'a>(grants: &[OnColumn<'a>], grantee: Oid) -> Vec<OnColumns<'a>> {
    let mut all: BTreeMap<(Privileges, bool), Vec<&'a str>> = BTreeMap::new();
    for (_, held, column) in grants.iter().filter(|grant| grant.0 == grantee) {
        for privilege in held.privileges.each() {
            all.entry((privilege, held.grantable.contains(privilege))).or_default().push(column);
        }
    }
    let sorted = |((privilege, grantable), mut columns): (_, Vec<&'a str>)| {
        columns.sort_unstable();
        OnColumns { privilege, grantable, columns }
    };
    all.into_iter().map(sorted).collect()
}

/// What a grantee holds on an object, as a line of the strategy says it.
pub(super) fn spoken(alike: &Alike<'_>, grants: &[OnColumn<'_>], grantee: Oid) -> Vec<String> {
    let held = alike.held.iter().find(|(other, _)| *other == grantee).map(|(_, held)| *held);
    let exception = Exception { held: held.unwrap_or_default(), on_columns: on_columns(grants, grantee) };
    list(&exception, alike.bucket.kind())
}

/// The columns, where the only thing that a grantee may do with a table is to read some of them.
fn sensitive<'a, 'b>(exception: &'b Exception<'a>) -> Option<&'b [&'a str]> {
    match exception.on_columns.as_slice() {
        [only] if exception.held.is_empty() && only.privilege == Privileges::SELECT && !only.grantable => {
            Some(&only.columns)
        }
        _ => None,
    }
}

/// Moves grantees that may read some columns and nothing else to the section `sensitive`.
fn take_sensitive<'a>(
    shelf: &Shelf<'_>,
    groups: BTreeMap<(Kind, Signature<'a>), Members<'a>>,
    policy: &mut Policy,
) -> BTreeMap<(Kind, Signature<'a>), Members<'a>> {
    let mut left: BTreeMap<(Kind, Signature<'a>), Members<'a>> = BTreeMap::new();
    for ((kind, signature), members) in groups {
        let few = members.len() <= SENSITIVE_TABLES_ALIKE_MAX;
        let tables = members.iter().all(|(bucket, object)| {
            *bucket == Bucket::Tables && table_path(shelf.place.logical, object.name).is_some()
        });
        let (reading, other): (Signature<'a>, Signature<'a>) =
            signature.into_iter().partition(|(_, e)| few && tables && sensitive(e).is_some());
        for (_, object) in members.iter().filter(|_| !reading.is_empty()) {
            let path = table_path(shelf.place.logical, object.name).unwrap_or_default();
            let roles = policy.sensitive.entry(path).or_default();
            for (role, exception) in &reading {
                let columns = sensitive(exception).unwrap_or_default();
                roles.insert((*role).to_owned(), columns.iter().map(|c| (*c).to_owned()).collect());
            }
        }
        if !other.is_empty() {
            left.entry((kind, other)).or_default().extend(members);
        }
    }
    left
}

/// The privileges of a line, role by role.
fn entry(signature: &Signature<'_>, kind: Kind) -> BTreeMap<String, Vec<String>> {
    signature.iter().map(|(role, exception)| ((*role).to_owned(), list(exception, kind))).collect()
}

fn list(exception: &Exception<'_>, kind: Kind) -> Vec<String> {
    let mut list = words(exception.held, kind);
    for on in &exception.on_columns {
        let columns: Vec<String> = on.columns.iter().map(|column| written(column)).collect();
        let option = if on.grantable { " WITH GRANT OPTION" } else { "" };
        list.push(format!("{} ({}){option}", on.privilege, columns.join(", ")));
    }
    list
}

/// A line of `sensitive` as `objects` would say it.
pub(super) fn sensitive_as_list(columns: &[String]) -> Vec<String> {
    if columns.is_empty() {
        return Vec::new();
    }
    let columns: Vec<String> = columns.iter().map(|column| written(column)).collect();
    vec![format!("SELECT ({})", columns.join(", "))]
}
