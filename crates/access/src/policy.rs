//! What access is wanted: the section `[access]` of the strategy, typed and documented.
//!
//! Reading it does nothing else. [`Policy::check`] finds what the types cannot: a level
//! that nobody defines, a privilege that a kind of object does not have, a circle of members.

mod check;
mod level;
mod values;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use level::Profile;
pub use values::{Future, MemberOf, Setting};

/// The name under which `roles`, `objects` and `default_privileges` speak of everybody.
pub const PUBLIC: &str = "PUBLIC";

/// Who may do what in the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Access")]
pub struct Policy {
    /// What happens to access that the strategy does not declare.
    pub mode: Mode,
    /// The role that owns the schemas and their objects. It cannot log in, and it is never
    /// dropped. Without it, ownership is left as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The extensions that must be installed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// The roles by name. The name `PUBLIC` stands for what everybody may do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, RolePolicy>,
    /// Levels of access of your own, beside `usage`, `read`, `read-write` and `append`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, Profile>,
    /// What differs for single schemas, by the strategy's name of the schema.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, SchemaPolicy>,
    /// Exceptions: an object or a pattern such as `"table app.alembic_version"`,
    /// `"sequence app.*"`, `"function app.f(integer)"` or `"type app.mood"`, with each role's
    /// privileges there. They replace what the role's level would give on these objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Objects that belong to another role than the owner of their schema, by object or pattern.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<String, String>,
    /// Sensitive tables, for example `"app.users" = { obyra_readonly = ["id", "name"] }`: the
    /// role may read these columns and do nothing else with the table. An empty list is no
    /// access at all. Partitions follow their table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sensitive: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Tables whose rows belong to a tenant.
    #[serde(skip_serializing_if = "Tenancy::is_empty")]
    pub tenancy: Tenancy,
    /// Default privileges that do not follow from the roles' levels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_privileges: Vec<DefaultPrivilege>,
    /// Roles that are to disappear.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub retired: BTreeMap<String, Retired>,
    /// Settings of the server, for example `ssl = "on"`. For `shared_preload_libraries` the
    /// value names the libraries that must be among the loaded ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Setting>,
}

/// What happens to access that the strategy does not declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is left alone; only what is missing is granted.
    Additive,
    /// It is left alone and reported.
    Adopt,
    /// It is revoked.
    #[default]
    Authoritative,
}

/// What a role is, and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolePolicy {
    /// `admin` makes it as mighty as the environment allows: superuser where we run the server,
    /// `rds_superuser` or `cloudsqlsuperuser` where a provider does.
    #[serde(skip_serializing_if = "RoleKind::is_role")]
    pub kind: RoleKind,
    /// Whether it may log in. Roles may, unless they own schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<bool>,
    /// Superuser.
    #[serde(skip_serializing_if = "is_false")]
    pub superuser: bool,
    /// May create databases.
    #[serde(skip_serializing_if = "is_false")]
    pub createdb: bool,
    /// May create roles.
    #[serde(skip_serializing_if = "is_false")]
    pub createrole: bool,
    /// Whether new memberships inherit (default true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inherit: Option<bool>,
    /// May open replication connections.
    #[serde(skip_serializing_if = "is_false")]
    pub replication: bool,
    /// Is exempt from row security.
    #[serde(skip_serializing_if = "is_false")]
    pub bypassrls: bool,
    /// How many connections it may hold, -1 for any number. Not managed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// Until when its password is valid, as an RFC 3339 timestamp, or `infinity`. Not managed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// The role that its sessions act as from login: a member that does not inherit, may
    /// `SET ROLE`, and does so at login in this database. What it creates belongs to that role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acts_as: Option<String>,
    /// The roles that it is a member of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<MemberOf>,
    /// Privileges on the database. By default a role that may log in has `CONNECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Vec<String>>,
    /// Its level of access in each schema: `usage`, `read`, `read-write`, `append` or a profile.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, String>,
    /// Whether its levels hold for objects that are created later, through default privileges.
    #[serde(skip_serializing_if = "Future::is_default")]
    pub future: Future,
    /// The schemas that names are looked up in, by the strategy's names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search_path: Vec<String>,
    /// Settings of its sessions in this database.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Setting>,
    /// Settings of its sessions in every database of the cluster.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cluster_settings: BTreeMap<String, Setting>,
    /// How old its password may grow, for example `"90 days"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
}

/// What a role is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// A role with exactly the declared attributes.
    #[default]
    Role,
    /// The administrator, for maintenance only.
    Admin,
}

impl RoleKind {
    fn is_role(&self) -> bool {
        *self == RoleKind::Role
    }
}

/// What differs for one schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaPolicy {
    /// Its owner, and that of its objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Tables whose rows belong to a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenancy {
    /// The tables on which row security must be enabled. Their policies come from migrations.
    pub tables: Vec<String>,
    /// Whether row security binds the owner of these tables too; it then binds migrations.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
}

impl Tenancy {
    fn is_empty(&self) -> bool {
        *self == Tenancy::default()
    }
}

/// Default privileges that do not follow from the roles' levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultPrivilege {
    /// The roles whose new objects are meant.
    pub creators: Vec<String>,
    /// The schemas, by the strategy's names; none means everywhere in the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// The kind of new object.
    pub on: DefaultKind,
    /// Who receives the privileges.
    pub to: Vec<String>,
    /// The privileges, with `WITH GRANT OPTION` where wanted.
    pub privileges: Vec<String>,
}

/// The kinds of object that default privileges exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultKind {
    /// Tables and views.
    Tables,
    /// Sequences.
    Sequences,
    /// Functions, procedures and aggregates.
    Routines,
    /// Types.
    Types,
    /// Schemas.
    Schemas,
}

/// A role that is to disappear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retired {
    /// Who receives what it owns. Without it, a role that still owns something is not dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reassign_to: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Policy {
    /// Every role that the strategy declares: those under `roles`, and the owners.
    pub fn declared(&self) -> impl Iterator<Item = &str> {
        let named = self.roles.keys().map(String::as_str).filter(|name| *name != PUBLIC);
        let owners = self.declared_owners().filter(|name| !self.roles.contains_key(*name));
        let unique: std::collections::BTreeSet<&str> = named.chain(owners).collect();
        unique.into_iter()
    }

    /// The roles that the strategy makes owners of schemas or objects.
    pub fn declared_owners(&self) -> impl Iterator<Item = &str> {
        let of_schemas = self.schemas.values().filter_map(|s| s.owner.as_deref());
        self.owner.as_deref().into_iter().chain(of_schemas).chain(self.owners.values().map(String::as_str))
    }

    /// The owner that a schema should have, by the strategy's name of the schema.
    pub fn owner_of_schema(&self, logical: &str) -> Option<&str> {
        let own = self.schemas.get(logical).and_then(|s| s.owner.as_deref());
        own.or(self.owner.as_deref())
    }

    /// Whether a declared role may log in: what it says, or true unless it is an owner.
    pub fn may_login(&self, role: &str) -> bool {
        let said = self.roles.get(role).and_then(|r| r.login);
        said.unwrap_or_else(|| !self.declared_owners().any(|owner| owner == role))
    }

    /// A level by its name: a profile of the strategy, or a built-in one.
    pub fn level(&self, name: &str) -> Option<Profile> {
        self.profiles.get(name).cloned().or_else(|| Profile::builtin(name))
    }
}

#[cfg(test)]
mod tests;
