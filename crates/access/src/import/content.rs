//! What a grantee holds in a schema as a rule: for each kind of object, what it holds on most of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::held::{held, words};
use super::shelf::{Bucket, Shelf};
use crate::acl::PUBLIC_OID;
use crate::observe::{Observed, Oid};
use crate::policy::Profile;
use crate::privilege::{Held, Kind, Privileges};

/// What is held by kind of object, in the order of [`Bucket::ALL`]. `None` where the schema has no
/// such object, so that any answer is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Content([Option<Held>; 6]);

impl Content {
    pub fn get(&self, bucket: Bucket) -> Option<Held> {
        self.0[bucket as usize]
    }

    pub fn set(&mut self, bucket: Bucket, held: Held) {
        self.0[bucket as usize] = Some(held);
    }

    /// What is held, nothing where any answer is right. Views then follow tables.
    pub fn sure(&self, bucket: Bucket) -> Held {
        match self.get(bucket) {
            None if bucket == Bucket::Views => self.sure(Bucket::Tables),
            held => held.unwrap_or_default(),
        }
    }

    /// Whether nothing at all is held.
    pub fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(|held| held.is_empty())
    }

    /// In how many kinds any answer is right.
    pub fn unknowns(&self) -> usize {
        self.0.iter().filter(|held| held.is_none()).count()
    }

    /// Whether a level that is known in every kind says the same wherever this one says something.
    pub fn agrees_with(&self, level: &Content) -> bool {
        Bucket::ALL.into_iter().all(|bucket| self.get(bucket).is_none_or(|held| held == level.sure(bucket)))
    }

    /// The content of a level.
    pub fn of_profile(profile: &Profile) -> Content {
        let mut content = Content::default();
        let sum = |list: &[String], kind| {
            let wanted = list.iter().filter_map(|word| crate::privilege::Wanted::parse(word, kind));
            wanted.fold(Held::default(), |sum, w| sum.union(w.held))
        };
        content.set(Bucket::Schema, sum(&profile.schema, Kind::Schema));
        content.set(Bucket::Tables, sum(&profile.tables, Kind::Table));
        if let Some(views) = &profile.views {
            content.set(Bucket::Views, sum(views, Kind::Table));
        }
        content.set(Bucket::Sequences, sum(&profile.sequences, Kind::Sequence));
        content.set(Bucket::Routines, sum(&profile.routines, Kind::Routine));
        content.set(Bucket::Types, sum(&profile.types, Kind::Type));
        content
    }

    /// The level that says this.
    pub fn profile(&self) -> Profile {
        let list = |bucket: Bucket| words(self.sure(bucket), bucket.kind());
        let views = self.sure(Bucket::Views) != self.sure(Bucket::Tables);
        Profile {
            schema: list(Bucket::Schema),
            tables: list(Bucket::Tables),
            views: views.then(|| list(Bucket::Views)),
            sequences: list(Bucket::Sequences),
            routines: list(Bucket::Routines),
            types: list(Bucket::Types),
        }
    }
}

/// What each grantee holds in a schema as a rule.
pub(super) fn contents(observed: &Observed, shelf: &Shelf<'_>) -> BTreeMap<Oid, Content> {
    let schema = shelf.place.schema;
    let on_schema: HashMap<Oid, Held> =
        held(observed, schema.acl, Kind::Schema, schema.owner).into_iter().collect();
    let mut grantees: BTreeSet<Oid> = on_schema.keys().copied().collect();
    grantees.extend(shelf.groups.iter().flat_map(|group| group.held.iter().map(|(grantee, _)| *grantee)));
    let counts = Counts::of(shelf);
    let content = |grantee: Oid| {
        let mut content = Content::default();
        if grantee != schema.owner {
            let mut here = on_schema.get(&grantee).copied().unwrap_or_default();
            if grantee == PUBLIC_OID && schema.name == "public" {
                // That everybody may look into `public` is how PostgreSQL is shipped; nobody plans it.
                here = here.without(Held::plain(Privileges::USAGE));
            }
            content.set(Bucket::Schema, here);
        }
        for bucket in Bucket::ALL.into_iter().skip(1) {
            // No level may speak of what is left alone: it would be granted where it was taken away.
            let left_alone = is_left_alone(bucket, grantee).then(Held::default);
            if let Some(held) = left_alone.or_else(|| counts.most(bucket, grantee)) {
                content.set(bucket, held);
            }
        }
        (grantee, content)
    };
    grantees.into_iter().map(content).collect()
}

/// Whether nobody plans what a grantee holds: PUBLIC may use a type unless somebody took that
/// away, and either is left as it is.
pub(super) fn is_left_alone(bucket: Bucket, grantee: Oid) -> bool {
    bucket == Bucket::Types && grantee == PUBLIC_OID
}

/// How many objects there are, and on how many of them who holds what.
#[derive(Default)]
struct Counts {
    objects: HashMap<Bucket, usize>,
    owned: HashMap<(Bucket, Oid), usize>,
    held: HashMap<(Bucket, Oid), BTreeMap<Held, usize>>,
}

impl Counts {
    fn of(shelf: &Shelf<'_>) -> Counts {
        let mut counts = Counts::default();
        for group in &shelf.groups {
            let number = group.objects.len();
            *counts.objects.entry(group.bucket).or_default() += number;
            *counts.owned.entry((group.bucket, group.owner)).or_default() += number;
            for (grantee, held) in &group.held {
                let by_held = counts.held.entry((group.bucket, *grantee)).or_default();
                *by_held.entry(*held).or_default() += number;
            }
        }
        counts
    }

    /// What a grantee holds on most objects that are not its own; `None` when there are none.
    /// Where the numbers are equal, holding something is the rule for tables, and the exception
    /// for what is usually granted one by one.
    fn most(&self, bucket: Bucket, grantee: Oid) -> Option<Held> {
        let own = self.owned.get(&(bucket, grantee)).copied().unwrap_or_default();
        let all = self.objects.get(&bucket).copied().unwrap_or_default().saturating_sub(own);
        let by_held = self.held.get(&(bucket, grantee));
        let something: usize = by_held.iter().flat_map(|by_held| by_held.values()).sum();
        let nothing = all.saturating_sub(something);
        let most = by_held.into_iter().flatten().max_by_key(|(held, count)| (**count, **held));
        let tie_holds = matches!(bucket, Bucket::Tables | Bucket::Views);
        match most {
            Some((held, count)) if *count > nothing || (tie_holds && *count == nothing) => Some(*held),
            _ => (all > 0).then(Held::default),
        }
    }
}
