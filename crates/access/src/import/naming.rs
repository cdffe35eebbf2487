//! Names of levels that say what is in them: `read-with-sequences`, not `read-1`.

use super::content::Content;
use super::held::words;
use super::shelf::Bucket;
use crate::policy::Profile;
use crate::privilege::{Held, Kind, Privileges};

/// A name for a level, different from all that are `taken` and from the built-in ones.
pub(super) fn name(content: &Content, taken: &dyn Fn(&str) -> bool) -> String {
    let free = |name: &String| !taken(name) && !Profile::BUILTIN.contains(&name.as_str());
    let short = [phrase(content, false), phrase(content, true)];
    if let Some(name) = short.iter().find(|name| free(name)) {
        return name.clone();
    }
    let numbered = (2..).map(|number| format!("{}-{number}", short[1]));
    numbered.into_iter().find(free).unwrap_or_default()
}

/// What is held in words: tables first, then what comes with them.
fn phrase(content: &Content, precisely: bool) -> String {
    let tables = content.sure(Bucket::Tables);
    let mut with = Vec::new();
    for (bucket, noun) in
        [(Bucket::Sequences, "sequences"), (Bucket::Routines, "routines"), (Bucket::Types, "types")]
    {
        let held = content.sure(bucket);
        if !held.is_empty() {
            let detail = precisely && bucket == Bucket::Sequences || !held.grantable.is_empty();
            with.push(if detail {
                format!("{noun}-{}", spelled(held, bucket.kind()))
            } else {
                noun.to_owned()
            });
        }
    }
    let schema = content.sure(Bucket::Schema);
    if schema.privileges.contains(Privileges::CREATE) {
        with.push("create".to_owned());
    }
    if !schema.grantable.is_empty() {
        with.push("usage-granting".to_owned());
    }
    let views = content.sure(Bucket::Views);
    if views != tables && !(tables.is_empty() && views.is_empty()) {
        with.push(format!("views-{}", verb(views)));
    }
    let name = match (tables.is_empty(), with.is_empty()) {
        (true, true) => verb(tables),
        (false, true) => format!("{}-tables", verb(tables)),
        (true, false) => with.join("-and-"),
        (false, false) => format!("{}-with-{}", verb(tables), with.join("-and-")),
    };
    let usage = schema.privileges.contains(Privileges::USAGE);
    match (usage, tables.is_empty() && views.is_empty()) {
        (false, false) => format!("{name}-without-usage"),
        (true, true) if !with.is_empty() => format!("usage-with-{name}"),
        _ if name == "routines" => "execute".to_owned(),
        _ => name,
    }
}

/// What may be done with tables or views, in a word.
fn verb(held: Held) -> String {
    let privileges = held.privileges;
    let change = Privileges::INSERT | Privileges::UPDATE | Privileges::DELETE;
    let write = Privileges::SELECT | change;
    let (word, known) = if privileges.contains(Privileges::all(Kind::Table, 16)) {
        ("all", Privileges::all(Kind::Table, 16))
    } else if privileges.contains(write) {
        ("read-write", write)
    } else if privileges.contains(change) {
        ("write", change)
    } else if privileges.contains(Privileges::SELECT) {
        ("read", Privileges::SELECT)
    } else if privileges.contains(Privileges::INSERT) {
        ("append", Privileges::INSERT)
    } else if privileges.is_empty() {
        ("nothing", privileges)
    } else {
        ("", Privileges::NONE)
    };
    let rest = privileges.without(known).words().map(str::to_lowercase);
    let granting = (!held.grantable.is_empty()).then(|| "granting".to_owned());
    let parts = (!word.is_empty()).then(|| word.to_owned()).into_iter().chain(rest).chain(granting);
    parts.collect::<Vec<_>>().join("-")
}

fn spelled(held: Held, kind: Kind) -> String {
    words(held, kind).join("-").to_lowercase().replace(" with grant option", "-granting")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(schema: &[&str], tables: &[&str], sequences: &[&str], routines: &[&str]) -> String {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let profile = Profile {
            schema: list(schema),
            tables: list(tables),
            sequences: list(sequences),
            routines: list(routines),
            ..Profile::default()
        };
        name(&Content::of_profile(&profile), &|_| false)
    }

    #[test]
    fn names_say_what_is_in_them() {
        let write = ["SELECT", "INSERT", "UPDATE", "DELETE"];
        assert_eq!(named(&["USAGE"], &["SELECT"], &["SELECT"], &[]), "read-with-sequences");
        assert_eq!(named(&["USAGE"], &write, &["USAGE", "SELECT"], &[]), "read-write-with-sequences");
        assert_eq!(named(&["USAGE"], &["SELECT"], &[], &[]), "read-tables");
        assert_eq!(named(&[], &[], &[], &["EXECUTE"]), "execute");
        assert_eq!(named(&["USAGE", "CREATE"], &[], &[], &[]), "usage-with-create");
        assert_eq!(named(&["USAGE"], &["ALL"], &["ALL"], &["EXECUTE"]), "all-with-sequences-and-routines");
        assert_eq!(named(&[], &["SELECT"], &[], &[]), "read-tables-without-usage");
    }

    #[test]
    fn equal_names_are_told_apart() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let profile =
            Profile { schema: list(&["USAGE"]), sequences: list(&["SELECT"]), ..Profile::default() };
        let content = Content::of_profile(&profile);
        assert_eq!(name(&content, &|_| false), "usage-with-sequences");
        assert_eq!(name(&content, &|n| n == "usage-with-sequences"), "usage-with-sequences-select");
        assert_eq!(name(&content, &|n| !n.ends_with("-2")), "usage-with-sequences-select-2");
    }
}
