//! For a pull request: GitHub's checkboxes. Only a line that passed is ticked.

use obyra_evidence::render::Mark;
use obyra_evidence::render::markdown::escape;
use obyra_evidence::{Language, text::continuity};

use super::{Report, evidence};
use crate::{Line, Status, Summary};

/// The checklist as Markdown.
pub fn markdown(report: &Report<'_>, language: Language) -> String {
    let (seven, further) = report.parts();
    let mut out = format!("## {}\n\n{}", escape(&report.head().say(language)), block(&seven, language));
    if !further.is_empty() {
        let heading = continuity::STRATEGY_HEAD.message().say(language);
        out += &format!("\n### {}\n\n{}", escape(&heading), block(&further, language));
    }
    out + "\n" + &Summary::of(report.lines).message().say(language) + "\n"
}

fn block(lines: &[&Line], language: Language) -> String {
    lines.iter().map(|one| line(one, language)).collect()
}

fn line(line: &Line, language: Language) -> String {
    let title = escape(&line.title.say(language));
    let mut out = match line.status {
        Status::Passed => format!("- [x] {title}\n"),
        other => format!("- [ ] **{}** {title}\n", Mark::from(other).word(language)),
    };
    for sentence in evidence(line, language) {
        out += &format!("  - {}\n", escape(&sentence));
    }
    if let Some(mend) = line.mend.as_ref().filter(|_| line.status != Status::Passed) {
        out += &format!("  - → {}\n", escape(&mend.say(language)));
    }
    out
}
