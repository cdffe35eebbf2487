//! Tests that need a process of their own: to be killed, or to be another user.

#![allow(dead_code, reason = "each test program uses some of it")]

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

/// `nobody` everywhere.
pub const NOBODY: u32 = 65534;

/// A child of an ordinary user, and the folder that it owns; `None` unless we are root. The test
/// program is copied to where that user can reach it, and its home cannot be written.
pub fn ordinary_user(test: &str, uid: u32) -> Option<(Command, tempfile::TempDir)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let home = tempfile::Builder::new().prefix("ordinary-").tempdir_in("/tmp").unwrap();
    let program = home.path().join("tests");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(home.path(), Some(uid), Some(uid)).unwrap();
    let mut command = again(&program, test, home.path());
    command.uid(uid).gid(uid).current_dir(home.path()).env("HOME", "/nonexistent").env("TMPDIR", home.path());
    Some((command, home))
}
