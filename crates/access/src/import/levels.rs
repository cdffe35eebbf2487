//! Levels: one name for what many grantees hold in many schemas.

use std::collections::BTreeMap;

use super::content::Content;
use super::naming;
use crate::observe::Oid;
use crate::policy::{Policy, Profile};

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
            if levels.name(&content).is_none() {
                let profile = content.profile();
                let name = naming::name(&content, &|name| policy.profiles.contains_key(name));
                levels.known.push((name.clone(), Content::of_profile(&profile)));
                policy.profiles.insert(name, profile);
            }
        }
        levels
    }

    /// The level that says what a content says, if it says anything.
    pub fn name(&self, content: &Content) -> Option<&str> {
        self.level(content).map(|(name, _)| name.as_str())
    }

    /// The same with everything that the level says.
    pub fn level(&self, content: &Content) -> Option<&(String, Content)> {
        if content.is_empty() {
            return None;
        }
        self.known.iter().find(|(_, level)| content.agrees_with(level))
    }

    /// All levels, the built-in ones first.
    pub fn known(&self) -> impl Iterator<Item = (&str, &Content)> {
        self.known.iter().map(|(name, content)| (name.as_str(), content))
    }
}
