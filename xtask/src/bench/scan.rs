//! `cargo xtask bench scan`: the source scan of a generated application, beside the floor: reading the same
//! files and parsing them with Ruff's parser, on as many threads, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use obyra_migrations::scan::scan;
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};

use super::{median, ms};

/// What a large Flask application has: 5 MB in some hundred files.
const BYTES: usize = 5_000_000;
const FILES_IN_A_PACKAGE: usize = 16;

/// Runs the benchmark.
pub fn run(options: &[&str]) -> Result<()> {
    let runs: usize = match options.iter().position(|o| *o == "--runs") {
        Some(at) => options.get(at + 1).context("--runs N")?.parse()?,
        None => 15,
    };
    let folder = tempfile::tempdir()?;
    let tree = match options.iter().position(|o| *o == "--tree") {
        Some(at) => PathBuf::from(options.get(at + 1).context("--tree DIR")?),
        None => {
            generate(folder.path())?;
            folder.path().to_owned()
        }
    };
    let files = python_files(&tree)?;
    // The first run of each fills the page cache.
    let found = scan(&tree).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    parse_all(&files, 1)?;

    let threads = std::thread::available_parallelism()?.get();
    let (mut floor, mut whole) = (Measured::default(), Measured::default());
    for _ in 0..runs {
        // Side by side, so that a busy machine is equally busy for both.
        floor.add(|| parse_all(&files, threads))?;
        whole.add(|| scan(&tree).map(drop).map_err(|failure| anyhow::anyhow!("{failure}")))?;
    }
    say(format!(
        "{} files, {:.2} MB, {} findings, {threads} threads, {runs} runs",
        found.files,
        found.bytes as f64 / 1e6,
        found.findings.len()
    ));
    let (floor_cpu, whole_cpu) = (floor.cpu_ms(), whole.cpu_ms());
    let (floor, whole) = (median(floor.wall), median(whole.wall));
    say(format!("floor, read and parse: {}, {floor_cpu:.0} ms of processor", ms(floor)));
    say(format!("migrate scan:          {}, {whole_cpu:.0} ms of processor", ms(whole)));
    let ratio = whole.as_secs_f64() / floor.as_secs_f64();
    say(format!(
        "= {ratio:.2} x the floor, {:.2} x by processor time (goal: at most 1.50)",
        whole_cpu / floor_cpu
    ));
    Ok(())
}

/// The runs of one of the two.
#[derive(Default)]
struct Measured {
    wall: Vec<Duration>,
    cpu_ticks: u64,
}

impl Measured {
    fn add(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (ticks, started) = (cpu_ticks()?, Instant::now());
        work()?;
        self.wall.push(started.elapsed());
        self.cpu_ticks += cpu_ticks()? - ticks;
        Ok(())
    }

    /// The mean: a tick, of 10 ms, is too coarse for a single run.
    fn cpu_ms(&self) -> f64 {
        self.cpu_ticks as f64 * 10.0 / self.wall.len() as f64
    }
}

/// What the process has used of the processors, which does not depend on who else uses them.
fn cpu_ticks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).context("/proc/self/stat")?.parse()?) };
    // user and system time: fields 14 and 15, counted from 1, of which the name in parentheses is the second.
    Ok(ticks(11)? + ticks(12)?)
}

/// Reads, parses and lets go of every file.
fn parse_all(files: &[PathBuf], threads: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let parsed: Vec<Result<usize>> = std::thread::scope(|scope| {
        let work = || -> Result<usize> {
            let mut statements = 0;
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let text = fs::read_to_string(file)?;
                statements += parse_unchecked(&text, ParseOptions::from(Mode::Module)).tokens().len();
            }
            Ok(statements)
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or(Ok(0))).collect()
    });
    let mut tokens = 0;
    for count in parsed {
        tokens += count?;
    }
    ensure!(tokens > 0, "nothing was parsed");
    Ok(())
}

fn python_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut pending) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() && !hidden {
                pending.push(entry.path());
            } else if entry.path().extension().is_some_and(|ending| ending == "py") {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// An application with models, views, forms and services that import one another.
fn generate(folder: &Path) -> Result<()> {
    fs::write(folder.join("wsgi.py"), "from app import create_app\napplication = create_app()\n")?;
    let app = folder.join("app");
    let (mut bytes, mut package) = (0, 0);
    let mut packages = String::new();
    while bytes < BYTES {
        let dir = app.join(format!("part_{package}"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("__init__.py"), "from . import views_0\n")?;
        for number in 0..FILES_IN_A_PACKAGE {
            let text = module(package, number);
            bytes += text.len();
            let kind = if number % 2 == 0 { "views" } else { "models" };
            fs::write(dir.join(format!("{kind}_{number}.py")), text)?;
        }
        packages += &format!("    from app import part_{package}\n");
        package += 1;
    }
    let factory = format!(
        "from flask import Flask\nfrom app.extensions import db\n\n\ndef create_app():\n    app = Flask(__name__)\n    db.init_app(app)\n{packages}    return app\n"
    );
    fs::write(app.join("__init__.py"), factory)?;
    fs::write(app.join("extensions.py"), "from flask_sqlalchemy import SQLAlchemy\n\ndb = SQLAlchemy()\n")?;
    Ok(())
}

fn module(package: usize, number: usize) -> String {
    let mut text = format!(
        "\"\"\"Part {package}, file {number}: generated.\"\"\"\n\nfrom flask import Blueprint, jsonify, request\nfrom \
         sqlalchemy import text\n\nfrom app.extensions import db as database\n\nbp = Blueprint(\"part_{package}\", __name__)\n\
         LIMITS = {{\"rows\": 100, \"seconds\": 30}}\n\n"
    );
    for n in 0..18 {
        text += &format!(
            "\nclass Record{n}(database.Model):\n    \"\"\"A record: nothing like ALTER TABLE happens here.\"\"\"\n\n    \
             __tablename__ = \"record_{package}_{number}_{n}\"\n    id = database.Column(database.Integer, primary_key=True)\n    \
             name = database.Column(database.String(120), nullable=False, index=True)\n    \
             amount = database.Column(database.Numeric(14, 2), default=0)\n\n    \
             def total(self, rate=1.21, *, rounded=True):\n        \
             value = (self.amount or 0) * rate + sum(line.price for line in self.lines if line.active)\n        \
             return round(value, 2) if rounded else value\n\n\n@bp.route(\"/records/{n}/<int:record_id>\", methods=[\"GET\", \"POST\"])\n\
             def record_{n}(record_id):\n    # create_all() is not called here\n    page = request.args.get(\"page\", 1, type=int)\n    \
             try:\n        rows = database.session.execute(text(\"SELECT id, name FROM record WHERE id = :id\"), {{\"id\": record_id}})\n        \
             items = [{{\"id\": row.id, \"name\": row.name.strip().title()}} for row in rows if row.id != page]\n    \
             except ValueError as error:\n        return jsonify(error=f\"record {{record_id}}: {{error}}\"), 400\n    \
             return jsonify(items=items[: LIMITS[\"rows\"]], page=page, total=len(items))\n"
        );
    }
    if package == 0 && number == 1 {
        text += "\n\ndef ensure_columns():\n    statements = [\"ALTER TABLE record ADD COLUMN IF NOT EXISTS note text\"]\n    \
                 for statement in statements:\n        try:\n            database.session.execute(text(statement))\n        \
                 except Exception:\n            database.session.rollback()\n\n\nensure_columns()\n";
    }
    text
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(line: String) {
    println!("{line}");
}
