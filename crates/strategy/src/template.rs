//! What `init` writes.

use obyra_evidence::Language;

use crate::strategy::Strategy;

impl Strategy {
    /// A complete, commented file: `"minimal"` for any team, else OBYRA's whole strategy.
    pub fn default_template(name: &str, language: Language) -> &'static str {
        match (name, language) {
            ("minimal", Language::En) => include_str!("../templates/minimal.en.toml"),
            ("minimal", Language::Es) => include_str!("../templates/minimal.es.toml"),
            (_, Language::En) => include_str!("../templates/obyra.en.toml"),
            (_, Language::Es) => include_str!("../templates/obyra.es.toml"),
        }
    }
}
