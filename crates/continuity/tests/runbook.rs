//! What the `[runbook]` section and its document answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use obyra_continuity::observe::{Document, document};
use obyra_continuity::{Fact, Runbook, plan};

const WHOLE: &str = r##"
rto = "4 hours"
rpo = "15 min"
emergency_credentials = "vault:obyra/break-glass"
people = [{ name = "Ana", role = "DBA", contact = "+54 11 5555 0000", on_call = true }]
severities.sev1 = { when = "the application is down", respond_within = "15 min" }
communication.channels = ["#db-incidents"]
"##;

/// The facts `emergency` and `runbook`, shortened to the last part of their codes.
fn facts(section: &str, document: &Document) -> [(bool, Vec<String>); 2] {
    let runbook: Runbook = toml::from_str(section).unwrap();
    plan::facts(&runbook, document).map(|(_, fact)| {
        let (holds, messages) = match fact {
            Fact::Holds { evidence } => (true, evidence),
            Fact::Broken { evidence, .. } => (false, evidence),
            Fact::Unknown { why, .. } => (false, vec![why]),
            other => panic!("{other:?}"),
        };
        (holds, messages.iter().map(|m| m.code().id().replace("continuity.runbook-", "")).collect())
    })
}

#[test]
fn a_whole_runbook_holds() {
    let [(emergency, _), (runbook, evidence)] = facts(WHOLE, &Document::Written(1_200));
    assert!(emergency && runbook);
    assert_eq!(evidence, ["objectives", "people", "severities", "document"]);
}

#[test]
fn an_empty_section_says_everything_that_is_missing() {
    let [(emergency, missing), (runbook, absent)] = facts("", &Document::Absent);
    assert!(!emergency && !runbook);
    assert_eq!(missing, ["no-emergency", "no-channel"]);
    assert_eq!(absent, ["no-rto", "no-rpo", "nobody", "no-severities", "no-document"]);
}

#[test]
fn people_without_contact_or_duty_are_named() {
    let people = r#"people = [{ name = "Ana", role = "DBA", contact = " " }]"#;
    let [_, (_, absent)] = facts(people, &Document::Written(0));
    assert_eq!(
        absent,
        ["no-rto", "no-rpo", "no-contact", "nobody-on-call", "no-severities", "empty-document"]
    );
}

#[test]
fn a_password_in_the_place_of_its_reference_is_refused_and_not_repeated() {
    let section = r#"emergency_credentials = "postgres://admin:hunter2@db/obyra""#;
    let runbook: Runbook = toml::from_str(section).unwrap();
    let [(_, fact), _] = plan::facts(&runbook, &Document::Absent);
    assert!(!format!("{fact:?}").contains("hunter2"));
    let [(_, evidence), _] = facts(section, &Document::Absent);
    assert_eq!(evidence, ["emergency-secret"]);
}

#[test]
fn a_document_that_cannot_be_read_is_unknown() {
    let [_, (holds, why)] = facts(WHOLE, &Document::Unread("denied".into()));
    assert!(!holds);
    assert_eq!(why, ["document-unread"]);
}

#[test]
fn the_document_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runbook_db.md");
    assert_eq!(document(&file), Document::Absent);
    std::fs::write(&file, " \n").unwrap();
    assert_eq!(document(&file), Document::Written(0));
    std::fs::write(&file, "# Runbook\n").unwrap();
    assert_eq!(document(&file), Document::Written(9));
    assert!(matches!(document(folder.path()), Document::Unread(_)));
}
