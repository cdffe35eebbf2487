//! For people: what, where, why, and what mends it.

use super::excerpt::{Sources, excerpt};
use super::{Mark, Style, Tone};
use crate::{Code, Entry, Exit, Failure, Finding, Language, Message, Severity, text};

/// A failure, ending with a newline.
pub fn failure(failure: &Failure, language: Language, style: Style, sources: Sources<'_>) -> String {
    let word =
        if failure.exit == Exit::Refused { text::evidence::WORD_REFUSED } else { text::evidence::WORD_ERROR };
    let word = style.paint(Tone::Bad, &word.message().say(language));
    let mut out = format!("{word}: {}\n", printable(&failure.what.say(language)));
    if let Some(place) = &failure.at {
        out += &excerpt(place, sources);
    }
    if let Some(why) = &failure.why {
        out += &labelled(text::evidence::WORD_BECAUSE, why, language);
    }
    if let Some(mend) = &failure.mend {
        out += &mended(mend, language, style);
    }
    out
}

/// Findings, the gravest first, and their count.
pub fn findings(findings: &[Finding], language: Language, style: Style, sources: Sources<'_>) -> String {
    if findings.is_empty() {
        return text::evidence::FINDINGS_NONE.message().say(language) + "\n";
    }
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.place.cmp(&b.place)));
    let shown =
        sorted.into_iter().map(|f| finding(f, language, style, sources)).collect::<Vec<_>>().join("\n");
    format!("{shown}\n{}\n", count(findings).say(language))
}

/// One finding, ending with a newline.
pub fn finding(finding: &Finding, language: Language, style: Style, sources: Sources<'_>) -> String {
    let word = style.paint(finding.severity.tone(), &finding.severity.word().say(language));
    let rule = style.paint(Tone::Quiet, &format!("[{}]", finding.message.code().id()));
    let subject = printable(&finding.subject);
    let mut out = format!("{word}{rule} {subject}: {}\n", printable(&finding.message.say(language)));
    if let Some(place) = &finding.place {
        out += &excerpt(place, sources);
    }
    if let Some(mend) = &finding.mend {
        out += &mended(mend, language, style);
    }
    out
}

/// Records of the ledger, one to three lines each.
pub fn records(entries: &[Entry], language: Language, style: Style) -> String {
    if entries.is_empty() {
        return text::evidence::RECORDS_NONE.message().say(language) + "\n";
    }
    entries.iter().map(|entry| record(entry, language, style)).collect()
}

fn record(entry: &Entry, language: Language, style: Style) -> String {
    let record = &entry.record;
    let mark = Mark::from(record.outcome).column(language, style);
    let at = record.at.strftime("%Y-%m-%d %H:%M:%SZ");
    let mut out = format!("{:>5}  {at}  {mark}  {} {}\n", entry.sequence, record.environment, record.subject);
    for (code, value) in
        [(text::evidence::EXPECTED, &record.expected), (text::evidence::OBSERVED, &record.observed)]
    {
        if !value.is_empty() {
            out += &format!("       {}\n", indented(&code.with("value", value).say(language), 7));
        }
    }
    out
}

/// How many findings of each severity.
pub(super) fn count(findings: &[Finding]) -> Message {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    text::evidence::FINDINGS_COUNT
        .with("errors", of(Severity::Error))
        .with("warnings", of(Severity::Warning))
        .with("notes", of(Severity::Note))
}

fn labelled(label: Code, words: &str, language: Language) -> String {
    format!("  {}: {}\n", label.message().say(language), indented(words, 4))
}

fn mended(mend: &Message, language: Language, style: Style) -> String {
    format!("  {} {}\n", style.paint(Tone::Good, "->"), indented(&mend.say(language), 5))
}

/// Printable text whose further lines stand below the first.
pub fn indented(words: &str, by: usize) -> String {
    printable(words.trim_end()).replace('\n', &format!("\n{}", " ".repeat(by)))
}

/// `text` without control characters: what a server or a file says must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
