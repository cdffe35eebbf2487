//! What a query asks of the catalogue: which object, and in which schemas. What it asks beyond that makes it
//! a question that only the server answers.

use super::condition::{Asked, By, Condition, Question, Scope};
use super::object::{Kind, Name, Object, closing, find, split_at, text_of};
use super::tokens::{HOLE, Kind as TokenKind, Token};

/// What a query tells whoever runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A row where there is one.
    Row(Question),
    /// How many there are.
    Count(Question),
    /// NULL where there is none.
    Value(Question),
    /// Yes or no.
    Truth(Condition),
    /// The names of all that there are.
    Names(Names),
}

/// A query that lists names: one of them can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The query.
    pub sql: String,
    /// Its question, with the name still to come.
    pub asked: Option<Asked>,
}

impl Names {
    /// Whether this name is among them.
    pub fn has(&self, name: &str) -> Condition {
        let sql = format!(
            "EXISTS (SELECT FROM ({}) AS listed(name) WHERE name = {})",
            self.sql,
            obyra_postgres::quote::literal(name)
        );
        let mut asked = self.asked.clone();
        if let Some(asked) = &mut asked {
            asked.object.name = Name::plain(name);
        }
        Condition::Has(Question { sql, asked })
    }
}

/// Reads a query; `text` is the one that its tokens were read from.
pub(super) fn of_query(text: &str, tokens: &[Token<'_>]) -> Option<Reply> {
    let written = text_of(text, tokens);
    let [select, columns @ ..] = tokens else { return None };
    if !select.is("select") || written.contains(HOLE) {
        return None;
    }
    let from = find(columns, "from");
    let selected = &columns[..from.unwrap_or(columns.len())];
    let sql = |form: &str| form.replace("{}", written);
    if from.is_none() {
        let one = without_cast(without_alias(selected));
        return Some(match regclass(one) {
            Some((name, kind)) => {
                Reply::Value(Question { sql: sql("({}) IS NOT NULL"), asked: Some(by_regclass(name, kind)) })
            }
            None => match of_expression(text, without_alias(selected)) {
                Condition::Opaque(_) => return None,
                condition => Reply::Truth(condition),
            },
        });
    }
    let rest = &columns[from? + 1..];
    let facts = facts(rest);
    let counts = selected.first().is_some_and(|token| token.is("count"));
    if counts && selected.len() > 1 && closing(&selected[1..]) == Some(selected.len() - 2) {
        let asked = facts.and_then(Facts::asked);
        return Some(Reply::Count(Question { sql: sql("({}) > 0"), asked }));
    }
    // One column that is a name, and no name in the condition: a list of them.
    if let Some(column) = column(selected).filter(|column| NAMES.iter().any(|(name, _)| name == column)) {
        let named = facts.as_ref().is_some_and(|facts| facts.literal(&column).is_some());
        if !named {
            let asked = facts.and_then(|facts| facts.listed(&column));
            return Some(Reply::Names(Names { sql: written.to_owned(), asked }));
        }
    }
    let asked = facts.and_then(Facts::asked);
    Some(Reply::Row(Question { sql: sql("EXISTS ({})"), asked }))
}

/// Reads an expression that is true or false.
pub(super) fn of_expression(text: &str, tokens: &[Token<'_>]) -> Condition {
    let tokens = without_brackets(tokens);
    let opaque = || Condition::Opaque(super::form::title(text, tokens));
    if tokens.is_empty() || tokens.iter().any(Token::has_hole) {
        return opaque();
    }
    for (word, any) in [("or", true), ("and", false)] {
        let parts = split_at(tokens, word);
        if parts.len() > 1 && find(tokens, "between").is_none() {
            let parts = parts.into_iter().map(|part| of_expression(text, part)).collect();
            return if any { Condition::any(parts) } else { Condition::all(parts) };
        }
    }
    if tokens[0].is("not") {
        return of_expression(text, &tokens[1..]).not();
    }
    if let [constant] = tokens
        && constant.is_any(&["true", "false"])
    {
        return Condition::Known(constant.is("true"));
    }
    if tokens[0].is("exists") && closing(&tokens[1..]) == Some(tokens.len() - 2) {
        return exists(text, &tokens[2..tokens.len() - 1]).unwrap_or_else(opaque);
    }
    compared(text, tokens).unwrap_or_else(opaque)
}

/// `EXISTS (SELECT …)`: true where there is a row, whatever is in it.
fn exists(text: &str, select: &[Token<'_>]) -> Option<Condition> {
    let from = find(select, "from").map(|at| &select[at + 1..])?;
    let sql = format!("EXISTS ({})", text_of(text, select));
    Some(Condition::Has(Question { sql, asked: facts(from).and_then(Facts::asked) }))
}

/// `to_regclass(…) IS NULL`, `(SELECT count(*) …) = 0`, and what else compares one value.
fn compared(text: &str, tokens: &[Token<'_>]) -> Option<Condition> {
    let at = tokens.iter().position(|token| token.is("is")).filter(|at| find(tokens, "is") == Some(*at));
    if let Some(at) = at {
        let (value, test) = (without_brackets(&tokens[..at]), &tokens[at + 1..]);
        let negated = match test {
            [null] if null.is("null") => true,
            [not, null] if not.is("not") && null.is("null") => false,
            [yes] if yes.is("true") => return Some(of_expression(text, value)),
            [no] if no.is("false") => return Some(of_expression(text, value).not()),
            _ => return None,
        };
        let found = value_is_there(text, value)?;
        return Some(if negated { found.not() } else { found });
    }
    let signs = ["=", ">", ">=", "<>", "!=", "<"];
    if let Some(at) = signs.iter().find_map(|sign| find(tokens, sign)) {
        let Some(Reply::Count(question)) = of_query(text, without_brackets(&tokens[..at])) else {
            return None;
        };
        let [number] = &tokens[at + 1..] else { return None };
        return count_is(Condition::Has(question), tokens[at].raw, number.raw);
    }
    match of_query(text, tokens)? {
        Reply::Truth(condition) => Some(condition),
        _ => None,
    }
}

/// What a comparison of a count says of whether there is any.
pub(super) fn count_is(found: Condition, sign: &str, number: &str) -> Option<Condition> {
    match (sign, number) {
        ("=" | "==", "0") | ("<", "1") => Some(found.not()),
        (">" | "<>" | "!=", "0") | (">=", "1") => Some(found),
        _ => None,
    }
}

/// A value that is NULL where there is nothing.
fn value_is_there(text: &str, value: &[Token<'_>]) -> Option<Condition> {
    if let Some((name, kind)) = regclass(without_cast(value)) {
        let sql = format!("{} IS NOT NULL", text_of(text, value));
        return Some(Condition::Has(Question { sql, asked: Some(by_regclass(name, kind)) }));
    }
    match of_query(text, value)? {
        Reply::Value(question) | Reply::Row(question) => Some(Condition::Has(question)),
        Reply::Truth(_) | Reply::Count(_) | Reply::Names(_) => None,
    }
}

fn by_regclass(name: Name, kind: Kind) -> Asked {
    let scope = match (name.schema, kind) {
        (_, Kind::Schema | Kind::Role) => Scope::Global,
        (Some(schema), _) => Scope::Schema(schema),
        (None, _) => Scope::Path,
    };
    Asked { object: Object::new(kind, Name::plain(name.name)), scope, by: By::Regclass }
}

/// `to_regclass('app.users')` and its sisters, or `'app.users'::regclass`.
fn regclass(tokens: &[Token<'_>]) -> Option<(Name, Kind)> {
    let tokens = match tokens {
        [schema, dot, rest @ ..] if schema.is("pg_catalog") && dot.raw == "." => rest,
        tokens => tokens,
    };
    match tokens {
        [function, open, text, close] if open.raw == "(" && close.raw == ")" => {
            let kind =
                kind_of(function.raw.strip_prefix("to_").or_else(|| function.raw.strip_prefix("TO_"))?)?;
            named(text, kind)
        }
        [text, cast, kind] if cast.raw == "::" => named(text, kind_of(kind.raw)?),
        _ => None,
    }
}

fn named(text: &Token<'_>, kind: Kind) -> Option<(Name, Kind)> {
    let text = text.literal().filter(|text| !text.contains(HOLE))?;
    if matches!(kind, Kind::Routine) {
        let bare = text.split('(').next()?;
        return Some((Name::parse(bare)?, kind));
    }
    Some((Name::parse(&text)?, kind))
}

fn kind_of(regtype: &str) -> Option<Kind> {
    Some(match regtype.to_ascii_lowercase().as_str() {
        "regclass" => Kind::Relation,
        "regtype" => Kind::Type,
        "regnamespace" => Kind::Schema,
        "regproc" | "regprocedure" => Kind::Routine,
        "regrole" => Kind::Role,
        _ => return None,
    })
}

/// The columns that hold names, the most particular first, and the kind of what they name.
const NAMES: [(&str, Kind); 24] = [
    ("column_name", Kind::Column),
    ("attname", Kind::Column),
    ("constraint_name", Kind::Constraint),
    ("conname", Kind::Constraint),
    ("enumlabel", Kind::Label),
    ("trigger_name", Kind::Trigger),
    ("tgname", Kind::Trigger),
    ("policyname", Kind::Policy),
    ("polname", Kind::Policy),
    ("indexname", Kind::Relation),
    ("sequence_name", Kind::Relation),
    ("sequencename", Kind::Relation),
    ("matviewname", Kind::Relation),
    ("viewname", Kind::Relation),
    ("tablename", Kind::Relation),
    ("table_name", Kind::Relation),
    ("relname", Kind::Relation),
    ("typname", Kind::Type),
    ("proname", Kind::Routine),
    ("routine_name", Kind::Routine),
    ("extname", Kind::Extension),
    ("schema_name", Kind::Schema),
    ("rolname", Kind::Role),
    ("nspname", Kind::Schema),
];
/// … that name the table of a part.
const TABLES: [&str; 4] = ["table_name", "tablename", "event_object_table", "relname"];
/// … that name a schema.
const SCHEMAS: [&str; 8] = [
    "table_schema",
    "constraint_schema",
    "schemaname",
    "nspname",
    "trigger_schema",
    "event_object_schema",
    "sequence_schema",
    "routine_schema",
];
const NAMESPACES: [&str; 4] = ["relnamespace", "typnamespace", "pronamespace", "connamespace"];
/// … that point to the relation of a part.
const POINTERS: [&str; 5] = ["attrelid", "conrelid", "tgrelid", "polrelid", "indrelid"];
/// … that tell kinds of objects apart that share their names anyway.
const KINDS: [&str; 12] = [
    "relkind",
    "table_type",
    "contype",
    "constraint_type",
    "typtype",
    "prokind",
    "table_catalog",
    "constraint_catalog",
    "attnum",
    "attisdropped",
    "tgisinternal",
    "indisvalid",
];

/// What a column is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Literal(String),
    /// `current_schema()`.
    CurrentSchema,
    /// `ANY (current_schemas(…))`.
    SearchPath,
    Regclass(Name),
    Regtype(Name),
    /// A column of another relation: a join. A name alone may as well be a variable.
    Column,
    /// Not this, or one of several: it says nothing of one schema.
    Several,
}

/// The comparisons of a query, all of which were understood.
#[derive(Clone, Debug, Default)]
struct Facts {
    equal: Vec<(String, Value)>,
    visible: bool,
    information_schema: bool,
}

/// Reads what follows `FROM`. None if anything of it was not understood.
fn facts(from: &[Token<'_>]) -> Option<Facts> {
    let end = ["order", "limit", "group", "union"].iter().filter_map(|word| find(from, word)).min();
    let from = &from[..end.unwrap_or(from.len())];
    let mut facts = Facts {
        information_schema: from.iter().any(|token| token.is("information_schema")),
        ..Facts::default()
    };
    let condition = find(from, "where");
    let joined = &from[..condition.unwrap_or(from.len())];
    for part in split_at(joined, "on").into_iter().skip(1) {
        let end = ["join", "inner", "left", "cross"].iter().filter_map(|word| find(part, word)).min();
        facts.read(&part[..end.unwrap_or(part.len())])?;
    }
    if let Some(at) = condition {
        facts.read(&from[at + 1..])?;
    }
    Some(facts)
}

impl Facts {
    fn read(&mut self, condition: &[Token<'_>]) -> Option<()> {
        let condition = without_brackets(condition);
        let parts = split_at(condition, "and");
        if parts.len() > 1 {
            return parts.into_iter().try_for_each(|part| self.read(part));
        }
        if find(condition, "or").is_some() {
            return None;
        }
        let negated = condition.first()?.is("not");
        let part = if negated { &condition[1..] } else { condition };
        if part.iter().any(|token| token.is("pg_table_is_visible") || token.is("pg_type_is_visible")) {
            self.visible = true;
            return (!negated).then_some(());
        }
        let (name, rest) = column_before(part)?;
        if KINDS.contains(&name.as_str()) {
            return Some(());
        }
        if negated {
            return None;
        }
        let value = comparison(rest)?;
        self.equal.push((name, value));
        Some(())
    }

    fn value(&self, column: &str) -> Option<&Value> {
        self.equal.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    fn literal(&self, column: &str) -> Option<&String> {
        match self.value(column)? {
            Value::Literal(text) => Some(text),
            _ => None,
        }
    }

    /// The one object that is asked for.
    fn asked(self) -> Option<Asked> {
        let by_name =
            NAMES.iter().find_map(|(column, kind)| Some((column, *kind, self.literal(column)?.clone())));
        match by_name {
            Some((column, kind, name)) => self.about(kind, name, column),
            None => match self.value("oid")? {
                Value::Regclass(name) if self.equal.len() == 1 => {
                    Some(by_regclass(name.clone(), Kind::Relation))
                }
                Value::Regtype(name) if self.equal.len() == 1 => Some(by_regclass(name.clone(), Kind::Type)),
                _ => None,
            },
        }
    }

    /// The question of a list, with the name still to come.
    fn listed(self, column: &str) -> Option<Asked> {
        let (_, kind) = NAMES.iter().find(|(name, _)| *name == column)?;
        self.about(*kind, String::new(), column)
    }

    fn about(&self, kind: Kind, name: String, column: &str) -> Option<Asked> {
        let mut used = vec![column];
        let mut object = Object::new(kind, Name::plain(name));
        let mut scope = self.schema(&mut used);
        let mut by = if self.information_schema { By::InformationSchema } else { By::Catalogue };
        let is_part = matches!(kind, Kind::Column | Kind::Constraint | Kind::Trigger | Kind::Policy);
        if is_part || column == "indexname" {
            let of = TABLES.iter().find_map(|column| Some((*column, self.literal(column)?.clone())));
            if let Some((column, table)) = of {
                used.push(column);
                object.of = Some(Name::plain(table));
            }
        }
        let pointed = POINTERS.iter().find_map(|column| match self.value(column)? {
            Value::Regclass(name) => Some((*column, name.clone())),
            _ => None,
        });
        if let Some((column, table)) = pointed {
            used.push(column);
            scope = table.schema.map_or(Scope::Path, Scope::Schema);
            object.of = Some(Name::plain(table.name));
            by = By::Regclass;
        }
        if kind == Kind::Label {
            let by_pointer = match self.value("enumtypid") {
                Some(Value::Regtype(name)) => Some(name.clone()),
                _ => None,
            };
            if let Some(name) = by_pointer {
                used.push("enumtypid");
                scope = name.schema.map_or(Scope::Path, Scope::Schema);
                object.of = Some(Name::plain(name.name));
                by = By::Regclass;
            } else if let Some(name) = self.literal("typname") {
                used.push("typname");
                object.of = Some(Name::plain(name));
            }
        }
        if matches!(kind, Kind::Schema | Kind::Extension | Kind::Role) {
            // There is but one of a name.
            (scope, by) = (Scope::Global, By::Regclass);
        }
        // A comparison that was not used narrows the question to something else.
        let all_used = self.equal.iter().all(|(column, value)| {
            used.contains(&column.as_str()) || matches!(value, Value::Column | Value::Several)
        });
        all_used.then_some(Asked { object, scope, by })
    }

    fn schema(&self, used: &mut Vec<&str>) -> Scope {
        for column in SCHEMAS.iter().chain(&NAMESPACES) {
            let scope = match self.value(column) {
                Some(Value::Literal(schema)) => Scope::Schema(schema.clone()),
                Some(Value::CurrentSchema) => Scope::Current,
                Some(Value::SearchPath) => Scope::Path,
                _ => continue,
            };
            used.push(column);
            return scope;
        }
        if self.visible { Scope::Path } else { Scope::Anywhere }
    }
}

/// A column, with or without the name of its relation, and what follows.
fn column_before<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(String, &'t [Token<'a>])> {
    match tokens {
        [_, dot, column, rest @ ..] if dot.raw == "." => Some((column.name()?, rest)),
        [column, rest @ ..] => Some((column.name()?, rest)),
        [] => None,
    }
}

/// A selection that is one column.
fn column(selected: &[Token<'_>]) -> Option<String> {
    let selected = match selected {
        [distinct, rest @ ..] if distinct.is("distinct") => rest,
        all => all,
    };
    let (name, rest) = column_before(selected)?;
    rest.is_empty().then_some(name)
}

/// `= value`, `IN (…)`, `<> …`.
fn comparison(tokens: &[Token<'_>]) -> Option<Value> {
    match tokens {
        [sign, value @ ..] if sign.raw == "=" => equal(value),
        [sign, ..] if sign.raw == "<>" || sign.raw == "!=" => Some(Value::Several),
        [not, word, ..] if not.is("not") && word.is_any(&["in", "like"]) => Some(Value::Several),
        [word, list @ ..] if word.is("in") && closing(list) == Some(list.len().checked_sub(1)?) => {
            match &list[1..list.len() - 1] {
                [one] => one.literal().map(Value::Literal),
                _ => Some(Value::Several),
            }
        }
        _ => None,
    }
}

fn equal(value: &[Token<'_>]) -> Option<Value> {
    if let Some((name, kind)) = regclass(value) {
        return match kind {
            Kind::Relation => Some(Value::Regclass(name)),
            Kind::Type => Some(Value::Regtype(name)),
            Kind::Schema => Some(Value::Literal(name.name)),
            _ => None,
        };
    }
    let value = without_cast(without_brackets(value));
    match value {
        [one] if one.kind == TokenKind::Text || one.kind == TokenKind::Dollar => {
            one.literal().filter(|text| !text.contains(HOLE)).map(Value::Literal)
        }
        [function, ..] if function.is("current_schema") => Some(Value::CurrentSchema),
        [any, ..] if any.is("any") && value.iter().any(|token| token.is("current_schemas")) => {
            Some(Value::SearchPath)
        }
        [_, dot, column] if dot.raw == "." && column.name().is_some() => Some(Value::Column),
        _ => None,
    }
}

/// Without the brackets around all of it.
pub(super) fn without_brackets<'t, 'a>(mut tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    while !tokens.is_empty() && closing(tokens) == Some(tokens.len() - 1) {
        tokens = &tokens[1..tokens.len() - 1];
    }
    tokens
}

/// Without a cast to text or oid.
fn without_cast<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match tokens {
        [value @ .., cast, kind]
            if cast.raw == "::" && kind.is_any(&["text", "oid", "name", "varchar", "bool"]) =>
        {
            without_cast(value)
        }
        all => all,
    }
}

/// Without `AS name`.
fn without_alias<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match tokens {
        [value @ .., word, _] if word.is("as") => value,
        all => all,
    }
}

#[cfg(test)]
mod tests;
