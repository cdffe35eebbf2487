//! Privileges on tables, views, sequences, routines and types.

use std::collections::HashMap;

use super::bulk::{Bulk, Class};
use super::columns::{self, ColumnPlan};
use super::context::Context;
use super::desired::{WishId, Wishes, class_of};
use super::diff::{Actual, Difference, with_owner};
use super::draft::Drafts;
use super::owners::Owners;
use crate::acl::AclId;
use crate::observe::Oid;
use crate::privilege::{Kind, Privileges};
use crate::quote;

/// One object, as far as its privileges go.
#[derive(Clone, Copy)]
struct Object {
    at: u32,
    schema: usize,
    class: Class,
    acl: AclId,
    owner: Oid,
    new_owner: Oid,
    wish: WishId,
}

/// Objects that agree in all of this differ from the policy in the same way.
type Alike = (AclId, WishId, Oid, Oid);

/// Compares objects, each kind of case once.
struct Comparison<'c, 'a> {
    context: &'c Context<'a>,
    known: HashMap<Alike, usize>,
    cases: Vec<(Object, Difference, Vec<u32>)>,
}

impl Comparison<'_, '_> {
    /// The case of an object; the object is noted under it.
    fn case(&mut self, object: Object, wishes: &Wishes<'_, '_>) -> &Difference {
        let alike = (object.acl, object.wish, object.owner, object.new_owner);
        let case = match self.known.get(&alike) {
            Some(case) => *case,
            None => {
                let difference = self.compare(object, wishes);
                self.cases.push((object, difference, Vec::new()));
                self.known.insert(alike, self.cases.len() - 1);
                self.cases.len() - 1
            }
        };
        let (_, difference, objects) = &mut self.cases[case];
        if !difference.is_empty() {
            objects.push(object.at);
        }
        difference
    }

    fn compare(&self, object: Object, wishes: &Wishes<'_, '_>) -> Difference {
        let kind = kind_of(object.class);
        let stored = self.context.acl(object.acl, kind, object.owner);
        let acl = with_owner(&stored, object.owner, object.new_owner);
        // PUBLIC may use every type unless somebody took that away: nobody's secret, nobody's business.
        let public_untouched = if kind == Kind::Type { Privileges::USAGE } else { Privileges::NONE };
        let actual = Actual { acl: &acl, owner: object.new_owner, public_untouched, of_table: None };
        self.context.difference(&wishes.get(object.wish).whole, &actual)
    }
}

fn kind_of(class: Class) -> Kind {
    match class {
        Class::Table | Class::View => Kind::Table,
        Class::Sequence => Kind::Sequence,
        Class::Routine => Kind::Routine,
        Class::Type => Kind::Type,
    }
}

/// Plans the privileges on objects. With `only_of`, on those that this role owns and no others.
pub(crate) fn plan(context: &Context<'_>, owners: &Owners, drafts: &mut Drafts, only_of: Option<Oid>) {
    let mut wishes = Wishes::new(context);
    let mut comparison = Comparison { context, known: HashMap::new(), cases: Vec::new() };
    let mut columns = ColumnPlan::new(context);
    let mine = |owner: Oid| only_of.is_none_or(|role| role == owner);
    let observed = context.observed;
    for (at, (relation, new_owner)) in observed.relations.iter().zip(&owners.relations).enumerate() {
        let Some((schema, _)) = context.schema_of(relation.schema) else { continue };
        if !mine(relation.owner) {
            continue;
        }
        let wish = wishes.relation(schema, relation);
        let class = class_of(relation.kind);
        let object = Object {
            at: at as u32,
            schema,
            class,
            acl: relation.acl,
            owner: relation.owner,
            new_owner: *new_owner,
            wish,
        };
        let difference = comparison.case(object, &wishes);
        columns.relation(relation, *new_owner, wishes.get(wish), difference);
    }
    for (at, (routine, new_owner)) in observed.routines.iter().zip(&owners.routines).enumerate() {
        let Some((schema, _)) = context.schema_of(routine.schema) else { continue };
        if mine(routine.owner) {
            let wish = wishes.routine(schema, routine);
            let (acl, owner, new_owner) = (routine.acl, routine.owner, *new_owner);
            let at = at as u32;
            comparison
                .case(Object { at, schema, class: Class::Routine, acl, owner, new_owner, wish }, &wishes);
        }
    }
    for (at, (type_, new_owner)) in observed.types.iter().zip(&owners.types).enumerate() {
        let Some((schema, _)) = context.schema_of(type_.schema) else { continue };
        if mine(type_.owner) {
            let wish = wishes.type_(schema, type_);
            let (acl, owner, new_owner) = (type_.acl, type_.owner, *new_owner);
            let at = at as u32;
            comparison.case(Object { at, schema, class: Class::Type, acl, owner, new_owner, wish }, &wishes);
        }
    }
    let mut bulk = Bulk::default();
    for (object, difference, objects) in &comparison.cases {
        if !objects.is_empty() {
            bulk.note((object.schema, object.class, object.new_owner), difference, objects);
        }
    }
    bulk.finish(context, drafts, &|class, at| sql_name(context, class, at as usize));
    columns::finish(columns, drafts);
}

/// The name of an object in SQL.
fn sql_name(context: &Context<'_>, class: Class, at: usize) -> String {
    let observed = context.observed;
    let (schema, name, arguments) = match class {
        Class::Routine => {
            let routine = &observed.routines[at];
            (routine.schema, &routine.name, Some(&routine.arguments))
        }
        Class::Type => (observed.types[at].schema, &observed.types[at].name, None),
        Class::Table | Class::View | Class::Sequence => {
            (observed.relations[at].schema, &observed.relations[at].name, None)
        }
    };
    let schema = context.schema_of(schema).map_or("", |(_, managed)| managed.name);
    let name = quote::qualified(schema, name);
    arguments.map_or(name.clone(), |arguments| format!("{name}({arguments})"))
}
