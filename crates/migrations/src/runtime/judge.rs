//! From what reading and running say to a verdict for each statement, and to findings.

use std::collections::BTreeMap;

use obyra_evidence::{Code, Finding, Message, Place, Severity, scrub_credentials, text};

use super::check::{Check, Checked, Verdict};
use super::errors::{self, Catch};
use super::form::Manner;
use super::prove::{self, Proof, Remark};
use super::tokens::HOLE;
use super::trial::{Pass, Refusal, Stands, Trial, Twice};
use super::{Helper, Reading, Statement};
use crate::gate::catalogue::shown;

/// Puts a check together.
pub(super) fn judge(helper: &Helper, reading: Reading, proofs: Vec<Proof>, trial: Trial) -> Check {
    let mut judge = Judge { helper, findings: reading.findings, locks: BTreeMap::new() };
    for (place, call) in reading.unread {
        judge.finding(
            &place,
            Remark {
                severity: Severity::Warning,
                message: text::runtime::UNREAD.with("call", call),
                mend: Some(text::runtime::MEND_UNREAD),
            },
        );
    }
    let mut statements = Vec::new();
    let mut runs = trial.runs.into_iter();
    for (statement, proof) in reading.statements.into_iter().zip(proofs) {
        let twice = runs.next();
        if let Some(verdict) = judge.statement(&statement, &proof, twice.as_ref()) {
            let (place, title) = (statement.place.clone(), proof.title.clone());
            statements.push(Checked { place, title, verdict, statement, proof, twice });
        }
    }
    judge.swallowed(&statements);
    judge.asked_otherwise(&statements);
    judge.locked();
    if let Stands::Unreached(why) = &trial.stands
        && let Some(first) = statements.first()
    {
        let place = Place { line: 1, column: 1, ..first.place.clone() };
        judge.finding(
            &place,
            Remark {
                severity: Severity::Warning,
                message: text::runtime::HEAD_UNREACHED.with("why", why),
                mend: Some(text::runtime::MEND_HEAD_UNREACHED),
            },
        );
    }
    let mut findings = judge.findings;
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then_with(|| a.place.cmp(&b.place)).then_with(|| a.cmp(b))
    });
    findings.dedup();
    let open = [text::runtime::UNPROVEN, text::runtime::UNREAD];
    let unknown = findings.iter().filter(|finding| open.contains(&finding.message.code())).count();
    Check {
        findings,
        head: match &trial.stands {
            Stands::Head(head) => Some(head.clone()),
            _ => None,
        },
        unreached: match trial.stands {
            Stands::Unreached(why) => Some(why),
            _ => None,
        },
        digest: helper.digest(),
        files: helper.len(),
        unknown,
        statements,
    }
}

struct Judge<'h> {
    helper: &'h Helper,
    findings: Vec<Finding>,
    /// The statements that take a lock on a table the second time, by table and mode.
    locks: BTreeMap<(String, String), Vec<(Place, String)>>,
}

impl Judge<'_> {
    /// The verdict on a statement; none if it changes nothing that a proof could be about.
    fn statement(&mut self, statement: &Statement, proof: &Proof, twice: Option<&Twice>) -> Option<Verdict> {
        if matches!(proof.manner, Manner::Session | Manner::TransactionControl) {
            return None;
        }
        let refused = twice.and_then(|twice| self.refused(statement, proof, twice));
        let idle = proof.verdict == prove::Verdict::Idle;
        if idle
            && refused.is_none()
            && twice.is_none_or(|twice| !did_something(twice))
            && proof.remarks.is_empty()
        {
            return None;
        }
        if let Some(Found::Refuted(remark)) = refused {
            // That it is no SQL, or fails at once, says more than what it would do the second time.
            self.about(proof.subject(), &statement.place, remark);
            return Some(Verdict::Refuted);
        }
        for remark in &proof.remarks {
            self.about(proof.subject(), &statement.place, remark.clone());
        }
        self.note_locks(statement, proof, twice);
        let verdict = match &proof.verdict {
            prove::Verdict::Refuted => Verdict::Refuted,
            prove::Verdict::Proven => Verdict::ProvenByReading,
            prove::Verdict::Unseen(_) => Verdict::Unknown,
            prove::Verdict::Undecided(_) | prove::Verdict::Idle => match (&refused, twice) {
                (None, Some(twice)) if did_something(twice) => Verdict::ProvenByRunning,
                (None, _) if idle => Verdict::ProvenByReading,
                _ => Verdict::Unknown,
            },
        };
        if verdict == Verdict::Unknown {
            let why = match (refused, &proof.verdict, twice) {
                (Some(Found::Open(why)), ..) => why,
                (_, prove::Verdict::Undecided(why), Some(_)) if !proof.title.contains(HOLE) => {
                    text::runtime::WHY_NOTHING_TO_DO.message().with_sentence("why", why.clone())
                }
                (_, prove::Verdict::Undecided(why) | prove::Verdict::Unseen(why), _) => why.clone(),
                _ => text::runtime::WHY_NOT_RUN.message(),
            };
            self.about(
                proof.subject(),
                &statement.place,
                Remark {
                    severity: Severity::Warning,
                    message: text::runtime::UNPROVEN
                        .with("statement", &proof.title)
                        .with_sentence("why", why),
                    mend: Some(text::runtime::MEND_UNPROVEN),
                },
            );
        }
        Some(verdict)
    }

    /// What running it says against it.
    fn refused(&self, statement: &Statement, proof: &Proof, twice: &Twice) -> Option<Found> {
        use text::runtime as say;
        let error = |message: Message, mend: Code| {
            let message = message.with("statement", &proof.title);
            Some(Found::Refuted(Remark { severity: Severity::Error, message, mend: Some(mend) }))
        };
        let refusals = [&twice.first, &twice.second].into_iter().filter_map(|pass| match pass {
            Pass::Refused(refusal) => Some(refusal),
            _ => None,
        });
        if let Some(refusal) = refusals.clone().find(|refusal| refusal.is_syntax()) {
            return error(say::SYNTAX.with("error", words(refusal)), say::MEND_SYNTAX);
        }
        if refusals.clone().any(Refusal::timed_out) {
            return error(say::TIMED_OUT.message(), say::MEND_TIMED_OUT);
        }
        // Whether a condition that only Python knows would have kept it from running, nobody can say.
        let conditions = statement.when.iter().find_map(|guard| guard.condition.opaque());
        let open = |message: Message| conditions.map(|c| Found::Open(message.with("condition", c)));
        let hidden = |refusal: &Refusal| {
            let state = refusal.sqlstate.as_deref().unwrap_or_default();
            statement.caught.iter().any(|handler| handler.caught.catches(state) == Catch::Exactly)
        };
        match (&twice.first, &twice.second) {
            (Pass::Refused(refusal), _) if !hidden(refusal) => {
                // Reading said why.
                if proof.verdict == prove::Verdict::Refuted {
                    return None;
                }
                let told = open(say::WHY_FAILS.with("error", words(refusal)));
                told.or_else(|| error(say::FAILS.with("error", words(refusal)), say::MEND_FAILS))
            }
            (_, Pass::Refused(refusal)) if !hidden(refusal) => {
                if proof.verdict == prove::Verdict::Refuted {
                    return None;
                }
                let told = open(say::WHY_FAILS_AGAIN.with("error", words(refusal)));
                told.or_else(|| error(say::FAILS_AGAIN.with("error", words(refusal)), say::MEND_ASK_FIRST))
            }
            (_, Pass::Ran(ran)) if ran.did_something() => {
                // The same values written over themselves are no change, and reading proved that they are.
                let only_rows = ran.changes.is_empty() && !ran.remade;
                let proven = proof.verdict == prove::Verdict::Proven && ran.rows == 0 && proof.writes_again();
                if proof.verdict == prove::Verdict::Refuted || only_rows && proven {
                    return None;
                }
                let changes = match (ran.remade, only_rows) {
                    (true, _) => say::CHANGE_REMADE.message(),
                    (_, true) => say::CHANGE_ROWS.with("count", ran.rows + ran.updates),
                    _ => say::CHANGE_CATALOGUE.with("changes", shown(&ran.changes)),
                };
                let told = open(say::WHY_CHANGES_AGAIN.message().with_sentence("changes", changes.clone()));
                told.or_else(|| {
                    error(say::CHANGES_AGAIN.message().with_sentence("changes", changes), say::MEND_REPEATS)
                })
            }
            _ => None,
        }
    }

    fn note_locks(&mut self, statement: &Statement, proof: &Proof, twice: Option<&Twice>) {
        let Some(Twice { second: Pass::Ran(ran), .. }) = twice else { return };
        for (mode, table) in &ran.locks {
            let key = (table.clone(), mode.clone());
            self.locks.entry(key).or_default().push((statement.place.clone(), proof.title.clone()));
        }
    }

    /// Locks that are taken at every run, table by table.
    fn locked(&mut self) {
        for ((table, mode), statements) in std::mem::take(&mut self.locks) {
            let Some((place, title)) = statements.first().cloned() else { continue };
            let exclusive = mode == "ACCESS EXCLUSIVE";
            let message = text::runtime::LOCKS
                .with("table", &table)
                .with("mode", &mode)
                .with("count", statements.len())
                .with("statement", title);
            let severity = if exclusive { Severity::Warning } else { Severity::Note };
            let finding = Finding::new(severity, format!("table {table}"), message).at(place);
            self.push(finding.mended_by(text::runtime::MEND_LOCKS));
        }
    }

    /// Handlers that hide every failure, around statements that would not fail.
    fn swallowed(&mut self, statements: &[Checked]) {
        let mut places: BTreeMap<Place, Place> = BTreeMap::new();
        for each in statements.iter().filter(|each| each.verdict != Verdict::Refuted) {
            for handler in each.statement.caught.iter().filter(|handler| handler.caught.hides_more()) {
                places.entry(handler.place.clone()).or_insert_with(|| each.place.clone());
            }
        }
        for (handler, first) in places {
            self.finding(
                &handler,
                Remark {
                    severity: Severity::Warning,
                    message: text::runtime::SWALLOWED.with("line", first.line),
                    mend: Some(text::runtime::MEND_SWALLOWED),
                },
            );
        }
    }

    /// Guards that are right, and do not ask as the strategy wants it.
    fn asked_otherwise(&mut self, statements: &[Checked]) {
        let mut files: BTreeMap<&std::path::Path, (usize, &Place)> = BTreeMap::new();
        for each in statements.iter().filter(|each| each.proof.asks_otherwise && each.verdict.is_proven()) {
            files.entry(&each.place.file).or_insert((0, &each.place)).0 += 1;
        }
        for (count, place) in files.into_values() {
            self.finding(
                place,
                Remark {
                    severity: Severity::Note,
                    message: text::runtime::GUARD_WITHOUT_REGCLASS.with("count", count),
                    mend: Some(text::runtime::MEND_WITHOUT_REGCLASS),
                },
            );
        }
    }

    fn finding(&mut self, place: &Place, remark: Remark) {
        self.about(place.file.display(), place, remark);
    }

    /// A finding about a subject: what a statement makes or changes, or a file.
    fn about(&mut self, subject: impl std::fmt::Display, place: &Place, remark: Remark) {
        let finding = Finding::new(remark.severity, subject, remark.message).at(place.clone());
        self.push(match remark.mend {
            Some(mend) => finding.mended_by(mend),
            None => finding,
        });
    }

    /// A finding that its line allows, with a reason, is a note.
    fn push(&mut self, finding: Finding) {
        let rule = finding.message.code().id();
        let allowed = finding.place.as_ref().and_then(|place| self.allowance(place, rule));
        self.findings.push(match allowed {
            Some(reason) => Finding {
                severity: Severity::Note,
                message: text::runtime::ALLOWED.with("rule", rule).with("reason", reason),
                mend: None,
                ..finding
            },
            None => finding,
        });
    }

    /// The reason of `obyra-db: allow[rule] reason` in a comment of the line, or alone on the line above.
    fn allowance(&self, place: &Place, rule: &str) -> Option<String> {
        let entry = self.helper.files().iter().find(|entry| entry.path() == place.file)?;
        let lines: Vec<&str> = entry.source().ok()?.text.lines().collect();
        let own = lines.get(place.line.checked_sub(1)?).copied();
        let above = place.line.checked_sub(2).and_then(|at| lines.get(at)).copied();
        let above = above.filter(|line| line.trim_start().starts_with(['#', '-']));
        [own, above].into_iter().flatten().find_map(|line| reason(line, rule))
    }
}

/// What running found.
enum Found {
    Refuted(Remark),
    /// It fails or changes something, under a condition that only Python knows.
    Open(Message),
}

fn did_something(twice: &Twice) -> bool {
    matches!(&twice.first, Pass::Ran(ran) if ran.did_something())
}

fn words(refusal: &Refusal) -> String {
    match &refusal.sqlstate {
        Some(state) => {
            format!("{} ({state}): {}", errors::name(state), scrub_credentials(&refusal.message))
        }
        None => scrub_credentials(&refusal.message),
    }
}

fn reason(line: &str, rule: &str) -> Option<String> {
    let (_, comment) = line.split_once("obyra-db:")?;
    let list = comment.trim_start().strip_prefix("allow[")?;
    let (rules, reason) = list.split_once(']')?;
    let named = rules.split(',').any(|named| named.trim() == rule);
    let reason = reason.trim_start_matches([' ', ':', '-', '—']).trim_end();
    // Without a reason it allows nothing, as in the source scan.
    (named && !reason.is_empty()).then(|| reason.to_owned())
}
