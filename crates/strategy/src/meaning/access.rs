//! Roles, schemas and sensitive tables that must exist in the file. What only the access room
//! can judge, it judges itself.

use std::collections::BTreeSet;

use obyra_evidence::text;

use super::notify::unknown;
use super::{Remark, Scene};
use crate::sections::secrets::Store;

pub(super) fn check(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    remarks.extend(scene.sections.access.check().into_iter().map(|(path, message)| {
        let path: Vec<&str> = std::iter::once("access").chain(path.iter().map(String::as_str)).collect();
        Remark::error(&path, message)
    }));
    file_names(scene, remarks);
    running_roles(scene, remarks);
    logical_names(scene, all, remarks);
    sensitive_tables(scene, remarks);
}

/// With the secrets in files, each role's name is a file's name.
fn file_names(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    if scene.sections.secrets.store != Store::File {
        return;
    }
    for role in scene.sections.access.roles.keys().filter(|role| role.starts_with('.') || role.contains('/'))
    {
        let message = text::strategy::ROLE_NO_FILE.with("role", role);
        remarks.push(Remark::error(&["access", "roles", role], message));
    }
}

/// Every table that `[security]` calls sensitive needs a decision in `[access.sensitive]`.
fn sensitive_tables(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let sections = scene.sections;
    for (index, table) in sections.security.sensitive_tables.iter().enumerate() {
        let path = ["security", "sensitive_tables", &index.to_string()];
        if !table.contains('.') {
            remarks.push(Remark::error(&path, text::strategy::TABLE_UNQUALIFIED.with("name", table)));
        } else if !sections.access.sensitive.contains_key(table) {
            let rule = format!("{table:?} = {{ ROLE = [\"id\"] }}");
            let message = text::strategy::SENSITIVE_WITHOUT_RULE.with("name", table);
            remarks.push(
                Remark::error(&path, message)
                    .mended_by(text::strategy::SENSITIVE_WITHOUT_RULE_MEND.with("rule", rule)),
            );
        }
    }
}

/// A name of the file and where it stands.
type Named<'a> = (Vec<String>, &'a str);

/// The roles that other sections name must be among those of `[access.roles]`.
fn running_roles(scene: &Scene<'_>, remarks: &mut Vec<Remark>) {
    let sections = scene.sections;
    let run_as = [("migrations", &sections.migrations.run_as), ("seeds", &sections.seeds.run_as)];
    let run_as =
        run_as.into_iter().filter_map(|(section, role)| Some((way(&[section, "run_as"]), role.as_deref()?)));
    let replica = scene.own.and_then(|own| own.replica.as_ref());
    let served = replica.into_iter().flat_map(|replica| listed(&["replica", "roles"], &replica.roles));

    let declared: BTreeSet<&str> = sections.access.declared().collect();
    for (path, role) in run_as.chain(served).filter(|(_, role)| !declared.contains(role)) {
        remarks.push(unknown(&path, text::strategy::ROLE_UNKNOWN, role, declared.iter().copied()));
    }
}

/// A logical schema name may be missing in one environment (development has no `audit`), but
/// not in all of them.
fn logical_names(scene: &Scene<'_>, all: &[Scene<'_>], remarks: &mut Vec<Remark>) {
    // What could not be read might define any name.
    if !all.iter().all(|scene| scene.schemas_read) {
        return;
    }
    let Some(known) = all.iter().map(|scene| scene.own).collect::<Option<Vec<_>>>() else { return };
    let known: BTreeSet<&str> = known.iter().flat_map(|own| own.schemas.keys()).map(String::as_str).collect();
    for (path, schema) in schemas_named(scene).into_iter().filter(|(_, schema)| !known.contains(schema)) {
        remarks.push(unknown(&path, text::strategy::SCHEMA_UNKNOWN, schema, known.iter().copied()));
    }
}

fn schemas_named<'a>(scene: &Scene<'a>) -> Vec<Named<'a>> {
    let access = &scene.sections.access;
    let mut named: Vec<Named<'a>> = Vec::new();
    for (name, role) in &access.roles {
        named.extend(keys(&["access", "roles", name, "schemas"], role.schemas.keys()));
        named.extend(listed(&["access", "roles", name, "search_path"], &role.search_path));
    }
    named.extend(keys(&["access", "schemas"], access.schemas.keys()));
    let of_tables = keys(&["access", "sensitive"], access.sensitive.keys())
        .chain(listed(&["access", "tenancy", "tables"], &access.tenancy.tables));
    named.extend(of_tables.filter_map(|(path, table)| Some((path, table.split_once('.')?.0))));
    if scene.declared.contains("seeds") {
        named.push((way(&["seeds", "schema"]), &scene.sections.seeds.schema));
    }
    // What schema-qualified search paths name besides ours is PostgreSQL's own.
    named.retain(|(_, schema)| !schema.starts_with("pg_") && *schema != "$user");
    named
}

fn keys<'a>(below: &[&str], keys: impl Iterator<Item = &'a String>) -> impl Iterator<Item = Named<'a>> {
    keys.map(move |key| (way(&[below, &[key.as_str()]].concat()), key.as_str()))
}

fn listed<'a>(below: &[&str], names: &'a [String]) -> impl Iterator<Item = Named<'a>> {
    let entries = names.iter().enumerate();
    entries.map(move |(at, name)| (way(&[below, &[at.to_string().as_str()]].concat()), name.as_str()))
}

fn way(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}
