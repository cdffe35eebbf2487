//! One master key in an age file, for a passphrase or for a recipient.

use std::fmt;

use age::x25519;
use obyra_evidence::{Failure, text};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{Master, Unlock};
use crate::Result;

/// scrypt's log2 of the work: about 0.1 s, 32 MiB.
const SCRYPT_LOG_N: u8 = 15;
/// The most work that is done for a file that somebody else may have written: that of the age program itself,
/// about 1 s and 256 MiB.
const SCRYPT_LOG_N_MAX: u8 = 18;
/// A shorter passphrase would be found by trying.
const PASSPHRASE_MIN: usize = 12;

/// For whom a key is wrapped.
#[derive(Clone)]
pub enum Lock {
    /// Whoever knows this passphrase.
    Passphrase(SecretString),
    /// Whoever holds the identity of this age recipient, `age1…`.
    Recipient(String),
    /// Everybody who can read the store: the repository is not encrypted.
    Open,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lock::Passphrase(_) => f.write_str("Passphrase"),
            Lock::Recipient(recipient) => write!(f, "Recipient({recipient})"),
            Lock::Open => f.write_str("Open"),
        }
    }
}

impl Lock {
    /// The lock that a secret opens.
    pub fn of(unlock: &Unlock) -> Result<Lock> {
        Ok(match unlock {
            Unlock::Passphrase(passphrase) => Lock::Passphrase(passphrase.clone()),
            Unlock::Identity(secret) => Lock::Recipient(identity(secret)?.to_public().to_string()),
            Unlock::Open => Lock::Open,
        })
    }

    /// The public key, if it has one.
    pub(super) fn recipient(&self) -> Option<&str> {
        match self {
            Lock::Recipient(recipient) => Some(recipient),
            _ => None,
        }
    }
}

/// The bytes of the object that holds the key for whoever opens this lock.
pub(super) fn wrap(master: &Master, lock: &Lock) -> Result<Vec<u8>> {
    let failed = |error: age::EncryptError| Failure::new(text::backup::KEY_NOT_WRAPPED).because(error);
    let plain = master.expose_secret().as_slice();
    match lock {
        Lock::Passphrase(passphrase) if passphrase.expose_secret().chars().count() < PASSPHRASE_MIN => {
            Err(Failure::usage(text::backup::PASSPHRASE_SHORT.with("count", PASSPHRASE_MIN))
                .mended_by(text::backup::PASSPHRASE_SHORT_MEND))
        }
        Lock::Passphrase(passphrase) => {
            let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(SCRYPT_LOG_N);
            age::encrypt(&recipient, plain).map_err(failed)
        }
        Lock::Recipient(recipient) => {
            let known: x25519::Recipient = recipient.parse().map_err(|e: &str| {
                Failure::usage(text::backup::RECIPIENT_MALFORMED.with("key", recipient)).because(e)
            })?;
            age::encrypt(&known, plain).map_err(failed)
        }
        Lock::Open => Ok(format!("{}\n", super::hex::encode(plain)).into_bytes()),
    }
}

/// The key in an object; `None` if it is wrapped for somebody else.
pub(super) fn unwrap(wrapped: &[u8], unlock: &Unlock) -> Result<Option<Master>> {
    let plain = match unlock {
        Unlock::Passphrase(passphrase) => {
            let mut identity = age::scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(SCRYPT_LOG_N_MAX);
            age::decrypt(&identity, wrapped).ok()
        }
        Unlock::Identity(secret) => age::decrypt(&identity(secret)?, wrapped).ok(),
        Unlock::Open => {
            let digits = std::str::from_utf8(wrapped).unwrap_or_default().trim_end();
            super::hex::decode::<{ super::WRAPPED }>(digits).map(|bytes| bytes.to_vec())
        }
    };
    let Some(plain) = plain else { return Ok(None) };
    let plain = SecretBox::new(Box::new(plain));
    let master: Option<[u8; super::WRAPPED]> = plain.expose_secret().as_slice().try_into().ok();
    Ok(master.map(|master| SecretBox::new(Box::new(master))))
}

fn identity(secret: &SecretString) -> Result<x25519::Identity> {
    secret.expose_secret().parse().map_err(|e: &str| Failure::usage(text::backup::KEY_MALFORMED).because(e))
}
