//! What the application asks for: `requirements.txt`, with the files that it includes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, text};
use obyra_postgres::Result;
use sha2::{Digest, Sha256};
use tokio::process::Command;

/// The requirements file with those that it includes.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    file: PathBuf,
    text: String,
    unpinned: BTreeSet<String>,
    hashed: bool,
}

impl Requirements {
    /// Reads a file and those that it includes.
    pub fn read(file: &Path) -> Result<Requirements> {
        let file = crate::driver::absolute(file)?;
        let mut requirements = Requirements { file: file.clone(), ..Requirements::default() };
        requirements.include(&file, &mut BTreeSet::new())?;
        Ok(requirements)
    }

    /// The requirements that leave the version open.
    pub fn unpinned(&self) -> &BTreeSet<String> {
        &self.unpinned
    }

    fn include(&mut self, file: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
        if !seen.insert(file.to_owned()) {
            return Ok(());
        }
        let text = fs::read_to_string(file).map_err(|error| {
            Failure::usage(text::migrations::PATH_UNREADABLE.with("path", file.display())).because(error)
        })?;
        self.text.push_str(&text);
        for line in text.lines().map(str::trim) {
            match included(line) {
                Some(name) => self.include(&file.with_file_name("").join(name), seen)?,
                None => self.note(line),
            }
        }
        Ok(())
    }

    fn note(&mut self, line: &str) {
        self.hashed |= line.contains("--hash=");
        let requirement = line.split(" #").next().unwrap_or("").trim_end_matches('\\').trim();
        let named = requirement.starts_with(|c: char| c.is_ascii_alphanumeric());
        if named && !["==", " @ ", "://"].iter().any(|exact| requirement.contains(exact)) {
            self.unpinned.insert(requirement.to_owned());
        }
    }

    /// The name of the environment: what goes into it, and for which interpreter.
    pub fn key(&self, version: &str) -> String {
        let digest =
            Sha256::new().chain_update(version).chain_update([0]).chain_update(&self.text).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Adds pip's arguments, which uv shares.
    pub fn arguments<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.hashed {
            command.arg("--require-hashes");
        }
        command.arg("-r").arg(&self.file)
    }
}

/// The file that a line includes: `-r base.txt`, `--requirement=base.txt`, `-c constraints.txt`.
fn included(line: &str) -> Option<&str> {
    let (option, rest) = line.split_once([' ', '='])?;
    let name = rest.split(" #").next()?.trim();
    let includes = ["-r", "--requirement", "-c", "--constraint"].contains(&option);
    (includes && !name.is_empty() && !name.contains("://")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Requirements {
        let mut requirements = Requirements::default();
        text.lines().for_each(|line| requirements.note(line.trim()));
        requirements
    }

    #[test]
    fn what_is_not_pinned_is_named() {
        let open = "flask  # the web\nalembic>=1.13\nmako==1.4.3\n# sqlalchemy\n--index-url https://x\n./local.whl\n\
                    tool @ https://x/tool.whl\nrequests[socks]==2 ; python_version > '3'\n";
        assert_eq!(read(open).unpinned.iter().collect::<Vec<_>>(), ["alembic>=1.13", "flask"]);
    }

    #[test]
    fn hashes_are_required_where_the_file_has_them() {
        assert!(read("mako==1.4.3 \\\n    --hash=sha256:00").hashed);
        assert!(!read("mako==1.4.3").hashed);
    }

    #[test]
    fn an_included_file_is_part_of_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        write("requirements.txt", "-r base.txt\n-c limits.txt # both\n");
        write("limits.txt", "-r requirements.txt\n");
        let key = |version: &str| {
            Requirements::read(&folder.path().join("requirements.txt")).expect("readable").key(version)
        };
        write("base.txt", "flask==3.1.3\n");
        let first = key("3.11");
        assert_eq!(first, key("3.11"));
        assert_ne!(first, key("3.12"));
        write("base.txt", "flask==3.1.4\n");
        assert_ne!(first, key("3.11"));
    }
}
