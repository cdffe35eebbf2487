//! Policy, target and database side by side: names resolved to numbers, schemas paired, levels read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::acl::{AclItem, PUBLIC_OID};
use crate::observe::{Observed, Oid, Role, Schema};
use crate::policy::{Mode, PUBLIC, Policy, Profile, RoleKind};
use crate::privilege::{Held, Kind, Wanted};
use crate::target::{Target, is_protected};

/// The number of the first role that does not exist yet.
const FIRST_ABSENT: Oid = Oid::MAX - (1 << 24);

/// A level of access with its privileges read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) schema: Held,
    pub(crate) tables: Held,
    pub(crate) views: Held,
    pub(crate) sequences: Held,
    pub(crate) routines: Held,
    pub(crate) types: Held,
}

impl Level {
    fn read(profile: &Profile) -> Level {
        let tables = held(&profile.tables, Kind::Table);
        Level {
            schema: held(&profile.schema, Kind::Schema),
            tables,
            views: profile.views.as_ref().map_or(tables, |list| held(list, Kind::Table)),
            sequences: held(&profile.sequences, Kind::Sequence),
            routines: held(&profile.routines, Kind::Routine),
            types: held(&profile.types, Kind::Type),
        }
    }

    fn union(self, other: Level) -> Level {
        Level {
            schema: self.schema.union(other.schema),
            tables: self.tables.union(other.tables),
            views: self.views.union(other.views),
            sequences: self.sequences.union(other.sequences),
            routines: self.routines.union(other.routines),
            types: self.types.union(other.types),
        }
    }
}

/// The privileges of a list without columns.
pub(crate) fn held(list: &[String], kind: Kind) -> Held {
    list.iter()
        .filter_map(|entry| Wanted::parse(entry, kind))
        .filter(|wanted| wanted.columns.is_empty())
        .fold(Held::default(), |sum, wanted| sum.union(wanted.held))
}

/// A schema that the policy and the target speak of.
pub(crate) struct Managed<'a> {
    /// The strategy's names of it.
    pub(crate) logical: Vec<&'a str>,
    /// Its name in the database.
    pub(crate) name: &'a str,
    /// The schema, if it exists.
    pub(crate) found: Option<&'a Schema>,
    /// Who should own it and its objects; its owner as it is, if the policy does not say.
    pub(crate) owner: Oid,
    /// Whether the policy says who owns it.
    pub(crate) owner_declared: bool,
    /// Each role's level.
    pub(crate) levels: BTreeMap<Oid, Level>,
    /// Each role's level for objects to come.
    pub(crate) future: BTreeMap<Oid, Level>,
}

/// Policy, target and database side by side.
pub(crate) struct Context<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) target: &'a Target,
    pub(crate) observed: &'a Observed,
    /// The schemas that are managed, by name.
    pub(crate) schemas: Vec<Managed<'a>>,
    /// The declared roles.
    pub(crate) declared: BTreeSet<Oid>,
    /// The declared roles that own schemas or objects.
    pub(crate) owners: BTreeSet<Oid>,
    superuser: bool,
    by_oid: HashMap<Oid, &'a Role>,
    names: HashMap<Oid, &'a str>,
    oids: HashMap<&'a str, Oid>,
    schema_at: HashMap<Oid, usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(policy: &'a Policy, target: &'a Target, observed: &'a Observed) -> Context<'a> {
        let mut oids: HashMap<&str, Oid> = observed.roles.iter().map(|r| (r.name.as_str(), r.oid)).collect();
        oids.insert(PUBLIC, PUBLIC_OID);
        // Roles that are yet to be created get numbers from the far end, which no catalogue reaches.
        let absent = policy.declared().filter(|name| observed.role(name).is_none());
        oids.extend(absent.zip(FIRST_ABSENT..));
        let numbers = |names: &mut dyn Iterator<Item = &str>| -> BTreeSet<Oid> {
            names.filter_map(|name| oids.get(name).copied()).collect()
        };
        let mut context = Context {
            policy,
            target,
            observed,
            schemas: Vec::new(),
            declared: numbers(&mut policy.declared()),
            owners: numbers(&mut policy.declared_owners()),
            superuser: observed.is_superuser(),
            by_oid: observed.roles.iter().map(|r| (r.oid, r)).collect(),
            names: oids.iter().map(|(name, oid)| (*oid, *name)).collect(),
            oids,
            schema_at: HashMap::new(),
        };
        context.schemas = context.pair_schemas();
        let found = context.schemas.iter().enumerate();
        context.schema_at = found.filter_map(|(at, s)| Some((s.found?.oid, at))).collect();
        context
    }

    fn pair_schemas(&self) -> Vec<Managed<'a>> {
        let mut by_name: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
        for (logical, real) in &self.target.schemas {
            by_name.entry(real).or_default().push(logical);
        }
        if self.target.schemas.is_empty() {
            let own = self.observed.schemas.iter().filter(|s| !s.of_extension);
            by_name.extend(own.map(|s| (s.name.as_str(), vec![s.name.as_str()])));
        }
        by_name.into_iter().filter_map(|(name, logical)| self.managed(name, logical)).collect()
    }

    /// One schema, or nothing when it neither exists nor has an owner to be created for.
    fn managed(&self, name: &'a str, logical: Vec<&'a str>) -> Option<Managed<'a>> {
        let found = self.observed.schema(name);
        let declared = logical.iter().find_map(|l| self.policy.owner_of_schema(l)).and_then(|o| self.oid(o));
        let owner = declared.or(found.map(|s| s.owner)).unwrap_or(self.observed.server.current_role);
        let (mut levels, mut future) = (BTreeMap::new(), BTreeMap::new());
        for (role, policy) in &self.policy.roles {
            let Some(oid) = self.oid(role) else { continue };
            for logical in &logical {
                let later = match &policy.future {
                    crate::policy::Future::Grant => policy.schemas.get(*logical),
                    crate::policy::Future::Deny => None,
                    crate::policy::Future::Levels(levels) => levels.get(*logical),
                };
                self.join(&mut levels, oid, policy.schemas.get(*logical));
                self.join(&mut future, oid, later);
            }
        }
        Some(Managed { logical, name, found, owner, owner_declared: declared.is_some(), levels, future })
    }

    fn join(&self, levels: &mut BTreeMap<Oid, Level>, role: Oid, name: Option<&String>) {
        if let Some(profile) = name.and_then(|name| self.policy.level(name)) {
            let level = levels.entry(role).or_default();
            *level = level.union(Level::read(&profile));
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.policy.mode
    }

    pub(crate) fn major(&self) -> u32 {
        self.observed.server.version.major()
    }

    /// The connected role.
    pub(crate) fn me(&self) -> Oid {
        self.observed.server.current_role
    }

    pub(crate) fn is_superuser(&self) -> bool {
        self.superuser
    }

    /// The number of a role, existing or to be created.
    pub(crate) fn oid(&self, role: &str) -> Option<Oid> {
        self.oids.get(role).copied()
    }

    /// A role that exists.
    pub(crate) fn role(&self, oid: Oid) -> Option<&'a Role> {
        self.by_oid.get(&oid).copied()
    }

    /// The name of a role. A role that is lost shows as its number.
    pub(crate) fn name(&self, oid: Oid) -> String {
        self.names.get(&oid).map_or_else(|| oid.to_string(), |name| (*name).to_owned())
    }

    /// A grantee as SQL writes it.
    pub(crate) fn grantee(&self, oid: Oid) -> String {
        if oid == PUBLIC_OID { PUBLIC.to_owned() } else { crate::quote::ident(&self.name(oid)) }
    }

    pub(crate) fn is_declared(&self, oid: Oid) -> bool {
        self.declared.contains(&oid)
    }

    /// Whether what a role holds beyond the policy is none of our business: the connected role,
    /// PostgreSQL's and the provider's roles, superusers (grants mean nothing to them), lost roles.
    pub(crate) fn is_exempt(&self, oid: Oid) -> bool {
        if oid == PUBLIC_OID {
            return false;
        }
        oid == self.me()
            || self
                .role(oid)
                .is_none_or(|role| is_protected(&role.name) || (role.superuser && !self.is_declared(oid)))
    }

    /// Whether a declared role is an administrator whom the server lets do everything anyway.
    pub(crate) fn is_superuser_admin(&self, oid: Oid) -> bool {
        let kind = self.policy.roles.get(&self.name(oid)).map(|r| r.kind);
        kind == Some(RoleKind::Admin) && self.target.provider.admin_role().is_none()
    }

    /// The managed schema of an object.
    pub(crate) fn schema_of(&self, oid: Oid) -> Option<(usize, &Managed<'a>)> {
        self.schema_at.get(&oid).map(|at| (*at, &self.schemas[*at]))
    }

    /// The managed schema under one of the strategy's names.
    pub(crate) fn schema_named(&self, logical: &str) -> Option<&Managed<'a>> {
        self.schemas.iter().find(|s| s.logical.contains(&logical))
    }

    /// The entries that hold for an object: the stored list, or PostgreSQL's default.
    pub(crate) fn acl(&self, id: crate::acl::AclId, kind: Kind, owner: Oid) -> Vec<AclItem> {
        match self.observed.acl(id) {
            Some(list) => list.to_vec(),
            None => default_acl(kind, owner),
        }
    }
}

/// PostgreSQL's default list, without the owner's own entry, which is never compared.
pub(crate) fn default_acl(kind: Kind, owner: Oid) -> Vec<AclItem> {
    let public = crate::privilege::Privileges::public_default(kind);
    if public.is_empty() {
        return Vec::new();
    }
    vec![AclItem { grantee: PUBLIC_OID, grantor: owner, held: Held::plain(public) }]
}
