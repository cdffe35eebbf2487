//! `demo`: the whole strategy on a throw-away embedded PostgreSQL, with a real Flask application.
//!
//! Everything stays in the demo's own folder, and nothing is left running. A second run finds
//! the first one's database and changes nothing.

mod mistake;
mod page;
mod unpack;

use std::path::{Path, PathBuf};

use obyra_evidence::{Exit, Failure, text};
use obyra_postgres::cluster::{Embedded, Purpose, reachable_dir};
use obyra_postgres::{Limits, Session, sql_failure};

use crate::cli::{Consent, Demo, Format};
use crate::commands::converge::Detail;
use crate::commands::{check, converge, up};
use crate::environment::Opened;
use crate::invocation::Invocation;

const ENVIRONMENT: &str = "dev";
const YES: Consent = Consent { yes: true };

/// Runs the demo.
pub async fn demo(invocation: &mut Invocation, arguments: &Demo) -> Result<Exit, Failure> {
    // Root's server runs as another user: where that user cannot enter, the whole demo goes elsewhere, in one piece.
    let place = reachable_dir(&arguments.dir, Purpose::Cluster)?;
    let folder = unpack::unpack(&place, invocation.printer.language)?;
    let mut invocation = invocation.of_demo(&folder);
    let strategy = invocation.strategy()?;
    let opened = Opened::new(&invocation, &strategy, ENVIRONMENT)?;
    let _stopped_at_the_end = StopWhenDropped(opened.cluster_folder());
    invocation.printer.note(text::cli::DEMO_FOLDER.with("folder", folder.display()));

    up::bring_up(&opened, YES).await?;

    invocation.printer.heading(text::cli::DEMO_ROLES);
    let mut page = page::Page::start(&opened).await?;
    page.show(invocation.printer).await?;
    refusals(&opened).await?;

    invocation.printer.heading(text::cli::DEMO_DRIFT);
    drift(&opened).await?;

    invocation.printer.heading(text::cli::DEMO_MISTAKE);
    mistake::mistake(&opened).await?;

    invocation.printer.heading(text::cli::DEMO_AGAIN);
    up::bring_up(&opened, YES).await?;

    invocation.printer.heading(text::cli::DEMO_CHECK);
    check::check_opened(&opened, Format::Text).await?;
    if arguments.stay {
        invocation.printer.note(text::cli::DEMO_STAYS.with("url", page.url()));
        page.until_it_ends().await?;
    }
    invocation.printer.note(text::cli::DEMO_DONE.with("config", folder.join("obyra-db.toml").display()));
    Ok(Exit::Done)
}

/// What the roles may not do, refused by the server itself.
async fn refusals(opened: &Opened<'_>) -> Result<(), Failure> {
    let attempts = [
        ("obyra_readonly", "SELECT password_hash FROM users"),
        ("obyra_readonly", "UPDATE projects SET name = 'x'"),
        ("obyra_app", "CREATE TABLE made_by_the_application (id int)"),
        ("obyra_app", "UPDATE alembic_version SET version_num = 'x'"),
    ];
    for (role, sql) in attempts {
        let session = Session::connect(&opened.role(role).await?, Limits::default()).await?;
        let told = text::cli::DEMO_ATTEMPT.with("role", role).with("sql", sql);
        match session.batch_execute(sql).await {
            Err(error) if error.as_db_error().is_some() => {
                let answer = error.as_db_error().map(|e| e.message().to_owned()).unwrap_or_default();
                opened.invocation.printer.line(told.with("answer", answer));
            }
            Err(error) => return Err(sql_failure(told.with("answer", ""), &error)),
            Ok(()) => {
                return Err(Failure::new(text::cli::DEMO_NOT_REFUSED.with("role", role).with("sql", sql)));
            }
        }
    }
    Ok(())
}

/// Somebody grants too much by hand; `plan` names it, `apply` mends it.
async fn drift(opened: &Opened<'_>) -> Result<(), Failure> {
    let sql = "GRANT UPDATE ON users TO obyra_readonly";
    let session = opened.session().await?;
    session
        .batch_execute(sql)
        .await
        .map_err(|e| sql_failure(text::cli::DEMO_BY_HAND.with("sql", sql), &e))?;
    opened.invocation.printer.line(text::cli::DEMO_BY_HAND.with("sql", sql));
    converge::apply_opened(opened, YES, Detail::Sql).await
}

/// Stops the cluster however the demo ends: done, failed, or dropped by Ctrl-C.
struct StopWhenDropped(PathBuf);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        let folder = self.0.clone();
        // The runtime that runs us may be ending; stopping needs one that is not.
        let stopping = std::thread::spawn(move || stop(&folder));
        // A panic in there has nothing left to tell.
        let _ = stopping.join();
    }
}

fn stop(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        // A server that does not stop is found and reused by the next run.
        let _ = runtime.block_on(Embedded::down(folder));
    }
}
