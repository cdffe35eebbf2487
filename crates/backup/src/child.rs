//! PostgreSQL's programs as children whose pipes are ours: what they complain of, and how they ended.

use std::process::Stdio;

use obyra_evidence::{Failure, Message};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::Result;

/// Lines of a complaint that are worth reading.
const LINES: usize = 6;

/// Starts a program. It ends with the value that is returned.
pub(crate) fn spawn(mut command: Command, what: impl Into<Message>) -> Result<Child> {
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|e| Failure::new(what).because(e))
}

/// What a program complains of, read as it comes so that it never waits for us.
pub(crate) fn complaint(child: &mut Child) -> impl Future<Output = String> + use<> {
    let stderr = child.stderr.take();
    async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // A pipe that breaks ends the complaint; the exit code still tells.
            let _ = stderr.read_to_end(&mut said).await;
        }
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.trim().lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Waits for its end; one that is not good is told in the program's own words.
pub(crate) async fn ended(child: &mut Child, what: impl Into<Message>, said: String) -> Result<()> {
    let what = what.into();
    let status = child.wait().await.map_err(|e| Failure::new(what.clone()).because(e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(what).because(if said.is_empty() { status.to_string() } else { said }))
}
