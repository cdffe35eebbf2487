//! The arithmetic of the chain, without a disk: canonical text, the hash of a link, and a walk
//! along the links that stops at the first broken one.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Link;
use crate::Record;

/// What stands in the place of the previous hash before the first record.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A record as text: compact JSON with its keys sorted. These bytes are stored, hashed and
/// exported as they are, so that no reader needs to make them again.
pub(super) fn canonical(record: &Record) -> serde_json::Result<String> {
    let mut out = String::new();
    write_sorted(&serde_json::to_value(record)?, &mut out);
    Ok(out)
}

fn write_sorted(value: &Value, out: &mut String) {
    let Value::Object(map) = value else {
        out.push_str(&value.to_string());
        return;
    };
    let mut members: Vec<_> = map.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (position, (key, member)) in members.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write_sorted(member, out);
    }
    out.push('}');
}

/// The hash of a link: SHA-256 over the previous hash, the number and the record, one to a line.
pub(super) fn hash(previous: &str, sequence: i64, record: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(format!("{previous}\n{sequence}\n{record}"));
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What is wrong with the first broken link, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Changed(i64),
    Removed(i64),
    Reordered(i64),
}

/// Follows the chain from its first link.
pub(super) struct Walk {
    pub(super) records: i64,
    pub(super) head: String,
}

impl Walk {
    pub(super) fn begin() -> Self {
        Walk { records: 0, head: GENESIS.to_owned() }
    }

    pub(super) fn step(&mut self, link: &Link) -> Result<(), Broken> {
        let expected = self.records + 1;
        if link.sequence != expected {
            return Err(Broken::Removed(expected));
        }
        if link.previous != self.head {
            return Err(Broken::Reordered(expected));
        }
        if link.hash != hash(&link.previous, link.sequence, &link.record) {
            return Err(Broken::Changed(expected));
        }
        self.records = expected;
        self.head.clone_from(&link.hash);
        Ok(())
    }

    /// Compares with the highest number ever given: a simple DELETE at the end does not lower it.
    pub(super) fn end(&self, highest_ever: i64) -> Result<(), Broken> {
        if highest_ever > self.records { Err(Broken::Removed(self.records + 1)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let mut out = String::new();
        write_sorted(&serde_json::json!({"b": {"z": 1, "a": "\"ñ"}, "a": [1.5, null]}), &mut out);
        assert_eq!(out, r#"{"a":[1.5,null],"b":{"a":"\"ñ","z":1}}"#);
    }

    #[test]
    fn the_hash_is_plain_sha256() {
        // printf '0…0\n1\n{}' | sha256sum
        assert_eq!(
            hash(GENESIS, 1, "{}"),
            "857ee6299d26533d1f5f46c02209ae8bc34dc4898a8a9545493946b4ea59d6f3"
        );
    }
}
