//! What the policy implies for each role in the end: its own privileges, PUBLIC's, and those of
//! every role that it reaches through declared memberships.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::bulk::Class;
use super::context::Context;
use super::desired::{Wish, WishId, Wishes, class_of};
use super::memberships;
use crate::acl::{AclId, PUBLIC_OID};
use crate::observe::{Observed, Oid};
use crate::policy::Policy;
use crate::privilege::{Held, Kind, Privileges};
use crate::quote;
use crate::target::{Target, is_protected};

/// What the answer to a question should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// The role has the privilege.
    Must,
    /// It may have it, as an owner has what it did not give away.
    May,
    /// It has not.
    MustNot,
}

/// Whether a role has a privilege on an object.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) role: Oid,
    pub(crate) kind: &'static str,
    pub(crate) object: Oid,
    /// The object for people.
    pub(crate) name: String,
    /// Empty for the whole object.
    pub(crate) column: String,
    pub(crate) privilege: &'static str,
    pub(crate) expected: Expectation,
}

/// The policy with its memberships followed.
pub(crate) struct Implied<'a> {
    context: Context<'a>,
}

/// A role that is asked about, with all roles that it reaches.
struct Subject {
    role: Oid,
    reach: BTreeSet<Oid>,
    /// Whether it reaches a role of PostgreSQL's or the provider's, of which we cannot know what
    /// it may do.
    open_ended: bool,
}

/// What is asked about one object.
struct Object<'o> {
    kind: &'static str,
    oid: Oid,
    name: &'o str,
    owner: Oid,
}

impl<'a> Implied<'a> {
    pub(crate) fn new(policy: &'a Policy, target: &'a Target, observed: &'a Observed) -> Implied<'a> {
        Implied { context: Context::new(policy, target, observed) }
    }

    /// Everything that is worth asking: schemas, one object of each kind of case, and each column
    /// of each sensitive table.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let subjects = self.subjects();
        let mut wishes = Wishes::new(&self.context);
        let mut questions = Vec::new();
        self.schemas(&subjects, &mut questions);
        self.relations(&subjects, &mut wishes, &mut questions);
        self.routines(&subjects, &mut wishes, &mut questions);
        self.columns(&subjects, &mut wishes, &mut questions);
        questions
    }

    /// The declared roles whose access follows from the policy alone.
    fn subjects(&self) -> Vec<Subject> {
        let context = &self.context;
        let edges = memberships::desired(context);
        let protected = |oid: &Oid| is_protected(&context.name(*oid));
        (context.declared.iter())
            .filter(|oid| context.role(**oid).is_some_and(|r| !r.superuser && r.oid != context.me()))
            .map(|role| (*role, self.with_database_owner(reach(*role, &edges))))
            .filter(|(_, reach)| !reach.contains(&context.me()))
            .map(|(role, reach)| Subject { role, open_ended: reach.iter().any(protected), reach })
            .collect()
    }

    /// Whoever owns the database is a member of `pg_database_owner`, though no catalogue says so.
    fn with_database_owner(&self, mut reach: BTreeSet<Oid>) -> BTreeSet<Oid> {
        if reach.contains(&self.context.observed.database.owner) {
            reach.extend(self.context.oid("pg_database_owner"));
        }
        reach
    }

    fn schemas(&self, subjects: &[Subject], questions: &mut Vec<Question>) {
        for managed in &self.context.schemas {
            let Some(schema) = managed.found else { continue };
            let held: BTreeMap<Oid, Held> =
                managed.levels.iter().map(|(role, level)| (*role, level.schema)).collect();
            let object = Object { kind: "schema", oid: schema.oid, name: managed.name, owner: schema.owner };
            // PUBLIC may look into `public`; whether it may is not asked.
            let all = match managed.name {
                "public" => Privileges::CREATE,
                _ => Privileges::all(Kind::Schema, 16),
            };
            ask(subjects, &object, all, &held, questions);
        }
    }

    fn relations(&self, subjects: &[Subject], wishes: &mut Wishes<'_, 'a>, questions: &mut Vec<Question>) {
        let mut seen: HashSet<(AclId, Oid, WishId)> = HashSet::new();
        for relation in &self.context.observed.relations {
            let Some((at, managed)) = self.context.schema_of(relation.schema) else { continue };
            let wish = wishes.relation(at, relation);
            if !seen.insert((relation.acl, relation.owner, wish)) {
                continue;
            }
            let (kind, all) = match class_of(relation.kind) {
                Class::Sequence => ("sequence", Privileges::all(Kind::Sequence, 16)),
                _ => ("table", Privileges::all(Kind::Table, 16)),
            };
            let name = quote::qualified(managed.name, &relation.name);
            let object = Object { kind, oid: relation.oid, name: &name, owner: relation.owner };
            ask(subjects, &object, all, &wishes.get(wish).whole, questions);
        }
    }

    fn routines(&self, subjects: &[Subject], wishes: &mut Wishes<'_, 'a>, questions: &mut Vec<Question>) {
        let mut seen: HashSet<(AclId, Oid, WishId)> = HashSet::new();
        for routine in &self.context.observed.routines {
            let Some((at, managed)) = self.context.schema_of(routine.schema) else { continue };
            let wish = wishes.routine(at, routine);
            if seen.insert((routine.acl, routine.owner, wish)) {
                let name = quote::qualified(managed.name, &routine.name);
                let object = Object { kind: "routine", oid: routine.oid, name: &name, owner: routine.owner };
                ask(subjects, &object, Privileges::EXECUTE, &wishes.get(wish).whole, questions);
            }
        }
    }

    /// The columns of the tables that have rules for columns.
    fn columns(&self, subjects: &[Subject], wishes: &mut Wishes<'_, 'a>, questions: &mut Vec<Question>) {
        let observed = self.context.observed;
        for relation in &observed.relations {
            let Some(detail) = observed.details.iter().find(|d| d.relation == relation.oid) else { continue };
            let Some((at, managed)) = self.context.schema_of(relation.schema) else { continue };
            let wish = wishes.relation(at, relation);
            let wish: &Wish = wishes.get(wish);
            let name = quote::qualified(managed.name, &relation.name);
            for column in &detail.columns {
                let mut held = wish.whole.clone();
                for (role, columns) in &wish.columns {
                    if let Some(more) = columns.get(column) {
                        let sum = held.entry(*role).or_default();
                        *sum = sum.union(*more);
                    }
                }
                let object = Object { kind: "column", oid: relation.oid, name: &name, owner: relation.owner };
                let from = questions.len();
                ask(subjects, &object, Privileges::SELECT | Privileges::UPDATE, &held, questions);
                for question in &mut questions[from..] {
                    question.column.clone_from(column);
                }
            }
        }
    }
}

/// Every role that a role reaches: memberships that neither inherit nor allow `SET ROLE` lead nowhere.
fn reach(role: Oid, edges: &BTreeMap<(Oid, Oid), memberships::Options>) -> BTreeSet<Oid> {
    let mut seen = BTreeSet::from([role]);
    let mut open = vec![role];
    while let Some(member) = open.pop() {
        for ((above, _), _) in edges.iter().filter(|((_, m), o)| *m == member && (o.inherit || o.set)) {
            if seen.insert(*above) {
                open.push(*above);
            }
        }
    }
    seen
}

fn ask(
    subjects: &[Subject],
    object: &Object<'_>,
    all: Privileges,
    held: &BTreeMap<Oid, Held>,
    questions: &mut Vec<Question>,
) {
    let public = held.get(&PUBLIC_OID).copied().unwrap_or_default().privileges;
    for subject in subjects {
        let given =
            subject.reach.iter().filter_map(|role| held.get(role)).fold(public, |sum, h| sum | h.privileges);
        let owns = subject.reach.contains(&object.owner);
        for (privilege, word) in all.each().zip(all.words()) {
            let expected = match (given.contains(privilege), owns) {
                // What reaches it may itself depend on owning; the owner may have given its share away.
                (_, true) => Expectation::May,
                (true, false) => Expectation::Must,
                (false, false) if subject.open_ended => Expectation::May,
                (false, false) => Expectation::MustNot,
            };
            questions.push(Question {
                role: subject.role,
                kind: object.kind,
                object: object.oid,
                name: object.name.to_owned(),
                column: String::new(),
                privilege: word,
                expected,
            });
        }
    }
}
