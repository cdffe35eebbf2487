//! `status`: one screen, for each environment: is it reachable, is it as the strategy says, what is due.

use obyra_evidence::render::Mark;
use obyra_evidence::{Exit, Failure, Message, text};
use obyra_postgres::{Conninfo, Limits, Session, sql_failure};
use serde::Serialize;

use crate::cli::Status;
use crate::commands::converge::Planned;
use crate::commands::{migrate, seed};
use crate::environment::{Opened, from_variable};
use crate::invocation::Invocation;

/// One line of the screen.
#[derive(Serialize)]
struct Line {
    environment: String,
    status: &'static str,
    #[serde(skip)]
    mark: Mark,
    message: Message,
}

/// Runs the verb.
pub async fn status(invocation: &mut Invocation, arguments: &Status) -> Result<Exit, Failure> {
    let mut lines = Vec::new();
    if let Some(variable) = &arguments.url_env {
        let conninfo = from_variable(variable)?;
        lines.push(line(variable, Mark::Passed, server(&conninfo).await?));
    } else {
        let strategy = invocation.strategy()?;
        let names: Vec<String> = match &arguments.environment {
            Some(name) => vec![strategy.environment(name)?.name.clone()],
            None => strategy.environments().map(|environment| environment.name.clone()).collect(),
        };
        for name in names {
            let opened = Opened::new(invocation, &strategy, &name)?;
            observe(&opened, &mut lines).await;
        }
    }
    let printer = invocation.printer;
    if printer.json {
        printer.json(&lines);
    } else {
        let width = lines.iter().map(|line| line.environment.len()).max().unwrap_or(0);
        for line in &lines {
            let mark = line.mark.column(printer.language, printer.style());
            printer.data(&format!(
                "{mark} {:<width$}  {}",
                line.environment,
                line.message.say(printer.language)
            ));
        }
    }
    let well = lines.iter().all(|line| line.mark == Mark::Passed);
    Ok(if well { Exit::Done } else { Exit::Findings })
}

fn line(environment: &str, mark: Mark, message: Message) -> Line {
    let status = match mark {
        Mark::Passed => "passed",
        Mark::Failed => "failed",
        _ => "unknown",
    };
    Line { environment: environment.to_owned(), status, mark, message }
}

/// An environment that cannot be looked at is one unknown line, and the others are still shown.
async fn observe(opened: &Opened<'_>, lines: &mut Vec<Line>) {
    let mut tell = |mark, message| lines.push(line(opened.name(), mark, message));
    let planned = match Planned::of(opened).await {
        Ok(planned) => planned,
        Err(failure) => {
            tell(Mark::Unknown, text::cli::FACT_UNREADABLE.with("why", &failure));
            return;
        }
    };
    match server_of(&planned.session, &planned.admin).await {
        Ok(message) => tell(Mark::Passed, message),
        Err(failure) => tell(Mark::Unknown, text::cli::FACT_UNREADABLE.with("why", &failure)),
    }
    match planned.changes() {
        0 => tell(Mark::Passed, text::cli::STATUS_ACCESS.message()),
        changes => tell(
            Mark::Failed,
            text::cli::STATUS_DRIFT.with("changes", changes).with("environment", opened.name()),
        ),
    }
    if opened.environment.declares("migrations") {
        match migrations(opened, &planned.session).await {
            Ok((mark, message)) => tell(mark, message),
            Err(failure) => tell(Mark::Unknown, text::cli::FACT_UNREADABLE.with("why", &failure)),
        }
    }
    if !opened.environment.declares("seeds") {
        return;
    }
    match seed::observe(opened, &planned.session).await {
        Ok((seeds, plan)) if plan.is_in_order() => {
            tell(Mark::Passed, text::cli::FACT_SEEDS_APPLIED.with("count", seeds.len()));
        }
        Ok((_, plan)) => {
            tell(Mark::Failed, text::cli::FACT_SEEDS_PENDING.with("count", plan.to_run().count()))
        }
        Err(failure) => tell(Mark::Unknown, text::cli::FACT_UNREADABLE.with("why", &failure)),
    }
}

async fn migrations(opened: &Opened<'_>, session: &Session) -> Result<(Mark, Message), Failure> {
    let application = migrate::Application::of(opened).await?;
    let (_, plan) = application.observe(opened, session).await?;
    let head = plan.to.clone().unwrap_or_else(|| "-".to_owned());
    if plan.is_empty() && plan.obstacle().is_none() {
        Ok((Mark::Passed, text::cli::FACT_AT_HEAD.with("head", head)))
    } else {
        Ok((Mark::Failed, text::cli::FACT_BEHIND.with("count", plan.pending.len()).with("head", head)))
    }
}

async fn server(conninfo: &Conninfo) -> Result<Message, Failure> {
    server_of(&Session::connect(conninfo, Limits::default()).await?, conninfo).await
}

async fn server_of(session: &Session, conninfo: &Conninfo) -> Result<Message, Failure> {
    let sql = "SELECT pg_size_pretty(pg_database_size(current_database())), \
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
               current_setting('max_connections'), \
               coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), '-')";
    let row = session
        .query_one(sql, &[])
        .await
        .map_err(|e| sql_failure(text::cli::STATUS_UNREADABLE.message(), &e))?;
    Ok(text::cli::STATUS_SERVER
        .with("version", session.version())
        .with("place", conninfo.host_summary())
        .with("size", row.get::<_, &str>(0))
        .with("connections", row.get::<_, i64>(1))
        .with("max", row.get::<_, &str>(2))
        .with("tls", row.get::<_, &str>(3)))
}
