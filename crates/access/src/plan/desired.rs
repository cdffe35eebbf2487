//! What each role should hold on each object: its level in the schema, replaced by the best of
//! the exceptions that match. Objects under the same rules share one answer.

use std::collections::{BTreeMap, HashMap};

use super::bulk::Class;
use super::context::Context;
use super::diff::Desired;
use crate::observe::{Oid, Relation, RelationKind, Routine, Type};
use crate::pattern::{Pattern, Subject};
use crate::privilege::{Held, Wanted};

/// Privileges on columns: for each role and column.
pub(crate) type DesiredColumns = BTreeMap<Oid, BTreeMap<String, Held>>;

/// What roles should hold on an object and on its columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wish {
    pub(crate) whole: Desired,
    pub(crate) columns: DesiredColumns,
}

/// A wish among the [`Wishes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WishId(usize);

/// An exception of the policy.
struct Rule {
    pattern: Pattern,
    sensitive: bool,
    grants: BTreeMap<Oid, Vec<Wanted>>,
}

/// All exceptions, and the wishes that were made of them.
pub(crate) struct Wishes<'c, 'a> {
    context: &'c Context<'a>,
    rules: Vec<Rule>,
    /// Rules for one object, by schema and name.
    exact: HashMap<(usize, String), Vec<usize>>,
    patterns: Vec<usize>,
    relations: HashMap<Oid, &'a Relation>,
    made: HashMap<(usize, Class, Vec<usize>), WishId>,
    wishes: Vec<Wish>,
}

impl<'c, 'a> Wishes<'c, 'a> {
    pub(crate) fn new(context: &'c Context<'a>) -> Wishes<'c, 'a> {
        let rules = rules(context);
        let mut exact: HashMap<(usize, String), Vec<usize>> = HashMap::new();
        let mut patterns = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            if !rule.pattern.is_exact() {
                patterns.push(at);
                continue;
            }
            let schema = context.schemas.iter().position(|s| s.logical.contains(&&*rule.pattern.schema));
            if let Some(schema) = schema {
                exact.entry((schema, rule.pattern.name.clone())).or_default().push(at);
            }
        }
        let parents = &context.observed.parents;
        let relations = match parents.is_empty() {
            true => HashMap::new(),
            false => context.observed.relations.iter().map(|r| (r.oid, r)).collect(),
        };
        Wishes { context, rules, exact, patterns, relations, made: HashMap::new(), wishes: Vec::new() }
    }

    pub(crate) fn get(&self, id: WishId) -> &Wish {
        &self.wishes[id.0]
    }

    pub(crate) fn relation(&mut self, schema: usize, relation: &Relation) -> WishId {
        let matches = |pattern: &Pattern, logical: &str| pattern.matches_relation(logical, relation);
        let mut rules = self.matching(schema, &relation.name, &matches);
        // Whoever may not read a table must not read its partitions either.
        let mut above = self.context.observed.parents.get(&relation.oid);
        while let Some(parent) = above.and_then(|oid| self.relations.get(oid)) {
            let Some((at, _)) = self.context.schema_of(parent.schema) else { break };
            if !rules.iter().any(|rule| self.rules[*rule].pattern.is_exact()) {
                let matches = |pattern: &Pattern, logical: &str| pattern.matches_relation(logical, parent);
                let inherited = self.matching(at, &parent.name, &matches);
                rules.extend(inherited.into_iter().filter(|rule| self.rules[*rule].pattern.is_exact()));
            }
            above = self.context.observed.parents.get(&parent.oid);
        }
        self.make(schema, class_of(relation.kind), rules)
    }

    pub(crate) fn routine(&mut self, schema: usize, routine: &Routine) -> WishId {
        let rules = self.matching(schema, &routine.name, &|pattern, logical| {
            pattern.subject == Subject::Routine
                && pattern.matches_name(logical, &routine.name)
                && pattern.matches_arguments(&routine.arguments)
        });
        self.make(schema, Class::Routine, rules)
    }

    pub(crate) fn type_(&mut self, schema: usize, type_: &Type) -> WishId {
        let rules = self.matching(schema, &type_.name, &|pattern, logical| {
            pattern.subject == Subject::Type && pattern.matches_name(logical, &type_.name)
        });
        self.make(schema, Class::Type, rules)
    }

    /// The rules that match an object, those for it alone first.
    fn matching(&self, schema: usize, name: &str, matches: &dyn Fn(&Pattern, &str) -> bool) -> Vec<usize> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let logical = &self.context.schemas[schema].logical;
        let fits =
            |rule: &&usize| logical.iter().any(|logical| matches(&self.rules[**rule].pattern, logical));
        let exact = self.exact.get(&(schema, name.to_owned())).into_iter().flatten();
        exact.chain(&self.patterns).filter(fits).copied().collect()
    }

    fn make(&mut self, schema: usize, class: Class, rules: Vec<usize>) -> WishId {
        if let Some(id) = self.made.get(&(schema, class, rules.clone())) {
            return *id;
        }
        let wish = self.compose(schema, class, &rules);
        self.wishes.push(wish);
        let id = WishId(self.wishes.len() - 1);
        self.made.insert((schema, class, rules), id);
        id
    }

    fn compose(&self, schema: usize, class: Class, rules: &[usize]) -> Wish {
        let mut wish = Wish::default();
        for (role, level) in &self.context.schemas[schema].levels {
            let held = match class {
                Class::Table => level.tables,
                Class::View => level.views,
                Class::Sequence => level.sequences,
                Class::Routine => level.routines,
                Class::Type => level.types,
            };
            if !held.is_empty() {
                wish.whole.insert(*role, held);
            }
        }
        let mut best: BTreeMap<Oid, &Rule> = BTreeMap::new();
        for rule in rules.iter().map(|at| &self.rules[*at]) {
            for role in rule.grants.keys() {
                let known = best.entry(*role).or_insert(rule);
                if weight(rule) > weight(known) {
                    *known = rule;
                }
            }
        }
        for (role, rule) in best {
            wish.replace(role, &rule.grants[&role]);
        }
        wish
    }
}

impl Wish {
    /// Puts an exception in the place of a role's level.
    fn replace(&mut self, role: Oid, wanted: &[Wanted]) {
        self.whole.remove(&role);
        for entry in wanted {
            if entry.columns.is_empty() {
                let held = self.whole.entry(role).or_default();
                *held = held.union(entry.held);
            }
            for column in &entry.columns {
                let columns = self.columns.entry(role).or_default();
                let held = columns.entry(column.clone()).or_default();
                *held = held.union(entry.held);
            }
        }
    }
}

fn weight(rule: &Rule) -> (bool, (bool, usize)) {
    (rule.sensitive, rule.pattern.weight())
}

pub(crate) fn class_of(kind: RelationKind) -> Class {
    match kind {
        RelationKind::Sequence => Class::Sequence,
        RelationKind::View | RelationKind::Materialized => Class::View,
        RelationKind::Table | RelationKind::Partitioned | RelationKind::Foreign => Class::Table,
    }
}

/// The exceptions under `objects` and `sensitive`, with roles resolved and privileges read.
fn rules(context: &Context<'_>) -> Vec<Rule> {
    let objects = context.policy.objects.iter().filter_map(|(text, grants)| {
        let pattern = Pattern::parse(text)?;
        let kind = pattern.subject.kind();
        let grants = grants.iter().filter_map(|(role, list)| {
            let wanted = list.iter().filter_map(|entry| Wanted::parse(entry, kind)).collect();
            Some((context.oid(role)?, wanted))
        });
        let grants = grants.collect();
        Some(Rule { pattern, sensitive: false, grants })
    });
    let sensitive = context.policy.sensitive.iter().filter_map(|(table, roles)| {
        let grants = roles.iter().filter_map(|(role, columns)| Some((context.oid(role)?, readable(columns))));
        let grants = grants.collect();
        Some(Rule { pattern: Pattern::table(table)?, sensitive: true, grants })
    });
    objects.chain(sensitive).collect()
}

/// `SELECT` on these columns; on none of them, nothing.
fn readable(columns: &[String]) -> Vec<Wanted> {
    match columns {
        [] => Vec::new(),
        _ => vec![Wanted {
            held: Held::plain(crate::privilege::Privileges::SELECT),
            columns: columns.to_vec(),
        }],
    }
}
