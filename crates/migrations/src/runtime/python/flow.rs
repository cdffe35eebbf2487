//! Follows the statements of a file: branches and what they ask, loops over what is known, handlers, calls of
//! the file's own functions.

use std::collections::{HashMap, HashSet};

use obyra_evidence::scrub_credentials;
use ruff_python_ast::{self as ast, ExceptHandler, Expr, Stmt};
use ruff_text_size::{Ranged as _, TextRange, TextSize};

use super::super::condition::Condition;
use super::super::errors::Caught;
use super::super::prove::Guard;
use super::super::question::Reply;
use super::value::Value;
use super::{Function, Handler, Statement, Survey, calls_in};
use crate::scan::source::Source;
use crate::scan::{hides, is_main_guard, is_type_checking, last_name, suppression};

/// Steps that one file may take. One that needs more was made to need more.
const FUEL: usize = 400_000;
/// How many statements a file may send before the rest counts as unread.
const STATEMENTS_MAX: usize = 20_000;
/// How much of a condition is shown.
const WRITTEN_CHARS: usize = 60;

/// The names of a scope.
pub(super) type Names<'a> = HashMap<&'a str, Value>;

/// A call of a function that is followed.
pub(super) struct Frame<'a> {
    pub names: Names<'a>,
    pub function: Option<usize>,
    pub class: Option<&'a str>,
    /// Names that are the module's.
    pub globals: HashSet<&'a str>,
    /// How many conditions there were before.
    pub when: usize,
    /// What it returns, and under which further conditions.
    pub returns: Vec<(Condition, Value)>,
    pub yields: Vec<Value>,
}

/// Whether the code after a statement is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    No,
    Leaves,
}

pub(super) struct Machine<'a, 's> {
    pub source: &'s Source,
    pub survey: Survey<'a>,
    pub frames: Vec<Frame<'a>>,
    /// What the names of a class hold.
    pub classes: HashMap<&'a str, Names<'a>>,
    pub when: Vec<Guard>,
    pub handlers: Vec<Handler>,
    /// For each transaction or savepoint that is open, how many handlers were around it.
    transactions: Vec<usize>,
    /// Somewhere the file asks for connections that commit each statement.
    autocommits: bool,
    /// Inside of a handler of an exception: what is returned there is no answer.
    pub in_handler: usize,
    next_guard: usize,
    fuel: usize,
    pub followed: HashSet<usize>,
    /// Calls that were looked at, or that are never reached.
    pub seen: HashSet<TextRange>,
    /// What a cursor was asked last.
    pub last_query: Option<Reply>,
    out: Vec<Statement>,
    unread: Vec<(obyra_evidence::Place, String)>,
}

impl<'a, 's> Machine<'a, 's> {
    pub fn new(source: &'s Source, survey: Survey<'a>) -> Self {
        Machine {
            source,
            survey,
            frames: vec![Frame::new(None, None, 0)],
            classes: HashMap::new(),
            when: Vec::new(),
            handlers: Vec::new(),
            transactions: Vec::new(),
            autocommits: source.text.to_ascii_lowercase().contains("autocommit"),
            in_handler: 0,
            next_guard: 0,
            fuel: FUEL,
            followed: HashSet::new(),
            seen: HashSet::new(),
            last_query: None,
            out: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Follows the file: its top, then each function that nobody in it calls, then those that were not
    /// reached.
    pub fn run(&mut self, body: &'a [Stmt]) {
        for (index, function) in self.survey.functions.iter().enumerate() {
            if function.class.is_none() && function.parent.is_none() {
                self.frames[0].names.insert(function.def.name.as_str(), Value::Function(index));
            }
        }
        self.block(body);
        let top = self.frames[0].names.clone();
        for only_roots in [true, false] {
            for index in 0..self.survey.functions.len() {
                if self.followed.contains(&index) || only_roots && !self.survey.is_root(index) {
                    continue;
                }
                self.frames[0].names.clone_from(&top);
                self.last_query = None;
                let switches = self.switches(index);
                self.call(index, Vec::new(), switches);
            }
        }
        for call in std::mem::take(&mut self.survey.sends) {
            if !self.seen.contains(&call.range()) {
                self.unread(call);
            }
        }
    }

    pub fn done(self) -> (Vec<Statement>, Vec<(obyra_evidence::Place, String)>) {
        let mut unread = self.unread;
        unread.sort();
        unread.dedup();
        (self.out, unread)
    }

    /// Takes a step; says whether there are any left.
    pub fn step(&mut self) -> bool {
        self.fuel = self.fuel.saturating_sub(1);
        self.fuel > 0
    }

    /// Remembers a statement that is sent here.
    pub fn sent(&mut self, at: TextSize, sql: &str, call: String) {
        let place = self.source.place(at);
        let inner = self.transactions.last().copied().unwrap_or_default();
        let apart = |(index, handler): (usize, &Handler)| Handler {
            apart: handler.apart || self.autocommits || index < inner,
            ..handler.clone()
        };
        let statement = Statement {
            place,
            sql: sql.to_owned(),
            call: Some(call),
            when: self.when.clone(),
            caught: self.handlers.iter().enumerate().map(apart).rev().collect(),
        };
        let same = |one: &Statement| {
            let conditions = |s: &Statement| s.when.iter().map(|g| g.condition.clone()).collect::<Vec<_>>();
            one.place == statement.place
                && one.sql == statement.sql
                && conditions(one) == conditions(&statement)
        };
        if self.out.len() < STATEMENTS_MAX && !self.out.iter().rev().take(256).any(same) {
            self.out.push(statement);
        }
    }

    /// Remembers a call whose statement could not be read.
    pub fn unread(&mut self, call: &ast::ExprCall) {
        let written = self.written(&call.func);
        self.unread.push((self.source.place(call.start()), format!("{written}()")));
    }

    /// How the code says it, in one line.
    pub fn written(&self, expr: &Expr) -> String {
        let range = usize::from(expr.start())..usize::from(expr.end());
        let text = self.source.text.get(range).unwrap_or_default();
        let line = scrub_credentials(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        match line.char_indices().nth(WRITTEN_CHARS) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }

    // -- statements ------------------------------------------------------------------------------

    /// Follows a block. What an early return leaves is over with it.
    pub fn block(&mut self, body: &'a [Stmt]) -> Exit {
        let before = self.when.len();
        let mut exit = Exit::No;
        for (index, stmt) in body.iter().enumerate() {
            if !self.step() {
                break;
            }
            exit = self.statement(stmt);
            if exit == Exit::Leaves {
                self.seen.extend(calls_in(&body[index + 1..]));
                break;
            }
        }
        self.when.truncate(before);
        exit
    }

    fn statement(&mut self, stmt: &'a Stmt) -> Exit {
        match stmt {
            Stmt::FunctionDef(def) => self.define(def),
            Stmt::ClassDef(class) => self.class(class),
            Stmt::Import(import) => self.import(import),
            Stmt::ImportFrom(import) => self.import_from(import),
            Stmt::Global(global) => {
                let names = global.names.iter().map(|name| name.as_str());
                if let Some(frame) = self.frames.last_mut() {
                    frame.globals.extend(names);
                }
            }
            Stmt::Expr(expression) => drop(self.evaluate(&expression.value)),
            Stmt::Assign(assign) => {
                let value = self.evaluate(&assign.value);
                for target in &assign.targets {
                    self.assign(target, value.clone());
                }
            }
            Stmt::AnnAssign(ast::StmtAnnAssign { target, value: Some(value), .. }) => {
                let value = self.evaluate(value);
                self.assign(target, value);
            }
            Stmt::AugAssign(assign) => {
                let value = self.augmented(assign);
                self.assign(&assign.target, value);
            }
            Stmt::If(branch) => return self.branch(branch),
            Stmt::For(each) => self.each(each),
            Stmt::While(repeat) => {
                drop(self.evaluate(&repeat.test));
                let written = self.written(&repeat.test);
                self.unknown_times(written, &repeat.body);
            }
            Stmt::With(with) => return self.with(with),
            Stmt::Try(attempt) => return self.attempt(attempt),
            Stmt::Match(choice) => self.choice(choice),
            Stmt::Return(ast::StmtReturn { value, .. }) => {
                let value = value.as_deref().map_or(Value::None, |value| self.evaluate(value));
                self.returned(value);
                return Exit::Leaves;
            }
            Stmt::Raise(raise) => {
                if let Some(raised) = &raise.exc {
                    self.evaluate(raised);
                }
                return Exit::Leaves;
            }
            Stmt::Continue(_) | Stmt::Break(_) => return Exit::Leaves,
            Stmt::Assert(assert) => drop(self.evaluate(&assert.test)),
            Stmt::Delete(_) | Stmt::Pass(_) => {}
            _ => {}
        }
        Exit::No
    }

    fn returned(&mut self, value: Value) {
        if self.in_handler > 0 {
            return;
        }
        let Some(frame) = self.frames.last_mut() else { return };
        let further = self.when[frame.when..].iter().map(|guard| guard.condition.clone()).collect();
        frame.returns.push((Condition::all(further), value));
    }

    fn define(&mut self, def: &'a ast::StmtFunctionDef) {
        let same = |function: &Function<'_>| std::ptr::eq(function.def, def);
        if let Some(index) = self.survey.functions.iter().position(same) {
            self.bind(def.name.as_str(), Value::Function(index));
        }
    }

    fn class(&mut self, class: &'a ast::StmtClassDef) {
        self.frames.push(Frame::new(None, Some(class.name.as_str()), self.when.len()));
        self.block(&class.body);
        if let Some(frame) = self.frames.pop() {
            self.classes.insert(class.name.as_str(), frame.names);
        }
    }

    fn import(&mut self, import: &'a ast::StmtImport) {
        for alias in &import.names {
            let module = alias.name.as_str();
            let (bound, module) = match &alias.asname {
                Some(name) => (name.as_str(), module),
                None => {
                    let first = module.split('.').next().unwrap_or(module);
                    (first, first)
                }
            };
            self.bind(bound, Value::Module(module.to_owned()));
        }
    }

    fn import_from(&mut self, import: &'a ast::StmtImportFrom) {
        let module = import.module.as_ref().map_or("", |module| module.as_str());
        for alias in &import.names {
            let bound = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
            self.bind(bound, Value::Imported(module.to_owned(), alias.name.to_string()));
        }
    }

    fn guarded<T>(&mut self, of: usize, condition: Condition, work: impl FnOnce(&mut Self) -> T) -> T {
        self.when.push(Guard { of: (0, of), condition });
        let done = work(self);
        self.when.pop();
        done
    }

    fn guard(&mut self) -> usize {
        self.next_guard += 1;
        self.next_guard
    }

    fn branch(&mut self, branch: &'a ast::StmtIf) -> Exit {
        if is_type_checking(&branch.test) {
            return Exit::No;
        }
        let test = self.evaluate(&branch.test);
        let written = self.written(&branch.test);
        let condition =
            if is_main_guard(&branch.test) { Condition::Known(true) } else { test.truth(&written) };
        let of = self.guard();
        let before = self.snapshot();
        let mut ends = Vec::new();
        let taken = match &condition {
            Condition::Known(false) => {
                self.seen.extend(calls_in(&branch.body));
                None
            }
            condition => Some(self.guarded(of, condition.clone(), |machine| machine.block(&branch.body))),
        };
        if let Some(exit) = taken {
            ends.push((exit, self.snapshot()));
        }
        self.restore(before.clone());
        let otherwise = condition.clone().not();
        let exit = if otherwise == Condition::Known(false) {
            for clause in &branch.elif_else_clauses {
                self.seen.extend(calls_in(&clause.body));
            }
            None
        } else {
            Some(self.guarded(of, otherwise.clone(), |machine| machine.clauses(&branch.elif_else_clauses)))
        };
        if let Some(exit) = exit {
            ends.push((exit, self.snapshot()));
        }
        let leaves = |exit: Option<Exit>| exit == Some(Exit::Leaves);
        // What follows runs only where the branch that leaves was not taken.
        if leaves(taken) && !leaves(exit) && exit.is_some() {
            self.when.push(Guard { of: (0, of), condition: otherwise });
        } else if leaves(exit) && !leaves(taken) && taken.is_some() {
            self.when.push(Guard { of: (0, of), condition });
        }
        self.merge(ends)
    }

    fn clauses(&mut self, clauses: &'a [ast::ElifElseClause]) -> Exit {
        let Some((first, rest)) = clauses.split_first() else { return Exit::No };
        let Some(test) = &first.test else { return self.block(&first.body) };
        let value = self.evaluate(test);
        let condition = value.truth(&self.written(test));
        let of = self.guard();
        let before = self.snapshot();
        let taken = self.guarded(of, condition.clone(), |machine| machine.block(&first.body));
        let one = (taken, self.snapshot());
        self.restore(before);
        let exit = self.guarded(of, condition.not(), |machine| machine.clauses(rest));
        let other = (exit, self.snapshot());
        self.merge(vec![one, other])
    }

    fn choice(&mut self, choice: &'a ast::StmtMatch) {
        self.evaluate(&choice.subject);
        let written = self.written(&choice.subject);
        let before = self.snapshot();
        let mut ends = Vec::new();
        for case in &choice.cases {
            self.restore(before.clone());
            let of = self.guard();
            let condition = Condition::Opaque(written.clone());
            let exit = self.guarded(of, condition, |machine| machine.block(&case.body));
            ends.push((exit, self.snapshot()));
        }
        ends.push((Exit::No, before));
        self.merge(ends);
    }

    // -- what the names hold after branches ------------------------------------------------------

    fn snapshot(&self) -> (Names<'a>, Option<Names<'a>>) {
        let inner = self.frames.last().filter(|_| self.frames.len() > 1);
        (self.frames[0].names.clone(), inner.map(|frame| frame.names.clone()))
    }

    fn restore(&mut self, (outer, inner): (Names<'a>, Option<Names<'a>>)) {
        if let (Some(names), Some(frame)) = (inner, self.frames.last_mut()) {
            frame.names = names;
        }
        self.frames[0].names = outer;
    }

    /// After branches, a name holds what all that go on agree on.
    fn merge(&mut self, ends: Vec<(Exit, (Names<'a>, Option<Names<'a>>))>) -> Exit {
        let mut going_on = ends.into_iter().filter(|(exit, _)| *exit == Exit::No).map(|(_, names)| names);
        let Some((mut outer, mut inner)) = going_on.next() else { return Exit::Leaves };
        for (other_outer, other_inner) in going_on {
            agree(&mut outer, &other_outer);
            if let (Some(inner), Some(other)) = (&mut inner, other_inner) {
                agree(inner, &other);
            }
        }
        self.restore((outer, inner));
        Exit::No
    }

    // -- loops, contexts, handlers ---------------------------------------------------------------

    fn each(&mut self, each: &'a ast::StmtFor) {
        let iterable = self.evaluate(&each.iter);
        match iterable.elements() {
            Some(elements) => {
                for element in elements {
                    if !self.step() {
                        return;
                    }
                    self.assign(&each.target, element);
                    self.block(&each.body);
                }
            }
            None => {
                let written = self.written(&each.iter);
                let element = iterable.described().unwrap_or(Value::Unknown);
                self.assign(&each.target, element);
                self.unknown_times(written, &each.body);
            }
        }
        self.block(&each.orelse);
    }

    /// A body that runs any number of times.
    fn unknown_times(&mut self, written: String, body: &'a [Stmt]) {
        let of = self.guard();
        let before = self.snapshot();
        self.guarded(of, Condition::Opaque(written), |machine| machine.block(body));
        let after = self.snapshot();
        self.merge(vec![(Exit::No, before), (Exit::No, after)]);
    }

    fn with(&mut self, with: &'a ast::StmtWith) -> Exit {
        let (before, transactions) = (self.handlers.len(), self.transactions.len());
        for item in &with.items {
            let value = self.evaluate(&item.context_expr);
            if let Some(target) = &item.optional_vars {
                // `with engine.begin() as connection`: what leads elsewhere leads there still.
                let kept = if value == Value::Elsewhere { value } else { Value::Unknown };
                self.assign(target, kept);
            }
            if let Some(call) = suppression(&item.context_expr) {
                let mut caught = Caught::default();
                call.arguments.args.iter().for_each(|class| add_classes(&mut caught, class));
                let place = self.source.place(call.start());
                self.handlers.push(Handler { caught, place, apart: false });
            } else if begins(&item.context_expr) {
                self.transactions.push(self.handlers.len());
            }
        }
        let exit = self.block(&with.body);
        self.handlers.truncate(before);
        self.transactions.truncate(transactions);
        exit
    }

    fn attempt(&mut self, attempt: &'a ast::StmtTry) -> Exit {
        let before = self.handlers.len();
        let mut handlers = Vec::new();
        for ExceptHandler::ExceptHandler(handler) in &attempt.handlers {
            if hides(&handler.body) {
                let mut caught = Caught { all: handler.type_.is_none(), ..Caught::default() };
                if let Some(class) = &handler.type_ {
                    add_classes(&mut caught, class);
                }
                let apart = rolls_back(&handler.body);
                handlers.push(Handler { caught, place: self.source.place(handler.start()), apart });
            }
        }
        // The first that fits catches: it is the innermost.
        self.handlers.extend(handlers.into_iter().rev());
        let start = self.snapshot();
        let mut exit = self.block(&attempt.body);
        self.handlers.truncate(before);
        if exit == Exit::No {
            exit = self.block(&attempt.orelse);
        }
        let mut ends = vec![(exit, self.snapshot())];
        for ExceptHandler::ExceptHandler(handler) in &attempt.handlers {
            self.restore(start.clone());
            let of = self.guard();
            self.in_handler += 1;
            let condition = Condition::Opaque("except".to_owned());
            let exit = self.guarded(of, condition, |machine| machine.block(&handler.body));
            self.in_handler -= 1;
            ends.push((exit, self.snapshot()));
        }
        let exit = self.merge(ends);
        if self.block(&attempt.finalbody) == Exit::Leaves { Exit::Leaves } else { exit }
    }
}

impl<'a> Frame<'a> {
    pub fn new(function: Option<usize>, class: Option<&'a str>, when: usize) -> Self {
        Frame {
            names: Names::new(),
            function,
            class,
            globals: HashSet::new(),
            when,
            returns: Vec::new(),
            yields: Vec::new(),
        }
    }
}

fn agree<'a>(names: &mut Names<'a>, others: &Names<'a>) {
    for (name, value) in names.iter_mut() {
        if others.get(name) != Some(value) {
            *value = Value::Unknown;
        }
    }
    for name in others.keys() {
        names.entry(name).or_insert(Value::Unknown);
    }
}

/// `with connection.begin_nested()` and what else begins a transaction or sets a savepoint.
fn begins(context: &Expr) -> bool {
    let Expr::Call(call) = context else { return false };
    let names = ["begin_nested", "begin", "connect", "connection", "transaction", "atomic"];
    last_name(&call.func).is_some_and(|name| names.contains(&name))
}

/// Whether a handler ends the transaction that failed.
fn rolls_back(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Expr(expression) => match &*expression.value {
            Expr::Call(call) => last_name(&call.func) == Some("rollback"),
            _ => false,
        },
        _ => false,
    })
}

fn add_classes(caught: &mut Caught, class: &Expr) {
    match class {
        Expr::Tuple(tuple) => tuple.elts.iter().for_each(|each| add_classes(caught, each)),
        other => {
            if let Some(name) = last_name(other) {
                caught.add_class(name);
            }
        }
    }
}
