//! `ALTER ROLE … SET`: what holds for a role's sessions from their next login on.

use std::collections::BTreeMap;

use obyra_evidence::text;

use super::context::Context;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::Oid;
use crate::policy::RolePolicy;
use crate::quote::{ident, literal, split_list};

/// Settings whose value is a list of names, each quoted by itself.
const LISTS: [&str; 5] = [
    "search_path",
    "temp_tablespaces",
    "session_preload_libraries",
    "local_preload_libraries",
    "shared_preload_libraries",
];

/// Plans the settings of roles.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts) {
    for (name, policy) in &context.policy.roles {
        let Some(role) = context.oid(name).filter(|oid| *oid != crate::acl::PUBLIC_OID) else { continue };
        let here = wanted_here(context, policy);
        let everywhere: BTreeMap<String, String> =
            policy.cluster_settings.iter().map(|(k, v)| (k.to_lowercase(), v.0.clone())).collect();
        let database = format!(" IN DATABASE {}", ident(&context.observed.database.name));
        compare(context, role, &database, (&here, true), drafts);
        compare(context, role, "", (&everywhere, false), drafts);
    }
}

/// The settings that a role should have in this database.
fn wanted_here(context: &Context<'_>, policy: &RolePolicy) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> =
        policy.settings.iter().map(|(name, value)| (name.to_lowercase(), value.0.clone())).collect();
    if let Some(owner) = &policy.acts_as {
        wanted.insert("role".to_owned(), owner.clone());
    }
    let mut path: Vec<String> = Vec::new();
    for logical in &policy.search_path {
        if let Some(schema) = context.schema_named(logical)
            && !path.iter().any(|known| known == schema.name)
        {
            path.push(schema.name.to_owned());
        }
    }
    if !path.is_empty() {
        let quoted: Vec<String> = path.iter().map(|schema| ident(schema)).collect();
        wanted.insert("search_path".to_owned(), quoted.join(", "));
    }
    wanted
}

fn compare(
    context: &Context<'_>,
    role: Oid,
    scope: &str,
    (wanted, here_only): (&BTreeMap<String, String>, bool),
    drafts: &mut Drafts,
) {
    let empty = BTreeMap::new();
    let stored = context.observed.role_settings.iter().find(|s| s.role == role && s.here_only == here_only);
    let now = stored.map_or(&empty, |s| &s.values);
    let name = context.name(role);
    let subject = format!("role {name}");
    let alter = format!("ALTER ROLE {}{scope}", context.grantee(role));
    for (setting, value) in wanted {
        if now.get(setting).is_some_and(|now| same(setting, now, value)) {
            continue;
        }
        let reason =
            text::access::SETTING_DIFFERS.with("role", &name).with("setting", setting).with("value", value);
        let step = Step::new(Phase::RoleSettings, reason, &subject).risk(Risk::MayBreak).sql(format!(
            "{alter} SET {} = {}",
            setting_name(setting),
            written(setting, value)
        ));
        drafts.add(step);
    }
    for (setting, value) in now.iter().filter(|(setting, _)| !wanted.contains_key(*setting)) {
        let value = if looks_secret(setting) { obyra_evidence::MASK } else { value };
        let reason = text::access::SETTING_UNDECLARED
            .with("role", &name)
            .with("setting", setting)
            .with("value", value);
        let step = Step::new(Phase::RoleSettings, reason, &subject)
            .risk(Risk::MayBreak)
            .sql(format!("{alter} RESET {}", setting_name(setting)));
        drafts.remove(step);
    }
}

/// Whether a setting's name says that its value is a secret. Applications keep such things in
/// settings of their own, where every role can read them.
pub(crate) fn looks_secret(setting: &str) -> bool {
    let lower = setting.to_lowercase();
    let own = lower.contains('.');
    own && ["secret", "password", "passwd", "token", "api_key", "apikey", "private_key", "encryption_key"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Whether two spellings of a value mean the same.
fn same(setting: &str, now: &str, wanted: &str) -> bool {
    now == wanted || (LISTS.contains(&setting) && split_list(now) == split_list(wanted))
}

/// A value in SQL. Each name of a list is a literal of its own; one literal would be one name.
fn written(setting: &str, value: &str) -> String {
    match split_list(value).filter(|_| LISTS.contains(&setting)) {
        Some(names) => names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "),
        None => literal(value),
    }
}

/// A setting's name, whose parts are separated by dots.
fn setting_name(setting: &str) -> String {
    setting.split('.').map(ident).collect::<Vec<_>>().join(".")
}
