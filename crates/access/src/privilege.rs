//! Privileges as sets: what may be granted on each kind of object, how it is written in the
//! strategy, in SQL, and in an access control list.

use std::fmt;

use crate::quote;

/// The kinds of object that carry privileges here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The database itself.
    Database,
    /// A schema.
    Schema,
    /// A table, view, materialised view, foreign table or partition.
    Table,
    /// A sequence.
    Sequence,
    /// A function, procedure or aggregate.
    Routine,
    /// An enum, domain, range, composite or base type.
    Type,
    /// A column of a table or view.
    Column,
}

/// One privilege: its bit, its letter in an access control list, its word in SQL.
struct Entry(u16, char, &'static str);

const ENTRIES: [Entry; 13] = [
    Entry(1 << 0, 'r', "SELECT"),
    Entry(1 << 1, 'a', "INSERT"),
    Entry(1 << 2, 'w', "UPDATE"),
    Entry(1 << 3, 'd', "DELETE"),
    Entry(1 << 4, 'D', "TRUNCATE"),
    Entry(1 << 5, 'x', "REFERENCES"),
    Entry(1 << 6, 't', "TRIGGER"),
    Entry(1 << 7, 'X', "EXECUTE"),
    Entry(1 << 8, 'U', "USAGE"),
    Entry(1 << 9, 'C', "CREATE"),
    Entry(1 << 10, 'c', "CONNECT"),
    Entry(1 << 11, 'T', "TEMPORARY"),
    Entry(1 << 12, 'm', "MAINTAIN"),
];

/// A set of privileges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Privileges(u16);

impl Privileges {
    /// No privilege.
    pub const NONE: Privileges = Privileges(0);
    /// `SELECT`.
    pub const SELECT: Privileges = Privileges(1);
    /// `INSERT`.
    pub const INSERT: Privileges = Privileges(1 << 1);
    /// `UPDATE`.
    pub const UPDATE: Privileges = Privileges(1 << 2);
    /// `DELETE`.
    pub const DELETE: Privileges = Privileges(1 << 3);
    /// `EXECUTE`.
    pub const EXECUTE: Privileges = Privileges(1 << 7);
    /// `USAGE`.
    pub const USAGE: Privileges = Privileges(1 << 8);
    /// `CREATE`.
    pub const CREATE: Privileges = Privileges(1 << 9);
    /// `CONNECT`.
    pub const CONNECT: Privileges = Privileges(1 << 10);
    /// `TEMPORARY`.
    pub const TEMPORARY: Privileges = Privileges(1 << 11);
    /// `MAINTAIN`, since PostgreSQL 17.
    pub const MAINTAIN: Privileges = Privileges(1 << 12);

    /// All that may be granted on a kind of object by a server of this major version.
    pub fn all(kind: Kind, major: u32) -> Privileges {
        let bits = match kind {
            Kind::Database => (1 << 9) | (1 << 10) | (1 << 11),
            Kind::Schema => (1 << 8) | (1 << 9),
            Kind::Table if major >= 17 => 0b111_1111 | (1 << 12),
            Kind::Table => 0b111_1111,
            Kind::Sequence => 1 | (1 << 2) | (1 << 8),
            Kind::Routine => 1 << 7,
            Kind::Type => 1 << 8,
            Kind::Column => 0b10_0111,
        };
        Privileges(bits)
    }

    /// What PUBLIC holds on a new object of this kind unless someone revokes it.
    pub fn public_default(kind: Kind) -> Privileges {
        match kind {
            Kind::Database => Privileges::CONNECT | Privileges::TEMPORARY,
            Kind::Routine => Privileges::EXECUTE,
            Kind::Type => Privileges::USAGE,
            _ => Privileges::NONE,
        }
    }

    /// The privilege of a word such as `SELECT`; `ALL` is resolved against the kind.
    fn of_word(word: &str, kind: Kind) -> Option<Privileges> {
        let word = word.trim();
        if word.eq_ignore_ascii_case("all") || word.eq_ignore_ascii_case("all privileges") {
            // MAINTAIN is left out of ALL, so that one strategy means the same on every version.
            return Some(Privileges::all(kind, 16));
        }
        let word = if word.eq_ignore_ascii_case("temp") { "TEMPORARY" } else { word };
        ENTRIES
            .iter()
            .find(|e| e.2.eq_ignore_ascii_case(word))
            .map(|e| Privileges(e.0))
            .filter(|p| Privileges::all(kind, 17).contains(*p))
    }

    /// The privilege of a letter of an access control list.
    pub(crate) fn of_letter(letter: char) -> Privileges {
        Privileges(ENTRIES.iter().find(|e| e.1 == letter).map_or(0, |e| e.0))
    }

    /// Whether every privilege of `other` is in this set.
    pub fn contains(self, other: Privileges) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The privileges of this set that are not in `other`.
    pub fn without(self, other: Privileges) -> Privileges {
        Privileges(self.0 & !other.0)
    }

    /// The privileges that are in both sets.
    pub fn and(self, other: Privileges) -> Privileges {
        Privileges(self.0 & other.0)
    }

    /// The words of the set, in SQL's usual order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        ENTRIES.iter().filter(move |e| self.0 & e.0 != 0).map(|e| e.2)
    }

    /// The single privileges of the set.
    pub fn each(self) -> impl Iterator<Item = Privileges> {
        ENTRIES.iter().filter(move |e| self.0 & e.0 != 0).map(|e| Privileges(e.0))
    }
}

impl std::ops::BitOr for Privileges {
    type Output = Privileges;
    fn bitor(self, other: Privileges) -> Privileges {
        Privileges(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Privileges {
    fn bitor_assign(&mut self, other: Privileges) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.words().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// What a role holds on one object: the privileges, and those of them that it may grant on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// The privileges.
    pub privileges: Privileges,
    /// Those of them with grant option.
    pub grantable: Privileges,
}

impl Held {
    /// Privileges without grant option.
    pub fn plain(privileges: Privileges) -> Held {
        Held { privileges, grantable: Privileges::NONE }
    }

    /// Both together.
    pub fn union(self, other: Held) -> Held {
        Held { privileges: self.privileges | other.privileges, grantable: self.grantable | other.grantable }
    }

    /// What is here and not in `other`.
    pub fn without(self, other: Held) -> Held {
        Held {
            privileges: self.privileges.without(other.privileges),
            grantable: self.grantable.without(other.grantable),
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(self) -> bool {
        self.privileges.is_empty() && self.grantable.is_empty()
    }

    /// The statements that grant this: without grant option, and with it.
    pub(crate) fn grants(self) -> impl Iterator<Item = (Privileges, &'static str)> {
        let parts = [(self.privileges.without(self.grantable), ""), (self.grantable, " WITH GRANT OPTION")];
        parts.into_iter().filter(|(part, _)| !part.is_empty())
    }

    /// The statements that revoke this: the privileges, and grant options of others.
    pub(crate) fn revokes(self) -> impl Iterator<Item = (Privileges, &'static str)> {
        let options = self.grantable.without(self.privileges);
        let parts = [(self.privileges, ""), (options, "GRANT OPTION FOR ")];
        parts.into_iter().filter(|(part, _)| !part.is_empty())
    }
}

/// One entry of a list of privileges in the strategy: `SELECT`, `UPDATE (a, b)`,
/// `SELECT WITH GRANT OPTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is to be held.
    pub held: Held,
    /// On these columns only; empty for the whole object.
    pub columns: Vec<String>,
}

impl Wanted {
    /// Reads one entry; `None` when the kind of object knows no such privilege.
    pub fn parse(text: &str, kind: Kind) -> Option<Wanted> {
        let text = text.trim();
        let option = " with grant option";
        let grantable = text.len() > option.len()
            && text.is_char_boundary(text.len() - option.len())
            && text[text.len() - option.len()..].eq_ignore_ascii_case(option);
        let text = if grantable { text[..text.len() - option.len()].trim_end() } else { text };
        let (word, columns) = match text.split_once('(') {
            None => (text, Vec::new()),
            Some((word, rest)) => (word, columns(rest)?),
        };
        let on = if columns.is_empty() { kind } else { Kind::Column };
        if !columns.is_empty() && kind != Kind::Table {
            return None;
        }
        let privileges = Privileges::of_word(word, on)?;
        let grantable = if grantable { privileges } else { Privileges::NONE };
        Some(Wanted { held: Held { privileges, grantable }, columns })
    }
}

/// The names between the brackets of `SELECT (a, "B c")`.
fn columns(rest: &str) -> Option<Vec<String>> {
    let inner = rest.trim_end().strip_suffix(')')?;
    let names = quote::split_list(inner)?;
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let plain = Wanted::parse("select", Kind::Table).unwrap();
        assert_eq!(plain.held, Held::plain(Privileges::SELECT));
        let columns = Wanted::parse("UPDATE (a, \"B c\")", Kind::Table).unwrap();
        assert_eq!(columns.columns, ["a", "B c"]);
        let option = Wanted::parse("SELECT WITH GRANT OPTION", Kind::Table).unwrap();
        assert_eq!(option.held.grantable, Privileges::SELECT);
        assert_eq!(Wanted::parse("EXECUTE", Kind::Table), None);
        assert_eq!(Wanted::parse("DELETE (a)", Kind::Table), None);
        assert_eq!(Wanted::parse("SELECT ()", Kind::Table), None);
        assert_eq!(Wanted::parse("temp", Kind::Database).unwrap().held.privileges, Privileges::TEMPORARY);
    }

    #[test]
    fn all_means_the_kind() {
        let all = Wanted::parse("ALL", Kind::Sequence).unwrap().held.privileges;
        assert_eq!(all.to_string(), "SELECT, UPDATE, USAGE");
    }
}
