//! What `create_all` makes beside what the revisions made: triggers, policies, routines, views, defaults and
//! all else that Alembic's own comparison does not see. Pure.

use std::collections::BTreeMap;

use obyra_evidence::{Finding, Severity, text};

use super::catalogue::short;
use crate::driver::{Difference, Made};

/// How many objects a finding lists.
const OBJECTS_SHOWN: usize = 8;

/// Alembic finds by itself that one of these is missing, on either side.
const FOUND_BY_ALEMBIC: [&str; 3] = ["index", "unique constraint", "foreign key"];

/// The findings. What only the schema has is a warning, and none where the models declare nothing of its kind:
/// then its place is in the revisions.
pub(super) fn findings(made: &Made, differences: &[Difference]) -> Vec<Finding> {
    use text::gate as say;
    if let Some(why) = &made.failed {
        let told = say::MODELS_NOT_MADE.with("why", why);
        return vec![Finding::new(Severity::Note, "models", told).mended_by(say::MEND_MODELS_NOT_MADE)];
    }
    let mut findings = Vec::new();
    let mut undeclared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, name, is, wanted) in &made.rows {
        let (kind, name) = (kind.as_str(), name.as_str());
        if made.elsewhere.contains(kind) || is_excluded(made, name) || is_known(differences, name) {
            continue;
        }
        let told = match (is, wanted) {
            (None, Some(wanted)) if !FOUND_BY_ALEMBIC.contains(&kind) => {
                say::DRIFT_MISSING.with("kind", kind).with("name", name).with("wanted", short(wanted))
            }
            (Some(is), Some(wanted)) if kind != "default" || !is_same_default(is, wanted) => {
                let (is, wanted) = apart(is, wanted);
                say::DRIFT_DIFFERS
                    .with("kind", kind)
                    .with("name", name)
                    .with("is", short(is))
                    .with("wanted", short(wanted))
            }
            // A model may leave its numbers to the application, and its key to another table.
            (Some(_), None) if kind != "identity" && !FOUND_BY_ALEMBIC.contains(&kind) => {
                undeclared.entry(kind).or_default().push(name);
                continue;
            }
            _ => continue,
        };
        findings.push(Finding::new(Severity::Error, "models", told).mended_by(say::MEND_DRIFT));
    }
    let undeclared = undeclared.into_iter().filter(|(kind, _)| made.kinds.contains(*kind));
    findings.extend(undeclared.map(|(kind, names)| {
        let shown = names.iter().take(OBJECTS_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = if names.len() > OBJECTS_SHOWN { ", …" } else { "" };
        let told = say::DRIFT_UNDECLARED.with("kind", kind).with("names", format!("{shown}{more}"));
        Finding::new(Severity::Warning, "models", told).mended_by(say::MEND_DRIFT_UNDECLARED)
    }));
    findings
}

/// The parts of `ix_users_name on app.users`, `app.users.name`.
pub(super) fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split([' ', '.', '(', ',']).map(|part| part.trim_matches('"'))
}

/// Whether `env.py` leaves it out, or the table that it belongs to.
fn is_excluded(made: &Made, name: &str) -> bool {
    parts(name).any(|part| made.excluded.contains(part))
}

/// Whether Alembic has said something of it already: of this column, this index, this trigger.
fn is_known(differences: &[Difference], name: &str) -> bool {
    let own: Vec<&str> = parts(name).collect();
    differences.iter().any(|found| {
        let theirs: Vec<&str> = parts(&found.name).collect();
        // Alembic leaves out the schema that is the default.
        match name.split_once(" on ") {
            Some((object, _)) => theirs.first() == Some(&object.trim_matches('"')),
            None => theirs.len() > 1 && own.ends_with(&theirs),
        }
    })
}

/// Two definitions from a little before where they part.
fn apart<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    const CHARS_BEFORE: usize = 30;
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    if same <= 2 * CHARS_BEFORE {
        return (one, other);
    }
    let from = one.char_indices().nth(same - CHARS_BEFORE).map_or(0, |(at, _)| at);
    (&one[from..], &other[from..])
}

/// Whether two defaults are the same value, written otherwise.
fn is_same_default(one: &str, other: &str) -> bool {
    let (one, other) = (value(one), value(other));
    let numbers = || Some(one.parse::<f64>().ok()? == other.parse::<f64>().ok()?);
    one == other || numbers().unwrap_or(false)
}

/// Without the cast to the column's own type, which is Alembic's to compare, and without needless quotes.
fn value(expression: &str) -> String {
    let mut value = expression.trim();
    if let Some((before, kind)) = value.rsplit_once("::")
        && kind.chars().all(|c| c.is_alphanumeric() || " _.\"()[],".contains(c))
        && !before.ends_with(')') | before.starts_with('(')
    {
        value = before;
    }
    let bare = value.trim_matches(['(', ')', '\'']);
    if bare.parse::<f64>().is_ok() {
        return bare.to_owned();
    }
    match value.to_ascii_lowercase().as_str() {
        "current_timestamp" | "transaction_timestamp()" => "now()".to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_compared_by_value() {
        for (one, other) in [
            ("'x'::character varying", "'x'::text"),
            ("0", "'0'::numeric"),
            ("0.0", "(0)::numeric"),
            ("now()", "CURRENT_TIMESTAMP"),
            ("'{}'::jsonb", "'{}'::json"),
            ("'a'::app.\"Mood\"", "'a'::mood"),
        ] {
            assert!(is_same_default(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("'x'::text", "'y'::text"),
            ("0", "1"),
            ("now()", "timezone('utc'::text, now())"),
            ("true", "false"),
        ] {
            assert!(!is_same_default(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_alembic_has_said_is_known() {
        let said =
            |name: &str| [Difference { kind: "x".to_owned(), name: name.to_owned(), detail: String::new() }];
        assert!(is_known(&said("users.name"), "app.users.name"));
        assert!(is_known(&said("ix_name on users"), "ix_name on app.users"));
        assert!(!is_known(&said("users.name"), "app.users.other"));
        assert!(!is_known(&said("users"), "app.users"));
        assert!(!is_known(&said("ix_name on users"), "ix_other on app.users"));
    }
}
