//! Encryption for people: whoever holds one of the private keys can read an export with the age program
//! alone; this program holds none of them.

use std::io::Write;

use age::x25519;
use obyra_evidence::{Failure, text};

use crate::Result;

/// Those for whom exports are encrypted.
pub struct Recipients {
    keys: Vec<x25519::Recipient>,
    written: Vec<String>,
}

impl Recipients {
    /// Reads age public keys.
    pub fn parse(keys: &[String]) -> Result<Recipients> {
        if keys.is_empty() {
            return Err(
                Failure::usage(text::backup::NO_RECIPIENTS).mended_by(text::backup::NO_RECIPIENTS_MEND)
            );
        }
        let parsed = keys.iter().map(|key| {
            key.parse::<x25519::Recipient>().map_err(|why| {
                Failure::usage(text::backup::RECIPIENT_MALFORMED.with("key", key))
                    .because(why)
                    .mended_by(text::backup::NO_RECIPIENTS_MEND)
            })
        });
        Ok(Recipients { keys: parsed.collect::<Result<_>>()?, written: keys.to_vec() })
    }

    /// As they were written.
    pub fn public_keys(&self) -> &[String] {
        &self.written
    }

    /// A writer that encrypts into another.
    pub(super) fn encrypting<W: Write>(&self, out: W) -> Result<age::stream::StreamWriter<W>> {
        let failed = |why: &dyn std::fmt::Display| Failure::new(text::backup::EXPORT).because(why);
        let recipients = self.keys.iter().map(|key| key as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|e| failed(&e))?;
        encryptor.wrap_output(out).map_err(|e| failed(&e))
    }
}
