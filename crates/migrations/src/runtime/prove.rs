//! The proof by reading: that a statement can run again because of its form, of what is asked before it, or
//! of the error that is caught around it; and that what is asked is asked of the right schema. Pure.

mod ground;

use std::collections::{BTreeMap, BTreeSet};

use obyra_evidence::{Code, Message, Severity, text};

use self::ground::Fit;
pub use self::ground::Ground;
use super::condition::{Asked, By, Condition, Question};
use super::errors::{self, Catch, Caught, State};
use super::form::{self, Again, Effect, Form, Manner, Verb};
use super::object::{Kind, Object};
use super::tokens::{Piece, split};
use super::{Statement, block};

/// What reading says of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can run again.
    Proven,
    /// It cannot.
    Refuted,
    /// Only running it tells; why.
    Undecided(Message),
    /// Running it does not tell either; why.
    Unseen(Message),
    /// It changes nothing that a proof could be about.
    Idle,
}

/// Something to tell of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub severity: Severity,
    pub message: Message,
    pub mend: Option<Code>,
}

/// What is known of a statement after reading it.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub verdict: Verdict,
    pub remarks: Vec<Remark>,
    pub title: String,
    pub manner: Manner,
    /// What it does; the statements of a block one by one.
    pub steps: Vec<Step>,
    /// The search path under which it runs, as far as it is known.
    pub search_path: Option<Vec<String>>,
    /// Its guards ask something else than `to_regclass`.
    pub asks_otherwise: bool,
}

impl Proof {
    /// Whether it may write the same values over themselves.
    pub fn writes_again(&self) -> bool {
        self.steps.iter().flat_map(|step| &step.form.effects).any(|effect| effect.writes_again)
    }

    /// What it makes or changes first, for people.
    pub fn subject(&self) -> String {
        let objects = self.steps.iter().flat_map(|step| &step.form.effects).map(|effect| &effect.object);
        let mut named = objects.filter(|object| !object.name.name.is_empty());
        named.next().map_or_else(|| "statement".to_owned(), ToString::to_string)
    }
}

/// A statement, or one of a block.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub form: Form,
    pub when: Vec<Guard>,
    /// The handlers around it, the innermost first, and whether each leaves what was sent before as it is.
    pub caught: Vec<(Caught, bool)>,
    pub is_followed: bool,
}

/// A condition, and which `if` it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The same for all that the same `if` guards.
    pub(super) of: (usize, usize),
    pub(super) condition: Condition,
}

/// Proves statements in the order in which they run.
pub(super) fn prove(statements: &[Statement], ground: &Ground) -> Vec<Proof> {
    let mut prover =
        Prover { path: Some(ground.search_path.clone()), closed: BTreeMap::new(), removed: Vec::new() };
    statements.iter().enumerate().map(|(index, statement)| prover.statement(index, statement)).collect()
}

struct Prover {
    /// The search path, as long as nothing unreadable has set it.
    path: Option<Vec<String>>,
    /// What the statements under an `if` make, so that it is false the next time.
    closed: BTreeMap<(usize, usize), BTreeSet<Object>>,
    /// What was removed before, if it was there, and under which guards.
    removed: Vec<(Object, BTreeSet<(usize, usize)>)>,
}

impl Prover {
    fn statement(&mut self, index: usize, statement: &Statement) -> Proof {
        let pieces = split(&statement.sql);
        let title =
            pieces.first().map(|piece| form::title(&statement.sql, &piece.tokens)).unwrap_or_default();
        let mut proof = Proof {
            verdict: Verdict::Idle,
            remarks: Vec::new(),
            title,
            manner: Manner::Query,
            steps: Vec::new(),
            search_path: self.path.clone(),
            asks_otherwise: false,
        };
        let Some(piece) = pieces.first() else { return proof };
        proof.steps = match steps(index, statement, piece) {
            Ok((manner, steps)) => {
                proof.manner = manner;
                steps
            }
            Err(why) => {
                proof.manner = Manner::Block;
                proof.verdict = Verdict::Undecided(why);
                return proof;
            }
        };
        if let (Manner::Block, [only]) = (proof.manner, proof.steps.as_slice()) {
            proof.title.clone_from(&only.form.title);
        }
        for step in proof.steps.clone() {
            self.step(&step, &mut proof);
        }
        proof
    }

    fn step(&mut self, step: &Step, proof: &mut Proof) {
        if let Some(path) = &step.form.search_path {
            self.path = if step.when.is_empty() { path.clone() } else { None };
            proof.search_path = self.path.clone();
        }
        match step.form.manner {
            Manner::Fed => {
                let why = text::runtime::WHY_FED.message();
                proof.verdict = worse(&proof.verdict, Verdict::Undecided(why));
            }
            Manner::Autonomous => proof.remarks.push(Remark {
                severity: Severity::Warning,
                message: text::runtime::OUTSIDE_TRANSACTION.with("statement", &step.form.title),
                mend: Some(text::runtime::MEND_OUTSIDE_TRANSACTION),
            }),
            _ => {}
        }
        for effect in &step.form.effects {
            let verdict = self.effect(step, effect, proof);
            proof.verdict = worse(&proof.verdict, verdict);
        }
        for effect in &step.form.effects {
            if effect.verb == Verb::Removes && effect.again == Again::Nothing {
                let guards = step.when.iter().map(|guard| guard.of).collect();
                self.removed.push((effect.object.clone(), guards));
            }
        }
    }

    fn effect(&mut self, step: &Step, effect: &Effect, proof: &mut Proof) -> Verdict {
        let about = About { path: self.path.as_deref(), step, effect };
        let guards = about.guards();
        proof.asks_otherwise |= guards.iter().any(|guard| guard.asked.by != By::Regclass);
        let wrong: Vec<Remark> = guards.iter().filter_map(|guard| about.wrong(guard)).collect();
        if !wrong.is_empty() {
            proof.remarks.extend(wrong.into_iter().take(1));
            return Verdict::Refuted;
        }
        if guards.iter().any(|guard| guard.fit == Fit::Unknown) {
            return Verdict::Undecided(text::runtime::WHY_SEARCH_PATH.message());
        }
        let closing = guards.iter().find(|guard| guard.closes);
        if let Some(guard) = closing {
            self.closed.entry(guard.of).or_default().insert(guard.asked.object.clone());
        }
        match &effect.again {
            Again::Nothing => Verdict::Proven,
            _ if closing.is_some() || self.is_closed_with(step, effect) => Verdict::Proven,
            Again::Raises(state) => self.raising(&about, state, proof),
            Again::Unclear(why) => Verdict::Undecided(why.clone()),
            Again::Unseen(why) => Verdict::Unseen(why.clone()),
            Again::Repeats(why) => about.unguarded(text::runtime::REPEATS, why, proof),
            Again::Loses(why) => about.unguarded(text::runtime::LOSES, why, proof),
        }
    }

    /// Whether another statement under the same `if` makes it false the next time: the index of a table that
    /// is made only where it is not there.
    fn is_closed_with(&self, step: &Step, effect: &Effect) -> bool {
        let Some(relation) = effect.object.relation() else { return false };
        let made_with = |guard: &Guard| {
            self.closed.get(&guard.of).is_some_and(|made| {
                made.iter().any(|object| object.kind == Kind::Relation && object.name.name == relation.name)
            })
        };
        step.when.iter().any(made_with)
    }

    /// Whether the same object was removed before, whenever this runs.
    fn was_removed(&self, step: &Step, object: &Object) -> bool {
        let same_part = |one: &Object| match object.kind {
            Kind::Column | Kind::Constraint | Kind::Trigger | Kind::Policy => one.of == object.of,
            _ => one.name.schema == object.name.schema,
        };
        self.removed.iter().any(|(one, guards)| {
            one.kind == object.kind
                && one.name.name == object.name.name
                && same_part(one)
                && guards.iter().all(|of| step.when.iter().any(|guard| guard.of == *of))
        })
    }

    fn raising(&self, about: &About<'_>, state: State, proof: &mut Proof) -> Verdict {
        let step = about.step;
        for (caught, apart) in &step.caught {
            match caught.catches(state) {
                Catch::Exactly if !apart => {
                    let message = text::runtime::GUARD_WITHOUT_SAVEPOINT.with("error", errors::name(state));
                    return about.refuted(message, text::runtime::MEND_SAVEPOINT, proof);
                }
                Catch::Exactly => {
                    if step.is_followed {
                        proof.remarks.push(about.remark(
                            Severity::Warning,
                            text::runtime::SKIPS_REST.with("error", errors::name(state)),
                            text::runtime::MEND_SKIPS_REST,
                        ));
                    }
                    return Verdict::Proven;
                }
                Catch::Broadly => {
                    let message = text::runtime::GUARD_SWALLOWS.with("error", errors::name(state));
                    return about.refuted(message, about.mend(), proof);
                }
                Catch::No => {}
            }
        }
        let named = step.caught.iter().map(|(caught, _)| caught).filter(|caught| !caught.named.is_empty());
        let wrong: Vec<String> = named.map(Caught::shown).collect();
        if !wrong.is_empty() {
            let message = text::runtime::GUARD_WRONG_ERROR
                .with("caught", wrong.join(", "))
                .with("error", errors::name(state))
                .with("sqlstate", state);
            return about.refuted(message, about.mend(), proof);
        }
        if about.effect.verb == Verb::Makes && self.was_removed(step, &about.effect.object) {
            if !about.effect.keeps {
                return Verdict::Proven;
            }
            let message = text::runtime::RECREATES.with("object", &about.effect.object);
            return about.refuted(message, text::runtime::MEND_RECREATES, proof);
        }
        let message =
            text::runtime::NOT_IDEMPOTENT.with("error", errors::name(state)).with("sqlstate", state);
        about.unguarded_as(message, about.mend(), proof)
    }
}

/// The statements of one that was sent: itself, or those of its block.
fn steps(index: usize, statement: &Statement, piece: &Piece<'_>) -> Result<(Manner, Vec<Step>), Message> {
    let form = form::of_tokens(&statement.sql, &piece.tokens);
    let outer: Vec<(Caught, bool)> =
        statement.caught.iter().map(|handler| (handler.caught.clone(), handler.apart)).collect();
    if form.manner != Manner::Block {
        let step = Step { form, when: statement.when.clone(), caught: outer, is_followed: false };
        return Ok((step.form.manner, vec![step]));
    }
    let language = piece.tokens.iter().position(|token| token.is("language"));
    let language = language.and_then(|at| piece.tokens.get(at + 1));
    if language.is_some_and(|token| !token.is("plpgsql") && token.literal().as_deref() != Some("plpgsql")) {
        return Err(text::runtime::WHY_LANGUAGE.message());
    }
    let body = piece.tokens.iter().find_map(|token| token.literal()).unwrap_or_default();
    let Some(inner) = block::read(&body) else { return Err(text::runtime::WHY_BLOCK.message()) };
    let steps = inner.into_iter().map(|inner| {
        let own = inner.when.into_iter().map(|(at, condition)| Guard { of: (index + 1, at), condition });
        let mut form = form::of(&inner.sql);
        form.title = format!("DO … {}", form.title);
        Step {
            form,
            when: statement.when.iter().cloned().chain(own).collect(),
            // A block with a handler has a savepoint.
            caught: inner
                .caught
                .into_iter()
                .map(|caught| (caught, true))
                .chain(outer.iter().cloned())
                .collect(),
            is_followed: inner.is_followed,
        }
    });
    Ok((Manner::Block, steps.collect()))
}

/// The worse of two verdicts: what is refuted stays so, and what is undecided is not proven.
fn worse(one: &Verdict, other: Verdict) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Idle => 0,
        Verdict::Proven => 1,
        Verdict::Undecided(_) => 2,
        Verdict::Unseen(_) => 3,
        Verdict::Refuted => 4,
    };
    if rank(&other) > rank(one) { other } else { one.clone() }
}

/// One effect of a statement, with what surrounds it.
struct About<'p> {
    path: Option<&'p [String]>,
    step: &'p Step,
    effect: &'p Effect,
}

/// A question about the effect's own object, or about the table that it belongs to.
struct Related<'p> {
    of: (usize, usize),
    asked: &'p Asked,
    fit: Fit,
    /// It is false as soon as the statement has run.
    closes: bool,
}

impl<'p> About<'p> {
    fn guards(&self) -> Vec<Related<'p>> {
        let mut related = Vec::new();
        for guard in &self.step.when {
            for part in guard.condition.parts() {
                let Some((Question { asked: Some(asked), .. }, expected)) = part.question() else { continue };
                let object = &self.effect.object;
                let same = is_same(asked, object);
                let table = asked.object.kind == Kind::Relation
                    && object.relation().is_some_and(|name| name.name == asked.object.name.name);
                if !same && !table {
                    continue;
                }
                let fit = ground::fit(self.path, asked, self.effect);
                let closes = same
                    && fit == Fit::Right
                    && match self.effect.verb {
                        Verb::Makes => !expected,
                        Verb::Removes => expected,
                        Verb::Sets => false,
                    };
                related.push(Related { of: guard.of, asked, fit, closes });
            }
        }
        related
    }

    /// What is wrong about a guard.
    fn wrong(&self, guard: &Related<'_>) -> Option<Remark> {
        let object = &guard.asked.object;
        let (schema, path) =
            (ground::target(self.path, self.effect), self.path.unwrap_or_default().join(", "));
        let message = match &guard.fit {
            Fit::Right | Fit::Unknown => return None,
            Fit::AnyTable => text::runtime::GUARD_ANY_TABLE.with("object", &object.name),
            Fit::AnySchema => text::runtime::GUARD_ANY_SCHEMA.with("object", object).with("schema", schema),
            Fit::Other(asked) => text::runtime::GUARD_WRONG_SCHEMA
                .with("object", object)
                .with("asked", asked)
                .with("schema", schema),
            Fit::PathHides => text::runtime::GUARD_SEARCH_PATH
                .with("object", object)
                .with("path", path)
                .with("schema", schema),
        };
        let mend = match guard.fit {
            Fit::AnyTable => text::runtime::MEND_ANY_TABLE,
            _ => text::runtime::MEND_SCHEMA,
        };
        Some(self.remark(Severity::Error, message, mend))
    }

    fn remark(&self, severity: Severity, message: Message, mend: Code) -> Remark {
        Remark { severity, message: message.with("statement", &self.step.form.title), mend: Some(mend) }
    }

    fn refuted(&self, message: Message, mend: Code, proof: &mut Proof) -> Verdict {
        proof.remarks.push(self.remark(Severity::Error, message, mend));
        Verdict::Refuted
    }

    fn unguarded(&self, code: Code, why: &Message, proof: &mut Proof) -> Verdict {
        let mend = match code {
            text::runtime::LOSES => text::runtime::MEND_LOSES,
            _ => text::runtime::MEND_REPEATS,
        };
        self.unguarded_as(code.message().with_sentence("why", why.clone()), mend, proof)
    }

    /// Refuted, unless something is asked beforehand: then only running it tells.
    fn unguarded_as(&self, message: Message, mend: Code, proof: &mut Proof) -> Verdict {
        let parts: Vec<&Condition> =
            self.step.when.iter().flat_map(|guard| guard.condition.parts()).collect();
        match parts.first() {
            None => self.refuted(message, mend, proof),
            Some(_) => match parts.iter().find_map(|part| part.opaque()) {
                Some(written) => Verdict::Undecided(text::runtime::WHY_OPAQUE.with("condition", written)),
                None => Verdict::Undecided(text::runtime::WHY_GUARD.message()),
            },
        }
    }

    /// What to write instead.
    fn mend(&self) -> Code {
        use text::runtime as say;
        match (self.effect.verb, self.effect.object.kind) {
            (Verb::Makes, Kind::Relation | Kind::Schema | Kind::Extension | Kind::Column | Kind::Label) => {
                say::MEND_IF_NOT_EXISTS
            }
            (Verb::Makes, Kind::Routine) => say::MEND_OR_REPLACE,
            (Verb::Makes, Kind::Constraint) => say::MEND_CONSTRAINT,
            (Verb::Makes, Kind::Type) => say::MEND_TYPE,
            (Verb::Makes, Kind::Trigger | Kind::Policy) => say::MEND_DROP_FIRST,
            (Verb::Removes, Kind::Other) => say::MEND_RENAME,
            (Verb::Removes, _) => say::MEND_IF_EXISTS,
            _ => say::MEND_ASK_FIRST,
        }
    }
}

/// Whether the question is about this very object, leaving schemas aside.
fn is_same(asked: &Asked, object: &Object) -> bool {
    let table = |of: &Option<super::object::Name>| of.as_ref().map(|name| name.name.clone());
    let tables = match (table(&asked.object.of), table(&object.of)) {
        (Some(asked), Some(own)) => asked == own,
        _ => true,
    };
    asked.object.kind == object.kind && asked.object.name.name == object.name.name && tables
}

#[cfg(test)]
mod tests;
