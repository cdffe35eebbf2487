//! `completions` and `man`: what packagers install beside the binary.

use std::path::Path;

use clap::CommandFactory;
use obyra_evidence::{Exit, Failure, text};

use crate::cli::Arguments;
use crate::invocation::Invocation;

/// Prints the completions for a shell.
pub fn completions(invocation: &Invocation, shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "obyra-db", &mut script);
    invocation.printer.data(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// Writes one manual page for each verb.
pub fn man(folder: &Path) -> Result<Exit, Failure> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .map_err(|e| Failure::new(text::cli::FILE_UNUSABLE.with("file", folder.display())).because(e))?;
    Ok(Exit::Done)
}
