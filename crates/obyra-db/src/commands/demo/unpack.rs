//! Lays the example application and its strategy into the demo's folder.

use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Language, text};
use obyra_strategy::Strategy;

use crate::invocation::STRATEGY_FILE;

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// Writes what is not there yet; what somebody changed in the folder stays changed.
pub fn unpack(folder: &Path, language: Language) -> Result<PathBuf, Failure> {
    let strategy = Strategy::default_template("obyra", language).as_bytes();
    let unusable =
        |path: &Path, e| Failure::new(text::cli::FILE_UNUSABLE.with("file", path.display())).because(e);
    for (name, content) in FILES.iter().copied().chain([(STRATEGY_FILE, strategy)]) {
        let file = folder.join(name);
        if file.exists() {
            continue;
        }
        let parent = file.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&file, content))
            .map_err(|e| unusable(&file, e))?;
    }
    folder.canonicalize().map_err(|e| unusable(folder, e))
}
