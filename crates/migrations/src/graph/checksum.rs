//! What a revision does, as a checksum: it stays the same while only its looks change.
//!
//! Line endings, comments, the docstring, imports, annotations and layout do not count; every other statement does.

use std::hash::{Hash, Hasher};

use ruff_python_ast::comparable::{ComparableExpr, ComparableStmt};
use ruff_python_ast::{Mod, ModModule, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use sha2::{Digest as _, Sha256};

/// Which way of computing it: checksums of another one say nothing. A new parser may need a new number; a test tells.
const SCHEME: &str = "1";

/// The checksum of a file's text, of which `body` is what the parser made.
pub(super) fn of(text: &str, body: &[Stmt]) -> String {
    // What a string spans over several lines holds their endings.
    if text.contains('\r') {
        let text = text.replace("\r\n", "\n");
        let parsed = parse_unchecked(&text, ParseOptions::from(Mode::Module));
        return match parsed.syntax() {
            Mod::Module(ModModule { body, .. }) => of_body(body),
            Mod::Expression(_) => of_body(&[]),
        };
    }
    of_body(body)
}

/// Whether both were computed in the same way, and differ.
pub(super) fn differ(one: &str, other: &str) -> bool {
    let scheme = |checksum: &str| checksum.split_once(':').map(|(scheme, _)| scheme.to_owned());
    scheme(one) == scheme(other) && one != other
}

fn of_body(body: &[Stmt]) -> String {
    let mut hasher = Stable(Sha256::new());
    for stmt in body {
        statement(stmt, &mut hasher);
    }
    let hex: String = hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{SCHEME}:{hex}")
}

fn statement(stmt: &Stmt, hasher: &mut Stable) {
    match stmt {
        Stmt::Import(_) | Stmt::ImportFrom(_) => {}
        Stmt::Expr(expression) if expression.value.is_literal_expr() => {}
        Stmt::Assign(assign) => {
            for target in &assign.targets {
                (ComparableExpr::from(target), ComparableExpr::from(&assign.value)).hash(hasher);
            }
        }
        Stmt::AnnAssign(assign) => {
            if let Some(value) = &assign.value {
                (ComparableExpr::from(&assign.target), ComparableExpr::from(value)).hash(hasher);
            }
        }
        Stmt::FunctionDef(function) => {
            ("def", function.name.as_str()).hash(hasher);
            for parameter in &*function.parameters {
                (parameter.name().as_str(), parameter.default().map(ComparableExpr::from)).hash(hasher);
            }
            function.body.iter().for_each(|stmt| statement(stmt, hasher));
            "end".hash(hasher);
        }
        other => ComparableStmt::from(other).hash(hasher),
    }
}

/// A hash that is the same on every machine.
struct Stable(Sha256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_usize(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn write_isize(&mut self, number: isize) {
        self.0.update((number as i64).to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn write_i32(&mut self, number: i32) {
        self.0.update(number.to_le_bytes());
    }

    fn write_i64(&mut self, number: i64) {
        self.0.update(number.to_le_bytes());
    }

    /// The whole digest is what is asked for.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(text: &str) -> String {
        let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module));
        let Mod::Module(ModModule { body, .. }) = parsed.syntax() else { panic!("a module") };
        of(text, body)
    }

    const PLAIN: &str = "revision = 'a'\ndown_revision = None\n\ndef upgrade(x=1):\n    op.execute('''CREATE TABLE a (\n  id int)''')\n";

    /// If this fails, a new parser hashes otherwise: give the scheme another number.
    #[test]
    fn the_scheme_is_what_the_ledgers_hold() {
        let hash = "780010281f74f255b2a09b184c22efc179cdacac861a5835f4046e497851ed56";
        assert_eq!(checksum(PLAIN), format!("1:{hash}"));
    }

    #[test]
    fn looks_do_not_count() {
        let dressed = "\"\"\"a docstring\n\nRevises: x\n\"\"\"\nfrom alembic import op\nimport sqlalchemy as sa\n\n\
            revision: str = \"a\"  # said\ndown_revision: str | None = (None)\n\n\n\
            def upgrade(x: int = 1) -> None:\n    \"\"\"up\"\"\"\n    op.execute(\n        '''CREATE TABLE a (\n  id int)''',\n    )\n";
        assert_eq!(checksum(dressed), checksum(PLAIN));
        assert_eq!(checksum(&PLAIN.replace('\n', "\r\n")), checksum(PLAIN));
    }

    #[test]
    fn what_it_does_counts() {
        let changes =
            [("id int", "id  int"), ("'a'", "'b'"), ("x=1", "x=2"), ("upgrade", "other"), ("None", "'z'")];
        for (from, to) in changes {
            assert!(differ(&checksum(&PLAIN.replacen(from, to, 1)), &checksum(PLAIN)), "{to}");
        }
        assert!(!differ("0:00", &checksum(PLAIN)));
    }
}
