//! For pull requests and the runbook: GitHub's Markdown.

use crate::{Failure, Finding, Language, text};

/// Findings as a table, or one line that there are none.
pub fn findings(findings: &[Finding], language: Language) -> String {
    if findings.is_empty() {
        return text::evidence::FINDINGS_NONE.message().say(language) + "\n";
    }
    let heads = [
        text::evidence::WORD_SEVERITY,
        text::evidence::WORD_SUBJECT,
        text::evidence::WORD_FINDING,
        text::evidence::WORD_MEND,
        text::evidence::WORD_RULE,
    ];
    let heads = heads.map(|code| code.message().say(language));
    let mut out = format!("| {} |\n|---|---|---|---|---|\n", heads.join(" | "));
    for finding in findings {
        let place = finding.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let mend = finding.mend.as_ref().map(|mend| mend.say(language)).unwrap_or_default();
        let cells = [
            finding.severity.word().say(language),
            finding.subject.clone(),
            finding.message.say(language) + &place,
            mend,
            finding.message.code().id().to_owned(),
        ];
        out += &format!("| {} |\n", cells.map(|cell| escape(&cell)).join(" | "));
    }
    out + "\n" + &super::terminal::count(findings).say(language) + "\n"
}

/// A failure as a short paragraph.
pub fn failure(failure: &Failure, language: Language) -> String {
    let word = text::evidence::WORD_ERROR.message().say(language);
    let mut out = format!("**{word}:** {}\n", escape(&failure.what.say(language)));
    if let Some(place) = &failure.at {
        out += &format!("\n{}\n", code(&place.to_string()));
    }
    if let Some(why) = &failure.why {
        let because = text::evidence::WORD_BECAUSE.message().say(language);
        out += &format!("\n{because}: {}\n", escape(why));
    }
    if let Some(mend) = &failure.mend {
        out += &format!("\n→ {}\n", escape(&mend.say(language)));
    }
    out
}

/// Text of which no character has a meaning in Markdown or HTML, on one line.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\n' => out.push_str("<br>"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Text as inline code, whatever backticks it holds.
pub fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{}{pad}{fence}", text.replace('\n', " "))
}
