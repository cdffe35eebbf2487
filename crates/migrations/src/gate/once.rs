//! Each defect once: what was measured is not said again by whoever only read it, nor what it follows from. Pure.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use obyra_evidence::{Finding, Place, Severity, text};

/// What the graph says of a downgrade, and the round trip proves.
const DOWNGRADES: [&str; 3] = ["graph.empty-downgrade", "graph.no-downgrade", "graph.irreversible"];
/// Because of one of these Alembic cannot read the revisions.
const UNREADABLE: [&str; 7] = [
    "graph.missing-parent",
    "graph.cycle",
    "graph.duplicate-id",
    "graph.no-revision",
    "graph.no-down-revision",
    "scan.syntax-error",
    "scan.python-2",
];
/// What the scan says of a line that was seen to change the schema.
const EXECUTED: [&str; 6] = [
    "scan.ddl-executed",
    "scan.ddl-in-do",
    "scan.create-all",
    "scan.drop-all",
    "scan.table-create",
    "scan.table-drop",
];

/// A file that cannot be read.
const TROUBLES: [&str; 6] = [
    "scan.syntax-error",
    "scan.python-2",
    "scan.too-deep",
    "scan.nul-byte",
    "scan.unknown-encoding",
    "scan.unreadable",
];

/// What was tried.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Every revision was applied to an empty database.
    pub reached: bool,
    /// `create_all` was run, and what it makes compared.
    pub models_made: bool,
    /// The lines of runtime alterations that were judged.
    pub judged: BTreeSet<(PathBuf, usize)>,
}

/// Removes what another finding says better.
pub(super) fn each(findings: &mut Vec<Finding>, known: &Known) {
    let Known { reached, models_made, judged } = known;
    let subjects = |starts: &str| -> BTreeSet<String> {
        let of_rule = findings.iter().filter(|finding| rule(finding).starts_with(starts));
        of_rule.map(|finding| finding.subject.clone()).collect()
    };
    let (downgrades, failed) = (subjects("gate.downgrade-"), subjects("gate.upgrade-failed"));
    let booted: BTreeSet<(PathBuf, usize)> =
        findings.iter().filter(|finding| rule(finding) == "gate.boot-ddl").filter_map(place).collect();
    let swallowed = swallowed(findings);
    // The scan warns of any file that cannot be read; of a revision it is an error.
    let unread: BTreeSet<(PathBuf, usize)> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error && TROUBLES.contains(&rule(finding)))
        .filter_map(place)
        .collect();
    let unreadable = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error && UNREADABLE.contains(&rule(finding)));
    let altered = |finding: &Finding| place(finding).is_some_and(|place| judged.contains(&place));
    findings.retain(|finding| match rule(finding) {
        // What the strategy allows to run at the start, the proof that it can run again judges alone.
        rule if rule.starts_with("scan.ddl-") && altered(finding) => false,
        rule if DOWNGRADES.contains(&rule) => !downgrades.contains(&finding.subject),
        rule if TROUBLES.contains(&rule) && finding.severity < Severity::Error => {
            place(finding).is_none_or(|place| !unread.contains(&place))
        }
        "graph.table-nobody-creates" => !*reached && !failed.contains(&finding.subject),
        "graph.empty-baseline" => !*reached,
        "gate.graph-unreadable" => !unreadable,
        "scan.ddl-swallowed" => place(finding).is_none_or(|place| !swallowed.contains(&place)),
        "scan.ddl-construct" => !*models_made,
        rule if EXECUTED.contains(&rule) => place(finding).is_none_or(|place| !booted.contains(&place)),
        _ => true,
    });
}

/// The handlers of statements whose failure was seen: each is the first below its statement.
fn swallowed(findings: &[Finding]) -> BTreeSet<(PathBuf, usize)> {
    let of_rule = |rules: &'static [&'static str]| {
        findings.iter().filter(move |finding| rules.contains(&rule(finding))).filter_map(place)
    };
    let handlers: BTreeSet<(PathBuf, usize)> = of_rule(&["scan.ddl-swallowed"]).collect();
    let seen = of_rule(&["gate.swallowed-error", "gate.boot-error"]);
    let below = |(file, line): (PathBuf, usize)| {
        let mut below = handlers.range((file.clone(), line + 1)..);
        below.next().filter(|(other, _)| *other == file).cloned()
    };
    seen.filter_map(below).collect()
}

/// The rule of a finding; of one that is allowed, the rule that it breaks.
fn rule(finding: &Finding) -> &str {
    let allowed = finding.message.code() == text::gate::ALLOWED;
    let of_allowed = finding.message.fields().get("rule").filter(|_| allowed);
    of_allowed.map_or(finding.message.code().id(), String::as_str)
}

/// The file, however it was named, and the line.
fn place(finding: &Finding) -> Option<(PathBuf, usize)> {
    finding.place.as_ref().map(line)
}

/// The line of a place.
pub(super) fn line(place: &Place) -> (PathBuf, usize) {
    (plain(&place.file), place.line)
}

fn plain(file: &Path) -> PathBuf {
    file.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use obyra_evidence::Code;

    use super::*;

    fn finding(code: Code, subject: &str, file: &str, line: usize) -> Finding {
        let message = code.with("rule", "gate.downgrade-empty");
        Finding::new(Severity::Error, subject, message).at(Place { file: file.into(), line, column: 1 })
    }

    fn left(mut findings: Vec<Finding>, reached: bool, models_made: bool) -> Vec<String> {
        let judged = BTreeSet::from([("runtime.py".into(), 4)]);
        each(&mut findings, &Known { reached, models_made, judged });
        findings.iter().map(|finding| finding.message.code().id().to_owned()).collect()
    }

    #[test]
    fn the_round_trip_speaks_for_the_downgrade_also_where_it_is_allowed() {
        use text::{gate, graph};
        let read = |subject| finding(graph::EMPTY_DOWNGRADE, subject, "a.py", 9);
        for measured in [gate::DOWNGRADE_EMPTY, gate::DOWNGRADE_FAILED, gate::ALLOWED] {
            let found =
                left(vec![read("revision a"), finding(measured, "revision a", "a.py", 9)], true, true);
            assert_eq!(found, [measured.id()]);
        }
        assert_eq!(left(vec![read("revision a")], true, true), ["graph.empty-downgrade"]);
    }

    #[test]
    fn what_was_tried_refutes_what_was_read() {
        let read = || vec![finding(text::graph::TABLE_NOBODY_CREATES, "revision a", "a.py", 9)];
        assert_eq!(left(read(), true, true), Vec::<String>::new());
        assert_eq!(left(read(), false, true), ["graph.table-nobody-creates"]);
        let failed = finding(text::gate::UPGRADE_FAILED, "revision a", "a.py", 9);
        assert_eq!(left([read(), vec![failed]].concat(), false, true), ["gate.upgrade-failed"]);
    }

    #[test]
    fn a_handler_belongs_to_the_statement_above_it() {
        use text::{gate, scan};
        let found = vec![
            finding(gate::SWALLOWED_ERROR, "revision a", "./a.py", 10),
            finding(scan::DDL_SWALLOWED, "a.py", "a.py", 8),
            finding(scan::DDL_SWALLOWED, "a.py", "a.py", 12),
            finding(scan::DDL_SWALLOWED, "a.py", "a.py", 20),
            finding(scan::DDL_SWALLOWED, "b.py", "b.py", 12),
        ];
        assert_eq!(left(found, true, true).len(), 4);
    }

    #[test]
    fn the_line_that_ran_is_said_once() {
        use text::{gate, scan};
        let found = || {
            vec![
                finding(gate::BOOT_DDL, "application", "app.py", 3),
                finding(scan::CREATE_ALL, "app.py", "app.py", 3),
                finding(scan::CREATE_ALL, "app.py", "app.py", 7),
                finding(scan::DDL_CONSTRUCT, "app.py", "app.py", 9),
            ]
        };
        assert_eq!(left(found(), true, true), ["gate.boot-ddl", "scan.create-all"]);
        assert_eq!(left(found(), true, false).len(), 3);
    }

    #[test]
    fn what_the_strategy_allows_at_the_start_is_judged_once() {
        use text::scan;
        let found = [3, 4].map(|line| finding(scan::DDL_EXECUTED, "runtime.py", "./runtime.py", line));
        assert_eq!(left(found.into(), true, true).len(), 1);
        let created = vec![finding(scan::CREATE_ALL, "runtime.py", "runtime.py", 4)];
        assert_eq!(left(created, true, true), ["scan.create-all"]);
    }
}
