//! Access control lists: the text in which PostgreSQL shows them, read once for each
//! distinct list, however many objects carry it.

use std::collections::HashMap;

use crate::observe::Oid;
use crate::privilege::{Held, Privileges};

/// The grantee that stands for everybody.
pub const PUBLIC_OID: Oid = 0;

/// What one grantor gave to one grantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclItem {
    /// Who holds it; 0 is PUBLIC.
    pub grantee: Oid,
    /// Who gave it.
    pub grantor: Oid,
    /// What is held.
    pub held: Held,
}

/// A list among the [`Acls`]; equal lists have equal numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclId(u32);

impl AclId {
    /// No list was ever stored: PostgreSQL's default for the kind of object holds.
    pub const DEFAULT: AclId = AclId(0);
}

/// All lists of a database, each stored once.
#[derive(Clone, Debug, Default)]
pub struct Acls {
    lists: Vec<Vec<AclItem>>,
    by_text: HashMap<String, AclId>,
}

impl Acls {
    /// The list of an id; `None` for [`AclId::DEFAULT`].
    pub fn get(&self, id: AclId) -> Option<&[AclItem]> {
        (id.0 as usize).checked_sub(1).map(|at| self.lists[at].as_slice())
    }

    /// How many distinct lists there are.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether no list is stored.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Stores the list that a text shows. `role` finds a role by its name.
    pub(crate) fn intern(
        &mut self,
        text: Option<&str>,
        role: &dyn Fn(&str) -> Option<Oid>,
    ) -> Result<AclId, String> {
        let Some(text) = text else { return Ok(AclId::DEFAULT) };
        if let Some(id) = self.by_text.get(text) {
            return Ok(*id);
        }
        let items = array_elements(text)
            .and_then(|elements| elements.iter().map(|e| parse_item(e, role)).collect::<Option<Vec<_>>>())
            .ok_or_else(|| text.to_owned())?;
        self.lists.push(items);
        let id = AclId(u32::try_from(self.lists.len()).map_err(|_| text.to_owned())?);
        self.by_text.insert(text.to_owned(), id);
        Ok(id)
    }
}

/// The elements of an array as PostgreSQL writes it: `{a,"b,\"c"}`.
fn array_elements(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut element = String::new();
    let mut chars = inner.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => element.push(chars.next()?),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            c => element.push(c),
        }
    }
    if !inner.is_empty() {
        elements.push(element);
    }
    (!quoted).then_some(elements)
}

/// One item: `grantee=privileges/grantor`, names quoted where they need it.
fn parse_item(text: &str, role: &dyn Fn(&str) -> Option<Oid>) -> Option<AclItem> {
    let (grantee, rest) = name(text)?;
    let rest = rest.strip_prefix('=')?;
    let (letters, rest) = rest.split_once('/')?;
    let (grantor, rest) = name(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut held = Held::default();
    let mut last = Privileges::NONE;
    for letter in letters.chars() {
        if letter == '*' {
            held.grantable |= last;
        } else {
            last = Privileges::of_letter(letter);
            held.privileges |= last;
        }
    }
    let grantee = if grantee.is_empty() { PUBLIC_OID } else { find(&grantee, role)? };
    Some(AclItem { grantee, grantor: find(&grantor, role)?, held })
}

/// The oid of a role's name. A role that was dropped behind PostgreSQL's back shows as its number.
fn find(name: &str, role: &dyn Fn(&str) -> Option<Oid>) -> Option<Oid> {
    role(name).or_else(|| name.parse().ok())
}

/// A name at the beginning of an item, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['=', '/']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let at = rest.find('"')?;
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(name: &str) -> Option<Oid> {
        ["postgres", "app", "odd \"one\",=/*"].iter().position(|n| *n == name).map(|at| at as Oid + 10)
    }

    #[test]
    fn lists_are_read_and_shared() {
        let mut acls = Acls::default();
        let text = r#"{postgres=arwdDxt/postgres,=r/postgres,app=r*w/postgres}"#;
        let id = acls.intern(Some(text), &roles).unwrap();
        assert_eq!(acls.intern(Some(text), &roles).unwrap(), id);
        let items = acls.get(id).unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(items[1].grantee, PUBLIC_OID);
        assert_eq!(items[2].held.privileges, Privileges::SELECT | Privileges::UPDATE);
        assert_eq!(items[2].held.grantable, Privileges::SELECT);
        assert_eq!(acls.intern(None, &roles).unwrap(), AclId::DEFAULT);
        assert_eq!(acls.get(AclId::DEFAULT), None);
    }

    #[test]
    fn odd_names_and_lost_roles() {
        let mut acls = Acls::default();
        let text = r#"{"\"odd \"\"one\"\",=/*\"=U/postgres","16999=C/postgres"}"#;
        let id = acls.intern(Some(text), &roles).unwrap();
        let items = acls.get(id).unwrap();
        assert_eq!((items[0].grantee, items[1].grantee), (12, 16999));
        let empty = acls.intern(Some("{}"), &roles).unwrap();
        assert_eq!(acls.get(empty).unwrap(), []);
        assert!(acls.intern(Some("{nobody=r/postgres}"), &roles).is_err());
    }
}
