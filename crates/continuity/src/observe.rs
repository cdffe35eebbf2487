//! What is: the runbook document, as far as it can be seen.

use std::io::ErrorKind;
use std::path::Path;

/// The runbook document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// It is there, with so many bytes besides white space.
    Written(usize),
    /// It is not there.
    Absent,
    /// It could not be read, in the words of the operating system.
    Unread(String),
}

/// Looks at the document. Reads only.
pub fn document(file: &Path) -> Document {
    match std::fs::read_to_string(file) {
        Ok(text) => Document::Written(text.trim().len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Document::Absent,
        Err(e) => Document::Unread(e.to_string()),
    }
}
