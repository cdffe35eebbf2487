//! Roles that are to disappear. Nothing that they own is ever lost or left behind.

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::RoleDependency;
use crate::quote::ident;

/// Plans the retirements.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts) {
    for (name, retired) in &context.policy.retired {
        let Some(role) = context.observed.role(name) else { continue };
        let subject = format!("role {name}");
        if role.oid == context.me() {
            drafts.find(Finding::new(
                Severity::Error,
                subject,
                text::access::RETIRED_SELF.with("role", name),
            ));
            continue;
        }
        let dependencies: Vec<&RoleDependency> =
            context.observed.dependencies.iter().filter(|d| d.role == role.oid).collect();
        let here = &context.observed.database.name;
        let elsewhere: Vec<&str> =
            dependencies.iter().filter_map(|d| d.database.as_deref()).filter(|d| d != here).collect();
        if !elsewhere.is_empty() {
            let message =
                text::access::RETIRED_ELSEWHERE.with("role", name).with("databases", elsewhere.join(", "));
            drafts.find(Finding::new(Severity::Error, subject, message));
            continue;
        }
        let owned: u64 = dependencies.iter().filter(|d| d.owns).map(|d| d.objects).sum();
        if owned > 0 && retired.reassign_to.is_none() {
            let message = text::access::RETIRED_OWNS.with("role", name).with("count", owned);
            drafts.find(Finding::new(Severity::Error, subject, message));
            continue;
        }
        let dropped = ident(name);
        let mut step = Step::new(Phase::Retirements, text::access::ROLE_RETIRED.with("role", name), subject)
            .risk(Risk::RemovesAccess)
            .locking(owned.max(1));
        if !dependencies.is_empty() {
            step = step.acting_for(name);
        }
        if let Some(heir) = retired.reassign_to.as_ref().filter(|_| owned > 0) {
            step = step.acting_for(heir).sql(format!("REASSIGN OWNED BY {dropped} TO {}", ident(heir)));
        }
        if !dependencies.is_empty() {
            step = step.sql(format!("DROP OWNED BY {dropped}"));
        }
        drafts.add(step.sql(format!("DROP ROLE {dropped}")));
    }
}
