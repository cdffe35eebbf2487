//! The file's values with their spans: laid over one another, looked up, cut back.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::path::{Path, Step};

/// Lays one table over another: tables merge, anything else replaces, lists included.
pub(crate) fn overlay<'i>(below: &mut DeTable<'i>, above: &DeTable<'i>) {
    for (key, value) in above.iter() {
        let merged =
            below.get_mut(key.get_ref().as_ref()).is_some_and(|old| match (old.get_mut(), value.get_ref()) {
                (DeValue::Table(old), DeValue::Table(new)) => {
                    overlay(old, new);
                    true
                }
                _ => false,
            });
        if !merged {
            // Removed first, so that the key's span is the one of the layer that won.
            below.remove(key.get_ref().as_ref());
            below.insert(key.clone(), value.clone());
        }
    }
}

/// Takes a value out. An array's later elements move up.
pub(crate) fn prune(root: &mut DeTable<'_>, path: &Path) {
    let Some((last, way)) = path.0.split_last() else {
        root.clear();
        return;
    };
    let Some((first, rest)) = way.split_first() else {
        if let Step::Key(key) = last {
            root.remove(key.as_str());
        }
        return;
    };
    let Step::Key(key) = first else { return };
    let Some(mut value) = root.get_mut(key.as_str()).map(Spanned::get_mut) else { return };
    for step in rest {
        let Some(next) = child_mut(value, step) else { return };
        value = next;
    }
    match (value, last) {
        (DeValue::Table(table), Step::Key(key)) => drop(table.remove(key.as_str())),
        (DeValue::Array(array), Step::Index(index)) => *array = without(array, *index),
        _ => {}
    }
}

fn child_mut<'t, 'i>(value: &'t mut DeValue<'i>, step: &Step) -> Option<&'t mut DeValue<'i>> {
    match (value, step) {
        (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()).map(Spanned::get_mut),
        (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index).map(Spanned::get_mut),
        _ => None,
    }
}

fn without<'i>(array: &DeArray<'i>, index: usize) -> DeArray<'i> {
    let mut kept = DeArray::new();
    for (at, value) in array.iter().enumerate() {
        if at != index {
            kept.push(value.clone());
        }
    }
    kept
}

/// The span that tells a reader where a path stands: of the value if it is there, else of
/// the deepest thing on the way to it. Tables are shown at their key.
pub(crate) fn span_of(root: &DeTable<'_>, path: &Path) -> Option<Range<usize>> {
    let mut found = None;
    let mut table = Some(root);
    let mut array: Option<&DeArray<'_>> = None;
    for step in &path.0 {
        let value = match step {
            Step::Key(key) => {
                let Some((key, value)) = table.and_then(|table| table.get_key_value(key.as_str())) else {
                    break;
                };
                found = Some(if value.get_ref().is_table() { key.span() } else { value.span() });
                value
            }
            Step::Index(index) => {
                let Some(value) = array.and_then(|array| array.get(*index)) else { break };
                found = Some(value.span());
                value
            }
        };
        table = value.get_ref().as_table();
        array = value.get_ref().as_array();
    }
    found
}

/// The path of the deepest value whose span holds this offset.
pub(crate) fn path_at(root: &DeTable<'_>, span: &Range<usize>) -> Option<Path> {
    let mut best: Option<(usize, Path)> = None;
    visit_table(root, &Path::top(), &mut |path, at| {
        let holds = at.start <= span.start && span.end <= at.end;
        let length = at.end - at.start;
        if holds && best.as_ref().is_none_or(|(shortest, _)| length <= *shortest) {
            best = Some((length, path.clone()));
        }
    });
    best.map(|(_, path)| path)
}

fn visit_table(table: &DeTable<'_>, path: &Path, seen: &mut impl FnMut(&Path, Range<usize>)) {
    for (key, value) in table.iter() {
        let path = path.key(key.get_ref());
        seen(&path, key.span());
        visit_value(value, &path, seen);
    }
}

fn visit_value(value: &Spanned<DeValue<'_>>, path: &Path, seen: &mut impl FnMut(&Path, Range<usize>)) {
    seen(path, value.span());
    match value.get_ref() {
        DeValue::Table(table) => visit_table(table, path, seen),
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                visit_value(value, &path.index(index), seen);
            }
        }
        _ => {}
    }
}

/// Follows a path of keys and positions as far as it leads; the rest names what is not there.
pub(crate) fn follow(root: &DeTable<'_>, written: &[String]) -> Path {
    let Some((first, rest)) = written.split_first() else { return Path::top() };
    let mut path = Path::top().key(first);
    let mut value = root.get(first.as_str()).map(Spanned::get_ref);
    for name in rest {
        let step = match value {
            Some(DeValue::Array(_)) => name.parse().map_or(Step::Key(name.clone()), Step::Index),
            _ => Step::Key(name.clone()),
        };
        value = value.and_then(|value| child(value, &step));
        path = path.step(step);
    }
    path
}

fn child<'t, 'i>(value: &'t DeValue<'i>, step: &Step) -> Option<&'t DeValue<'i>> {
    match (value, step) {
        (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str()).map(Spanned::get_ref),
        (DeValue::Array(array), Step::Index(index)) => array.get(*index).map(Spanned::get_ref),
        _ => None,
    }
}
