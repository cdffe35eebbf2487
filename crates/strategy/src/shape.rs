//! The shape of the file: every value against the published JSON Schema, all faults at once.
//!
//! The schema that editors use is the schema that is checked here, so the two cannot differ.
//! Only the keywords that `schemars` writes are known; what a schema cannot say is checked in
//! `meaning`.

mod alternatives;
mod format;
mod spoken;

use std::ops::Range;

use obyra_evidence::{Message, text};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::path::Path;
pub(crate) use spoken::nearest;
use spoken::{expected, list, shown};

/// Whether keys that a table needs may still come from another layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// One layer: nothing is missing yet.
    Partial,
    /// All layers are merged: what is missing is missing.
    Whole,
}

/// One value that does not have the shape it must have.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// What to leave out so that the rest can be read.
    pub(crate) prune: Path,
    /// The key that is missing, if that is the fault.
    pub(crate) missing: Option<Path>,
    /// Where it stands.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: Message,
    /// What mends it.
    pub(crate) mend: Option<Message>,
}

/// A value on its way through the schema.
#[derive(Clone)]
struct Node<'t, 'i> {
    value: &'t DeValue<'i>,
    path: Path,
    /// What to point at: the value, or for a table the key that names it.
    span: Range<usize>,
}

/// Every fault of a table, by the whole schema (which `$ref` points into) and the table's own.
pub(crate) fn faults(
    table: &Spanned<DeTable<'_>>,
    (root, schema): (&Value, &Value),
    completeness: Completeness,
) -> Vec<Fault> {
    let mut walk = Walk { root, completeness, faults: Vec::new() };
    walk.table(schema, table.get_ref(), &Path::top(), &table.span());
    walk.faults
}

struct Walk<'s> {
    /// The whole schema, which `$ref` points into.
    root: &'s Value,
    completeness: Completeness,
    faults: Vec<Fault>,
}

impl<'s> Walk<'s> {
    fn value(&mut self, schema: &'s Value, node: &Node<'_, '_>) {
        let schema = self.resolve(schema);
        if let Some(alternatives) = alternatives::of(schema) {
            return self.alternatives(&alternatives, node);
        }
        if let Some(choices) = alternatives::choices(schema) {
            return self.choice(&choices, node);
        }
        if !has_type(schema, node.value) {
            return self.wrong_type(&[schema], node);
        }
        match node.value {
            DeValue::Table(table) => self.table(schema, table, &node.path, &node.span),
            DeValue::Array(array) => self.array(schema, array, node),
            DeValue::String(written) => self.string(schema, written, node),
            DeValue::Integer(_) | DeValue::Float(_) => self.number(schema, node),
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let Some(target) = self.root.pointer(reference.trim_start_matches('#')) else { break };
            schema = target;
        }
        schema
    }

    fn alternatives(&mut self, alternatives: &[&'s Value], node: &Node<'_, '_>) {
        let resolved: Vec<&'s Value> = alternatives.iter().map(|schema| self.resolve(schema)).collect();
        if let Some(choices) =
            resolved.iter().map(|schema| alternatives::choices(schema)).collect::<Option<Vec<_>>>()
        {
            return self.choice(&choices.concat(), node);
        }
        let fitting: Vec<&'s Value> =
            resolved.iter().copied().filter(|schema| self.may_hold(schema, node.value)).collect();
        match fitting.as_slice() {
            [] => self.wrong_type(&resolved, node),
            [only] => self.value(only, node),
            several => self.best_of(several, node),
        }
    }

    fn may_hold(&self, schema: &'s Value, value: &DeValue<'_>) -> bool {
        match alternatives::of(schema) {
            Some(inner) => inner.iter().any(|schema| self.may_hold(self.resolve(schema), value)),
            None if alternatives::choices(schema).is_some() => value.is_str(),
            None => has_type(schema, value),
        }
    }

    /// Of several schemas of the right type, the one that finds least fault is the one meant.
    fn best_of(&mut self, schemas: &[&'s Value], node: &Node<'_, '_>) {
        let tried = schemas.iter().map(|schema| {
            let mut walk = Walk { root: self.root, completeness: self.completeness, faults: Vec::new() };
            walk.value(schema, node);
            walk.faults
        });
        if let Some(faults) = tried.min_by_key(Vec::len) {
            self.faults.extend(faults);
        }
    }

    fn choice(&mut self, choices: &[&'s str], node: &Node<'_, '_>) {
        let written = node.value.as_str();
        if written.is_some_and(|written| choices.contains(&written)) {
            return;
        }
        let allowed = list(choices.iter().map(|choice| format!("{choice:?}")));
        let message = text::strategy::NOT_ALLOWED.with("value", shown(node.value)).with("allowed", allowed);
        let mend = written
            .and_then(|written| nearest(written, choices.iter().copied()))
            .map(|name| text::strategy::DID_YOU_MEAN.with("name", format!("{name:?}")));
        self.fault(node, message, mend);
    }

    fn table(&mut self, schema: &'s Value, table: &DeTable<'_>, path: &Path, span: &Range<usize>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let names = schema.pointer("/propertyNames/format").and_then(Value::as_str);
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            let node = Node {
                value: value.get_ref(),
                path: path.key(name),
                span: if value.get_ref().is_table() { key.span() } else { value.span() },
            };
            if let Some(complaint) = names.and_then(|format| format::check(format, name)) {
                let (message, mend) = (complaint.message.with("value", name), complaint.mend);
                self.faults.push(Fault { prune: node.path, missing: None, span: key.span(), message, mend });
                continue;
            }
            match (properties.and_then(|properties| properties.get(name)), others) {
                (Some(schema), _) => self.value(schema, &node),
                (None, Some(Value::Bool(false))) => {
                    let known = properties.into_iter().flatten().map(|(known, _)| known.as_str());
                    self.unknown_key(name, known.collect(), &node.path, key.span());
                }
                (None, Some(schema)) => self.value(schema, &node),
                (None, None) => {}
            }
        }
        if self.completeness == Completeness::Whole {
            self.required(schema, table, path, span);
        }
    }

    fn unknown_key(&mut self, name: &str, known: Vec<&str>, path: &Path, span: Range<usize>) {
        let mend = nearest(name, known.iter().copied())
            .map(|meant| text::strategy::DID_YOU_MEAN.with("name", crate::path::written(meant)));
        let message = text::strategy::UNKNOWN_KEY
            .with("key", crate::path::written(name))
            .with("allowed", list(known.into_iter().map(str::to_owned)));
        self.faults.push(Fault { prune: path.clone(), missing: None, span, message, mend });
    }

    fn required(&mut self, schema: &Value, table: &DeTable<'_>, path: &Path, span: &Range<usize>) {
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(key) {
                let message = text::strategy::MISSING_KEY.with("key", key);
                self.faults.push(Fault {
                    prune: path.clone(),
                    missing: Some(path.key(key)),
                    span: span.clone(),
                    message,
                    mend: None,
                });
            }
        }
    }

    fn array(&mut self, schema: &'s Value, array: &DeArray<'_>, node: &Node<'_, '_>) {
        let at_least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if (array.len() as u64) < at_least {
            self.fault(node, text::strategy::LIST_TOO_SHORT.with("min", at_least), None);
        }
        let Some(items) = schema.get("items") else { return };
        for (index, item) in array.iter().enumerate() {
            let node = Node { value: item.get_ref(), path: node.path.index(index), span: item.span() };
            self.value(items, &node);
        }
    }

    fn string(&mut self, schema: &Value, written: &str, node: &Node<'_, '_>) {
        let at_least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
        if (written.chars().count() as u64) < at_least {
            return self.fault(node, text::strategy::TEXT_EMPTY.message(), None);
        }
        let Some(format) = schema.get("format").and_then(Value::as_str) else { return };
        if let Some(complaint) = format::check(format, written) {
            self.fault(node, complaint.message.with("value", shown(node.value)), complaint.mend);
        }
    }

    fn number(&mut self, schema: &Value, node: &Node<'_, '_>) {
        let Some(number) = number(node.value) else {
            return self.fault(node, text::strategy::TOO_LARGE.with("value", shown(node.value)), None);
        };
        let limit = |keyword| schema.get(keyword).and_then(Value::as_f64);
        let (low, high) = (limit("minimum"), limit("maximum"));
        if low.is_none_or(|low| number >= low) && high.is_none_or(|high| number <= high) {
            return;
        }
        let message = match (low, high) {
            (Some(low), Some(high)) => text::strategy::OUT_OF_RANGE.with("min", low).with("max", high),
            (low, high) => text::strategy::TOO_SMALL.with("min", low.or(high).unwrap_or_default()),
        };
        self.fault(node, message.with("value", shown(node.value)), None);
    }

    fn wrong_type(&mut self, schemas: &[&Value], node: &Node<'_, '_>) {
        let names: Vec<&str> = schemas.iter().flat_map(|schema| alternatives::types(schema)).collect();
        let message = expected(&names).with("value", shown(node.value));
        let scalar = !matches!(node.value, DeValue::Table(_) | DeValue::Array(_) | DeValue::String(_));
        let mend = (scalar && names == ["string"])
            .then(|| text::strategy::BETWEEN_QUOTES.with("value", format!("\"{}\"", shown(node.value))));
        self.fault(node, message, mend);
    }

    fn fault(&mut self, node: &Node<'_, '_>, message: Message, mend: Option<Message>) {
        self.faults.push(Fault {
            prune: node.path.clone(),
            missing: None,
            span: node.span.clone(),
            message,
            mend,
        });
    }
}

/// Whether the schema takes values of this type at all.
fn has_type(schema: &Value, value: &DeValue<'_>) -> bool {
    let types = alternatives::types(schema);
    let name = match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        // A date may be written with quotes or without.
        DeValue::Datetime(time) if time.time.is_none() && is_date(schema) => "string",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    };
    types.is_empty() || types.contains(&name) || (name == "integer" && types.contains(&"number"))
}

fn is_date(schema: &Value) -> bool {
    schema.get("format").and_then(Value::as_str) == Some("date")
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        // Every limit of the strategy is far below where f64 loses integers.
        #[expect(clippy::cast_precision_loss, reason = "limits are small")]
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|integer| integer as f64)
        }
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}
