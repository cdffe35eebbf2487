//! Reading the archives of a base backup as they come: bytes are fed in pieces of any size, entries
//! and slices of their data come out, without a copy.
//!
//! Only what PostgreSQL writes is understood (ustar, with binary sizes beyond 8 GiB); anything else
//! is a failure that names the offset, and so is a path that leads out of the archive.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use bytes::{Buf as _, Bytes};
use obyra_evidence::{Failure, text};

use crate::Result;

/// Everything in an archive begins on a multiple of this.
const BLOCK_BYTES: usize = 512;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Relative to the archive's root, in plain components. Names of files are bytes, not text.
    pub path: PathBuf,
    /// What it is.
    pub kind: TarKind,
    /// How many bytes of data follow; zero unless it is a file.
    pub size: u64,
    /// Its permissions, as `chmod` takes them.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    pub mtime: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target: of a tablespace, an absolute path.
    Symlink(PathBuf),
}

/// What is read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarEvent {
    /// An entry begins. The one before it is complete.
    Entry(TarEntry),
    /// A piece of the entry's data, never empty.
    Data(Bytes),
}

/// An archive that is being read.
#[derive(Debug)]
pub struct TarEntries {
    /// What was fed and not yet read.
    fed: Bytes,
    /// How many bytes were read.
    offset: u64,
    /// What there is of the next header.
    header: Vec<u8>,
    /// What is still to come of the entry's data, and the zeros that fill its last block.
    data: u64,
    padding: u64,
    ended: bool,
}

impl Default for TarEntries {
    fn default() -> Self {
        TarEntries {
            fed: Bytes::new(),
            offset: 0,
            header: Vec::with_capacity(BLOCK_BYTES),
            data: 0,
            padding: 0,
            ended: false,
        }
    }
}

impl TarEntries {
    /// At the beginning of an archive.
    pub fn new() -> TarEntries {
        TarEntries::default()
    }

    /// Feeds the next piece of the archive. What was fed before must have been read: until
    /// [`TarEntries::next`] says `None`.
    pub fn feed(&mut self, bytes: Bytes) {
        debug_assert!(self.fed.is_empty(), "the last piece was not read to its end");
        self.fed = bytes;
    }

    /// The next entry or piece of data; `None` when more must be fed first.
    #[allow(clippy::should_implement_trait, reason = "None does not mean that there is no more")]
    pub fn next(&mut self) -> Result<Option<TarEvent>> {
        loop {
            if self.fed.is_empty() {
                return Ok(None);
            }
            if self.data > 0 {
                let piece = self.fed.split_to(at_most(self.fed.len(), self.data));
                self.data -= piece.len() as u64;
                self.offset += piece.len() as u64;
                return Ok(Some(TarEvent::Data(piece)));
            }
            if self.padding > 0 {
                let skipped = at_most(self.fed.len(), self.padding);
                self.fed.advance(skipped);
                self.padding -= skipped as u64;
                self.offset += skipped as u64;
                continue;
            }
            let wanted = at_most(self.fed.len(), (BLOCK_BYTES - self.header.len()) as u64);
            self.header.extend_from_slice(&self.fed.split_to(wanted));
            if self.header.len() < BLOCK_BYTES {
                return Ok(None);
            }
            if let Some(entry) = self.block()? {
                return Ok(Some(TarEvent::Entry(entry)));
            }
        }
    }

    /// The archive has come to its end: fails if it ended in the middle of something. The two blocks
    /// of zeros that should end it are not asked for, since PostgreSQL 14 does not send them.
    pub fn finish(self) -> Result<()> {
        let whole = self.data == 0 && self.padding == 0 && self.header.is_empty() && self.fed.is_empty();
        if whole {
            return Ok(());
        }
        let offset = self.offset + (self.header.len() + self.fed.len()) as u64;
        Err(Failure::new(text::replication::ARCHIVE_TRUNCATED.with("offset", offset)))
    }

    /// A block where a header should be; `None` if it is one of the zeros at the end.
    fn block(&mut self) -> Result<Option<TarEntry>> {
        let zeros = self.header.iter().all(|byte| *byte == 0);
        let entry = if zeros {
            self.ended = true;
            None
        } else if self.ended {
            return Err(malformed(self.offset, "an entry behind the archive's end"));
        } else {
            let entry = entry(&self.header, self.offset)?;
            self.data = entry.size;
            self.padding = entry.size.wrapping_neg() % BLOCK_BYTES as u64;
            Some(entry)
        };
        self.offset += BLOCK_BYTES as u64;
        self.header.clear();
        Ok(entry)
    }
}

fn at_most(length: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(length, |limit| length.min(limit))
}

fn malformed(offset: u64, why: &str) -> Failure {
    Failure::new(text::replication::ARCHIVE_MALFORMED.with("offset", offset)).because(why)
}

/// Reads a header of 512 bytes that begins at an offset of the archive.
fn entry(header: &[u8], offset: u64) -> Result<TarEntry> {
    let wrong = |why: &str| malformed(offset, why);
    if header.get(257..262) != Some(b"ustar") {
        return Err(wrong("not a ustar header"));
    }
    if number(&header[148..156]) != Some(checksum(header)) {
        return Err(wrong("the header's checksum is wrong"));
    }
    let (name, prefix) = (text_of(&header[..100]), text_of(&header[345..500]));
    let name = if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') };
    let size = number(&header[124..136]).ok_or_else(|| wrong("no size"))?;
    let kind = match header[156] {
        b'0' | 0 => TarKind::File,
        b'5' => TarKind::Directory,
        b'2' => {
            let target = text_of(&header[157..257]);
            if target.is_empty() {
                return Err(wrong("a link without a target"));
            }
            TarKind::Symlink(OsString::from_vec(target.to_vec()).into())
        }
        _ => return Err(wrong("an entry that PostgreSQL does not write")),
    };
    if kind != TarKind::File && size != 0 {
        return Err(wrong("data of something that is not a file"));
    }
    Ok(TarEntry {
        path: safe_path(name, offset)?,
        kind,
        size,
        mode: number(&header[100..108])
            .and_then(|mode| u32::try_from(mode & 0o7777).ok())
            .ok_or_else(|| wrong("no mode"))?,
        // A file from before 1970 is no reason to lose a backup.
        mtime: number(&header[136..148]).unwrap_or_default(),
    })
}

/// The sum of a header's bytes, its own checksum counted as spaces.
fn checksum(header: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..])
}

/// A text that ends with a zero, or with its field.
fn text_of(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits between spaces and zeros, or, with the first bit set, big-endian bytes.
fn number(field: &[u8]) -> Option<u64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let append = |number: u64, byte: &u8| Some(number.checked_mul(256)? + u64::from(*byte));
        // The second bit would make it negative.
        let number = field[1..].iter().try_fold(u64::from(first & 0x3F), append)?;
        return Some(number).filter(|number| first & 0x40 == 0 && i64::try_from(*number).is_ok());
    }
    let digits = text_of(field);
    let digits = std::str::from_utf8(digits).ok()?.trim_matches(' ');
    let is_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    if digits.is_empty() || !is_octal { None } else { u64::from_str_radix(digits, 8).ok() }
}

/// The path in plain components, or a refusal if it leads out of where it will be written.
fn safe_path(name: Vec<u8>, offset: u64) -> Result<PathBuf> {
    let raw = PathBuf::from(OsString::from_vec(name));
    let refused = || {
        let what = text::replication::ARCHIVE_PATH.with("offset", offset).with("path", escaped(&raw));
        Failure::refused(what)
    };
    let mut path = PathBuf::new();
    for component in raw.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(refused()),
        }
    }
    if path.as_os_str().is_empty() { Err(refused()) } else { Ok(path) }
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
