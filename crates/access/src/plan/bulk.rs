//! Equal changes to many objects become one statement: `GRANT SELECT ON TABLE a, b, c TO r, s`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use obyra_evidence::text;

use super::context::Context;
use super::diff::Difference;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::Oid;
use crate::privilege::Privileges;

/// More objects than this in one statement would make it hard to read in a log.
const OBJECTS_PER_STATEMENT: usize = 500;
/// More names than this in a reason would make it hard to read at all.
const NAMES_PER_REASON: usize = 4;

/// The word for a kind of object in `GRANT … ON <word>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Table,
    View,
    Sequence,
    Routine,
    Type,
}

impl Class {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Class::Table | Class::View => "TABLE",
            Class::Sequence => "SEQUENCE",
            Class::Routine => "ROUTINE",
            Class::Type => "TYPE",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Class::Table => "table",
            Class::View => "view",
            Class::Sequence => "sequence",
            Class::Routine => "function",
            Class::Type => "type",
        }
    }
}

/// Which way privileges go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    Grant {
        option: &'static str,
    },
    /// As the owner, or as another grantor.
    Revoke {
        option: &'static str,
        grantor: Option<Oid>,
        cascade: bool,
    },
}

impl Way {
    fn is_revoke(self) -> bool {
        matches!(self, Way::Revoke { .. })
    }
}

/// A change that many objects may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Change {
    way: Way,
    schema: usize,
    class: Class,
    privileges: Privileges,
    owner: Oid,
    as_owner: bool,
}

/// Changes with, for each grantee, the objects that need them.
#[derive(Default)]
pub(crate) struct Bulk {
    changes: BTreeMap<Change, BTreeMap<Oid, Vec<u32>>>,
}

impl Bulk {
    /// Notes what objects of one owner in one schema need.
    pub(crate) fn note(&mut self, place: (usize, Class, Oid), difference: &Difference, objects: &[u32]) {
        let (schema, class, owner) = place;
        let mut put = |way, privileges: Privileges, grantee| {
            if !privileges.is_empty() {
                let as_owner = difference.as_owner;
                let change = Change { way, schema, class, privileges, owner, as_owner };
                self.changes.entry(change).or_default().entry(grantee).or_default().extend(objects);
            }
        };
        for (grantee, held) in &difference.grants {
            for (part, option) in held.grants() {
                put(Way::Grant { option }, part, *grantee);
            }
        }
        for excess in &difference.revokes {
            let grantor = (excess.grantor != owner).then_some(excess.grantor);
            for (part, option) in excess.held.revokes() {
                put(Way::Revoke { option, grantor, cascade: excess.cascade }, part, excess.grantee);
            }
        }
    }

    /// Makes the steps. `name` gives the SQL name of an object.
    pub(crate) fn finish(
        self,
        context: &Context<'_>,
        drafts: &mut Drafts,
        name: &dyn Fn(Class, u32) -> String,
    ) {
        for (change, by_grantee) in self.changes {
            let mut same: HashMap<Vec<u32>, Vec<Oid>> = HashMap::new();
            for (grantee, mut objects) in by_grantee {
                objects.sort_unstable();
                objects.dedup();
                same.entry(objects).or_default().push(grantee);
            }
            let mut groups: Vec<_> = same.into_iter().collect();
            for (_, grantees) in &mut groups {
                grantees.sort_by_cached_key(|grantee| context.name(*grantee));
            }
            groups.sort_by_cached_key(|(objects, grantees)| {
                (objects.first().copied(), grantees.first().map(|grantee| context.name(*grantee)))
            });
            for (objects, grantees) in groups {
                let names: Vec<String> = objects.iter().map(|at| name(change.class, *at)).collect();
                let step = change.step(context, &names, &grantees);
                if change.way.is_revoke() { drafts.remove(step) } else { drafts.add(step) }
            }
        }
    }
}

impl Change {
    fn step(&self, context: &Context<'_>, names: &[String], grantees: &[Oid]) -> Step {
        let roles: Vec<String> = grantees.iter().map(|g| context.name(*g)).collect();
        let word = self.class.word();
        let subject = match names {
            [one] => format!("{word} {one}"),
            _ => format!("{word} {}.*", context.schemas[self.schema].name),
        };
        let (code, phase, risk) = if self.way.is_revoke() {
            (text::access::REVOKE_OBJECTS, Phase::Revokes, Risk::RemovesAccess)
        } else {
            (text::access::GRANT_OBJECTS, Phase::Grants, Risk::AddsAccess)
        };
        let reason = code
            .with("roles", roles.join(", "))
            .with("privileges", self.described())
            .with("objects", described(word, names));
        let mut step =
            Step::new(phase, reason, subject).risk(risk).acting_for(context.name(self.owner)).locking(1);
        let to: Vec<String> = grantees.iter().map(|g| context.grantee(*g)).collect();
        for chunk in names.chunks(OBJECTS_PER_STATEMENT) {
            step = self.statements(context, step, &chunk.join(", "), &to.join(", "));
        }
        step
    }

    fn described(&self) -> String {
        let (Way::Grant { option } | Way::Revoke { option, .. }) = self.way;
        if option.is_empty() {
            self.privileges.to_string()
        } else {
            format!("{} WITH GRANT OPTION", self.privileges)
        }
    }

    fn statements(&self, context: &Context<'_>, step: Step, objects: &str, to: &str) -> Step {
        let on = format!("{} ON {} {objects}", self.privileges, self.class.sql());
        let owner = self.as_owner.then_some(self.owner);
        match self.way {
            Way::Grant { option } => as_grantor(context, step, owner, format!("GRANT {on} TO {to}{option}")),
            Way::Revoke { option, grantor, cascade } => {
                let statement = format!("REVOKE {option}{on} FROM {to}{}", cascading(cascade));
                as_grantor(context, step, grantor.or(owner), statement)
            }
        }
    }
}

pub(super) fn cascading(cascade: bool) -> &'static str {
    if cascade { " CASCADE" } else { "" }
}

/// PostgreSQL lets nobody revoke what another grantor gave: the statement would succeed and do
/// nothing. Whoever revokes must be that grantor for a moment.
pub(super) fn as_grantor(context: &Context<'_>, step: Step, grantor: Option<Oid>, statement: String) -> Step {
    match grantor {
        None => step.sql(statement),
        Some(grantor) => step
            .acting_for(context.name(grantor))
            .sql(format!("SET LOCAL ROLE {}", context.grantee(grantor)))
            .sql(statement)
            .sql("RESET ROLE"),
    }
}

/// A few names of a list, and how many there are in all.
pub(super) fn described(word: &str, names: &[String]) -> String {
    if let [one] = names {
        return format!("{word} {one}");
    }
    let mut text = format!("{word} {}", names[..names.len().min(NAMES_PER_REASON)].join(", "));
    if names.len() > NAMES_PER_REASON {
        let _ = write!(text, ", … ({})", names.len());
    }
    text
}
