//! The pack: the one container of the repository. Frames, each a zstd frame sealed with AES-256-GCM, a
//! directory of them, and a hash of it all that needs no key to be checked.
//!
//! ```text
//! header    8  "OBYRAPK1"     16  key id      32  salt
//! frame     1  kind            4  length n     n  ciphertext and its 16 bytes of tag      (repeated)
//! footer    8  offset of the directory's frame     8  "OBYRAEND"     32  BLAKE3 of all that is before
//! ```
//! Integers are little-endian. The pack's key is `BLAKE3 keyed_hash(master, salt)`; the nonce of a frame is
//! its offset in the pack, and the additional data are the object's name, a zero byte and the kind: a
//! frame opens only where it was written.

use std::cell::RefCell;
use std::io::Cursor;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use obyra_evidence::{Failure, text};
use serde::{Deserialize, Serialize};

use super::keys::{KeyId, Keyring, random};
use crate::Result;

const MAGIC: &[u8; 8] = b"OBYRAPK1";
const END: &[u8; 8] = b"OBYRAEND";
/// Bytes of the header.
pub const HEADER: usize = 56;
const FRAME_HEADER: usize = 5;
/// Bytes of the footer.
pub const FOOTER: usize = 48;
/// Bytes of AES-GCM's tag.
const TAG: usize = 16;
/// No frame holds more than this, unpacked: what claims more is not ours.
pub const FRAME_RAW_MAX: usize = 16 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// Blocks of files.
    Blocks = b'B',
    /// Map pieces.
    Map = b'M',
    /// Lines of a manifest.
    Lines = b'L',
    /// Write-ahead log.
    Wal = b'W',
    /// Anything else that a document describes.
    Data = b'D',
    /// The directory of the pack, always its last frame.
    Directory = b'Z',
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Blocks, Kind::Map, Kind::Lines, Kind::Wal, Kind::Data, Kind::Directory]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What opens a pack's frames besides the keyring: kept in manifests, so that a frame can be read alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The master key.
    pub key: KeyId,
    /// The pack's own.
    pub salt: [u8; 32],
}

/// Where a frame is in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameAt {
    /// Its offset.
    pub offset: u32,
    /// Its length in the pack, header and tag included.
    pub stored: u32,
}

/// A line of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it holds.
    pub kind: Kind,
    /// Where it is.
    #[serde(flatten)]
    pub at: FrameAt,
    /// Bytes, unpacked.
    pub raw: u32,
    /// For map pieces, what they describe: enough to find them without a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<String>,
}

/// A pack being written, in memory.
pub struct PackWriter {
    name: String,
    seal: Seal,
    key: LessSafeKey,
    level: i32,
    buffer: Vec<u8>,
    directory: Vec<Entry>,
    compressor: zstd::bulk::Compressor<'static>,
}

/// A finished pack.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The object's name.
    pub name: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// What opens its frames.
    pub seal: Seal,
    /// BLAKE3 of the object up to the footer's hash: the same that the footer holds.
    pub hash: [u8; 32],
}

impl PackWriter {
    /// Begins the pack of that name; `level` is zstd's.
    pub fn new(keys: &Keyring, name: &str, level: i32) -> Result<Self> {
        Self::reusing(Vec::new(), keys, name, level)
    }

    /// The same, in memory that held another pack.
    pub fn reusing(mut buffer: Vec<u8>, keys: &Keyring, name: &str, level: i32) -> Result<Self> {
        let salt: [u8; 32] = random()?;
        let seal = Seal { key: keys.sealing()?, salt };
        buffer.clear();
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&seal.key.0);
        buffer.extend_from_slice(&salt);
        let compressor = zstd::bulk::Compressor::new(level).map_err(compression)?;
        let key = pack_key(keys, &seal, name)?;
        let name = name.to_owned();
        Ok(PackWriter { name, seal, key, level, buffer, directory: Vec::new(), compressor })
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no frame was added.
    pub fn is_empty(&self) -> bool {
        self.directory.is_empty()
    }

    /// What opens its frames.
    pub fn seal(&self) -> Seal {
        self.seal
    }

    /// zstd's level.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Adds a frame.
    pub fn push(&mut self, kind: Kind, raw: &[u8], about: Vec<String>) -> Result<FrameAt> {
        let at = self.seal_frame(kind, raw)?;
        self.directory.push(Entry { kind, at, raw: length(raw.len())?, about });
        Ok(at)
    }

    /// Compresses and seals where the frame will lie: its bytes are not moved again.
    fn seal_frame(&mut self, kind: Kind, raw: &[u8]) -> Result<FrameAt> {
        let offset = length(self.buffer.len())?;
        let begin = self.buffer.len() + FRAME_HEADER;
        self.buffer.reserve(FRAME_HEADER + zstd::zstd_safe::compress_bound(raw.len()) + TAG);
        self.buffer.push(kind as u8);
        self.buffer.extend_from_slice(&[0; FRAME_HEADER - 1]);
        let mut behind = Cursor::new(&mut self.buffer);
        behind.set_position(begin as u64);
        self.compressor.compress_to_buffer(raw, &mut behind).map_err(compression)?;
        let aad = additional(&self.name, kind);
        let compressed = &mut self.buffer[begin..];
        let tag = self.key.seal_in_place_separate_tag(nonce(offset), Aad::from(&aad), compressed);
        let tag = tag.map_err(|_| Failure::new(text::backup::SEAL.with("object", &self.name)))?;
        self.buffer.extend_from_slice(tag.as_ref());
        let sealed = length(self.buffer.len() - begin)?;
        self.buffer[begin - 4..begin].copy_from_slice(&sealed.to_le_bytes());
        Ok(FrameAt { offset, stored: length(self.buffer.len())? - offset })
    }

    /// Ends the pack with its directory.
    pub fn finish(mut self) -> Result<Sealed> {
        let directory = serde_json::to_vec(&self.directory)
            .map_err(|e| Failure::new(text::backup::SEAL.with("object", &self.name)).because(e))?;
        let at = self.seal_frame(Kind::Directory, &directory)?;
        self.buffer.extend_from_slice(&u64::from(at.offset).to_le_bytes());
        self.buffer.extend_from_slice(END);
        let hash = *blake3::hash(&self.buffer).as_bytes();
        self.buffer.extend_from_slice(&hash);
        Ok(Sealed { name: self.name, bytes: self.buffer.into(), seal: self.seal, hash })
    }
}

/// What each thread keeps for the next frame that it opens.
#[derive(Default)]
struct Scratch {
    plain: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Opens the frames of one pack, whether all of it is at hand or a range.
pub struct FrameOpener {
    name: String,
    key: LessSafeKey,
}

impl FrameOpener {
    /// For the pack of that name.
    pub fn new(keys: &Keyring, name: &str, seal: &Seal) -> Result<Self> {
        Ok(FrameOpener { name: name.to_owned(), key: pack_key(keys, seal, name)? })
    }

    /// Opens the frame whose stored bytes these are.
    pub fn open(&self, at: FrameAt, stored: &[u8]) -> Result<(Kind, Vec<u8>)> {
        let mut raw = Vec::new();
        let kind = self.open_into(at, stored, &mut raw)?;
        Ok((kind, raw))
    }

    /// The same, into a buffer that is used again.
    pub fn open_into(&self, at: FrameAt, stored: &[u8], raw: &mut Vec<u8>) -> Result<Kind> {
        let damaged = || self.damaged(at.offset);
        if stored.len() != at.stored as usize {
            return Err(damaged());
        }
        let (header, sealed) = stored.split_at_checked(FRAME_HEADER).ok_or_else(damaged)?;
        let kind = Kind::of(header[0]).ok_or_else(damaged)?;
        let said = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        if said as usize != sealed.len() {
            return Err(damaged());
        }
        let (text, tag) = sealed.split_at_checked(sealed.len().wrapping_sub(TAG)).ok_or_else(damaged)?;
        let aad = additional(&self.name, kind);
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { plain, decompressor } = scratch;
            if plain.len() < text.len() {
                plain.resize(text.len(), 0);
            }
            let plain = &mut plain[..text.len()];
            let opened = self.key.open_separate_gather(nonce(at.offset), Aad::from(&aad), text, tag, plain);
            opened.map_err(|_| damaged())?;
            let size = zstd::zstd_safe::get_frame_content_size(plain).ok().flatten().ok_or_else(damaged)?;
            let size =
                usize::try_from(size).ok().filter(|size| *size <= FRAME_RAW_MAX).ok_or_else(damaged)?;
            raw.clear();
            raw.reserve(size);
            decompressor.decompress_to_buffer(plain, raw).map_err(|_| damaged())?;
            Ok(kind)
        })
    }

    fn damaged(&self, offset: u32) -> Failure {
        Failure::new(text::backup::FRAME_DAMAGED.with("object", &self.name).with("offset", offset))
            .mended_by(text::backup::OBJECT_DAMAGED_MEND)
    }
}

/// A whole pack, checked against its own hash.
pub struct Pack {
    bytes: Bytes,
    opener: FrameOpener,
    /// What opens its frames.
    pub seal: Seal,
    /// BLAKE3 of the object up to the footer's hash: the same that the footer holds.
    pub hash: [u8; 32],
    /// Its frames, in order.
    pub directory: Vec<Entry>,
}

impl Pack {
    /// Opens the pack that an object holds.
    pub fn open(keys: &Keyring, name: &str, bytes: Bytes) -> Result<Pack> {
        let footer = check(name, &bytes)?;
        let seal = seal_of(name, &bytes)?;
        let opener = FrameOpener::new(keys, name, &seal)?;
        let length = bytes.len() - FOOTER - footer;
        let at = FrameAt { offset: self::length(footer)?, stored: self::length(length)? };
        let (kind, directory) = opener.open(at, &bytes[footer..bytes.len() - FOOTER])?;
        let directory = serde_json::from_slice(&directory)
            .ok()
            .filter(|_| kind == Kind::Directory)
            .ok_or_else(|| opener.damaged(at.offset))?;
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[bytes.len() - 32..]);
        Ok(Pack { bytes, opener, seal, hash, directory })
    }

    /// Opens a frame of it.
    pub fn frame(&self, at: FrameAt) -> Result<(Kind, Vec<u8>)> {
        let range = at.offset as usize..(at.offset as usize).saturating_add(at.stored as usize);
        let stored = self.bytes.get(range).ok_or_else(|| self.opener.damaged(at.offset))?;
        self.opener.open(at, stored)
    }

    /// All frames of a kind, one after the other.
    pub fn frames(&self, kind: Kind) -> impl Iterator<Item = Result<Vec<u8>>> + '_ {
        let wanted = self.directory.iter().filter(move |entry| entry.kind == kind);
        wanted.map(|entry| self.frame(entry.at).map(|(_, raw)| raw))
    }
}

/// Checks, without a key, that an object is a whole pack as it was written: its marks and its hash.
/// Returns the offset of the directory's frame.
pub fn check(name: &str, bytes: &[u8]) -> Result<usize> {
    let damaged = || damaged(name);
    if bytes.len() < HEADER + FOOTER || !bytes.starts_with(MAGIC) {
        return Err(damaged());
    }
    let footer = footer(name, bytes)?;
    if blake3::hash(&bytes[..bytes.len() - 32]).as_bytes() != &footer.hash {
        return Err(damaged());
    }
    let directory = usize::try_from(footer.directory).ok();
    directory.filter(|at| (HEADER..bytes.len() - FOOTER).contains(at)).ok_or_else(damaged)
}

/// What the end of a pack says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The offset of the directory's frame, which goes on until the footer.
    pub directory: u64,
    /// BLAKE3 of all that is before.
    pub hash: [u8; 32],
}

/// Reads the footer from the last bytes of a pack: 48, or more.
pub fn footer(name: &str, tail: &[u8]) -> Result<Footer> {
    let parts = tail.split_last_chunk::<FOOTER>().and_then(|(_, footer)| {
        let (directory, rest) = footer.split_first_chunk::<8>()?;
        let (end, hash) = rest.split_first_chunk::<8>()?;
        let hash = hash.try_into().ok()?;
        (end == END).then_some(Footer { directory: u64::from_le_bytes(*directory), hash })
    });
    parts.ok_or_else(|| damaged(name))
}

/// What the header says.
pub fn seal_of(name: &str, bytes: &[u8]) -> Result<Seal> {
    let header = bytes.get(..HEADER).filter(|header| header.starts_with(MAGIC));
    let parts = header.and_then(|header| {
        Some(Seal { key: KeyId(header[8..24].try_into().ok()?), salt: header[24..56].try_into().ok()? })
    });
    parts.ok_or_else(|| damaged(name))
}

/// Whether a failure tells of an object that is not what was written, and not of a store or a key.
pub(crate) fn is_damage(failure: &Failure) -> bool {
    let damage = [text::backup::OBJECT_DAMAGED, text::backup::FRAME_DAMAGED, text::backup::OBJECT_UNREADABLE];
    damage.contains(&failure.what.code())
}

/// An object is not what was written.
pub(super) fn damaged(name: &str) -> Failure {
    Failure::new(text::backup::OBJECT_DAMAGED.with("object", name))
        .mended_by(text::backup::OBJECT_DAMAGED_MEND)
}

fn pack_key(keys: &Keyring, seal: &Seal, name: &str) -> Result<LessSafeKey> {
    let key = keys.pack_key(seal, name)?;
    UnboundKey::new(&AES_256_GCM, key.as_slice())
        .map(LessSafeKey::new)
        .map_err(|_| Failure::new(text::backup::SEAL.with("object", name)))
}

fn nonce(offset: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn additional(name: &str, kind: Kind) -> Vec<u8> {
    let mut aad = Vec::with_capacity(name.len() + 2);
    aad.extend_from_slice(name.as_bytes());
    aad.extend_from_slice(&[0, kind as u8]);
    aad
}

fn length(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|e| Failure::new(text::backup::PACK_TOO_LARGE).because(e))
}

fn compression(error: std::io::Error) -> Failure {
    Failure::new(text::backup::COMPRESSION).because(error)
}

/// Reads something that may have been lost on the way to us: it is damaged once it came so twice.
pub(crate) async fn twice<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    match read().await {
        Err(failure) if is_damage(&failure) => read().await,
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "clusters/1/packs/20261124T030000Z-00ab/00000000";

    fn sealed(keys: &Keyring) -> (Sealed, Vec<FrameAt>) {
        let mut pack = PackWriter::new(keys, NAME, 1).unwrap();
        let frames = [vec![1; 70_000], Vec::new(), b"abc".repeat(9)];
        let at = frames.iter().map(|raw| pack.push(Kind::Blocks, raw, Vec::new()).unwrap()).collect();
        (pack.finish().unwrap(), at)
    }

    #[test]
    fn frames_open_where_they_were_written() {
        let keys = Keyring::for_tests();
        let (sealed, at) = sealed(&keys);
        let pack = Pack::open(&keys, NAME, sealed.bytes.clone()).unwrap();
        assert_eq!(pack.directory.len(), 3);
        assert_eq!(pack.frame(at[0]).unwrap(), (Kind::Blocks, vec![1; 70_000]));
        assert_eq!(pack.frames(Kind::Blocks).map(|raw| raw.unwrap().len()).sum::<usize>(), 70_027);
        // A frame alone, by what a manifest keeps.
        let opener = FrameOpener::new(&keys, NAME, &sealed.seal).unwrap();
        let range = at[2].offset as usize..(at[2].offset + at[2].stored) as usize;
        assert_eq!(opener.open(at[2], &sealed.bytes[range.clone()]).unwrap().1, b"abc".repeat(9));
        let moved = FrameAt { offset: at[2].offset + 1, ..at[2] };
        assert!(opener.open(moved, &sealed.bytes[range]).is_err());
    }

    #[test]
    fn no_byte_can_be_changed_unseen_and_no_object_swapped() {
        let keys = Keyring::for_tests();
        let (sealed, _) = sealed(&keys);
        for at in 0..sealed.bytes.len() {
            let mut bytes = sealed.bytes.to_vec();
            bytes[at] ^= 1;
            assert!(check(NAME, &bytes).is_err(), "byte {at}");
        }
        for cut in 0..sealed.bytes.len() {
            assert!(Pack::open(&keys, NAME, sealed.bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let elsewhere = NAME.replace("00000000", "00000001");
        assert!(check(&elsewhere, &sealed.bytes).is_ok(), "whole, as the hash can tell");
        assert!(Pack::open(&keys, &elsewhere, sealed.bytes).is_err(), "and of another name all the same");
    }

    /// With one key, a nonce that comes twice gives away what two frames have in common.
    #[test]
    fn the_same_bytes_are_never_sealed_the_same_way_twice() {
        let keys = Keyring::for_tests();
        let sealed = || {
            let mut pack = PackWriter::new(&keys, NAME, 1).unwrap();
            let at: Vec<_> =
                (0..3).map(|_| pack.push(Kind::Blocks, &[7; 9000], Vec::new()).unwrap()).collect();
            let sealed = pack.finish().unwrap();
            let text = |at: &FrameAt| {
                let (from, to) = (at.offset as usize, (at.offset + at.stored) as usize);
                // Behind the frame's header.
                sealed.bytes.slice(from..to).to_vec().split_off(FRAME_HEADER)
            };
            at.iter().map(text).collect::<Vec<_>>()
        };
        let mut all = [sealed(), sealed()].concat();
        assert!(all.iter().all(|text| text.len() > 16));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
