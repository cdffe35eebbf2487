//! Where Alembic looks for revisions: `versions/`, or what `alembic.ini` or `pyproject.toml` names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Result, text};
use toml::{Table, Value};

use crate::{Configuration, Policy};

/// The folders of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folders.
    pub folders: Vec<PathBuf>,
    /// Whether Alembic reads the folders in them too.
    pub recursive: bool,
}

impl Layout {
    /// The layout of a project.
    pub fn of(policy: &Policy, project: &Path) -> Self {
        let script_folder = policy.directory_in(project);
        let Configuration { ini, pyproject } = policy.config_in(project);
        let (ini, pyproject) = (Ini::read(ini, &script_folder), pyproject.map(read_toml).unwrap_or_default());
        let recursive = match ini.setting("recursive_version_locations") {
            Some(value) => value.trim() == "true",
            None => pyproject
                .0
                .get("recursive_version_locations")
                .is_some_and(|value| *value == Value::from(true)),
        };
        let mut listed = ini.version_locations();
        if listed.is_empty() {
            let locations = pyproject.0.get("version_locations").and_then(Value::as_array);
            let locations = locations.into_iter().flatten().filter_map(Value::as_str);
            listed.extend(locations.map(|location| location.replace("%(here)s", &pyproject.1)));
        }
        let mut folders: Vec<PathBuf> = listed.iter().map(|location| located(project, location)).collect();
        if folders.is_empty() {
            folders.push(script_folder.join("versions"));
        }
        Layout { folders, recursive }
    }

    /// The Python files in the folders, and whether Alembic reads each.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, bool)>> {
        let mut files = Vec::new();
        let any_exists = self.folders.iter().any(|folder| folder.is_dir());
        for folder in &self.folders {
            match fs::read_dir(folder) {
                Ok(entries) => self.visit(entries, true, &mut files),
                // One that is not there yet is nothing to Alembic.
                Err(error) if any_exists && error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let told = text::graph::FOLDER_UNREADABLE.with("folder", folder.display());
                    return Err(Failure::new(told)
                        .because(error)
                        .mended_by(text::migrations::MEND_DIRECTORY));
                }
            }
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

/// The section `[alembic]` of an `alembic.ini`.
struct Ini {
    text: String,
    /// What `%(here)s` and `%(script_location)s` stand for.
    known: [(&'static str, String); 2],
}

impl Ini {
    fn read(file: Option<PathBuf>, script_folder: &Path) -> Self {
        let text = file.as_deref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let here = file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let known = [
            ("%(here)s", here.to_string_lossy().into_owned()),
            ("%(script_location)s", script_folder.to_string_lossy().into_owned()),
        ];
        Ini { text, known }
    }

    fn setting(&self, name: &str) -> Option<String> {
        let value = setting(&self.text, name)?;
        Some(self.known.iter().fold(value, |value, (name, known)| value.replace(name, known)))
    }

    /// Split as Alembic does it; a line of its own is always a location of its own.
    fn version_locations(&self) -> Vec<String> {
        let separator =
            ["path_separator", "version_path_separator"].iter().find_map(|name| self.setting(name));
        let separators: &[char] = match separator.as_deref().map(str::trim) {
            Some("os" | ":") => &[':'],
            Some(";") => &[';'],
            Some("newline") => &[],
            Some("space") => &[' '],
            _ => &[' ', ','],
        };
        let listed = self.setting("version_locations").unwrap_or_default();
        let parts = listed.split(|c: char| c == '\n' || separators.contains(&c)).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// The section `[tool.alembic]`, and the folder of its file. What cannot be read, Alembic itself complains of.
fn read_toml(file: PathBuf) -> (Table, String) {
    let text = fs::read_to_string(&file).unwrap_or_default();
    let here = file.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    // Most projects' files are long, and say nothing of Alembic.
    let whole =
        if text.contains("alembic") { text.parse::<Table>().unwrap_or_default() } else { Table::new() };
    let section = whole.get("tool").and_then(|tool| tool.get("alembic")).and_then(Value::as_table);
    (section.cloned().unwrap_or_default(), here)
}

/// A location: a path, or a folder of a package, `package.inner:folder`, beside the project's code or in its `src`.
fn located(project: &Path, location: &str) -> PathBuf {
    match location.split_once(':') {
        Some((package, folder)) if !Path::new(location).is_absolute() => {
            let path = Path::new(&package.replace('.', "/")).join(folder.replace(':', "/"));
            let layouts = [project.join(&path), project.join("src").join(&path)];
            layouts.iter().find(|folder| folder.is_dir()).unwrap_or(&layouts[0]).clone()
        }
        _ => project.join(location),
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
                value.push('\n');
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
        assert_eq!(setting(ini, "version_locations").unwrap().trim(), "%(here)s/a\nb");
        assert_eq!(setting(ini, "z").unwrap(), "1");
        assert_eq!(setting(ini, "none"), None);
        assert_eq!(setting("", "z"), None);
    }

    /// The folders that a project's files name, below it.
    fn folders(files: &[(&str, &str)]) -> Vec<String> {
        let project = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = project.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let layout = Layout::of(&Policy::default(), project.path());
        let below = layout.folders.iter().map(|folder| folder.strip_prefix(project.path()).unwrap());
        below.map(|folder| folder.display().to_string()).collect()
    }

    #[test]
    fn locations_are_split_as_alembic_splits_them() {
        let of = |settings: &str| folders(&[("alembic.ini", &format!("[alembic]\n{settings}\n"))]);
        assert_eq!(of(""), ["migrations/versions"]);
        assert_eq!(of("version_locations = %(here)s/a, b  c"), ["a", "b", "c"]);
        assert_eq!(of("version_locations = my files/a:b\npath_separator = os"), ["my files/a", "b"]);
        assert_eq!(
            of("version_path_separator = newline\nversion_locations =\n  my files/a\n  b"),
            ["my files/a", "b"]
        );
        assert_eq!(of("version_locations = %(script_location)s/core"), ["migrations/core"]);
        let package = ("src/shop/billing/versions/a.py", "");
        let ini = ("alembic.ini", "[alembic]\nversion_locations = shop.billing:versions\n");
        assert_eq!(folders(&[ini, package]), ["src/shop/billing/versions"]);
    }

    #[test]
    fn what_alembic_ini_does_not_say_is_read_in_pyproject() {
        let toml = ("pyproject.toml", "[tool.alembic]\nversion_locations = ['%(here)s/a', 'b']\n");
        assert_eq!(folders(&[toml]), ["a", "b"]);
        assert_eq!(folders(&[toml, ("alembic.ini", "[alembic]\n")]), ["a", "b"]);
        assert_eq!(folders(&[toml, ("alembic.ini", "[alembic]\nversion_locations = c\n")]), ["c"]);
        assert_eq!(folders(&[("pyproject.toml", "[tool.alembic\n")]), ["migrations/versions"]);
    }
}
