//! What the text of a statement tells: which command it is, and whether a DO block hides its errors. Pure.

use crate::scan::sql::{Word, split};

/// Commands that change rows or lock tables.
const COMMANDS: [&str; 8] = ["UPDATE", "DELETE", "MERGE", "LOCK", "TRUNCATE", "DO", "CALL", "WITH"];

/// Levels of RAISE that end nothing.
const LEVELS: [&str; 5] = ["DEBUG", "LOG", "INFO", "NOTICE", "WARNING"];

/// The first command of a text that may change rows or lock tables.
pub(super) fn command(sql: &str) -> String {
    let statements = split(sql);
    let mut firsts = statements.iter().filter_map(|words| words.first()?.keyword());
    match firsts.find(|word| COMMANDS.contains(&word.as_str())) {
        Some(word) if word == "LOCK" => "LOCK TABLE".to_owned(),
        Some(word) => word,
        None => "?".to_owned(),
    }
}

/// Whether it is a DO block that catches every error and goes on as if nothing had been.
pub(super) fn hides_errors(sql: &str) -> bool {
    split(sql).iter().any(|words| {
        let is_do = words.first().is_some_and(|word| word.is_one_of(&["DO"]));
        let body = words.iter().find_map(|word| match word {
            Word::Quoted(body) => Some(*body),
            Word::Plain(_) => None,
        });
        is_do && body.is_some_and(body_hides_errors)
    })
}

/// A handler of an EXCEPTION clause.
#[derive(Clone, Copy, Default)]
struct Handler {
    /// It catches whatever comes.
    others: bool,
    /// It does something about it.
    acts: bool,
}

/// The statements of PL/pgSQL end with a semicolon; a handler begins with the statement that follows its WHEN.
fn body_hides_errors(body: &str) -> bool {
    let mut handler: Option<Handler> = None;
    for words in split(body) {
        let word = |at: usize| words.get(at).and_then(|word: &Word<'_>| word.keyword()).unwrap_or_default();
        let begins = word(0) == "EXCEPTION" || (word(0) == "WHEN" && handler.is_some());
        let ends = word(0) == "END" && !["IF", "LOOP", "CASE"].contains(&word(1).as_str());
        if begins || ends {
            if handler.take().is_some_and(Handler::hides) {
                return true;
            }
            if ends {
                continue;
            }
        }
        let mut statement = &words[..];
        if begins {
            let then = words.iter().position(|word| word.is_one_of(&["THEN"])).unwrap_or(words.len());
            let others = words[..then].iter().any(|word| word.is_one_of(&["OTHERS"]));
            handler = Some(Handler { others, acts: false });
            statement = words.get(then + 1..).unwrap_or_default();
        }
        if let Some(handler) = &mut handler {
            handler.acts |= !does_nothing(statement);
        }
    }
    handler.is_some_and(Handler::hides)
}

impl Handler {
    fn hides(self) -> bool {
        self.others && !self.acts
    }
}

/// `NULL`, or a message that nobody has to read.
fn does_nothing(statement: &[Word<'_>]) -> bool {
    match statement {
        [] => true,
        [first] if first.is_one_of(&["NULL"]) => true,
        [first, ..] if first.is_one_of(&["END"]) => true,
        [first, second, ..] => first.is_one_of(&["RAISE"]) && second.is_one_of(&LEVELS),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_hides_what_it_catches() {
        for hides in [
            "DO $$ BEGIN ALTER TABLE a ADD b int; EXCEPTION WHEN OTHERS THEN NULL; END $$",
            "do $x$ begin create table a (b int); exception when others then raise notice 'it was %', sqlerrm; end $x$;",
            "DO $$ BEGIN PERFORM 1; EXCEPTION WHEN duplicate_object THEN RAISE; WHEN others THEN NULL; END $$",
            "DO $$ BEGIN IF true THEN BEGIN EXECUTE 'x'; EXCEPTION WHEN OTHERS THEN END; END IF; END $$",
            "DO LANGUAGE plpgsql 'BEGIN PERFORM 1; EXCEPTION WHEN unique_violation OR OTHERS THEN NULL; END'",
            "SELECT 1; DO $$ BEGIN x := 1; EXCEPTION /* all */ WHEN OTHERS -- of them\n THEN NULL; END $$",
        ] {
            assert!(hides_errors(hides), "{hides}");
        }
    }

    #[test]
    fn a_block_that_does_not() {
        for tells in [
            "DO $$ BEGIN CREATE TYPE mood AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "DO $$ BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN RAISE; END $$",
            "DO $$ BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN RAISE EXCEPTION 'no: %', SQLERRM; END $$",
            "DO $$ BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'x'; INSERT INTO log VALUES (1); END $$",
            "DO $$ BEGIN RAISE EXCEPTION 'WHEN OTHERS THEN NULL'; END $$",
            "DO $$ BEGIN CASE WHEN true THEN NULL; END CASE; END $$",
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN NULL; END $$",
            "DO",
            "DO $$",
        ] {
            assert!(!hides_errors(tells), "{tells}");
        }
    }

    #[test]
    fn a_text_is_named_by_its_first_command() {
        assert_eq!(command("-- all\nupdate a set b = 1"), "UPDATE");
        assert_eq!(command("SET x = 1; LOCK a"), "LOCK TABLE");
        assert_eq!(command("DO $$ BEGIN UPDATE a SET b = 1; END $$"), "DO");
    }
}
