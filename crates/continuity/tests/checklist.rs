//! The decisions of the checklist: what is green, what is excused, what is left out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use jiff::Timestamp;
use obyra_continuity::{Fact, Facts, Line, LineId, Status, Summary, Until, Waiver, checklist};
use obyra_evidence::{Exit, Language, Outcome, text::continuity};

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn holds() -> Fact {
    Fact::Holds { evidence: Vec::new() }
}

fn broken() -> Fact {
    Fact::Broken {
        evidence: vec![continuity::RUNBOOK_NOBODY.message()],
        mend: continuity::MEND_RUNBOOK_SECTION.message(),
    }
}

fn waiver(line: LineId, environment: Option<&str>, until: &str) -> Waiver {
    let environment = environment.map(str::to_owned);
    let until = Until(until.parse().unwrap());
    Waiver { line, environment, until, reason: "r".into(), by: "Ana".into() }
}

/// The one line as it stands with this fact and these waivers.
fn judged(id: LineId, fact: Option<Fact>, waivers: &[Waiver]) -> Line {
    let mut facts = Facts::about("production");
    facts.facts.extend(fact.map(|fact| (id, fact)));
    checklist(&facts, waivers, now()).into_iter().find(|line| line.id == id).unwrap()
}

#[test]
fn what_nobody_observed_is_unknown_and_never_green() {
    let lines = checklist(&Facts::about("production"), &[], now());
    assert_eq!(lines.len(), LineId::ALL.len());
    assert!(lines.iter().all(|line| line.status == Status::Unknown && !line.evidence.is_empty()));
    assert_eq!(Summary::of(&lines).exit(), Exit::Findings);
}

#[test]
fn the_checklist_comes_first_in_the_order_of_the_strategy() {
    let lines = checklist(&Facts::about("production"), &[], now());
    let ids: Vec<&str> = lines.iter().take(8).map(|line| line.id.id()).collect();
    assert_eq!(
        ids,
        [
            "credentials",
            "roles",
            "migrations",
            "seeds",
            "backups",
            "monitoring",
            "emergency",
            "server-version"
        ]
    );
    assert!(lines[7..].is_sorted_by_key(|line| line.section));
}

#[test]
fn each_fact_has_its_status() {
    for (fact, status, observed) in [
        (holds(), Status::Passed, Outcome::Passed),
        (broken(), Status::Failed, Outcome::Failed),
        (Fact::NotBuilt, Status::Unknown, Outcome::Unknown),
        (
            Fact::Unknown { why: continuity::NOT_OBSERVED.message(), mend: None },
            Status::Unknown,
            Outcome::Unknown,
        ),
        (Fact::NotAsked, Status::Waived, Outcome::Unknown),
    ] {
        let line = judged(LineId::Backups, Some(fact), &[]);
        assert_eq!((line.status, line.observed), (status, observed));
    }
}

#[test]
fn a_line_that_is_not_asked_is_left_out_but_none_of_the_seven() {
    let mut facts = Facts::about("dev");
    facts.facts = LineId::ALL.map(|id| (id, Fact::NotAsked)).into();
    assert_eq!(checklist(&facts, &[], now()).len(), 7);
}

#[test]
fn a_waiver_excuses_its_line_until_its_day_has_passed() {
    for (fact, line, environment, until, expected) in [
        (broken(), LineId::Tls, None, "2026-03-01", Status::Waived),
        (broken(), LineId::Tls, Some("production"), "2026-03-01", Status::Waived),
        (Fact::NotBuilt, LineId::Tls, None, "2026-03-01", Status::Waived),
        (broken(), LineId::Tls, None, "2026-02-28", Status::Failed),
        (broken(), LineId::Tls, Some("staging"), "2026-12-31", Status::Failed),
        (broken(), LineId::Pitr, None, "2026-12-31", Status::Failed),
        (holds(), LineId::Tls, None, "2026-12-31", Status::Passed),
    ] {
        let judged = judged(LineId::Tls, Some(fact), &[waiver(line, environment, until)]);
        assert_eq!(judged.status, expected, "{line:?} {environment:?} {until}");
    }
}

#[test]
fn an_expired_waiver_is_shown_on_its_line_unless_a_later_one_counts() {
    let expired = waiver(LineId::Tls, None, "2026-02-01");
    let shown = judged(LineId::Tls, Some(broken()), std::slice::from_ref(&expired));
    assert_eq!(shown.evidence[1].code().id(), "continuity.waiver-expired-on-line");
    let renewed = [waiver(LineId::Tls, None, "2026-04-01"), expired];
    assert_eq!(judged(LineId::Tls, Some(broken()), &renewed).status, Status::Waived);
}

#[test]
fn a_waived_line_keeps_its_mend_and_what_was_observed() {
    let line = judged(LineId::Tls, Some(broken()), &[waiver(LineId::Tls, None, "2026-04-01")]);
    assert!(line.mend.is_some());
    assert_eq!(line.observed, Outcome::Failed);
    let record = line.record("production", now());
    assert_eq!((record.subject.as_str(), record.outcome), ("check.tls", Outcome::Failed));
    assert_eq!(record.facts["status"], "waived");
    assert_eq!(record.observed, "nobody is named; waived until 2026-04-01 by Ana: r");
}

#[test]
fn only_a_list_without_failed_and_unknown_lines_is_in_order() {
    let exit = |passed, failed, unknown, waived| Summary { passed, failed, unknown, waived }.exit();
    assert_eq!(exit(7, 0, 0, 1), Exit::Done);
    assert_eq!(exit(7, 1, 0, 0), Exit::Findings);
    assert_eq!(exit(7, 0, 1, 0), Exit::Findings);
}

/// Section 7 of the strategy, without the backticks and the final full stops.
#[test]
fn the_seven_titles_are_the_words_of_the_strategy() {
    let titles: Vec<String> = LineId::ALL
        .iter()
        .filter(|id| id.is_checklist())
        .map(|id| id.title().message().say(Language::Es))
        .collect();
    assert_eq!(
        titles,
        [
            "Credenciales almacenadas en gestor de secretos y cargadas en el runtime (Docker/Kubernetes/VM)",
            "Roles creados y grants aplicados (obyra_app, obyra_migrate, obyra_readonly)",
            "alembic upgrade head ejecutado en base vacía sin errores",
            "Seeds aplicados y verificados (organizaciones iniciales, usuarios admin)",
            "Backups automáticos configurados y testeados",
            "Monitoreo/alertas activos (CPU, conexiones, almacenamiento, locks)",
            "Documentación de credenciales de emergencia y plan de comunicación",
        ]
    );
}

#[test]
fn the_guide_lists_every_line_with_its_section() {
    let guide = include_str!("../../../docs/checklist.md");
    for id in LineId::ALL {
        let row = format!("\n| `{}` | {} | ", id.id(), id.section());
        assert!(guide.contains(&row), "docs/checklist.md lacks {row}");
    }
    let (_, waiver) = guide.split_once("[[waivers]]\n").unwrap();
    let (waiver, _) = waiver.split_once("```").unwrap();
    assert_eq!(toml::from_str::<Waiver>(waiver).unwrap().line, LineId::Pitr);
}
