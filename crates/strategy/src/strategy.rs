//! The strategy as everything else sees it: read, layered, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use obyra_evidence::{Failure, Finding, Language, text};

use crate::environment::Environment;
use crate::shape::nearest;

/// A strategy file without errors.
#[derive(Clone, Debug)]
pub struct Strategy {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The folder that the file's paths are relative to. Absolute.
    pub folder: PathBuf,
    /// The language that people are spoken to in.
    pub language: Language,
    /// Where the program keeps evidence, embedded clusters and local secrets. Absolute.
    pub state_dir: PathBuf,
    /// What deserves a warning, but does not stand in the way.
    pub warnings: Vec<Finding>,
    pub(crate) environments: BTreeMap<String, Environment>,
}

impl Strategy {
    /// The environments, by name.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.values()
    }

    /// An environment by its name; the failure lists those there are.
    pub fn environment(&self, name: &str) -> Result<&Environment, Failure> {
        self.environments.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.environments.keys().map(String::as_str).collect();
            let failure = Failure::usage(
                text::strategy::ENVIRONMENT_UNKNOWN.with("name", name).with("known", known.join(", ")),
            );
            match nearest(name, known.into_iter()) {
                Some(meant) => failure.mended_by(text::strategy::DID_YOU_MEAN.with("name", meant)),
                None => failure,
            }
        })
    }
}
