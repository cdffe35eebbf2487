//! `migrate deploy` brings the database to Alembic's head; `migrate status` says where it stands.

use obyra_access::Target;
use obyra_evidence::render;
use obyra_evidence::{Exit, Failure, Outcome, text};
use obyra_migrations::driver::{Driver, DriverConnection, Graph, Workplace};
use obyra_migrations::{Converge, Deployed, Deployment, Observed, Plan, PythonEnvironment, PythonSearch};
use obyra_postgres::{ChangeLock, Conninfo, ServerVersion, Session};

use crate::cli::{Consent, Migrate};
use crate::commands::{baseline, ci, converge, deployed, gate, runtime, scan, stamp};
use crate::confirm::confirm;
use crate::environment::{LOCK_WAIT, Opened, Told};
use crate::invocation::Invocation;

/// Runs the verb.
pub async fn migrate(invocation: &mut Invocation, verb: &Migrate) -> Result<Exit, Failure> {
    match verb {
        Migrate::Deploy(arguments) => {
            let strategy = invocation.strategy()?;
            let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
            deploy_opened(&opened, arguments.consent).await?;
            Ok(Exit::Done)
        }
        Migrate::Status(arguments) => {
            let strategy = invocation.strategy()?;
            let opened = Opened::new(invocation, &strategy, &arguments.environment)?;
            status(&opened).await
        }
        Migrate::Gate(arguments) => {
            let strategy = invocation.strategy()?;
            gate::run(invocation, &strategy, arguments).await
        }
        Migrate::Scan(arguments) => scan::scan(invocation, arguments),
        Migrate::Baseline(arguments) => {
            let strategy = invocation.strategy()?;
            baseline::run(invocation, &strategy, arguments).await
        }
        Migrate::Stamp(arguments) => {
            let strategy = invocation.strategy()?;
            stamp::run(invocation, &strategy, arguments).await
        }
        Migrate::Runtime(verb) => runtime::run(invocation, verb).await,
        Migrate::CiTemplate(arguments) => {
            let strategy = invocation.strategy()?;
            ci::ci_template(invocation, &strategy, arguments)
        }
        Migrate::FlaskCommands(arguments) => {
            let strategy = invocation.strategy()?;
            ci::flask_commands(invocation, &strategy, arguments)
        }
    }
}

/// What a deploy needs of the application: its Python, and the connection of the migration role.
pub struct Application {
    python: PythonEnvironment,
    target: Conninfo,
    hidden: Vec<String>,
}

impl Application {
    /// Finds the application's Python, or makes one from its requirements.
    pub async fn of(opened: &Opened<'_>) -> Result<Self, Failure> {
        let policy = &opened.environment.migrations;
        let search = PythonSearch::new(policy, &opened.strategy.folder, &opened.invocation.cache()?);
        let python = obyra_migrations::find_or_make(&search, &opened.invocation.progress()).await?;
        let target = match &policy.run_as {
            Some(role) => opened.role(role).await?,
            None => opened.admin().await?,
        };
        Ok(Application { python, target, hidden: hidden_variables(opened) })
    }

    /// The interpreter with the application's packages.
    pub fn python(&self) -> &PythonEnvironment {
        &self.python
    }

    /// What a driver of the migrations is started with.
    pub fn workplace<'a>(&'a self, opened: &'a Opened<'_>) -> Workplace<'a> {
        Workplace {
            policy: &opened.environment.migrations,
            project: &opened.strategy.folder,
            python: &self.python,
            target: Some(&self.target),
            hidden_variables: &self.hidden,
        }
    }

    /// Where the database stands, and what is pending.
    pub async fn observe(&self, opened: &Opened<'_>, session: &Session) -> Result<(Observed, Plan), Failure> {
        let work = self.workplace(opened);
        let graph = Driver::start(&work).await?.graph(&work).await?;
        let observed = obyra_migrations::observe(work.policy, session, graph).await?;
        let plan = obyra_migrations::plan(work.policy, &observed);
        Ok((observed, plan))
    }
}

/// The variables that the application must not see: the administrator's connection.
pub fn hidden_variables(opened: &Opened<'_>) -> Vec<String> {
    match &opened.environment.reach {
        obyra_strategy::Reach::UrlEnv(variable) => vec![variable.clone()],
        _ => Vec::new(),
    }
}

/// `migrate deploy` within longer work.
pub async fn deploy_opened(opened: &Opened<'_>, consent: Consent) -> Result<(), Failure> {
    let printer = opened.invocation.printer;
    let application = Application::of(opened).await?;
    let session = opened.session().await?;
    let (observed, plan) = application.observe(opened, &session).await?;
    if plan.is_empty() && plan.obstacle().is_none() {
        printer.note(text::cli::MIGRATIONS_NONE.with("head", head(&plan)));
        if printer.json {
            printer.json_of_step(&serde_json::json!({ "environment": opened.name(), "deployed": null }));
        }
        return Ok(());
    }
    if plan.obstacle().is_none() {
        let ask =
            text::cli::MIGRATIONS_ASK.with("count", plan.pending.len()).with("environment", opened.name());
        confirm(&printer, consent, ask)?;
    }
    opened.can_record()?;
    let lock = ChangeLock::acquire(&session, LOCK_WAIT).await?;
    let outcome = deploy(opened, &application, &session).await;
    record(opened, &session, &outcome, (observed.graph, &plan)).await?;
    let deployed = outcome?;
    // The administrator's share: what the owner itself may not change.
    converge::settle_under_lock(opened, &session).await?;
    lock.release(&session).await?;
    printer.note(
        text::cli::MIGRATED
            .with("count", deployed.revisions.len())
            .with("head", deployed.to.as_deref().unwrap_or("-"))
            .with("tables", deployed.tables_created)
            .with("seconds", format!("{:.1}", deployed.seconds)),
    );
    if printer.json {
        printer.json_of_step(&serde_json::json!({ "environment": opened.name(), "deployed": deployed }));
    }
    Ok(())
}

async fn deploy(
    opened: &Opened<'_>,
    application: &Application,
    admin: &Session,
) -> Result<Deployed, Failure> {
    let deployment = Deployment { work: application.workplace(opened), admin };
    let mut privileges = Privileges::of(opened, admin.version());
    obyra_migrations::deploy(&deployment, &mut privileges, &opened.invocation.progress()).await
}

/// Converges the privileges of what a revision made, in the revision's own transaction.
pub struct Privileges<'a> {
    policy: &'a obyra_access::Policy,
    target: Target,
    version: ServerVersion,
}

impl<'a> Privileges<'a> {
    /// Of an environment, on a server of this version.
    pub fn of(opened: &'a Opened<'_>, version: ServerVersion) -> Self {
        Privileges { policy: &opened.environment.access, target: opened.target(), version }
    }
}

impl Converge for Privileges<'_> {
    async fn converge(&mut self, connection: &mut DriverConnection<'_>) -> Result<(), Failure> {
        let query = obyra_access::catalogue_query(self.version, self.policy, &self.target);
        let answer =
            connection.value(&format!("SELECT c.catalogue::text FROM ({query}) AS c(catalogue)")).await?;
        let observed = obyra_access::Observed::from_json(answer.as_str().unwrap_or_default())?;
        let plan = obyra_access::plan_objects_as_owner(self.policy, &self.target, &observed);
        let sql: Vec<String> = plan.steps.into_iter().flat_map(|step| step.sql).collect();
        if sql.is_empty() { Ok(()) } else { connection.execute(&sql).await }
    }
}

async fn record(
    opened: &Opened<'_>,
    session: &Session,
    outcome: &Result<Deployed, Failure>,
    (graph, plan): (Graph, &Plan),
) -> Result<(), Failure> {
    let expected = "the head, committed, as a second connection sees it";
    match outcome {
        Ok(deployed) => {
            let head = deployed.to.as_deref().unwrap_or("-");
            let told = Told::new(expected, format!("{} revisions, head {head}", deployed.revisions.len()))
                .figure("revisions", deployed.revisions.len() as f64)
                .figure("duration_seconds", deployed.seconds)
                .figure("tables_created", deployed.tables_created as f64)
                .fact("head", head)
                .fact("from_base", deployed.from_base)
                .fact("server", session.version());
            let told = deployed::with_checksums(told, &plan.pending)?;
            opened.record(deployed::SUBJECT, Outcome::Changed, told)
        }
        Err(failure) => {
            // Revisions before the one that failed may be committed.
            let policy = &opened.environment.migrations;
            let observed = obyra_migrations::observe(policy, session, graph).await;
            let now = observed.ok().map(|observed| obyra_migrations::plan(policy, &observed));
            let now = now.filter(|now| now.obstacle().is_none());
            let committed = now.iter().flat_map(|now| deployed::committed(&plan.pending, &now.pending));
            let told = deployed::with_checksums(Told::new(expected, failure), committed)?;
            opened.record(deployed::SUBJECT, Outcome::Failed, told)
        }
    }
}

async fn status(opened: &Opened<'_>) -> Result<Exit, Failure> {
    let printer = opened.invocation.printer;
    let application = Application::of(opened).await?;
    let session = opened.session().await?;
    let (observed, plan) = application.observe(opened, &session).await?;
    if printer.json {
        printer.json(&serde_json::json!({
            "environment": opened.name(),
            "current": observed.current(),
            "head": plan.to,
            "pending": plan.pending,
            "findings": plan.findings,
        }));
    } else {
        let current = observed.current();
        let current = if current.is_empty() { "base".to_owned() } else { current.join(", ") };
        printer.line(text::cli::MIGRATIONS_AT.with("environment", opened.name()).with("current", current));
        for revision in &plan.pending {
            let name = format!("{} {}", revision.id, revision.doc);
            printer.line(text::cli::MIGRATIONS_PENDING.with("revision", name));
        }
        for finding in &plan.findings {
            let shown =
                render::terminal::finding(finding, printer.language, printer.style(), &render::from_disk);
            printer.data(&shown);
        }
        if plan.is_empty() {
            printer.line(text::cli::MIGRATIONS_NONE.with("head", head(&plan)));
        }
    }
    let in_order = plan.is_empty() && plan.obstacle().is_none();
    Ok(if in_order { Exit::Done } else { Exit::Findings })
}

fn head(plan: &Plan) -> &str {
    plan.to.as_deref().unwrap_or("-")
}
