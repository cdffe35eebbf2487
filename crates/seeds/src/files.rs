//! The folder of seeds as it is on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Place, text};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::scan::{self, Statement};

/// The header that lets a changed seed be applied again.
const REPEATABLE: &str = "obyra-db: repeatable";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seed {
    /// Its place in the order.
    pub number: u32,
    /// What it is about: `bootstrap_roles` of `001_bootstrap_roles.sql`.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// SHA-256 of the text with line endings as `\n`, so that a checkout on Windows does not change it.
    pub checksum: String,
    /// Whether it says `-- obyra-db: repeatable` among its first comments.
    pub repeatable: bool,
    /// The SQL.
    #[serde(skip)]
    pub text: String,
    /// Where its statements begin.
    #[serde(skip)]
    pub(crate) statements: Vec<Statement>,
}

impl Seed {
    /// Reads a seed from its text, and refuses what cannot run inside a transaction.
    pub fn new(number: u32, name: impl Into<String>, file: impl Into<PathBuf>, text: String) -> Result<Seed> {
        let file = file.into();
        let statements = scan::statements(&text).map_err(|refusal| refusal.failure(&file, &text))?;
        Ok(Seed {
            number,
            name: name.into(),
            checksum: checksum(&text),
            repeatable: is_repeatable(&text),
            file,
            text,
            statements,
        })
    }

    /// The file's name as people write it: `001_bootstrap_roles`.
    pub fn label(&self) -> String {
        self.file.file_stem().map_or_else(|| self.name.clone(), |stem| stem.to_string_lossy().into_owned())
    }

    /// Its first line.
    pub fn first_line(&self) -> Place {
        self.place(0)
    }

    /// A byte of the text as a place.
    pub(crate) fn place(&self, byte: usize) -> Place {
        scan::place(&self.file, &self.text, byte)
    }
}

/// The seeds of a folder in the order of their numbers.
///
/// Whatever else lies there is ignored unless it is a `.sql` file: a seed that is passed over
/// because of its name would be missed too late.
pub fn discover(directory: &Path) -> Result<Vec<Seed>> {
    let unreadable = |path: &Path, e: std::io::Error| {
        Failure::new(text::seeds::UNREADABLE.with("path", path.display())).because(e)
    };
    if !directory.is_dir() {
        return Err(Failure::usage(text::seeds::NO_DIRECTORY.with("path", directory.display()))
            .mended_by(text::seeds::MEND_NO_DIRECTORY));
    }
    let mut seeds: BTreeMap<u32, Seed> = BTreeMap::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
        let path = entry.map_err(|e| unreadable(directory, e))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    for file in files {
        let (number, name) = parse_name(&file).ok_or_else(|| {
            Failure::usage(text::seeds::BAD_NAME.with("file", file.display()))
                .mended_by(text::seeds::MEND_BAD_NAME)
        })?;
        if let Some(other) = seeds.get(&number) {
            return Err(Failure::usage(
                text::seeds::SAME_NUMBER
                    .with("number", number)
                    .with("one", other.file.display())
                    .with("other", file.display()),
            )
            .mended_by(text::seeds::MEND_SAME_NUMBER));
        }
        let text = read(&file)?;
        seeds.insert(number, Seed::new(number, name, file, text)?);
    }
    Ok(seeds.into_values().collect())
}

/// `001_bootstrap_roles.sql` is 1 and `bootstrap_roles`.
fn parse_name(file: &Path) -> Option<(u32, String)> {
    let (number, name) = file.file_stem()?.to_str()?.split_once('_')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    // The tracking table's number is PostgreSQL's integer.
    let number = number.parse().ok().filter(|&n| digits && n <= i32::MAX as u32)?;
    (!name.is_empty()).then(|| (number, name.to_owned()))
}

fn read(file: &Path) -> Result<String> {
    let bytes = fs::read(file)
        .map_err(|e| Failure::new(text::seeds::UNREADABLE.with("path", file.display())).because(e))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let not_text = |valid: usize| {
        let readable = String::from_utf8_lossy(&bytes[..valid]);
        Failure::usage(text::seeds::NOT_UTF8).at(scan::place(file, &readable, readable.len()))
    };
    let text = std::str::from_utf8(bytes).map_err(|e| not_text(e.valid_up_to()))?;
    match text.find('\0') {
        Some(at) => Err(not_text(at)),
        None => Ok(text.to_owned()),
    }
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.replace("\r\n", "\n").as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header counts only before the first statement.
fn is_repeatable(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .any(|line| line.trim_start_matches('-').trim() == REPEATABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn seeds_come_in_the_order_of_their_numbers() {
        let folder = folder(&[
            ("10_c.sql", b"SELECT 3"),
            ("002_b.sql", b"-- Organisations\n-- obyra-db: repeatable\nSELECT 2"),
            ("001_a_b.sql", b"\xef\xbb\xbfSELECT 1;\r\n"),
            ("README.md", b"about"),
        ]);
        let seeds = discover(folder.path()).unwrap();
        let order: Vec<_> = seeds.iter().map(|s| (s.number, s.name.as_str(), s.repeatable)).collect();
        assert_eq!(order, [(1, "a_b", false), (2, "b", true), (10, "c", false)]);
        assert_eq!(seeds[0].text, "SELECT 1;\r\n");
        assert_eq!(seeds[0].checksum, checksum("SELECT 1;\n"));
        assert_eq!(seeds[0].label(), "001_a_b");
    }

    #[test]
    fn what_cannot_be_ordered_is_refused() {
        let twice = discover(folder(&[("1_a.sql", b""), ("001_b.sql", b"")]).path()).unwrap_err();
        assert_eq!(twice.what.code(), text::seeds::SAME_NUMBER);
        for name in ["roles.sql", "_x.sql", "001.sql", "001_.sql", "4294967296_a.sql", "+1_a.sql"] {
            let failure = discover(folder(&[(name, b"")]).path()).unwrap_err();
            assert_eq!(failure.what.code(), text::seeds::BAD_NAME, "{name}");
        }
        let missing = discover(Path::new("no/such/folder")).unwrap_err();
        assert_eq!(missing.what.code(), text::seeds::NO_DIRECTORY);
    }

    #[test]
    fn a_file_in_another_encoding_is_named_with_the_place() {
        let folder = folder(&[("001_a.sql", b"SELECT 1;\nSELECT 'a\xf1o';")]);
        let at = discover(folder.path()).unwrap_err().at.unwrap();
        assert_eq!((at.line, at.column), (2, 10));
    }

    #[test]
    fn the_header_counts_only_at_the_top() {
        assert!(is_repeatable("\n--obyra-db: repeatable\nSELECT 1"));
        assert!(!is_repeatable("SELECT 1;\n-- obyra-db: repeatable"));
        assert!(!is_repeatable("-- not obyra-db: repeatable"));
    }
}
