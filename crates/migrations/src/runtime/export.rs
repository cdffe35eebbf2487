//! Proven statements as ordered SQL files, each with its own guard, one transaction each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Message, Place, Result, text};
use serde::Serialize;

use super::check::{Check, Checked};
use super::files::checksum;
use super::form::Verb;
use super::guard::{self, Guarded};
use super::prove::Ground;
use crate::Policy;

/// What the first line of a file says that was exported, before the hash of the rest.
const MARK: &str = "-- obyra-db: runtime ";
const SLUG_CHARS: usize = 48;

/// Files to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// The folder.
    pub folder: PathBuf,
    /// The files, in their order.
    pub files: Vec<Exported>,
    /// Statements that are not among them, and why.
    pub left_out: Vec<(Place, Message)>,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Export {
    /// What a check has proven, as files of a folder: the given one, or the policy's.
    pub fn of(
        check: &Check,
        ground: &Ground,
        (policy, project): (&Policy, &Path),
        to: Option<&Path>,
    ) -> Export {
        let folder = to.map_or_else(|| super::files::folder(policy, project), Path::to_owned);
        let (proven, left_out) = proven(check, ground);
        let width = proven.len().to_string().len().max(3);
        let files = proven.iter().enumerate().map(|(index, (checked, guarded))| {
            let name = format!("{:0width$}_{}.sql", index + 1, slug(checked));
            let body = format!("-- {}\n{}", source(checked), guarded.written());
            Exported { name, text: format!("{MARK}{}\n{body}", &checksum(&body)[..16]) }
        });
        Export { folder, files: files.collect(), left_out }
    }

    /// Writes the files, and removes those of an earlier export that are no more. Files that somebody wrote
    /// or changed by hand are not touched: then nothing is.
    pub fn write(&self) -> Result<()> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::new(text::runtime::CANNOT_WRITE.with("path", path.display())).because(error)
        };
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let present = self.present()?;
        let wanted: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        for name in present.keys().filter(|name| !wanted.contains(name.as_str())) {
            let path = self.folder.join(name);
            fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
        for file in self.files.iter().filter(|file| present.get(&file.name) != Some(&file.text)) {
            let path = self.folder.join(&file.name);
            fs::write(&path, &file.text).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }

    /// The files of an earlier export that are in the folder.
    fn present(&self) -> Result<BTreeMap<String, String>> {
        let unreadable = |error: std::io::Error| {
            Failure::new(text::runtime::UNREADABLE.with("path", self.folder.display())).because(error)
        };
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !is_untouched(&text) {
                return Err(Failure::refused(text::runtime::NOT_OURS.with("path", path.display()))
                    .mended_by(text::runtime::MEND_NOT_OURS));
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            present.insert(name, text);
        }
        Ok(present)
    }
}

/// Whether a file is as an export wrote it.
fn is_untouched(text: &str) -> bool {
    let text = text.replace("\r\n", "\n");
    let Some((hash, body)) = text.strip_prefix(MARK).and_then(|rest| rest.split_once('\n')) else {
        return false;
    };
    checksum(body).starts_with(hash) && hash.len() == 16
}

/// A proven statement with its guard.
pub(super) type Proven<'c> = (&'c Checked, Guarded);

/// The proven statements that can stand by themselves, and the others with the reason.
pub(super) fn proven<'c>(check: &'c Check, ground: &Ground) -> (Vec<Proven<'c>>, Vec<(Place, Message)>) {
    let (mut proven, mut left_out) = (Vec::<Proven<'c>>::new(), Vec::new());
    for checked in &check.statements {
        if !checked.verdict.is_proven() {
            let why = text::runtime::LEFT_UNPROVEN.message();
            left_out.push((checked.place.clone(), left(checked, why)));
            continue;
        }
        match guard::of(checked, ground) {
            // The same once more says nothing: a helper beside what was exported of it.
            Ok(guarded) if proven.iter().any(|(_, own)| own.written() == guarded.written()) => {}
            Ok(guarded) => proven.push((checked, guarded)),
            Err(why) => left_out.push((checked.place.clone(), left(checked, why))),
        }
    }
    (proven, left_out)
}

fn left(checked: &Checked, why: Message) -> Message {
    text::runtime::LEFT_OUT.with("statement", &checked.title).with_sentence("why", why)
}

/// Where a statement came from, for a comment.
pub(super) fn source(checked: &Checked) -> String {
    let file = checked.place.file.file_name().unwrap_or_default().to_string_lossy();
    format!("from {file}:{}", checked.place.line)
}

/// `add_column_users_phone`.
fn slug(checked: &Checked) -> String {
    let effect = checked.proof.steps.iter().flat_map(|step| &step.form.effects).next();
    let words = match effect {
        Some(effect) if !effect.object.name.name.is_empty() => {
            let verb = match effect.verb {
                Verb::Makes => "add",
                Verb::Removes => "remove",
                Verb::Sets => "set",
            };
            format!("{verb} {}", effect.object)
        }
        _ => checked.title.clone(),
    };
    let plain: Vec<String> = words
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty() && *word != "on")
        .map(str::to_ascii_lowercase)
        .collect();
    let slug: String = plain.join("_").chars().take(SLUG_CHARS).collect();
    slug.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_by_hand_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let body = "-- from a.py:1\nSELECT 1;\n";
        let text = format!("{MARK}{}\n{body}", &checksum(body)[..16]);
        assert!(is_untouched(&text) && is_untouched(&text.replace('\n', "\r\n")));
        let file = |name: &str| Exported { name: name.to_owned(), text: text.clone() };
        let export = |files| Export { folder: folder.path().to_owned(), files, left_out: Vec::new() };
        export(vec![file("001_a.sql"), file("002_b.sql")]).write().unwrap();
        export(vec![file("001_a.sql")]).write().unwrap();
        assert!(!folder.path().join("002_b.sql").exists());
        fs::write(folder.path().join("001_a.sql"), text.replace("SELECT 1", "SELECT 2")).unwrap();
        let refused = export(vec![file("001_a.sql")]).write().unwrap_err();
        assert_eq!(refused.what.code(), text::runtime::NOT_OURS);
        fs::write(folder.path().join("001_a.sql"), "SELECT 3").unwrap();
        assert!(export(Vec::new()).write().is_err());
    }
}
