//! The published schema and reference are those of this program. `OBYRA_DB_BLESS=1` rewrites them.

use std::fs;
use std::path::{Path, PathBuf};

use obyra_strategy::{render_reference, schema};

fn published(name: &str, current: &str) {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("OBYRA_DB_BLESS").is_some() {
        fs::write(&file, current).expect("docs is writable");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == current, "docs/{name} is out of date: OBYRA_DB_BLESS=1 cargo test -p obyra-strategy");
}

#[test]
fn the_schema_is_published() {
    published("obyra-db.schema.json", &(serde_json::to_string_pretty(&schema()).unwrap() + "\n"));
}

#[test]
fn the_reference_is_published() {
    published("strategy-file.md", &render_reference(&schema()));
}

#[test]
fn the_reference_shows_every_section() {
    let schema = schema();
    let reference = render_reference(&schema);
    for name in schema["properties"].as_object().unwrap().keys() {
        let forms = [format!("\n## `[{name}"), format!("\n## `[[{name}"), format!("\n| `{name}` |")];
        assert!(forms.iter().any(|form| reference.contains(form)), "{name}");
    }
}

/// Every key has a description, for editors and for the reference.
#[test]
fn every_key_is_described() {
    let schema = schema();
    let mut silent = Vec::new();
    let tables = schema["$defs"].as_object().unwrap().iter().map(|(name, table)| (name.as_str(), table));
    for (table, definition) in tables.chain([("the file", &schema)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            if property.get("description").is_none() {
                silent.push(format!("{table}.{key}"));
            }
        }
    }
    assert_eq!(silent, [""; 0]);
}
