//! Starting PostgreSQL's programs: the one place of this room where children are made, so that
//! none inherits a `PG*` variable, a locale or root's identity.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use obyra_evidence::{Failure, text};
use rustix::io::Errno;

use super::files;
use super::user::ServerUser;
use crate::Result;

/// How much of a program's complaint is worth reading.
const COMPLAINT_LINES: usize = 12;

/// A program that runs as this process's user, with its environment less what would lead
/// PostgreSQL's programs astray.
pub(super) fn client(program: &Path, lib_dir: Option<&Path>) -> Command {
    let mut command = plain(program);
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    localise(&mut command, lib_dir);
    command
}

/// A program that runs as the server's user. Its environment is empty but for what it needs: it may
/// outlive us, and others can make it tell (`COPY … FROM PROGRAM`).
pub(super) fn server(program: &Path, lib_dir: Option<&Path>, user: &ServerUser) -> Command {
    let mut command = plain(program);
    command.env_clear();
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
    localise(&mut command, lib_dir);
    if user.switched {
        // The standard library clears the supplementary groups when root becomes another user.
        command.uid(user.uid).gid(user.gid);
    }
    // PostgreSQL's programs want a folder they can enter, and ours may be closed to that user.
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A program in this process's own environment, such as Python with the user's settings of pip.
#[expect(clippy::disallowed_methods, reason = "the named place where this room's children are made")]
pub(super) fn plain(program: &Path) -> Command {
    Command::new(program)
}

fn localise(command: &mut Command, lib_dir: Option<&Path>) {
    // Messages are read by this program: they stay in English.
    command.env("LC_ALL", "C").env_remove("LANGUAGE");
    if let Some(lib_dir) = lib_dir {
        command.env("LD_LIBRARY_PATH", lib_dir);
    }
}

/// Runs a program to its end. It ends with us if we are interrupted.
pub(super) async fn output(command: Command) -> io::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// Runs a program of the server's user to its end and returns what it wrote.
pub(super) async fn run(command: Command, user: &ServerUser) -> Result<String> {
    let program = Path::new(command.get_program()).to_path_buf();
    let output = output(command).await.map_err(|e| cannot_run(&program, user, &e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(text::cluster::TOOL_FAILED.with("program", program.display()))
        .because(complaint(&output)))
}

/// What a failed program said.
pub(super) fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
    match files::last_lines(&said, COMPLAINT_LINES) {
        silent if silent.is_empty() => output.status.to_string(),
        lines => lines,
    }
}

/// The failure to start a program at all.
pub(super) fn cannot_run(program: &Path, user: &ServerUser, error: &io::Error) -> Failure {
    let failure = Failure::new(text::cluster::TOOL_MISSING.with("program", program.display())).because(error);
    let mend = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM) if user.switched => text::cluster::CANNOT_SWITCH_USER_MEND.with("user", &user.name),
        Some(Errno::ACCESS) => text::cluster::NO_EXEC_MEND.with("program", program.display()),
        _ => return failure,
    };
    failure.mended_by(mend)
}
