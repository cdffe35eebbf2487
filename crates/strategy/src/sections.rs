//! The sections of the file, one type each, in the order of the strategy document.
//!
//! Capabilities that exist own their section; those of capabilities still to come live here
//! until their room is built, and then move there.

pub mod alerts;
pub mod anonymize;
pub mod monitor;
pub mod secrets;
pub mod security;

pub use obyra_evidence::Every;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an environment is to obey: every section that may also stand under
/// `[environments.NAME.…]` to override the common one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sections {
    /// Roles, what each may do in which schema, sensitive columns and tenant tables.
    pub access: obyra_access::Policy,
    /// Alembic: where the revisions are, how the application is found, which role runs them.
    pub migrations: obyra_migrations::Policy,
    /// Versioned, idempotent SQL files that fill what every environment needs.
    pub seeds: obyra_seeds::Policy,
    /// Daily backups, point-in-time recovery, restore drills and logical exports.
    pub backup: obyra_backup::Policy,
    /// TLS, query statistics and the tables that hold sensitive data.
    pub security: security::Policy,
    /// Where passwords are kept, how they are made, and how often they are rotated.
    pub secrets: secrets::Policy,
    /// How often the database is measured and where the figures go.
    pub monitor: monitor::Policy,
    /// What raises an alert and who hears of it.
    pub alerts: alerts::Policy,
    /// How a copy of production is made safe for other environments.
    pub anonymize: anonymize::Policy,
    /// What to do in an incident: objectives, people, response times.
    pub runbook: obyra_continuity::Runbook,
    /// Checklist lines that are knowingly left open, each with a reason and an end.
    pub waivers: Vec<obyra_continuity::Waiver>,
}
