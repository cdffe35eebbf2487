//! Small golden outputs of the renderings.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use obyra_evidence::render::{self, Mark, Style, json, junit, markdown, terminal};
use obyra_evidence::{Failure, Finding, Language, Place, Severity, text};

const PLAIN: Style = Style { colour: false };

fn file(path: &Path) -> Option<String> {
    let text = "language = \"es\"\n\tretention = \"3 months\" # ñ\nurl = \"postgres://u:hunter2@h/db\"\n";
    (path == Path::new("obyra-db.toml")).then(|| text.to_owned())
}

fn place(line: usize, column: usize) -> Place {
    Place { file: PathBuf::from("obyra-db.toml"), line, column }
}

fn wrong_duration() -> Failure {
    Failure::usage(text::evidence::DURATION_UNREADABLE.with("value", "3 months")).at(place(2, 2))
}

fn findings() -> [Finding; 2] {
    [
        Finding::new(Severity::Note, "pitr", text::continuity::RUNBOOK_NO_CONTACT.with("name", "A|<b>_x_")),
        Finding::new(Severity::Error, "table app.users", text::evidence::LEDGER_EXPORT)
            .at(place(1, 1))
            .mended_by(text::evidence::MEND_LEDGER_ROOM),
    ]
}

#[test]
fn a_failure_shows_the_line_and_the_column() {
    assert_eq!(
        terminal::failure(&wrong_duration(), Language::En, PLAIN, &file),
        "error: \"3 months\" is not a length of time; write for example \"30 days\", \"15 min\", \"4 hours\" \
         (months and years have no fixed length)\n\
         \x20--> obyra-db.toml:2:2\n\
         \x20 |\n\
         2 | \tretention = \"3 months\" # ñ\n\
         \x20 | \t^\n"
    );
}

#[test]
fn a_failure_says_why_and_what_mends_it_in_spanish() {
    let failure = Failure::refused(text::evidence::LEDGER_EXPORT)
        .because("ERROR: one\nDETAIL: \u{1b}[31mtwo")
        .mended_by(text::evidence::MEND_LEDGER_ROOM);
    assert_eq!(
        terminal::failure(&failure, Language::Es, PLAIN, &file),
        "rechazado: no se pudo escribir la evidencia exportada\n\
         \x20 porque: ERROR: one\n    DETAIL: \u{fffd}[31mtwo\n\
         \x20 -> liberar espacio y repetir el comando; nada quedó registrado a medias\n"
    );
}

#[test]
fn a_line_with_a_password_is_not_shown() {
    for line in [3, 9] {
        let shown = terminal::failure(&wrong_duration().at(place(line, 1)), Language::En, PLAIN, &file);
        assert!(shown.ends_with(&format!("--> obyra-db.toml:{line}:1\n")), "{shown}");
    }
}

#[test]
fn findings_come_gravest_first_with_their_count() {
    assert_eq!(
        terminal::findings(&findings(), Language::En, PLAIN, &|_| None),
        "error[evidence.ledger-export] table app.users: the evidence could not be written out\n\
         \x20--> obyra-db.toml:1:1\n\
         \x20 -> free some space and run the command again; nothing was recorded by halves\n\
         \n\
         note[continuity.runbook-no-contact] pitr: A|<b>_x_ has no contact\n\
         \n\
         errors: 1, warnings: 0, notes: 1\n"
    );
    assert_eq!(terminal::findings(&[], Language::Es, PLAIN, &|_| None), "sin hallazgos\n");
}

#[test]
fn colour_adds_escape_sequences_and_nothing_else() {
    let coloured = terminal::findings(&findings(), Language::En, Style { colour: true }, &file);
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, terminal::findings(&findings(), Language::En, PLAIN, &file));
}

#[test]
fn marks_align_in_both_languages() {
    for language in [Language::En, Language::Es] {
        let widths = Mark::ALL.map(|mark| mark.column(language, PLAIN).chars().count());
        assert!(widths.iter().all(|width| *width == Mark::width(language)));
    }
}

#[test]
fn json_keeps_its_keys_english() {
    let value = json::failure(&wrong_duration().because("x"), Language::Es);
    assert_eq!(value["exit"], 64);
    assert_eq!(value["what"]["code"], "evidence.duration-unreadable");
    assert_eq!(value["what"]["fields"]["value"], "3 months");
    assert!(value["what"]["text"].as_str().unwrap().contains("no es una duración"));
    assert_eq!(value["place"]["line"], 2);
    assert!(value["mend"].is_null());
    let value = json::findings(&findings(), Language::En);
    assert_eq!(value[1]["severity"], "error");
    assert!(json::pretty(&value).ends_with("]\n"));
}

#[test]
fn markdown_cannot_be_broken_out_of() {
    assert_eq!(
        markdown::findings(&findings()[..1], Language::En),
        "| Severity | Subject | Finding | To mend it | Rule |\n|---|---|---|---|---|\n\
         | note | pitr | A\\|&lt;b&gt;\\_x\\_ has no contact |  | continuity.runbook-no-contact |\n\
         \nerrors: 0, warnings: 0, notes: 1\n"
    );
    assert_eq!(markdown::code("a`b"), "``a`b``");
}

#[test]
fn junit_counts_and_escapes() {
    let at = Timestamp::UNIX_EPOCH;
    assert_eq!(
        junit::findings("a \"suite\"", at, &findings(), Language::En),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites>\n\
         \x20 <testsuite name=\"a &quot;suite&quot;\" id=\"0\" package=\"obyra-db\" hostname=\"localhost\" \
         timestamp=\"1970-01-01T00:00:00\" time=\"0\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\">\n\
         \x20   <properties/>\n\
         \x20   <testcase classname=\"continuity.runbook-no-contact\" name=\"pitr\" time=\"0\"></testcase>\n\
         \x20   <testcase classname=\"evidence.ledger-export\" name=\"table app.users\" time=\"0\">\
         <failure type=\"evidence.ledger-export\" message=\"the evidence could not be written out\">\
         obyra-db.toml:1:1: the evidence could not be written out&#10;-&gt; free some space and run the command \
         again; nothing was recorded by halves</failure></testcase>\n\
         \x20   <system-out>pitr&#10;A|&lt;b&gt;_x_ has no contact&#10;</system-out>\n    <system-err/>\n  </testsuite>\n</testsuites>\n"
    );
}

#[test]
fn a_file_is_read_where_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    assert_eq!(render::from_disk(&path), None);
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(render::from_disk(&path), None, "not text");
    std::fs::write(&path, "text").unwrap();
    assert_eq!(render::from_disk(&path).as_deref(), Some("text"));
    assert_eq!(render::from_disk(folder.path()), None, "a folder");
}
