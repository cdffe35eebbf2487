//! Input that is no good: files that are no Python, no UTF-8, no files; trees that lead in circles; sources
//! that were cut and mixed by a machine.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use obyra_evidence::{Exit, Language, Severity};
use obyra_migrations::scan::{Report, scan, scan_sources, tickets};

fn one(bytes: &[u8]) -> Report {
    scan_sources(&[("a.py", bytes)]).unwrap()
}

/// `rule:line` of each finding.
fn rules(report: &Report) -> Vec<String> {
    let shown = report.findings.iter().map(|finding| {
        let line = finding.place.as_ref().unwrap().line;
        format!("{}:{line}", finding.message.code().id().trim_start_matches("scan."))
    });
    shown.collect()
}

#[test]
fn encodings() {
    let create = b"import sqlalchemy\nx = '\xf1'\nmetadata.create_all()\n".as_slice();
    assert_eq!(rules(&one(create)), ["not-utf8:2", "create-all:3"]);
    let with_cookie = [b"# -*- coding: latin-1 -*-\n".as_slice(), create].concat();
    assert_eq!(rules(&one(&with_cookie)), ["create-all:4"]);
    let unknown = [b"#!/usr/bin/python\n# coding: ebcdic-cp-es\n".as_slice(), create].concat();
    assert_eq!(rules(&one(&unknown)), ["unknown-encoding:1"]);
    let marked = "\u{feff}metadata.create_all()\n".as_bytes();
    let report = one(marked);
    assert_eq!(rules(&report), ["create-all:1"]);
    assert_eq!(report.findings[0].place.as_ref().unwrap().column, 1);
    assert_eq!(rules(&one(b"x = 1\0\n")), ["nul-byte:1"]);
    assert_eq!(rules(&one("ñ = 'ñ'; metadata.create_all()\n".as_bytes())), ["create-all:1"]);
    assert_eq!(rules(&one(b"x = 1\r\nmetadata.create_all()\r\n")), ["create-all:2"]);
    assert!(rules(&one(b"")).is_empty());
}

#[test]
fn what_python_does_not_understand() {
    assert_eq!(rules(&one(b"print 'hello'\nmetadata.create_all()\n")), ["python-2:1", "create-all:2"]);
    assert_eq!(rules(&one(b"def f():\n    raise ValueError, 'x'\n")), ["python-2:2"]);
    assert_eq!(
        rules(&one(b"def f(:\n    pass\nmetadata.create_all()\n")),
        ["syntax-error:1", "create-all:3"]
    );
    assert_eq!(rules(&one(b"{{ cookiecutter.name }} = 1 +\n")).len(), 1);
    let report = one(b"x = (\n");
    assert!(!report.has_errors(), "a file that cannot be read is a warning: nothing is known of it");
}

#[test]
fn depth() {
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        format!("x = {}{inner}{}\nmetadata.create_all()\n", open.repeat(times), close.repeat(times))
    };
    for text in [
        deep("[", "1", "]", 100_000),
        deep("-", "1", "", 200_000),
        deep("f(", "1", ")", 100_000),
        deep("[", "1", "]", 20_000),
        deep("(lambda: ", "1", ")", 6_000),
        deep("not ", "1", "", 15_000),
        deep("1 + ", "1", "", 50_000),
        deep("a.", "b", "", 100_000),
        deep("a[", "1", "]", 20_000),
        deep("f'{", "1", "}'", 140),
        deep("1 if 2 else ", "3", "", 20_000),
    ] {
        let found = rules(&one(text.as_bytes()));
        assert!(
            found
                .iter()
                .all(|rule| ["too-deep:1", "create-all:2", "syntax-error:1"].contains(&rule.as_str())),
            "{found:?}"
        );
        assert!(!found.is_empty(), "{}", &text[..20]);
    }
    let nested: String = (0..5_000).map(|depth| format!("{}if x:\n", " ".repeat(depth))).collect();
    assert!(!rules(&one(nested.as_bytes())).is_empty());
}

#[test]
fn names_that_mean_themselves() {
    for text in [
        "x = x\nx()\nx.create_all()\nx.create()\nx.execute(x)\n",
        "x = y\ny = x\nx.create_all\nconn.execute(x)\nf(x.create_all)\n",
        "x = x.x\nx.x()\nx.create(x)\nx.execute(x.x)\n",
        "x = f'{x}{x}{x}'\nconn.execute(x)\nx += f'{x}{x}'\n",
        "for x in x: conn.execute(x)\n",
        "def f(): return f()\nconn.execute(f())\n",
        "def f(s): g(s)\ndef g(s): f(s)\nf('DROP TABLE x')\n",
        "from a import *\nfrom a import x as x\nimport a\nconn.execute(x)\na.x.create_all()\n",
        "import a as b\nb.b.b.execute('DROP TABLE x')\nclass A(A):\n    A = A\n    def A(self): self.A(A)\n",
        "def create_all(): create_all()\ncreate_all()\n",
    ] {
        one(text.as_bytes());
    }
    // Each name is made of ten of the next: to write that out would take longer than the universe is old.
    let mut text: String =
        (0..30).map(|n| format!("a{n} = f'{}'\n", format!("{{a{}}}", n + 1).repeat(10))).collect();
    text += "conn.execute(a0)\nconn.execute(a0 + a0)\n";
    let lists: String =
        (0..30).map(|n| format!("b{n} = [{}]\n", format!("b{}, ", n + 1).repeat(10))).collect();
    one((text + &lists + "for x in b0: conn.execute(x)\n").as_bytes());
    let again: String = (0..200).map(|n| format!("s = s + 'x{n}'\nc = c.cursor().execute(s)\n")).collect();
    one(again.as_bytes());
    let chain: String = (0..3_000).map(|n| format!("def f{n}(s): f{}(s)\n", n + 1)).collect();
    one((chain + "f0('DROP TABLE x')\n").as_bytes());
}

#[test]
fn mixed_sources_never_panic() {
    let seeds = [
        include_str!("scan.rs"),
        "from flask import Flask\nfrom x import db as d, y\napp = Flask(__name__)\n@app.route('/')\ndef f(a, b=1, *c, **e):\n    try:\n        d.create_all()\n    except Exception as e:\n        pass\n    for i, (s, t) in enumerate([('ALTER TABLE x', f'{a!r:>{b}}')]):\n        c.execute(text(s + t), {'a': 1})\nclass A(B, metaclass=C):\n    SQL: str = 'CREATE TABLE é'\n    async def g(self):\n        async with z as q: await q.run_sync(self.m.create_all)\n        match a:\n            case {'x': [1, *_], **r} if (n := 1): yield n\n",
        "url = 'postgresql://u:p@h/d'  # obyra-db: allow[connection-string] because\nDB_PASSWORD = b'x'\nx = t'{a}' if b else lambda: (yield)\ndel x, y[0]\nglobal z\nraise X from y\nassert a, b\nwith suppress(Exception): op.execute('DO $$ BEGIN CREATE TABLE x; END $$')\ntype A[T] = list[T]\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    for round in 0..600 {
        let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
        if bytes.len() > 3_000 {
            let start = random(bytes.len() - 3_000);
            bytes = bytes[start..start + 3_000].to_vec();
        }
        for _ in 0..=random(12) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, b"()[]{}'\"\\\n\t :,.=#$@%f\xff\xc3"[random(23)]),
                2 => drop(bytes.drain(at..(at + random(40)).min(bytes.len()))),
                3 => {
                    let piece: Vec<u8> = bytes[at..(at + random(60)).min(bytes.len())].to_vec();
                    let to = random(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = u8::try_from(random(256)).unwrap();
                    }
                }
            }
        }
        let report = scan_sources(&[("app/a.py", &bytes), ("app/x.py", seeds[1].as_bytes())]).unwrap();
        let rendered = tickets::tickets(&report.findings, Language::Es);
        assert!(rendered.iter().all(|ticket| ticket.name.len() < 200));
    }
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    };
    let create = b"import sqlalchemy\nmetadata.create_all()\n";
    for skipped in [
        "venv/a.py",
        ".venv/a.py",
        "node_modules/x/a.py",
        "other/pyvenv.cfg",
        "other/lib/a.py",
        "build/a.py",
        "a.txt",
    ] {
        write(skipped, create);
    }
    write("app/a.py", create);
    write("big.py", &vec![b'#'; 9 * 1024 * 1024]);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("app/loop")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", folder.path().join("app/gone.py")).unwrap();
    let report = scan(folder.path()).unwrap();
    let mut found = rules(&report);
    found.sort();
    assert_eq!(found, ["create-all:2", "too-large:1"]);
    assert_eq!(report.files, 1);
    assert_eq!(rules(&scan(&folder.path().join("app/a.py")).unwrap()), ["create-all:2"]);
    let missing = scan(&folder.path().join("none")).unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
    assert!(scan(Path::new("/dev/null")).unwrap().findings.is_empty());
}

/// The size of a large application: everything is found, however many files there are.
#[test]
fn a_large_tree() {
    let body: String = (0..66)
        .map(|n| format!("def handler_{n}(request, session):\n    rows = session.execute(text('SELECT {n}'))\n    return [row.name for row in rows if row.value > {n}]\n\n"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for package in 0..24 {
        let dir = folder.path().join(format!("package_{package}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..24 {
            let imports = format!(
                "from sqlalchemy import text\nfrom package_{} import module_{file}\n",
                (package + 1) % 24
            );
            let last = if file == 0 { "session.execute(text('ALTER TABLE t ADD x int'))\n" } else { "" };
            fs::write(dir.join(format!("module_{file}.py")), imports + &body + last).unwrap();
        }
    }
    let report = scan(folder.path()).unwrap();
    assert_eq!(report.files, 576);
    assert!(report.bytes > 5_000_000, "{}", report.bytes);
    assert_eq!(report.findings.len(), 24);
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Warning));
}

#[test]
fn tickets_are_complete_in_both_languages() {
    let report = scan_sources(&[(
        "app/db.py",
        b"from flask import Flask\napp = Flask('x')\nmetadata.create_all()\nmetadata.create_all()\nDB_PASSWORD = 'hunter2-Zq'\n",
    )])
    .unwrap();
    for (language, word) in [(Language::En, "Accepted when"), (Language::Es, "Se acepta cuando")] {
        let tickets = tickets::tickets(&report.findings, language);
        let names: Vec<&str> = tickets.iter().map(|ticket| ticket.name.as_str()).collect();
        assert_eq!(names, ["create-all-app-db-py.md", "password-in-code-app-db-py.md"]);
        for ticket in &tickets {
            assert!(ticket.markdown.contains(word) && !ticket.markdown.contains('{'), "{}", ticket.markdown);
            assert!(!ticket.markdown.contains("hunter2"));
        }
        assert!(
            tickets[0].markdown.contains("`app/db.py:3:1`")
                && tickets[0].markdown.contains("`app/db.py:4:1`")
        );
        let folder = tempfile::tempdir().unwrap();
        tickets::write(&folder.path().join("a/b"), &tickets).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("a/b")).unwrap().count(), 2);
        assert!(tickets::write(Path::new("/dev/null/x"), &tickets).is_err());
    }
}
