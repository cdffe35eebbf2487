//! What somebody may have put into a repository, with its key or without, and what a program may have broken:
//! no bytes make us panic, or take memory that they only claim to fill.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use object_store::memory::InMemory;
use obyra_backup::repository::Repository;
use obyra_backup::repository::catalogue::Manifest;
use obyra_backup::repository::claims::claims;
use obyra_backup::repository::frames::FrameReader;
use obyra_backup::repository::keys::{Keyring, Unlock};
use obyra_backup::repository::layout::{BackupId, ClusterId, PackId};
use obyra_backup::repository::map::{Kept, Piece, ZEROS};
use obyra_backup::repository::pack::{self, FrameAt, FrameOpener, Kind, Pack, PackWriter};
use obyra_backup::repository::store::Store;
use obyra_backup::verify::{self, Share};
use obyra_backup::wal::WalObject;
use obyra_evidence::{Quiet, text};
use obyra_postgres::wal::WalSegmentSize;
use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::sample::{self, CLUSTER, Files, id};

const NAME: &str = "clusters/7/packs/20261124T030000Z-00ab/00000000";
/// Far more than anything needs, and less than what lengths of 32 bits can claim.
const ADDRESS_SPACE: u64 = 3 << 30;

/// A runtime for the cases, in a process that cannot take much memory.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE), ..limit }).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
});

fn repository() -> Repository {
    let store = Store::of(Arc::new(InMemory::new()), "", "memory://");
    Repository { store, keys: Keyring::for_tests() }
}

/// A pack as somebody with the key could make it: these frames, of which the last is the directory.
fn forged(name: &str, frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let salt = [3; 32];
    let key = blake3::keyed_hash(&[9; 32], &salt);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).unwrap());
    let mut out = [b"OBYRAPK1".as_slice(), &[7; 16], &salt].concat();
    let mut last = 0;
    for (kind, plain) in frames {
        last = out.len();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&(last as u32).to_le_bytes());
        let about = [name.as_bytes(), &[0, *kind]].concat();
        let mut sealed = plain.clone();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&about), &mut sealed)
            .unwrap();
        out.push(*kind);
        out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        out.extend_from_slice(&sealed);
    }
    out.extend_from_slice(&(last as u64).to_le_bytes());
    out.extend_from_slice(b"OBYRAEND");
    hashed(out)
}

fn hashed(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(blake3::hash(&out).as_bytes());
    out
}

/// Reads all that can be read of a pack.
fn read(bytes: Vec<u8>) {
    RUNTIME.block_on(async {
        let bytes = Bytes::from(bytes);
        let _ = pack::check(NAME, &bytes);
        let _ = pack::footer(NAME, &bytes);
        if let Ok(pack) = Pack::open(&Keyring::for_tests(), NAME, bytes.clone()) {
            for entry in &pack.directory {
                let _ = pack.frame(entry.at);
            }
        }
        let repository = repository();
        repository.store.replace(NAME, bytes.clone()).await.unwrap();
        let reader = FrameReader::new(&repository, ClusterId(7));
        let id = PackId { backup: id("20261124T030000Z-00ab"), sequence: 0 };
        for size in [0, 47, 104, bytes.len() as u64, bytes.len() as u64 + 9, u64::from(u32::MAX), u64::MAX] {
            let Ok((entry, directory)) = reader.directory(id.clone(), size).await else { continue };
            for frame in directory {
                let _ = reader.frame(frame.kind, &entry, frame.at).await;
            }
        }
    });
}

fn valid() -> Vec<u8> {
    let mut pack = PackWriter::new(&Keyring::for_tests(), NAME, 1).unwrap();
    pack.push(Kind::Blocks, &sample::bytes(1, 20_000), Vec::new()).unwrap();
    pack.push(Kind::Map, b"not a map", vec!["base/1#0".to_owned()]).unwrap();
    pack.finish().unwrap().bytes.to_vec()
}

fn compressed(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 1).unwrap()
}

/// A zstd frame that claims to hold so much.
fn claiming(bytes: u64, rest: &[u8]) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0], bytes.to_le_bytes().as_slice(), rest].concat()
}

/// Values that are of another type, too large, or of no sense.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::from(u32::MAX)), any::<u64>()];
    prop_oneof![
        numbers.prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        prop_oneof![Just(""), Just("../../etc/passwd"), Just("a\0b"), Just("/"), Just("lines"), Just("x")]
            .prop_map(|text| json!(text)),
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([0, 0, u32::MAX, u32::MAX])),
        Just(json!(1e300)),
        Just(json!("9".repeat(5000))),
    ]
}

/// Exchanges the value that comes at this turn, counted over all that there are.
fn exchange(value: &mut Value, turn: usize, odd: &Value) {
    fn places(value: &Value, at: &str, out: &mut Vec<String>) {
        out.push(at.to_owned());
        match value {
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(n, one)| places(one, &format!("{at}/{n}"), out))
            }
            Value::Object(all) => {
                all.iter().for_each(|(name, one)| places(one, &format!("{at}/{name}"), out))
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    places(value, "", &mut all);
    if let Some(found) = value.pointer_mut(&all[turn % all.len()]) {
        *found = odd.clone();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn packs_that_are_none(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(bytes.clone());
        read([b"OBYRAPK1".as_slice(), &bytes].concat());
        let ended = [b"OBYRAPK1".as_slice(), &[7; 16], &bytes, &[56, 0, 0, 0, 0, 0, 0, 0], b"OBYRAEND"].concat();
        read(hashed(ended));
    }

    #[test]
    fn packs_that_were_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        rehashed in any::<bool>(),
    ) {
        let mut bytes = valid();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if rehashed {
            bytes.truncate(bytes.len() - 32);
            bytes = hashed(bytes);
        }
        read(bytes[..cut.index(bytes.len())].to_vec());
        read(bytes);
    }

    #[test]
    fn frames_that_lie(
        claimed in prop_oneof![Just(u64::MAX), Just(16 << 20), Just((16 << 20) + 1), any::<u64>()],
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = [(b'B', claiming(claimed, &rest)), (b'M', rest.clone())];
        let (one, other) = (frame[0].1.len() as u32 + 21, rest.len() as u32 + 21);
        let directory = json!([
            {"kind": "blocks", "offset": 56, "stored": one, "raw": u32::MAX},
            {"kind": "map", "offset": 56 + one, "stored": other, "raw": 0, "about": ["x"]},
            {"kind": "data", "offset": u32::MAX, "stored": u32::MAX, "raw": u32::MAX},
        ]);
        let sealed = compressed(&serde_json::to_vec(&directory).unwrap());
        read(forged(NAME, &[frame[0].clone(), frame[1].clone(), (b'Z', sealed)]));
        read(forged(NAME, &[frame[0].clone(), (b'Z', frame[0].1.clone())]));
        read(forged(NAME, &[(b'Z', compressed(&rest))]));
    }

    #[test]
    fn directories_that_lie(turn in any::<usize>(), odd in odd()) {
        let mut directory = json!([{"kind": "blocks", "offset": 56, "stored": 29, "raw": 8, "about": ["a"]}]);
        exchange(&mut directory, turn, &odd);
        let directory = compressed(&serde_json::to_vec(&directory).unwrap());
        read(forged(NAME, &[(b'B', compressed(b"12345678")), (b'Z', directory)]));
    }

    #[test]
    fn pieces_that_lie(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let _ = Piece::decode(&bytes);
        let mut piece = Piece::default();
        let pack = piece.pack(&PackId { backup: id("20261124T030000Z-00ab"), sequence: 3 }).unwrap();
        for n in 0..9 {
            let kept = Kept { pack, frame: FrameAt { offset: 56, stored: 900 }, offset: n * 8192 };
            piece.push([n as u8 + 1; 16], Some(kept), 8192);
            piece.push(ZEROS, None, 8192);
        }
        let mut encoded = Vec::new();
        piece.encode(&mut encoded);
        for (at, byte) in changes {
            let at = at.index(encoded.len());
            encoded[at] = byte;
        }
        if let Ok(read) = Piece::decode(&encoded) {
            let mut again = Vec::new();
            read.encode(&mut again);
            prop_assert_eq!(Piece::decode(&again).unwrap(), read);
        }
    }

    #[test]
    fn manifests_that_lie(line in any::<usize>(), turn in any::<usize>(), odd in odd(), part in any::<bool>()) {
        RUNTIME.block_on(async {
            let repository = repository();
            let backup = id("20261101T030000Z-00ab");
            let files = Files::from([
                ("PG_VERSION".to_owned(), b"16\n".to_vec()),
                ("base/1/1259".to_owned(), sample::bytes(1, 3 * 8192 + 5)),
            ]);
            sample::backup(&repository, &backup, &files, None, (3 << 20, 4 << 20)).await;
            change_manifest(&repository, &backup, part, |lines| {
                let line = line % lines.len();
                exchange(&mut lines[line], turn, &odd);
            })
            .await;
            let _ = Manifest::find(&repository, CLUSTER, &backup).await;
            let _ = obyra_backup::holdings::Holdings::read(&repository, CLUSTER).await;
            repository.store.replace("repository.json", marker()).await.unwrap();
            let verified = verify::contents(&repository, &Share::ALL, None, &Quiet).await;
            // What cannot be read is a fault; only a manifest that reads as another sense passes.
            prop_assert!(verified.is_ok(), "{:?}", verified);
            Ok(())
        })?;
    }

    #[test]
    fn claims_that_lie(turn in any::<usize>(), odd in odd(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        RUNTIME.block_on(async {
            let repository = repository();
            let mut note = serde_json::to_value(sample::note()).unwrap();
            exchange(&mut note, turn, &odd);
            for (name, raw) in [
                ("20261101T030000Z-00ab", serde_json::to_vec(&note).unwrap()),
                ("20261101T030000Z-00ac", bytes.clone()),
                ("not-the-name-of-one", bytes.clone()),
            ] {
                let name = format!("{}/{name}", CLUSTER.claims());
                let mut pack = PackWriter::new(&repository.keys, &name, 1).unwrap();
                pack.push(Kind::Data, &raw, Vec::new()).unwrap();
                repository.store.replace(&name, pack.finish().unwrap().bytes).await.unwrap();
            }
            let unsealed = format!("{}/20261101T030000Z-00ad", CLUSTER.claims());
            repository.store.replace(&unsealed, bytes.into()).await.unwrap();
            prop_assert_eq!(claims(&repository, CLUSTER).await.unwrap().len(), 3);
            Ok(())
        })?;
    }

    #[test]
    fn keys_that_lie(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        name in "[a-z0-9./]{0,40}",
        at in any::<prop::sample::Index>(),
    ) {
        RUNTIME.block_on(async {
            let store = Store::of(Arc::new(InMemory::new()), "", "memory://");
            let unlock = Unlock::generate();
            Keyring::create(&store, &unlock).await.unwrap();
            let good = store.get(&format!("keys/{}/first.age", "0".repeat(32))).await.unwrap().unwrap();
            let mut changed = good.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= 4;
            let _ = store.replace(&format!("keys/x{name}"), bytes.clone().into()).await;
            for (way, content) in [("a.age", changed), ("b.age", bytes.clone()), ("c.way", bytes.clone()), ("open", bytes)] {
                store.replace(&format!("keys/{}/{way}", "f".repeat(32)), content.into()).await.unwrap();
            }
            let keys = Keyring::open(&store, &unlock).await.unwrap();
            let _ = keys.ways(&store).await;
        });
    }

    #[test]
    fn names_that_are_none(name in ".{0,90}", tail in "[0-9A-F./a-z-]{0,60}") {
        let _ = name.parse::<BackupId>();
        for name in [name, format!("{}/packs/{tail}", CLUSTER.folder()), format!("{}/wal/{tail}", CLUSTER.folder())] {
            let _ = CLUSTER.pack_of(&name);
            for size in [WalSegmentSize::SMALLEST, WalSegmentSize::DEFAULT] {
                let _ = WalObject::parse(CLUSTER, &name, size);
            }
        }
    }
}

fn marker() -> Bytes {
    Bytes::from_static(b"{\n  \"format\": 1,\n  \"what\": \"obyra-db backup repository\"\n}")
}

/// Writes a manifest again with other lines, sealed as they should be.
async fn change_manifest(
    repository: &Repository,
    backup: &BackupId,
    part: bool,
    change: impl FnOnce(&mut Vec<Value>),
) {
    let commit = CLUSTER.manifest(backup);
    let part_name = CLUSTER.pack(&PackId { backup: backup.clone(), sequence: 1 });
    let lines = async |name: &str| -> Vec<Value> {
        let bytes = repository.store.must_get(name).await.unwrap();
        let pack = Pack::open(&repository.keys, name, bytes).unwrap();
        let text = pack.frames(Kind::Lines).map(Result::unwrap).collect::<Vec<_>>().concat();
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    };
    let sealed = |name: &str, lines: &[Value]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut pack = PackWriter::new(&repository.keys, name, 1).unwrap();
        pack.push(Kind::Lines, text.as_bytes(), Vec::new()).unwrap();
        pack.finish().unwrap()
    };
    let mut of_commit = lines(&commit).await;
    if part {
        let mut of_part = lines(&part_name).await;
        change(&mut of_part);
        let sealed = sealed(&part_name, &of_part);
        let id = PackId { backup: backup.clone(), sequence: 1 };
        let entry = obyra_backup::repository::manifest::PackEntry::of(id, &sealed);
        of_commit[1] = json!({ "part": entry });
        repository.store.replace(&part_name, sealed.bytes).await.unwrap();
    } else {
        change(&mut of_commit);
    }
    repository.store.replace(&commit, sealed(&commit, &of_commit).bytes).await.unwrap();
}

/// Frames are opened only where and as what they were written, whatever a manifest says of them.
#[test]
fn places_that_lie() {
    let bytes = valid();
    let seal = pack::seal_of(NAME, &bytes).unwrap();
    let opener = FrameOpener::new(&Keyring::for_tests(), NAME, &seal).unwrap();
    for stored in [0, 1, 4, 5, 20, 21, 22] {
        for offset in [0, 56, 57, u32::MAX] {
            assert!(opener.open(FrameAt { offset, stored }, &bytes[56..56 + stored as usize]).is_err());
        }
    }
}

/// A history that claims to fill gigabytes.
#[test]
fn wal_that_lies() {
    RUNTIME.block_on(async {
        let repository = repository();
        let name = format!("{}/wal/00000002.history", CLUSTER.folder());
        let entry = json!({"kind": "data", "offset": 56, "stored": 56, "raw": u32::MAX});
        let directory = serde_json::to_vec(&vec![entry; 40]).unwrap();
        let bytes =
            forged(&name, &[(b'D', compressed(b"1\t0/3000000\tx\n")), (b'Z', compressed(&directory))]);
        repository.store.replace(&name, bytes.into()).await.unwrap();
        let archive = obyra_backup::wal::Archive::new(&repository, CLUSTER);
        archive.get_history(obyra_postgres::wal::TimelineId(2)).await.unwrap_err();
    });
}

/// Somebody who can write to the store could ask for any amount of work.
#[tokio::test]
async fn a_passphrase_costs_no_more_than_it_should() {
    let store = Store::of(Arc::new(InMemory::new()), "", "memory://");
    let header = "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
                  --- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    store.replace(&format!("keys/{}/first.age", "0".repeat(32)), header.into()).await.unwrap();
    let unlock = Unlock::Passphrase(SecretString::from("correct horse battery staple".to_owned()));
    let failure = Keyring::open(&store, &unlock).await.unwrap_err();
    assert_eq!(failure.what.code(), text::backup::WRONG_KEY);
}
