//! The facts that are observed, typed and compact.

use std::collections::{BTreeMap, HashMap};

use obyra_postgres::ServerVersion;

use crate::acl::{AclId, AclItem, Acls};

/// An object's number in the catalogue.
pub type Oid = u32;

/// The access that a database has, as of one snapshot.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The server, and who is connected to it.
    pub server: Server,
    /// The database.
    pub database: Database,
    /// All roles of the cluster, by name.
    pub roles: Vec<Role>,
    /// All memberships, one for each grantor.
    pub memberships: Vec<Membership>,
    /// Settings of roles, here and in the whole cluster.
    pub role_settings: Vec<RoleSettings>,
    /// All schemas but PostgreSQL's own, by name.
    pub schemas: Vec<Schema>,
    /// Tables, views and sequences of the target's schemas that no extension owns, by schema and name.
    pub relations: Vec<Relation>,
    /// Columns with privileges of their own.
    pub columns: Vec<ColumnAcl>,
    /// Functions, procedures and aggregates of the target's schemas.
    pub routines: Vec<Routine>,
    /// Types of the target's schemas that carry privileges.
    pub types: Vec<Type>,
    /// Default privileges.
    pub defaults: Vec<DefaultAcl>,
    /// Installed extensions.
    pub extensions: Vec<String>,
    /// The wanted extensions that are not installed but could be, and whether that takes no superuser.
    pub available_extensions: BTreeMap<String, bool>,
    /// The server settings that the policy names.
    pub settings: BTreeMap<String, ServerSetting>,
    /// Partitions and inheriting tables with their parent.
    pub parents: HashMap<Oid, Oid>,
    /// More about the tables that the policy names, and their partitions.
    pub details: Vec<TableDetail>,
    /// What the retired roles own or are granted, here and elsewhere.
    pub dependencies: Vec<RoleDependency>,
    pub(crate) acls: Acls,
}

/// The server, and who is connected to it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its version.
    pub version: ServerVersion,
    /// The connected role.
    pub current_role: Oid,
    /// How many objects all transactions together may lock before the lock table is full.
    pub lock_capacity: u64,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Oid,
    /// Its privileges.
    pub acl: AclId,
}

/// A role with its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its number.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Superuser.
    pub superuser: bool,
    /// Whether it inherits by default.
    pub inherit: bool,
    /// May create roles.
    pub createrole: bool,
    /// May create databases.
    pub createdb: bool,
    /// May log in.
    pub login: bool,
    /// May replicate.
    pub replication: bool,
    /// Is exempt from row security.
    pub bypassrls: bool,
    /// Its connection limit, -1 for none.
    pub connection_limit: i32,
    /// Until when its password is valid, in ISO 8601.
    pub valid_until: Option<String>,
}

/// A membership as one grantor gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The role.
    pub role: Oid,
    /// The member.
    pub member: Oid,
    /// Who granted it; 0 where the server does not keep track of it.
    pub grantor: Oid,
    /// May grant the membership on.
    pub admin: bool,
    /// Inherits. Before PostgreSQL 16: as the member's attribute says.
    pub inherit: bool,
    /// May `SET ROLE`. Before PostgreSQL 16: always.
    pub set: bool,
}

/// Settings of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSettings {
    /// The role; 0 for all roles.
    pub role: Oid,
    /// Whether they hold in this database only, or in the whole cluster.
    pub here_only: bool,
    /// The settings.
    pub values: BTreeMap<String, String>,
}

/// A schema.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Its number.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Oid,
    /// Its privileges.
    pub acl: AclId,
    /// Whether it belongs to an extension.
    pub of_extension: bool,
}

/// The kinds of relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelationKind {
    /// An ordinary table, also a partition.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialised view.
    Materialized,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
}

impl RelationKind {
    /// Whether it is a view of either kind.
    pub fn is_view(self) -> bool {
        matches!(self, RelationKind::View | RelationKind::Materialized)
    }
}

/// A table, view or sequence.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its number.
    pub oid: Oid,
    /// Its schema.
    pub schema: Oid,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its owner.
    pub owner: Oid,
    /// Its privileges.
    pub acl: AclId,
    /// Whether row security is enabled.
    pub row_security: bool,
    /// Whether row security binds the owner too.
    pub row_security_forced: bool,
    /// Whether it is a partition.
    pub partition: bool,
    /// For a sequence that belongs to a column: that column's table. Known where the sequence's
    /// owner is not yet the wanted one.
    pub column_of: Option<Oid>,
}

/// A column with privileges of its own.
#[derive(Clone, Debug)]
pub struct ColumnAcl {
    /// The table or view.
    pub relation: Oid,
    /// The column.
    pub name: String,
    /// Its privileges.
    pub acl: AclId,
}

/// A function, procedure or aggregate.
#[derive(Clone, Debug)]
pub struct Routine {
    /// Its number.
    pub oid: Oid,
    /// Its schema.
    pub schema: Oid,
    /// Its name.
    pub name: String,
    /// Its argument types: SQL's names for PostgreSQL's own types, qualified names for others.
    pub arguments: String,
    /// Its owner.
    pub owner: Oid,
    /// Its privileges.
    pub acl: AclId,
    /// Whether it runs with its owner's privileges.
    pub security_definer: bool,
    /// Whether it fixes its own `search_path`.
    pub search_path_fixed: bool,
}

/// A type that carries privileges.
#[derive(Clone, Debug)]
pub struct Type {
    /// Its number.
    pub oid: Oid,
    /// Its schema.
    pub schema: Oid,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Oid,
    /// Its privileges.
    pub acl: AclId,
}

/// Default privileges for what one role creates.
#[derive(Clone, Debug)]
pub struct DefaultAcl {
    /// The creator.
    pub creator: Oid,
    /// The schema; `None` for the whole database.
    pub schema: Option<Oid>,
    /// The kind of object.
    pub kind: crate::policy::DefaultKind,
    /// The privileges. For the whole database they replace PostgreSQL's default; for a schema
    /// they come on top of it.
    pub acl: AclId,
}

/// A setting of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSetting {
    /// Its value now.
    pub value: String,
    /// The unit of a number.
    pub unit: Option<String>,
    /// When a change takes effect: `postmaster`, `sighup`, `superuser`, `user`, ...
    pub context: String,
    /// Whether the value in the configuration waits for a restart.
    pub pending_restart: bool,
}

/// More about a table that the policy names.
#[derive(Clone, Debug)]
pub struct TableDetail {
    /// The table.
    pub relation: Oid,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its row security policies.
    pub policies: Vec<RowPolicy>,
    /// The views that read it directly.
    pub views: Vec<ReadingView>,
}

/// A row security policy.
#[derive(Clone, Debug)]
pub struct RowPolicy {
    /// Its name.
    pub name: String,
    /// Its expressions, `USING` and `WITH CHECK`.
    pub expressions: String,
    /// The routines that its expressions call, by number.
    pub routines: Vec<Oid>,
}

/// A view that reads a table.
#[derive(Clone, Debug)]
pub struct ReadingView {
    /// The view's number.
    pub oid: Oid,
    /// Its schema's name.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether it reads with the privileges of whoever asks.
    pub security_invoker: bool,
    /// The columns of the table that it reads.
    pub columns: Vec<String>,
}

/// What a retired role owns or is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDependency {
    /// The role.
    pub role: Oid,
    /// The database; `None` for shared objects such as databases.
    pub database: Option<String>,
    /// Whether it owns them; else they merely name it in their privileges or policies.
    pub owns: bool,
    /// How many objects.
    pub objects: u64,
}

impl Observed {
    /// The entries of a list; `None` where PostgreSQL's default holds.
    pub fn acl(&self, id: AclId) -> Option<&[AclItem]> {
        self.acls.get(id)
    }

    /// A role by its name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.binary_search_by(|r| r.name.as_str().cmp(name)).ok().map(|at| &self.roles[at])
    }

    /// The name of a role; its number when it no longer exists.
    pub fn role_name(&self, oid: Oid) -> String {
        match oid {
            0 => crate::policy::PUBLIC.to_owned(),
            _ => self.roles.iter().find(|r| r.oid == oid).map_or_else(|| oid.to_string(), |r| r.name.clone()),
        }
    }

    /// A schema by its name.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.iter().find(|s| s.name == name)
    }

    /// The connected role.
    pub fn current_role(&self) -> Option<&Role> {
        self.roles.iter().find(|r| r.oid == self.server.current_role)
    }

    /// Whether the connected role is a superuser.
    pub fn is_superuser(&self) -> bool {
        self.current_role().is_some_and(|r| r.superuser)
    }
}
