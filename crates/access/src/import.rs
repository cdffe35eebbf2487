//! The section `[access]` that describes a database as it is, so that the next plan is empty.
//!
//! Each grantee's privileges in a schema become a level, levels that are alike share a name, and
//! what differs becomes an exception, in patterns where the names allow it. What no strategy can
//! express becomes a finding and a comment; it is never left out in silence.

mod content;
mod cover;
mod defaults;
mod exceptions;
mod heirs;
mod held;
mod levels;
mod naming;
mod owners;
mod proof;
mod remarks;
mod roles;
mod scope;
mod shelf;
mod tenancy;
mod universe;
mod write;

use obyra_evidence::{Finding, Language, Message, text};

use crate::observe::Observed;
use crate::policy::{Mode, Policy};
use crate::target::{Provider, Target};
use scope::Scope;

/// An imported section.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The section, typed.
    pub policy: Policy,
    /// The section as a file, with comments in English.
    pub toml: String,
    /// What a person should know: what could not be expressed, what is not written and why.
    pub findings: Vec<Finding>,
    /// What was imported, in a sentence.
    pub summary: Message,
    /// Whether the next plan is empty. If not, findings say what it would change.
    pub proven: bool,
}

/// Describes a database. `observed` is what [`crate::observe()`] answers for `Policy::default()` and
/// this target, or for none.
///
/// The policy's mode is the wanted one, unless that is `authoritative` and its plan would take away
/// what cannot be expressed: then it is `adopt`, and findings say so and why.
pub fn import(observed: &Observed, target: &Target, mode: Mode) -> Imported {
    let scope = Scope::new(observed, target);
    let mut policy = Policy { mode, extensions: extensions(observed), ..Policy::default() };
    let mut findings = describe(&scope, &mut policy);
    let proof = proof::settle_mode(&mut policy, target, observed);
    findings.extend(proof.findings);
    findings.sort();
    findings.dedup();
    let summary = text::access::IMPORT_SUMMARY
        .with("database", &observed.database.name)
        .with("roles", scope.written().count())
        .with("schemas", scope.places.len())
        .with("objects", observed.relations.len() + observed.routines.len() + observed.types.len());
    let mut imported = Imported { policy, toml: String::new(), findings, summary, proven: proof.empty };
    imported.toml = imported.toml_in(Language::En);
    imported
}

impl Imported {
    /// The section as a file, with comments in a language.
    pub fn toml_in(&self, language: Language) -> String {
        let proven = self.proven.then(|| text::access::IMPORT_PROVEN.message());
        let mut notes = vec![self.summary.say(language)];
        notes.extend(proven.map(|message| message.say(language)));
        notes.extend(self.findings.iter().map(|finding| finding.message.say(language)));
        write::section(&self.policy, &notes, language)
    }
}

/// The target of a database that has no strategy: each of its schemas under its own name, on the
/// provider that its roles give away.
pub fn target_of(observed: &Observed) -> Target {
    let own = observed.schemas.iter().filter(|schema| !schema.of_extension);
    let provider = [Provider::Rds, Provider::CloudSql]
        .into_iter()
        .find(|provider| provider.admin_role().is_some_and(|role| observed.role(role).is_some()));
    Target {
        database: observed.database.name.clone(),
        schemas: own.map(|schema| (schema.name.clone(), schema.name.clone())).collect(),
        provider: provider.unwrap_or_default(),
    }
}

/// The installed extensions but PL/pgSQL, which every database has.
fn extensions(observed: &Observed) -> Vec<String> {
    let mut extensions: Vec<String> =
        observed.extensions.iter().filter(|name| *name != "plpgsql").cloned().collect();
    extensions.sort_unstable();
    extensions
}

/// Writes everything but the mode.
fn describe(scope: &Scope<'_>, policy: &mut Policy) -> Vec<Finding> {
    let shelves = shelf::shelves(scope);
    let mut unnamed = owners::write(scope, &shelves, policy);
    roles::write(scope, policy);
    let mut contents: Vec<levels::Contents> =
        shelves.iter().map(|shelf| content::contents(scope.observed, shelf)).collect();
    let futures = defaults::futures(scope, &shelves);
    defaults::fill(&mut contents, &futures);
    let mut levels = levels::write(scope, &shelves, &contents, policy);
    defaults::write_futures(scope, &shelves, (&contents, &futures), &mut levels, policy);
    defaults::write_others(scope, &shelves, policy);
    let columns = exceptions::column_grants(scope);
    for (shelf, contents) in shelves.iter().zip(&contents) {
        unnamed.extend(exceptions::write(scope, shelf, contents, &columns, policy));
    }
    unnamed.extend(heirs::write(scope, &shelves, &columns, policy));
    let mut findings = tenancy::write(scope, policy);
    findings.extend(remarks::remarks(scope, unnamed));
    findings
}
