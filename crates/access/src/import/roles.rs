//! The roles of a database, as the strategy declares them: attributes, memberships, settings.

use std::collections::BTreeMap;

use super::held::{held, words};
use super::scope::Scope;
use crate::acl::PUBLIC_OID;
use crate::observe::{Oid, Role};
use crate::plan::looks_secret;
use crate::policy::{MemberOf, PUBLIC, Policy, RolePolicy, Setting};
use crate::privilege::{Held, Kind, Privileges};
use crate::quote::split_list;
use crate::target::is_protected;

/// Writes every role of the scope, and what everybody may do with the database. The owners are
/// already in the policy: whether a role may log in is said only where it is not what they imply.
pub(super) fn write(scope: &Scope<'_>, policy: &mut Policy) {
    let database = &scope.observed.database;
    let on_database: BTreeMap<Oid, Held> =
        held(scope.observed, database.acl, Kind::Database, database.owner).into_iter().collect();
    let on_database = |oid: Oid| on_database.get(&oid).copied().unwrap_or_default();
    for role in scope.written() {
        let mut written = attributes(role, policy.may_login(&role.name));
        if role.oid != database.owner {
            written.database = database_privileges(on_database(role.oid), role.login);
        }
        written.member_of = memberships(scope, role);
        settings(scope, role, &mut written);
        policy.roles.insert(role.name.clone(), written);
    }
    let everybody = on_database(PUBLIC_OID);
    if !everybody.is_empty() {
        let written = policy.roles.entry(PUBLIC.to_owned()).or_default();
        written.database = Some(words(everybody, Kind::Database));
    }
}

fn attributes(role: &Role, login_expected: bool) -> RolePolicy {
    RolePolicy {
        login: (role.login != login_expected).then_some(role.login),
        superuser: role.superuser,
        createdb: role.createdb,
        createrole: role.createrole,
        inherit: (!role.inherit).then_some(false),
        replication: role.replication,
        bypassrls: role.bypassrls,
        connection_limit: (role.connection_limit != -1).then_some(role.connection_limit),
        valid_until: role.valid_until.clone(),
        ..RolePolicy::default()
    }
}

/// What a role holds on the database, where it is not the default: `CONNECT` for roles that log in.
fn database_privileges(held: Held, login: bool) -> Option<Vec<String>> {
    let expected = if login { Privileges::CONNECT } else { Privileges::NONE };
    (held != Held::plain(expected)).then(|| words(held, Kind::Database))
}

/// What a role is a member of, as all grantors together made it.
fn memberships(scope: &Scope<'_>, role: &Role) -> Vec<MemberOf> {
    let mut all: BTreeMap<String, MemberOf> = BTreeMap::new();
    let me = scope.observed.server.current_role;
    for edge in scope.observed.memberships.iter().filter(|edge| edge.member == role.oid) {
        // Whoever creates a role administers it from then on; nobody plans that for the connected role.
        let as_creator = edge.member == me && edge.admin && !edge.inherit && !edge.set;
        if as_creator {
            continue;
        }
        let name = scope.observed.role_name(edge.role);
        if scope.role(edge.role).is_none() && !is_protected(&name) {
            continue;
        }
        let none = MemberOf { role: name.clone(), admin: false, inherit: false, set: false };
        let sum = all.entry(name).or_insert(none);
        sum.admin |= edge.admin;
        sum.inherit |= edge.inherit;
        sum.set |= edge.set;
    }
    all.into_values().collect()
}

/// The settings of a role: `acts_as` and `search_path` under their own names where they fit.
fn settings(scope: &Scope<'_>, role: &Role, written: &mut RolePolicy) {
    for settings in scope.observed.role_settings.iter().filter(|s| s.role == role.oid) {
        let values = settings.values.iter().filter(|(name, _)| !looks_secret(name));
        let values = values.map(|(name, value)| (name.clone(), Setting(value.clone())));
        if settings.here_only {
            written.settings.extend(values);
        } else {
            written.cluster_settings.extend(values);
        }
    }
    if let Some(path) = written.settings.get("search_path").and_then(|path| logical_path(scope, &path.0)) {
        written.search_path = path;
        written.settings.remove("search_path");
    }
    let Some(acts_as) = written.settings.get("role").map(|role| role.0.clone()) else { return };
    let edge = MemberOf { role: acts_as.clone(), admin: false, inherit: false, set: true };
    if written.cluster_settings.contains_key("role") {
        return;
    }
    if let Some(at) = written.member_of.iter().position(|member_of| *member_of == edge) {
        written.member_of.remove(at);
        written.settings.remove("role");
        written.acts_as = Some(acts_as);
    }
}

/// A search path in the strategy's names; `None` when it names more than the scope's schemas.
fn logical_path(scope: &Scope<'_>, path: &str) -> Option<Vec<String>> {
    let logical = |name: String| {
        scope.places.iter().find(|place| place.schema.name == name).map(|place| place.logical.to_owned())
    };
    split_list(path)?.into_iter().map(logical).collect()
}
