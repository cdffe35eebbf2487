use super::*;

/// The beginnings of the statements, a few characters of each.
fn starts(text: &str) -> Vec<&str> {
    let end = |start: usize| text[start..].char_indices().nth(8).map_or(text.len(), |(at, _)| start + at);
    statements(text).unwrap().iter().map(|s| text[s.start..end(s.start)].trim()).collect()
}

fn refused(text: &str) -> Option<(Code, usize)> {
    statements(text).err().map(|refusal| (refusal.what, refusal.byte))
}

#[test]
fn statements_end_at_semicolons_that_count() {
    assert_eq!(starts("SELECT 1; \n INSERT 2;;"), ["SELECT 1", "INSERT 2"]);
    assert_eq!(starts("SELECT ';' ; UPDATE x"), ["SELECT '", "UPDATE x"]);
    assert_eq!(starts(r"SELECT 'a\'; UPDATE x"), ["SELECT '", "UPDATE x"]);
    assert_eq!(starts(r"SELECT E'a\';b''\';c'; UPDATE x"), ["SELECT E", "UPDATE x"]);
    assert_eq!(starts("SELECT 'it''s; so'; UPDATE x"), ["SELECT '", "UPDATE x"]);
    assert_eq!(starts("SELECT \"a;b\"; UPDATE x"), ["SELECT \"", "UPDATE x"]);
    assert_eq!(starts("-- a; b\nSELECT 1 -- c;\n; /* ; /* ; */ ; */ UPDATE x"), ["SELECT 1", "UPDATE x"]);
    assert_eq!(starts("DO $$ BEGIN NULL; END $$; UPDATE x"), ["DO $$ BE", "UPDATE x"]);
    assert_eq!(starts("DO $a$ $$ ; $b$ ; $a$; UPDATE x"), ["DO $a$ $", "UPDATE x"]);
    assert_eq!(starts("SELECT a$b$; UPDATE x"), ["SELECT a", "UPDATE x"]);
    assert_eq!(starts("SELECT $1; UPDATE $2"), ["SELECT $", "UPDATE $"]);
    assert_eq!(starts("SELECT 'año ñandú;'; UPDATE x"), ["SELECT '", "UPDATE x"]);
    assert!(starts("  -- nothing but a comment").is_empty());
}

#[test]
fn the_body_of_a_sql_function_is_one_statement() {
    let text = "CREATE OR REPLACE FUNCTION f(x int) RETURNS int LANGUAGE sql BEGIN ATOMIC
                SELECT CASE x WHEN 1 THEN 2 END; SELECT 3; END; UPDATE x";
    assert_eq!(starts(text), ["CREATE O", "UPDATE x"]);
}

#[test]
fn a_seed_may_not_leave_its_transaction() {
    for text in [
        "BEGIN",
        "begin;",
        "COMMIT",
        "commit and chain",
        "END",
        "ABORT",
        "ROLLBACK",
        "ROLLBACK WORK",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'x'",
    ] {
        let padded = format!("SELECT 'ñ'; /* c */ {text}; SELECT 2");
        assert_eq!(refused(&padded), Some((text::seeds::TRANSACTION_CONTROL, 21)), "{text}");
    }
    for text in [
        "SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a; RELEASE a",
        "DO $$ BEGIN COMMIT; END $$",
        "SELECT 'COMMIT'",
        "PREPARE q AS SELECT 1",
        "SELECT CASE WHEN true THEN 1 END",
    ] {
        assert_eq!(refused(text), None, "{text}");
    }
}

#[test]
fn what_only_psql_understands_is_told() {
    assert_eq!(refused("SELECT 1;\n\\i other.sql\n"), Some((text::seeds::META_COMMAND, 10)));
    assert_eq!(refused(r"SELECT 'a\b', E'\n', $$\x$$ -- \y"), None);
    assert_eq!(refused("COPY t (a) FROM stdin;\n1\n\\."), Some((text::seeds::COPIES_INLINE, 0)));
    assert_eq!(refused("COPY t FROM STDIN"), Some((text::seeds::COPIES_INLINE, 0)));
    assert_eq!(refused("INSERT INTO t (stdin) VALUES (1)"), None);
}

#[test]
fn a_place_counts_characters() {
    let text = "SELECT 1;\n-- ñandú\n  SELECT 'año', x";
    let at = place(Path::new("a.sql"), text, text.len() - 1);
    assert_eq!((at.line, at.column), (3, 17));
}

#[test]
fn never_panics_on_what_is_cut_short() {
    let text =
        "SELECT E'\\ñ''', \"ñ\", $ñ$ñ$ñ$, /* /* ñ */ */ 'ñ'; CREATE FUNCTION f() BEGIN ATOMIC CASE END; END";
    for (end, _) in text.char_indices() {
        for start in 0..end {
            if text.is_char_boundary(start) {
                let _ = statements(&text[start..end]);
            }
        }
    }
}
