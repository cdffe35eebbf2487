//! Who descends from whom. Identifiers may be abbreviated in Alembic's commands, never in its files.

use std::collections::{BTreeMap, BTreeSet};

use super::RevisionFile;

/// The graph of the revisions whose identifiers are known; the first of two with the same one counts.
pub(super) struct Lineage<'r> {
    /// By identifier.
    pub by_id: BTreeMap<&'r str, &'r RevisionFile>,
    parents: BTreeMap<&'r str, Vec<&'r str>>,
}

impl<'r> Lineage<'r> {
    pub fn of(revisions: &'r [RevisionFile]) -> Self {
        let mut by_id = BTreeMap::new();
        for revision in revisions.iter().filter(|revision| revision.read_by_alembic) {
            if let Some(id) = revision.revision.known() {
                by_id.entry(id.as_str()).or_insert(revision);
            }
        }
        let known = |ids: &'r [String]| {
            ids.iter().filter_map(|id| by_id.get_key_value(id.as_str()).map(|(id, _)| *id))
        };
        let parents = by_id.iter().map(|(id, revision)| {
            let parents = revision.down_revision.known().map(Vec::as_slice).unwrap_or_default();
            (*id, known(parents).collect())
        });
        let parents = parents.collect();
        Lineage { by_id, parents }
    }

    /// The parents of a revision that exist.
    pub fn parents(&self, id: &str) -> &[&'r str] {
        self.parents.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every revision before one.
    pub fn ancestors(&self, id: &str) -> BTreeSet<&'r str> {
        let mut found = BTreeSet::new();
        let mut pending: Vec<&'r str> = self.parents(id).to_vec();
        while let Some(next) = pending.pop() {
            if found.insert(next) {
                pending.extend(self.parents(next));
            }
        }
        found
    }

    /// Revisions that no other one follows.
    pub fn heads(&self) -> Vec<&'r str> {
        let followed: BTreeSet<&str> = self.parents.values().flatten().copied().collect();
        self.by_id.keys().copied().filter(|id| !followed.contains(id)).collect()
    }

    /// Revisions that say that nothing comes before them.
    pub fn bases(&self) -> Vec<&'r RevisionFile> {
        let is_base = |revision: &&&RevisionFile| revision.down_revision.known().is_some_and(Vec::is_empty);
        self.by_id.values().filter(is_base).copied().collect()
    }

    /// A revision and its way back to itself, for each cycle.
    pub fn cycles(&self) -> Vec<Vec<&'r str>> {
        let mut cycles = Vec::new();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for start in self.by_id.keys().copied() {
            let mut way: Vec<&'r str> = Vec::new();
            self.descend(start, &mut way, &mut done, &mut cycles);
        }
        cycles
    }

    /// Walks from child to parent without recursion: a chain may be long.
    fn descend(
        &self,
        start: &'r str,
        way: &mut Vec<&'r str>,
        done: &mut BTreeSet<&'r str>,
        cycles: &mut Vec<Vec<&'r str>>,
    ) {
        let mut on_way: BTreeMap<&str, usize> = BTreeMap::new();
        let mut stack: Vec<(&'r str, usize)> = vec![(start, 0)];
        while let Some((id, next)) = stack.pop() {
            if next == 0 {
                if done.contains(id) {
                    continue;
                }
                if let Some(at) = on_way.get(id) {
                    cycles.push(way[*at..].to_vec());
                    continue;
                }
                on_way.insert(id, way.len());
                way.push(id);
            }
            match self.parents(id).get(next) {
                Some(parent) => {
                    stack.push((id, next + 1));
                    stack.push((parent, 0));
                }
                None => {
                    way.pop();
                    on_way.remove(id);
                    done.insert(id);
                }
            }
        }
    }
}
