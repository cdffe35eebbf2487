//! The catalogue query's answer as it comes: arrays of arrays, to keep it small.

use std::collections::{BTreeMap, HashMap};

use obyra_postgres::ServerVersion;
use serde::Deserialize;

use super::facts::*;
use crate::acl::{AclId, Acls};
use crate::pattern::sql_type_name;
use crate::policy::DefaultKind;
use crate::quote;

/// A list that PostgreSQL leaves out as `null` when it is empty.
type Rows<T> = Option<Vec<T>>;

#[derive(Deserialize)]
pub(super) struct Catalogue {
    version: u32,
    me: Oid,
    locks: u64,
    db: (String, Oid, Option<String>),
    roles: Rows<RawRole>,
    members: Rows<RawMembership>,
    rolset: Rows<(Oid, bool, Vec<String>)>,
    ns: Rows<(Oid, String, Oid, Option<String>, bool)>,
    rel: Rows<RelationGroup>,
    seq: Rows<(Oid, Oid)>,
    att: Rows<(Oid, String, String)>,
    fun: Rows<RoutineGroup>,
    argtypes: Rows<(Oid, String, String, bool)>,
    ty: Rows<(Oid, Oid, String, Oid, Option<String>)>,
    defacl: Rows<(Oid, Oid, char, String)>,
    ext: Rows<String>,
    extavail: Rows<(String, bool)>,
    settings: Rows<(String, String, Option<String>, String, bool)>,
    inh: Rows<(Oid, Oid)>,
    detail: Rows<RawDetail>,
    dep: Rows<(Oid, Option<String>, bool, u64)>,
}

#[derive(Deserialize)]
struct RawRole(Oid, String, bool, bool, bool, bool, bool, bool, bool, i32, Option<String>);

/// Role, member, grantor, and the options `ADMIN`, `INHERIT` and `SET`, where the server has them.
#[derive(Deserialize)]
struct RawMembership(Oid, Oid, Oid, bool, Option<bool>, Option<bool>);

/// Relations that agree in everything but oid and name: schema, kind, owner, privileges, row security
/// enabled and forced, partition.
#[derive(Deserialize)]
struct RelationGroup(Oid, char, Oid, Option<String>, bool, bool, bool, Vec<Oid>, Vec<String>);

/// Routines that agree in schema, owner, privileges, security definer and fixed search path.
#[derive(Deserialize)]
struct RoutineGroup(Oid, Oid, Option<String>, bool, bool, Vec<Oid>, Vec<String>, Vec<String>);

#[derive(Deserialize)]
struct RawDetail(Oid, Rows<String>, Rows<(String, String, Rows<Oid>)>, Rows<RawView>);

#[derive(Deserialize)]
struct RawView(Oid, String, String, bool, Vec<String>);

/// Finds roles by name and stores each distinct list once. An error is the text of a list.
struct Reader {
    roles: HashMap<String, Oid>,
    acls: Acls,
}

impl Reader {
    fn acl(&mut self, text: Option<&str>) -> Result<AclId, String> {
        let roles = &self.roles;
        self.acls.intern(text, &|name| roles.get(name).copied())
    }
}

impl Catalogue {
    pub(super) fn into_observed(self) -> Result<Observed, String> {
        let mut roles: Vec<Role> = self.roles.into_iter().flatten().map(RawRole::typed).collect();
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let by_oid: HashMap<Oid, bool> = roles.iter().map(|r| (r.oid, r.inherit)).collect();
        let mut reader =
            Reader { roles: roles.iter().map(|r| (r.name.clone(), r.oid)).collect(), acls: Acls::default() };
        let database = Database { acl: reader.acl(self.db.2.as_deref())?, name: self.db.0, owner: self.db.1 };
        let schemas = schemas(self.ns, &mut reader)?;
        let relations = relations(self.rel, self.seq, &mut reader)?;
        let routines = routines(self.fun, self.argtypes, &mut reader)?;
        let columns = rows(self.att, |(relation, name, acl)| {
            Ok(ColumnAcl { relation, name, acl: reader.acl(Some(&acl))? })
        })?;
        let types = rows(self.ty, |(oid, schema, name, owner, acl)| {
            Ok(Type { oid, schema, name, owner, acl: reader.acl(acl.as_deref())? })
        })?;
        let defaults = rows(self.defacl, |(creator, schema, kind, acl)| {
            let schema = (schema != 0).then_some(schema);
            Ok(DefaultAcl { creator, schema, kind: default_kind(kind)?, acl: reader.acl(Some(&acl))? })
        })?;
        Ok(Observed {
            server: Server {
                version: ServerVersion(self.version),
                current_role: self.me,
                lock_capacity: self.locks,
            },
            database,
            memberships: memberships(self.members, &by_oid),
            roles,
            role_settings: role_settings(self.rolset),
            schemas,
            relations,
            columns,
            routines,
            types,
            defaults,
            extensions: self.ext.unwrap_or_default(),
            available_extensions: self.extavail.into_iter().flatten().collect(),
            settings: settings(self.settings),
            parents: self.inh.into_iter().flatten().collect(),
            details: self.detail.into_iter().flatten().map(RawDetail::typed).collect(),
            dependencies: dependencies(self.dep),
            acls: reader.acls,
        })
    }
}

fn rows<T, U>(list: Rows<T>, row: impl FnMut(T) -> Result<U, String>) -> Result<Vec<U>, String> {
    list.into_iter().flatten().map(row).collect()
}

impl RawRole {
    fn typed(self) -> Role {
        Role {
            oid: self.0,
            name: self.1,
            superuser: self.2,
            inherit: self.3,
            createrole: self.4,
            createdb: self.5,
            login: self.6,
            replication: self.7,
            bypassrls: self.8,
            connection_limit: self.9,
            valid_until: self.10,
        }
    }
}

impl RawDetail {
    fn typed(self) -> TableDetail {
        TableDetail {
            relation: self.0,
            columns: self.1.unwrap_or_default(),
            policies: (self.2.into_iter().flatten())
                .map(|(name, expressions, routines)| RowPolicy {
                    name,
                    expressions,
                    routines: routines.unwrap_or_default(),
                })
                .collect(),
            views: (self.3.into_iter().flatten())
                .map(|v| ReadingView {
                    oid: v.0,
                    schema: v.1,
                    name: v.2,
                    security_invoker: v.3,
                    columns: v.4,
                })
                .collect(),
        }
    }
}

fn memberships(list: Rows<RawMembership>, inherits: &HashMap<Oid, bool>) -> Vec<Membership> {
    let typed = |RawMembership(role, member, grantor, admin, inherit, set)| {
        let inherit = inherit.unwrap_or_else(|| inherits.get(&member).copied().unwrap_or(true));
        Membership { role, member, grantor, admin, inherit, set: set.unwrap_or(true) }
    };
    list.into_iter().flatten().map(typed).collect()
}

fn role_settings(list: Rows<(Oid, bool, Vec<String>)>) -> Vec<RoleSettings> {
    let typed = |(role, here_only, config): (Oid, bool, Vec<String>)| {
        let values = config
            .iter()
            .filter_map(|entry| entry.split_once('='))
            // PostgreSQL keeps `TimeZone` and `DateStyle` as it documents them, and reads any spelling.
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        RoleSettings { role, here_only, values }
    };
    list.into_iter().flatten().map(typed).collect()
}

fn schemas(
    list: Rows<(Oid, String, Oid, Option<String>, bool)>,
    reader: &mut Reader,
) -> Result<Vec<Schema>, String> {
    let mut schemas = rows(list, |(oid, name, owner, acl, of_extension)| {
        Ok(Schema { oid, name, owner, acl: reader.acl(acl.as_deref())?, of_extension })
    })?;
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(schemas)
}

fn relations(
    groups: Rows<RelationGroup>,
    sequences: Rows<(Oid, Oid)>,
    reader: &mut Reader,
) -> Result<Vec<Relation>, String> {
    let tables: HashMap<Oid, Oid> = sequences.into_iter().flatten().collect();
    let mut relations = Vec::new();
    for group in groups.into_iter().flatten() {
        let RelationGroup(
            schema,
            letter,
            owner,
            acl,
            row_security,
            row_security_forced,
            partition,
            oids,
            names,
        ) = group;
        let acl = reader.acl(acl.as_deref())?;
        let kind = relation_kind(letter)?;
        relations.extend(oids.into_iter().zip(names).map(|(oid, name)| Relation {
            column_of: tables.get(&oid).copied(),
            oid,
            schema,
            name,
            kind,
            owner,
            acl,
            row_security,
            row_security_forced,
            partition,
        }));
    }
    relations.sort_unstable_by(|a, b| (a.schema, &a.name).cmp(&(b.schema, &b.name)));
    Ok(relations)
}

fn relation_kind(letter: char) -> Result<RelationKind, String> {
    Ok(match letter {
        'r' => RelationKind::Table,
        'p' => RelationKind::Partitioned,
        'v' => RelationKind::View,
        'm' => RelationKind::Materialized,
        'f' => RelationKind::Foreign,
        'S' => RelationKind::Sequence,
        other => return Err(other.to_string()),
    })
}

fn default_kind(letter: char) -> Result<DefaultKind, String> {
    Ok(match letter {
        'r' => DefaultKind::Tables,
        'S' => DefaultKind::Sequences,
        'f' => DefaultKind::Routines,
        'T' => DefaultKind::Types,
        'n' => DefaultKind::Schemas,
        other => return Err(other.to_string()),
    })
}

fn routines(
    groups: Rows<RoutineGroup>,
    types: Rows<(Oid, String, String, bool)>,
    reader: &mut Reader,
) -> Result<Vec<Routine>, String> {
    let types: HashMap<String, String> = types
        .into_iter()
        .flatten()
        .map(|(oid, schema, name, array)| (oid.to_string(), type_name(&schema, &name, array)))
        .collect();
    let mut routines = Vec::new();
    for group in groups.into_iter().flatten() {
        let RoutineGroup(schema, owner, acl, security_definer, search_path_fixed, oids, names, args) = group;
        let acl = reader.acl(acl.as_deref())?;
        for ((oid, name), arguments) in oids.into_iter().zip(names).zip(args) {
            let arguments: Vec<&str> =
                arguments.split_whitespace().map(|oid| types.get(oid).map_or(oid, String::as_str)).collect();
            let arguments = arguments.join(", ");
            routines.push(Routine {
                oid,
                schema,
                name,
                arguments,
                owner,
                acl,
                security_definer,
                search_path_fixed,
            });
        }
    }
    routines
        .sort_unstable_by(|a, b| (a.schema, &a.name, &a.arguments).cmp(&(b.schema, &b.name, &b.arguments)));
    Ok(routines)
}

/// A type's name that means the same whatever the `search_path` is. For an array, `name` is its element's.
fn type_name(schema: &str, name: &str, array: bool) -> String {
    let base = match sql_type_name(name) {
        _ if schema != "pg_catalog" => quote::qualified(schema, name),
        Some(sql) => sql.to_owned(),
        None if name == "char" => "pg_catalog.\"char\"".to_owned(),
        None => quote::ident(name),
    };
    if array { format!("{base}[]") } else { base }
}

fn settings(list: Rows<(String, String, Option<String>, String, bool)>) -> BTreeMap<String, ServerSetting> {
    list.into_iter()
        .flatten()
        .map(|(name, value, unit, context, pending_restart)| {
            (name, ServerSetting { value, unit, context, pending_restart })
        })
        .collect()
}

fn dependencies(list: Rows<(Oid, Option<String>, bool, u64)>) -> Vec<RoleDependency> {
    let typed = |(role, database, owns, objects)| RoleDependency { role, database, owns, objects };
    list.into_iter().flatten().map(typed).collect()
}
