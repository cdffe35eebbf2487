//! The line of a file that a finding points at, with a caret below the column.

use std::path::Path;

use crate::{Place, scrub_credentials};

/// Where the text of a file comes from: [`from_disk`], or a map in tests. `None` shows no line.
pub type Sources<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// Longer lines are not shown: nobody reads them, and they break the terminal.
const WIDTH_MAX: usize = 200;
const SIZE_MAX: u64 = 4 * 1024 * 1024;

/// Reads a file of a reasonable size, if it can be read.
pub fn from_disk(file: &Path) -> Option<String> {
    let size = std::fs::metadata(file).ok()?.len();
    (size <= SIZE_MAX).then(|| std::fs::read_to_string(file).ok()).flatten()
}

/// The place, and the line under it where it can be shown.
pub(super) fn excerpt(place: &Place, sources: Sources<'_>) -> String {
    let source = sources(&place.file);
    let line = source.as_deref().and_then(|text| text.lines().nth(place.line.checked_sub(1)?));
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let mut out = format!("{gutter}--> {place}\n");
    if let Some(line) = line.filter(|line| line.chars().count() <= WIDTH_MAX && !may_hold_a_secret(line)) {
        // A tab in the line is a tab above the caret, whatever its width.
        let indent = line.chars().take(place.column.saturating_sub(1));
        let indent: String = indent.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        out +=
            &format!("{gutter} |\n{number} | {}\n{gutter} | {indent}^\n", super::terminal::printable(line));
    }
    out
}

/// Whether a line looks as if it held a secret. Such a line is exactly what a finding may point at,
/// and must not reach a terminal or a CI log.
fn may_hold_a_secret(line: &str) -> bool {
    let names = ["password", "passwd", "secret", "token", "contraseña", "clave", "api_key", "apikey"];
    let key = line.split_once('=').map(|(key, _)| key.to_lowercase());
    let named = key.is_some_and(|key| names.iter().any(|name| key.contains(name)));
    named || scrub_credentials(line) != line
}
