//! `# obyra-db: allow[rule] reason`: on the line itself, or alone on the line above.

use ruff_python_ast::token::{TokenKind, Tokens};
use ruff_text_size::Ranged as _;

use super::facts::Allow;

const MARK: &str = "obyra-db:";

/// The comments of a file that allow something. Reading tokens is only needed where the mark occurs at all.
pub(super) fn comments(text: &str, tokens: &Tokens) -> Vec<Allow> {
    if !text.contains(MARK) {
        return Vec::new();
    }
    let comments = tokens.iter().filter(|token| token.kind() == TokenKind::Comment);
    let found = comments.filter_map(|token| {
        let start = usize::from(token.start());
        let comment = text.get(start..usize::from(token.end()))?;
        let (rules, reason) = parse(comment)?;
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        Some(Allow {
            at: token.start(),
            line: text[..start].bytes().filter(|byte| *byte == b'\n').count() + 1,
            alone: text[line_start..start].trim().is_empty(),
            rules,
            reason,
        })
    });
    found.collect()
}

/// The rules and the reason of a comment.
fn parse(comment: &str) -> Option<(Vec<String>, String)> {
    let after = comment.trim_start_matches(['#', ' ', '\t']).strip_prefix(MARK)?.trim_start();
    let list = after.strip_prefix("allow")?.trim_start().strip_prefix('[')?;
    let (rules, reason) = list.split_once(']')?;
    // The gate's rules are the gate's own to judge, and so are those of runtime alterations.
    let of_another = |rule: &str| rule.starts_with("gate.") || rule.starts_with("runtime.");
    let rules = rules.split(',').map(str::trim).filter(|rule| !of_another(rule));
    let rules: Vec<String> = rules.map(|rule| rule.trim_start_matches("scan.").to_owned()).collect();
    if rules.is_empty() {
        return None;
    }
    Some((rules, reason.trim_start_matches([' ', ':', '-', '—']).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rules_and_reason() {
        let parsed = parse("#  obyra-db: allow[create-all, scan.ddl-executed] - only in dev ");
        let rules = vec!["create-all".to_owned(), "ddl-executed".to_owned()];
        assert_eq!(parsed, Some((rules, "only in dev".to_owned())));
        assert_eq!(parse("# obyra-db: allow[x]"), Some((vec!["x".to_owned()], String::new())));
        assert_eq!(parse("# obyra-db: allow[gate.rewrite] 30 rows"), None);
        assert_eq!(parse("# see obyra-db: allow[x] y"), None);
        assert_eq!(parse("# obyra-db: deny[x]"), None);
        assert_eq!(parse("# obyra-db: allow[x"), None);
    }
}
