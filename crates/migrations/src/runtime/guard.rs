//! A proven statement with its guard in SQL, so that it needs no Python: it asks whether there is anything to
//! do before it takes a lock, and whether there is the table that it changes.

use obyra_evidence::{Message, scrub_credentials, text};
use obyra_postgres::quote;

use super::check::Checked;
use super::condition::{Asked, Condition};
use super::form::{Again, Effect, Manner, Verb};
use super::object::{Kind, Name, Object};
use super::prove::Ground;
use super::question;
use super::tokens::tokens;

/// A statement that stands by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarded {
    /// What must be there, as expressions.
    pub needs: Vec<String>,
    /// Further conditions under which there is something to do.
    pub asks: Vec<String>,
    pub sql: String,
}

impl Guarded {
    /// The statement with its conditions around it, as a file has it.
    pub fn written(&self) -> String {
        format!("{};\n", self.written_at(""))
    }

    /// The same without its semicolon; the lines after the first are indented so. The statement itself stays as
    /// it is: its lines may be those of a text.
    pub fn written_at(&self, indent: &str) -> String {
        let conditions: Vec<&String> = self.needs.iter().chain(&self.asks).collect();
        if conditions.is_empty() {
            return self.sql.clone();
        }
        let joined = format!("\n{indent}       AND ");
        let conditions = conditions.into_iter().map(String::as_str).collect::<Vec<_>>().join(&joined);
        let tag = tag(&self.sql);
        let lines = [
            &format!("DO {tag}"),
            "BEGIN",
            &format!("    IF {conditions}"),
            "    THEN",
            &format!("        {};", self.sql),
            "    END IF;",
            "END",
            &tag,
        ];
        lines.join(&format!("\n{indent}"))
    }
}

/// A dollar quote that does not occur in a text.
fn tag(sql: &str) -> String {
    let numbered = (1..).map(|number| format!("$guard{number}$"));
    std::iter::once("$guard$".to_owned())
        .chain(numbered)
        .find(|tag| !sql.contains(tag.as_str()))
        .unwrap_or_default()
}

/// The guarded form of a statement; why there is none.
pub(super) fn of(checked: &Checked, ground: &Ground) -> Result<Guarded, Message> {
    use text::runtime as say;
    let (statement, proof) = (&checked.statement, &checked.proof);
    let conditions: Vec<&Condition> =
        statement.when.iter().flat_map(|guard| guard.condition.parts()).collect();
    if let Some(written) = conditions.iter().find_map(|condition| condition.opaque()) {
        return Err(say::LEFT_CONDITION.with("condition", written));
    }
    if scrub_credentials(&statement.sql) != statement.sql {
        return Err(say::LEFT_SECRET.message());
    }
    if proof.search_path.as_ref() != Some(&ground.search_path) {
        return Err(say::LEFT_SEARCH_PATH.message());
    }
    let whole = |needs, asks| Guarded { needs, asks, sql: statement.sql.clone() };
    match proof.manner {
        Manner::Autonomous | Manner::Fed => return Err(say::LEFT_OUTSIDE.message()),
        Manner::Block if conditions.is_empty() => return Ok(whole(Vec::new(), Vec::new())),
        Manner::Block => return Err(say::LEFT_BLOCK.message()),
        _ => {}
    }
    let Some(step) = proof.steps.first() else { return Err(say::LEFT_OUTSIDE.message()) };
    let effects = &step.form.effects;
    let mut needs: Vec<String> = effects.iter().filter_map(needed).collect();
    needs.dedup();
    let done: Option<Vec<String>> = effects.iter().map(|effect| undone(effect, ground)).collect();
    let (asks, all) = match done {
        Some(parts) if parts.len() == 1 => (parts, false),
        Some(parts) if !parts.is_empty() => (vec![format!("({})", parts.join(" OR "))], false),
        _ => (Vec::new(), true),
    };
    let harmless = effects.iter().all(|effect| effect.again == Again::Nothing);
    if all && !harmless && conditions.is_empty() {
        return Err(say::LEFT_UNGUARDED.message());
    }
    // What Python asks about other objects, or what nothing else stands for, is asked in SQL too.
    let about_itself = |condition: &Condition| {
        let asked = condition.question().and_then(|(question, _)| question.asked.as_ref());
        asked.is_some_and(|asked| {
            effects.iter().any(|effect| {
                let own = asked.object.name.name == effect.object.name.name
                    && asked.object.kind == effect.object.kind;
                let table = effect.object.relation().is_some_and(|name| name.name == asked.object.name.name);
                own || asked.object.kind == Kind::Relation && table
            })
        })
    };
    let further = conditions.iter().filter(|condition| all && !harmless || !about_itself(condition));
    let further: Vec<String> = further.filter_map(|condition| condition.sql()).collect();
    Ok(whole(needs, asks.into_iter().chain(further).collect()))
}

/// The table, or the type, that an effect needs.
fn needed(effect: &Effect) -> Option<String> {
    let object = &effect.object;
    let makes_itself = effect.verb == Verb::Makes && object.kind == Kind::Relation && object.of.is_none();
    match object.kind {
        _ if makes_itself || effect.verb == Verb::Removes && object.of.is_none() => None,
        Kind::Label => object.of.as_ref().map(|name| found("to_regtype", name)),
        Kind::Type if effect.verb == Verb::Sets => Some(found("to_regtype", &object.name)),
        _ => object.relation().filter(|name| !name.name.is_empty()).map(|name| found("to_regclass", name)),
    }
}

fn found(function: &str, name: &Name) -> String {
    format!("{function}({}) IS NOT NULL", quote::literal(&name.to_string()))
}

/// What is true while an effect has not taken place; none where the catalogue does not tell.
fn undone(effect: &Effect, ground: &Ground) -> Option<String> {
    let object = &effect.object;
    if object.name.name.is_empty() {
        return None;
    }
    let (there, gone) = existence(object, effect.verb, ground)?;
    match effect.verb {
        Verb::Makes => Some(gone),
        Verb::Removes => Some(there),
        Verb::Sets => None,
    }
}

/// Expressions for an object that is there, and for one that is not.
fn existence(object: &Object, verb: Verb, ground: &Ground) -> Option<(String, String)> {
    let name = quote::literal(&object.name.name);
    let of = object.of.as_ref().map(|of| quote::literal(&of.to_string()));
    let by_name = |function: &str, name: &Name| {
        let call = format!("{function}({})", quote::literal(&name.to_string()));
        Some((format!("{call} IS NOT NULL"), format!("{call} IS NULL")))
    };
    let row = |query: String| Some((format!("EXISTS ({query})"), format!("NOT EXISTS ({query})")));
    match object.kind {
        Kind::Relation => match &object.of {
            Some(table) => {
                by_name("to_regclass", &Name { schema: table.schema.clone(), ..object.name.clone() })
            }
            // What is made without a schema goes to the first of several, and must be looked for there.
            None if object.name.schema.is_none() && verb == Verb::Makes && ground.search_path.len() > 1 => {
                row(format!(
                    "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE c.relname = {name} AND n.nspname = current_schema()"
                ))
            }
            None => by_name("to_regclass", &object.name),
        },
        Kind::Type => by_name("to_regtype", &object.name),
        Kind::Schema => by_name("to_regnamespace", &object.name),
        Kind::Role => by_name("to_regrole", &object.name),
        Kind::Extension => row(format!("SELECT FROM pg_extension WHERE extname = {name}")),
        Kind::Column => row(format!(
            "SELECT FROM pg_attribute \
             WHERE attrelid = to_regclass({}) AND attname = {name} AND NOT attisdropped",
            of?
        )),
        Kind::Constraint => row(format!(
            "SELECT FROM pg_constraint WHERE conrelid = to_regclass({}) AND conname = {name}",
            of?
        )),
        Kind::Trigger => {
            row(format!("SELECT FROM pg_trigger WHERE tgrelid = to_regclass({}) AND tgname = {name}", of?))
        }
        Kind::Policy => {
            row(format!("SELECT FROM pg_policy WHERE polrelid = to_regclass({}) AND polname = {name}", of?))
        }
        Kind::Label => {
            row(format!("SELECT FROM pg_enum WHERE enumtypid = to_regtype({}) AND enumlabel = {name}", of?))
        }
        Kind::Routine | Kind::Rows | Kind::Other => None,
    }
}

/// The conditions that are asked before the one statement of a block, as the server evaluates them: what must
/// be there, and what is to be done. None where the block is not of that form.
pub(super) fn conditions(sql: &str) -> Option<(Vec<String>, Vec<String>)> {
    let tokens = tokens(sql);
    if !tokens.first()?.is("do") {
        return None;
    }
    let body = tokens.iter().find_map(|token| token.literal())?;
    let inner = super::block::read(&body)?;
    let [only] = inner.as_slice() else { return None };
    let parts: Vec<&Condition> = only.when.iter().flat_map(|(_, condition)| condition.parts()).collect();
    if parts.is_empty() {
        return None;
    }
    // What is removed is no need: where it is not there, nothing is to do.
    let effects = super::form::of(&only.sql).effects;
    let removes = |asked: &Asked| {
        effects
            .iter()
            .any(|effect| effect.verb == Verb::Removes && effect.object.name.name == asked.object.name.name)
    };
    let (mut needs, mut asks) = (Vec::new(), Vec::new());
    for part in parts {
        let sql = part.sql()?;
        let needed = part.question().is_some_and(|(question, expected)| {
            let asked = question.asked.as_ref().filter(|_| expected);
            asked.is_some_and(|asked| {
                matches!(asked.object.kind, Kind::Relation | Kind::Type) && !removes(asked)
            })
        });
        if needed { needs.push(sql) } else { asks.push(sql) }
    }
    Some((needs, asks))
}

/// What a need is about: `to_regclass('app.users') IS NOT NULL` is `users`.
pub(super) fn needed_name(need: &str) -> String {
    let tokens = tokens(need);
    match question::of_expression(need, &tokens) {
        Condition::Has(question) => {
            question.asked.map_or_else(|| need.to_owned(), |asked| asked.object.to_string())
        }
        _ => need.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_block_asks_is_told_apart_from_what_it_needs() {
        let block = |condition: &str, sql: &str| {
            let guarded = Guarded { needs: vec![], asks: vec![condition.to_owned()], sql: sql.to_owned() };
            conditions(&guarded.written())
        };
        let (needs, asks) =
            block("to_regclass('t') IS NOT NULL AND to_regclass('i') IS NULL", "CREATE INDEX i ON t (a)")
                .unwrap();
        assert_eq!(
            (needs.as_slice(), asks.as_slice()),
            (
                &["to_regclass('t') IS NOT NULL".to_owned()][..],
                &["NOT (to_regclass('i') IS NOT NULL)".to_owned()][..]
            )
        );
        assert_eq!(needed_name(&needs[0]), "t");
        let (needs, asks) = block("to_regclass('v') IS NOT NULL", "DROP VIEW v").unwrap();
        assert!(needs.is_empty() && asks.len() == 1);
        assert_eq!(block("v_flag", "DROP VIEW v"), None);
        assert_eq!(conditions("DROP VIEW IF EXISTS v"), None);
        assert_eq!(conditions("DO $$ BEGIN DROP VIEW a; DROP VIEW b; END $$"), None);
    }

    #[test]
    fn a_guard_quotes_what_it_must() {
        let guarded = Guarded { needs: vec!["a".into()], asks: vec!["b".into()], sql: "x $guard$ y".into() };
        let written = "DO $guard1$\nBEGIN\n    IF a\n       AND b\n    THEN\n        x $guard$ y;\n    END IF;\nEND\n$guard1$;\n";
        assert_eq!(guarded.written(), written);
    }
}
