//! The difference between what roles should hold on an object and what its list says.

use std::collections::BTreeMap;

use super::context::Context;
use crate::acl::{AclItem, PUBLIC_OID};
use crate::observe::Oid;
use crate::privilege::{Held, Privileges};

/// What each role should hold on an object. The owner is not part of it.
pub(crate) type Desired = BTreeMap<Oid, Held>;

/// Privileges that one grantor gave and that should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Excess {
    pub(crate) grantee: Oid,
    pub(crate) grantor: Oid,
    pub(crate) held: Held,
    /// Whether the grantee passed them on, so that what depends on them goes too.
    pub(crate) cascade: bool,
}

/// What to grant and what to revoke.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Whether only the owner itself is sure to act as the owner: somebody else may grant on too,
    /// and for whoever is a member of both, PostgreSQL takes the first it finds as the grantor.
    pub(crate) as_owner: bool,
    pub(crate) grants: Vec<(Oid, Held)>,
    pub(crate) revokes: Vec<Excess>,
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.revokes.is_empty()
    }
}

/// One object's list, its owner, and what of PUBLIC's share nobody touches.
pub(crate) struct Actual<'a> {
    pub(crate) acl: &'a [AclItem],
    pub(crate) owner: Oid,
    pub(crate) public_untouched: Privileges,
    /// For a column: what roles should hold on its table. A grant option there holds for it too.
    pub(crate) of_table: Option<&'a Desired>,
}

impl Context<'_> {
    /// Compares. Entries of the owner are its own affair; so are those of exempt roles.
    pub(crate) fn difference(&self, desired: &Desired, actual: &Actual<'_>) -> Difference {
        let mut held: BTreeMap<Oid, Held> = BTreeMap::new();
        let mut revokes = Vec::new();
        for item in actual.acl.iter().filter(|item| item.grantee != actual.owner) {
            let wanted = desired.get(&item.grantee).copied().unwrap_or_default();
            let lasting = self.lasting(item, desired, actual);
            let sum = held.entry(item.grantee).or_default();
            *sum = sum.union(lasting);
            let excess = self.excess(item, lasting, wanted, actual.public_untouched);
            if !excess.is_empty() {
                let cascade = actual.acl.iter().any(|other| other.grantor == item.grantee);
                let AclItem { grantee, grantor, .. } = *item;
                revokes.push(Excess { grantee, grantor, held: excess, cascade });
            }
        }
        let mut grants: Vec<(Oid, Held)> = desired
            .iter()
            .filter(|(grantee, _)| **grantee != actual.owner)
            .map(|(grantee, wanted)| (*grantee, missing(self.givable(*wanted), held.get(grantee))))
            .filter(|(_, missing)| !missing.is_empty())
            .collect();
        // By name, so that the steps read well and do not depend on when a role was created.
        grants.sort_by_cached_key(|(grantee, _)| self.name(*grantee));
        revokes.sort_by_cached_key(|excess: &Excess| self.name(excess.grantee));
        let others = |i: &AclItem| i.grantee != actual.owner && !i.held.grantable.is_empty();
        let as_owner = !self.is_superuser() && actual.owner != self.me() && actual.acl.iter().any(others);
        Difference { as_owner, grants, revokes }
    }

    /// What this server can give of what is wanted: before PostgreSQL 17 nobody can MAINTAIN.
    fn givable(&self, wanted: Held) -> Held {
        let maintain = Held { privileges: Privileges::MAINTAIN, grantable: Privileges::MAINTAIN };
        if self.major() >= 17 { wanted } else { wanted.without(maintain) }
    }

    /// What an entry holds beyond what is wanted.
    fn excess(&self, item: &AclItem, lasting: Held, wanted: Held, untouched: Privileges) -> Held {
        if item.grantee == PUBLIC_OID {
            return Held::plain(lasting.privileges.without(wanted.privileges).without(untouched));
        }
        if self.is_exempt(item.grantee) { Held::default() } else { lasting.without(wanted) }
    }

    /// What of an entry will still stand once its grantor holds no more than it should: an entry
    /// whose grantor loses the grant option falls with it.
    fn lasting(&self, item: &AclItem, desired: &Desired, actual: &Actual<'_>) -> Held {
        if item.grantor == actual.owner || self.is_exempt(item.grantor) {
            return item.held;
        }
        let wishes = [Some(desired), actual.of_table].into_iter().flatten();
        let grantor =
            wishes.filter_map(|wish| wish.get(&item.grantor)).fold(Held::default(), |a, b| a.union(*b));
        let grantable = grantor.grantable;
        Held {
            privileges: item.held.privileges.and(grantable),
            grantable: item.held.grantable.and(grantable),
        }
    }
}

/// What has to be granted: a grant option that is missing brings its privilege along.
fn missing(wanted: Held, held: Option<&Held>) -> Held {
    wanted.without(held.copied().unwrap_or_default())
}

/// An object's list after its owner changed: PostgreSQL puts the new owner in the old one's place.
pub(crate) fn with_owner(acl: &[AclItem], old: Oid, new: Oid) -> Vec<AclItem> {
    let moved = |oid: Oid| if oid == old { new } else { oid };
    acl.iter()
        .map(|item| AclItem { grantee: moved(item.grantee), grantor: moved(item.grantor), held: item.held })
        .collect()
}
