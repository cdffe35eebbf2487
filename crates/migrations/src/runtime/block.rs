//! The body of a `DO` block: its statements, each with the conditions under which it runs and the errors that
//! are caught around it.
//!
//! <https://www.postgresql.org/docs/current/plpgsql-control-structures.html>

use std::collections::HashMap;

use obyra_postgres::quote;

use super::condition::Condition;
use super::errors::Caught;
use super::object::{find, split_at, text_of};
use super::question;
use super::tokens::{HOLE, Token, tokens};

/// How deep blocks, branches and loops may nest.
const DEPTH_MAX: usize = 60;

/// A statement of a block.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    /// Its text. What is computed at run time is a hole.
    pub sql: String,
    /// The conditions, each with the byte of its `IF`.
    pub when: Vec<(usize, Condition)>,
    /// The handlers around it, the innermost first.
    pub caught: Vec<Caught>,
    /// Others of its block follow, which an error of this one skips.
    pub is_followed: bool,
}

/// Reads a body. None if it is not understood.
pub(super) fn read(body: &str) -> Option<Vec<Inner>> {
    let all = tokens(body);
    let mut reader = Body {
        text: body,
        tokens: &all,
        at: 0,
        when: Vec::new(),
        variables: HashMap::new(),
        out: Vec::new(),
        depth: 0,
    };
    reader.label();
    reader.block()?;
    reader.is_at_end().then_some(reader.out)
}

struct Body<'t, 'a> {
    text: &'a str,
    tokens: &'t [Token<'a>],
    at: usize,
    when: Vec<(usize, Condition)>,
    /// What a variable was set to, as an expression.
    variables: HashMap<String, String>,
    out: Vec<Inner>,
    depth: usize,
}

impl<'t, 'a> Body<'t, 'a> {
    fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    fn sees(&self, words: &[&str]) -> bool {
        self.peek().is_some_and(|token| token.is_any(words))
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.sees(&[word]);
        self.at += usize::from(found);
        found
    }

    fn is_at_end(&self) -> bool {
        self.tokens[self.at.min(self.tokens.len())..].iter().all(|token| token.raw == ";")
    }

    /// The tokens up to a word outside of brackets; passes over the word too.
    fn until(&mut self, word: &str) -> Option<&'t [Token<'a>]> {
        let rest = &self.tokens[self.at.min(self.tokens.len())..];
        let mut cases = 0_usize;
        let mut brackets = 0_usize;
        let end = rest.iter().position(|token| {
            match token.raw {
                "(" => brackets += 1,
                ")" => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets == 0 && cases == 0 && token.is(word) {
                return true;
            }
            // `CASE … THEN … END` within an expression.
            if token.is("case") {
                cases += 1;
            } else if cases > 0 && token.is("end") {
                cases -= 1;
            }
            false
        })?;
        self.at += end + 1;
        Some(&rest[..end])
    }

    fn label(&mut self) {
        if self.sees(&["<"]) {
            while self.peek().is_some() && !self.sees(&[">"]) {
                self.at += 1;
            }
            self.at += 2;
        }
    }

    /// `[DECLARE …] BEGIN … [EXCEPTION …] END`.
    fn block(&mut self) -> Option<()> {
        if self.eat("declare") {
            while !self.sees(&["begin"]) {
                let declared = self.until(";")?;
                self.declared(declared);
            }
        }
        if !self.eat("begin") {
            return None;
        }
        let start = self.out.len();
        self.statements(&["exception", "end"])?;
        let end = self.out.len();
        if self.eat("exception") {
            let caught = self.handlers()?;
            for (index, inner) in self.out[start..end].iter_mut().enumerate() {
                inner.caught.push(caught.clone());
                inner.is_followed |= start + index + 1 < end;
            }
        }
        if !self.eat("end") {
            return None;
        }
        // A label may follow.
        if self.peek().is_some_and(|token| token.name().is_some()) {
            self.at += 1;
        }
        Some(())
    }

    /// `WHEN condition [OR condition] THEN statements`, each. A handler that raises hides nothing.
    fn handlers(&mut self) -> Option<Caught> {
        let mut caught = Caught::default();
        while self.eat("when") {
            let conditions = self.until("then")?;
            self.when.push((self.here(), Condition::Opaque("EXCEPTION".to_owned())));
            let exits = self.statements(&["when", "end"])?;
            self.when.pop();
            if exits == Exit::Raises {
                continue;
            }
            for condition in split_at(conditions, "or") {
                match condition {
                    [name] => caught.add_condition(name.raw),
                    [sqlstate, code] if sqlstate.is("sqlstate") => {
                        caught.add_condition(&code.literal().unwrap_or_default());
                    }
                    _ => {}
                }
            }
        }
        Some(caught)
    }

    fn here(&self) -> usize {
        self.peek().map_or(self.text.len(), |token| token.at)
    }

    /// Statements up to one of these words. Says how the last of them leaves.
    fn statements(&mut self, enders: &[&str]) -> Option<Exit> {
        if self.depth > DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let before = self.when.len();
        let mut exit = Exit::No;
        while !self.sees(enders) {
            exit = self.statement()?;
        }
        // What follows an early return is over with its block.
        self.when.truncate(before);
        self.depth -= 1;
        Some(exit)
    }

    fn statement(&mut self) -> Option<Exit> {
        self.label();
        let first = self.peek()?;
        match first.raw.to_ascii_lowercase().as_str() {
            ";" => self.at += 1,
            "begin" | "declare" => {
                self.block()?;
                self.eat(";");
            }
            "if" => return self.branch(),
            "for" | "while" | "foreach" | "loop" => self.looped()?,
            "case" => self.cases()?,
            "return" | "exit" | "continue" => {
                let rest = self.until(";")?;
                let conditional = rest.iter().any(|token| token.is("when"));
                return Some(if conditional { Exit::No } else { Exit::Leaves });
            }
            "raise" => {
                let level = self.until(";")?.get(1);
                let told = ["notice", "warning", "info", "log", "debug"];
                let only_tells = level.is_some_and(|level| level.is_any(&told));
                return Some(if only_tells { Exit::No } else { Exit::Raises });
            }
            "perform" => {
                let query = self.until(";")?;
                let query = format!("SELECT {}", text_of(self.text, &query[1..]));
                self.set("found", format!("EXISTS ({query})"));
            }
            "execute" => {
                let expression = self.until(";")?;
                let sql = self.computed(&expression[1..]);
                self.push(sql);
            }
            "null" | "get" | "open" | "close" | "fetch" | "move" | "assert" => drop(self.until(";")?),
            _ => {
                let statement = self.until(";")?;
                self.sql(statement);
            }
        }
        Some(Exit::No)
    }

    /// `IF … THEN … ELSIF … ELSE … END IF`. Where a branch leaves, what follows runs under the
    /// contrary.
    fn branch(&mut self) -> Option<Exit> {
        let (start, before) = (self.here(), self.when.len());
        self.at += 1;
        let (mut left, mut all_leave, mut has_else) = (Vec::new(), true, false);
        let variables = self.variables.clone();
        // A variable that is set in a branch has one of two values afterwards: neither is known.
        let mut kept = variables.clone();
        loop {
            let condition = self.until("then")?;
            let condition = self.condition(condition);
            self.when.push((start, condition.clone()));
            let exit = self.statements(&["elsif", "elseif", "else", "end"])?;
            self.when.pop();
            self.leave_branch(&variables, &mut kept);
            all_leave &= exit != Exit::No;
            if exit != Exit::No {
                left.push(condition.clone());
            }
            self.when.push((start, condition.not()));
            if self.eat("else") {
                has_else = true;
                all_leave &= self.statements(&["end"])? != Exit::No;
                self.leave_branch(&variables, &mut kept);
                break;
            }
            if !(self.eat("elsif") || self.eat("elseif")) {
                break;
            }
        }
        self.when.truncate(before);
        self.variables = kept;
        if !(self.eat("end") && self.eat("if")) {
            return None;
        }
        self.eat(";");
        self.when.extend(left.into_iter().map(|condition| (start, condition.not())));
        Some(if has_else && all_leave { Exit::Leaves } else { Exit::No })
    }

    fn leave_branch(&mut self, before: &HashMap<String, String>, kept: &mut HashMap<String, String>) {
        kept.retain(|name, value| self.variables.get(name) == Some(value));
        self.variables = before.clone();
    }

    /// A loop: how often it runs, nobody knows.
    fn looped(&mut self) -> Option<()> {
        let start = self.here();
        let head = self.until("loop")?;
        let written = super::form::title(self.text, head);
        self.when
            .push((start, Condition::Opaque(if written.is_empty() { "LOOP".to_owned() } else { written })));
        self.variables.clear();
        self.statements(&["end"])?;
        self.variables.clear();
        self.when.pop();
        if !(self.eat("end") && self.eat("loop")) {
            return None;
        }
        self.until(";").map(drop)
    }

    fn cases(&mut self) -> Option<()> {
        let start = self.here();
        self.at += 1;
        let head = self.until("when")?;
        self.variables.clear();
        let written = super::form::title(self.text, head);
        self.when.push((start, Condition::Opaque(written)));
        loop {
            self.until("then")?;
            self.statements(&["when", "else", "end"])?;
            if self.eat("else") {
                self.statements(&["end"])?;
            }
            if !self.eat("when") {
                break;
            }
        }
        self.when.pop();
        if !(self.eat("end") && self.eat("case")) {
            return None;
        }
        self.eat(";");
        Some(())
    }

    /// A condition, with what its variables were set to in their place.
    fn condition(&self, written: &[Token<'_>]) -> Condition {
        let replaced = self.replaced(written);
        let all = tokens(&replaced);
        match question::of_expression(&replaced, &all) {
            Condition::Opaque(_) => Condition::Opaque(super::form::title(self.text, written)),
            condition => condition,
        }
    }

    fn replaced(&self, written: &[Token<'_>]) -> String {
        let mut out = String::new();
        for (index, token) in written.iter().enumerate() {
            let qualified = index.checked_sub(1).is_some_and(|before| written[before].raw == ".");
            match token.name().and_then(|name| self.variables.get(&name)).filter(|_| !qualified) {
                Some(expression) => out.push_str(expression),
                None => out.push_str(token.raw),
            }
            let next = written.get(index + 1);
            if next.is_some_and(|next| next.at > token.end()) {
                out.push(' ');
            }
        }
        out
    }

    fn declared(&mut self, declared: &[Token<'_>]) {
        let Some(name) = declared.first().and_then(Token::name) else { return };
        let at = declared.iter().position(|token| token.is(":=") || token.is("default") || token.raw == "=");
        if let Some(at) = at {
            let value = format!("({})", text_of(self.text, &declared[at + 1..]));
            self.variables.insert(name, value);
        }
    }

    fn set(&mut self, name: &str, expression: String) {
        self.variables.insert(name.to_owned(), expression);
    }

    /// An assignment, a query into a variable, or a statement.
    fn sql(&mut self, statement: &'t [Token<'a>]) {
        let Some(first) = statement.first() else { return };
        if let [name, sign, value @ ..] = statement
            && (sign.raw == ":=" || sign.raw == "=")
            && let Some(name) = name.name()
        {
            let value = self.replaced(value);
            return self.set(&name, format!("({value})"));
        }
        if first.is("select")
            && let Some(at) = find(statement, "into")
        {
            let strict = statement.get(at + 1).is_some_and(|token| token.is("strict"));
            let target = at + 1 + usize::from(strict);
            if let Some(name) = statement.get(target).and_then(Token::name) {
                let before = text_of(self.text, &statement[..at]);
                let after = text_of(self.text, &statement[target + 1..]);
                let query = format!("{before} {after}");
                self.set("found", format!("EXISTS ({query})"));
                return self.set(&name, format!("({query})"));
            }
        }
        self.variables.remove("found");
        let text = text_of(self.text, statement).to_owned();
        self.push(text);
    }

    fn push(&mut self, sql: String) {
        let when = self.when.clone();
        self.out.push(Inner { sql, when, caught: Vec::new(), is_followed: false });
    }

    /// The text that `EXECUTE` is given: literals, `format(…)`, sums; the rest is a hole.
    fn computed(&self, expression: &[Token<'_>]) -> String {
        let end = ["using", "into"].iter().filter_map(|word| find(expression, word)).min();
        let expression = &expression[..end.unwrap_or(expression.len())];
        split_at(expression, "||").into_iter().map(|part| self.part(part)).collect()
    }

    fn part(&self, part: &[Token<'_>]) -> String {
        let part = question::without_brackets(part);
        if let [one] = part {
            return self.literal(one).unwrap_or_else(|| HOLE.to_string());
        }
        if let [function, open, arguments @ .., close] = part
            && function.is("format")
            && open.raw == "("
            && close.raw == ")"
        {
            let arguments = split_at(arguments, ",");
            if let Some(([format], rest)) = arguments.split_first()
                && let Some(format) = format.literal()
            {
                return self.formatted(&format, rest);
            }
        }
        HOLE.to_string()
    }

    fn literal(&self, token: &Token<'_>) -> Option<String> {
        if let Some(text) = token.literal() {
            return Some(text);
        }
        let value = self.variables.get(&token.name()?)?;
        let all = tokens(value);
        match question::without_brackets(&all) {
            [one] => one.literal(),
            _ => None,
        }
    }

    /// `format('ALTER TABLE %I …', …)`.
    fn formatted(&self, format: &str, arguments: &[&[Token<'_>]]) -> String {
        let value = |index: usize| match arguments.get(index) {
            Some([one]) => self.literal(one),
            _ => None,
        };
        let (mut out, mut next) = (String::new(), 0);
        let mut rest = format;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (index, after) =
                match after[digits..].strip_prefix('$').zip(after[..digits].parse::<usize>().ok()) {
                    Some((after, position)) => (position.saturating_sub(1), after),
                    None => (next, after),
                };
            next = index + usize::from(!after.starts_with('%'));
            let hole = || HOLE.to_string();
            match after.chars().next() {
                Some('%') => out.push('%'),
                Some('I') => out.push_str(&value(index).map_or_else(hole, |name| quote::ident(&name))),
                Some('L') => out.push_str(&value(index).map_or_else(hole, |text| quote::literal(&text))),
                _ => out.push_str(&value(index).unwrap_or_else(hole)),
            }
            rest = after.get(1..).unwrap_or_default();
        }
        out + rest
    }
}

/// How statements leave what they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    No,
    Leaves,
    Raises,
}

#[cfg(test)]
mod tests;
