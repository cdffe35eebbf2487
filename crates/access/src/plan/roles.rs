//! Roles and their attributes. Only differences are stated: PostgreSQL refuses even an unchanged
//! `NOSUPERUSER` from whoever is not a superuser.

use obyra_evidence::{Finding, Severity, text};

use super::context::Context;
use super::draft::Drafts;
use super::{Phase, Risk, Step};
use crate::observe::Role;
use crate::policy::{RoleKind, RolePolicy};
use crate::quote::{ident, literal};

/// An attribute that is on or off.
struct Flag {
    word: &'static str,
    wanted: bool,
    now: bool,
    /// Whether the connected role may set it.
    possible: bool,
}

/// Plans the roles.
pub(crate) fn plan(context: &Context<'_>, drafts: &mut Drafts) {
    for name in context.policy.declared() {
        let found = context.observed.role(name);
        let policy = context.policy.roles.get(name);
        match (found, policy) {
            (None, _) => create(context, name, policy.unwrap_or(&RolePolicy::default()), drafts),
            (Some(role), Some(policy)) => alter(context, role, policy, drafts),
            // An owner that nothing more is said about.
            (Some(_), None) => {}
        }
    }
}

fn create(context: &Context<'_>, name: &str, policy: &RolePolicy, drafts: &mut Drafts) {
    let mut words = vec![if context.policy.may_login(name) { "LOGIN" } else { "NOLOGIN" }.to_owned()];
    for flag in flags(context, policy, None) {
        if flag.wanted != flag.now {
            if flag.possible {
                words.push(flag.word.to_owned());
            } else {
                drafts.find(impossible(name, flag.word));
            }
        }
    }
    if let Some(limit) = policy.connection_limit.filter(|limit| *limit != -1) {
        words.push(format!("CONNECTION LIMIT {limit}"));
    }
    if let Some(until) = policy.valid_until.as_deref().filter(|until| *until != "infinity") {
        words.push(format!("VALID UNTIL {}", literal(until)));
    }
    let step = Step::new(Phase::Roles, text::access::ROLE_MISSING.with("role", name), format!("role {name}"))
        .risk(Risk::AddsAccess)
        .sql(format!("CREATE ROLE {} {}", ident(name), words.join(" ")));
    drafts.add(step);
}

fn alter(context: &Context<'_>, role: &Role, policy: &RolePolicy, drafts: &mut Drafts) {
    let mut more = Vec::new();
    let mut less = Vec::new();
    let login = context.policy.may_login(&role.name);
    if login != role.login {
        if login { more.push("LOGIN".to_owned()) } else { less.push("NOLOGIN".to_owned()) }
    }
    let admin = policy.kind == RoleKind::Admin;
    for flag in flags(context, policy, Some(role)) {
        match (flag.wanted, flag.now) {
            (true, false) if flag.possible => more.push(flag.word.to_owned()),
            (true, false) => drafts.find(impossible(&role.name, flag.word)),
            // An administrator that is a superuser anyway gains nothing from the others.
            (false, true) if flag.word == "NOINHERIT" => more.push("INHERIT".to_owned()),
            (false, true) if !(admin && role.superuser) => less.push(format!("NO{}", flag.word)),
            _ => {}
        }
    }
    if let Some(limit) = policy.connection_limit.filter(|limit| *limit != role.connection_limit) {
        more.push(format!("CONNECTION LIMIT {limit}"));
    }
    if let Some(until) = policy.valid_until.as_deref().filter(|until| !same_time(until, role)) {
        more.push(format!("VALID UNTIL {}", literal(until)));
    }
    // The connected role keeps what it has: it would saw off the branch that it sits on.
    if role.oid == context.me() {
        less.clear();
    }
    for (words, adds) in [(more, true), (less, false)] {
        if words.is_empty() {
            continue;
        }
        let words = words.join(" ");
        let code = if adds { text::access::ROLE_DIFFERS } else { text::access::ROLE_EXCEEDS };
        let reason = code.with("role", &role.name).with("attributes", &words);
        let step = Step::new(Phase::Roles, reason, format!("role {}", role.name))
            .risk(if adds { Risk::AddsAccess } else { Risk::RemovesAccess })
            .sql(format!("ALTER ROLE {} {words}", ident(&role.name)));
        if adds { drafts.add(step) } else { drafts.remove(step) }
    }
}

/// The attributes that are on or off, as wanted, as they are, and whether we may change them.
fn flags(context: &Context<'_>, policy: &RolePolicy, role: Option<&Role>) -> Vec<Flag> {
    let admin = policy.kind == RoleKind::Admin;
    let managed = context.target.provider.admin_role().is_some();
    let me = context.role(context.me());
    let superuser = context.is_superuser();
    // From 16 on nobody gives what it does not have; before, CREATEROLE could give CREATEDB.
    let has =
        |attribute: fn(&Role) -> bool| superuser || me.is_some_and(|m| context.major() >= 16 && attribute(m));
    let may_createdb = has(|r| r.createdb) || context.major() < 16;
    let now = |attribute: fn(&Role) -> bool| role.is_some_and(attribute);
    let mut flags = vec![
        Flag {
            word: "SUPERUSER",
            wanted: policy.superuser || (admin && !managed),
            now: now(|r| r.superuser),
            possible: superuser,
        },
        Flag {
            word: "CREATEDB",
            wanted: policy.createdb || (admin && managed),
            now: now(|r| r.createdb),
            possible: may_createdb,
        },
        Flag {
            word: "CREATEROLE",
            wanted: policy.createrole || (admin && managed),
            now: now(|r| r.createrole),
            possible: true,
        },
        Flag {
            word: "REPLICATION",
            wanted: policy.replication,
            now: now(|r| r.replication),
            possible: has(|r| r.replication),
        },
        Flag {
            word: "BYPASSRLS",
            wanted: policy.bypassrls,
            now: now(|r| r.bypassrls),
            possible: has(|r| r.bypassrls),
        },
    ];
    // New roles inherit unless told otherwise, so it is the other way about that is stated.
    if let Some(wanted) = inherits(context, policy) {
        let now = role.is_some_and(|r| !r.inherit);
        flags.push(Flag { word: "NOINHERIT", wanted: !wanted, now, possible: true });
    }
    flags
}

/// Whether a role should inherit, where anybody says. Before PostgreSQL 16 a membership that does
/// not inherit takes a member that does not.
fn inherits(context: &Context<'_>, policy: &RolePolicy) -> Option<bool> {
    let closed = policy.acts_as.is_some() || policy.member_of.iter().any(|m| !m.inherit);
    if context.major() < 16 && closed { Some(false) } else { policy.inherit }
}

fn same_time(wanted: &str, role: &Role) -> bool {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match role.valid_until.as_deref() {
        None | Some("infinity") => wanted == "infinity",
        Some(now) => parse(wanted).is_some_and(|wanted| parse(now) == Some(wanted)),
    }
}

fn impossible(role: &str, attribute: &str) -> Finding {
    let message = text::access::ATTRIBUTE_IMPOSSIBLE.with("role", role).with("attribute", attribute);
    Finding::new(Severity::Error, format!("role {role}"), message).mended_by(
        text::access::MEND_SUPERUSER.with("sql", format!("ALTER ROLE {} {attribute}", ident(role))),
    )
}
