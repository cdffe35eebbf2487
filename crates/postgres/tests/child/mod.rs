//! Tests that need a process of their own: to be killed, or to be another user.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Set in the child: what it should work on.
const VARIABLE: &str = "OBYRA_TEST_CHILD";

/// What this process should work on, if it is a child.
pub fn subject() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// This test program again, with one of its tests alone.
#[expect(clippy::disallowed_methods, reason = "a test that needs another process")]
fn again(program: &Path, test: &str, subject: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]).env(VARIABLE, subject).stdin(Stdio::null());
    command
}

/// A child of this user.
pub fn same_user(test: &str, subject: &Path) -> Command {
    again(&env::current_exe().unwrap(), test, subject)
}

/// A child of an ordinary user, and the folder that it owns; `None` unless we are root. The test
/// program is copied to where that user can reach it.
pub fn ordinary_user(test: &str) -> Option<(Command, tempfile::TempDir)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let nobody = 65534;
    let home = tempfile::Builder::new().prefix("ordinary-").tempdir_in("/tmp").unwrap();
    let program = home.path().join("tests");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(home.path(), Some(nobody), Some(nobody)).unwrap();
    let mut command = again(&program, test, home.path());
    command.uid(nobody).gid(nobody).current_dir(home.path()).env("HOME", "/nonexistent").env_remove("TMPDIR");
    Some((command, home))
}
