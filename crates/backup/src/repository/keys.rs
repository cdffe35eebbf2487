//! The keys: master keys in the repository, each wrapped with age for whoever may open it.
//!
//! `keys/<key id>/<way>.age` holds one master key, for one passphrase or one age recipient: the age program
//! alone can unwrap it. A new master key seals what is written from then on; the older ones go on opening
//! what they sealed, so that a rotation rewrites nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use age::x25519;
use obyra_evidence::{Failure, text};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};

use super::hex;
use super::pack::Seal;
use super::store::Store;
use crate::Result;

const FOLDER: &str = "keys";
/// scrypt's log2 of the work: about 0.1 s, 32 MiB.
const SCRYPT_LOG_N: u8 = 15;
/// Bytes of what is wrapped: the master key, then the key of the block identities.
const WRAPPED: usize = 64;

/// The name of a master key: random, and sorted by when it was made. Written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(#[serde(with = "hex")] pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What opens a repository.
#[derive(Clone)]
pub enum Unlock {
    /// A passphrase that a person can type.
    Passphrase(SecretString),
    /// An age identity, `AGE-SECRET-KEY-1…`.
    Identity(SecretString),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unlock::Passphrase(_) => "Passphrase",
            Unlock::Identity(_) => "Identity",
        })
    }
}

impl Unlock {
    /// What a variable or a file holds: an age identity if it looks like one, else a passphrase.
    pub fn read(secret: SecretString) -> Unlock {
        let trimmed = secret.expose_secret().trim();
        match trimmed.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")) {
            Some(identity) => Unlock::Identity(SecretString::from(identity.to_owned())),
            None => Unlock::Passphrase(SecretString::from(trimmed.to_owned())),
        }
    }

    /// A new age identity.
    pub fn generate() -> Unlock {
        Unlock::Identity(SecretString::from(
            x25519::Identity::generate().to_string().expose_secret().to_owned(),
        ))
    }
}

/// The unwrapped master keys. Clones share them.
#[derive(Clone)]
pub struct Keyring {
    masters: Arc<BTreeMap<KeyId, SecretBox<[u8; WRAPPED]>>>,
    current: KeyId,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The key that seals what is written now.
    pub fn current(&self) -> KeyId {
        self.current
    }

    /// The key of a pack.
    pub fn pack_key(&self, seal: &Seal, object: &str) -> Result<[u8; 32]> {
        let master = self.masters.get(&seal.key).ok_or_else(|| {
            Failure::new(text::backup::KEY_MISSING.with("object", object).with("key", seal.key))
                .mended_by(text::backup::KEY_MISSING_MEND)
        })?;
        let (key, _) = halves(master.expose_secret());
        Ok(*blake3::keyed_hash(&key, &seal.salt).as_bytes())
    }

    /// The key of the block identities: the same under every master key, so that blocks can be compared
    /// across a rotation.
    pub fn identity_key(&self) -> [u8; 32] {
        self.masters.get(&self.current).map_or([0; 32], |master| halves(master.expose_secret()).1)
    }

    /// Whether the store has no key at all.
    pub async fn is_absent(store: &Store) -> Result<bool> {
        Ok(store.list(FOLDER).await?.is_empty())
    }

    /// Makes the first master key.
    pub async fn create(store: &Store, unlock: &Unlock) -> Result<()> {
        let mut master = SecretBox::new(Box::new([0; WRAPPED]));
        getrandom::fill(secrecy::ExposeSecretMut::expose_secret_mut(&mut master))
            .map_err(|e| Failure::new(text::backup::NO_RANDOMNESS).because(e))?;
        let id = KeyId([0; 16]);
        let wrapped = wrap(&master, unlock)?;
        store.create(&format!("{FOLDER}/{id}/first.age"), wrapped.into()).await.map(drop)
    }

    /// Opens every master key that this secret opens.
    pub async fn open(store: &Store, unlock: &Unlock) -> Result<Keyring> {
        let mut masters = BTreeMap::new();
        for object in store.list(FOLDER).await? {
            let Some(id) = key_id(&object.name) else { continue };
            if masters.contains_key(&id) {
                continue;
            }
            let Some(wrapped) = store.get(&object.name).await? else { continue };
            if let Some(master) = unwrap(&wrapped, unlock)? {
                masters.insert(id, master);
            }
        }
        let Some(current) = masters.keys().next_back().copied() else {
            return Err(Failure::refused(text::backup::WRONG_KEY.with("store", store.url()))
                .mended_by(text::backup::WRONG_KEY_MEND));
        };
        Ok(Keyring { masters: Arc::new(masters), current })
    }

    /// A keyring of one random key that no store holds, for tests and fuzzing.
    #[doc(hidden)]
    pub fn for_tests() -> Keyring {
        let id = KeyId([7; 16]);
        let masters = BTreeMap::from([(id, SecretBox::new(Box::new([9; WRAPPED])))]);
        Keyring { masters: Arc::new(masters), current: id }
    }
}

fn halves(master: &[u8; WRAPPED]) -> ([u8; 32], [u8; 32]) {
    let (mut key, mut identity) = ([0; 32], [0; 32]);
    key.copy_from_slice(&master[..32]);
    identity.copy_from_slice(&master[32..]);
    (key, identity)
}

fn key_id(name: &str) -> Option<KeyId> {
    let digits = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split('/').next()?;
    hex::decode(digits).map(KeyId)
}

fn wrap(master: &SecretBox<[u8; WRAPPED]>, unlock: &Unlock) -> Result<Vec<u8>> {
    let failed = |error: &dyn fmt::Display| Failure::new(text::backup::KEY_NOT_WRAPPED).because(error);
    let plain = master.expose_secret().as_slice();
    match unlock {
        Unlock::Passphrase(passphrase) => {
            let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(SCRYPT_LOG_N);
            age::encrypt(&recipient, plain).map_err(|e| failed(&e))
        }
        Unlock::Identity(identity) => {
            let identity: x25519::Identity =
                identity.expose_secret().parse().map_err(|e: &str| failed(&e))?;
            age::encrypt(&identity.to_public(), plain).map_err(|e| failed(&e))
        }
    }
}

/// `None` if it is wrapped for somebody else.
fn unwrap(wrapped: &[u8], unlock: &Unlock) -> Result<Option<SecretBox<[u8; WRAPPED]>>> {
    let plain = match unlock {
        Unlock::Passphrase(passphrase) => {
            age::decrypt(&age::scrypt::Identity::new(passphrase.clone()), wrapped)
        }
        Unlock::Identity(identity) => {
            let identity: x25519::Identity = identity
                .expose_secret()
                .parse()
                .map_err(|e: &str| Failure::usage(text::backup::KEY_MALFORMED).because(e))?;
            age::decrypt(&identity, wrapped)
        }
    };
    let Ok(plain) = plain else { return Ok(None) };
    let plain = SecretBox::new(Box::new(plain));
    let master: Option<[u8; WRAPPED]> = plain.expose_secret().as_slice().try_into().ok();
    Ok(master.map(|master| SecretBox::new(Box::new(master))))
}
