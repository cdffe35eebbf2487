//! obyra-db: makes a written PostgreSQL strategy true, keeps it true and proves it.
//!
//! From here to an effect: `main` → `commands::run` → one file per verb → a capability's
//! `observe`, `plan`, `apply` → a session.

mod cli;
mod clock;
mod commands;
mod confirm;
mod credentials;
mod environment;
mod facts;
mod invocation;
mod passwords;
mod printer;
mod progress;
mod repository;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use obyra_evidence::{Exit, Failure, text};
use tokio::runtime::Builder;

use crate::cli::Arguments;
use crate::invocation::Invocation;

/// By convention 128 + SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let mut builder = if arguments.verb.reads_one_stream() {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    let runtime = match builder.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(text::cli::RUNTIME).because(error);
            Invocation::new(arguments.common).printer.failure(&failure);
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let mut invocation = Invocation::new(arguments.common);
    let before = invocation.printer;
    // What runs until it is interrupted has something to put in order then.
    let ends_itself = arguments.verb.ends_itself();
    let outcome = tokio::select! {
        outcome = commands::run(&mut invocation, arguments.verb) => Some(outcome),
        _ = interrupted(), if !ends_itself => None,
    };
    match outcome {
        Some(Ok(_)) if printer::output_is_unwritable() => ExitCode::from(Exit::Failed as u8),
        Some(Ok(code)) => code,
        Some(Err(failure)) => {
            invocation.printer.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
        // Dropping the work closed its sessions: the server rolls back what was not committed.
        None => {
            before.failure(&Failure::new(text::cli::INTERRUPTED));
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Ctrl-C, or the SIGTERM that a container platform sends.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// `--help` and `--version` are no errors; everything else on the command line exits with 64.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is the reader's choice.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(Exit::Usage as u8),
    }
}
