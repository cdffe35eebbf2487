//! What is to be done about each exported file: what its guard asks, answered by the database. Pure but for
//! [`observe`], which only reads.

use std::collections::BTreeSet;
use std::path::PathBuf;

use obyra_evidence::{Failure, Finding, Message, Place, Result, Severity, text};
use obyra_postgres::{Session, sql_failure};
use serde::Serialize;

use super::form::{Manner, Verb};
use super::prove::{self, Ground, prove};
use super::{Helper, files, guard};

/// What is to be done about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// There is something to do.
    Run,
    /// Nothing is asked beforehand: it runs, and changes nothing that is so already.
    RunAlways,
    /// It is done.
    Nothing,
    /// What it needs is not there.
    Wait,
    /// Nothing proves that it can run again.
    Refuse,
}

/// A file and what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The file.
    pub file: PathBuf,
    /// Its checksum.
    pub checksum: String,
    /// What is to be done.
    pub action: Action,
    /// Why.
    pub reason: Message,
    /// Where its first statement stands.
    pub place: Place,
}

/// All files, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One step for each file.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps that run a file.
    pub fn to_run(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.action, Action::Run | Action::RunAlways))
    }

    /// Whether any file has something to do.
    pub fn is_pending(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Run | Action::Refuse))
    }

    /// What a person should know: files that are refused, files that wait.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |step: &Step, severity, mend| {
            Finding::new(severity, step.file.display(), step.reason.clone())
                .at(step.place.clone())
                .mended_by(mend)
        };
        let of = |step: &Step| match step.action {
            Action::Refuse => Some(finding(step, Severity::Error, text::runtime::MEND_UNCHECKED)),
            Action::Wait => Some(finding(step, Severity::Warning, text::runtime::MEND_WAITS)),
            _ => None,
        };
        self.steps.iter().filter_map(of).collect()
    }
}

/// What the database answers to the guards of each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    files: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing is asked.
    Unasked,
    Pending,
    Done,
    /// What it needs is not there: its name, without a schema.
    Missing(String),
}

/// Asks the database what the guards ask, as the role that will run the files: its search path decides.
pub async fn observe(session: &Session, helper: &Helper) -> Result<Observed> {
    let mut answers = Vec::new();
    for entry in helper.files() {
        let reading = files::read(entry);
        let mut answer = Answer::Done;
        for statement in &reading.statements {
            let one = match guard::conditions(&statement.sql) {
                None => Answer::Unasked,
                Some((needs, asks)) => asked(session, &needs, &asks).await?,
            };
            // A file of several statements is as far as the least of them.
            answer = match (answer, one) {
                (Answer::Missing(name), _) | (_, Answer::Missing(name)) => Answer::Missing(name),
                (Answer::Pending, _) | (_, Answer::Pending) => Answer::Pending,
                (Answer::Unasked, _) | (_, Answer::Unasked) => Answer::Unasked,
                (Answer::Done, Answer::Done) => Answer::Done,
            };
        }
        answers.push(answer);
    }
    Ok(Observed { files: answers })
}

async fn asked(session: &Session, needs: &[String], asks: &[String]) -> Result<Answer> {
    for need in needs {
        if !holds(session, need).await? {
            return Ok(Answer::Missing(guard::needed_name(need)));
        }
    }
    if asks.is_empty() {
        return Ok(Answer::Unasked);
    }
    for ask in asks {
        if !holds(session, ask).await? {
            return Ok(Answer::Done);
        }
    }
    Ok(Answer::Pending)
}

async fn holds(session: &Session, expression: &str) -> Result<bool> {
    let query = format!("SELECT ({expression})::boolean");
    match session.query_one(&query, &[]).await {
        Ok(row) => Ok(row.get::<_, Option<bool>>(0) == Some(true)),
        Err(error) => Err(sql_failure(text::runtime::GUARD_UNREADABLE.with("condition", expression), &error)),
    }
}

/// Decides about each file. `proven` are the checksums of files that a check on record has proven.
pub fn plan(
    helper: &Helper,
    observed: &Observed,
    ground: &Ground,
    proven: &BTreeSet<String>,
) -> Result<Plan> {
    let mut steps = Vec::new();
    // What files before will have made.
    let mut made = BTreeSet::new();
    for (entry, answer) in helper.files().iter().zip(&observed.files) {
        if !entry.is_sql() {
            return Err(Failure::usage(text::runtime::APPLY_PYTHON.with("path", entry.path().display()))
                .mended_by(text::runtime::MEND_EXPORT));
        }
        let reading = files::read(entry);
        if let Some(finding) = reading.findings.first() {
            let failure = Failure::usage(finding.message.clone());
            return Err(finding.place.iter().fold(failure, |failure, place| failure.at(place.clone())));
        }
        let proofs = prove(&reading.statements, ground);
        let place = Place { file: entry.path().to_owned(), line: 1, column: 1 };
        let place = reading.statements.first().map_or(place, |first| first.place.clone());
        let checksum = entry.checksum();
        let on_record = proven.contains(&checksum);
        let refused = proofs.iter().find_map(|proof| refusal(proof, on_record));
        let (action, reason) = match (refused, answer) {
            (Some(why), _) => (Action::Refuse, why),
            (None, Answer::Missing(name)) if made.contains(name) => {
                (Action::Run, text::runtime::IS_PENDING_AFTER.with("object", name))
            }
            (None, Answer::Missing(name)) => (Action::Wait, text::runtime::WAITS.with("object", name)),
            (None, Answer::Done) => (Action::Nothing, text::runtime::IS_DONE.message()),
            (None, Answer::Pending) => (Action::Run, text::runtime::IS_PENDING.message()),
            (None, Answer::Unasked) => (Action::RunAlways, text::runtime::RUNS_ALWAYS.message()),
        };
        if matches!(action, Action::Run | Action::RunAlways) {
            made.extend(proofs.iter().flat_map(makes));
        }
        steps.push(Step { file: entry.path().to_owned(), checksum, action, reason, place });
    }
    Ok(Plan { steps })
}

/// The names of what a statement makes.
fn makes(proof: &prove::Proof) -> Vec<String> {
    let effects = proof.steps.iter().flat_map(|step| &step.form.effects);
    let made = effects.filter(|effect| effect.verb == Verb::Makes);
    made.map(|effect| effect.object.name.name.clone()).collect()
}

/// Why a statement may not run on a real database.
fn refusal(proof: &prove::Proof, on_record: bool) -> Option<Message> {
    use text::runtime as say;
    let of_step = |step: &prove::Step| match step.form.manner {
        Manner::Autonomous => Some(say::LEFT_OUTSIDE.message()),
        Manner::Fed => Some(say::WHY_FED.message()),
        Manner::TransactionControl => Some(say::TRANSACTION_CONTROL.message()),
        _ => None,
    };
    if let Some(why) = proof.steps.iter().find_map(of_step) {
        return Some(why);
    }
    match &proof.verdict {
        prove::Verdict::Refuted => {
            let why = proof.remarks.iter().find(|remark| remark.severity == Severity::Error);
            Some(why.map_or_else(|| say::LEFT_UNPROVEN.message(), |remark| remark.message.clone()))
        }
        prove::Verdict::Undecided(why) | prove::Verdict::Unseen(why) if !on_record => {
            Some(say::UNPROVEN.with("statement", &proof.title).with_sentence("why", why.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn planned(
        files: &[(&str, &str)],
        answers: Vec<Answer>,
        proven: &[usize],
    ) -> Vec<(Action, &'static str)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let helper = Helper::open(&[folder.path().to_owned()]).unwrap();
        let proven = proven.iter().map(|index| helper.files()[*index].checksum()).collect();
        let ground = Ground { search_path: vec!["app".to_owned()] };
        let plan = plan(&helper, &Observed { files: answers }, &ground, &proven).unwrap();
        plan.steps.iter().map(|step| (step.action, step.reason.code().id())).collect()
    }

    const TABLE: &str = "DO $$ BEGIN IF to_regclass('t') IS NULL THEN CREATE TABLE t (a int); END IF; END $$";
    const INDEX: &str = "CREATE INDEX IF NOT EXISTS i ON t (a)";

    #[test]
    fn what_a_file_before_makes_is_not_waited_for() {
        let missing = || Answer::Missing("t".to_owned());
        let files = [("1.sql", TABLE), ("2.sql", INDEX)];
        let actions = |answers| planned(&files, answers, &[]).into_iter().map(|(action, _)| action).collect();
        let both: Vec<Action> = actions(vec![Answer::Pending, missing()]);
        assert_eq!(both, [Action::Run, Action::Run]);
        let done: Vec<Action> = actions(vec![Answer::Done, missing()]);
        assert_eq!(done, [Action::Nothing, Action::Wait]);
        let always: Vec<Action> = actions(vec![Answer::Done, Answer::Unasked]);
        assert_eq!(always, [Action::Nothing, Action::RunAlways]);
    }

    #[test]
    fn what_nothing_proves_is_refused_unless_a_check_on_record_did() {
        let one = |text: &str, proven: &[usize]| {
            planned(&[("1.sql", text)], vec![Answer::Unasked], proven).remove(0)
        };
        assert_eq!(one("CREATE TABLE t (a int)", &[0]), (Action::Refuse, "runtime.not-idempotent"));
        let open = "INSERT INTO t SELECT 1 WHERE NOT EXISTS (SELECT FROM t)";
        assert_eq!(one(open, &[]), (Action::Refuse, "runtime.unproven"));
        assert_eq!(one(open, &[0]), (Action::RunAlways, "runtime.runs-always"));
        assert_eq!(one("VACUUM t", &[0]), (Action::Refuse, "runtime.left-outside"));
        assert_eq!(
            one("BEGIN; CREATE SCHEMA IF NOT EXISTS s; COMMIT", &[0]),
            (Action::Refuse, "runtime.transaction-control")
        );
        assert_eq!(one("COPY t FROM stdin", &[0]), (Action::Refuse, "runtime.why-fed"));
    }
}
