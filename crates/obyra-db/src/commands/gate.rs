//! `migrate gate`: whether this branch's migrations can be deployed, found out on a throw-away server.

mod seeds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use obyra_access::{Order as AccessOrder, Patience, Provider, Target};
use obyra_evidence::{Exit, Failure, Finding, Outcome, Quiet, Severity, text};
use obyra_migrations::gate::{Order, Report, Scope, Site, Sizes, Start, Verdict, gate, sizes};
use obyra_migrations::{PythonSearch, observe::version_tables, scan};
use obyra_postgres::{Conninfo, Limits, Session};
use obyra_strategy::{Environment, Strategy};
use secrecy::SecretString;

use crate::commands::findings::{self, Format};
use crate::environment::{Opened, Told};
use crate::invocation::Invocation;

/// Arguments of `migrate gate`.
#[derive(Args, Debug)]
pub struct Gate {
    /// The environment whose version, roles and settings count, and whose own schema must reach the head too;
    /// default: production's, without connecting to it
    pub environment: Option<String>,
    /// Take every revision down and up again, not only those that this branch adds
    #[arg(long, conflicts_with = "last")]
    pub all: bool,
    /// Take the last N revisions down and up again
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// A schema, as pg_dump --schema-only writes it, that must reach the head too
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// The format
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Runs the verb.
pub async fn run(invocation: &Invocation, strategy: &Strategy, arguments: &Gate) -> Result<Exit, Failure> {
    let name = match &arguments.environment {
        Some(name) => name.as_str(),
        None => strictest(strategy).map(|environment| environment.name.as_str()).unwrap_or_default(),
    };
    let opened = Opened::new(invocation, strategy, name)?;
    let began = tokio::time::Instant::now();
    let outcome = measured(&opened, arguments).await;
    let seconds = began.elapsed().as_secs_f64();
    record(&opened, &outcome, seconds)?;
    let report = outcome?;
    show(&opened, &report, arguments, seconds);
    Ok(if report.is_in_order() { Exit::Done } else { Exit::Findings })
}

/// Without a name, the environment that matters most: production, else staging, else development.
pub fn strictest(strategy: &Strategy) -> Option<&Environment> {
    strategy.environments().max_by_key(|environment| environment.stage)
}

async fn measured(opened: &Opened<'_>, arguments: &Gate) -> Result<Report, Failure> {
    let policy = &opened.environment.migrations;
    let progress = opened.invocation.progress();
    let cache = opened.invocation.cache()?;
    let search = PythonSearch::new(policy, &opened.strategy.folder, &cache);
    let postgres = opened.postgres_search()?;
    let (live, sizes, mut notes) = environment(opened, arguments).await;
    let start = arguments.schema.clone().map(Start::Dump).or(live);
    let schemas = schemas(opened.environment);
    let applied = super::deployed::applied(opened)?;
    let hidden = crate::commands::migrate::hidden_variables(opened);
    let project = project(&opened.strategy.folder);
    let (helper, ground) = (super::runtime::helper(opened)?, super::runtime::ground(opened.environment));
    let order = Order {
        policy,
        project: &project,
        python: &search,
        postgres: &postgres,
        hidden_variables: &hidden,
        database: &opened.environment.database,
        schemas: &schemas,
        scope: scope(arguments),
        start: start.as_ref(),
        sizes: &sizes,
        applied: &applied,
        runtime: helper.as_ref().map(|helper| (helper, &ground)),
    };
    let mut prepared = Prepared::of(opened)?;
    let mut report = gate(&order, &mut prepared, &progress).await?;
    if let (Some(helper), Some(check)) = (&helper, &report.alterations)
        && check.head.is_some()
    {
        super::runtime::record(opened, helper, Ok(check))?;
    }
    // What changes the schema behind Alembic's back.
    notes.extend(scan::scan(&project)?.findings);
    report.add(notes);
    Ok(report)
}

/// The project's folder as the user stands to it, so that an annotation finds its file.
pub fn project(folder: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| folder.strip_prefix(here).ok().map(Path::to_owned));
    below.map_or_else(|| folder.to_owned(), |below| Path::new(".").join(below))
}

fn scope(arguments: &Gate) -> Scope {
    match (arguments.all, arguments.last) {
        (true, _) => Scope::All,
        (false, Some(count)) => Scope::Last(count),
        (false, None) => Scope::Branch,
    }
}

/// The application's schema first, since that is where Alembic's table belongs.
pub fn schemas(environment: &Environment) -> Vec<String> {
    let app = environment.schemas.get("app").into_iter();
    let others = environment.schemas.iter().filter(|(name, _)| *name != "app").map(|(_, schema)| schema);
    app.chain(others).cloned().collect()
}

/// The named environment's own schema and sizes, if it can be reached; it is only read.
async fn environment(opened: &Opened<'_>, arguments: &Gate) -> (Option<Start>, Sizes, Vec<Finding>) {
    if arguments.environment.is_none() {
        return (None, Sizes::default(), Vec::new());
    }
    match reached(opened).await {
        Ok((start, sizes)) => (start, sizes, Vec::new()),
        Err(failure) => {
            let told =
                text::gate::ENVIRONMENT_UNREACHED.with("environment", opened.name()).with("why", &failure);
            let finding = Finding::new(Severity::Warning, format!("environment {}", opened.name()), told);
            let finding = failure.mend.iter().fold(finding, |finding, mend| finding.mended_by(mend.clone()));
            (None, Sizes::default(), vec![finding])
        }
    }
}

async fn reached(opened: &Opened<'_>) -> Result<(Option<Start>, Sizes), Failure> {
    let admin = opened.admin().await?;
    let session = Session::connect(&admin, Limits::default()).await?;
    let sizes = sizes(&session).await?;
    let tables = version_tables(&opened.environment.migrations, &session).await?;
    let revisions: Vec<String> = tables.into_iter().flat_map(|table| table.revisions).collect();
    // A database that was never migrated is the empty one, which is tried anyway.
    let start = (!revisions.is_empty()).then(|| Start::Live { database: Box::new(admin), revisions });
    Ok((start, sizes))
}

/// Makes a database what the strategy says of it: the roles, the schemas, the privileges of an empty one.
pub struct Prepared<'a> {
    opened: &'a Opened<'a>,
    /// One password for each role and database of the gate, so that the application can stay as it was loaded.
    password: SecretString,
}

impl<'a> Prepared<'a> {
    /// As the environment's strategy has it.
    pub fn of(opened: &'a Opened<'a>) -> Result<Self, Failure> {
        Ok(Prepared { opened, password: obyra_postgres::generate_password()? })
    }
}

impl Site for Prepared<'_> {
    async fn prepare(&mut self, database: &Conninfo) -> Result<Conninfo, Failure> {
        let environment = self.opened.environment;
        let mut policy = environment.access.clone();
        // The gate's own server has the settings that the gate needs.
        policy.settings = BTreeMap::new();
        let target = Target { provider: Provider::Embedded, ..self.opened.target() };
        let session = Session::connect(database, Limits::patient()).await?;
        let observed = obyra_access::observe(&session, &policy, &target).await?;
        let plan = obyra_access::plan(&policy, &target, &observed);
        let run_as = environment.migrations.run_as.clone();
        let roles = [&run_as, &environment.seeds.run_as].into_iter().flatten();
        let passwords = roles.map(|role| (role.clone(), self.password.clone())).collect();
        let order = AccessOrder { policy: &policy, target: &target, approved: &plan, passwords: &passwords };
        let patience = Patience { change_lock: None, ..Patience::default() };
        obyra_access::apply(&session, order, &patience, &Quiet).await?;
        Ok(match run_as {
            Some(role) => database.with_role(&role, Some(self.password.clone())),
            None => database.clone(),
        })
    }

    async fn reached(&mut self, database: &Conninfo) -> Result<Vec<Finding>, Failure> {
        seeds::findings(self, database).await
    }
}

fn record(opened: &Opened<'_>, outcome: &Result<Report, Failure>, seconds: f64) -> Result<(), Failure> {
    let expected = [
        "an empty database reaches the head, committed",
        "each checked revision goes down and up to the same schema",
    ];
    let subjects = ["gate.upgrade", "gate.downgrade"];
    for (subject, expected) in subjects.into_iter().zip(expected) {
        let report = match outcome {
            Ok(report) => report,
            Err(failure) => {
                opened.record(subject, Outcome::Unknown, Told::new(expected, failure))?;
                continue;
            }
        };
        let verdict = if subject == "gate.upgrade" { report.upgrade } else { report.downgrade };
        let ended = match verdict {
            Verdict::Passed => Outcome::Passed,
            Verdict::Failed => Outcome::Failed,
            Verdict::Unknown => Outcome::Unknown,
        };
        let observed = match report.findings.iter().find(|finding| finding.severity == Severity::Error) {
            Some(first) if verdict != Verdict::Passed => first.message.to_string(),
            _ => format!("{} revisions, {} checked", report.revisions.len(), report.checked.len()),
        };
        let told = Told::new(expected, observed)
            .figure("revisions", report.revisions.len() as f64)
            .figure("checked", report.checked.len() as f64)
            .figure("duration_seconds", seconds)
            .fact("head", report.head.as_deref().unwrap_or("-"))
            .fact("from_base", true);
        opened.record(subject, ended, told)?;
    }
    Ok(())
}

fn show(opened: &Opened<'_>, report: &Report, arguments: &Gate, seconds: f64) {
    let printer = opened.invocation.printer;
    let findings = plainly(&report.findings);
    let text = !printer.json && arguments.format == Format::Text;
    if text && !report.checked.is_empty() {
        let scope = if report.checked_branch { text::gate::CHECKED_BRANCH } else { text::gate::CHECKED_LAST };
        printer.note(scope.with("count", report.checked.len()));
    }
    findings::print(printer, "obyra-db migrate gate", arguments.format, &findings);
    let passed = report.upgrade == Verdict::Passed && report.downgrade == Verdict::Passed;
    if let Some(head) = report.head.as_ref().filter(|_| text && passed) {
        printer.note(
            text::gate::PASSED
                .with("head", head)
                .with("seconds", format!("{seconds:.1}"))
                .with("trips", report.checked.len()),
        );
    }
}

/// Paths without a `./` before them.
fn plainly(findings: &[Finding]) -> Vec<Finding> {
    let mut findings = findings.to_vec();
    for finding in &mut findings {
        if let Some(plain) = finding.subject.strip_prefix("./") {
            finding.subject = plain.to_owned();
        }
    }
    for place in findings.iter_mut().filter_map(|finding| finding.place.as_mut()) {
        place.file = place.file.strip_prefix(".").map(Path::to_owned).unwrap_or_else(|_| place.file.clone());
    }
    findings
}
