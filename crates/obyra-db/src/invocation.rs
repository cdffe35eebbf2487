//! How the program was called: the printer, the strategy file, the cache.

use std::path::{Path, PathBuf};

use obyra_evidence::{Failure, Language, text};
use obyra_postgres::cluster::Purpose;
use obyra_strategy::Strategy;

use crate::cli::{Common, Lang};
use crate::printer::Printer;
use crate::progress::Bars;

/// Everything that the common options decide.
pub struct Invocation {
    /// The voice.
    pub printer: Printer,
    common: Common,
    cache: Option<PathBuf>,
}

/// The name of the strategy file.
pub const STRATEGY_FILE: &str = "obyra-db.toml";

impl Invocation {
    /// From the common options, in the language of the options or of the locale.
    pub fn new(common: Common) -> Self {
        let language = match common.lang {
            Some(Lang::En) => Language::En,
            Some(Lang::Es) => Language::Es,
            None => locale_language(),
        };
        let printer = Printer::new(language, common.json, common.quiet);
        Invocation { printer, common, cache: None }
    }

    /// The same call about the demo: its strategy, and its own cache, so that nothing is left elsewhere.
    pub fn of_demo(&self, folder: &Path) -> Self {
        let common = Common { config: Some(folder.join(STRATEGY_FILE)), ..self.common.clone() };
        Invocation { printer: self.printer, common, cache: Some(folder.join(".obyra-db/cache")) }
    }

    /// Loads the strategy; from here on its language is spoken unless `--lang` chose one.
    pub fn strategy(&mut self) -> Result<Strategy, Failure> {
        let strategy = Strategy::load(&self.config()?).map_err(|problems| {
            if self.common.lang.is_none() {
                self.printer.language = problems.language;
            }
            problems.failure(self.printer.language)
        })?;
        if self.common.lang.is_none() {
            self.printer.language = strategy.language;
        }
        for warning in &strategy.warnings {
            self.printer.warning(warning);
        }
        Ok(strategy)
    }

    /// Progress on stderr.
    pub fn progress(&self) -> Bars {
        Bars::new(self.printer, !self.common.no_progress && !self.common.quiet)
    }

    /// The folder of downloads: `$OBYRA_DB_CACHE`, else the user's cache, else one that can be written.
    pub fn cache(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = std::env::var_os("OBYRA_DB_CACHE") {
            return Ok(PathBuf::from(folder));
        }
        if let Some(folder) = &self.cache {
            return obyra_postgres::cluster::reachable_dir(folder, Purpose::Cache);
        }
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        // The XDG specification ignores an empty and a relative one.
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let base = xdg.or(home);
        let wanted = base.unwrap_or_else(std::env::temp_dir).join("obyra-db");
        obyra_postgres::cluster::reachable_dir(&wanted, Purpose::Cache)
    }

    /// The strategy file: as given, else here or in the nearest folder above.
    fn config(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.common.config {
            return Ok(file.clone());
        }
        let here = std::env::current_dir()
            .map_err(|e| Failure::new(text::cli::FILE_UNUSABLE.with("file", ".")).because(e))?;
        nearest(&here).ok_or_else(|| {
            Failure::usage(text::cli::NO_STRATEGY.with("folder", here.display()))
                .mended_by(text::cli::NO_STRATEGY_MEND)
        })
    }
}

fn nearest(here: &Path) -> Option<PathBuf> {
    here.ancestors().map(|folder| folder.join(STRATEGY_FILE)).find(|file| file.is_file())
}

fn locale_language() -> Language {
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty());
    match locale {
        Some(locale) if locale.starts_with("es") => Language::Es,
        _ => Language::En,
    }
}
