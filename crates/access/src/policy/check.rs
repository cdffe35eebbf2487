//! What is wrong with a policy beyond what its types say.

use std::collections::BTreeSet;

use obyra_evidence::{Message, text};

use super::{DefaultKind, Future, PUBLIC, Policy, Profile, RolePolicy};
use crate::pattern::Pattern;
use crate::privilege::{Kind, Wanted};
use crate::target::is_protected;

/// A problem: where in the section, as a path of keys, and what.
pub type Problem = (Vec<String>, Message);

/// Collects problems.
struct Check<'a> {
    policy: &'a Policy,
    declared: BTreeSet<&'a str>,
    problems: Vec<Problem>,
}

impl Policy {
    /// What is wrong: undefined roles and levels, impossible privileges, circles. Paths start
    /// below `access`. An empty answer is what [`crate::plan`] relies on.
    pub fn check(&self) -> Vec<Problem> {
        let mut check = Check { policy: self, declared: self.declared().collect(), problems: Vec::new() };
        check.owners();
        for (name, role) in &self.roles {
            check.role(name, role);
        }
        check.circles();
        check.profiles();
        check.objects();
        check.tables();
        check.defaults();
        check.retired();
        check.problems
    }
}

impl<'a> Check<'a> {
    fn problem(&mut self, path: &[&str], message: impl Into<Message>) {
        self.problems.push((path.iter().map(|p| (*p).to_owned()).collect(), message.into()));
    }

    /// A role that is named must be declared, or belong to PostgreSQL or the provider.
    fn defined(&mut self, path: &[&str], role: &str) {
        if !self.declared.contains(role) && !is_protected(role) {
            self.problem(path, text::access::ROLE_UNDEFINED.with("role", role));
        }
    }

    fn defined_or_public(&mut self, path: &[&str], role: &str) {
        if role != PUBLIC {
            self.defined(path, role);
        }
    }

    fn level(&mut self, path: &[&str], level: &str) {
        if self.policy.level(level).is_none() {
            let known: Vec<&str> =
                Profile::BUILTIN.into_iter().chain(self.policy.profiles.keys().map(String::as_str)).collect();
            let message = text::access::LEVEL_UNKNOWN.with("level", level).with("known", known.join(", "));
            self.problem(path, message);
        }
    }

    fn privileges(&mut self, path: &[&str], list: &[String], kind: Kind, columns: bool) {
        for (at, entry) in list.iter().enumerate() {
            let wanted = Wanted::parse(entry, kind);
            if wanted.as_ref().is_none_or(|w| !columns && !w.columns.is_empty()) {
                let known = crate::privilege::Privileges::all(kind, 17);
                let message = text::access::PRIVILEGE_UNKNOWN.with("privilege", entry).with("known", known);
                self.problem(&[path, &[&at.to_string()]].concat(), message);
            }
        }
    }

    fn owners(&mut self) {
        let policy = self.policy;
        for pattern in policy.owners.keys() {
            if Pattern::parse(pattern).is_none() {
                self.problem(&["owners", pattern], text::access::PATTERN_UNREADABLE.with("pattern", pattern));
            }
        }
        let owners: BTreeSet<&str> = policy.declared_owners().collect();
        if owners.contains(PUBLIC) {
            self.problem(&["owner"], text::access::PUBLIC_CANNOT);
        }
    }

    fn role(&mut self, name: &str, role: &RolePolicy) {
        if name == PUBLIC {
            let bare = RolePolicy {
                database: role.database.clone(),
                schemas: role.schemas.clone(),
                future: role.future.clone(),
                ..RolePolicy::default()
            };
            if bare != *role {
                self.problem(&["roles", PUBLIC], text::access::PUBLIC_CANNOT);
            }
        } else if is_protected(name) || name == "public" || name == "none" {
            self.problem(&["roles", name], text::access::ROLE_RESERVED.with("role", name));
        }
        for member_of in &role.member_of {
            self.defined(&["roles", name, "member_of"], &member_of.role);
        }
        if let Some(acts_as) = &role.acts_as {
            self.defined(&["roles", name, "acts_as"], acts_as);
            if role.settings.contains_key("role") || role.cluster_settings.contains_key("role") {
                self.problem(&["roles", name, "settings", "role"], text::access::ROLE_SETTING_TWICE);
            }
        }
        if !role.search_path.is_empty() && role.settings.contains_key("search_path") {
            self.problem(&["roles", name, "settings", "search_path"], text::access::SEARCH_PATH_TWICE);
        }
        for (schema, level) in &role.schemas {
            self.level(&["roles", name, "schemas", schema], level);
        }
        if let Future::Levels(levels) = &role.future {
            for (schema, level) in levels {
                self.level(&["roles", name, "future", schema], level);
            }
        }
        self.privileges(
            &["roles", name, "database"],
            role.database.as_deref().unwrap_or(&[]),
            Kind::Database,
            false,
        );
        self.values(name, role);
    }

    fn values(&mut self, name: &str, role: &RolePolicy) {
        if role.connection_limit.is_some_and(|limit| limit < -1) {
            self.problem(&["roles", name, "connection_limit"], text::access::CONNECTION_LIMIT_IMPOSSIBLE);
        }
        if let Some(until) = &role.valid_until
            && until != "infinity"
            && until.parse::<jiff::Timestamp>().is_err()
        {
            let message = text::access::TIMESTAMP_UNREADABLE.with("value", until);
            self.problem(&["roles", name, "valid_until"], message);
        }
        if let Some(rotate) = &role.rotate
            && rotate.parse::<jiff::Span>().is_err()
        {
            self.problem(&["roles", name, "rotate"], text::access::DURATION_UNREADABLE.with("value", rotate));
        }
    }

    /// PostgreSQL refuses a role that is, through others, a member of itself.
    fn circles(&mut self) {
        let policy = self.policy;
        for (name, role) in &policy.roles {
            let mut reached = BTreeSet::new();
            let mut open: Vec<&str> = above(role).collect();
            while let Some(next) = open.pop() {
                if reached.insert(next) {
                    open.extend(policy.roles.get(next).into_iter().flat_map(above));
                }
            }
            if reached.contains(name.as_str()) {
                self.problem(&["roles", name], text::access::MEMBERSHIP_CIRCLE.with("role", name));
            }
        }
    }

    fn profiles(&mut self) {
        let policy = self.policy;
        for (name, profile) in &policy.profiles {
            if Profile::BUILTIN.contains(&name.as_str()) {
                self.problem(&["profiles", name], text::access::LEVEL_BUILTIN.with("level", name));
            }
            let lists = [
                ("schema", profile.schema.as_slice(), Kind::Schema),
                ("tables", &profile.tables, Kind::Table),
                ("views", profile.views.as_deref().unwrap_or(&[]), Kind::Table),
                ("sequences", &profile.sequences, Kind::Sequence),
                ("routines", &profile.routines, Kind::Routine),
                ("types", &profile.types, Kind::Type),
            ];
            for (key, list, kind) in lists {
                self.privileges(&["profiles", name, key], list, kind, false);
            }
        }
    }

    fn objects(&mut self) {
        let policy = self.policy;
        for (pattern, grants) in &policy.objects {
            let Some(parsed) = Pattern::parse(pattern) else {
                self.problem(
                    &["objects", pattern],
                    text::access::PATTERN_UNREADABLE.with("pattern", pattern),
                );
                continue;
            };
            for (role, list) in grants {
                self.defined_or_public(&["objects", pattern, role], role);
                self.privileges(&["objects", pattern, role], list, parsed.subject.kind(), true);
            }
        }
    }

    fn tables(&mut self) {
        let policy = self.policy;
        for (table, roles) in &policy.sensitive {
            if Pattern::table(table).is_none_or(|p| !p.is_exact()) {
                self.problem(&["sensitive", table], text::access::TABLE_UNREADABLE.with("table", table));
            }
            for role in roles.keys() {
                self.defined_or_public(&["sensitive", table, role], role);
            }
        }
        for (at, table) in policy.tenancy.tables.iter().enumerate() {
            if Pattern::table(table).is_none_or(|p| !p.is_exact()) {
                let message = text::access::TABLE_UNREADABLE.with("table", table);
                self.problem(&["tenancy", "tables", &at.to_string()], message);
            }
        }
    }

    fn defaults(&mut self) {
        let policy = self.policy;
        for (at, entry) in policy.default_privileges.iter().enumerate() {
            let at = at.to_string();
            let kind = match entry.on {
                DefaultKind::Tables => Kind::Table,
                DefaultKind::Sequences => Kind::Sequence,
                DefaultKind::Routines => Kind::Routine,
                DefaultKind::Types => Kind::Type,
                DefaultKind::Schemas => Kind::Schema,
            };
            // A creator may be a role that no strategy declares, such as the superuser who made the
            // cluster; one that does not exist is found by the plan.
            if entry.creators.iter().any(|creator| creator == PUBLIC) {
                self.problem(&["default_privileges", &at, "creators"], text::access::PUBLIC_CANNOT);
            }
            for role in &entry.to {
                self.defined_or_public(&["default_privileges", &at, "to"], role);
            }
            if entry.on == DefaultKind::Schemas && !entry.schemas.is_empty() {
                self.problem(&["default_privileges", &at, "schemas"], text::access::SCHEMAS_IN_SCHEMA);
            }
            self.privileges(&["default_privileges", &at, "privileges"], &entry.privileges, kind, false);
        }
    }

    fn retired(&mut self) {
        let policy = self.policy;
        for (name, retired) in &policy.retired {
            if self.declared.contains(name.as_str()) {
                self.problem(&["retired", name], text::access::RETIRED_DECLARED.with("role", name));
            }
            if is_protected(name) {
                self.problem(&["retired", name], text::access::ROLE_RESERVED.with("role", name));
            }
            if let Some(heir) = &retired.reassign_to {
                self.defined(&["retired", name, "reassign_to"], heir);
            }
        }
    }
}

/// The roles that a role is a member of.
fn above(role: &RolePolicy) -> impl Iterator<Item = &str> {
    role.member_of.iter().map(|m| m.role.as_str()).chain(role.acts_as.as_deref())
}
