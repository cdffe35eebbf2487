//! What goes into the archive: bytes at hand, or a file that is read piece by piece, so that many can be
//! under way at once.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use obyra_evidence::{Failure, text};

use crate::Result;

/// Bytes of a piece, and of a frame of WAL: a whole number of pages of any size.
pub const PIECE: usize = 1 << 20;

/// What goes into the archive.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes at hand.
    Bytes(Bytes),
    /// A file, which nobody changes meanwhile.
    File(PathBuf),
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Content::Bytes(bytes)
    }
}

impl Content {
    /// How many bytes it is. Of a file that cannot be asked, none: whoever reads it tells.
    pub fn bytes(&self) -> usize {
        match self {
            Content::Bytes(bytes) => bytes.len(),
            Content::File(path) => {
                std::fs::metadata(path).ok().and_then(|file| file.len().try_into().ok()).unwrap_or(0)
            }
        }
    }

    /// Hands it over in pieces: each of the same size but the last.
    pub fn each(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Content::Bytes(bytes) => bytes.chunks(PIECE).try_for_each(take),
            Content::File(path) => {
                let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
                let mut piece = Vec::with_capacity(PIECE);
                loop {
                    piece.clear();
                    let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece);
                    if read.map_err(|e| unreadable(path, &e))? == 0 {
                        return Ok(());
                    }
                    take(&piece)?;
                }
            }
        }
    }
}

/// The failure to read a file.
pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(text::backup::WAL_FILE_UNREADABLE.with("file", path.display())).because(error)
}
