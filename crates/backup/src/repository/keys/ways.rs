//! The ways to open a repository: listed, added, removed; and a new master key for what is written from now
//! on.
//!
//! Beside each wrapped key lies a sealed note, `<way>.way`: whoever can write to the store, and no more,
//! cannot slip in a recipient of his own for the next master key.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::wrap::{Lock, wrap};
use super::{FOLDER, KeyId, Keyring, OPEN, Unlock, new_master, object, parse};
use crate::Result;
use crate::repository::hex;
use crate::repository::pack::{Kind, Pack, PackWriter};
use crate::repository::store::{Created, Store};

/// A way to open a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// The age recipient that it is for; `None` for a passphrase, and where nothing is known.
    pub recipient: Option<String>,
    /// The master keys that it opens, oldest first.
    pub keys: Vec<KeyId>,
    /// Whether it opens what is written now.
    pub current: bool,
}

/// What a rotation did.
#[derive(Debug)]
pub struct Rotation {
    /// The keyring with the new key.
    pub keyring: Keyring,
    /// The ways that open the new key.
    pub wrapped: Vec<String>,
    /// The ways that do not: a passphrase that was not given. They go on opening what they opened, and can
    /// be added again.
    pub left_out: Vec<String>,
}

/// The sealed note about a way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) recipient: Option<String>,
    /// BLAKE3 of the wrapped keys, by key.
    pub(super) wrapped: BTreeMap<KeyId, Digest>,
}

/// A hash, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Digest(#[serde(with = "hex")] pub(super) [u8; 32]);

impl Keyring {
    /// The ways that open this repository.
    pub async fn ways(&self, store: &Store) -> Result<Vec<Way>> {
        let mut keys: BTreeMap<String, BTreeSet<KeyId>> = BTreeMap::new();
        let mut notes = BTreeMap::new();
        for info in store.list(FOLDER).await? {
            match parse(&info.name) {
                Some((key, way, true)) => {
                    keys.entry(way).or_default().insert(key);
                }
                Some((key, way, false)) if self.masters.contains_key(&key) => {
                    if let Some(note) = self.note(store, &info.name).await? {
                        notes.insert(way, note);
                    }
                }
                _ => {}
            }
        }
        let way = |(name, keys): (String, BTreeSet<KeyId>)| Way {
            recipient: notes.get(&name).and_then(|note: &Note| note.recipient.clone()),
            current: keys.contains(&self.current),
            keys: keys.into_iter().collect(),
            name,
        };
        Ok(keys.into_iter().map(way).collect())
    }

    /// The hashes of the wrapped keys, by object, as the sealed notes tell.
    pub(crate) async fn wrapped(&self, store: &Store) -> Result<BTreeMap<String, [u8; 32]>> {
        let mut wrapped = BTreeMap::new();
        for info in store.list(FOLDER).await? {
            let Some((key, way, false)) = parse(&info.name) else { continue };
            if !self.masters.contains_key(&key) {
                continue;
            }
            // One that cannot be opened was not written by us.
            let Ok(Some(note)) = self.note(store, &info.name).await else { continue };
            wrapped.extend(note.wrapped.iter().map(|(key, hash)| (object(*key, &way), hash.0)));
        }
        Ok(wrapped)
    }

    /// Adds a way, which opens all that this keyring opens.
    pub async fn add(&self, store: &Store, name: &str, lock: &Lock) -> Result<()> {
        check_name(name, lock)?;
        let mut wrapped = BTreeMap::new();
        for (key, master) in self.masters.iter() {
            let bytes = wrap(master, lock)?;
            wrapped.insert(*key, Digest(*blake3::hash(&bytes).as_bytes()));
            if store.create(&object(*key, name), bytes.into()).await? == Created::Existed {
                return Err(Failure::refused(text::backup::WAY_EXISTS.with("way", name))
                    .mended_by(text::backup::WAY_EXISTS_MEND));
            }
        }
        self.write_note(store, name, lock, wrapped).await
    }

    /// Removes a way, unless nothing else would open what is written now. What it has opened once, it may
    /// have kept: only a rotation keeps the future from it.
    pub async fn remove(&self, store: &Store, name: &str) -> Result<()> {
        let ways = self.ways(store).await?;
        let Some(way) = ways.iter().find(|way| way.name == name) else {
            return Err(Failure::usage(text::backup::NO_WAY.with("way", name))
                .mended_by(text::backup::NO_WAY_MEND.with("ways", names(ways.iter()))));
        };
        if !ways.iter().any(|other| other.name != name && other.current) {
            return Err(Failure::refused(text::backup::LAST_WAY.with("way", name))
                .mended_by(text::backup::LAST_WAY_MEND));
        }
        // What it opens alone would be lost.
        for key in &way.keys {
            if !ways.iter().any(|other| other.name != name && other.keys.contains(key)) {
                let what = text::backup::LAST_WAY_OF_KEY.with("way", name).with("key", key);
                return Err(Failure::refused(what).mended_by(text::backup::LAST_WAY_MEND));
            }
        }
        for info in store.list(FOLDER).await? {
            if let Some((key, way, _)) = parse(&info.name)
                && way == name
            {
                store.delete(&info.name).await?;
                store.flush(&format!("{FOLDER}/{key}")).await?;
            }
        }
        Ok(())
    }

    /// Makes a new master key for what is written from now on, for the given secret and for every way
    /// that needs no secret to be wrapped for again. Nothing that was written is rewritten.
    pub async fn rotate(&self, store: &Store, unlock: &Unlock, now: Timestamp) -> Result<Rotation> {
        let ways = self.ways(store).await?;
        let mut locks = vec![(self.way_of(store, unlock).await?, Lock::of(unlock)?)];
        let mut left_out = Vec::new();
        for way in ways.into_iter().filter(|way| way.name != locks[0].0).collect::<Vec<_>>() {
            match way.recipient {
                Some(recipient) => locks.push((way.name, Lock::Recipient(recipient))),
                None => left_out.push(way.name),
            }
        }
        let key = KeyId::new(now, self.current)?;
        self.sealing()?;
        // The block identities stay: blocks can be compared across the rotation.
        let master = new_master(Some(&self.identity_key()))?;
        let mut wrapped = Vec::new();
        for (name, lock) in &locks {
            wrapped.push((name, lock, wrap(&master, lock)?));
        }
        let mut masters: BTreeMap<_, _> =
            self.masters.iter().map(|(key, master)| (*key, super::copy(master))).collect();
        masters.insert(key, master);
        let keyring = Keyring::of(masters, key);
        // The given secret first: from then on the key can be opened.
        for (name, lock, bytes) in wrapped {
            let digest = Digest(*blake3::hash(&bytes).as_bytes());
            store.create_new(&object(key, name), bytes.into()).await?;
            keyring.write_note(store, name, lock, BTreeMap::from([(key, digest)])).await?;
        }
        let wrapped = locks.into_iter().map(|(name, _)| name).collect();
        Ok(Rotation { keyring, wrapped, left_out })
    }

    /// The name of the way that a secret opens.
    async fn way_of(&self, store: &Store, unlock: &Unlock) -> Result<String> {
        for info in store.list(FOLDER).await? {
            let Some((key, way, true)) = parse(&info.name) else { continue };
            if key != self.current || unlock.is_open() != (way == OPEN) {
                continue;
            }
            let Some(bytes) = store.get(&info.name).await? else { continue };
            if super::wrap::unwrap(&bytes, unlock)?.is_some() {
                return Ok(way);
            }
        }
        Err(super::wrong_key(store))
    }

    pub(super) async fn write_note(
        &self,
        store: &Store,
        way: &str,
        lock: &Lock,
        wrapped: BTreeMap<KeyId, Digest>,
    ) -> Result<()> {
        let name = note_object(self.current, way);
        let note = Note { recipient: lock.recipient().map(str::to_owned), wrapped };
        let json = serde_json::to_vec(&note)
            .map_err(|e| Failure::new(text::backup::SEAL.with("object", &name)).because(e))?;
        let mut pack = PackWriter::new(self, &name, 1)?;
        pack.push(Kind::Data, &json, Vec::new())?;
        store.create_new(&name, pack.finish()?.bytes).await
    }

    /// What a note says; `None` if it is gone.
    pub(super) async fn note(&self, store: &Store, name: &str) -> Result<Option<Note>> {
        let Some(bytes) = store.get(name).await? else { return Ok(None) };
        let pack = Pack::open(self, name, bytes)?;
        let json = pack.frames(Kind::Data).next().transpose()?.unwrap_or_default();
        let unreadable = |e| Failure::new(text::backup::OBJECT_UNREADABLE.with("object", name)).because(e);
        serde_json::from_slice(&json).map(Some).map_err(unreadable)
    }
}

fn note_object(key: KeyId, way: &str) -> String {
    format!("{FOLDER}/{key}/{way}.way")
}

fn names<'a>(ways: impl Iterator<Item = &'a Way>) -> String {
    ways.map(|way| way.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn check_name(name: &str, lock: &Lock) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let named = !name.is_empty() && name.len() <= 40 && name.chars().all(plain);
    if named && (name == OPEN) == matches!(lock, Lock::Open) {
        return Ok(());
    }
    Err(Failure::usage(text::backup::WAY_NAME.with("way", name)).mended_by(text::backup::WAY_NAME_MEND))
}
