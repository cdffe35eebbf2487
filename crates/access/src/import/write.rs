//! The section as a person would write it: one line for a role, a heading for each part, a short
//! comment where it helps, and always the same order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use obyra_evidence::{Language, text};
use serde::Serialize;
use toml::ser::ValueSerializer;

use crate::policy::{Policy, RolePolicy};

/// A line may be this long before its table or list is spread over several.
const WIDTH: usize = 120;

/// Numbers in names are compared as numbers up to so many digits.
const NUMBER_WIDTH: usize = 20;

/// The section `[access]` of a policy. `notes` become comments at its head.
pub(super) fn section(policy: &Policy, notes: &[String], language: Language) -> String {
    let mut page = Page { out: String::new(), language };
    for note in notes {
        for line in note.lines() {
            let _ = writeln!(page.out, "# {line}");
        }
    }
    page.head(policy);
    page.roles(policy);
    page.table("profiles", &policy.profiles);
    page.table("schemas", &policy.schemas);
    page.table("owners", &policy.owners);
    page.table("objects", &policy.objects);
    page.table("sensitive", &policy.sensitive);
    if !policy.tenancy.tables.is_empty() || policy.tenancy.force {
        page.heading("tenancy");
        page.list("tables", &policy.tenancy.tables);
        if policy.tenancy.force {
            page.entry("force", &true);
        }
    }
    page.out
}

/// A page that is being written.
struct Page {
    out: String,
    language: Language,
}

impl Page {
    fn head(&mut self, policy: &Policy) {
        let _ = writeln!(self.out, "[access]");
        self.entry("mode", &policy.mode);
        if let Some(owner) = &policy.owner {
            self.entry("owner", owner);
        }
        if !policy.extensions.is_empty() {
            self.list("extensions", &policy.extensions);
        }
        if !policy.default_privileges.is_empty() {
            let _ = writeln!(self.out, "default_privileges = [");
            for entry in &policy.default_privileges {
                let _ = writeln!(self.out, "  {},", inline(entry));
            }
            let _ = writeln!(self.out, "]");
        }
    }

    /// The roles on a line each, then those that need more than a line.
    fn roles(&mut self, policy: &Policy) {
        let line = |name: &str, role: &RolePolicy| format!("{} = {}", key(name), inline(role));
        let (short, long): (Vec<_>, Vec<_>) = in_order(&policy.roles)
            .into_iter()
            .map(|(name, role)| (name, role, line(name, role)))
            .partition(|(_, _, line)| line.chars().count() <= WIDTH);
        if !short.is_empty() {
            self.heading("roles");
        }
        for (_, _, line) in short {
            let _ = writeln!(self.out, "{line}");
        }
        for (name, role, _) in long {
            let _ = writeln!(self.out, "\n[access.roles.{}]", key(name));
            for (field, value) in fields(role) {
                let _ = writeln!(self.out, "{field} = {value}");
            }
        }
    }

    fn table<V: Serialize>(&mut self, name: &str, entries: &BTreeMap<String, V>) {
        if !entries.is_empty() {
            self.heading(name);
        }
        for (name, value) in in_order(entries) {
            self.entry(name, value);
        }
    }

    fn heading(&mut self, part: &str) {
        let comment = match part {
            "roles" => Some(text::access::IMPORT_ROLES),
            "profiles" => Some(text::access::IMPORT_PROFILES),
            "owners" => Some(text::access::IMPORT_OWNERS),
            "objects" => Some(text::access::IMPORT_OBJECTS),
            "sensitive" => Some(text::access::IMPORT_SENSITIVE),
            "tenancy" => Some(text::access::IMPORT_TENANCY),
            _ => None,
        };
        let comment = comment.map(|c| format!("  # {}", c.message().say(self.language))).unwrap_or_default();
        let _ = writeln!(self.out, "\n[access.{part}]{comment}");
    }

    fn entry<V: Serialize + ?Sized>(&mut self, name: &str, value: &V) {
        let _ = writeln!(self.out, "{} = {}", key(name), inline(value));
    }

    /// A list, filled into lines where one does not hold it.
    fn list(&mut self, name: &str, items: &[String]) {
        let one = format!("{} = {}", key(name), inline(items));
        if one.chars().count() <= WIDTH {
            let _ = writeln!(self.out, "{one}");
            return;
        }
        let _ = write!(self.out, "{} = [", key(name));
        let mut room = 0;
        for item in items.iter().map(inline) {
            let length = item.chars().count() + 2;
            if length > room {
                self.out.push_str("\n ");
                room = WIDTH - 1;
            }
            room = room.saturating_sub(length);
            let _ = write!(self.out, " {item},");
        }
        self.out.push_str("\n]\n");
    }
}

/// Entries as a person would sort them: `s2` before `s10`.
fn in_order<V>(entries: &BTreeMap<String, V>) -> Vec<(&String, &V)> {
    let mut sorted: Vec<(&String, &V)> = entries.iter().collect();
    sorted.sort_by_cached_key(|(name, _)| numbers_padded(name));
    sorted
}

fn numbers_padded(name: &str) -> String {
    let mut padded = String::with_capacity(name.len() + NUMBER_WIDTH);
    let mut digits = String::new();
    for c in name.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        pad(&mut padded, &mut digits);
        padded.push(c);
    }
    pad(&mut padded, &mut digits);
    padded
}

/// Moves a number to the end of a text, filled up with zeros.
fn pad(padded: &mut String, digits: &mut String) {
    if !digits.is_empty() {
        padded.extend(std::iter::repeat_n('0', NUMBER_WIDTH.saturating_sub(digits.len())));
        padded.push_str(digits);
        digits.clear();
    }
}

/// The fields of a role that say something, in the order of their declaration.
fn fields(role: &RolePolicy) -> Vec<(&'static str, String)> {
    let default = RolePolicy::default();
    macro_rules! said {
        ($($field:ident),+ $(,)?) => {{
            // A field that is missing here does not compile.
            let RolePolicy { $($field),+ } = role;
            [$((*$field != default.$field).then(|| (stringify!($field), inline($field)))),+]
        }};
    }
    let fields = said!(
        kind,
        login,
        superuser,
        createdb,
        createrole,
        inherit,
        replication,
        bypassrls,
        connection_limit,
        valid_until,
        acts_as,
        member_of,
        database,
        schemas,
        future,
        search_path,
        settings,
        cluster_settings,
        rotate,
    );
    fields.into_iter().flatten().collect()
}

/// A value on one line.
fn inline<V: Serialize + ?Sized>(value: &V) -> String {
    let mut out = String::new();
    match value.serialize(ValueSerializer::new(&mut out)) {
        Ok(_) => out,
        // The types of a policy hold nothing that TOML cannot write.
        Err(_) => String::from("{}"),
    }
}

/// A key, bare where TOML allows it.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare {
        return name.to_owned();
    }
    let mut key = String::with_capacity(name.len() + 2);
    key.push('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => key.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(key, "\\u{:04X}", u32::from(c));
            }
            c => key.push(c),
        }
    }
    key.push('"');
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bare_or_quoted() {
        assert_eq!(key("grp_1-a"), "grp_1-a");
        assert_eq!(key("café"), "\"café\"");
        assert_eq!(key("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
        assert_eq!(key(""), "\"\"");
    }

    #[test]
    fn numbers_count_as_numbers() {
        let names = BTreeMap::from(["s10", "s9", "s1", "s1b", "t"].map(|name| (name.to_owned(), ())));
        let order: Vec<&str> = in_order(&names).into_iter().map(|(name, ())| name.as_str()).collect();
        assert_eq!(order, ["s1", "s1b", "s9", "s10", "t"]);
    }

    #[test]
    fn long_lists_are_filled() {
        let mut page = Page { out: String::new(), language: Language::En };
        let items: Vec<String> = (0..40).map(|n| format!("table_{n}")).collect();
        page.list("tables", &items);
        assert!(page.out.lines().all(|line| line.chars().count() <= WIDTH), "{}", page.out);
        let read: toml::Table = toml::from_str(&page.out).unwrap();
        assert_eq!(read["tables"].as_array().unwrap().len(), 40);
    }
}
