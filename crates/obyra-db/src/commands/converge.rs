//! `plan` shows what would change in the database's access; `apply` changes it.

use std::collections::BTreeMap;

use obyra_access::{Applied, Observed, Order, Patience, Plan, Risk};
use obyra_evidence::render;
use obyra_evidence::{Exit, Failure, Outcome, Severity, text};
use obyra_postgres::{Conninfo, Limits, Session};
use secrecy::SecretString;
use serde::Serialize;

use crate::cli::{Consent, NamedConsent};
use crate::confirm::confirm;
use crate::environment::{Opened, Told};
use crate::invocation::Invocation;
use crate::passwords::Passwords;

/// Observed, and what follows from it.
pub struct Planned {
    /// The administrator's connection.
    pub admin: Conninfo,
    /// The administrator's session.
    pub session: Session,
    /// What is.
    pub observed: Observed,
    /// What to do about access.
    pub plan: Plan,
    /// What to do about passwords.
    pub passwords: Passwords,
}

impl Planned {
    /// Connects, observes, plans. Changes nothing.
    pub async fn of(opened: &Opened<'_>) -> Result<Self, Failure> {
        let admin = opened.admin().await?;
        let session = Session::connect(&admin, Limits::default()).await?;
        let (observed, plan) = observe(opened, &session).await?;
        let passwords = Passwords::observe(opened, &admin, &observed).await?;
        Ok(Planned { admin, session, observed, plan, passwords })
    }

    /// How many things `apply` would change.
    pub fn changes(&self) -> usize {
        self.plan.steps.len() + self.passwords.set.len()
    }
}

/// What is, and what to do about it.
async fn observe(opened: &Opened<'_>, session: &Session) -> Result<(Observed, Plan), Failure> {
    let (policy, target) = (&opened.environment.access, opened.target());
    let observed = obyra_access::observe(session, policy, &target).await?;
    let plan = obyra_access::plan(policy, &target, &observed);
    Ok((observed, plan))
}

/// How much of a plan is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Subject, risk and reason of each step.
    Reasons,
    /// The statements too.
    Sql,
}

/// The JSON form of a plan.
#[derive(Serialize)]
struct PlanReport<'a> {
    environment: &'a str,
    changes: usize,
    #[serde(flatten)]
    plan: &'a Plan,
    passwords: &'a Passwords,
}

/// Shows the plan: exit code 2 where there is drift.
pub async fn plan(invocation: &mut Invocation, name: &str) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, name)?;
    let planned = Planned::of(&opened).await?;
    show(&opened, &planned, Detail::Sql);
    let wrong = planned.plan.findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if planned.changes() == 0 && !wrong { Exit::Done } else { Exit::Findings })
}

/// Shows the plan, asks, applies.
pub async fn apply(invocation: &mut Invocation, arguments: &NamedConsent) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
    apply_opened(&opened, arguments.consent, Detail::Sql).await?;
    Ok(Exit::Done)
}

/// `apply` within longer work.
pub async fn apply_opened(opened: &Opened<'_>, consent: Consent, detail: Detail) -> Result<(), Failure> {
    let planned = Planned::of(opened).await?;
    show(opened, &planned, detail);
    let changes = planned.changes();
    if changes == 0 {
        return Ok(());
    }
    let printer = &opened.invocation.printer;
    confirm(
        printer,
        consent,
        text::cli::APPLY_ASK.with("changes", changes).with("environment", opened.name()),
    )?;
    opened.can_record()?;
    let passwords = planned.passwords.to_set(opened)?;
    let outcome = apply_plan(opened, &planned.session, &planned.plan, &passwords, Patience::default()).await;
    record(opened, (&planned.plan, &planned.passwords), &outcome)?;
    outcome?;
    printer.note(text::cli::APPLIED.with("changes", changes));
    Ok(())
}

/// Applies what is left to converge after a migration or seeds that were consented to, while the
/// change lock is held.
pub async fn settle_under_lock(opened: &Opened<'_>, session: &Session) -> Result<(), Failure> {
    let (_, plan) = observe(opened, session).await?;
    if plan.is_empty() {
        return Ok(());
    }
    let patience = Patience { change_lock: None, ..Patience::default() };
    let passwords = Passwords::default();
    let outcome = apply_plan(opened, session, &plan, &BTreeMap::new(), patience).await;
    record(opened, (&plan, &passwords), &outcome)?;
    outcome?;
    opened.invocation.printer.note(text::cli::APPLIED.with("changes", plan.steps.len()));
    Ok(())
}

async fn apply_plan(
    opened: &Opened<'_>,
    session: &Session,
    plan: &Plan,
    passwords: &BTreeMap<String, SecretString>,
    patience: Patience,
) -> Result<Applied, Failure> {
    let order =
        Order { policy: &opened.environment.access, target: &opened.target(), approved: plan, passwords };
    obyra_access::apply(session, order, &patience, &opened.invocation.progress()).await
}

fn record(
    opened: &Opened<'_>,
    (plan, passwords): (&Plan, &Passwords),
    outcome: &Result<Applied, Failure>,
) -> Result<(), Failure> {
    let subjects: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{}: {}", step.subject, step.reason))
        .chain(passwords.set.iter().map(|step| format!("role {}: {}", step.role, step.reason)))
        .collect();
    let changes = subjects.len();
    let expected = format!("{changes} changes verified before COMMIT");
    let (ended, observed) = match outcome {
        Ok(_) => (Outcome::Changed, subjects.join("; ")),
        Err(failure) => (Outcome::Failed, failure.to_string()),
    };
    let told =
        Told::new(expected, observed).figure("steps", changes as f64).fact("fingerprint", &plan.fingerprint);
    opened.record("access.apply", ended, told)
}

fn show(opened: &Opened<'_>, planned: &Planned, detail: Detail) {
    let printer = opened.invocation.printer;
    if printer.json {
        printer.json_of_step(&PlanReport {
            environment: opened.name(),
            changes: planned.changes(),
            plan: &planned.plan,
            passwords: &planned.passwords,
        });
        return;
    }
    let steps =
        planned.plan.steps.iter().map(|step| (step.subject.clone(), step.risk, &step.reason, &step.sql[..]));
    let passwords = planned.passwords.set.iter();
    let passwords =
        passwords.map(|step| (format!("role {}", step.role), Risk::AddsAccess, &step.reason, &[][..]));
    for (number, (subject, risk, reason, sql)) in steps.chain(passwords).enumerate() {
        let (risk, reason) = (code(risk).message().say(printer.language), reason.say(printer.language));
        let number = number + 1;
        if detail == Detail::Reasons {
            printer.data(&format!("{number:>3}. {subject}: {reason}"));
            continue;
        }
        printer.data(&format!("{number:>3}. {subject}  [{risk}]\n     {reason}"));
        for statement in sql {
            printer.data(&format!("       {statement};"));
        }
    }
    for finding in planned.plan.findings.iter().chain(&planned.passwords.findings) {
        if detail == Detail::Sql || finding.severity > Severity::Note {
            let shown =
                render::terminal::finding(finding, printer.language, printer.style(), &render::from_disk);
            printer.data(&shown);
        }
    }
    let summary = match planned.changes() {
        0 => text::cli::PLAN_EMPTY.message(),
        changes => text::cli::PLAN_SUMMARY.with("changes", changes),
    };
    printer.line(summary.with("environment", opened.name()));
}

fn code(risk: Risk) -> obyra_evidence::Code {
    match risk {
        Risk::AddsAccess => text::cli::RISK_ADDS,
        Risk::RemovesAccess => text::cli::RISK_REMOVES,
        Risk::MayBlock => text::cli::RISK_BLOCKS,
        Risk::MayBreak => text::cli::RISK_BREAKS,
        Risk::None => text::cli::RISK_NONE,
    }
}
