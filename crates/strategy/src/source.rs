//! The strategy file as text: read with care, and every offset turned into line and column.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use obyra_evidence::{Finding, Message, Place, Severity, text};
use toml::Spanned;
use toml::de::DeTable;

/// More than any strategy needs, and little enough to read at once.
const SIZE_MAX_BYTES: u64 = 1024 * 1024;

/// The text of a file that has a name.
pub(crate) struct Source {
    file: PathBuf,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads the file; the finding says what is wrong with it as a file.
    pub(crate) fn read(file: &Path) -> Result<Source, Box<Finding>> {
        let about = |message: Message| Box::new(Finding::new(Severity::Error, file.display(), message));
        let metadata = fs::metadata(file).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Box::new(
                about(text::strategy::FILE_MISSING.with("file", file.display()))
                    .mended_by(text::strategy::MEND_WITH_INIT),
            ),
            _ => about(text::strategy::FILE_UNREADABLE.with("file", file.display()).with("why", error)),
        })?;
        if metadata.is_dir() {
            return Err(about(text::strategy::FILE_IS_FOLDER.with("file", file.display())));
        }
        if metadata.len() > SIZE_MAX_BYTES {
            return Err(about(
                text::strategy::FILE_TOO_LARGE
                    .with("file", file.display())
                    .with("size_bytes", metadata.len())
                    .with("max_bytes", SIZE_MAX_BYTES),
            ));
        }
        let bytes = fs::read(file).map_err(|error| {
            about(text::strategy::FILE_UNREADABLE.with("file", file.display()).with("why", error))
        })?;
        decode(file, bytes)
    }

    /// A text that is not in a file yet, under the name it would have.
    pub(crate) fn from_text(file: impl Into<PathBuf>, text: &str) -> Source {
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        Source { file: file.into(), text: text.to_owned(), line_starts }
    }

    /// The file's name, as the user gave it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The values with their spans, as far as the text is TOML, and every syntax error.
    pub(crate) fn parse(&self) -> (Spanned<DeTable<'_>>, Vec<Finding>) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let about = |message: Message| Finding::new(Severity::Error, self.file.display(), message);
        if self.text.trim().is_empty() {
            let empty = about(text::strategy::FILE_EMPTY.with("file", self.file.display()));
            return (table, vec![empty.at(self.place(0)).mended_by(text::strategy::MEND_WITH_INIT)]);
        }
        let finding = |error: &toml::de::Error| {
            about(text::strategy::SYNTAX.with("why", error.message().trim_end()))
                .at(self.place(error.span().unwrap_or_default().start))
        };
        (table, errors.iter().map(finding).collect())
    }

    /// Line and column of an offset in bytes.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let offset = floor_char_boundary(&self.text, offset);
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text[start..offset].chars().count() + 1;
        Place { file: self.file.clone(), line, column }
    }
}

/// UTF-8 with or without a byte order mark; anything else is refused in words.
fn decode(file: &Path, bytes: Vec<u8>) -> Result<Source, Box<Finding>> {
    let about = |message: Message| Box::new(Finding::new(Severity::Error, file.display(), message));
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(about(text::strategy::FILE_UTF16.with("file", file.display())));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::from_text(file, text.strip_prefix('\u{FEFF}').unwrap_or(&text))),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let place = Source::from_text(file, &before).place(before.len());
            let message = text::strategy::FILE_NOT_UTF8.with("file", file.display());
            Err(Box::new(about(message).at(place)))
        }
    }
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
