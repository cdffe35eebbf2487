//! `check`: the deploy checklist, each line with its evidence and the command that mends it.

use obyra_continuity::render::{self, Report};
use obyra_continuity::{LineId, Summary, checklist, waiver_findings};
use obyra_evidence::render::{from_disk, terminal};
use obyra_evidence::{Exit, Failure, Record};

use crate::cli::{Check, Format};
use crate::environment::Opened;
use crate::facts;
use crate::invocation::Invocation;

/// Runs the verb.
pub async fn check(invocation: &mut Invocation, arguments: &Check) -> Result<Exit, Failure> {
    let strategy = invocation.strategy()?;
    let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
    check_opened(&opened, arguments.format).await
}

/// Gathers the facts, judges them, prints and records the lines.
pub async fn check_opened(opened: &Opened<'_>, format: Format) -> Result<Exit, Failure> {
    let mut facts = facts::gather(opened).await?;
    let (waivers, now) = (&opened.environment.waivers, opened.now());
    let records: Vec<Record> =
        checklist(&facts, waivers, now).iter().map(|line| line.record(opened.name(), now)).collect();
    let ledger = opened.ledger()?;
    ledger.append_all(&records)?;
    let since = ledger.unchanged_since_each(opened.name(), "check.")?;
    facts.since = LineId::ALL
        .into_iter()
        .filter_map(|id| since.get(&format!("check.{}", id.id())).map(|at| (id, *at)))
        // What is so since this very check says nothing by saying so.
        .filter(|(_, at)| *at < now)
        .collect();
    let lines = checklist(&facts, waivers, now);
    let report = Report { environment: opened.name(), at: now, lines: &lines };
    let printer = opened.invocation.printer;
    let language = printer.language;
    match if printer.json { Format::Json } else { format } {
        Format::Text => {
            printer.data(&render::terminal(&report, language, printer.style()));
            for finding in waiver_findings(waivers, &facts, now) {
                printer.data(&terminal::finding(&finding, language, printer.style(), &from_disk));
            }
        }
        Format::Json => printer.json(&render::json(&report, language)),
        Format::Markdown => printer.data(&render::markdown(&report, language)),
        Format::Junit => printer.data(&render::junit(&report, language)),
    }
    Ok(Summary::of(&lines).exit())
}
