//! A Python file as text: read, decoded as Python would, and refused where it cannot be parsed safely.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use obyra_evidence::Place;
use ruff_text_size::TextSize;

/// Nobody writes such a file by hand, and parsing one takes memory out of proportion.
const SIZE_MAX: u64 = 8 * 1024 * 1024;
/// What Python itself refuses to compile; see [`too_deep`].
pub(crate) const DEPTH_MAX: usize = 3_000;
/// Smaller files cannot nest so deep that the parser's memory matters.
const SHALLOW: usize = 64 * 1024;

/// A file that could be decoded.
#[derive(Debug)]
pub(crate) struct Source {
    /// As the user named it.
    pub file: PathBuf,
    /// Without its byte order mark.
    pub text: String,
    /// Where the first byte stands that is no UTF-8 and that no coding cookie explains.
    pub foreign_byte: Option<usize>,
}

/// Why a file is not scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The operating system's words.
    Unreadable(String),
    /// Its size in bytes.
    TooLarge(u64),
    /// Python refuses a file with a NUL; it is often UTF-16.
    NulByte,
    /// The name in its coding cookie.
    UnknownEncoding(String),
    /// Brackets or operators nest deeper than Python compiles.
    TooDeep,
}

impl Source {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Source, Unread> {
        let unreadable = |error: std::io::Error| Unread::Unreadable(error.to_string());
        let mut handle = File::open(file).map_err(unreadable)?;
        let size = handle.metadata().map_err(unreadable)?.len();
        if size > SIZE_MAX {
            return Err(Unread::TooLarge(size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        // A file may grow while it is read: the limit holds for what is read, not for what was promised.
        handle.by_ref().take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(Unread::TooLarge(bytes.len() as u64));
        }
        Source::decode(file.to_owned(), bytes)
    }

    /// Decodes the bytes of a file.
    pub fn decode(file: PathBuf, mut bytes: Vec<u8>) -> Result<Source, Unread> {
        if bytes.contains(&0) {
            return Err(Unread::NulByte);
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let mut foreign_byte = None;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                match cookie(&bytes) {
                    Some(name) if is_latin(&name) => bytes.iter().map(|byte| char::from(*byte)).collect(),
                    Some(name) if !is_utf8(&name) => return Err(Unread::UnknownEncoding(name)),
                    _ => {
                        foreign_byte = Some(at);
                        String::from_utf8_lossy(&bytes).into_owned()
                    }
                }
            }
        };
        if too_deep(&text) {
            return Err(Unread::TooDeep);
        }
        Ok(Source { file, text, foreign_byte })
    }

    /// The line and column of a position.
    pub fn place(&self, at: TextSize) -> Place {
        let mut at = usize::from(at).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            file: self.file.clone(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The encoding that a comment in the first two lines names (PEP 263).
fn cookie(bytes: &[u8]) -> Option<String> {
    bytes.split(|byte| *byte == b'\n').take(2).find_map(|line| {
        let line = String::from_utf8_lossy(line);
        let (_, comment) = line.split_once('#')?;
        let after = &comment[comment.find("coding")? + "coding".len()..];
        let name = after.strip_prefix([':', '='])?.trim_start();
        let end =
            name.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(name.len());
        Some(name[..end].to_ascii_lowercase().replace('_', "-"))
    })
}

fn is_utf8(name: &str) -> bool {
    matches!(name, "utf-8" | "utf8" | "utf-8-sig" | "u8")
}

/// Names of encodings that agree with Latin-1 wherever Python's syntax is concerned.
fn is_latin(name: &str) -> bool {
    let dense = name.replace('-', "");
    matches!(dense.as_str(), "latin1" | "iso88591" | "iso885915" | "latin9" | "cp1252" | "windows1252" | "l1")
}

/// Whether a large text nests so deep that parsing it would take gigabytes.
///
/// An upper bound by bytes: brackets in strings count too, and a text whose strings open three thousand
/// more brackets than they close is none that a person wrote.
fn too_deep(text: &str) -> bool {
    if text.len() < SHALLOW {
        return false;
    }
    let (mut open, mut signs) = (0_usize, 0_usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'-' | b'+' | b'~' => signs += 1,
            b' ' | b'\t' => continue,
            _ => signs = 0,
        }
        if open > DEPTH_MAX || signs > DEPTH_MAX {
            return true;
        }
    }
    false
}
