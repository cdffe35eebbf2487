//! What each grantee holds according to an access control list.

use crate::acl::{AclId, PUBLIC_OID};
use crate::observe::{Observed, Oid};
use crate::privilege::{Held, Kind, Privileges};

/// Each grantee with what it holds from all grantors, without the owner, who needs no list.
/// Without a list, PostgreSQL's default for the kind holds.
pub(super) fn held(observed: &Observed, acl: AclId, kind: Kind, owner: Oid) -> Vec<(Oid, Held)> {
    let Some(items) = observed.acl(acl) else {
        let public = Held::plain(Privileges::public_default(kind));
        return if public.is_empty() { Vec::new() } else { vec![(PUBLIC_OID, public)] };
    };
    let mut all: Vec<(Oid, Held)> = Vec::with_capacity(items.len());
    for item in items.iter().filter(|item| item.grantee != owner) {
        match all.iter_mut().find(|(grantee, _)| *grantee == item.grantee) {
            Some((_, sum)) => *sum = sum.union(item.held),
            None => all.push((item.grantee, item.held)),
        }
    }
    all.retain(|(_, held)| !held.is_empty());
    all.sort_unstable_by_key(|(grantee, _)| *grantee);
    all
}

/// The words of what is held, as the strategy writes them. `ALL` stands for all seven
/// privileges of a table; elsewhere the words are no longer than it.
pub(super) fn words(held: Held, kind: Kind) -> Vec<String> {
    let plain = held.privileges.without(held.grantable);
    let mut words = short(plain, kind);
    words.extend(short(held.grantable, kind).into_iter().map(|word| format!("{word} WITH GRANT OPTION")));
    words
}

fn short(privileges: Privileges, kind: Kind) -> Vec<String> {
    let all = Privileges::all(kind, 16);
    let (head, rest) = if kind == Kind::Table && privileges.contains(all) {
        (Some("ALL".to_owned()), privileges.without(all))
    } else {
        (None, privileges)
    };
    head.into_iter().chain(rest.words().map(str::to_owned)).collect()
}
