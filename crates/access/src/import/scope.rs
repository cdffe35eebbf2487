//! Who and what an import speaks of: the target's schemas under the strategy's names, and the
//! roles that this database uses.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::held::held;
use crate::acl::PUBLIC_OID;
use crate::observe::{Observed, Oid, Role, Schema};
use crate::policy::PUBLIC;
use crate::privilege::{Kind, Privileges};
use crate::target::{Target, is_protected};

/// The superuser that `initdb` made. It needs no privilege, and nobody may take one from it.
pub(super) const BOOTSTRAP: Oid = 10;

/// A schema under its name in the strategy.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub schema: &'a Schema,
    pub logical: &'a str,
}

/// The schemas and roles that are written.
pub(super) struct Scope<'a> {
    pub observed: &'a Observed,
    pub places: Vec<Place<'a>>,
    roles: HashMap<Oid, &'a Role>,
    used: HashSet<Oid>,
}

impl<'a> Scope<'a> {
    pub fn new(observed: &'a Observed, target: &'a Target) -> Self {
        let mut scope = Scope {
            observed,
            places: places(observed, target),
            roles: observed.roles.iter().map(|role| (role.oid, role)).collect(),
            used: HashSet::new(),
        };
        scope.used = scope.with_relatives(scope.named_here());
        scope
    }

    /// The roles that are written, by name.
    pub fn written(&self) -> impl Iterator<Item = &'a Role> {
        self.observed.roles.iter().filter(|role| self.used.contains(&role.oid) && is_speakable(role))
    }

    /// The name under which the strategy speaks of a grantee; `None` for one that it cannot declare.
    pub fn grantee(&self, oid: Oid) -> Option<&'a str> {
        if oid == PUBLIC_OID { Some(PUBLIC) } else { self.role(oid) }
    }

    /// The name of a written role.
    pub fn role(&self, oid: Oid) -> Option<&'a str> {
        self.roles
            .get(&oid)
            .filter(|role| self.used.contains(&oid) && is_speakable(role))
            .map(|r| r.name.as_str())
    }

    /// The name of a role, whether it is written or not; `None` for one that is lost.
    pub fn any_role(&self, oid: Oid) -> Option<&'a str> {
        self.roles.get(&oid).map(|role| role.name.as_str())
    }

    /// The roles that this database uses and that no strategy declares.
    pub fn unspoken(&self) -> BTreeSet<&'a str> {
        let roles = self.used.iter().filter_map(|oid| self.roles.get(oid));
        roles
            .filter(|role| !is_speakable(role) && !role.name.starts_with("pg_"))
            .map(|r| r.name.as_str())
            .collect()
    }

    /// The place of a schema.
    pub fn place(&self, schema: Oid) -> Option<Place<'a>> {
        self.places.iter().find(|place| place.schema.oid == schema).copied()
    }

    /// The roles that own, are granted, create for others, have settings or may connect here.
    fn named_here(&self) -> HashSet<Oid> {
        let observed = self.observed;
        let mut lists = vec![(observed.database.acl, Kind::Database)];
        let mut named = HashSet::from([observed.database.owner, observed.server.current_role]);
        for place in &self.places {
            named.insert(place.schema.owner);
            lists.push((place.schema.acl, Kind::Schema));
        }
        let relations = observed.relations.iter().map(|o| (o.owner, o.acl, Kind::Table));
        let routines = observed.routines.iter().map(|o| (o.owner, o.acl, Kind::Routine));
        let types = observed.types.iter().map(|o| (o.owner, o.acl, Kind::Type));
        for (owner, acl, kind) in relations.chain(routines).chain(types) {
            named.insert(owner);
            lists.push((acl, kind));
        }
        lists.extend(observed.columns.iter().map(|column| (column.acl, Kind::Column)));
        for default in observed.defaults.iter().filter(|d| d.schema.is_none_or(|s| self.place(s).is_some())) {
            named.insert(default.creator);
            lists.push((default.acl, Kind::Table));
        }
        lists.sort_unstable();
        lists.dedup();
        for (acl, kind) in lists {
            named.extend(held(observed, acl, kind, PUBLIC_OID).into_iter().map(|(grantee, _)| grantee));
        }
        named.extend(observed.role_settings.iter().filter(|s| s.here_only).map(|s| s.role));
        let open = held(observed, observed.database.acl, Kind::Database, observed.database.owner)
            .iter()
            .any(|(grantee, held)| *grantee == PUBLIC_OID && held.privileges.contains(Privileges::CONNECT));
        named.extend(observed.roles.iter().filter(|r| r.login && (open || r.superuser)).map(|r| r.oid));
        named
    }

    /// These roles, their members and what they are members of, and so on.
    fn with_relatives(&self, mut used: HashSet<Oid>) -> HashSet<Oid> {
        let mut beside: HashMap<Oid, Vec<Oid>> = HashMap::new();
        let speakable = |oid: Oid| self.roles.get(&oid).is_some_and(|role| is_speakable(role));
        for edge in self.observed.memberships.iter().filter(|m| speakable(m.role) && speakable(m.member)) {
            beside.entry(edge.role).or_default().push(edge.member);
            beside.entry(edge.member).or_default().push(edge.role);
        }
        let mut open: Vec<Oid> = used.iter().copied().collect();
        while let Some(next) = open.pop() {
            open.extend(beside.get(&next).into_iter().flatten().filter(|oid| used.insert(**oid)));
        }
        used
    }
}

/// Whether a strategy may declare the role.
fn is_speakable(role: &Role) -> bool {
    role.oid != BOOTSTRAP && !is_protected(&role.name) && role.name != PUBLIC
}

/// The schemas of the target that exist here, those of extensions apart.
fn places<'a>(observed: &'a Observed, target: &'a Target) -> Vec<Place<'a>> {
    if target.schemas.is_empty() {
        let own = observed.schemas.iter().filter(|schema| !schema.of_extension);
        return own.map(|schema| Place { schema, logical: &schema.name }).collect();
    }
    let mut seen = HashSet::new();
    let named = target
        .schemas
        .iter()
        .filter_map(|(logical, real)| observed.schema(real).map(|schema| Place { schema, logical }));
    named.filter(|place| seen.insert(place.schema.oid)).collect()
}
