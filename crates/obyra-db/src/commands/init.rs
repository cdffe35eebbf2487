//! `init` writes a strategy file; `schema` prints what editors validate it with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use obyra_evidence::{Exit, Failure, text};
use obyra_strategy::Strategy;

use crate::cli::{Init, Template};
use crate::invocation::Invocation;

/// Writes a template; an existing file is never overwritten.
pub fn init(invocation: &Invocation, arguments: &Init) -> Result<Exit, Failure> {
    let name = match arguments.template {
        Template::Obyra => "obyra",
        Template::Minimal => "minimal",
    };
    let template = Strategy::default_template(name, invocation.printer.language);
    let file = &arguments.output;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .and_then(|mut out| out.write_all(template.as_bytes()))
        .map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Failure::refused(text::cli::INIT_EXISTS.with("file", file.display()))
                .mended_by(text::cli::INIT_EXISTS_MEND),
            _ => Failure::new(text::cli::FILE_UNUSABLE.with("file", file.display())).because(e),
        })?;
    invocation.printer.note(text::cli::INIT_WRITTEN.with("file", file.display()));
    Ok(Exit::Done)
}

/// Prints the JSON Schema.
pub fn schema(invocation: &Invocation) -> Exit {
    invocation.printer.json(&obyra_strategy::schema());
    Exit::Done
}
