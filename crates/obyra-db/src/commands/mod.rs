//! One file for each verb.

mod access;
pub mod backup;
pub mod baseline;
mod check;
pub mod ci;
pub mod converge;
mod demo;
mod deployed;
mod evidence;
mod exec;
mod findings;
pub mod gate;
mod init;
pub mod migrate;
mod paperwork;
pub mod runtime;
pub mod scan;
pub mod seed;
pub mod stamp;
mod status;
mod up;

use std::process::ExitCode;

use obyra_evidence::{Exit, Failure};

use crate::cli::Verb;
use crate::invocation::Invocation;

/// Runs a verb and tells how it ended.
pub async fn run(invocation: &mut Invocation, verb: Verb) -> Result<ExitCode, Failure> {
    let exit = match verb {
        Verb::Init(arguments) => init::init(invocation, &arguments)?,
        Verb::Schema => init::schema(invocation),
        Verb::Demo(arguments) => demo::demo(invocation, &arguments).await?,
        Verb::Up(arguments) => up::up(invocation, &arguments).await?,
        Verb::Down(arguments) => up::down(invocation, &arguments.environment).await?,
        Verb::Plan(arguments) => converge::plan(invocation, &arguments.environment).await?,
        Verb::Apply(arguments) => converge::apply(invocation, &arguments).await?,
        Verb::Check(arguments) => check::check(invocation, &arguments).await?,
        Verb::Status(arguments) => status::status(invocation, &arguments).await?,
        Verb::Exec(arguments) => return exec::exec(invocation, &arguments).await,
        Verb::Url(arguments) => exec::url(invocation, &arguments).await?,
        Verb::Access(verb) => access::access(invocation, &verb).await?,
        Verb::Migrate(verb) => migrate::migrate(invocation, &verb).await?,
        Verb::Seed(verb) => seed::seed(invocation, &verb).await?,
        Verb::Backup(verb) => return backup::backup(invocation, &verb).await,
        Verb::Evidence(verb) => evidence::evidence(invocation, &verb)?,
        Verb::Completions { shell } => paperwork::completions(invocation, shell),
        Verb::Man { folder } => paperwork::man(&folder)?,
    };
    Ok(code(exit))
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}
