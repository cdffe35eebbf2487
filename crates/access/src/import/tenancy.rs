//! The tables on which row security is enabled.

use std::collections::{HashMap, HashSet};

use obyra_evidence::{Finding, Severity, text};

use super::scope::Scope;
use super::universe::table_path;
use crate::observe::{Oid, Relation};
use crate::policy::{Policy, Tenancy};

/// Writes the section `tenancy`. It declares a table together with all its partitions, and whether
/// row security binds owners for all tables alike. A table that fits into neither is left out.
pub(super) fn write(scope: &Scope<'_>, policy: &mut Policy) -> Vec<Finding> {
    let relations: HashMap<Oid, &Relation> = scope.observed.relations.iter().map(|r| (r.oid, r)).collect();
    let mut children: HashMap<Oid, Vec<Oid>> = HashMap::new();
    for (child, parent) in &scope.observed.parents {
        children.entry(*parent).or_default().push(*child);
    }
    let guarded: Vec<(&Relation, Option<bool>)> = (scope.observed.relations.iter())
        .filter(|relation| relation.row_security)
        .map(|relation| (relation, forced(&family(relation, &relations, &children))))
        .collect();
    let count = |wanted: bool| guarded.iter().filter(|(_, forced)| *forced == Some(wanted)).count();
    let force = count(true) > count(false);
    let mut findings = Vec::new();
    let mut tenancy = Tenancy { tables: Vec::new(), force };
    for (relation, forced) in guarded {
        let Some(place) = scope.place(relation.schema) else { continue };
        match table_path(place.logical, &relation.name).filter(|_| forced == Some(force)) {
            Some(path) => tenancy.tables.push(path),
            None => {
                let subject = format!("table {}.{}", place.logical, relation.name);
                let message = text::access::IMPORT_TENANCY_MIXED.with("table", &subject);
                findings.push(Finding::new(Severity::Warning, subject, message));
            }
        }
    }
    tenancy.tables.sort_unstable();
    policy.tenancy = tenancy;
    findings
}

/// A table with everything that inherits from it.
fn family<'a>(
    root: &'a Relation,
    relations: &HashMap<Oid, &'a Relation>,
    children: &HashMap<Oid, Vec<Oid>>,
) -> Vec<&'a Relation> {
    let mut seen = HashSet::from([root.oid]);
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let below = children.get(&parent.oid).into_iter().flatten().filter(|oid| seen.insert(**oid));
        let below: Vec<&Relation> = below.filter_map(|oid| relations.get(oid).copied()).collect();
        family.extend(below);
        next += 1;
    }
    family
}

/// Whether row security binds the owners of a family; `None` when its tables differ.
fn forced(family: &[&Relation]) -> Option<bool> {
    let forced = family.first()?.row_security_forced;
    family.iter().all(|t| t.row_security && t.row_security_forced == forced).then_some(forced)
}
