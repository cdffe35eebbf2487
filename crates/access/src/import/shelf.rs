//! The objects of each schema, sorted by what they have in common.
//!
//! Thousands of objects share a few access control lists. What follows looks at each group
//! once, and at single objects only where they differ.

use std::collections::{BTreeMap, HashMap};

use super::held::held;
use super::scope::{Place, Scope};
use crate::acl::AclId;
use crate::observe::{Oid, RelationKind};
use crate::privilege::{Held, Kind};

/// The kinds of object that a level tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Bucket {
    Schema,
    Tables,
    Views,
    Sequences,
    Routines,
    Types,
}

impl Bucket {
    pub const ALL: [Bucket; 6] =
        [Bucket::Schema, Bucket::Tables, Bucket::Views, Bucket::Sequences, Bucket::Routines, Bucket::Types];

    pub fn kind(self) -> Kind {
        match self {
            Bucket::Schema => Kind::Schema,
            Bucket::Tables | Bucket::Views => Kind::Table,
            Bucket::Sequences => Kind::Sequence,
            Bucket::Routines => Kind::Routine,
            Bucket::Types => Kind::Type,
        }
    }
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    pub oid: Oid,
    pub name: &'a str,
    pub arguments: Option<&'a str>,
}

/// Objects of one schema that agree in kind, owner and privileges.
pub(super) struct Alike<'a> {
    pub bucket: Bucket,
    pub owner: Oid,
    pub held: Vec<(Oid, Held)>,
    pub objects: Vec<Object<'a>>,
}

/// A schema with its objects.
pub(super) struct Shelf<'a> {
    pub place: Place<'a>,
    pub groups: Vec<Alike<'a>>,
}

type Key = (Bucket, Oid, AclId);

/// Every schema of the scope with its objects, in the scope's order.
pub(super) fn shelves<'a>(scope: &Scope<'a>) -> Vec<Shelf<'a>> {
    let observed = scope.observed;
    let mut sorted: HashMap<Oid, BTreeMap<Key, Vec<Object<'a>>>> = HashMap::new();
    let mut add = |schema: Oid, key: Key, object: Object<'a>| {
        sorted.entry(schema).or_default().entry(key).or_default().push(object);
    };
    for relation in &observed.relations {
        let bucket = match relation.kind {
            RelationKind::Sequence => Bucket::Sequences,
            kind if kind.is_view() => Bucket::Views,
            _ => Bucket::Tables,
        };
        let object = Object { oid: relation.oid, name: &relation.name, arguments: None };
        add(relation.schema, (bucket, relation.owner, relation.acl), object);
    }
    for routine in &observed.routines {
        let object = Object { oid: routine.oid, name: &routine.name, arguments: Some(&routine.arguments) };
        add(routine.schema, (Bucket::Routines, routine.owner, routine.acl), object);
    }
    for kind in &observed.types {
        let object = Object { oid: kind.oid, name: &kind.name, arguments: None };
        add(kind.schema, (Bucket::Types, kind.owner, kind.acl), object);
    }
    let shelf = |place: &Place<'a>| {
        let groups = sorted.remove(&place.schema.oid).into_iter().flatten();
        let alike = |((bucket, owner, acl), objects)| Alike {
            bucket,
            owner,
            held: held(observed, acl, bucket.kind(), owner),
            objects,
        };
        Shelf { place: *place, groups: groups.map(alike).collect() }
    };
    scope.places.iter().map(shelf).collect()
}
