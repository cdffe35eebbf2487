//! Roles, schemas and sensitive tables that must exist in the file. What only the access room
//! can judge, it judges itself.

use std::collections::BTreeSet;

use obyra_evidence::text;

use super::notify::unknown;
use super::{Remark, Scene};

pub(super) fn check(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    let sections = scene.sections;
    running_roles(scene, remarks);
    logical_names(scene, all, remarks);
    for (index, table) in sections.security.sensitive_tables.iter().enumerate() {
        let path = format!("security.sensitive_tables[{index}]");
        if !table.contains('.') {
            remarks.push(Remark::error(path, text::strategy::TABLE_UNQUALIFIED.with("name", table)));
        } else if !sections.access.sensitive.contains_key(table) {
            let rule = format!("{table:?} = {{ ROLE = [\"id\"] }}");
            let message = text::strategy::SENSITIVE_WITHOUT_RULE.with("name", table);
            remarks.push(
                Remark::error(path, message)
                    .mended_by(text::strategy::SENSITIVE_WITHOUT_RULE_MEND.with("rule", rule)),
            );
        }
    }
}

/// The roles that other sections name must be among those of `[access.roles]`.
fn running_roles(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let sections = scene.sections;
    let mut named: Vec<(String, &str)> = Vec::new();
    let run_as =
        [("migrations.run_as", &sections.migrations.run_as), ("seeds.run_as", &sections.seeds.run_as)];
    named.extend(run_as.into_iter().filter_map(|(path, role)| Some((path.to_owned(), role.as_deref()?))));
    let replica = scene.own.and_then(|own| own.replica.as_ref());
    let served = replica.into_iter().flat_map(|replica| replica.roles.iter().enumerate());
    named.extend(served.map(|(index, role)| (format!("replica.roles[{index}]"), role.as_str())));

    let declared: BTreeSet<&str> = sections.access.declared().collect();
    for (path, role) in named.into_iter().filter(|(_, role)| !declared.contains(role)) {
        remarks.push(unknown(path, text::strategy::ROLE_UNKNOWN, role, declared.iter().copied()));
    }
}

/// A logical schema name may be missing in one environment (development has no `audit`), but
/// not in all of them.
fn logical_names(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    // An environment that could not be read might define any name.
    let Some(known) = all.iter().map(|scene| scene.own).collect::<Option<Vec<_>>>() else { return };
    let known: BTreeSet<&str> = known.iter().flat_map(|own| own.schemas.keys()).map(String::as_str).collect();
    let access = &scene.sections.access;
    let mut used: Vec<(String, &str)> = Vec::new();
    for (name, role) in &access.roles {
        used.extend(
            role.schemas
                .keys()
                .map(|schema| (format!("access.roles.{name}.schemas.{schema}"), schema.as_str())),
        );
        let path = role.search_path.iter().enumerate();
        used.extend(
            path.map(|(at, schema)| (format!("access.roles.{name}.search_path[{at}]"), schema.as_str())),
        );
    }
    used.extend(access.schemas.keys().map(|schema| (format!("access.schemas.{schema}"), schema.as_str())));
    used.extend(
        access
            .sensitive
            .keys()
            .filter_map(|table| Some((format!("access.sensitive.{table:?}"), table.split_once('.')?.0))),
    );
    let tenants = access.tenancy.tables.iter().enumerate();
    used.extend(
        tenants.filter_map(|(at, table)| {
            Some((format!("access.tenancy.tables[{at}]"), table.split_once('.')?.0))
        }),
    );
    for (path, schema) in used.into_iter().filter(|(_, schema)| !known.contains(schema)) {
        remarks.push(unknown(path, text::strategy::SCHEMA_UNKNOWN, schema, known.iter().copied()));
    }
}
