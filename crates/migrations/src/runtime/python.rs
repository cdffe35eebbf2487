//! The statements of a Python file, in the order in which it sends them: read by following its code, branch
//! by branch, without running any of it. What only exists at run time is told, not guessed.

mod bind;
mod calls;
mod evaluate;
mod flow;
mod functions;
mod inspector;
mod texts;
mod value;

use std::collections::{HashMap, HashSet};

use obyra_evidence::{Finding, Severity, text};
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{self as ast, Expr, Mod, ModModule, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::{Ranged as _, TextRange, TextSize};

use self::flow::Machine;
use super::{Handler, Reading, Statement};
use crate::scan::source::Source;
use crate::scan::{self, depth};

/// A function of the file.
#[derive(Clone, Copy)]
struct Function<'a> {
    def: &'a ast::StmtFunctionDef,
    /// The class that it is a method of.
    class: Option<&'a str>,
    /// The function around it.
    parent: Option<usize>,
}

/// Reads a file.
pub(super) fn read(source: &Source) -> Reading {
    let mut reading = Reading::default();
    let parsed = parse_unchecked(&source.text, ParseOptions::from(Mode::Module));
    let body: &[Stmt] = match parsed.syntax() {
        Mod::Module(ModModule { body, .. }) => body,
        Mod::Expression(_) => &[],
    };
    if depth::exceeds(body) {
        reading.findings.push(error(
            source,
            0.into(),
            text::scan::TOO_DEEP.message(),
            text::scan::MEND_TOO_LARGE,
        ));
        // Freeing a tree that is too deep would overflow the stack.
        std::mem::forget(parsed);
        return reading;
    }
    for trouble in scan::troubles(source, parsed.errors()) {
        let (at, message, mend) = scan::trouble_message(&trouble);
        reading.findings.push(error(source, at, message, mend));
    }
    // What a broken file does is not known, even where parts of it can be read.
    if reading.findings.is_empty() {
        let mut machine = Machine::new(source, survey(body));
        machine.run(body);
        (reading.statements, reading.unread) = machine.done();
    }
    reading
}

fn error(
    source: &Source,
    at: TextSize,
    message: obyra_evidence::Message,
    mend: obyra_evidence::Code,
) -> Finding {
    Finding::new(Severity::Error, source.file.display(), message).at(source.place(at)).mended_by(mend)
}

/// What the whole file tells before it is followed.
#[derive(Default)]
struct Survey<'a> {
    functions: Vec<Function<'a>>,
    /// Names that are read somewhere, and the functions around.
    mentions: HashMap<&'a str, Vec<Vec<usize>>>,
    /// Calls that send something.
    sends: Vec<&'a ast::ExprCall>,
    within: Vec<usize>,
    classes: Vec<&'a str>,
}

fn survey(body: &[Stmt]) -> Survey<'_> {
    let mut survey = Survey::default();
    survey.visit_body(body);
    survey
}

impl Survey<'_> {
    /// Whether nobody in the file but itself speaks of a function: somebody else calls it.
    fn is_root(&self, index: usize) -> bool {
        let name = self.functions[index].def.name.as_str();
        let mentions = self.mentions.get(name).map(Vec::as_slice).unwrap_or_default();
        mentions.iter().all(|within| within.contains(&index))
    }
}

impl<'a> Visitor<'a> for Survey<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(def) => {
                let class = self.classes.last().copied().filter(|_| self.within.is_empty());
                self.functions.push(Function { def, class, parent: self.within.last().copied() });
                self.within.push(self.functions.len() - 1);
                walk_stmt(self, stmt);
                self.within.pop();
            }
            Stmt::ClassDef(class) => {
                self.classes.push(class.name.as_str());
                walk_stmt(self, stmt);
                self.classes.pop();
            }
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        let name = match expr {
            Expr::Name(name) => Some(name.id.as_str()),
            Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
            _ => None,
        };
        if let Some(name) = name {
            self.mentions.entry(name).or_default().push(self.within.clone());
        }
        if let Expr::Call(call) = expr
            && calls::sends(call)
        {
            self.sends.push(call);
        }
        walk_expr(self, expr);
    }
}

/// The calls of some code that is never run.
fn calls_in(body: &[Stmt]) -> HashSet<TextRange> {
    survey(body).sends.iter().map(|call| call.range()).collect()
}

#[cfg(test)]
mod tests;
