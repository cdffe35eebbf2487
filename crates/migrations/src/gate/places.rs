//! Where in the project a finding belongs: the statement's line, else the function's, else the file.

use std::collections::BTreeMap;
use std::path::Path;

use obyra_evidence::{Finding, Message, Place, Severity, text};

use crate::driver::{Graph, Line, Revision, Statement};
use crate::explain;

/// How much of a statement `measure.sql` logs.
const QUERY_CHARS: usize = 4000;

/// The revisions, and which lines sent which statements.
pub(super) struct Places<'a> {
    project: &'a Path,
    revisions: BTreeMap<&'a str, &'a Revision>,
}

impl<'a> Places<'a> {
    pub fn new(project: &'a Path, graph: &'a Graph) -> Self {
        let revisions = graph.revisions.iter().map(|revision| (revision.id.as_str(), revision)).collect();
        Places { project, revisions }
    }

    /// A line as the driver tells it.
    pub fn line(&self, line: &Line) -> Place {
        explain::place(self.project, line)
    }

    /// Whether a place is in a revision's file.
    pub fn is_of_a_revision(&self, place: &Place) -> bool {
        self.revisions.values().any(|revision| revision.file == place.file)
    }

    /// The function of a revision, or the first line of its file.
    pub fn function(&self, revision: &str, name: &str) -> Option<Place> {
        let file = self.revisions.get(revision)?.file.clone();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let head = format!("def {name}");
        let line = text.lines().position(|line| line.trim_start().starts_with(&head)).map_or(1, |at| at + 1);
        Some(Place { file, line, column: 1 })
    }

    /// The line that sent a statement. A statement with parameters is known by its beginning only.
    pub fn statement(&self, revision: Option<&str>, sql: &str, sent: &[Statement]) -> Option<Place> {
        let of_revision = |sent: &&Statement| revision.is_none() || sent.revision.as_deref() == revision;
        let same = |sent: &&Statement| is_same(&sent.sql, sql);
        let similar = |sent: &&Statement| beginning(&sent.sql) == beginning(sql);
        let found = sent.iter().filter(of_revision).find(same);
        let found = found.or_else(|| sent.iter().filter(of_revision).find(similar));
        found.and_then(|sent| sent.place.as_ref()).map(|line| self.line(line))
    }

    /// A finding about a revision, at a place; allowed ones become notes with their reason.
    pub fn finding(&self, severity: Severity, subject: &str, message: Message, at: Option<Place>) -> Finding {
        let allowed = at.as_ref().and_then(|at| allowance(at, message.code().id()));
        let (severity, message) = match allowed {
            Some(reason) => {
                let rule = message.code().id();
                (Severity::Note, text::gate::ALLOWED.with("rule", rule).with("reason", reason))
            }
            None => (severity, message),
        };
        let finding = Finding::new(severity, subject, message);
        match at {
            Some(place) => finding.at(at_its_text(place)),
            None => finding,
        }
    }
}

/// A line is known without its column: where its text begins.
fn at_its_text(place: Place) -> Place {
    let text = std::fs::read_to_string(&place.file).unwrap_or_default();
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let blanks = line.chars().take_while(|c| c.is_whitespace()).count();
    Place { column: place.column.max(blanks + 1), ..place }
}

/// Whether what was sent is what the log shows, which may have been cut off.
fn is_same(sent: &str, logged: &str) -> bool {
    let cut =
        || sent.char_indices().nth(QUERY_CHARS).is_some_and(|(end, _)| sent[..end].trim() == logged.trim());
    sent.trim() == logged.trim() || cut()
}

/// What is left of a statement without its parameters.
fn beginning(sql: &str) -> &str {
    let end = sql.find(['$', '%']).unwrap_or(sql.len());
    sql[..end].trim()
}

/// The reason of `# obyra-db: allow[rule] reason` on the line, or alone on the line above.
fn allowance(place: &Place, rule: &str) -> Option<String> {
    let text = std::fs::read_to_string(&place.file).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let own = lines.get(place.line.checked_sub(1)?).copied();
    let above = place.line.checked_sub(2).and_then(|at| lines.get(at)).copied();
    let above = above.filter(|line| line.trim_start().starts_with('#'));
    [own, above].into_iter().flatten().find_map(|line| reason(line, rule))
}

fn reason(line: &str, rule: &str) -> Option<String> {
    let (_, comment) = line.split_once('#')?;
    let list = comment.trim_start().strip_prefix("obyra-db:")?.trim_start().strip_prefix("allow[")?;
    let (rules, reason) = list.split_once(']')?;
    let named = rules.split(',').any(|named| named.trim() == rule);
    let reason = reason.trim_start_matches([' ', ':', '-', '—']).trim_end();
    // Without a reason it allows nothing, as in the source scan.
    (named && !reason.is_empty()).then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_names_its_rule_and_gives_its_reason() {
        let line =
            "    op.drop_column('a', 'b')  # obyra-db: allow[gate.rewrite, gate.slow] at night: 3 rows";
        assert_eq!(reason(line, "gate.rewrite").as_deref(), Some("at night: 3 rows"));
        assert_eq!(reason(line, "gate.slow").as_deref(), Some("at night: 3 rows"));
        assert_eq!(reason(line, "gate.swallowed-error"), None);
    }

    #[test]
    fn parameters_do_not_hide_a_statement() {
        assert_eq!(beginning("UPDATE a SET b = $1"), beginning("UPDATE a SET b = %(b)s"));
    }
}
