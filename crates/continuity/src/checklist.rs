//! The checklist: from facts and waivers to lines. Pure; unknown is never green.

use std::collections::BTreeMap;

use jiff::Timestamp;
use obyra_evidence::render::Mark;
use obyra_evidence::{Exit, Language, Message, Outcome, Record, text::continuity};
use serde::Serialize;

use crate::{LineId, Waiver};

/// What was observed about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It holds.
    Holds {
        /// What shows it.
        evidence: Vec<Message>,
    },
    /// It does not hold.
    Broken {
        /// What shows it.
        evidence: Vec<Message>,
        /// The command or change that mends it.
        mend: Message,
    },
    /// It could not be observed.
    Unknown {
        /// Why.
        why: Message,
        /// What would make it observable, where something would.
        mend: Option<Message>,
    },
    /// Its capability does not exist yet.
    NotBuilt,
    /// The strategy asks for it in other environments only. A line outside the checklist is then
    /// left out; one of the seven stays, excused by the strategy itself.
    NotAsked,
}

/// What was observed in an environment, line by line. A line without a fact is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The environment.
    pub environment: String,
    /// The facts.
    pub facts: BTreeMap<LineId, Fact>,
    /// Since when a line has been as it is, where the ledger tells.
    pub since: BTreeMap<LineId, Timestamp>,
}

impl Facts {
    /// No facts yet about an environment.
    pub fn about(environment: &str) -> Self {
        Facts { environment: environment.to_owned(), ..Facts::default() }
    }
}

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It was not observed.
    Unknown,
    /// It failed or was not observed, and a waiver counts.
    Waived,
}

impl From<Status> for Mark {
    fn from(status: Status) -> Self {
        match status {
            Status::Passed => Mark::Passed,
            Status::Failed => Mark::Failed,
            Status::Unknown => Mark::Unknown,
            Status::Waived => Mark::Waived,
        }
    }
}

/// A line of the checklist, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which one.
    pub id: LineId,
    /// The section of the strategy.
    pub section: &'static str,
    /// Its title.
    pub title: Message,
    /// How it stands, waivers counted.
    pub status: Status,
    /// How it was observed, whatever a waiver says.
    pub observed: Outcome,
    /// What shows it, and the waiver that excuses it or no longer does.
    pub evidence: Vec<Message>,
    /// What mends it.
    pub mend: Option<Message>,
    /// Since when it has been so.
    pub since: Option<Timestamp>,
}

impl Line {
    /// This line for the ledger, under the subject `check.<id>`.
    pub fn record(&self, environment: &str, at: Timestamp) -> Record {
        let evidence: Vec<String> = self.evidence.iter().map(|message| message.say(Language::En)).collect();
        let waived = (self.status == Status::Waived).then(|| ("status".to_owned(), "waived".to_owned()));
        Record {
            at,
            environment: environment.to_owned(),
            subject: format!("check.{}", self.id.id()),
            expected: self.title.say(Language::En),
            observed: evidence.join("; "),
            outcome: self.observed,
            figures: BTreeMap::new(),
            facts: waived.into_iter().collect(),
        }
    }
}

/// The lines of an environment: the seven of the checklist first, in the strategy's order.
pub fn checklist(facts: &Facts, waivers: &[Waiver], now: Timestamp) -> Vec<Line> {
    LineId::ALL.into_iter().filter_map(|id| line(id, facts, waivers, now)).collect()
}

fn line(id: LineId, facts: &Facts, waivers: &[Waiver], now: Timestamp) -> Option<Line> {
    let fact = facts.facts.get(&id);
    if fact == Some(&Fact::NotAsked) && !id.is_checklist() {
        return None;
    }
    let (observed, evidence, mend) = judge(fact);
    let status = match (observed, fact) {
        (_, Some(Fact::NotAsked)) => Status::Waived,
        (Outcome::Passed | Outcome::Changed, _) => Status::Passed,
        (Outcome::Failed, _) => Status::Failed,
        (Outcome::Unknown, _) => Status::Unknown,
    };
    let since = facts.since.get(&id).copied();
    let title = id.title().message();
    let mut line = Line { id, section: id.section(), title, status, observed, evidence, mend, since };
    if matches!(status, Status::Failed | Status::Unknown) {
        let concerned = waivers.iter().filter(|waiver| waiver.concerns(id, &facts.environment));
        if let Some(waiver) = concerned.max_by_key(|waiver| waiver.until) {
            excuse(&mut line, waiver, now);
        }
    }
    Some(line)
}

fn judge(fact: Option<&Fact>) -> (Outcome, Vec<Message>, Option<Message>) {
    let unknown = |why: &Message, mend: Option<Message>| (Outcome::Unknown, vec![why.clone()], mend);
    match fact {
        Some(Fact::Holds { evidence }) => (Outcome::Passed, evidence.clone(), None),
        Some(Fact::Broken { evidence, mend }) => (Outcome::Failed, evidence.clone(), Some(mend.clone())),
        Some(Fact::Unknown { why, mend }) => unknown(why, mend.clone()),
        Some(Fact::NotBuilt) => unknown(&continuity::NOT_BUILT.message(), None),
        Some(Fact::NotAsked) => unknown(&continuity::NOT_ASKED.message(), None),
        None => unknown(&continuity::NOT_OBSERVED.message(), None),
    }
}

/// A waiver that counts excuses the line; one that expired is shown, and excuses nothing.
fn excuse(line: &mut Line, waiver: &Waiver, now: Timestamp) {
    if waiver.counts(now) {
        line.status = Status::Waived;
        line.evidence.push(waiver.says(continuity::WAIVED_UNTIL).with("reason", &waiver.reason));
    } else {
        line.evidence.push(waiver.says(continuity::WAIVER_EXPIRED_ON_LINE));
    }
}

/// How many lines stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines that hold.
    pub passed: usize,
    /// Lines that do not.
    pub failed: usize,
    /// Lines that were not observed.
    pub unknown: usize,
    /// Lines that a waiver excuses.
    pub waived: usize,
}

impl Summary {
    /// Counts lines.
    pub fn of(lines: &[Line]) -> Self {
        let count = |status| lines.iter().filter(|line| line.status == status).count();
        Summary {
            passed: count(Status::Passed),
            failed: count(Status::Failed),
            unknown: count(Status::Unknown),
            waived: count(Status::Waived),
        }
    }

    /// The exit code: what was not observed counts as much as what failed.
    pub fn exit(self) -> Exit {
        if self.failed + self.unknown == 0 { Exit::Done } else { Exit::Findings }
    }

    /// The summary in one sentence.
    pub fn message(self) -> Message {
        continuity::SUMMARY
            .with("passed", self.passed)
            .with("failed", self.failed)
            .with("unknown", self.unknown)
            .with("waived", self.waived)
    }
}
