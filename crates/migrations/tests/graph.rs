//! What is wrong with graphs of revisions: small histories in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use obyra_evidence::Severity;
use obyra_migrations::Policy;
use obyra_migrations::graph::{Applied, Convention, Naming, check, edited, read, read_sources};

/// The text of a revision that does something.
fn revision(id: &str, parents: &str) -> String {
    format!(
        "revision = '{id}'\ndown_revision = {parents}\ndef upgrade(): op.execute('SELECT 1')\ndef downgrade(): op.execute('SELECT 1')\n"
    )
}

/// `rule severity file:line`, by place.
fn found(files: &[(&str, String)], naming: Naming) -> Vec<String> {
    let sources: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let revisions = read_sources(&sources).unwrap();
    let findings = check(&revisions, &Convention { naming });
    let shown = findings.into_iter().map(|finding| {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let place = finding.place.unwrap();
        let rule = finding.message.code().id();
        format!("{rule} {severity} {}:{}", place.file.display(), place.line)
    });
    shown.collect()
}

#[track_caller]
fn finds(files: &[(&str, String)], expected: &[&str]) {
    assert_eq!(found(files, Naming::Any), expected);
}

#[test]
fn a_sound_history_has_no_findings() {
    finds(
        &[
            ("a.py", revision("a", "None")),
            ("b.py", revision("b", "'a'")),
            ("c.py", revision("c", "'a'")),
            ("d.py", revision("d", "('b', 'c')").replace("op.execute('SELECT 1')", "pass")),
            ("e.py", "from typing import Union\nrevision: str = 'e'\ndown_revision: Union[str, None] = 'd'\nbranch_labels = None\ndepends_on = None\ndef upgrade() -> None:\n    pass\ndef downgrade() -> None:\n    pass\n".into()),
        ],
        &[],
    );
}

#[test]
fn shapes() {
    let a = || ("a.py", revision("a", "None"));
    finds(
        &[a(), ("b.py", revision("b", "'a'")), ("c.py", revision("c", "'a'"))],
        &["graph.several-heads error c.py:1"],
    );
    finds(&[a(), ("b.py", revision("b", "'x'"))], &["graph.missing-parent error b.py:2"]);
    finds(&[a(), ("b.py", revision("b", "('a', 'x')"))], &["graph.missing-parent error b.py:2"]);
    finds(&[("b.py", revision("b", "'c'")), ("c.py", revision("c", "'b'"))], &["graph.cycle error b.py:2"]);
    finds(&[("b.py", revision("b", "'b'"))], &["graph.cycle error b.py:2"]);
    finds(&[a(), ("b.py", revision("a", "None"))], &["graph.duplicate-id error b.py:1"]);
    finds(
        &[a(), ("b.py", revision("b", "'a'")), ("c.py", revision("c", "('a', 'b')"))],
        &["graph.merges-ancestor warning c.py:2"],
    );
    finds(
        &[
            a(),
            ("b.py", revision("b", "'a'")),
            ("c.py", revision("c", "'b'")),
            ("d.py", revision("d", "'a'")),
            ("e.py", revision("e", "('b', 'd')")),
        ],
        &["graph.several-heads error e.py:1", "graph.merges-midway error e.py:2"],
    );
    finds(
        &[a(), ("b.py", revision("b", "None")), ("c.py", revision("c", "('a', 'b')"))],
        &["graph.several-bases-joined note b.py:1"],
    );
    finds(
        &[
            a(),
            ("b.py", revision("b", "None") + "branch_labels = ('x',)\n"),
            ("c.py", revision("c", "('a', 'b')")),
        ],
        &[],
    );
    finds(
        &[a(), ("b.py", revision("b", "'a'") + "depends_on = 'nowhere'\n")],
        &["graph.missing-parent error b.py:5"],
    );
}

#[test]
fn another_file_is_named_as_a_person_would() {
    let one = revision("a", "None");
    let revisions = read_sources(&[("./a.py", &one), ("./b.py", &one)]).unwrap();
    let findings = check(&revisions, &Convention::default());
    assert!(findings[0].message.to_string().starts_with("a.py has the same identifier"), "{findings:?}");
}

#[test]
fn files() {
    let a = || ("a.py", revision("a", "None"));
    finds(&[a(), ("tool.py", "x = 1\n".into())], &["graph.no-revision error tool.py:1"]);
    finds(&[a(), ("b.py", revision("b", "compute()"))], &["graph.not-static warning b.py:2"]);
    finds(&[a(), ("b.py", "P = 'a'\n".to_owned() + &revision("b", "P"))], &[]);
    finds(
        &[("b.py", revision("b", "None").replace("def upgrade", "def up"))],
        &["graph.no-upgrade error b.py:1"],
    );
    finds(
        &[("b.py", "revision = 'b'\ndef upgrade(): pass\n".into())],
        &["graph.no-down-revision error b.py:1"],
    );
    assert_eq!(
        found(&[a(), ("b.py", "revision = 'b'\ndown_revision = (\n".into())], Naming::Any)[0],
        "scan.syntax-error error b.py:3"
    );
    assert_eq!(found(&[("b.py", "\0".into())], Naming::Any), ["scan.nul-byte error b.py:1"]);
    let deep = revision("b", "None") + &format!("x = {}1{}\n", "(".repeat(9_000), ")".repeat(9_000));
    assert_eq!(found(&[("b.py", deep)], Naming::Any), [""; 0], "parentheses leave no trace in the tree");
    let deep =
        format!("revision = 'b'\ndown_revision = None\nx = {}1{}\n", "[".repeat(9_000), "]".repeat(9_000));
    assert_eq!(found(&[("b.py", deep)], Naming::Any), ["scan.too-deep error b.py:1"]);
}

#[test]
fn downgrades() {
    let with = |body: &str| {
        format!(
            "revision = 'a'\ndown_revision = None\ndef upgrade(): op.execute('SELECT 1')\ndef downgrade():\n    {body}\n"
        )
    };
    for (body, expected) in [
        ("pass", "graph.empty-downgrade warning a.py:4"),
        ("'''nothing'''", "graph.empty-downgrade warning a.py:4"),
        ("...", "graph.empty-downgrade warning a.py:4"),
        ("return", "graph.empty-downgrade warning a.py:4"),
        ("raise NotImplementedError('no way back')", "graph.irreversible note a.py:4"),
    ] {
        finds(&[("a.py", with(body))], &[expected]);
    }
    finds(&[("a.py", with("op.drop_table('x')"))], &[]);
    finds(
        &[("a.py", with("pass").replace("def downgrade", "def other"))],
        &["graph.no-downgrade warning a.py:1"],
    );
}

#[test]
fn baselines() {
    let base = "revision = 'a'\ndown_revision = None\ndef upgrade():\n    pass\ndef downgrade():\n    pass\n";
    let next = |body: &str| {
        format!(
            "revision = 'b'\ndown_revision = 'a'\ndef upgrade():\n    {body}\ndef downgrade():\n    op.x()\n"
        )
    };
    let pair = |body: &str| [("a.py", base.to_owned()), ("b.py", next(body))];
    for body in [
        "op.add_column('users', sa.Column('x'))",
        "op.execute('ALTER TABLE users ADD x int')",
        "op.create_index('i', 'users', ['x'])",
        "with op.batch_alter_table('users', schema=None) as batch_op:\n        batch_op.add_column(sa.Column('x'))",
        "helper()\ndef helper(): op.drop_column('users', 'x')",
    ] {
        finds(&pair(body), &["graph.empty-baseline error a.py:3"]);
    }
    for body in [
        "op.create_table('users')\n    op.add_column('users', sa.Column('x'))",
        "op.execute('CREATE TABLE users ()')\n    op.add_column('users', sa.Column('x'))",
        "op.execute(open('x.sql').read())\n    op.add_column('users', sa.Column('x'))",
        "op.rename_table('a', 'users')\n    op.add_column('users', sa.Column('x'))",
        "pass",
    ] {
        let found = found(&pair(body), Naming::Any);
        assert!(!found.iter().any(|f| f.contains("users")), "{body} {found:?}");
    }
    finds(
        &[
            (
                "a.py",
                base.replace("pass\ndef", "op.create_table('x')\ndef").replace("    pass", "    op.x()"),
            ),
            ("b.py", next("op.add_column('users', sa.Column('x'))")),
        ],
        &["graph.table-nobody-creates error b.py:4"],
    );
}

#[test]
fn names() {
    let one = |name: &'static str| found(&[(name, revision("a1", "None"))], Naming::DateFirst);
    assert!(one("20260801_0900_create.py").is_empty());
    assert!(one("2026_08_01_create.py").is_empty());
    assert!(one("2026-08-01-create.py").is_empty());
    for name in ["a1_create.py", "20261301_x.py", "create_20260801.py", "2026080.py"] {
        assert_eq!(one(name), [format!("graph.naming warning {name}:1")]);
    }
    assert!(found(&[("a1_create.py", revision("a1", "None"))], Naming::RevisionFirst).is_empty());
    assert_eq!(found(&[("create.py", revision("a1", "None"))], Naming::RevisionFirst).len(), 1);
    let dated = [("20260801_a.py", revision("a", "None")), ("20260701_b.py", revision("b", "'a'"))];
    assert_eq!(found(&dated, Naming::DateFirst), ["graph.dated-before-parent note 20260701_b.py:1"]);
}

#[test]
fn a_long_chain_takes_no_stack() {
    let texts: Vec<(String, String)> = (0..5_000)
        .map(|n| {
            (
                format!("{n}.py"),
                revision(&n.to_string(), &if n == 0 { "None".into() } else { format!("'{}'", n - 1) }),
            )
        })
        .collect();
    let files: Vec<(&str, String)> = texts.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    finds(&files, &[]);
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let versions = folder.path().join("migrations/versions");
    std::fs::create_dir_all(versions.join("old")).unwrap();
    std::fs::write(versions.join("a.py"), revision("a", "None")).unwrap();
    std::fs::write(versions.join("__init__.py"), "").unwrap();
    std::fs::write(versions.join("old/b.py"), revision("b", "'a'")).unwrap();
    let rules = |file: &str, settings: &str| -> Vec<&'static str> {
        std::fs::write(folder.path().join(file), settings).unwrap();
        let revisions = read(&Policy::default(), folder.path()).unwrap();
        std::fs::remove_file(folder.path().join(file)).unwrap();
        check(&revisions, &Convention::default()).iter().map(|finding| finding.message.code().id()).collect()
    };
    assert_eq!(rules("alembic.ini", ""), ["graph.unreachable-file"]);
    assert_eq!(rules("alembic.ini", "[alembic]\nrecursive_version_locations = true\n"), [""; 0]);
    assert_eq!(rules("pyproject.toml", "[tool.alembic]\nrecursive_version_locations = true\n"), [""; 0]);
    let both = "[alembic]\nversion_locations = %(here)s/migrations/versions %(here)s/migrations/versions/old to_come\n";
    assert_eq!(rules("alembic.ini", both), [""; 0]);
    assert!(read(&Policy { directory: "none".into(), ..Policy::default() }, folder.path()).is_err());
}

#[test]
fn what_was_applied_is_history() {
    let (a, b) = (revision("a", "None"), revision("b", "'a'"));
    let as_applied = read_sources(&[("a.py", &a), ("b.py", &b)]).unwrap();
    let applied = |environment: &str, severity| {
        let each = as_applied.iter().map(move |file| Applied {
            environment: environment.to_owned(),
            at: "2026-11-20 10:00 UTC".to_owned(),
            revision: file.revision.known().unwrap().clone(),
            checksum: file.checksum.clone().unwrap(),
            severity,
        });
        each.collect::<Vec<_>>()
    };
    let everywhere = [applied("dev", Severity::Warning), applied("production", Severity::Error)].concat();
    assert_eq!(edited(&as_applied, &everywhere), []);

    let now = b.replacen("SELECT 1", "SELECT 2", 1);
    let now = read_sources(&[("a.py", &a), ("b.py", &now), ("c.py", &revision("c", "'b'"))]).unwrap();
    assert_eq!(edited(&now, &[]), []);
    let findings = edited(&now, &everywhere);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.severity, finding.subject.as_str()), (Severity::Error, "revision b"));
    let said = finding.message.to_string();
    assert!(said.contains("dev (2026-11-20 10:00 UTC), production (2026-11-20 10:00 UTC)"), "{said}");
    assert_eq!(edited(&now, &applied("dev", Severity::Warning))[0].severity, Severity::Warning);
}
