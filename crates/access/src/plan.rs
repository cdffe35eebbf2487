//! What to do: the differences between policy and database, in the order in which they are made.

use obyra_evidence::{Finding, Message};
use serde::Serialize;

/// What has to change, and what a person should know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// What cannot or must not be changed, but should be known.
    pub findings: Vec<Finding>,
    /// A hash of the steps: equal plans have equal fingerprints.
    pub fingerprint: String,
}

impl Plan {
    /// Whether nothing has to change.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// When it happens.
    pub phase: Phase,
    /// Why it is needed.
    pub reason: Message,
    /// What it changes: `role obyra_app`, `schema app`, `table app.users`.
    pub subject: String,
    /// The statements.
    pub sql: Vec<String>,
    /// What it may do to whoever works with the database.
    pub risk: Risk,
    /// The roles that the connected role must be able to act as.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<String>,
    /// The transaction that it belongs to, counted from 0. More than one is rare: only where one
    /// transaction would lock more objects than the server's lock table holds.
    pub batch: u32,
    /// How many locks it takes at most.
    #[serde(skip)]
    pub locks: u64,
}

impl Step {
    /// Whether it can be taken back by ROLLBACK. `ALTER SYSTEM` cannot.
    pub fn is_transactional(&self) -> bool {
        self.phase != Phase::ServerSettings
    }
}

/// The phases of a plan, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Roles and their attributes.
    Roles,
    /// Memberships of the connected role that the other phases need.
    SelfGrants,
    /// Memberships.
    Memberships,
    /// Settings of roles.
    RoleSettings,
    /// Privileges on the database.
    Database,
    /// Schemas and their owners.
    Schemas,
    /// Owners of objects.
    Owners,
    /// Default privileges.
    Defaults,
    /// Privileges that go.
    Revokes,
    /// Privileges that come.
    Grants,
    /// Privileges on columns, after those on their tables.
    Columns,
    /// Row security.
    RowSecurity,
    /// Extensions.
    Extensions,
    /// Retired roles.
    Retirements,
    /// Settings of the server; not transactional.
    ServerSettings,
}

/// What a step may do to whoever works with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing that anyone notices.
    None,
    /// Somebody may do more than before.
    AddsAccess,
    /// Somebody may do less than before.
    RemovesAccess,
    /// It waits for, and holds up, statements on the same objects.
    MayBlock,
    /// A running application may fail.
    MayBreak,
}
