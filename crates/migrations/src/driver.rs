//! The driver process: Alembic in the application's Python, spoken to over two pipes.
//!
//! It lives no longer than its [`Driver`]: it ends when its stdin does, so that even a
//! `kill -9` of this program leaves no migration behind.

mod output;
mod protocol;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use obyra_evidence::{Failure, scrub, text};
use obyra_postgres::secrecy::{ExposeSecret, SecretString};
use obyra_postgres::{Conninfo, Result, Reveal, Scheme};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::{Instant, timeout_at};

use self::output::Output;
pub(crate) use self::protocol::Replay;
use self::protocol::{Answer, Event, Request, Setup};
pub use self::protocol::{
    Applied, Complaint, DeclaredCheck, DeclaredEnum, Difference, Graph, Line, Look, Made, Models, Network,
    Passed, Phase, Planned, Revision, Said, Stage, Statement, Transaction, Trip, Wrote,
};
use crate::gate::stage::Database;
use crate::observe::{IDENTITY_SQL, Identity};
use crate::python::PythonEnvironment;
use crate::{Configuration, Policy, explain};

/// The program that the driver process runs.
const PROGRAM: &str =
    concat!(include_str!("driver.py"), include_str!("driver/baseline.py"), include_str!("driver/replay.py"));

/// How many of the application's last lines a failure shows.
const LINES_SHOWN: usize = 12;

/// A backend whose client is gone must not go on for hours with a statement nobody waits for.
const CLIENT_CHECK: &str = "SET client_connection_check_interval = '2s'";

/// What a driver process is started with.
#[derive(Clone, Copy, Debug)]
pub struct Workplace<'a> {
    /// The migrations' section of the strategy.
    pub policy: &'a Policy,
    /// The folder of the strategy file.
    pub project: &'a Path,
    /// The interpreter with the application's packages.
    pub python: &'a PythonEnvironment,
    /// The database, as the role that migrates; absent for reading the revisions alone.
    pub target: Option<&'a Conninfo>,
    /// Environment variables that the application must not see: the administrator's connection.
    pub hidden_variables: &'a [String],
}

/// What this program does on the migration's own connection at the moments when the driver holds it.
///
/// An error ends the migration: its transaction rolls back.
pub trait Attend: Send {
    /// `env.py` has handed its connection to Alembic; nothing has run on it yet, and nothing may run now.
    /// `identity` is what the connection says of itself.
    fn configured(&mut self, identity: Identity) -> impl Future<Output = Result<()>> + Send {
        let _ = identity;
        async { Ok(()) }
    }

    /// Alembic is connected and knows what it will run; nothing has run yet.
    fn planned(
        &mut self,
        connection: &mut DriverConnection<'_>,
        planned: &Planned,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (connection, planned);
        async { Ok(()) }
    }

    /// A revision begins. The driver does not wait.
    fn begin(&mut self, revision: &str) {
        let _ = revision;
    }

    /// A revision has run and the version table names it; its transaction is still open.
    fn applied(
        &mut self,
        connection: &mut DriverConnection<'_>,
        applied: &Applied,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (connection, applied);
        async { Ok(()) }
    }

    /// A revision has run in a replay. The driver does not wait.
    fn passed(&mut self, passed: Passed) {
        let _ = passed;
    }

    /// A part of a round trip has run. The driver does not wait.
    fn tripped(&mut self, phase: Phase, trip: Trip) {
        let _ = (phase, trip);
    }

    /// A statement is about to be sent. The driver does not wait.
    fn statement(&mut self, statement: Statement) {
        let _ = statement;
    }

    /// A statement has locked or written tables. The driver does not wait.
    fn wrote(&mut self, wrote: Wrote) {
        let _ = wrote;
    }

    /// A revision tried to call another machine. The driver does not wait.
    fn network(&mut self, network: Network) {
        let _ = network;
    }

    /// The application's command group `db` hides Flask-Migrate's. The driver does not wait.
    fn hidden_group(&mut self, place: Option<Line>) {
        let _ = place;
    }

    /// The application runs its migrations itself while it is loaded. The driver does not wait.
    fn boot_upgrade(&mut self, place: Option<Line>) {
        let _ = place;
    }

    /// The models, beside the schema at the head. The driver does not wait.
    fn models(&mut self, models: Models) {
        let _ = models;
    }

    /// COMMIT is about to be sent. With `autocommit`, the statements before it are committed already.
    fn committing(
        &mut self,
        connection: &mut DriverConnection<'_>,
        autocommit: bool,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (connection, autocommit);
        async { Ok(()) }
    }
}

/// Why an upgrade did not end well.
#[derive(Debug)]
pub enum UpgradeError {
    /// Something raised.
    Complaint(Complaint),
    /// This program ended it, or the driver could not be spoken to.
    Failure(Failure),
    /// Nothing was heard of it for too long. The process is gone.
    TimedOut,
}

impl From<Failure> for UpgradeError {
    fn from(failure: Failure) -> Self {
        UpgradeError::Failure(failure)
    }
}

/// A running driver process.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    requests: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    output: Output,
    secrets: Vec<SecretString>,
    /// The application's own variables; see [`crate::Policy::variables`].
    variables: BTreeMap<String, String>,
}

impl Driver {
    /// Starts the process. It imports Alembic with the first request.
    pub async fn start(work: &Workplace<'_>) -> Result<Driver> {
        Driver::spawn(work, setup(work)?).await
    }

    /// The same, with more statements that each of its connections begins with.
    pub(crate) async fn start_with(work: &Workplace<'_>, session: &[&str]) -> Result<Driver> {
        let mut setup = setup(work)?;
        setup.session.extend(session.iter().map(|statement| (*statement).to_owned()));
        Driver::spawn(work, setup).await
    }

    /// The same, where Alembic finds its revisions in one other folder.
    pub(crate) async fn start_in(work: &Workplace<'_>, versions: &Path) -> Result<Driver> {
        let setup = Setup { versions: Some(absolute(versions)?), ..setup(work)? };
        Driver::spawn(work, setup).await
    }

    async fn spawn(work: &Workplace<'_>, setup: Setup) -> Result<Driver> {
        let mut command = work.python.command();
        command.args(["-u", "-c", PROGRAM]).current_dir(absolute(work.project)?);
        hide(&mut command, work.hidden_variables);
        // Ctrl-C in a terminal reaches this program, which ends the driver; not both at once.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut secrets = Vec::new();
        if let Some(target) = work.target {
            command.envs(environment(target, &work.policy.variables));
            secrets.extend(target.password().cloned());
        }
        let mut child = command.spawn().map_err(|error| {
            Failure::new(
                text::migrations::PYTHON_NOT_STARTED.with("python", work.python.interpreter.display()),
            )
            .because(error)
            .mended_by(text::migrations::MEND_PYTHON)
        })?;
        let (Some(requests), Some(events), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::new(text::migrations::DRIVER_SILENT.with("status", "no pipes")));
        };
        let events = BufReader::new(events).lines();
        let variables = work.policy.variables.clone();
        let mut driver = Driver { child, requests, events, output: Output::of(stderr), secrets, variables };
        driver.send(&setup).await?;
        Ok(driver)
    }

    /// The process's id.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The revisions, without loading the application or connecting.
    pub async fn graph(&mut self, work: &Workplace<'_>) -> Result<Graph> {
        self.send(&Request::Graph).await?;
        match self.receive().await? {
            Event::Graph(mut graph) => {
                graph
                    .revisions
                    .iter_mut()
                    .for_each(|each| each.file = explain::file(work.project, &each.file));
                Ok(graph)
            }
            Event::Failed(complaint) => Err(self.explain(work, &complaint).await),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the process import, as long as nobody asks for anything else, what it needs to reach a database.
    pub(crate) async fn warm_up(&mut self) -> Result<()> {
        self.send(&Request::Warmup).await
    }

    /// The revisions that the database stands at, as the application's `env.py` sees it.
    pub async fn current(&mut self, work: &Workplace<'_>) -> Result<Vec<String>> {
        self.send(&Request::Current).await?;
        match self.receive().await? {
            Event::Current { revisions } => Ok(revisions),
            Event::Failed(complaint) => Err(self.explain(work, &complaint).await),
            other => Err(unexpected(&other)),
        }
    }

    /// A throw-away database from now on.
    pub(crate) async fn connect(&mut self, database: &Database) -> Result<()> {
        let target = &database.runner;
        self.secrets.extend(target.password().cloned());
        let environment = environment(target, &self.variables).into_iter().collect();
        self.send(&Request::Connect { environment, server: &database.data }).await?;
        match self.receive().await? {
            Event::Connected => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Upgrades to a revision. What it did is believed only once a second connection confirms it.
    pub async fn upgrade(
        &mut self,
        to: &str,
        attend: &mut impl Attend,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.converse(&Request::Upgrade { to }, attend, None).await
    }

    /// Downgrades to a revision, or to `base`.
    pub(crate) async fn downgrade(
        &mut self,
        to: &str,
        attend: &mut impl Attend,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.converse(&Request::Downgrade { to }, attend, None).await
    }

    /// Has the version table name one revision, whatever it named before. No revision runs.
    pub(crate) async fn stamp(
        &mut self,
        to: &str,
        attend: &mut impl Attend,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.converse(&Request::Stamp { to }, attend, None).await
    }

    /// Makes the tables of the models, as `create_all` does.
    pub(crate) async fn create_all(
        &mut self,
        attend: &mut impl Attend,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.converse(&Request::Create, attend, None).await
    }

    /// Runs a Python file of the application's, or one of its functions, within the application's context.
    pub(crate) async fn run_file(
        &mut self,
        work: &Workplace<'_>,
        file: &Path,
        function: Option<&str>,
    ) -> Result<()> {
        self.send(&Request::Run { file, function }).await?;
        match self.receive().await? {
            Event::Ran => Ok(()),
            Event::Failed(complaint) => Err(self.explain(work, &complaint).await),
            other => Err(unexpected(&other)),
        }
    }

    /// Upgrades on a throw-away server, with round trips. `patience` is how long one revision may take.
    pub(crate) async fn replay(
        &mut self,
        replay: &Replay,
        attend: &mut impl Attend,
        patience: Duration,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.converse(&Request::Replay(replay), attend, Some(patience)).await
    }

    async fn converse(
        &mut self,
        request: &Request<'_>,
        attend: &mut impl Attend,
        patience: Option<Duration>,
    ) -> std::result::Result<Transaction, UpgradeError> {
        self.send(request).await?;
        let next = || patience.map(|patience| Instant::now() + patience);
        let mut deadline = next();
        loop {
            let event = match deadline {
                None => self.receive().await?,
                Some(deadline) => match timeout_at(deadline, self.receive()).await {
                    Ok(event) => event?,
                    Err(_) => {
                        let _ = self.child.kill().await;
                        return Err(UpgradeError::TimedOut);
                    }
                },
            };
            match event {
                Event::Done { transaction } => return Ok(transaction),
                Event::Failed(mut complaint) => {
                    complaint.said.message = self.scrub(&complaint.said.message);
                    return Err(UpgradeError::Complaint(complaint));
                }
                _ => {}
            }
            // What a loop without an end sends is no sign of life.
            let alive = !matches!(event, Event::Statement(_) | Event::Wrote(_) | Event::Network(_));
            let Some(event) = told(event, attend) else {
                deadline = if alive { next() } else { deadline };
                continue;
            };
            if let Err(failure) = self.held(&event, attend).await {
                self.abort(&failure).await;
                return Err(failure.into());
            }
            self.send(&Answer::Continue(true)).await?;
            deadline = next();
        }
    }

    /// What this program does while the driver waits for it.
    async fn held(&mut self, event: &Event, attend: &mut impl Attend) -> Result<()> {
        let mut connection = DriverConnection { driver: self };
        match event {
            Event::Configured { identity } => {
                attend.configured(Identity::from_row(identity.as_deref().unwrap_or_default())).await
            }
            Event::Planned(planned) => attend.planned(&mut connection, planned).await,
            Event::Applied(applied) => attend.applied(&mut connection, applied).await,
            Event::Committing { autocommit } => attend.committing(&mut connection, *autocommit).await,
            other => Err(unexpected(other)),
        }
    }

    /// The failure that an exception amounts to, with what the application printed last.
    pub async fn explain(&mut self, work: &Workplace<'_>, complaint: &Complaint) -> Failure {
        let failure = explain::complaint(work, complaint);
        let printed = if explain::needs_output(complaint) { self.printed().await } else { String::new() };
        self.scrubbed(with_output(failure, &printed))
    }

    /// A failure without the passwords that the driver was given.
    pub fn scrubbed(&self, failure: Failure) -> Failure {
        Failure { why: failure.why.map(|why| self.scrub(&why)), ..failure }
    }

    fn scrub(&self, text: &str) -> String {
        let secrets: Vec<&str> = self.secrets.iter().map(ExposeSecret::expose_secret).collect();
        scrub(text, &secrets)
    }

    /// Rolls back, and waits until that is done.
    async fn abort(&mut self, failure: &Failure) {
        if self.send(&Answer::Abort(&failure.to_string())).await.is_ok() {
            let _ = self.receive().await;
        }
    }

    async fn printed(&mut self) -> String {
        let printed = self.output.last(LINES_SHOWN).await;
        self.scrub(&printed)
    }

    async fn send(&mut self, request: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(request).map_err(|error| silent(&error))?;
        line.push(b'\n');
        if self.requests.write_all(&line).await.is_err() {
            return Err(self.ended().await);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Event> {
        match self.events.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|error| silent(&error)),
            Ok(None) | Err(_) => Err(self.ended().await),
        }
    }

    /// The process is gone without having said why: `os._exit`, a crash, a kill.
    async fn ended(&mut self) -> Failure {
        let status =
            self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let failure = Failure::new(text::migrations::DRIVER_SILENT.with("status", status));
        let printed = self.printed().await;
        with_output(failure, &printed)
    }
}

/// The migration's own connection, while the driver holds it. What runs here is part of its transaction.
#[derive(Debug)]
pub struct DriverConnection<'a> {
    driver: &'a mut Driver,
}

impl DriverConnection<'_> {
    /// The rows of a query, each value as JSON (what JSON lacks comes as text).
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Value>>> {
        self.run(&[sql.to_owned()]).await
    }

    /// The first value of the first row.
    pub async fn value(&mut self, sql: &str) -> Result<Value> {
        let first = self.query(sql).await?.into_iter().next().and_then(|row| row.into_iter().next());
        Ok(first.unwrap_or_default())
    }

    /// Runs statements in their order, in one exchange with the driver.
    pub async fn execute(&mut self, statements: &[String]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        self.run(statements).await.map(drop)
    }

    async fn run(&mut self, statements: &[String]) -> Result<Vec<Vec<Value>>> {
        self.driver.send(&Answer::Run(statements)).await?;
        match self.driver.receive().await? {
            Event::Rows { rows } => Ok(rows),
            Event::SqlFailed { statement, said } => {
                let statement = statements.get(statement).map_or("", String::as_str);
                let failure = explain::statement(statement, &said);
                Err(self.driver.scrubbed(failure))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// Passes on what the driver tells without waiting; returns what it waits for.
fn told(event: Event, attend: &mut impl Attend) -> Option<Event> {
    match event {
        Event::Statement(statement) => attend.statement(statement),
        Event::Wrote(wrote) => attend.wrote(wrote),
        Event::Network(network) => attend.network(network),
        Event::HiddenGroup { place } => attend.hidden_group(place),
        Event::BootUpgrade { place } => attend.boot_upgrade(place),
        Event::Models(models) => attend.models(models),
        Event::Begin { revision } => attend.begin(&revision),
        Event::Passed(passed) => attend.passed(passed),
        Event::Again(trip) => attend.tripped(Phase::Again, trip),
        Event::Reversed(trip) => attend.tripped(Phase::Reversed, trip),
        Event::Repeated(trip) => attend.tripped(Phase::Repeated, trip),
        held => return Some(held),
    }
    None
}

fn setup(work: &Workplace<'_>) -> Result<Setup> {
    let folder = work.policy.directory_in(work.project);
    if !folder.join("env.py").is_file() {
        return Err(Failure::usage(text::migrations::DIRECTORY_WITHOUT_ENV.with("folder", folder.display()))
            .mended_by(text::migrations::MEND_DIRECTORY));
    }
    let lock_timeout = work.policy.lock_timeout.seconds();
    let Configuration { ini, pyproject } = work.policy.config_in(work.project);
    Ok(Setup {
        directory: absolute(&folder)?,
        config: ini.map(|file| absolute(&file)).transpose()?,
        pyproject: pyproject.map(|file| absolute(&file)).transpose()?,
        app: work.policy.app.clone(),
        version_table_schema: work.policy.version_table_schema.clone(),
        versions: None,
        identity: IDENTITY_SQL,
        session: vec![format!("SET lock_timeout = '{lock_timeout}s'"), CLIENT_CHECK.to_owned()],
    })
}

/// The variables that lead the application to its database. The name is one that a URL writes as it stands: many an
/// env.py hands DATABASE_URL to ConfigParser, which takes a percent sign for its own.
fn environment(target: &Conninfo, own: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let target = target.with_application_name("obyra-db-migrate");
    let mut environment: Vec<(String, String)> = target
        .env()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.expose_secret().to_owned()))
        .collect();
    let url = target.url(Scheme::PostgresqlPsycopg, Reveal::Password).expose_secret().to_owned();
    environment.push(("DATABASE_URL".to_owned(), url));
    let filled = |value: &String| filled(value, &target);
    environment.extend(own.iter().map(|(name, value)| (name.clone(), filled(value))));
    environment
}

/// A variable's value with the parts of the connection in their places.
fn filled(value: &str, target: &Conninfo) -> String {
    let host = target.hosts().first();
    let password = target.password().map(|password| password.expose_secret().to_owned());
    let parts = [
        ("{host}", host.map(|host| host.name.clone()).unwrap_or_default()),
        ("{port}", host.map(|host| host.port.to_string()).unwrap_or_default()),
        ("{user}", target.user().to_owned()),
        ("{password}", password.unwrap_or_default()),
        ("{database}", target.database().to_owned()),
        ("{url}", target.url(Scheme::Postgresql, Reveal::Password).expose_secret().to_owned()),
    ];
    parts.iter().fold(value.to_owned(), |value, (name, part)| value.replace(name, part))
}

/// The application gets its own database and no other.
fn hide(command: &mut tokio::process::Command, variables: &[String]) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    for name in variables {
        command.env_remove(name);
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().map_err(|error| {
        Failure::usage(text::migrations::PATH_UNREADABLE.with("path", path.display())).because(error)
    })
}

fn with_output(failure: Failure, printed: &str) -> Failure {
    if printed.is_empty() {
        return failure;
    }
    let why = match &failure.why {
        Some(why) => format!("{why}\n{printed}"),
        None => printed.to_owned(),
    };
    failure.because(why)
}

fn silent(error: &serde_json::Error) -> Failure {
    Failure::new(text::migrations::DRIVER_SILENT.with("status", "?")).because(error)
}

fn unexpected(event: &Event) -> Failure {
    Failure::new(text::migrations::DRIVER_SILENT.with("status", "?")).because(format!("{event:?}"))
}
