//! The keys: master keys in the repository, each wrapped for whoever may open it.
//!
//! `keys/<key id>/<way>.age` holds one master key, for one passphrase or one age recipient: the age program
//! alone can unwrap it. A new master key seals what is written from then on; the older ones go on opening
//! what they sealed, so that a rotation rewrites nothing. In a repository that is not encrypted,
//! `keys/<key id>/open` holds it for everybody.

mod mirror;
mod ways;
mod wrap;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use age::x25519;
use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};

use self::ways::Digest;
use self::wrap::{unwrap, wrap};
use super::hex;
use super::pack::Seal;
use super::store::{Created, Store};
use crate::Result;

pub(crate) use self::mirror::mirror;
pub use self::ways::{Rotation, Way};
pub use self::wrap::Lock;

/// The folder of the keys.
pub const FOLDER: &str = "keys";
/// The way of a repository that is not encrypted.
const OPEN: &str = "open";
/// The way that a repository is made with.
const FIRST: &str = "first";
/// Bytes of what is wrapped: the master key, then the key of the block identities.
const WRAPPED: usize = 64;

type Master = SecretBox<[u8; WRAPPED]>;

/// The name of a master key: when it was made, and random digits, so that the newest sorts last. Written in
/// hexadecimal. The first one's is all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(#[serde(with = "hex")] pub [u8; 16]);

impl KeyId {
    /// The name of a key that is made now; it sorts after the one before, whatever the clock says.
    fn new(now: Timestamp, before: KeyId) -> Result<KeyId> {
        let mut last = [0; 8];
        last.copy_from_slice(&before.0[..8]);
        let time = u64::try_from(now.as_millisecond()).unwrap_or(0).max(u64::from_be_bytes(last) + 1);
        let mut id: [u8; 16] = random()?;
        id[..8].copy_from_slice(&time.to_be_bytes());
        Ok(KeyId(id))
    }
}

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
    /// Nothing is needed: the repository is not encrypted, its key lies in it. Whoever can read the store
    /// can read the databases.
    Open,
    /// A passphrase that a person can type.
    Passphrase(SecretString),
    /// An age identity, `AGE-SECRET-KEY-1…`.
    Identity(SecretString),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unlock::Open => "Open",
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

    /// Whether no secret is needed.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Unlock::Open)
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
    masters: Arc<BTreeMap<KeyId, Master>>,
    current: KeyId,
    /// There is a newer key, which the given secret does not open: what was written can be read.
    replaced: bool,
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

    /// The same, for whoever is about to seal something: never a key that was replaced.
    pub(super) fn sealing(&self) -> Result<KeyId> {
        if self.replaced {
            return Err(
                Failure::refused(text::backup::KEY_REPLACED).mended_by(text::backup::KEY_REPLACED_MEND)
            );
        }
        Ok(self.current)
    }

    /// The key of a pack.
    pub(super) fn pack_key(&self, seal: &Seal, object: &str) -> Result<Zeroizing<[u8; 32]>> {
        let key = half(self.master(seal.key, object)?, 0);
        Ok(Zeroizing::new(*blake3::keyed_hash(&key, &seal.salt).as_bytes()))
    }

    fn master(&self, key: KeyId, object: &str) -> Result<&Master> {
        self.masters.get(&key).ok_or_else(|| {
            Failure::new(text::backup::KEY_MISSING.with("object", object).with("key", key))
                .mended_by(text::backup::KEY_MISSING_MEND)
        })
    }

    /// The key of the block identities: the same under every master key, so that blocks can be compared
    /// across a rotation.
    pub fn identity_key(&self) -> [u8; 32] {
        self.masters.get(&self.current).map_or([0; 32], |master| *half(master, 32))
    }

    fn of(masters: BTreeMap<KeyId, Master>, current: KeyId) -> Keyring {
        Keyring { masters: Arc::new(masters), current, replaced: false }
    }

    /// Whether the store has no key at all.
    pub async fn is_absent(store: &Store) -> Result<bool> {
        Ok(store.list(FOLDER).await?.is_empty())
    }

    /// Makes the first master key.
    pub async fn create(store: &Store, unlock: &Unlock) -> Result<()> {
        let (id, lock) = (KeyId([0; 16]), Lock::of(unlock)?);
        let way = if unlock.is_open() { OPEN } else { FIRST };
        let master = new_master(None)?;
        let wrapped = wrap(&master, &lock)?;
        let digest = Digest(*blake3::hash(&wrapped).as_bytes());
        if store.create(&object(id, way), wrapped.into()).await? == Created::Existed {
            return Ok(());
        }
        let keyring = Keyring::of(BTreeMap::from([(id, master)]), id);
        keyring.write_note(store, way, &lock, BTreeMap::from([(id, digest)])).await
    }

    /// Opens every master key that this secret opens.
    pub async fn open(store: &Store, unlock: &Unlock) -> Result<Keyring> {
        let mut masters: BTreeMap<KeyId, Master> = BTreeMap::new();
        let (mut known, mut is_open) = (KeyId([0; 16]), false);
        for info in store.list(FOLDER).await? {
            let Some((id, way, true)) = parse(&info.name) else { continue };
            known = known.max(id);
            is_open |= way == OPEN;
            if masters.contains_key(&id) || unlock.is_open() != (way == OPEN) {
                continue;
            }
            let Some(wrapped) = store.get(&info.name).await? else { continue };
            if let Some(master) = unwrap(&wrapped, unlock)? {
                masters.insert(id, master);
            }
        }
        match masters.keys().next_back().copied() {
            Some(current) => Ok(Keyring { masters: Arc::new(masters), current, replaced: current != known }),
            None if unlock.is_open() => {
                Err(Failure::refused(text::backup::ENCRYPTED.with("store", store.url()))
                    .mended_by(text::backup::ENCRYPTED_MEND))
            }
            None if is_open => Err(Failure::refused(text::backup::NOT_ENCRYPTED.with("store", store.url()))
                .mended_by(text::backup::NOT_ENCRYPTED_MEND)),
            None => Err(wrong_key(store)),
        }
    }

    /// A keyring of one random key that no store holds, for tests and fuzzing.
    #[doc(hidden)]
    pub fn for_tests() -> Keyring {
        let id = KeyId([7; 16]);
        let masters = BTreeMap::from([(id, SecretBox::new(Box::new([9; WRAPPED])))]);
        Keyring::of(masters, id)
    }
}

/// A new master key; with the given key of block identities, or a new one.
fn new_master(identities: Option<&[u8; 32]>) -> Result<Master> {
    let mut master: Master = SecretBox::new(Box::new([0; WRAPPED]));
    let bytes = master.expose_secret_mut();
    getrandom::fill(bytes).map_err(no_randomness)?;
    if let Some(identities) = identities {
        bytes[32..].copy_from_slice(identities);
    }
    Ok(master)
}

fn copy(master: &Master) -> Master {
    SecretBox::new(Box::new(*master.expose_secret()))
}

fn half(master: &Master, from: usize) -> Zeroizing<[u8; 32]> {
    let mut half = Zeroizing::new([0; 32]);
    half.copy_from_slice(&master.expose_secret()[from..from + 32]);
    half
}

/// The object of a wrapped key.
fn object(key: KeyId, way: &str) -> String {
    let ending = if way == OPEN { "" } else { ".age" };
    format!("{FOLDER}/{key}/{way}{ending}")
}

/// The key and the way of an object, and whether it is the wrapped key (or the note about the way).
fn parse(name: &str) -> Option<(KeyId, String, bool)> {
    let (key, file) = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
    let key = KeyId(hex::decode(key)?);
    if file == OPEN {
        return Some((key, OPEN.to_owned(), true));
    }
    let (way, ending) = file.rsplit_once('.')?;
    match ending {
        "age" => Some((key, way.to_owned(), true)),
        "way" => Some((key, way.to_owned(), false)),
        _ => None,
    }
}

fn wrong_key(store: &Store) -> Failure {
    Failure::refused(text::backup::WRONG_KEY.with("store", store.url()))
        .mended_by(text::backup::WRONG_KEY_MEND)
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(bytes)
}

fn no_randomness(error: getrandom::Error) -> Failure {
    Failure::new(text::backup::NO_RANDOMNESS).because(error)
}

#[cfg(test)]
mod tests;
