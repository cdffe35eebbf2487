//! What a schema allows, read from the keywords that say it in several ways.

use serde_json::Value;

/// The alternatives of `anyOf` or `oneOf`, without the `null` that TOML cannot write.
pub(super) fn of(schema: &Value) -> Option<Vec<&Value>> {
    let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(alternatives.iter().filter(|schema| schema.get("type") != Some(&Value::from("null"))).collect())
}

/// The texts that a schema allows, if it names them one by one.
pub(super) fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(constant) = schema.get("const") {
        return constant.as_str().map(|constant| vec![constant]);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let alternatives = of(schema)?;
    let choices: Option<Vec<_>> = alternatives.into_iter().map(choices).collect();
    choices.map(|choices| choices.concat())
}

/// The types that a schema names, without `null`. None means any.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        _ if schema.get("const").or_else(|| schema.get("enum")).is_some() => vec!["string"],
        _ => of(schema).into_iter().flatten().flat_map(types).collect(),
    }
}
