//! The published JSON Schema of the file (draft 2020-12), made from the types that read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use obyra_evidence::Language;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::environment::Declaration;
use crate::sections::Sections;

/// Where the schema of one environment stands in the whole schema.
pub(crate) const ENVIRONMENT: &str = "/$defs/Environment";

/// The keys at the top of the file that are no section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Head {
    /// The language of everything that people read: messages, checklist, runbook.
    pub(crate) language: Speech,
    /// The folder of what the program keeps: evidence, embedded clusters, local secrets.
    /// Relative to this file.
    #[schemars(length(min = 1))]
    pub(crate) state_dir: PathBuf,
    /// The environments, by name. Each may hold any of the sections to override the common ones:
    /// tables are merged key by key, everything else replaces.
    #[schemars(extend("propertyNames" = { "format": "name", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$" }))]
    pub(crate) environments: BTreeMap<String, Declaration>,
}

impl Default for Head {
    fn default() -> Self {
        Head { language: Speech::En, state_dir: ".obyra-db".into(), environments: BTreeMap::new() }
    }
}

/// A language that people are spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speech {
    /// English.
    En,
    /// Spanish.
    Es,
}

impl From<Speech> for Language {
    fn from(speech: Speech) -> Language {
        match speech {
            Speech::En => Language::En,
            Speech::Es => Language::Es,
        }
    }
}

/// The schema of the whole file. Editors complete and check with it, and so does
/// [`Strategy::load`](crate::Strategy::load).
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut head = object(&mut generator, Head::json_schema);
    let sections = object(&mut generator, Sections::json_schema);
    let own = object(&mut generator, Declaration::json_schema);
    let mut definitions = generator.take_definitions(true);

    definitions.insert("Environment".to_owned(), Value::Object(with_sections(own, &sections)));
    let about = "How a team runs PostgreSQL: environments, access, change, recovery, security.";
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    whole.insert("title".to_owned(), json!("obyra-db.toml"));
    whole.insert("description".to_owned(), json!(about));
    head.remove("description");
    head.remove("title");
    whole.append(&mut with_sections(head, &sections));
    whole.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(whole)
}

/// The names of the sections, in alphabetical order.
pub(crate) fn section_names(schema: &Value) -> Vec<String> {
    let properties = |pointer: &str| schema.pointer(pointer).and_then(Value::as_object);
    let at_the_top = properties("/properties");
    let in_environment = properties("/$defs/Environment/properties");
    at_the_top
        .into_iter()
        .flat_map(Map::keys)
        .filter(|name| in_environment.is_some_and(|properties| properties.contains_key(*name)))
        .cloned()
        .collect()
}

fn object(
    generator: &mut SchemaGenerator,
    make: fn(&mut SchemaGenerator) -> schemars::Schema,
) -> Map<String, Value> {
    match make(generator).to_value() {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// An object's schema that also takes the sections.
fn with_sections(mut object: Map<String, Value>, sections: &Map<String, Value>) -> Map<String, Value> {
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let (Some(properties), Some(sections)) =
        (properties.as_object_mut(), sections.get("properties").and_then(Value::as_object))
    {
        properties.extend(sections.clone());
    }
    object
}
