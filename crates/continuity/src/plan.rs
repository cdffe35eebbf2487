//! What is missing in the runbook, and the two checklist lines that it answers. Pure.

use obyra_evidence::{Code, Message, scrub_credentials, text::continuity};

use crate::observe::Document;
use crate::policy::Runbook;
use crate::{Fact, LineId};

/// The facts that the `[runbook]` section and its document give: `emergency` and `runbook`.
pub fn facts(runbook: &Runbook, document: &Document) -> [(LineId, Fact); 2] {
    [(LineId::Emergency, emergency(runbook)), (LineId::Runbook, incidents(runbook, document))]
}

/// Section 7: emergency credentials and the communication plan are documented.
fn emergency(runbook: &Runbook) -> Fact {
    let place = runbook.emergency_credentials.as_deref().unwrap_or("").trim();
    if scrub_credentials(place) != place {
        return Fact::Broken {
            evidence: vec![continuity::RUNBOOK_EMERGENCY_SECRET.message()],
            mend: continuity::MEND_RUNBOOK_SECRET.message(),
        };
    }
    let mut verdict = Verdict::default();
    verdict.expect(!place.is_empty(), continuity::RUNBOOK_NO_EMERGENCY, || {
        continuity::RUNBOOK_EMERGENCY.with("place", place)
    });
    let channels = &runbook.communication.channels;
    verdict.expect(!channels.is_empty(), continuity::RUNBOOK_NO_CHANNEL, || {
        continuity::RUNBOOK_CHANNELS.with("channels", channels.join(", "))
    });
    verdict.fact(continuity::MEND_RUNBOOK_SECTION.message())
}

/// Section 6: incidents are kept in a runbook with the people responsible and response times.
fn incidents(runbook: &Runbook, document: &Document) -> Fact {
    let mut verdict = Verdict::default();
    objectives(runbook, &mut verdict);
    people(runbook, &mut verdict);
    let times = runbook
        .severities
        .iter()
        .map(|(name, severity)| format!("{name} {}", severity.respond_within.short()));
    let times: Vec<String> = times.collect();
    verdict.expect(!times.is_empty(), continuity::RUNBOOK_NO_SEVERITIES, || {
        continuity::RUNBOOK_SEVERITIES.with("list", times.join(", "))
    });
    let section_is_whole = verdict.broken.is_empty();
    let file = runbook.document.display();
    match document {
        Document::Written(0) => verdict.broken.push(continuity::RUNBOOK_EMPTY_DOCUMENT.with("file", file)),
        Document::Written(bytes) => {
            verdict.holds.push(continuity::RUNBOOK_DOCUMENT.with("file", file).with("bytes", bytes));
        }
        Document::Absent => verdict.broken.push(continuity::RUNBOOK_NO_DOCUMENT.with("file", file)),
        Document::Unread(_) if section_is_whole => {
            return Fact::Unknown { why: continuity::RUNBOOK_DOCUMENT_UNREAD.with("file", file), mend: None };
        }
        Document::Unread(_) => {
            verdict.broken.push(continuity::RUNBOOK_DOCUMENT_UNREAD.with("file", file));
        }
    }
    verdict.fact(if section_is_whole {
        continuity::MEND_RUNBOOK_DOCUMENT.with("file", runbook.document.display())
    } else {
        continuity::MEND_RUNBOOK_SECTION.message()
    })
}

fn objectives(runbook: &Runbook, verdict: &mut Verdict) {
    match (runbook.rto, runbook.rpo) {
        (Some(rto), Some(rpo)) => {
            verdict
                .holds
                .push(continuity::RUNBOOK_OBJECTIVES.with("rto", rto.short()).with("rpo", rpo.short()));
        }
        (rto, rpo) => {
            let absent = [
                rto.is_none().then_some(continuity::RUNBOOK_NO_RTO),
                rpo.is_none().then_some(continuity::RUNBOOK_NO_RPO),
            ];
            verdict.broken.extend(absent.into_iter().flatten().map(Code::message));
        }
    }
}

fn people(runbook: &Runbook, verdict: &mut Verdict) {
    let people = &runbook.people;
    if people.is_empty() {
        verdict.broken.push(continuity::RUNBOOK_NOBODY.message());
        return;
    }
    for person in people.iter().filter(|person| person.contact.trim().is_empty()) {
        verdict.broken.push(continuity::RUNBOOK_NO_CONTACT.with("name", &person.name));
    }
    let on_call: Vec<&str> = people.iter().filter(|p| p.on_call).map(|p| p.name.as_str()).collect();
    verdict.expect(!on_call.is_empty(), continuity::RUNBOOK_NOBODY_ON_CALL, || {
        continuity::RUNBOOK_PEOPLE.with("count", people.len()).with("names", on_call.join(", "))
    });
}

/// What holds and what does not, until a fact is made of it.
#[derive(Default)]
struct Verdict {
    holds: Vec<Message>,
    broken: Vec<Message>,
}

impl Verdict {
    fn expect(&mut self, holds: bool, otherwise: Code, evidence: impl FnOnce() -> Message) {
        if holds { self.holds.push(evidence()) } else { self.broken.push(otherwise.message()) }
    }

    fn fact(self, mend: Message) -> Fact {
        if self.broken.is_empty() {
            Fact::Holds { evidence: self.holds }
        } else {
            Fact::Broken { evidence: self.broken, mend }
        }
    }
}
