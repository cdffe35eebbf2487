//! From what the files tell, taken together, to findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use obyra_evidence::{Code, Finding, Message, Place, Severity, text};
use ruff_text_size::{TextRange, TextSize};

use super::facts::{Act, Receiver, SecretKind, Site, Texts, Trouble};
use super::names::is_sqlalchemy;
use super::project::{Node, Project, Purpose};
use super::reach::{self, Reach, Reached};
use super::source::Unread;
use super::sql::Statement;

/// A helper of a helper of a helper: further ones are not followed.
const ROUNDS_MAX: usize = 6;

/// A site that is one, with the statements that it executes.
struct Proven<'p> {
    node: Node,
    site: &'p Site,
    statements: Vec<Statement>,
}

/// The findings of a project, in no particular order.
pub(super) fn findings(project: &mut Project, roots: &BTreeSet<usize>) -> Vec<Finding> {
    learn_helpers(project);
    let project = &*project;
    let proven = proven(project);
    // A secret is one, whoever runs its line.
    let reachable = proven.iter().filter(|proven| !matches!(proven.site.act, Act::Secret { .. }));
    let places: BTreeSet<Node> = reachable.map(|proven| proven.node).collect();
    let reached = reach::of(project, roots, &places);
    let mut findings = Vec::new();
    let mut swallows: BTreeMap<(usize, u32), &Proven<'_>> = BTreeMap::new();
    for proven in &proven {
        findings.extend(finding(project, &reached, proven));
        if let Some(swallow) = proven.site.swallowed {
            swallows.entry((proven.node.0, swallow.at.into())).or_insert(proven);
        }
    }
    for ((module, at), proven) in swallows {
        let place = project.modules[module].source.place(at.into());
        findings.extend(swallowed(project, &reached, proven, place));
    }
    for (at, module) in project.modules.iter().enumerate() {
        findings.extend(module.troubles.iter().map(|trouble| troubled(project, at, trouble)));
    }
    findings
}

/// Which functions execute which of their parameters, through other functions.
fn learn_helpers(project: &mut Project) {
    for module in &mut project.modules {
        if module.speaks_other && !module.speaks_postgres {
            module.scopes.iter_mut().for_each(|scope| scope.executes.clear());
        }
    }
    for _ in 0..ROUNDS_MAX {
        project.note_executing();
        let mut learned = Vec::new();
        for (at, module) in project.modules.iter().enumerate() {
            for site in &module.sites {
                let Act::Pass { callee, arguments } = &site.act else { continue };
                if !project.may_execute(at, callee) {
                    continue;
                }
                let caller = module.runs_in(site.scope);
                for (argument, texts) in arguments {
                    let news =
                        texts.parameters.iter().any(|p| !module.scopes[caller as usize].executes.contains(p));
                    let executes = || {
                        project.callees(at, callee).into_iter().any(|node| project.executes(node, argument))
                    };
                    if news && executes() {
                        learned.push((at, caller, texts.parameters.clone()));
                    }
                }
            }
        }
        if learned.is_empty() {
            return;
        }
        for (module, scope, parameters) in learned {
            project.modules[module].scopes[scope as usize].executes.extend(parameters);
        }
    }
    project.note_executing();
}

fn proven(project: &Project) -> Vec<Proven<'_>> {
    let mut proven = Vec::new();
    for (at, module) in project.modules.iter().enumerate() {
        let first = proven.len();
        for site in &module.sites {
            let node = (at, module.runs_in(site.scope));
            if let Some(statements) = statements(project, at, site) {
                proven.push(Proven { node, site, statements });
            }
        }
        // `execute(DDL(…))` is one thing.
        let sent: Vec<TextRange> = proven[first..]
            .iter()
            .filter(|p| matches!(p.site.act, Act::Execute { .. }))
            .map(|p| p.site.at)
            .collect();
        let inside =
            |site: &Site| sent.iter().any(|range| *range != site.at && range.contains_range(site.at));
        let mut index = 0;
        proven.retain(|proven| {
            index += 1;
            index <= first || !matches!(proven.site.act, Act::Construct { .. }) || !inside(proven.site)
        });
    }
    proven
}

/// The statements of a site; `None` if it turns out to be none.
fn statements(project: &Project, at: usize, site: &Site) -> Option<Vec<Statement>> {
    let module = &project.modules[at];
    let elsewhere = module.speaks_other && !module.speaks_postgres;
    let some = |texts: &Texts| Some(project.statements(at, texts)).filter(|found| !found.is_empty());
    match &site.act {
        Act::Metadata { receiver, .. } => is_metadata(project, at, receiver).then(Vec::new),
        Act::Table { receiver, .. } => is_table(project, at, receiver).then(Vec::new),
        Act::Execute { texts } if project.speaks_postgres && !elsewhere => some(texts),
        Act::Construct { texts } if project.speaks_postgres => some(texts),
        Act::Pass { callee, arguments } if project.speaks_postgres && project.may_execute(at, callee) => {
            let callees = project.callees(at, callee);
            let executed = arguments
                .iter()
                .filter(|(argument, _)| callees.iter().any(|node| project.executes(*node, argument)));
            let found: Vec<_> = executed.flat_map(|(_, texts)| project.statements(at, texts)).collect();
            (!found.is_empty()).then_some(found)
        }
        Act::Operation => Some(Vec::new()),
        Act::Secret { .. } => Some(Vec::new()),
        Act::Execute { .. } | Act::Construct { .. } | Act::Pass { .. } => None,
    }
}

fn is_metadata(project: &Project, at: usize, receiver: &Receiver) -> bool {
    match receiver {
        Receiver::Sqlalchemy => true,
        Receiver::Other => false,
        Receiver::Imported(symbol) => match project.export(at, symbol) {
            Some((_, export)) => export.sqlalchemy,
            None if project.target(at, symbol).is_some() => {
                project.speaks_postgres && !project.has_function("create_all")
            }
            None => is_sqlalchemy(&symbol.module),
        },
        Receiver::Unknown => project.speaks_postgres && !project.has_function("create_all"),
    }
}

fn is_table(project: &Project, at: usize, receiver: &Receiver) -> bool {
    match receiver {
        Receiver::Sqlalchemy => true,
        Receiver::Imported(symbol) => project.export(at, symbol).is_some_and(|(_, export)| export.sqlalchemy),
        Receiver::Other | Receiver::Unknown => false,
    }
}

fn finding(project: &Project, reached: &Reached, proven: &Proven<'_>) -> Option<Finding> {
    let reach = reached.at(proven.node);
    let site = proven.site;
    let place = project.modules[proven.node.0].source.place(site.at.start());
    let subject = subject(project, proven.node);
    let call = &site.call;
    // A revision may well write its statements and tables out; only today's models are no history.
    if reach == Reach::Migration && !matches!(site.act, Act::Metadata { .. } | Act::Secret { .. }) {
        return None;
    }
    let message = match &site.act {
        Act::Metadata { drops: false, .. } => text::scan::CREATE_ALL.with("call", call),
        Act::Metadata { drops: true, .. } => text::scan::DROP_ALL.with("call", call),
        Act::Table { drops: false, .. } => text::scan::TABLE_CREATE.with("call", call),
        Act::Table { drops: true, .. } => text::scan::TABLE_DROP.with("call", call),
        Act::Execute { .. } | Act::Pass { .. } => executed(call, &proven.statements),
        Act::Construct { .. } => {
            let statement = summary(&proven.statements);
            let message = text::scan::DDL_CONSTRUCT.with("statement", statement);
            let severity = severity(reach).min(Severity::Warning);
            return Some(reachable(severity, subject, message, (reached, project, proven.node)).at(place));
        }
        Act::Secret { kind, default } => return Some(secret(project, proven.node, (*kind, *default), place)),
        Act::Operation => return None,
    };
    Some(reachable(severity(reach), subject, message, (reached, project, proven.node)).at(place))
}

fn executed(call: &str, statements: &[Statement]) -> Message {
    let hidden = statements.iter().all(|statement| statement.in_do);
    let code = if hidden { text::scan::DDL_IN_DO } else { text::scan::DDL_EXECUTED };
    code.with("call", call).with("statement", summary(statements))
}

fn reachable(
    severity: Severity,
    subject: String,
    message: Message,
    (reached, project, node): (&Reached, &Project, Node),
) -> Finding {
    let reach = reached.at(node);
    let message = message.with("reach", reach.word()).with("way", reached.way(project, node));
    Finding::new(severity, subject, message).mended_by(mend(reach))
}

/// What runs without anybody's decision stops a pull request.
fn severity(reach: Reach) -> Severity {
    match reach {
        Reach::Boot | Reach::Request => Severity::Error,
        Reach::Command | Reach::Script | Reach::Dead | Reach::Migration => Severity::Warning,
        Reach::Test => Severity::Note,
    }
}

fn mend(reach: Reach) -> Code {
    match reach {
        Reach::Boot => text::scan::MEND_BOOT,
        Reach::Request => text::scan::MEND_REQUEST,
        Reach::Command => text::scan::MEND_COMMAND,
        Reach::Script => text::scan::MEND_SCRIPT,
        Reach::Dead => text::scan::MEND_DEAD,
        Reach::Test => text::scan::MEND_TEST,
        Reach::Migration => text::scan::MEND_MIGRATION,
    }
}

fn swallowed(project: &Project, reached: &Reached, proven: &Proven<'_>, place: Place) -> Option<Finding> {
    let severity = match reached.at(proven.node) {
        Reach::Test => return None,
        reach => severity(reach),
    };
    let line = project.modules[proven.node.0].source.place(proven.site.at.start()).line;
    let message = text::scan::DDL_SWALLOWED.with("call", &proven.site.call).with("line", line);
    let finding = Finding::new(severity, subject(project, proven.node), message).at(place);
    Some(finding.mended_by(text::scan::MEND_SWALLOWED))
}

fn secret(project: &Project, node: Node, (kind, default): (SecretKind, bool), place: Place) -> Finding {
    let test = project.purposes[node.0] == Purpose::Test;
    let severity = if test || default { Severity::Note } else { Severity::Error };
    let code = match (kind, default) {
        (_, true) => text::scan::DEFAULT_CREDENTIALS,
        (SecretKind::ConnectionString, false) => text::scan::CONNECTION_STRING,
        (SecretKind::Password, false) => text::scan::PASSWORD_IN_CODE,
    };
    let mend = if default { text::scan::MEND_DEFAULT_CREDENTIALS } else { text::scan::MEND_SECRET };
    Finding::new(severity, subject(project, node), code).at(place).mended_by(mend)
}

fn troubled(project: &Project, at: usize, trouble: &Trouble) -> Finding {
    let module = &project.modules[at];
    let subject = module.source.file.display();
    let (at, message, mend) = trouble_message(trouble);
    // A template of Python is no Python, and was never meant to be.
    let is_template = ["{%", "{{"].iter().any(|sign| module.source.text.contains(sign));
    let severity = match trouble {
        Trouble::Syntax { .. } if is_template => Severity::Note,
        _ => Severity::Warning,
    };
    Finding::new(severity, &subject, message).at(module.source.place(at)).mended_by(mend)
}

/// What is wrong with a file, where, and what mends it.
pub(crate) fn trouble_message(trouble: &Trouble) -> (TextSize, Message, Code) {
    match trouble {
        Trouble::Syntax { at, said } => {
            (*at, text::scan::SYNTAX_ERROR.with("said", said), text::scan::MEND_SYNTAX)
        }
        Trouble::Python2 { at } => (*at, text::scan::PYTHON_2.into(), text::scan::MEND_PYTHON_2),
        Trouble::Encoding { at } => (*at, text::scan::NOT_UTF8.into(), text::scan::MEND_NOT_UTF8),
        Trouble::TooDeep => (0.into(), text::scan::TOO_DEEP.into(), text::scan::MEND_TOO_LARGE),
    }
}

/// The first statement, and how many more there are.
fn summary(statements: &[Statement]) -> String {
    let distinct: BTreeSet<&Statement> = statements.iter().collect();
    let first = statements.first().map(ToString::to_string).unwrap_or_default();
    match distinct.len() {
        0 | 1 => first,
        more => format!("{first} (+{})", more - 1),
    }
}

/// The function that a finding is in; the file for code outside of any.
fn subject(project: &Project, node: Node) -> String {
    let name = reach::qualified(project, node);
    if name.is_empty() { project.modules[node.0].source.file.display().to_string() } else { name }
}

/// A file that could not be read at all.
pub(super) fn unread(file: &Path, why: &Unread) -> Finding {
    let place = Place { file: file.to_owned(), line: 1, column: 1 };
    let (message, mend) = unread_message(why);
    Finding::new(Severity::Warning, file.display(), message).at(place).mended_by(mend)
}

/// Why a file could not be read, and what mends that.
pub(crate) fn unread_message(why: &Unread) -> (Message, Code) {
    match why {
        Unread::Unreadable(said) => (text::scan::UNREADABLE.with("said", said), text::scan::MEND_UNREADABLE),
        Unread::TooLarge(bytes) => {
            (text::scan::TOO_LARGE.with("megabytes", bytes / (1024 * 1024)), text::scan::MEND_TOO_LARGE)
        }
        Unread::NulByte => (text::scan::NUL_BYTE.into(), text::scan::MEND_NOT_UTF8),
        Unread::UnknownEncoding(name) => {
            (text::scan::UNKNOWN_ENCODING.with("name", name), text::scan::MEND_NOT_UTF8)
        }
        Unread::TooDeep => (text::scan::TOO_DEEP.into(), text::scan::MEND_TOO_LARGE),
    }
}
