//! The tables on which row security is enabled.

use obyra_evidence::{Finding, Severity, text};

use super::scope::Scope;
use super::universe::table_path;
use crate::policy::{Policy, Tenancy};

/// Writes the section `tenancy`.
pub(super) fn write(scope: &Scope<'_>, policy: &mut Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tenancy = Tenancy::default();
    let guarded = scope.observed.relations.iter().filter(|relation| relation.row_security);
    let guarded: Vec<_> =
        guarded.filter_map(|relation| Some((scope.place(relation.schema)?, relation))).collect();
    tenancy.force = !guarded.is_empty() && guarded.iter().all(|(_, table)| table.row_security_forced);
    for (place, table) in guarded {
        match table_path(place.logical, &table.name) {
            Some(path) => tenancy.tables.push(path),
            None => {
                let subject = format!("table {}.{}", place.logical, table.name);
                findings.push(Finding::new(Severity::Warning, subject, text::access::IMPORT_UNNAMED));
            }
        }
    }
    tenancy.tables.sort_unstable();
    policy.tenancy = tenancy;
    findings
}
