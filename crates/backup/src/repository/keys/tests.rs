use super::*;
use crate::repository::Repository;
use crate::repository::pack::{Kind, Pack, PackWriter};

const NAME: &str = "clusters/1/backups/x";

fn passphrase(words: &str) -> Unlock {
    Unlock::Passphrase(SecretString::from(words.to_owned()))
}

fn recipient(unlock: &Unlock) -> Lock {
    Lock::of(unlock).unwrap()
}

fn now() -> Timestamp {
    "2026-11-24T03:00:00Z".parse().unwrap()
}

fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    (folder, store)
}

async fn opened(store: &Store, unlock: &Unlock) -> Keyring {
    Repository::open(store.clone(), unlock).await.unwrap().keys
}

fn sealed(keys: &Keyring) -> bytes::Bytes {
    let mut pack = PackWriter::new(keys, NAME, 1).unwrap();
    pack.push(Kind::Data, b"secret", Vec::new()).unwrap();
    pack.finish().unwrap().bytes
}

async fn code(store: &Store, unlock: &Unlock) -> &'static str {
    Repository::open(store.clone(), unlock).await.unwrap_err().what.code().id()
}

#[tokio::test]
async fn a_passphrase_and_recipients_open_the_same() {
    let (_folder, store) = folder();
    let (words, person) = (passphrase("correct horse battery staple"), Unlock::generate());
    let keys = Repository::open_or_create(store.clone(), &words).await.unwrap().keys;
    let pack = sealed(&keys);
    keys.add(&store, "operator", &recipient(&person)).await.unwrap();
    let theirs = opened(&store, &person).await;
    assert_eq!(theirs.identity_key(), keys.identity_key());
    Pack::open(&theirs, NAME, pack).unwrap();
    assert_eq!(code(&store, &passphrase("correct horse battery stable")).await, "backup.wrong-key");
    assert_eq!(code(&store, &Unlock::generate()).await, "backup.wrong-key");
    assert_eq!(code(&store, &Unlock::Open).await, "backup.encrypted");

    let ways = keys.ways(&store).await.unwrap();
    assert_eq!(ways.iter().map(|way| way.name.as_str()).collect::<Vec<_>>(), ["first", "operator"]);
    assert_eq!(ways[0].recipient, None);
    assert!(ways[1].recipient.as_ref().unwrap().starts_with("age1"));
    assert!(ways.iter().all(|way| way.current && way.keys.len() == 1));

    // One way may go, the last may not, and what is gone opens nothing.
    keys.remove(&store, "first").await.unwrap();
    assert_eq!(code(&store, &words).await, "backup.wrong-key");
    let failure = keys.remove(&store, "operator").await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::LAST_WAY);
    assert_eq!(keys.remove(&store, "first").await.unwrap_err().what.code(), text::backup::NO_WAY);
    opened(&store, &person).await;
}

#[tokio::test]
async fn a_rotation_rewrites_nothing_and_asks_for_no_secret_of_recipients() {
    let (_folder, store) = folder();
    let (words, person, other) = (
        passphrase("correct horse battery staple"),
        Unlock::generate(),
        passphrase("another one, long enough"),
    );
    let keys = Repository::open_or_create(store.clone(), &words).await.unwrap().keys;
    keys.add(&store, "operator", &recipient(&person)).await.unwrap();
    let Unlock::Passphrase(secret) = other.clone() else { unreachable!() };
    keys.add(&store, "vault", &Lock::Passphrase(secret.clone())).await.unwrap();
    let before = sealed(&keys);
    let rotation = keys.rotate(&store, &words, now()).await.unwrap();
    assert_eq!(rotation.wrapped, ["first", "operator"]);
    assert_eq!(rotation.left_out, ["vault"]);
    assert!(rotation.keyring.current() > keys.current());
    assert_eq!(rotation.keyring.identity_key(), keys.identity_key());
    let after = sealed(&rotation.keyring);
    for unlock in [&words, &person] {
        let keys = opened(&store, unlock).await;
        assert_eq!(keys.current(), rotation.keyring.current());
        Pack::open(&keys, NAME, before.clone()).unwrap();
        Pack::open(&keys, NAME, after.clone()).unwrap();
    }
    // The passphrase that was left out reads what it could read, and writes nothing.
    let old = opened(&store, &other).await;
    Pack::open(&old, NAME, before.clone()).unwrap();
    let failure = Pack::open(&old, NAME, after.clone()).err().unwrap();
    assert_eq!(failure.what.code(), text::backup::KEY_MISSING);
    let failure = PackWriter::new(&old, NAME, 1).err().unwrap();
    assert_eq!(failure.what.code(), text::backup::KEY_REPLACED);
    // Nor can the ways to the old key go while it is the only one.
    let failure = keys.remove(&store, "vault").await;
    assert!(failure.is_ok(), "first and operator open the old key too");
    // A second rotation in the same millisecond still sorts last.
    let again = rotation.keyring.rotate(&store, &person, now()).await.unwrap();
    assert!(again.keyring.current() > rotation.keyring.current());
    assert_eq!(again.wrapped, ["operator"]);
    assert_eq!(again.left_out, ["first"], "a passphrase");
}

#[tokio::test]
async fn whoever_can_only_write_to_the_store_slips_no_recipient_in() {
    let (_folder, store) = folder();
    let (owner, thief) = (Unlock::generate(), Unlock::generate());
    let keys = Repository::open_or_create(store.clone(), &owner).await.unwrap().keys;
    let foreign = Keyring::for_tests();
    let lock = recipient(&thief);
    // A way that he made up, with a note that he sealed himself.
    let note = foreign.write_note(&store, "thief", &lock, BTreeMap::new()).await;
    note.unwrap();
    let master = new_master(None).unwrap();
    let wrapped = wrap(&master, &lock).unwrap();
    store.create(&object(keys.current(), "thief"), wrapped.into()).await.unwrap();
    let rotation = keys.rotate(&store, &owner, now()).await.unwrap();
    assert_eq!(rotation.wrapped, ["first"]);
    assert_eq!(rotation.left_out, ["thief"]);
    let thief = opened(&store, &thief).await;
    assert!(Pack::open(&thief, NAME, sealed(&rotation.keyring)).is_err());
}

#[tokio::test]
async fn a_repository_that_is_not_encrypted_opens_for_everybody_until_it_is() {
    let (folder, store) = folder();
    let keys = Repository::open_or_create(store.clone(), &Unlock::Open).await.unwrap().keys;
    let pack = sealed(&keys);
    Pack::open(&opened(&store, &Unlock::Open).await, NAME, pack.clone()).unwrap();
    let words = passphrase("correct horse battery staple");
    assert_eq!(code(&store, &words).await, "backup.not-encrypted");
    let key = std::fs::read_to_string(folder.path().join(object(keys.current(), OPEN))).unwrap();
    assert_eq!(key.trim_end().len(), 2 * WRAPPED, "as it is");

    let Unlock::Passphrase(secret) = words.clone() else { unreachable!() };
    keys.add(&store, "words", &Lock::Passphrase(secret)).await.unwrap();
    keys.remove(&store, OPEN).await.unwrap();
    let keys = opened(&store, &words).await;
    Pack::open(&keys, NAME, pack).unwrap();
    let rotation = keys.rotate(&store, &words, now()).await.unwrap();
    assert_eq!(rotation.wrapped, ["words"]);
    assert_eq!(code(&store, &Unlock::Open).await, "backup.encrypted");
}

#[tokio::test]
async fn what_cannot_be_a_way_is_refused_with_its_mend() {
    let (_folder, store) = folder();
    let short = Repository::open_or_create(store.clone(), &passphrase("too short")).await.unwrap_err();
    assert_eq!(short.what.code(), text::backup::PASSPHRASE_SHORT);
    assert!(Keyring::is_absent(&store).await.unwrap());
    let owner = Unlock::generate();
    let keys = Repository::open_or_create(store.clone(), &owner).await.unwrap().keys;
    let lock = recipient(&Unlock::generate());
    for name in ["", "Upper", "a/b", "a.b", "..", "open", &"x".repeat(41)] {
        let failure = keys.add(&store, name, &lock).await.unwrap_err();
        assert_eq!(failure.what.code(), text::backup::WAY_NAME, "{name}");
    }
    let taken = keys.add(&store, "first", &lock).await.unwrap_err();
    assert_eq!(taken.what.code(), text::backup::WAY_EXISTS);
    let malformed = keys.add(&store, "x", &Lock::Recipient("age1nonsense".to_owned())).await.unwrap_err();
    assert_eq!(malformed.what.code(), text::backup::RECIPIENT_MALFORMED);
    let secret = SecretString::from("AGE-SECRET-KEY-1NONSENSE".to_owned());
    assert_eq!(code(&store, &Unlock::read(secret)).await, "backup.key-malformed");
}
