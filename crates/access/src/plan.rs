//! What to do: the differences between policy and database, in the order in which they are made.
//!
//! Pure and synchronous: equal inputs give equal plans. Each phase has its own file; a step that
//! takes away what nobody declared is made, reported or left out as the mode says.

mod advice;
mod bulk;
mod columns;
mod containers;
mod context;
mod defaults;
mod desired;
mod diff;
mod draft;
pub(crate) mod implied;
mod memberships;
mod objects;
mod owners;
mod powers;
mod retired;
mod role_settings;
mod roles;
mod row_security;
mod server;

use std::fmt::Write as _;

use obyra_evidence::{Finding, Message};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub(crate) use self::role_settings::looks_secret;

use self::context::Context;
use self::draft::Drafts;
use self::owners::Owners;
use crate::observe::Observed;
use crate::policy::Policy;
use crate::target::Target;

/// What has to change for a database to be as the policy says. The policy is one that
/// [`Policy::check`] has nothing against.
pub fn plan(policy: &Policy, target: &Target, observed: &Observed) -> Plan {
    let context = Context::new(policy, target, observed);
    let mut drafts = Drafts::new(policy.mode);
    let owners = Owners::wanted(&context);
    roles::plan(&context, &mut drafts);
    memberships::plan(&context, &mut drafts);
    role_settings::plan(&context, &mut drafts);
    containers::database(&context, &mut drafts);
    containers::schemas(&context, &mut drafts);
    owners::plan(&context, &owners, &mut drafts);
    defaults::plan(&context, &mut drafts);
    objects::plan(&context, &owners, &mut drafts, None);
    row_security::plan(&context, &mut drafts, None);
    server::extensions(&context, &mut drafts);
    retired::plan(&context, &mut drafts);
    server::settings(&context, &mut drafts);
    advice::advise(&context, &mut drafts);
    finish(&context, drafts)
}

/// The part of [`plan`] that the connected role may do as the owner of the objects: privileges
/// and row security of what it owns. A migration that drops and creates a sensitive table runs
/// these steps before its own COMMIT, so that default privileges never open it to anybody.
pub fn plan_objects_as_owner(policy: &Policy, target: &Target, observed: &Observed) -> Plan {
    let context = Context::new(policy, target, observed);
    let mut drafts = Drafts::new(policy.mode);
    let me = Some(context.me());
    objects::plan(&context, &Owners::as_they_are(&context), &mut drafts, me);
    row_security::plan(&context, &mut drafts, me);
    let my_name = context.name(context.me());
    drafts.steps.retain(|step| step.acts_for.iter().all(|role| *role == my_name));
    finish(&context, drafts)
}

/// Orders the steps, adds what the connected role must grant itself, and divides them into transactions.
fn finish(context: &Context<'_>, drafts: Drafts) -> Plan {
    let Drafts { mut steps, mut findings, .. } = drafts;
    let mut needed: Vec<String> = steps.iter().flat_map(|step| step.acts_for.clone()).collect();
    needed.sort();
    needed.dedup();
    let (self_grants, missing) = memberships::self_grants(context, &needed);
    steps.extend(self_grants);
    findings.extend(missing);
    findings.extend(powers::lacking(context, &steps));
    for step in &mut steps {
        step.acts_for.sort();
        step.acts_for.dedup();
    }
    steps.sort_by_key(|step| step.phase);
    divide(&mut steps, owners::batch_limit(context));
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    findings.dedup();
    let fingerprint = fingerprint(&steps);
    Plan { steps, findings, fingerprint }
}

/// Numbers the transactions. One is enough unless its locks would fill the server's lock table.
fn divide(steps: &mut [Step], limit: u64) {
    let (mut batch, mut locks) = (0, 0);
    for step in steps {
        if locks > 0 && locks + step.locks > limit {
            (batch, locks) = (batch + 1, 0);
        }
        locks += step.locks;
        step.batch = batch;
    }
}

/// A hash of what would be done, and of nothing that may differ between two observations of the
/// same state.
fn fingerprint(steps: &[Step]) -> String {
    let mut hash = Sha256::new();
    for step in steps {
        hash.update(step.reason.code().id());
        for statement in &step.sql {
            hash.update([0]);
            hash.update(statement);
        }
        hash.update([1]);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

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
