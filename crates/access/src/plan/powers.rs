//! What the connected role lacks to create and alter roles, with the statement that gives it.

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::memberships::may_grant;
use super::{Phase, Step};
use crate::observe::Role;

/// Findings about steps that the server would refuse. The plan is shown all the same: whoever may
/// do more than the connected role sees what is to be done.
pub(crate) fn lacking(context: &Context<'_>, steps: &[Step]) -> Vec<Finding> {
    let Some(me) = context.role(context.me()).filter(|_| !context.is_superuser()) else { return Vec::new() };
    let creates = steps.iter().any(|step| step.reason.code() == text::access::ROLE_MISSING);
    let altered: Vec<&Role> = steps
        .iter()
        .filter(|step| matches!(step.phase, Phase::Roles | Phase::RoleSettings))
        .filter_map(|step| context.observed.role(step.subject.strip_prefix("role ")?))
        .filter(|role| role.oid != me.oid && !role.superuser)
        .collect();
    let mut findings = Vec::new();
    let mut find = |message, sql| {
        findings.push(
            Finding::new(Severity::Error, format!("role {}", me.name), message)
                .mended_by(text::access::MEND_RUN_AS_ADMIN.with("sql", sql)),
        );
    };
    let myself = context.grantee(me.oid);
    if !me.createrole && (creates || !altered.is_empty()) {
        let message = text::access::CREATEROLE_NEEDED.with("admin", &me.name);
        find(message, format!("ALTER ROLE {myself} CREATEROLE"));
    }
    if context.major() >= 16 {
        for role in altered.into_iter().filter(|role| !may_grant(context, role.oid)) {
            let message = text::access::ADMIN_NEEDED.with("admin", &me.name).with("role", &role.name);
            find(message, format!("GRANT {} TO {myself} WITH ADMIN OPTION", context.grantee(role.oid)));
        }
    }
    findings
}
