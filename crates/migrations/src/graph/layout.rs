//! Where Alembic looks for revisions: `versions/`, or what `alembic.ini` names.

use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Result, text};

/// The folders of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folders.
    pub folders: Vec<PathBuf>,
    /// Whether Alembic reads the folders in them too.
    pub recursive: bool,
}

impl Layout {
    /// The layout of a script folder, under an `alembic.ini`.
    pub fn of(script_folder: &Path, config: Option<&Path>) -> Self {
        let ini = config.and_then(|config| fs::read_to_string(config).ok()).unwrap_or_default();
        let here = config.and_then(Path::parent).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let setting = |name| setting(&ini, name).map(|value| value.replace("%(here)s", &here));
        let recursive = setting("recursive_version_locations").is_some_and(|value| value.trim() == "true");
        // The separator is a setting too: blanks and the system's are the ones in use.
        let listed = setting("version_locations").unwrap_or_default();
        let separators = |c: char| c.is_whitespace() || c == ',' || c == ':';
        let mut folders: Vec<PathBuf> =
            listed.split(separators).filter(|part| !part.is_empty()).map(PathBuf::from).collect();
        if folders.is_empty() {
            folders.push(script_folder.join("versions"));
        }
        Layout { folders, recursive }
    }

    /// The Python files in the folders, and whether Alembic reads each.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, bool)>> {
        let mut files = Vec::new();
        for folder in &self.folders {
            let entries = fs::read_dir(folder).map_err(|error| {
                Failure::new(text::graph::FOLDER_UNREADABLE.with("folder", folder.display()))
                    .because(error)
                    .mended_by(text::migrations::MEND_DIRECTORY)
            })?;
            self.visit(entries, true, &mut files);
        }
        // A folder below another one may be named for itself.
        files.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        files.dedup_by(|later, first| later.0 == first.0);
        Ok(files)
    }

    fn visit(&self, entries: fs::ReadDir, read: bool, files: &mut Vec<(PathBuf, bool)>) {
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() && name != "__pycache__" && !name.starts_with('.') {
                if let Ok(inner) = fs::read_dir(entry.path()) {
                    self.visit(inner, read && self.recursive, files);
                }
            } else if name.ends_with(".py") && !name.starts_with("__init__") && !name.starts_with(".#") {
                files.push((entry.path(), read));
            }
        }
    }
}

/// A setting of the section `[alembic]`; further lines of it are indented.
fn setting(ini: &str, name: &str) -> Option<String> {
    let section = ini
        .split("\n[")
        .map(|section| section.trim_start_matches('['))
        .find(|s| s.starts_with("alembic]"))?;
    let mut found: Option<String> = None;
    for line in section.lines().skip(1) {
        let continues = line.starts_with([' ', '\t']);
        match &mut found {
            Some(value) if continues => {
                value.push(' ');
                value.push_str(line.trim());
            }
            Some(_) => break,
            None => {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                if key.trim() == name {
                    found = Some(value.trim().to_owned());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_setting_over_several_lines() {
        let ini = "[alembic]\nscript_location = m\n# x = y\nversion_locations =\n  %(here)s/a\n  b\nz = 1\n[other]\nz = 2\n";
        assert_eq!(setting(ini, "version_locations").unwrap().trim(), "%(here)s/a b");
        assert_eq!(setting(ini, "z").unwrap(), "1");
        assert_eq!(setting(ini, "none"), None);
        assert_eq!(setting("", "z"), None);
    }
}
