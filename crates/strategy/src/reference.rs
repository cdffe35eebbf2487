//! The reference of the file in Markdown: an introduction, and every key from the schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The parts of the file in the order of the strategy document, each with its section there.
const PARTS: [(&str, &str); 12] = [
    ("environments", "2"),
    ("monitor", "2"),
    ("access", "3"),
    ("secrets", "3"),
    ("migrations", "4"),
    ("seeds", "4"),
    ("backup", "5"),
    ("security", "6"),
    ("alerts", "6"),
    ("runbook", "6, 8"),
    ("waivers", "7"),
    ("anonymize", "8"),
];

const INTRODUCTION: &str = include_str!("reference/intro.md");

/// Renders `docs/strategy-file.md` from the schema.
pub fn render_reference(schema: &Value) -> String {
    let mut page = Page { schema, out: INTRODUCTION.trim_end().to_owned(), explained: BTreeSet::new() };
    page.top();
    for (part, document) in PARTS {
        page.part(part, document);
    }
    page.out.push('\n');
    page.out
}

struct Page<'s> {
    schema: &'s Value,
    out: String,
    /// The explanations of allowed words that were already given.
    explained: BTreeSet<String>,
}

/// A table whose keys are still to be shown: its way from the top, and its schema.
struct Table<'s> {
    heading: String,
    schema: &'s Value,
}

impl<'s> Page<'s> {
    /// The keys at the top of the file that are no table.
    fn top(&mut self) {
        self.out.push_str("\n\n## At the top\n");
        let keys = properties(self.schema);
        let keys = keys.filter(|(name, _)| !PARTS.iter().any(|(part, _)| part == name));
        let keys: Vec<_> = keys.collect();
        self.keys(&keys, self.schema);
    }

    fn part(&mut self, part: &str, document: &str) {
        let Some(schema) = self.schema.get("properties").and_then(|properties| properties.get(part)) else {
            return;
        };
        let target = self.resolve(schema);
        let (heading, table) = self.entries_of(part, target);
        let _ = write!(
            self.out,
            "\n\n## {heading}\n*Strategy, section {document}.* {}\n",
            described(schema, target)
        );
        if table.get("properties").is_some() {
            self.table(Table { heading: inner(&heading), schema: table });
        }
    }

    /// The heading of a table, a table of tables or a list of tables, and what its entries hold.
    fn entries_of(&self, way: &str, schema: &'s Value) -> (String, &'s Value) {
        let entry = |keyword: &str| {
            schema.get(keyword).filter(|entry| entry.is_object()).map(|entry| self.resolve(entry))
        };
        match (schema.get("properties"), entry("additionalProperties"), entry("items")) {
            (None, Some(entry), _) if entry.get("properties").is_some() => (format!("`[{way}.NAME]`"), entry),
            (None, _, Some(entry)) if entry.get("properties").is_some() => (format!("`[[{way}]]`"), entry),
            _ => (format!("`[{way}]`"), schema),
        }
    }

    /// A table's own keys, then the tables below it.
    fn table(&mut self, table: Table<'s>) {
        let sections = |name: &str| PARTS.iter().any(|(part, _)| *part == name);
        let in_environment = table.heading.starts_with("environments.");
        let all: Vec<_> =
            properties(table.schema).filter(|(name, _)| !(in_environment && sections(name))).collect();
        self.keys(&all, table.schema);
        for (name, schema) in all {
            let target = self.resolve(schema);
            let (heading, inside) = self.entries_of(&format!("{}.{name}", table.heading), target);
            if inside.get("properties").is_some() {
                let _ = write!(self.out, "\n\n### {heading}\n{}\n", described(schema, target));
                self.table(Table { heading: inner(&heading), schema: inside });
            }
        }
    }

    fn keys(&mut self, keys: &[(&'s String, &'s Value)], table: &Value) {
        let required = table.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|key| key == name));
        self.out.push_str("\n| key | value | default | |\n|---|---|---|---|");
        let mut choices = String::new();
        for (name, schema) in keys {
            let target = self.resolve(schema);
            let default = if is_required(name) {
                "*required*".to_owned()
            } else {
                schema.get("default").map(in_toml).unwrap_or_default()
            };
            let about = described(schema, target);
            let _ = write!(self.out, "\n| `{name}` | {} | {default} | {about} |", self.value(target));
            choices.push_str(&self.choices(name, target));
        }
        self.out.push_str(&choices);
    }

    /// What may be written there.
    fn value(&self, schema: &Value) -> String {
        if let Some(choices) = alternatives(schema) {
            let each: Vec<String> =
                choices.iter().map(|choice| self.value(self.resolve_any(choice))).collect();
            return each.join(", ");
        }
        if let Some(constant) = schema.get("const") {
            return in_toml(constant);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().map(in_toml).collect::<Vec<_>>().join(", ");
        }
        match (schema.get("format").and_then(Value::as_str), type_of(schema).as_str()) {
            (Some("human-duration"), _) => "duration".to_owned(),
            (Some("clock"), _) => "time of day".to_owned(),
            (Some("store"), _) => "place for copies".to_owned(),
            (Some(format @ ("network" | "date" | "identifier")), _) => format.to_owned(),
            (_, "array") => format!("list of {}", self.entry(schema, "items")),
            (_, "object") if schema.get("properties").is_some() => "table".to_owned(),
            (_, "object") => format!("NAME = {}", self.entry(schema, "additionalProperties")),
            (_, "integer") => range(schema),
            (_, name) => name.to_owned(),
        }
    }

    fn entry(&self, schema: &Value, keyword: &str) -> String {
        schema.get(keyword).map_or_else(String::new, |entry| self.value(self.resolve_any(entry)))
    }

    /// What each allowed word means, where the schema says it, and once for each type.
    fn choices(&mut self, name: &str, schema: &Value) -> String {
        let mut out = String::new();
        for choice in alternatives(schema).into_iter().flatten() {
            let choice = self.resolve_any(choice);
            let word = choice.get("const").map(in_toml);
            if let (Some(word), Some(about)) = (word, choice.get("description").and_then(Value::as_str)) {
                let _ = write!(out, "\n- {word}: {}", one_line(about));
            }
        }
        let news = !out.is_empty() && self.explained.insert(out.clone());
        if news { format!("\n\n`{name}`:\n{out}") } else { String::new() }
    }

    fn resolve(&self, schema: &'s Value) -> &'s Value {
        follow(self.schema, schema)
    }

    fn resolve_any<'v>(&'v self, schema: &'v Value) -> &'v Value {
        follow(self.schema, schema)
    }
}

/// Follows `$ref`, and the one alternative of an optional value.
fn follow<'v>(root: &'v Value, mut schema: &'v Value) -> &'v Value {
    loop {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = match (reference, alternatives(schema).as_deref()) {
            (Some(reference), _) => root.pointer(reference.trim_start_matches('#')),
            (None, Some([only])) => Some(*only),
            _ => None,
        };
        match target {
            Some(target) => schema = target,
            None => return schema,
        }
    }
}

fn alternatives(schema: &Value) -> Option<Vec<&Value>> {
    let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(alternatives.iter().filter(|schema| schema.get("type") != Some(&Value::from("null"))).collect())
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn type_of(schema: &Value) -> String {
    match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(", ")
        }
        _ => "any".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    match (limit("minimum"), limit("maximum")) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "integer".to_owned(),
    }
}

/// A heading's way without its brackets.
fn inner(heading: &str) -> String {
    heading.trim_matches(['`', '[', ']']).to_owned()
}

/// The description of the key, else of its type, on one line.
fn described(schema: &Value, target: &Value) -> String {
    let of = |schema: &Value| schema.get("description").and_then(Value::as_str).map(one_line);
    of(schema).or_else(|| of(target)).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A default as TOML writes it. Tables and empty values are better shown by their own keys.
fn in_toml(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`\"{text}\"`"),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::Array(list) if list.is_empty() => "`[]`".to_owned(),
        Value::Array(_) => format!("`{value}`"),
        Value::Null | Value::Object(_) => String::new(),
    }
}
