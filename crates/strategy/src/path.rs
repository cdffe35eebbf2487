//! Where a value stands in the strategy: `access.roles.obyra_app.connection_limit`.

use std::fmt;

/// One step down the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Into a table, by key.
    Key(String),
    /// Into an array, by position from 0.
    Index(usize),
}

/// The way from the top of the file to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(pub(crate) Vec<Step>);

impl Path {
    /// The top of the file.
    pub(crate) fn top() -> Self {
        Path::default()
    }

    /// A path of keys.
    pub(crate) fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Path(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    /// This path and one more key.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// This path and one more position.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// This path and then another.
    pub(crate) fn joined(&self, further: &Path) -> Self {
        Path(self.0.iter().chain(&further.0).cloned().collect())
    }

    /// Whether this path leads through another.
    pub(crate) fn is_below(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0)
    }

    /// This path and one more step.
    pub(crate) fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{}", written(key))?;
                }
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: quoted where it needs to be.
pub(crate) fn written(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}
