//! Levels: one name for what many grantees hold in many schemas.

use std::collections::BTreeMap;

use super::content::Content;
use super::defaults::same_future;
use super::naming;
use super::scope::Scope;
use super::shelf::{Bucket, Shelf};
use crate::observe::Oid;
use crate::policy::{Policy, Profile};
use crate::privilege::{Held, Privileges};

/// What each grantee holds in a schema as a rule.
pub(super) type Contents = BTreeMap<Oid, Content>;

/// Names for contents: built-in levels where they say the same, profiles of the policy elsewhere.
pub(super) struct Levels {
    known: Vec<(String, Content)>,
}

impl Levels {
    /// Finds or makes a level for each content, and adds the made ones to the policy. What is most
    /// certain and most frequent comes first, so that the rest can agree with it.
    pub fn of<'c>(contents: impl Iterator<Item = &'c Content>, policy: &mut Policy) -> Levels {
        let builtin = Profile::BUILTIN.into_iter().filter_map(|name| {
            Profile::builtin(name).map(|profile| (name.to_owned(), Content::of_profile(&profile)))
        });
        let mut levels = Levels { known: builtin.collect() };
        let mut counts: BTreeMap<Content, usize> = BTreeMap::new();
        for content in contents.filter(|content| !content.is_empty()) {
            *counts.entry(*content).or_default() += 1;
        }
        let mut order: Vec<(Content, usize)> = counts.into_iter().collect();
        order.sort_by_key(|(content, count)| (content.unknowns(), std::cmp::Reverse(*count)));
        for (content, _) in order {
            if levels.level(&content).is_none() {
                levels.add(&content, policy);
            }
        }
        levels
    }

    /// The level that says what a content says, if it says anything, with all that the level says.
    pub fn level(&self, content: &Content) -> Option<&(String, Content)> {
        if content.is_empty() {
            return None;
        }
        self.known.iter().find(|(_, level)| content.agrees_with(level))
    }

    /// A level for objects to come only, of which the part on the schema means nothing.
    pub fn for_future(&mut self, future: &Content, policy: &mut Policy) -> String {
        if let Some((name, _)) = self.known.iter().find(|(_, level)| same_future(level, future)) {
            return name.clone();
        }
        let mut content = *future;
        content.set(Bucket::Schema, Held::plain(Privileges::USAGE));
        self.add(&content, policy)
    }

    /// Adds a profile to the policy.
    fn add(&mut self, content: &Content, policy: &mut Policy) -> String {
        let profile = content.profile();
        let name = naming::name(content, &|name| policy.profiles.contains_key(name));
        self.known.push((name.clone(), Content::of_profile(&profile)));
        policy.profiles.insert(name.clone(), profile);
        name
    }
}

/// Writes the level of each grantee in each schema.
pub(super) fn write(
    scope: &Scope<'_>,
    shelves: &[Shelf<'_>],
    contents: &[Contents],
    policy: &mut Policy,
) -> Levels {
    let levels = Levels::of(contents.iter().flat_map(|contents| contents.values()), policy);
    for (shelf, contents) in shelves.iter().zip(contents) {
        for (grantee, content) in contents {
            if let (Some(name), Some((level, _))) = (scope.grantee(*grantee), levels.level(content)) {
                let role = policy.roles.entry(name.to_owned()).or_default();
                role.schemas.insert(shelf.place.logical.to_owned(), level.clone());
            }
        }
    }
    levels
}
