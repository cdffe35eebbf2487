//! Findings as tickets: Markdown files for an issue tracker, one for each rule and file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use obyra_evidence::{Code, Failure, Finding, Language, Result, text};

use super::allowed::short;

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The name of its file, stable as long as the rule and the scanned file are.
    pub name: String,
    /// Its text.
    pub markdown: String,
}

/// The tickets of some findings. Findings of the same rule in the same file are one piece of work.
pub fn tickets(findings: &[Finding], language: Language) -> Vec<Ticket> {
    let mut groups: BTreeMap<(PathBuf, &'static str), Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        let file = finding.place.as_ref().map(|place| place.file.clone()).unwrap_or_default();
        groups.entry((file, short(finding))).or_default().push(finding);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut tickets = Vec::new();
    for ((file, rule), group) in groups {
        let stem = format!("{rule}-{}", slug(&file));
        let taken = names.entry(stem.clone()).or_insert(0);
        *taken += 1;
        let name = if *taken == 1 { format!("{stem}.md") } else { format!("{stem}-{taken}.md") };
        tickets.push(Ticket { name, markdown: markdown(&file, rule, &group, language) });
    }
    tickets
}

/// Writes the tickets into a folder, which is made if need be. Tickets of an earlier run are replaced.
pub fn write(folder: &Path, tickets: &[Ticket]) -> Result<()> {
    let unwritable = |error: std::io::Error| {
        Failure::new(text::scan::TICKETS_UNWRITABLE.with("folder", folder.display())).because(error)
    };
    fs::create_dir_all(folder).map_err(unwritable)?;
    for ticket in tickets {
        fs::write(folder.join(&ticket.name), &ticket.markdown).map_err(unwritable)?;
    }
    Ok(())
}

fn markdown(file: &Path, rule: &'static str, group: &[&Finding], language: Language) -> String {
    let say = |code: Code| code.message().say(language);
    let Some(first) = group.first() else { return String::new() };
    let shown = file.display();
    let mut out = format!("# {rule}: {shown}\n\n## {}\n\n", say(text::scan::TICKET_WHERE));
    for finding in group {
        let place = finding.place.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = finding.message.say(language);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "- `{place}` {}: {}", code(&finding.subject), escape(&message));
    }
    let _ = write!(out, "\n## {}\n\n{}\n", say(text::scan::TICKET_WHY), say(why(rule)));
    if let Some(mend) = &first.mend {
        let _ = write!(out, "\n## {}\n\n", say(text::scan::TICKET_DO));
        let mut mends: Vec<String> =
            group.iter().filter_map(|f| f.mend.as_ref()).map(|m| m.say(language)).collect();
        mends.dedup();
        if mends.is_empty() {
            mends.push(mend.say(language));
        }
        for mend in mends {
            let _ = writeln!(out, "- {mend}");
        }
    }
    let _ = write!(out, "\n## {}\n\n", say(text::scan::TICKET_ACCEPTANCE));
    let scan = text::scan::TICKET_ACCEPT_SCAN.with("rule", first.message.code().id()).with("file", shown);
    let _ = writeln!(out, "- [ ] {}", scan.say(language));
    if let Some(further) = acceptance(rule) {
        let _ = writeln!(out, "- [ ] {}", say(further));
    }
    out
}

fn why(rule: &str) -> Code {
    match rule {
        "ddl-swallowed" => text::scan::TICKET_WHY_SWALLOWED,
        "connection-string" | "password-in-code" | "default-credentials" => text::scan::TICKET_WHY_SECRET,
        rule if super::allowed::RULES.contains(&rule) => text::scan::TICKET_WHY_SCHEMA,
        _ => text::scan::TICKET_WHY_FILE,
    }
}

fn acceptance(rule: &str) -> Option<Code> {
    match rule {
        "create-all" | "table-create" | "ddl-executed" | "ddl-in-do" | "ddl-construct" => {
            Some(text::scan::TICKET_ACCEPT_SCHEMA)
        }
        "connection-string" | "password-in-code" => Some(text::scan::TICKET_ACCEPT_SECRET),
        _ => None,
    }
}

/// A path as part of a file's name.
fn slug(file: &Path) -> String {
    let text = file.to_string_lossy();
    let dashed: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let trimmed = dashed.trim_matches('-');
    // Names are limited to 255 bytes; the end of a path says more than its beginning.
    match trimmed.char_indices().rev().nth(79) {
        Some((start, _)) => trimmed[start..].trim_start_matches('-').to_owned(),
        None => trimmed.to_owned(),
    }
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

/// What a file says must not format the ticket.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\*_<>[]|`".contains(c) {
            out.push('\\');
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}
