//! `migrate runtime check|export|apply|to-revision`: the statements that an application sends at every start.

mod apply;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use obyra_evidence::{Exit, Failure, Message, Outcome, Place, Severity, text};
use obyra_migrations::runtime::{
    Bench, Check as Report, Draft, Export as Files, Ground, Helper, Site, Start, Verdict, check, draft,
    folder, found,
};
use obyra_migrations::{Policy, PythonSearch, gate};
use obyra_postgres::Conninfo;
use obyra_postgres::cluster::Search;
use obyra_strategy::{Environment, Strategy};

use self::apply::Apply;
use crate::clock;
use crate::commands::findings::{self, Format};
use crate::commands::gate::{Prepared, project, strictest};
use crate::commands::migrate::hidden_variables;
use crate::environment::{Opened, Told};
use crate::invocation::Invocation;

/// Without a strategy, PostgreSQL's version and a database's name.
const MAJOR: u32 = 16;
const DATABASE: &str = "app";
const PATIENCE: Duration = Duration::from_secs(60);

/// Verbs of `migrate runtime`.
#[derive(Debug, Subcommand)]
pub enum Runtime {
    /// Whether each statement can run again, read and run twice on a throw-away server
    #[command(
        after_help = "Exit code 0: no finding of level error. 2: findings.\n\nExamples:\n  obyra-db migrate runtime check\n  obyra-db migrate runtime check app/migrations_runtime.py --format github\n  obyra-db migrate runtime check migrations/runtime --environment production\n  obyra-db migrate runtime check helper.py --schema production-schema.sql --json"
    )]
    Check(Check),
    /// Write the proven statements as ordered SQL files, each with a guard that asks first
    #[command(
        after_help = "Exit code 0: all are written. 2: findings; what is proven is written.\n\nExamples:\n  obyra-db migrate runtime export\n  obyra-db migrate runtime export app/migrations_runtime.py --to migrations/runtime"
    )]
    Export(Export),
    /// Run the exported files that have something to do, each in its own transaction
    #[command(
        after_help = "Shows first what it would do. Refused (3): files that nothing proves.\n\nExamples:\n  obyra-db migrate runtime apply dev\n  obyra-db migrate runtime apply production --yes\n  obyra-db migrate runtime apply staging --from migrations/runtime"
    )]
    Apply(Apply),
    /// Turn the proven statements into one Alembic revision, so that the helper can disappear
    #[command(
        after_help = "Exit code 0: all are in it. 2: findings; what is proven is in it.\n\nExamples:\n  obyra-db migrate runtime to-revision\n  obyra-db migrate runtime to-revision app/migrations_runtime.py -m 'what the start used to do'\n  obyra-db migrate gate"
    )]
    ToRevision(ToRevision),
}

/// What is checked, and for which environment.
#[derive(Args, Debug)]
pub struct Subject {
    /// A file of Python or SQL, or a folder of them; default: [migrations] runtime, else migrations_runtime.py
    /// and the folder runtime beside the revisions
    pub path: Option<PathBuf>,
    /// The environment whose version, roles and search path count; default: production's
    #[arg(long, value_name = "ENV")]
    pub environment: Option<String>,
    /// The format
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Arguments of `migrate runtime check`.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub subject: Subject,
    /// Try them on this schema, as pg_dump --schema-only writes it, in place of Alembic's head
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
}

/// Arguments of `migrate runtime export`.
#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    pub subject: Subject,
    /// The folder; default: the folder runtime beside the revisions
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// Arguments of `migrate runtime to-revision`.
#[derive(Args, Debug)]
pub struct ToRevision {
    #[command(flatten)]
    pub subject: Subject,
    /// What the revision is called
    #[arg(long, short, default_value = "runtime alterations")]
    pub message: String,
}

/// Runs the verb.
pub async fn run(invocation: &mut Invocation, verb: &Runtime) -> Result<Exit, Failure> {
    // A helper can be checked without a strategy; what is written needs one.
    let strategy = match invocation.strategy() {
        Ok(strategy) => Some(strategy),
        Err(failure) if failure.what.code() == text::cli::NO_STRATEGY => {
            let path = match verb {
                Runtime::Check(arguments) => arguments.subject.path.as_ref(),
                _ => None,
            };
            if path.is_none() {
                return Err(failure);
            }
            None
        }
        Err(failure) => return Err(failure),
    };
    match (verb, &strategy) {
        (Runtime::Check(arguments), strategy) => checked(invocation, strategy.as_ref(), arguments).await,
        (Runtime::Export(arguments), Some(strategy)) => exported(invocation, strategy, arguments).await,
        (Runtime::Apply(arguments), Some(strategy)) => apply::run(invocation, strategy, arguments).await,
        (Runtime::ToRevision(arguments), Some(strategy)) => revised(invocation, strategy, arguments).await,
        (_, None) => Err(Failure::usage(text::cli::NO_STRATEGY.with("folder", "."))),
    }
}

async fn checked(
    invocation: &Invocation,
    strategy: Option<&Strategy>,
    arguments: &Check,
) -> Result<Exit, Failure> {
    let printer = invocation.printer;
    let proving = match Proving::of(invocation, strategy, &arguments.subject, false) {
        Ok(proving) => proving,
        // A project that has no helper has nothing to prove.
        Err(failure) if failure.what.code() == text::runtime::NO_HELPER => {
            findings::print(printer, "obyra-db migrate runtime check", arguments.subject.format, &[]);
            printer.note(failure.what);
            return Ok(Exit::Done);
        }
        Err(failure) => return Err(failure),
    };
    let report = proving.check(arguments.schema.as_deref()).await?;
    findings::print(printer, "obyra-db migrate runtime check", arguments.subject.format, &report.findings);
    proving.summary(&report, arguments.schema.is_some());
    Ok(exit(&report))
}

async fn exported(invocation: &Invocation, strategy: &Strategy, arguments: &Export) -> Result<Exit, Failure> {
    let proving = Proving::of(invocation, Some(strategy), &arguments.subject, true)?;
    let report = proving.check(None).await?;
    let (policy, project) = proving.place(strategy)?;
    let files = Files::of(&report, &proving.ground, (policy, &project), arguments.to.as_deref());
    if !files.files.is_empty() {
        files.write()?;
    }
    let printer = invocation.printer;
    if printer.json {
        printer.json(&serde_json::json!({ "export": files, "findings": report.findings }));
        return Ok(exit(&report));
    }
    findings::print(printer, "obyra-db migrate runtime export", arguments.subject.format, &report.findings);
    proving.summary(&report, false);
    proving.left_out(&files.left_out);
    let count = files.files.len();
    printer.line(text::runtime::EXPORTED.with("count", count).with("folder", files.folder.display()));
    Ok(exit(&report))
}

async fn revised(
    invocation: &Invocation,
    strategy: &Strategy,
    arguments: &ToRevision,
) -> Result<Exit, Failure> {
    let proving = Proving::of(invocation, Some(strategy), &arguments.subject, false)?;
    let report = proving.check(None).await?;
    let (policy, project) = proving.place(strategy)?;
    let date = clock::now().strftime("%Y%m%d_%H%M").to_string();
    let named = (arguments.message.as_str(), date.as_str());
    let draft = draft(&report, &proving.ground, (policy, &project), named)?;
    if !draft.exists {
        draft.write()?;
    }
    let printer = invocation.printer;
    if printer.json {
        printer.json(&serde_json::json!({ "revision": draft, "findings": report.findings }));
        return Ok(exit(&report));
    }
    findings::print(
        printer,
        "obyra-db migrate runtime to-revision",
        arguments.subject.format,
        &report.findings,
    );
    proving.summary(&report, false);
    proving.left_out(&draft.left_out);
    tell(invocation, &draft);
    Ok(exit(&report))
}

fn tell(invocation: &Invocation, draft: &Draft) {
    use text::runtime as say;
    let printer = invocation.printer;
    if draft.exists {
        printer.line(say::REVISION_EXISTS.with("revision", &draft.id));
        return;
    }
    let written = say::REVISION_WRITTEN
        .with("file", draft.file.display())
        .with("revision", &draft.id)
        .with("count", draft.statements);
    printer.line(written);
    for statement in &draft.irreversible {
        printer.note(say::IRREVERSIBLE.with("statement", statement));
    }
    printer.note(say::REVISION_NEXT);
}

fn exit(report: &Report) -> Exit {
    if report.has_errors() { Exit::Findings } else { Exit::Done }
}

/// A helper, and the environment for which it is proven.
struct Proving<'a> {
    invocation: &'a Invocation,
    opened: Option<Opened<'a>>,
    helper: Helper,
    ground: Ground,
}

impl<'a> Proving<'a> {
    /// With `exports`, what was exported before is no part of it.
    fn of(
        invocation: &'a Invocation,
        strategy: Option<&'a Strategy>,
        subject: &Subject,
        exports: bool,
    ) -> Result<Self, Failure> {
        let opened = match strategy {
            Some(strategy) => {
                let named = subject.environment.as_deref();
                let name = named.or_else(|| strictest(strategy).map(|environment| environment.name.as_str()));
                Some(Opened::new(invocation, strategy, name.unwrap_or_default())?)
            }
            None => None,
        };
        let paths = match (&subject.path, &opened) {
            (Some(path), _) => vec![path.clone()],
            (None, Some(opened)) => paths(opened, exports)?,
            (None, None) => Vec::new(),
        };
        let helper = Helper::open(&paths)?;
        let ground = opened.as_ref().map(|opened| ground(opened.environment)).unwrap_or_default();
        Ok(Proving { invocation, opened, helper, ground })
    }

    fn place(&self, strategy: &'a Strategy) -> Result<(&Policy, PathBuf), Failure> {
        match &self.opened {
            Some(opened) => Ok((&opened.environment.migrations, as_named(project(&strategy.folder)))),
            None => Err(Failure::usage(text::cli::NO_STRATEGY.with("folder", "."))),
        }
    }

    /// Checks the helper, and records what came of it.
    async fn check(&self, schema: Option<&Path>) -> Result<Report, Failure> {
        let progress = self.invocation.progress();
        let dump = schema.map(|file| Start::Dump(gate::Start::Dump(file.to_owned())));
        let Some(opened) = &self.opened else {
            let search = Search { bin_dir: None, cache: self.invocation.cache()?, major: MAJOR };
            let start = dump.unwrap_or(Start::Empty);
            let bench = Bench {
                postgres: &search,
                database: DATABASE,
                start,
                ground: self.ground.clone(),
                patience: PATIENCE,
            };
            return check(&self.helper, &bench, &mut Bare, &progress).await;
        };
        let environment = opened.environment;
        let policy = &environment.migrations;
        let python = PythonSearch::new(policy, &opened.strategy.folder, &self.invocation.cache()?);
        let (search, hidden) = (opened.postgres_search()?, hidden_variables(opened));
        let head = || Start::Head {
            policy,
            project: &opened.strategy.folder,
            python: &python,
            hidden_variables: &hidden,
        };
        let start = match dump {
            Some(dump) => dump,
            None if environment.declares("migrations") => head(),
            None => Start::Empty,
        };
        let bench = Bench {
            postgres: &search,
            database: &environment.database,
            start,
            ground: self.ground.clone(),
            patience: Duration::from_secs(policy.gate.patience.seconds()),
        };
        let outcome = check(&self.helper, &bench, &mut Prepared::of(opened)?, &progress).await;
        record(opened, &self.helper, outcome.as_ref())?;
        outcome
    }

    fn summary(&self, report: &Report, given: bool) {
        use text::runtime as say;
        let stands = match &report.head {
            _ if given => say::STANDS_SCHEMA.message(),
            Some(head) => say::STANDS_HEAD.with("head", head),
            None => say::STANDS_EMPTY.message(),
        };
        let count = |verdict| report.count(|own| own == verdict);
        let summary = say::SUMMARY
            .with("count", report.statements.len())
            .with("files", report.files)
            .with("read", count(Verdict::ProvenByReading))
            .with("ran", count(Verdict::ProvenByRunning))
            .with_sentence("stands", stands)
            .with("refuted", count(Verdict::Refuted))
            .with("unknown", report.unknown);
        self.invocation.printer.note(summary);
    }

    fn left_out(&self, statements: &[(Place, Message)]) {
        for (_, message) in statements {
            self.invocation.printer.note(message.clone());
        }
    }
}

/// Puts on record what came of a check.
pub fn record(
    opened: &Opened<'_>,
    helper: &Helper,
    outcome: Result<&Report, &Failure>,
) -> Result<(), Failure> {
    let expected = "each statement of the runtime helper can run again";
    let content = helper.digest();
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => {
            let told = Told::new(expected, failure).fact("content", content);
            return opened.record("runtime.check", Outcome::Unknown, told);
        }
    };
    let first = report.findings.iter().find(|finding| finding.severity == Severity::Error);
    let observed = match first {
        Some(first) => first.message.to_string(),
        None => format!("{} statements, {} unknown", report.statements.len(), report.unknown),
    };
    let ended = match (report.has_errors(), report.is_clean()) {
        (true, _) => Outcome::Failed,
        (false, true) => Outcome::Passed,
        (false, false) => Outcome::Unknown,
    };
    let told = Told::new(expected, observed)
        .figure("statements", report.statements.len() as f64)
        .figure("unknown", report.unknown as f64)
        .fact("content", content)
        .fact("head", report.head.as_deref().unwrap_or("-"))
        .fact("proven", report.proven_files(helper).join(" "));
    opened.record("runtime.check", ended, told)
}

/// The project's own helper, if it has one.
pub fn helper(opened: &Opened<'_>) -> Result<Option<Helper>, Failure> {
    let paths = own(opened, false);
    if paths.is_empty() { Ok(None) } else { Helper::open(&paths).map(Some) }
}

/// The files of the project's own helper, which it must have.
fn paths(opened: &Opened<'_>, exports: bool) -> Result<Vec<PathBuf>, Failure> {
    let paths = own(opened, exports);
    if paths.is_empty() {
        let told = text::runtime::NO_HELPER
            .with("project", opened.strategy.folder.display())
            .with("folder", folder(&opened.environment.migrations, Path::new("")).display());
        return Err(Failure::usage(told).mended_by(text::runtime::MEND_NOTHING_THERE));
    }
    Ok(paths)
}

/// The files of the project's own helper; without those that were exported, where they are exported anew.
fn own(opened: &Opened<'_>, exports: bool) -> Vec<PathBuf> {
    let (policy, project) = (&opened.environment.migrations, project(&opened.strategy.folder));
    let mut paths = found(policy, &project);
    let exported = folder(policy, &project);
    paths.retain(|path| !exports || *path != exported);
    paths.into_iter().map(as_named).collect()
}

/// A path as a person would name it: not `./migrations`.
fn as_named(path: PathBuf) -> PathBuf {
    path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_owned)
}

/// The real schemas of the search path of the role that migrates.
pub fn ground(environment: &Environment) -> Ground {
    let role = environment.migrations.run_as.as_ref().and_then(|role| environment.access.roles.get(role));
    let logical = role.map(|role| role.search_path.as_slice()).unwrap_or_default();
    if logical.is_empty() {
        return Ground::default();
    }
    let real = |name: &String| environment.schemas.get(name).unwrap_or(name).clone();
    Ground { search_path: logical.iter().map(real).collect() }
}

/// A database without a strategy: the superuser's.
struct Bare;

impl Site for Bare {
    async fn prepare(&mut self, database: &Conninfo) -> Result<Conninfo, Failure> {
        Ok(database.clone())
    }
}
