//! From the file to the strategy: read, shape, layers, meaning, in one report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use obyra_evidence::{Finding, Language, Severity, text};
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::environment::{Declaration, Environment};
use crate::meaning::{self, Scene};
use crate::path::Path;
use crate::problems::{Problems, errors, in_order};
use crate::report::Report;
use crate::schema::{self, Head};
use crate::sections::Sections;
use crate::shape::{self, Completeness};
use crate::source::Source;
use crate::strategy::Strategy;
use crate::tree;

/// Each pass over a table takes one value out that no type could read; more are not looked for.
const MISFITS_MAX: usize = 200;

impl Strategy {
    /// Reads and checks a strategy file. Everything that is wrong with it is reported at once.
    pub fn load(file: &FilePath) -> Result<Strategy, Problems> {
        let source = Source::read(file).map_err(|finding| Problems {
            file: file.to_owned(),
            language: Language::default(),
            findings: vec![*finding],
        })?;
        understand(&source)
    }

    /// Reads a strategy from a text, as if it stood in this file.
    pub fn parse(text: &str, file: &FilePath) -> Result<Strategy, Problems> {
        understand(&Source::from_text(file, text))
    }
}

/// One environment on its way: the merged layers, and what could be read of them.
struct Layered<'i> {
    name: String,
    table: Spanned<DeTable<'i>>,
    own: Option<Declaration>,
    sections: Sections,
    declared: BTreeSet<String>,
    schemas_read: bool,
}

fn understand(source: &Source) -> Result<Strategy, Problems> {
    let problems = |findings, language| Problems { file: source.file().to_owned(), language, findings };
    let (raw, broken) = source.parse();
    if !broken.is_empty() {
        return Err(problems(broken, language_of(raw.get_ref())));
    }
    let schema = schema::schema();
    let mut report = Report::new(source, raw.get_ref());

    let mut document = raw.clone();
    let faults = shape::faults(&raw, (&schema, &schema), Completeness::Partial);
    report.take(faults, &Path::top(), document.get_mut());
    let language = language_of(document.get_ref());

    let layers = layers(&schema, &document, &mut report);
    let scenes: Vec<Scene<'_>> = layers.iter().map(Layered::scene).collect();
    // With other mistakes in the file, a misspelt table may well be the environment.
    if scenes.is_empty() && report.is_empty() {
        report.absent(text::strategy::NO_ENVIRONMENT.message());
    }
    for (layer, scene) in layers.iter().zip(&scenes) {
        let remarks = meaning::remarks(scene, &scenes);
        report.remark(remarks, &layer.name, layer.table.get_ref());
    }

    let findings = in_order(report.into_findings());
    if errors(&findings) > 0 {
        return Err(problems(findings, language));
    }
    Ok(assemble(source, document.get_ref(), layers, findings))
}

/// The common sections under each environment's own, and the types read from both.
fn layers<'i>(
    schema: &Value,
    document: &Spanned<DeTable<'i>>,
    report: &mut Report<'_, '_>,
) -> Vec<Layered<'i>> {
    let sections = schema::section_names(schema);
    let Some(environments) =
        document.get_ref().get("environments").and_then(|environments| environments.get_ref().as_table())
    else {
        return Vec::new();
    };
    let is_section = |key: &str| sections.iter().any(|name| name == key);
    let common = only(document.get_ref(), is_section);
    let start = schema.pointer(schema::ENVIRONMENT).unwrap_or(schema);
    let mut layers = Vec::new();
    for (name, environment) in environments.iter() {
        let Some(above) = environment.get_ref().as_table() else { continue };
        let mut merged = common.clone();
        tree::overlay(&mut merged, above);
        let mut table = Spanned::new(name.span(), merged);
        let path = Path::keys(["environments", name.get_ref()]);
        let faults = shape::faults(&table, (schema, start), Completeness::Whole);
        let whole = report.take(faults, &path, table.get_mut());
        let mut own = only(table.get_ref(), |key| !is_section(key));
        let mut rest = only(table.get_ref(), is_section);
        layers.push(Layered {
            name: name.get_ref().to_string(),
            declared: rest.keys().map(|key| key.get_ref().to_string()).collect(),
            own: if whole { fitted(&mut own, name.span(), report) } else { None },
            schemas_read: !report.pruned_below(&path.key("schemas")),
            sections: fitted(&mut rest, name.span(), report).unwrap_or_default(),
            table,
        });
    }
    layers
}

impl Layered<'_> {
    fn scene(&self) -> Scene<'_> {
        Scene {
            name: &self.name,
            own: self.own.as_ref(),
            sections: &self.sections,
            declared: &self.declared,
            position: self.table.span().start,
            schemas_read: self.schemas_read,
        }
    }
}

/// The entries of a table whose key is wanted.
fn only<'i>(table: &DeTable<'i>, wanted: impl Fn(&str) -> bool) -> DeTable<'i> {
    table
        .iter()
        .filter(|(key, _)| wanted(key.get_ref()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Reads a type. What the schema let pass and the type refuses is reported and taken out.
fn fitted<T: DeserializeOwned>(
    table: &mut DeTable<'_>,
    span: std::ops::Range<usize>,
    report: &mut Report<'_, '_>,
) -> Option<T> {
    for _ in 0..MISFITS_MAX {
        let value = Spanned::new(span.clone(), DeValue::Table(table.clone()));
        let error = match T::deserialize(ValueDeserializer::from(value)) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let at = error.span().unwrap_or(span.clone());
        report.misfit(&error, &at);
        let path = tree::path_at(table, &at)?;
        tree::prune(table, &path);
    }
    None
}

fn language_of(document: &DeTable<'_>) -> Language {
    match document.get("language").and_then(|language| language.get_ref().as_str()) {
        Some("es") => Language::Es,
        _ => Language::En,
    }
}

fn assemble(
    source: &Source,
    document: &DeTable<'_>,
    layers: Vec<Layered<'_>>,
    warnings: Vec<Finding>,
) -> Strategy {
    let folder = folder_of(source.file());
    let state_dir = document.get("state_dir").and_then(|folder| folder.get_ref().as_str());
    let state_dir = state_dir.map_or(Head::default().state_dir, PathBuf::from);
    let environments: BTreeMap<String, Environment> = layers
        .into_iter()
        .filter_map(|layer| {
            let own = layer.own?;
            let environment =
                Environment::assemble(&layer.name, own, layer.sections, layer.declared, &folder)?;
            Some((layer.name, environment))
        })
        .collect();
    debug_assert!(warnings.iter().all(|finding| finding.severity < Severity::Error));
    Strategy {
        file: source.file().to_owned(),
        language: language_of(document),
        state_dir: folder.join(state_dir),
        folder,
        warnings,
        environments,
    }
}

/// The folder of the file, absolute. An unreadable working directory leaves it as it is.
fn folder_of(file: &FilePath) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map_or_else(PathBuf::new, FilePath::to_owned)
}
