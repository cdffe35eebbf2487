//! An environment, opened: its strategy, its connections, its credentials, its ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use obyra_access::{Provider, Target};
use obyra_evidence::{Failure, Filter, Ledger, Outcome, Record, text};
use obyra_postgres::cluster::{Embedded, Installation, Search, State};
use obyra_postgres::{Conninfo, Limits, Session};
use obyra_strategy::{Environment, Reach, RunsOn, Strategy};

use crate::clock;
use crate::credentials::Credentials;
use crate::invocation::Invocation;

/// How long migrations and seeds wait for another change of the same database to end.
pub const LOCK_WAIT: Duration = Duration::from_secs(60);

/// An environment of the strategy, ready to be worked on.
pub struct Opened<'a> {
    /// How the program was called.
    pub invocation: &'a Invocation,
    /// The whole file.
    pub strategy: &'a Strategy,
    /// The environment's part of it.
    pub environment: &'a Environment,
    /// Its roles' passwords.
    pub credentials: Credentials,
}

impl<'a> Opened<'a> {
    /// Opens an environment of a strategy. Nothing is connected yet.
    pub fn new(invocation: &'a Invocation, strategy: &'a Strategy, name: &str) -> Result<Self, Failure> {
        let environment = strategy.environment(name)?;
        let credentials = Credentials::of(environment, &strategy.state_dir);
        Ok(Opened { invocation, strategy, environment, credentials })
    }

    /// The environment's name.
    pub fn name(&self) -> &str {
        &self.environment.name
    }

    /// Whether this program runs the environment's server itself.
    pub fn embedded(&self) -> bool {
        matches!(self.environment.reach, Reach::Embedded)
    }

    /// The folder of an embedded environment's cluster.
    pub fn cluster_folder(&self) -> PathBuf {
        self.strategy.state_dir.join("clusters").join(self.name())
    }

    /// The PostgreSQL programs, found or fetched.
    pub async fn installation(&self) -> Result<Installation, Failure> {
        Installation::find_or_fetch(&self.postgres_search()?, &self.invocation.progress()).await
    }

    /// Where the PostgreSQL programs are looked for.
    pub fn postgres_search(&self) -> Result<Search, Failure> {
        Ok(Search {
            bin_dir: self.environment.bin_dir.clone(),
            cache: self.invocation.cache()?,
            major: self.environment.postgres_major,
        })
    }

    /// The administrator's connection.
    pub async fn admin(&self) -> Result<Conninfo, Failure> {
        let conninfo = match &self.environment.reach {
            Reach::Embedded => self.embedded_admin().await?,
            Reach::UrlEnv(variable) => from_variable(variable)?,
            Reach::UrlFile(file) => from_file(file)?,
            Reach::Url(url) => self.with_stored_password(Conninfo::parse(url)?)?,
        };
        conninfo.with_database(&self.environment.database).with_offered_password()
    }

    /// A literal holds no password; the store may know its role.
    fn with_stored_password(&self, conninfo: Conninfo) -> Result<Conninfo, Failure> {
        let stored = self.credentials.password(conninfo.user())?;
        Ok(conninfo.with_password(stored))
    }

    async fn embedded_admin(&self) -> Result<Conninfo, Failure> {
        let folder = self.cluster_folder();
        let running = matches!(Embedded::status(&folder).await?, State::Running { .. });
        match Embedded::open(&folder)? {
            Some(cluster) if running => Ok(cluster.loopback()),
            _ => Err(Failure::new(text::cli::CLUSTER_DOWN.with("environment", self.name()))
                .mended_by(text::cli::RUN.with("command", format!("obyra-db up {}", self.name())))),
        }
    }

    /// A session of the administrator.
    pub async fn session(&self) -> Result<Session, Failure> {
        Session::connect(&self.admin().await?, Limits::default()).await
    }

    /// A role's connection, with its password.
    pub async fn role(&self, role: &str) -> Result<Conninfo, Failure> {
        if !self.environment.access.declared().any(|declared| declared == role) {
            return Err(Failure::usage(
                text::cli::ROLE_UNKNOWN.with("role", role).with("environment", self.name()),
            ));
        }
        // A server that is down is the first thing to mend: without it there are no passwords yet either.
        let admin = self.admin().await?;
        Ok(admin.with_role(role, Some(self.credentials.required(role)?)))
    }

    /// The access room's view of the environment.
    pub fn target(&self) -> Target {
        Target {
            database: self.environment.database.clone(),
            schemas: self.environment.schemas.clone(),
            provider: provider(self.environment.runs_on),
        }
    }

    /// The ledger of evidence.
    pub fn ledger(&self) -> Result<Ledger, Failure> {
        Ledger::open(&ledger_file(self.strategy))
    }

    /// Refuses work whose evidence could not be kept, before anything is changed.
    pub fn can_record(&self) -> Result<(), Failure> {
        self.ledger().map(drop)
    }

    /// Records what was done or observed. A full disk must not hide it: the failure tells that too.
    pub fn record(&self, subject: &str, outcome: Outcome, told: Told) -> Result<(), Failure> {
        let record = Record {
            at: clock::now(),
            environment: self.name().to_owned(),
            subject: subject.to_owned(),
            expected: told.expected,
            observed: told.observed,
            outcome,
            figures: told.figures,
            facts: told.facts,
        };
        self.ledger().and_then(|ledger| ledger.append(&record)).map(drop).map_err(|failure| {
            let what = match outcome {
                Outcome::Changed => text::cli::CHANGED_UNRECORDED.message(),
                Outcome::Failed => text::cli::FAILED_UNRECORDED.message(),
                _ => return failure,
            };
            let mend = failure.mend.clone();
            let unrecorded =
                Failure::new(what.with("subject", &record.subject).with("observed", &record.observed));
            Failure { mend, ..unrecorded.because(failure) }
        })
    }

    /// Records how something went, and hands that on: what `told` says of it, or that it failed.
    pub fn recorded<T>(
        &self,
        subject: &str,
        expected: &str,
        went: Result<T, Failure>,
        told: impl FnOnce(&T) -> (Outcome, Told),
    ) -> Result<T, Failure> {
        let (outcome, told) = match &went {
            Ok(done) => told(done),
            Err(failure) => (Outcome::Failed, Told::new(expected, failure)),
        };
        self.record(subject, outcome, told)?;
        went
    }

    /// Whether there is such a record of a subject in this environment.
    pub fn any(&self, subject: &str, is: impl Fn(&Record) -> bool) -> Result<bool, Failure> {
        if !ledger_file(self.strategy).exists() {
            return Ok(false);
        }
        let environment = Some(self.name().to_owned());
        let filter = Filter { environment, subject_prefix: Some(subject.to_owned()), ..Filter::default() };
        Ok(self
            .ledger()?
            .records(&filter)?
            .iter()
            .any(|entry| entry.record.subject == subject && is(&entry.record)))
    }

    /// The newest record of a subject in this environment.
    pub fn latest(&self, subject: &str) -> Result<Option<Record>, Failure> {
        if !ledger_file(self.strategy).exists() {
            return Ok(None);
        }
        Ok(self.ledger()?.latest(self.name(), subject)?.map(|entry| entry.record))
    }

    /// The time now, for decisions.
    pub fn now(&self) -> Timestamp {
        clock::now()
    }
}

fn provider(runs_on: RunsOn) -> Provider {
    match runs_on {
        RunsOn::Embedded => Provider::Embedded,
        RunsOn::SelfHosted => Provider::SelfHosted,
        RunsOn::Rds => Provider::Rds,
        RunsOn::CloudSql => Provider::CloudSql,
    }
}

/// What a record tells besides its subject and outcome.
#[derive(Default)]
pub struct Told {
    /// What the strategy expects.
    pub expected: String,
    /// What was found or done.
    pub observed: String,
    /// Figures, with the unit last in the name.
    pub figures: BTreeMap<String, f64>,
    /// Facts that later checks ask for.
    pub facts: BTreeMap<String, String>,
}

impl Told {
    /// What was expected and what was found.
    pub fn new(expected: impl ToString, observed: impl ToString) -> Self {
        Told { expected: expected.to_string(), observed: observed.to_string(), ..Told::default() }
    }

    /// Adds a figure.
    pub fn figure(mut self, name: &str, value: f64) -> Self {
        self.figures.insert(name.to_owned(), value);
        self
    }

    /// Adds a fact.
    pub fn fact(mut self, name: &str, value: impl ToString) -> Self {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }
}

/// The ledger's file.
pub fn ledger_file(strategy: &Strategy) -> PathBuf {
    strategy.state_dir.join("evidence.sqlite")
}

/// The connection string in a variable.
pub fn from_variable(variable: &str) -> Result<Conninfo, Failure> {
    let text = std::env::var(variable).map_err(|_| {
        Failure::usage(text::cli::VARIABLE_MISSING.with("variable", variable))
            .mended_by(text::cli::VARIABLE_MISSING_MEND.with("variable", variable))
    })?;
    Conninfo::parse(text.trim())
}

fn from_file(file: &std::path::Path) -> Result<Conninfo, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(text::cli::FILE_UNUSABLE.with("file", file.display())).because(e))?;
    Conninfo::parse(text.trim())
}
