//! A script of a schema, as pg_dump writes it: its statements, and what pg_dump says above each.
//!
//! What only psql understands, and rows, have no place in it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use obyra_evidence::{Code, Failure, Place, text};
use obyra_postgres::Result;
use obyra_postgres::lex::{Kind, tokens};
use obyra_postgres::mark;

/// How many words tell what a statement is.
const WORDS: usize = 6;

/// What pg_dump writes above an object: `-- Name: users; Type: TABLE; Schema: app; Owner: -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// `TABLE`, `FK CONSTRAINT`, `COMMENT`, …
    pub kind: String,
    /// Its name, with the table's before it where it belongs to one.
    pub name: String,
    /// Its schema, if it is in one.
    pub schema: Option<String>,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Entry { kind, name, schema } = self;
        let kind = kind.to_lowercase();
        match schema {
            Some(schema) => write!(f, "{kind} {schema}.{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its text, without the semicolon.
    pub sql: String,
    /// The line where it begins, from 1.
    pub line: usize,
    /// What it belongs to; none before the first object.
    pub entry: Option<Arc<Entry>>,
    /// Its first words, in capitals.
    words: Vec<String>,
    /// The word before, in capitals.
    last: String,
    /// `OWNER TO`, wherever it stands.
    gives_owner: bool,
}

/// Why a script cannot be used, and the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    what: Code,
    line: usize,
    shown: String,
}

impl Unfit {
    pub fn failure(self, file: &Path) -> Failure {
        let place = Place { file: file.to_owned(), line: self.line, column: 1 };
        Failure::usage(self.what.with("statement", self.shown)).at(place).mended_by(text::baseline::MEND_DUMP)
    }
}

impl Statement {
    /// Whether its first words are these.
    pub fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(own, word)| own == word)
    }

    /// Owners, privileges and databases: the strategy's, not the schema's.
    pub fn is_of_access(&self) -> bool {
        const OTHERS: [&[&str]; 9] = [
            &["GRANT"],
            &["REVOKE"],
            &["REASSIGN"],
            &["ALTER", "DEFAULT", "PRIVILEGES"],
            &["SET", "SESSION", "AUTHORIZATION"],
            &["SECURITY", "LABEL"],
            &["CREATE", "DATABASE"],
            &["ALTER", "DATABASE"],
            &["COMMENT", "ON", "DATABASE"],
        ];
        OTHERS.iter().any(|words| self.begins(words)) || self.begins(&["ALTER"]) && self.gives_owner
    }

    /// What to run of it: without what no server takes back. None if there is nothing else.
    pub fn to_run(&self) -> Option<Cow<'_, str>> {
        mark::without(&self.sql)
    }

    /// The first words, for a person.
    pub fn shown(&self) -> String {
        match &self.entry {
            Some(entry) => entry.to_string(),
            None => self.words.join(" "),
        }
    }

    fn unfit(&self) -> Option<Unfit> {
        let rows = self.begins(&["INSERT", "INTO"]) || self.begins(&["COPY"]);
        rows.then(|| Unfit {
            what: text::baseline::DUMP_HAS_ROWS,
            line: self.line,
            shown: self.words.join(" "),
        })
    }
}

/// A file's text, if it is one that can be read as a script of this version at most.
pub(super) fn read(file: &Path, major: u32) -> Result<String> {
    use text::baseline as say;
    let unreadable = || Failure::usage(say::DUMP_UNREADABLE.with("file", file.display()));
    let bytes = std::fs::read(file).map_err(|error| unreadable().because(error))?;
    if bytes.starts_with(b"PGDMP") || bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(Failure::usage(say::DUMP_IS_ARCHIVE.with("file", file.display()))
            .mended_by(say::MEND_ARCHIVE.with("file", file.display())));
    }
    let script = String::from_utf8(bytes).map_err(|error| unreadable().because(error))?;
    match dumped_from(&script) {
        Some(found) if found > major => {
            let told = say::DUMP_NEWER.with("file", file.display()).with("found", found).with("major", major);
            Err(Failure::usage(told).mended_by(say::MEND_NEWER.with("found", found)))
        }
        _ => Ok(script),
    }
}

/// The major version of the server that a script was dumped from.
fn dumped_from(script: &str) -> Option<u32> {
    let line =
        script.lines().take(20).find_map(|line| line.strip_prefix("-- Dumped from database version "))?;
    let digits: String = line.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The statements of a script.
pub(super) fn statements(script: &str) -> std::result::Result<Vec<Statement>, Unfit> {
    let mut reader = Reader { line: 1, ..Reader::default() };
    for (kind, token) in tokens(script) {
        reader.take(kind, token)?;
        reader.line += token.matches('\n').count();
    }
    reader.end()?;
    Ok(reader.done)
}

/// Whether a line is psql's: one that begins with a backslash.
#[derive(Default, PartialEq)]
enum Psql {
    #[default]
    No,
    /// The backslash was read.
    Command,
    /// What follows on the line is an argument.
    Argument,
}

#[derive(Default)]
struct Reader {
    line: usize,
    entry: Option<Arc<Entry>>,
    current: Option<Statement>,
    /// Inside of how many parentheses, `BEGIN ATOMIC` and `CASE` of a routine's body.
    depth: usize,
    blocks: usize,
    psql: Psql,
    done: Vec<Statement>,
}

impl Reader {
    fn take(&mut self, kind: Kind, token: &str) -> std::result::Result<(), Unfit> {
        match self.psql {
            Psql::No => {}
            // These two only guard psql itself (since 16.10 pg_dump writes them).
            Psql::Command if ["restrict", "unrestrict"].contains(&token) => {
                self.psql = Psql::Argument;
                return Ok(());
            }
            Psql::Command => return Err(self.meta(token)),
            Psql::Argument => {
                if token.contains('\n') {
                    self.psql = Psql::No;
                }
                return Ok(());
            }
        }
        if self.current.is_none() {
            match kind {
                Kind::Space => return Ok(()),
                Kind::Comment => {
                    if let Some(entry) = entry(token) {
                        self.entry = Some(Arc::new(entry));
                    }
                    return Ok(());
                }
                Kind::Symbol if token == ";" => return Ok(()),
                Kind::Symbol if token == "\\" => {
                    self.psql = Psql::Command;
                    return Ok(());
                }
                _ => {}
            }
        }
        if token == ";" && kind == Kind::Symbol && self.depth == 0 && self.blocks == 0 {
            return self.end();
        }
        let (line, entry) = (self.line, &self.entry);
        let begin = || Statement { line, entry: entry.clone(), ..Statement::default() };
        let statement = self.current.get_or_insert_with(begin);
        statement.sql.push_str(token);
        match (kind, token) {
            (Kind::Symbol, "\\") => return Err(self.meta("")),
            (Kind::Symbol, "(") => self.depth += 1,
            (Kind::Symbol, ")") => self.depth = self.depth.saturating_sub(1),
            (Kind::Word, word) => self.word(&word.to_uppercase()),
            (Kind::Quoted, _) if statement.words.len() < WORDS => statement.words.push(token.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn word(&mut self, word: &str) {
        let Some(statement) = &mut self.current else { return };
        match word {
            "BEGIN" if self.blocks > 0 || creates_routine(statement) => self.blocks += 1,
            "CASE" if self.blocks > 0 => self.blocks += 1,
            "END" => self.blocks = self.blocks.saturating_sub(1),
            "TO" if statement.last == "OWNER" => statement.gives_owner = true,
            _ => {}
        }
        word.clone_into(&mut statement.last);
        if statement.words.len() < WORDS {
            statement.words.push(word.to_owned());
        }
    }

    fn meta(&self, command: &str) -> Unfit {
        Unfit { what: text::baseline::DUMP_HAS_META, line: self.line, shown: format!("\\{command}") }
    }

    fn end(&mut self) -> std::result::Result<(), Unfit> {
        let Some(mut statement) = self.current.take() else { return Ok(()) };
        statement.sql.truncate(statement.sql.trim_end().len());
        (self.depth, self.blocks) = (0, 0);
        if let Some(unfit) = statement.unfit() {
            return Err(unfit);
        }
        self.done.push(statement);
        Ok(())
    }
}

/// Whether a `BEGIN` here opens the body of a function.
fn creates_routine(statement: &Statement) -> bool {
    const ROUTINES: [&[&str]; 4] = [
        &["CREATE", "FUNCTION"],
        &["CREATE", "PROCEDURE"],
        &["CREATE", "OR", "REPLACE", "FUNCTION"],
        &["CREATE", "OR", "REPLACE", "PROCEDURE"],
    ];
    ROUTINES.iter().any(|words| statement.begins(words))
}

/// Reads what pg_dump writes above an object. A name may hold whatever a name may hold.
fn entry(comment: &str) -> Option<Entry> {
    let rest = comment.strip_prefix("-- Name: ").or_else(|| comment.strip_prefix("-- Data for Name: "))?;
    let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    let schema = (schema != "-").then(|| schema.to_owned());
    Some(Entry { kind: kind.to_owned(), name: name.to_owned(), schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<String> {
        statements(script).expect("statements").into_iter().map(|statement| statement.sql).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_everything() {
        let script = "SET a = ';';\n\n-- Name: f(); Type: FUNCTION; Schema: app; Owner: -\n\n\
            CREATE FUNCTION app.f() RETURNS int LANGUAGE sql\n BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;\n\
            CREATE RULE r AS ON DELETE TO v DO INSTEAD (SELECT 1; SELECT 2);\n\
            CREATE FUNCTION g() RETURNS int AS $x$\n-- Name: fake; Type: TABLE; Schema: a; Owner: -\n;$x$;";
        let found = statements(script).expect("statements");
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].entry, None);
        let entry = Entry { kind: "FUNCTION".into(), name: "f()".into(), schema: Some("app".into()) };
        assert!(found[1..].iter().all(|statement| statement.entry.as_deref() == Some(&entry)));
        assert_eq!((found[1].line, found[2].line, found[3].line), (5, 7, 8));
        assert!(found[1].sql.ends_with("END; END"), "{}", found[1].sql);
    }

    #[test]
    fn what_psql_guards_itself_with_is_skipped_and_the_rest_is_refused() {
        assert_eq!(texts("\\restrict a1b2\n\nSET x = 1;\n\\unrestrict a1b2\n"), ["SET x = 1"]);
        let refused = |script: &str| statements(script).expect_err("a refusal");
        assert_eq!(refused("SELECT 1;\n\\connect other\n").line, 2);
        assert_eq!(refused("\\connect other\n").shown, "\\connect");
        assert_eq!(refused("SELECT 1 \\gexec\n").what, text::baseline::DUMP_HAS_META);
        let rows = refused("SET a = 1;\nCOPY app.t (id) FROM stdin;\n1\tit's\n\\.\n");
        assert_eq!((rows.line, rows.what), (2, text::baseline::DUMP_HAS_ROWS));
        assert_eq!(refused("INSERT INTO t VALUES (1)").line, 1);
    }

    #[test]
    fn owners_and_privileges_are_told_apart() {
        let of_access = |script: &str| statements(script).expect("one")[0].is_of_access();
        assert!(of_access("ALTER TABLE app.t OWNER TO somebody"));
        assert!(of_access("ALTER FUNCTION app.f(owner integer) OWNER TO somebody"));
        assert!(of_access("GRANT SELECT ON TABLE t TO x"));
        assert!(!of_access("ALTER SEQUENCE app.s OWNED BY app.t.id"));
        assert!(!of_access("CREATE TABLE owner (\"OWNER\" int)"));
    }

    #[test]
    fn names_hold_whatever_they_hold() {
        let found = entry("-- Name: a; Type: b c; Type: FK CONSTRAINT; Schema: x; y; Owner: -");
        let found = found.expect("an entry");
        assert_eq!((found.name.as_str(), found.kind.as_str()), ("a; Type: b c", "FK CONSTRAINT"));
        assert_eq!(found.schema.as_deref(), Some("x; y"));
        assert_eq!(entry("-- Dumped by pg_dump"), None);
    }
}
