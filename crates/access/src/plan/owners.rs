//! Who owns what, and the steps that make it so.

use std::collections::{BTreeMap, HashMap};

use obyra_evidence::{Finding, Severity, text};

use super::bulk::{Class, described};
use super::context::Context;
use super::desired::class_of;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::{Oid, Relation, RelationKind};
use crate::pattern::{Pattern, Subject};
use crate::privilege::{Kind, Privileges};
use crate::quote;
use crate::target::is_protected;

/// What `ALTER TABLE … OWNER` locks: the table, its indexes, its TOAST table, its sequences.
const LOCKS_PER_TABLE: u64 = 5;

/// The owner that each object will have, in the order of [`crate::Observed`]'s lists.
pub(crate) struct Owners {
    pub(crate) relations: Vec<Oid>,
    pub(crate) routines: Vec<Oid>,
    pub(crate) types: Vec<Oid>,
}

impl Owners {
    /// Everything stays with its owner.
    pub(crate) fn as_they_are(context: &Context<'_>) -> Owners {
        let observed = context.observed;
        Owners {
            relations: observed.relations.iter().map(|r| r.owner).collect(),
            routines: observed.routines.iter().map(|r| r.owner).collect(),
            types: observed.types.iter().map(|t| t.owner).collect(),
        }
    }

    /// The owners that the policy wants.
    pub(crate) fn wanted(context: &Context<'_>) -> Owners {
        let exceptions: Vec<(Pattern, Oid)> = context
            .policy
            .owners
            .iter()
            .filter_map(|(text, role)| Some((Pattern::parse(text)?, context.oid(role)?)))
            .collect();
        let best = |schema: Oid, now: Oid, fits: &dyn Fn(&Pattern, &str) -> bool| {
            let Some((_, managed)) = context.schema_of(schema) else { return now };
            let exception = exceptions
                .iter()
                .filter(|(pattern, _)| managed.logical.iter().any(|logical| fits(pattern, logical)))
                .max_by_key(|(pattern, _)| pattern.weight());
            match exception {
                Some((_, owner)) => *owner,
                None if managed.owner_declared => managed.owner,
                None => now,
            }
        };
        let observed = context.observed;
        let mut relations: Vec<Oid> = observed
            .relations
            .iter()
            .map(|r| best(r.schema, r.owner, &|p, logical| p.matches_relation(logical, r)))
            .collect();
        sequences_follow(&observed.relations, &mut relations);
        let routines = observed.routines.iter().map(|r| {
            best(r.schema, r.owner, &|p, logical| {
                p.subject == Subject::Routine
                    && p.matches_name(logical, &r.name)
                    && p.matches_arguments(&r.arguments)
            })
        });
        let types = observed.types.iter().map(|t| {
            best(t.schema, t.owner, &|p, logical| {
                p.subject == Subject::Type && p.matches_name(logical, &t.name)
            })
        });
        Owners { routines: routines.collect(), types: types.collect(), relations }
    }
}

/// A sequence that belongs to a column goes with its table, and only with it.
fn sequences_follow(relations: &[Relation], owners: &mut [Oid]) {
    if relations.iter().all(|r| r.column_of.is_none()) {
        return;
    }
    let at: HashMap<Oid, usize> = relations.iter().enumerate().map(|(at, r)| (r.oid, at)).collect();
    for (sequence, relation) in relations.iter().enumerate() {
        if let Some(table) = relation.column_of.and_then(|oid| at.get(&oid)) {
            owners[sequence] = owners[*table];
        }
    }
}

/// The objects that change hands together.
type Moves = BTreeMap<(usize, Class, Oid, Oid), Vec<String>>;

/// Plans the changes of owner.
pub(crate) fn plan(context: &Context<'_>, owners: &Owners, drafts: &mut Drafts) {
    let observed = context.observed;
    let mut moves = Moves::new();
    let mut note = |schema: Oid, class, from: Oid, to: Oid, statement: &dyn Fn(&str) -> String| {
        if let Some((at, managed)) = context.schema_of(schema)
            && from != to
        {
            moves.entry((at, class, from, to)).or_default().push(statement(managed.name));
        }
    };
    for (relation, to) in observed.relations.iter().zip(&owners.relations) {
        if relation.column_of.is_some() {
            continue;
        }
        let class = class_of(relation.kind);
        note(relation.schema, class, relation.owner, *to, &|schema| {
            let word = if relation.kind == RelationKind::Sequence { "SEQUENCE" } else { "TABLE" };
            format!("{word} {}", quote::qualified(schema, &relation.name))
        });
    }
    for (routine, to) in observed.routines.iter().zip(&owners.routines) {
        note(routine.schema, Class::Routine, routine.owner, *to, &|schema| {
            format!("ROUTINE {}({})", quote::qualified(schema, &routine.name), routine.arguments)
        });
    }
    for (type_, to) in observed.types.iter().zip(&owners.types) {
        note(type_.schema, Class::Type, type_.owner, *to, &|schema| {
            format!("TYPE {}", quote::qualified(schema, &type_.name))
        });
    }
    for ((at, class, from, to), objects) in moves {
        steps(context, drafts, (at, class, from, to), &objects);
    }
}

fn steps(
    context: &Context<'_>,
    drafts: &mut Drafts,
    (at, class, from, to): (usize, Class, Oid, Oid),
    objects: &[String],
) {
    let (old, new) = (context.name(from), context.name(to));
    let subject = format!("{} {}.*", class.word(), context.schemas[at].name);
    if is_protected(&old) {
        let message = text::access::OWNER_PROTECTED.with("owner", &old).with("subject", &subject);
        drafts.find(Finding::new(Severity::Warning, subject, message));
        return;
    }
    let weight = if class == Class::Table { LOCKS_PER_TABLE } else { 1 };
    let per_step = usize::try_from(batch_limit(context) / weight).unwrap_or(1).max(1);
    for chunk in objects.chunks(per_step) {
        let names: Vec<String> =
            chunk.iter().map(|o| o.split_once(' ').map_or(o.clone(), |(_, name)| name.to_owned())).collect();
        let reason = text::access::OWNER_WRONG
            .with("objects", described(class.word(), &names))
            .with("old", &old)
            .with("new", &new);
        let subject =
            if let [one] = &names[..] { format!("{} {one}", class.word()) } else { subject.clone() };
        let mut step = Step::new(Phase::Owners, reason, subject)
            .risk(Risk::MayBlock)
            .acting_for(&old)
            .acting_for(&new)
            .locking(chunk.len() as u64 * weight);
        let lent = lends_create(context, at, to);
        let schema = quote::ident(context.schemas[at].name);
        if lent {
            step = step
                .acting_for(context.name(context.schemas[at].owner))
                .sql(format!("GRANT CREATE ON SCHEMA {schema} TO {}", context.grantee(to)));
        }
        for object in chunk {
            step = step.sql(format!("ALTER {object} OWNER TO {}", context.grantee(to)));
        }
        if lent {
            step = step.sql(format!("REVOKE CREATE ON SCHEMA {schema} FROM {}", context.grantee(to)));
        }
        drafts.add(step);
    }
}

/// Whether a new owner must be lent the right to create in the schema for a moment: who is no
/// superuser may give objects only to who could have made them.
fn lends_create(context: &Context<'_>, schema: usize, to: Oid) -> bool {
    let managed = &context.schemas[schema];
    let creates = |held: &crate::privilege::Held| held.privileges.contains(Privileges::CREATE);
    let holds = managed.found.is_some_and(|s| {
        let acl = context.acl(s.acl, Kind::Schema, s.owner);
        acl.iter().any(|item| item.grantee == to && creates(&item.held))
    });
    !context.is_superuser() && to != managed.owner && !holds
}

/// How many locks one transaction may take: half of the table, which others need too.
pub(crate) fn batch_limit(context: &Context<'_>) -> u64 {
    (context.observed.server.lock_capacity / 2).max(1)
}
