//! The server's own manifest: what it believes that it has sent
//! (<https://www.postgresql.org/docs/current/backup-manifest-format.html>).
//!
//! It is read line by line, as the server writes it: that of a cluster of a million files would take 200 MB.

use std::collections::HashMap;

use obyra_evidence::{Failure, text};
use serde::Deserialize;

use crate::Result;

/// A line about a file is short; what is longer is not one.
const LINE_MAX: usize = 64 << 10;

/// What arrived of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) size: u64,
    /// CRC-32C.
    pub(super) crc: u32,
}

/// The manifest, and what it has not named yet of what arrived.
pub(super) struct ServerManifest {
    arrived: HashMap<[u8; 16], Arrived>,
    line: Vec<u8>,
    whole: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: Option<String>,
    size: u64,
    checksum: String,
}

/// What a path is known by: less than its text.
pub(super) fn key(path: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(path.as_bytes()).as_bytes()[..16]);
    key
}

impl ServerManifest {
    pub(super) fn of(arrived: HashMap<[u8; 16], Arrived>) -> ServerManifest {
        ServerManifest { arrived, line: Vec::new(), whole: false }
    }

    /// A piece of it.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.line(&line)?;
                self.line = line;
                self.line.clear();
            } else if self.line.len() > LINE_MAX {
                return Err(malformed("a line without an end"));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let line = line.trim_ascii();
        let line = line.strip_suffix(b",").unwrap_or(line);
        if line.starts_with(b"\"Manifest-Checksum\"") {
            self.whole = true;
        }
        let about_file =
            [&b"{ \"Path\""[..], b"{ \"Encoded-Path\""].iter().any(|begin| line.starts_with(begin));
        if !about_file {
            return Ok(());
        }
        let file: File = serde_json::from_slice(line).map_err(malformed)?;
        // A path that is not text: the file was left out.
        let Some(path) = file.path else { return Ok(()) };
        let said = little_endian(&file.checksum).map(|crc| Arrived { size: file.size, crc });
        match self.arrived.remove(&key(&path)) {
            Some(arrived) if Some(arrived) == said => Ok(()),
            Some(arrived) => {
                let difference = format!("{} bytes arrived of {}", arrived.size, file.size);
                Err(differs(&path).because(difference))
            }
            None => Err(differs(&path)),
        }
    }

    /// It is complete: nothing arrived that it does not name.
    pub(super) fn end(self) -> Result<()> {
        if !self.whole {
            return Err(malformed("its end is missing"));
        }
        match self.arrived.len() {
            0 => Ok(()),
            count => Err(Failure::new(text::backup::TAKE_MANIFEST_LACKS.with("count", count))),
        }
    }
}

/// The checksum as the server writes it: the bytes of the number, in hexadecimal.
fn little_endian(digits: &str) -> Option<u32> {
    if digits.len() != 8 { None } else { u32::from_str_radix(digits, 16).ok().map(u32::swap_bytes) }
}

fn differs(path: &str) -> Failure {
    Failure::new(text::backup::TAKE_MANIFEST_DIFFERS.with("path", path))
        .mended_by(text::backup::TAKE_MANIFEST_DIFFERS_MEND)
}

fn malformed(why: impl std::fmt::Display) -> Failure {
    Failure::new(text::backup::TAKE_MANIFEST_MALFORMED).because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "base/5/1", "Size": 9, "Last-Modified": "2026-11-24 03:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "839206e3" },
{ "Encoded-Path": "ff", "Size": 1, "Last-Modified": "2026-11-24 03:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"Manifest-Checksum": "00"}
"#;

    fn check(manifest: &str, arrived: &[(&str, u64, &[u8])]) -> Result<()> {
        let crc = |bytes| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
        let arrived =
            arrived.iter().map(|(path, size, bytes)| (key(path), Arrived { size: *size, crc: crc(bytes) }));
        let mut read = ServerManifest::of(arrived.collect());
        manifest.as_bytes().chunks(7).try_for_each(|piece| read.data(piece))?;
        read.end()
    }

    #[test]
    fn what_arrived_is_what_was_sent_or_it_is_named() {
        let file = ("base/5/1", 9, &b"123456789"[..]);
        check(MANIFEST, &[file]).unwrap();
        let told = |arrived: &[_]| check(MANIFEST, arrived).unwrap_err().to_string();
        assert!(told(&[("base/5/1", 9, b"123456780")]).contains("base/5/1"));
        assert!(told(&[("base/5/1", 8, b"123456789")]).contains("8 bytes arrived of 9"));
        assert!(told(&[]).contains("base/5/1"));
        assert!(check(MANIFEST, &[file, ("base/5/2", 0, b"")]).is_err());
        assert!(check(&MANIFEST[..MANIFEST.len() - 30], &[file]).is_err());
    }
}
