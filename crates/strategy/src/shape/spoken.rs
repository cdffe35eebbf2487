//! How values, types and allowed names are put into a sentence.

use obyra_evidence::{Code, Message, text};
use toml::de::DeValue;

/// Longer values are cut: a finding names a value, it does not repeat it.
const SHOWN_MAX_CHARS: usize = 48;

/// A value as TOML writes it, short, and without anything that may be a password.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(written) if may_hold_password(written) => "\"…\"".to_owned(),
        DeValue::String(written) if written.chars().count() > SHOWN_MAX_CHARS => {
            let head: String = written.chars().take(SHOWN_MAX_CHARS).collect();
            format!("\"{}…\"", head.escape_debug())
        }
        DeValue::String(written) => format!("\"{}\"", written.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(array) if array.is_empty() => "[]".to_owned(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

/// A connection string may stand anywhere by mistake.
fn may_hold_password(written: &str) -> bool {
    let lower = written.to_lowercase();
    (lower.contains("://") && lower.contains('@')) || lower.contains("password")
}

/// `a, b, c`: the names that are allowed.
pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The sentence that says which type is expected.
pub(super) fn expected(types: &[&str]) -> Message {
    let one = |name: &str| -> Option<Code> {
        Some(match name {
            "string" => text::strategy::EXPECTED_STRING,
            "integer" => text::strategy::EXPECTED_INTEGER,
            "number" => text::strategy::EXPECTED_NUMBER,
            "boolean" => text::strategy::EXPECTED_BOOLEAN,
            "array" => text::strategy::EXPECTED_ARRAY,
            "object" => text::strategy::EXPECTED_TABLE,
            _ => return None,
        })
    };
    let alone = match types {
        [name] => one(name),
        _ => None,
    };
    let in_toml = |name: &&str| if *name == "object" { "table".to_owned() } else { (*name).to_owned() };
    match alone {
        Some(code) => code.message(),
        None => text::strategy::EXPECTED_ONE_OF.with("types", list(types.iter().map(in_toml))),
    }
}

/// The name that was probably meant, if one is near enough to be worth saying.
pub(crate) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let folded = |name: &str| name.to_lowercase().replace('-', "_");
    let written = folded(written);
    names
        .map(|name| (strsim::jaro_winkler(&written, &folded(name)), name))
        .filter(|(likeness, _)| *likeness >= 0.84)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
