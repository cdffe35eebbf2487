//! Privileges on columns. They follow those on tables, because revoking from the table also
//! takes the same privilege away from its columns.

use std::collections::{BTreeMap, HashMap};

use obyra_evidence::{Finding, Severity, text};

use super::bulk::{as_grantor, cascading};
use super::context::Context;
use super::desired::{DesiredColumns, Wish};
use super::diff::{Actual, Desired, Difference, with_owner};
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::acl::AclItem;
use crate::observe::{ColumnAcl, Oid, Relation, TableDetail};
use crate::policy::Mode;
use crate::privilege::{Held, Privileges};
use crate::quote;

/// Who gets or loses what on which columns of one table.
#[derive(Default)]
struct Columns<'a> {
    as_owner: bool,
    grants: BTreeMap<(Oid, Privileges, &'static str), Vec<&'a str>>,
    /// By grantee, grantor, and whether others depend on it.
    revokes: BTreeMap<(Oid, Oid, bool, Privileges, &'static str), Vec<&'a str>>,
}

/// Plans column by column and collects what was found.
pub(crate) struct ColumnPlan<'c, 'a> {
    context: &'c Context<'a>,
    stored: HashMap<Oid, Vec<&'a ColumnAcl>>,
    details: HashMap<Oid, &'a TableDetail>,
    steps: Vec<(bool, Step)>,
    findings: Vec<Finding>,
}

impl<'c, 'a> ColumnPlan<'c, 'a> {
    pub(crate) fn new(context: &'c Context<'a>) -> ColumnPlan<'c, 'a> {
        let mut stored: HashMap<Oid, Vec<&ColumnAcl>> = HashMap::new();
        for column in &context.observed.columns {
            stored.entry(column.relation).or_default().push(column);
        }
        let details = context.observed.details.iter().map(|d| (d.relation, d)).collect();
        ColumnPlan { context, stored, details, steps: Vec::new(), findings: Vec::new() }
    }

    /// Plans the columns of a table, after what is planned for the table itself.
    pub(crate) fn relation(&mut self, relation: &Relation, owner: Oid, wish: &Wish, table: &Difference) {
        if wish.columns.is_empty() && !self.stored.contains_key(&relation.oid) {
            return;
        }
        let schema = self.context.schema_of(relation.schema).map_or("", |(_, s)| s.name);
        let table_name = quote::qualified(schema, &relation.name);
        self.unknown_columns(relation, wish, &table_name);
        let stored = self.stored.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        let known = self.details.get(&relation.oid).map(|d| &d.columns);
        let mut names: Vec<&str> = stored.iter().map(|c| c.name.as_str()).collect();
        for column in wish.columns.values().flat_map(BTreeMap::keys) {
            if !names.contains(&column.as_str()) && known.is_none_or(|known| known.contains(column)) {
                names.push(column);
            }
        }
        names.sort_unstable();
        let mut columns = Columns { as_owner: table.as_owner, ..Columns::default() };
        for name in names {
            let list = stored.iter().find(|c| c.name == name).and_then(|c| self.context.observed.acl(c.acl));
            let list = with_owner(list.unwrap_or_default(), relation.owner, owner);
            let list = self.after_table(&list, table);
            let of_table = Some(&wish.whole);
            let actual = Actual { acl: &list, owner, public_untouched: Privileges::NONE, of_table };
            let difference = self.context.difference(&desired(&wish.columns, name), &actual);
            columns.note(name, difference);
        }
        let made = columns.steps(self.context, &table_name, owner);
        self.steps.extend(made);
    }

    /// What is left of a column's list once the table's revokes have run, where the mode lets them.
    fn after_table(&self, list: &[AclItem], table: &Difference) -> Vec<AclItem> {
        if self.context.mode() != Mode::Authoritative {
            return list.to_vec();
        }
        let wiped = |grantee: Oid| {
            let of = table.revokes.iter().filter(|excess| excess.grantee == grantee);
            of.fold(Held::default(), |sum, excess| {
                let both = excess.held.privileges | excess.held.grantable;
                sum.union(Held { privileges: excess.held.privileges, grantable: both })
            })
        };
        list.iter()
            .map(|item| AclItem { held: item.held.without(wiped(item.grantee)), ..*item })
            .filter(|item| !item.held.is_empty())
            .collect()
    }

    fn unknown_columns(&mut self, relation: &Relation, wish: &Wish, table: &str) {
        let Some(detail) = self.details.get(&relation.oid) else { return };
        let mut named: Vec<&String> = wish.columns.values().flat_map(BTreeMap::keys).collect();
        named.sort_unstable();
        named.dedup();
        for column in named.into_iter().filter(|column| !detail.columns.contains(column)) {
            let message = text::access::COLUMN_MISSING.with("table", table).with("column", column);
            self.findings.push(Finding::new(Severity::Error, format!("table {table}"), message));
        }
    }
}

/// What each role should hold on one column.
fn desired(columns: &DesiredColumns, name: &str) -> Desired {
    columns.iter().filter_map(|(role, by_name)| Some((*role, *by_name.get(name)?))).collect()
}

impl<'a> Columns<'a> {
    fn note(&mut self, column: &'a str, difference: Difference) {
        self.as_owner |= difference.as_owner;
        for (grantee, held) in difference.grants {
            for (part, option) in held.grants() {
                self.grants.entry((grantee, part, option)).or_default().push(column);
            }
        }
        for excess in difference.revokes {
            for (part, option) in excess.held.revokes() {
                let key = (excess.grantee, excess.grantor, excess.cascade, part, option);
                self.revokes.entry(key).or_default().push(column);
            }
        }
    }

    /// The steps, each with whether it takes something away.
    fn steps(self, context: &Context<'_>, table: &str, owner: Oid) -> Vec<(bool, Step)> {
        let mut steps = Vec::new();
        let as_owner = self.as_owner.then_some(owner);
        let subject = format!("table {table}");
        let reason = |code: obyra_evidence::Code, role: Oid, on: &str| {
            code.with("roles", context.name(role)).with("privileges", on).with("objects", &subject)
        };
        for ((grantee, grantor, cascade, privileges, option), columns) in self.revokes {
            let on = with_columns(privileges, &columns);
            let step =
                Step::new(Phase::Columns, reason(text::access::REVOKE_OBJECTS, grantee, &on), &subject)
                    .risk(Risk::RemovesAccess)
                    .acting_for(context.name(owner));
            let from = context.grantee(grantee);
            let statement = format!("REVOKE {option}{on} ON TABLE {table} FROM {from}{}", cascading(cascade));
            let grantor = (grantor != owner).then_some(grantor).or(as_owner);
            steps.push((true, as_grantor(context, step, grantor, statement)));
        }
        for ((grantee, privileges, option), columns) in self.grants {
            let on = with_columns(privileges, &columns);
            let step = Step::new(Phase::Columns, reason(text::access::GRANT_OBJECTS, grantee, &on), &subject)
                .risk(Risk::AddsAccess)
                .acting_for(context.name(owner));
            let statement = format!("GRANT {on} ON TABLE {table} TO {}{option}", context.grantee(grantee));
            steps.push((false, as_grantor(context, step, as_owner, statement)));
        }
        steps
    }
}

/// `SELECT (a, b), UPDATE (a, b)`.
fn with_columns(privileges: Privileges, columns: &[&str]) -> String {
    let columns: Vec<String> = columns.iter().map(|c| quote::ident(c)).collect();
    let columns = columns.join(", ");
    privileges.words().map(|word| format!("{word} ({columns})")).collect::<Vec<_>>().join(", ")
}

/// Hands over what was collected.
pub(crate) fn finish(plan: ColumnPlan<'_, '_>, drafts: &mut Drafts) {
    for (removes, step) in plan.steps {
        if removes { drafts.remove(step) } else { drafts.add(step) }
    }
    for finding in plan.findings {
        drafts.find(finding);
    }
}
