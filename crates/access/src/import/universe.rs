//! Sets of objects of one schema, in the strategy's patterns.

use std::collections::HashMap;

use super::cover::{Names, Part};
use super::shelf::{Bucket, Object, Shelf};
use crate::observe::Oid;
use crate::pattern::{Pattern, Subject};
use crate::quote::written;

/// The objects of a schema that one pattern could match. A pattern for tables matches views too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    TablesAndViews,
    Views,
    Sequences,
    Routines,
    Types,
}

impl Class {
    fn of(members: &[(Bucket, Object<'_>)]) -> Class {
        match members.first().map(|member| member.0) {
            Some(Bucket::Sequences) => Class::Sequences,
            Some(Bucket::Routines) => Class::Routines,
            Some(Bucket::Types) => Class::Types,
            _ if members.iter().all(|member| member.0 == Bucket::Views) => Class::Views,
            _ => Class::TablesAndViews,
        }
    }

    fn holds(self, bucket: Bucket) -> bool {
        match self {
            Class::TablesAndViews => matches!(bucket, Bucket::Tables | Bucket::Views),
            Class::Views => bucket == Bucket::Views,
            Class::Sequences => bucket == Bucket::Sequences,
            Class::Routines => bucket == Bucket::Routines,
            Class::Types => bucket == Bucket::Types,
        }
    }

    fn subject(self) -> Subject {
        match self {
            Class::TablesAndViews => Subject::Table,
            Class::Views => Subject::View,
            Class::Sequences => Subject::Sequence,
            Class::Routines => Subject::Routine,
            Class::Types => Subject::Type,
        }
    }
}

/// The objects of a class.
struct Members<'a> {
    objects: Vec<Object<'a>>,
    place: HashMap<Oid, usize>,
    names: Names,
}

/// The objects of a schema, for naming sets of them.
pub(super) struct Universe<'s, 'a> {
    shelf: &'s Shelf<'a>,
    classes: HashMap<Class, Members<'a>>,
}

/// A set of objects in words.
#[derive(Default)]
pub(super) struct Spoken {
    /// The patterns.
    pub patterns: Vec<String>,
    /// The objects that no pattern can name.
    pub unnamed: Vec<String>,
}

impl<'s, 'a> Universe<'s, 'a> {
    pub fn new(shelf: &'s Shelf<'a>) -> Self {
        Universe { shelf, classes: HashMap::new() }
    }

    /// Patterns that match these objects of one kind, and no others of the schema.
    pub fn name(&mut self, set: &[(Bucket, Object<'a>)]) -> Spoken {
        let class = Class::of(set);
        let shelf = self.shelf;
        let all = self.classes.entry(class).or_insert_with(|| Members::new(shelf, class));
        let places: Vec<usize> =
            set.iter().filter_map(|(_, object)| all.place.get(&object.oid).copied()).collect();
        let mut spoken = Spoken::default();
        for part in all.names.cover(&places) {
            let (name, object) = match &part {
                Part::Glob(glob) => (glob.as_str(), None),
                Part::Name(at) => (all.objects[*at].name, Some(all.objects[*at])),
            };
            let pattern = Pattern {
                subject: if object.is_some() { plain(class.subject()) } else { class.subject() },
                schema: shelf.place.logical.to_owned(),
                name: name.to_owned(),
                arguments: object.and_then(|o| o.arguments).map(str::to_owned),
            };
            let text = pattern.to_string();
            let faithful = Pattern::parse(&text).is_some_and(|read| read == pattern)
                && (object.is_none() || pattern.is_exact() || all.only_match(&pattern));
            if faithful { spoken.patterns.push(text) } else { spoken.unnamed.push(text) }
        }
        spoken
    }
}

/// A single view is named as the table that it looks like.
fn plain(subject: Subject) -> Subject {
    if subject == Subject::View { Subject::Table } else { subject }
}

impl<'a> Members<'a> {
    fn new(shelf: &Shelf<'a>, class: Class) -> Self {
        let groups = shelf.groups.iter().filter(|group| class.holds(group.bucket));
        let objects: Vec<Object<'a>> = groups.flat_map(|group| group.objects.iter().copied()).collect();
        Members {
            place: objects.iter().enumerate().map(|(at, object)| (object.oid, at)).collect(),
            names: Names::new(objects.iter().map(|object| object.name)),
            objects,
        }
    }
}

impl Members<'_> {
    /// Whether the star in an object's own name happens to match nothing else.
    fn only_match(&self, pattern: &Pattern) -> bool {
        let matches = |object: &&Object<'_>| {
            pattern.matches_name(&pattern.schema, object.name)
                && object.arguments.is_none_or(|arguments| pattern.matches_arguments(arguments))
        };
        !pattern.schema.contains('*') && self.objects.iter().filter(matches).count() == 1
    }
}

/// A table as `sensitive` and `tenancy` write it; `None` for a name that they would misread.
pub(super) fn table_path(schema: &str, name: &str) -> Option<String> {
    let path = format!("{}.{}", written(schema), written(name));
    let read = Pattern::table(&path)?;
    (read.is_exact() && read.schema == schema && read.name == name).then_some(path)
}
