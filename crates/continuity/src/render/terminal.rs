//! For people: one mark, one title, the evidence beneath, the mend as `-> command`.

use obyra_evidence::render::terminal::indented;
use obyra_evidence::render::{Mark, Style, Tone};
use obyra_evidence::{Language, text::continuity};

use super::{Report, evidence};
use crate::{Line, Status, Summary};

/// The checklist, ending with its summary and a newline.
pub fn terminal(report: &Report<'_>, language: Language, style: Style) -> String {
    let (seven, further) = report.parts();
    let heading = |text: String| style.paint(Tone::Strong, &text) + "\n";
    let mut out = heading(report.head().say(language)) + &block(&seven, language, style);
    if !further.is_empty() {
        out += "\n";
        out += &heading(continuity::STRATEGY_HEAD.message().say(language));
        out += &block(&further, language, style);
    }
    out + "\n" + &Summary::of(report.lines).message().say(language) + "\n"
}

fn block(lines: &[&Line], language: Language, style: Style) -> String {
    lines.iter().map(|one| line(one, language, style)).collect()
}

fn line(line: &Line, language: Language, style: Style) -> String {
    let mark = Mark::from(line.status).column(language, style);
    let indent = Mark::width(language) + 2;
    let id = style.paint(Tone::Quiet, &format!("[{}]", line.id.id()));
    let title = line.title.say(language);
    let evidence = evidence(line, language);
    if let (Status::Unknown, [why], None) = (line.status, evidence.as_slice(), &line.mend) {
        return format!("{mark}  {title} {id}: {}\n", indented(why, indent));
    }
    let mut out = format!("{mark}  {title} {id}\n");
    let margin = " ".repeat(indent);
    for sentence in evidence {
        out += &format!("{margin}{}\n", indented(&sentence, indent));
    }
    if let Some(mend) = line.mend.as_ref().filter(|_| line.status != Status::Passed) {
        let arrow = style.paint(Tone::Good, "->");
        out += &format!("{margin}{arrow} {}\n", indented(&mend.say(language), indent + 3));
    }
    out
}
